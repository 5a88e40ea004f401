package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/mux"
)

// Error is an error that travels between peers. A service returns one to choose
// the code, details and fields that its callers see; callers find one with
// [errors.As] or [errors.AsType]. Any other error of a service travels as its
// message alone.
//
// [errors.Is] reports true for [context.DeadlineExceeded] and [context.Canceled]
// where the code says the same. An Error must not be changed after it was
// returned.
type Error struct {
	// Code classifies the error. Zero means [Unknown].
	Code Code

	// Message is for people.
	Message string

	// Details is any value that the codec encodes; nil means none.
	Details any

	// Name is the class name that TypeScript peers see and send. Empty means
	// "Error".
	Name string

	// Fields are further members of the error, by name. A field named "code" takes
	// the place of Code's number on the wire: the service's own code.
	Fields map[string]any

	number int  // the number that came over the wire for Code, kept for relaying
	remote bool // it came over the wire
	sent   sentness
	cause  error // stays in this process
}

// Describer is implemented by errors of applications that say how they travel.
type Describer interface {
	error

	// NetronError returns the error to send; nil means by its text.
	NetronError() *Error
}

// Errorf returns an error with a code and a formatted message. What %w wraps
// stays in this process, except for its text.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Error returns the message, after the code and the name if there are any, and
// before the local cause, which does not travel.
func (e *Error) Error() string {
	s := e.Message
	if e.cause != nil {
		if cause := e.cause.Error(); !strings.Contains(s, cause) {
			s += ": " + cause
		}
	}
	if e.Name != "" && e.Name != "Error" {
		s = e.Name + ": " + s
	}
	if e.Code != 0 && e.Code != Unknown {
		s = e.Code.String() + ": " + s
	}
	return s
}

// Unwrap returns the local cause, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// Is makes errors.Is work for the errors of package context.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	case context.Canceled:
		return e.Code == Canceled
	}
	return false
}

// Remote reports whether the peer sent the error, rather than this process.
func (e *Error) Remote() bool { return e.remote }

// appendError appends the error as it travels: extension 126 with code, details
// and fields, and without a stack. An error with details or fields that have no
// form on the wire travels without them.
//
// Protocol section 6.5.
func appendError(dst []byte, err error) []byte {
	e := asError(err)
	w := codec.Error{Kind: errorKind(e.Name), Name: e.Name, Message: e.Message}
	if n := e.wireNumber(); n != 0 {
		w.Fields = append(w.Fields, codec.Field{Name: fieldCode, Value: n})
	}
	if e.Details != nil {
		w.Fields = append(w.Fields, codec.Field{Name: fieldDetails, Value: e.Details})
	}
	for _, name := range slices.Sorted(maps.Keys(e.Fields)) {
		if name != fieldDetails || e.Details == nil {
			w.Fields = append(w.Fields, codec.Field{Name: name, Value: e.Fields[name]})
		}
	}
	out, encodeErr := codec.Append(dst, &w)
	if encodeErr == nil {
		return out
	}
	w.Fields = w.Fields[:0]
	if n := e.wireNumber(); n != 0 {
		w.Fields = append(w.Fields, codec.Field{Name: fieldCode, Value: n})
	}
	if out, encodeErr = codec.Append(dst, &w); encodeErr != nil {
		panic("BUG: error without fields does not encode: " + encodeErr.Error())
	}
	return out
}

const (
	fieldCode    = "code"
	fieldDetails = "details"
)

// wireNumber returns the number to send as the field "code", 0 for none.
func (e *Error) wireNumber() int {
	if _, own := e.Fields[fieldCode]; own {
		return 0
	}
	if e.number != 0 && code.ForNumber(e.number) == e.Code {
		return e.number
	}
	return e.Code.Number()
}

// errorKind returns the JavaScript constructor for a class name.
func errorKind(name string) codec.ErrorKind {
	switch name {
	case "SyntaxError":
		return codec.KindOfSyntaxError
	case "TypeError":
		return codec.KindOfTypeError
	case "ReferenceError":
		return codec.KindOfReferenceError
	case "RangeError":
		return codec.KindOfRangeError
	case "EvalError":
		return codec.KindOfEvalError
	case "URIError":
		return codec.KindOfURIError
	}
	return codec.KindOfError
}

// decodeError reads the error that a peer sent, in whatever form.
func decodeError(payload []byte, lim codec.Limits) *Error {
	d := codec.NewDecoder(payload, lim)
	v, err := d.ErrorValue()
	if err != nil {
		return &Error{Code: Internal, Message: "the peer sent an error that cannot be read", remote: true, cause: err}
	}
	e := &Error{Code: Unknown, remote: true}
	switch v := v.(type) {
	case nil:
		e.Message = "the peer sent an error without a value"
	case *codec.TitanError:
		e.Message = v.Message
		e.setName(v.Name)
		e.setCode(int64(v.Code))
		if len(v.Details) > 0 {
			e.Details = fieldMap(v.Details)
		}
		if len(v.Extras) > 0 {
			e.Fields = fieldMap(v.Extras)
		}
	case *codec.Error:
		e.Message = v.Message
		e.setName(v.Name)
		for _, f := range v.Fields {
			switch f.Name {
			case fieldCode:
				e.setCode(f.Value)
			case fieldDetails:
				e.Details = f.Value
			default:
				e.setField(f.Name, f.Value)
			}
		}
	default:
		e.Message = v.Error()
	}
	return e
}

func (e *Error) setName(name string) {
	if name != "Error" && name != "TitanError" {
		e.Name = name
	}
}

// setCode takes a code from the wire. One that is not among ours stays a field.
func (e *Error) setCode(v any) {
	if n, ok := v.(int64); ok && n > 0 && n < 1000 {
		if c := code.ForNumber(int(n)); c != Unknown {
			e.Code, e.number = c, int(n)
			return
		}
	}
	e.setField(fieldCode, v)
}

func (e *Error) setField(name string, v any) {
	if e.Fields == nil {
		e.Fields = make(map[string]any)
	}
	e.Fields[name] = v
}

func fieldMap(fields codec.Fields) map[string]any {
	m := make(map[string]any, len(fields))
	for _, f := range fields {
		m[f.Name] = f.Value
	}
	return m
}

// ErrWouldBlock is wrapped by the error of a call that was asked to wait by code
// which must not: an inline method, or the callback of [Stub.CallFunc]. Nothing was
// sent.
var ErrWouldBlock = mux.ErrWouldBlock

// callError turns what package mux reports about a call into an Error.
func callError(err error) *Error {
	if e, ok := err.(*Error); ok {
		return e
	}
	switch {
	case errors.Is(err, mux.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Message: "no answer in time", cause: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: "the call was canceled", cause: err}
	case errors.Is(err, mux.ErrTooManyCalls):
		return &Error{Code: ResourceExhausted, Message: "too many calls wait for answers", cause: err}
	case errors.Is(err, mux.ErrWouldBlock):
		return &Error{Code: FailedPrecondition, Message: "this code must not wait", cause: err}
	}
	return &Error{Code: Unavailable, Message: "the peer is not reachable", cause: err}
}
