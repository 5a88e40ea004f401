package engine

import (
	"errors"
	"fmt"
	"strconv"
)

// Close codes (RFC 6455 section 7.4.1).
const (
	CloseNormal         uint16 = 1000
	CloseGoingAway      uint16 = 1001
	CloseProtocolError  uint16 = 1002
	CloseUnsupported    uint16 = 1003
	CloseNoStatus       uint16 = 1005 // never sent: a close frame came without a code
	CloseAbnormal       uint16 = 1006 // never sent
	CloseInvalidPayload uint16 = 1007
	ClosePolicy         uint16 = 1008
	CloseTooBig         uint16 = 1009
	CloseInternal       uint16 = 1011
)

// Reasons why a connection ended without a close frame. [Conn.Err] and
// [Handler.Closed] report errors that wrap one of these, or a [*CloseError].
var (
	// ErrClosed reports that Close was called on this side.
	ErrClosed = errors.New("engine: connection closed")
	// ErrLost reports that the connection broke, or that the peer ended it without a close frame.
	ErrLost = errors.New("engine: connection lost")
	// ErrPeerDead reports that nothing came from the peer, not even answers to
	// pings, for Config.PingTimeout.
	ErrPeerDead = errors.New("engine: peer is silent")
	// ErrWriteStall reports that the peer took no bytes for Config.WriteTimeout.
	ErrWriteStall = errors.New("engine: write stalled")
	// ErrFrameTimeout reports that half a message was received and nothing more
	// came for Config.FrameTimeout.
	ErrFrameTimeout = errors.New("engine: unfinished message timed out")
	// ErrPanic reports a panic in a method of the connection's Handler.
	ErrPanic = errors.New("engine: panic in handler")
	// ErrServerClosed is returned by Server.Serve after StopAccepting or Close.
	ErrServerClosed = errors.New("engine: server closed")
)

// CloseError says with which close frame a connection ended.
type CloseError struct {
	// Code is the close code; [CloseNoStatus] if the peer's frame had none.
	Code uint16
	// Reason is the text in the frame, at most 123 bytes.
	Reason string
	// Remote reports that the peer began the closing; otherwise this side did.
	Remote bool
	// Clean reports that both sides have sent their close frame.
	Clean bool
	// Err is what made this side close, if there is more to say than Reason:
	// [ErrFrameTimeout], [ErrPanic] or nil.
	Err error
}

// Error describes the close frame and who sent it.
func (e *CloseError) Error() string {
	who := "closed here"
	if e.Remote {
		who = "closed by peer"
	}
	s := "engine: " + who + " with code " + strconv.Itoa(int(e.Code))
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// CloseStatus returns code and reason, and whether the peer began the closing. It is for
// packages that do not import this one.
func (e *CloseError) CloseStatus() (code uint16, reason string, remote bool) {
	return e.Code, e.Reason, e.Remote
}

// Unwrap returns e.Err.
func (e *CloseError) Unwrap() error { return e.Err }

// HandshakeError says why a server refused the upgrade of [Dial].
type HandshakeError struct {
	// Status is the HTTP status code of the answer.
	Status int
	// Reason is the text of its status line.
	Reason string
}

// Error describes the refusal.
func (e *HandshakeError) Error() string {
	return fmt.Sprintf("engine: upgrade refused: %d %s", e.Status, e.Reason)
}

func protocolError(reason string) *CloseError {
	return &CloseError{Code: CloseProtocolError, Reason: reason}
}

func errInvalidText() *CloseError {
	return &CloseError{Code: CloseInvalidPayload, Reason: "text is not UTF-8"}
}
