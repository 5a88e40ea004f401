package mux

import "errors"

// Conditions that callers branch on.
var (
	// ErrClosed reports that the session has ended. Every [*LostError] wraps it.
	ErrClosed = errors.New("mux: session closed")

	// ErrTimeout reports that no answer came within the time limit of the call.
	ErrTimeout = errors.New("mux: no answer in time")

	// ErrTooManyCalls reports that too many calls of this session wait for answers.
	ErrTooManyCalls = errors.New("mux: too many calls in flight")

	// ErrWouldBlock reports that a call, or a wait for room in the outgoing queue, was
	// asked for by code that runs on the goroutine which reads a connection, and must
	// not block it. Nothing was sent.
	ErrWouldBlock = errors.New("mux: would block the goroutine that reads a connection")

	// ErrHandshake reports that the other side did not complete the handshake of
	// protocol section 3.
	ErrHandshake = errors.New("mux: handshake failed")
)

// LostError reports that the connection ended before the answer came.
type LostError struct {
	// Sent tells whether the request may have reached the peer. If it is false,
	// not a byte of the request left this process, and repeating the call is safe.
	Sent bool

	// Cause is why the connection ended.
	Cause error
}

// Error implements error.
func (e *LostError) Error() string {
	s := "mux: connection lost before the answer"
	if !e.Sent {
		s = "mux: connection lost before the request was sent"
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns [ErrClosed] and the cause.
func (e *LostError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrClosed}
	}
	return []error{ErrClosed, e.Cause}
}
