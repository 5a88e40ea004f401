package redisbus

import (
	"fmt"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/pubsub"
)

// Error is an error of a bridge. Nothing that is emitted fails with one: what goes wrong
// between nodes is counted.
type Error struct {
	// Code says what kind of error it is: invalid_argument for what [New] was given and for
	// arguments that do not fit, unavailable while Redis is away and after [Bridge.Close],
	// canceled and deadline_exceeded for contexts.
	Code pubsub.Code

	// Message is for people.
	Message string

	cause error
}

// Error returns the message, and the cause if there is one.
func (e *Error) Error() string {
	if e.cause != nil {
		return "redisbus: " + e.Message + ": " + e.cause.Error()
	}
	return "redisbus: " + e.Message
}

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// NetronCode returns the code. Package rpc calls it for errors that travel.
func (e *Error) NetronCode() pubsub.Code { return e.Code }

// ErrClosed is the error of a bridge that was closed.
var ErrClosed error = &Error{Code: code.Unavailable, Message: "the bridge is closed"}

func errorf(c pubsub.Code, format string, args ...any) error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}
