package pubsub

import (
	"context"
	"errors"
	"fmt"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Code classifies an [Error]. The codes are those of package rpc, which has their
// names: rpc.CodeOf(err) reads the code of every error of this package.
type Code = code.Code

// Error is an error of the bus itself. Errors of handlers are passed on as they are.
//
// [errors.Is] reports true for [context.DeadlineExceeded] and [context.Canceled] where
// the context of an emission ended it.
type Error struct {
	// Code says what kind of error it is: invalid_argument for names and patterns that
	// are none and for values that do not fit, permission_denied for internal names,
	// resource_exhausted for limits, internal for panics, unavailable after [Bus.Close],
	// canceled and deadline_exceeded for contexts.
	Code Code

	// Message is for people. It holds no text of a panic.
	Message string

	cause error
}

// Error returns the message, and the cause if there is one.
func (e *Error) Error() string {
	if e.cause != nil {
		return "pubsub: " + e.Message + ": " + e.cause.Error()
	}
	return "pubsub: " + e.Message
}

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// NetronCode returns the code. Package rpc calls it for errors that travel.
func (e *Error) NetronCode() Code { return e.Code }

// ErrClosed is the error of a bus that was closed.
var ErrClosed error = &Error{Code: code.Unavailable, Message: "the bus is closed"}

// ErrSlowReader ends a [Reader] with the policy [Disconnect] that did not read fast
// enough.
var ErrSlowReader error = &Error{Code: code.ResourceExhausted, Message: "the reader is too slow"}

// LostError tells a [Reader] that events are missing, in the place where they are
// missing. Reading goes on after it.
type LostError struct {
	// Count is how many events are missing here, at least 1.
	Count uint64
}

// Error says how many.
func (e *LostError) Error() string { return fmt.Sprintf("pubsub: %d events were lost", e.Count) }

// NetronCode returns data_loss.
func (e *LostError) NetronCode() Code { return code.DataLoss }

func errorf(c Code, format string, args ...any) error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// contextError says that a context has ended what was done.
func contextError(ctx context.Context, what string) error {
	err := ctx.Err()
	e := &Error{Code: code.Canceled, Message: what, cause: err}
	if errors.Is(err, context.DeadlineExceeded) {
		e.Code = code.DeadlineExceeded
	}
	return e
}
