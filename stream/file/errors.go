package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/d-e-v-grid/netron/internal/code"
)

// ErrChecksum is wrapped by the error of a file that did not arrive as it was sent: its
// size or its SHA-256 is another one. The code is data_loss.
var ErrChecksum error = &codedError{code: code.DataLoss, text: "size or checksum differs"}

var (
	errName       = &codedError{code: code.InvalidArgument, text: "not a name for a file"}
	errMetadata   = &codedError{code: code.InvalidArgument, text: "size or checksum make no sense"}
	errBody       = &codedError{code: code.InvalidArgument, text: "no body"}
	errTooLarge   = &codedError{code: code.ResourceExhausted, text: "too large"}
	errTooMany    = &codedError{code: code.ResourceExhausted, text: "too many files for one list"}
	errNoFile     = &codedError{code: code.NotFound, text: "not a regular file", cause: fs.ErrNotExist}
	errNotRegular = &codedError{code: code.FailedPrecondition, text: "what has the name is not a regular file"}
)

// codedError is an error whose text and code travel to peers. Its cause does not.
type codedError struct {
	code  code.Code
	text  string
	cause error
}

func (e *codedError) Error() string { return e.text }
func (e *codedError) Unwrap() error { return e.cause }

// NetronCode returns the code. Package rpc calls it for errors that travel.
func (e *codedError) NetronCode() code.Code { return e.code }

// failure says what was done when err happened. Errors of the system get a code, and lose
// the paths of this machine in their text. Those of bodies and contexts pass.
func failure(op, name string, err error) error {
	reason, isSystem := err, false
	for {
		if e, ok := errors.AsType[*fs.PathError](reason); ok {
			reason, isSystem = e.Err, true
		} else if e, ok := errors.AsType[*os.LinkError](reason); ok {
			reason, isSystem = e.Err, true
		} else {
			break
		}
	}
	coded, isCoded := errors.AsType[*codedError](err)
	switch {
	case isCoded:
		return &codedError{code: coded.code, text: describe(op, name, err), cause: err}
	case isSystem:
		return &codedError{code: systemCode(reason), text: describe(op, name, reason), cause: err}
	}
	return fmt.Errorf("file: %s %.256q: %w", op, name, err)
}

func describe(op, name string, reason error) string {
	return fmt.Sprintf("file: %s %.256q: %v", op, name, reason)
}

func systemCode(reason error) code.Code {
	_, isErrno := errors.AsType[syscall.Errno](reason)
	switch {
	case errors.Is(reason, fs.ErrNotExist):
		return code.NotFound
	case errors.Is(reason, fs.ErrExist), errors.Is(reason, syscall.ENOTDIR): // a file where a directory should be
		return code.FailedPrecondition
	case errors.Is(reason, fs.ErrClosed):
		return code.Unavailable
	case errors.Is(reason, fs.ErrPermission), !isErrno: // os.Root itself refuses links that lead out
		return code.PermissionDenied
	case errors.Is(reason, syscall.ENOSPC):
		return code.ResourceExhausted
	}
	return code.Internal
}
