package rpc

import (
	"context"
	"errors"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/mux"
)

// Code classifies an error. The names are those of gRPC and Connect; there is no
// code for success. String returns the name, for example "not_found", and Number the
// code's number on the wire, for example 404.
type Code = code.Code

// The codes. Each has a number on the wire, which resembles an HTTP status
// (protocol section 6.5).
const (
	Canceled           = code.Canceled           // the caller gave up
	Unknown            = code.Unknown            // no code is known: a plain error of a service, or a foreign code
	InvalidArgument    = code.InvalidArgument    // the arguments make no sense, whatever the state of the system
	DeadlineExceeded   = code.DeadlineExceeded   // the time limit passed first
	NotFound           = code.NotFound           // no such service, method, property, task or entity
	AlreadyExists      = code.AlreadyExists      // it exists already
	PermissionDenied   = code.PermissionDenied   // the caller is known but not allowed
	ResourceExhausted  = code.ResourceExhausted  // a limit was reached; trying later may work
	FailedPrecondition = code.FailedPrecondition // the system is not in the required state
	Aborted            = code.Aborted            // a conflict, for example of concurrent changes
	OutOfRange         = code.OutOfRange         // past the valid range
	Unimplemented      = code.Unimplemented      // not supported here
	Internal           = code.Internal           // something is broken; the text is not for strangers
	Unavailable        = code.Unavailable        // not reachable now; the request may or may not have been served
	DataLoss           = code.DataLoss           // data is gone or corrupt
	Unauthenticated    = code.Unauthenticated    // the caller is not known
)

// coder is implemented by errors of other packages of this module, whose texts may
// travel.
type coder interface {
	error
	NetronCode() code.Code
}

// CodeOf returns the code of an error of this package, and for other errors the
// one that they would travel with: [Canceled] and [DeadlineExceeded] for those of
// package context, else [Unknown]. For nil it returns 0.
func CodeOf(err error) Code {
	if err == nil {
		return 0
	}
	return asError(err).Code
}

// asError returns the error as it travels: the first *Error in its tree, an error
// that describes itself, or a new one with only the message.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if d, ok := errors.AsType[Describer](err); ok {
		if e := d.NetronError(); e != nil {
			return e
		}
	}
	if c, ok := errors.AsType[coder](err); ok {
		return &Error{Code: c.NetronCode(), Message: c.Error(), cause: err}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, mux.ErrTimeout):
		return &Error{Code: DeadlineExceeded, Message: "deadline exceeded", cause: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: "canceled", cause: err}
	}
	return &Error{Code: Unknown, Message: err.Error(), cause: err}
}
