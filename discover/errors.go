package discover

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Code says what kind of error it is, as in package rpc.
type Code = code.Code

// Error is an error of this package.
type Error struct {
	// Code is invalid_argument for what makes no sense; unauthenticated,
	// permission_denied or failed_precondition when Redis will not do what it is asked
	// before somebody changes something; already_exists when another process has the id;
	// unavailable while Redis is away, does not answer or takes nothing, and after Close;
	// canceled and deadline_exceeded for contexts.
	Code Code

	// Message is for people.
	Message string

	cause error
}

// Error returns the message, and the cause if there is one.
func (e *Error) Error() string {
	if e.cause != nil {
		return "discover: " + e.Message + ": " + e.cause.Error()
	}
	return "discover: " + e.Message
}

// Unwrap returns the cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// NetronCode returns the code. Package rpc calls it for errors that travel.
func (e *Error) NetronCode() Code { return e.Code }

var (
	// ErrClosed is the error of a registry that was closed.
	ErrClosed error = &Error{Code: code.Unavailable, Message: "the registry is closed"}

	// ErrTaken is the error of [Registry.Err] when another process has registered under
	// the id of this one.
	ErrTaken error = &Error{Code: code.AlreadyExists, Message: "another process has registered under the id of this node"}

	errNotYet = errors.New("the first attempt is still under way")
)

func errorf(c Code, format string, args ...any) error {
	return &Error{Code: c, Message: fmt.Sprintf(format, args...)}
}

// refusals are the first words of answers of Redis that stay the same until somebody
// changes something there or here.
var refusals = map[string]Code{
	"WRONGPASS": code.Unauthenticated,
	"NOAUTH":    code.Unauthenticated,
	"NOPERM":    code.PermissionDenied,
	"DENIED":    code.PermissionDenied,
	"WRONGTYPE": code.FailedPrecondition,
}

// explain makes an error of what went wrong with Redis.
func explain(what string, err error) error {
	if _, ok := err.(*Error); ok || err == nil { // what wraps one of ours is not ours
		return err
	}
	e := &Error{Code: code.Unavailable, Message: what, cause: err}
	if refused, ok := rueidis.IsRedisErr(err); ok {
		word, _, _ := strings.Cut(refused.Error(), " ")
		if c, ok := refusals[word]; ok {
			e.Code = c
		}
		if strings.HasPrefix(refused.Error(), "The user executing the script can't") { // which is NOPERM within one
			e.Code = code.PermissionDenied
		}
		if strings.Contains(refused.Error(), "DB index") || strings.Contains(refused.Error(), "without any password configured") {
			e.Code = code.InvalidArgument
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok || isAlert(err) && strings.Contains(err.Error(), "certificate") {
		e.Code = code.Unauthenticated
	}
	switch {
	case errors.Is(err, context.Canceled):
		e.Code = code.Canceled
	case errors.Is(err, context.DeadlineExceeded):
		e.Code = code.DeadlineExceeded
	}
	return e
}

// isAlert reports whether the other side of TLS has said what is wrong.
func isAlert(err error) bool {
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "remote error"
}

// unanswered returns an error that says that Redis does not answer, if it was not ctx that
// has ended.
func unanswered(ctx context.Context, err error) error {
	e, ok := err.(*Error)
	if !ok || ctx.Err() != nil || e.Code != code.DeadlineExceeded && e.Code != code.Canceled {
		return err
	}
	late := *e
	late.Code = code.Unavailable
	return &late
}

// isCertain reports whether trying again is no use before somebody changes something.
func isCertain(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code != code.Unavailable && e.Code != code.Canceled && e.Code != code.DeadlineExceeded
}
