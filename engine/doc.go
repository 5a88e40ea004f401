// Package engine moves whole messages over WebSocket connections (RFC 6455).
//
// [Dial] and [Server] make a [Conn]; a [Handler] receives its messages and
// supplies what to send. The engine never looks inside a message, and knows
// nothing of what runs above it.
//
// # Reading
//
// One goroutine at a time owns the read side of a connection. It parses and
// unmasks frames in the read buffer and lends each message to Handler.Message. An
// idle connection over plain TCP holds no buffer.
//
// There are two drivers ([Driver]), which behave alike. The std driver has a
// goroutine for each connection. On the epoll driver the owner is a poller, which
// has many connections: a handler that blocks stops all of them.
//
// # Writing
//
// Whoever has something to send queues it where Handler.Collect finds it, and
// calls [Conn.Kick]. One caller at a time holds the write role, collects what
// everybody queued and writes it without blocking; when the socket is full, a
// goroutine of the connection or the poller takes over.
//
// # Ending
//
// [Conn.CloseWith] is the close handshake, [Conn.Close] the abrupt end. A peer
// that breaks the protocol gets a close frame with the code of RFC 6455 section
// 7.4, then the end of our direction, and at most Config.CloseTimeout to notice.
// Handler.Closed is the last call for every connection. A panic in a handler
// ends its connection alone.
//
// # Limits
//
// All limits of [Config] are on by default. Memory is taken for what has
// arrived, never for a length that was announced.
package engine
