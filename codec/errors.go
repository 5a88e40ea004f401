package codec

import (
	"errors"
	"fmt"
	"reflect"
	"strconv"
)

// What can be wrong with a message or a value. Errors of this package wrap one
// of them; test with [errors.Is].
var (
	// ErrTruncated means that the data ends inside a value, or that a header
	// announces more than the data can hold.
	ErrTruncated = errors.New("codec: truncated data")

	// ErrMalformed means bytes that are not MessagePack, or an extension whose
	// content breaks its format.
	ErrMalformed = errors.New("codec: malformed data")

	// ErrTrailing means that bytes follow the value.
	ErrTrailing = errors.New("codec: trailing bytes")

	// ErrLimit means that decoding would exceed one of the [Limits], or that a
	// value is too large for the wire.
	ErrLimit = errors.New("codec: limit exceeded")

	// ErrDepth means values nested too deep; it is an ErrLimit too. Encoding
	// reports it for cyclic values.
	ErrDepth = fmt.Errorf("codec: nested too deep: %w", ErrLimit)

	// ErrType means that the kind of value on the wire does not fit the Go target.
	ErrType = errors.New("codec: type mismatch")

	// ErrRange means a number or a time that its target cannot hold without loss.
	ErrRange = errors.New("codec: value out of range")

	// ErrMissing means that a call carries fewer arguments than it must.
	ErrMissing = errors.New("codec: missing argument")

	// ErrUnsupported means a Go type that has no form on the wire.
	ErrUnsupported = errors.New("codec: unsupported type")
)

// DecodeError says what could not be decoded and where.
type DecodeError struct {
	Path   string // of the value inside its message, such as "user.tags[3]"; empty for the message itself
	Offset int    // of the value in the message, in bytes
	Msg    string // what is wrong, without prefix
	Err    error  // one of the sentinels of this package, or the cause
}

// Error returns the path and the message.
func (e *DecodeError) Error() string { return message(e.Path, e.Msg) }

// Unwrap returns e.Err.
func (e *DecodeError) Unwrap() error { return e.Err }

// EncodeError says which part of a value could not be encoded.
type EncodeError struct {
	Path string // of the part inside the value; empty for the value itself
	Msg  string // what is wrong, without prefix
	Err  error  // one of the sentinels of this package, or the cause
}

// Error returns the path and the message.
func (e *EncodeError) Error() string { return message(e.Path, e.Msg) }

// Unwrap returns e.Err.
func (e *EncodeError) Unwrap() error { return e.Err }

func message(path, msg string) string {
	if path == "" {
		return "codec: " + msg
	}
	return "codec: " + path + ": " + msg
}

// atName puts the name of a member before the path of err.
func atName(err error, name string) error { return prefixPath(err, name) }

// atIndex puts the index of an element before the path of err.
func atIndex(err error, i int) error {
	return prefixPath(err, "["+strconv.Itoa(i)+"]")
}

func prefixPath(err error, head string) error {
	switch e := err.(type) {
	case *DecodeError:
		e.Path = joinPath(head, e.Path)
	case *EncodeError:
		e.Path = joinPath(head, e.Path)
	}
	return err
}

// maxPath keeps the error about a deeply nested value readable.
const maxPath = 256

func joinPath(head, tail string) string {
	switch {
	case len(head)+len(tail) > maxPath:
		return tail
	case tail == "" || tail[0] == '[':
		return head + tail
	}
	return head + "." + tail
}

func unsupported(t reflect.Type) error {
	return &EncodeError{Msg: "unsupported type " + t.String(), Err: ErrUnsupported}
}
