// Package mux carries many calls over one message link.
//
// A [Session] runs the protocol of one connection: the handshake that tells
// peers apart (protocol section 3), request ids and pending calls, the bounded
// queue of outgoing packets, and the hand-over of incoming requests to a bounded
// pool of [Workers]. It moves payloads and never looks inside them.
//
// The session sits between a [Link] below (a WebSocket connection of package
// engine, or one end of a [Pipe]) and its owner above, which serves the
// [Request] values and makes calls with [Session.Call] and [Session.Start].
//
// All methods of a Session are safe for concurrent use, except the ones that the
// link calls (Message, ReadDone, Collect, Closed). When the connection is lost,
// every pending call fails at once with a [*LostError], and the session's
// context ends.
package mux
