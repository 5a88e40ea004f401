package engine

// Handler is what a connection drives.
//
// Message, ReadDone and Closed are called by the owner of the read side, one at a
// time. They must not block: what takes long belongs on another goroutine. A
// panic in one of the methods ends the connection with code 1011, and nothing
// else.
type Handler interface {
	// Message receives one whole WebSocket message. p is lent until Message
	// returns; it may be modified in place. [Conn.TakeMessage] may give its memory away.
	Message(text bool, p []byte)

	// ReadDone is called after the last Message of one read from the socket: the
	// moment to flush.
	ReadDone()

	// Collect appends framed bytes that are ready for the socket to dst and
	// returns it; when nothing is appended there is nothing to send. It is called
	// by the holder of the write role, one at a time, possibly concurrently with
	// the other methods except Closed. The connection borrows the slices until the
	// next Collect or Closed; it may shorten the elements of the outer slice, but
	// does not change the bytes.
	Collect(dst [][]byte) [][]byte

	// Closed is called exactly once, last, with the reason: a [*CloseError] if a
	// close frame was sent or received, never nil.
	Closed(err error)
}

// discard is the handler of a connection that is closed before it got one.
type discard struct{}

func (discard) Message(bool, []byte)          {}
func (discard) ReadDone()                     {}
func (discard) Collect(dst [][]byte) [][]byte { return dst }
func (discard) Closed(error)                  {}
