// Package code has the codes of errors, which the packages of this module share.
// Package rpc exports them.
package code

// Code classifies an error. The names are those of gRPC and Connect; there is no
// code for success.
type Code uint8

// The codes. Each has a number on the wire, which resembles an HTTP status
// (protocol section 6.5).
const (
	Canceled           Code = iota + 1 // the caller gave up
	Unknown                            // no code is known: a plain error of a service, or a foreign code
	InvalidArgument                    // the arguments make no sense, whatever the state of the system
	DeadlineExceeded                   // the time limit passed first
	NotFound                           // no such service, method, property, task or entity
	AlreadyExists                      // it exists already
	PermissionDenied                   // the caller is known but not allowed
	ResourceExhausted                  // a limit was reached; trying later may work
	FailedPrecondition                 // the system is not in the required state
	Aborted                            // a conflict, for example of concurrent changes
	OutOfRange                         // past the valid range
	Unimplemented                      // not supported here
	Internal                           // something is broken; the text is not for strangers
	Unavailable                        // not reachable now; the request may or may not have been served
	DataLoss                           // data is gone or corrupt
	Unauthenticated                    // the caller is not known
)

// codes gives each code its name and its number on the wire, unique both ways.
var codes = [...]struct {
	name   string
	number int
}{
	Canceled:           {"canceled", 499},
	Unknown:            {"unknown", 0}, // never sent
	InvalidArgument:    {"invalid_argument", 400},
	DeadlineExceeded:   {"deadline_exceeded", 408},
	NotFound:           {"not_found", 404},
	AlreadyExists:      {"already_exists", 409},
	PermissionDenied:   {"permission_denied", 403},
	ResourceExhausted:  {"resource_exhausted", 429},
	FailedPrecondition: {"failed_precondition", 412},
	Aborted:            {"aborted", 423},
	OutOfRange:         {"out_of_range", 416},
	Unimplemented:      {"unimplemented", 501},
	Internal:           {"internal", 500},
	Unavailable:        {"unavailable", 503},
	DataLoss:           {"data_loss", 507},
	Unauthenticated:    {"unauthenticated", 401},
}

// String returns the name, for example "not_found"; "ok" for 0, which is no error.
func (c Code) String() string {
	switch {
	case c == 0:
		return "ok"
	case int(c) >= len(codes):
		return "invalid code"
	}
	return codes[c].name
}

// Number returns the code's number on the wire, for example 404; 0 for
// [Unknown], which is not sent.
func (c Code) Number() int {
	if int(c) >= len(codes) {
		return 0
	}
	return codes[c].number
}

// ForNumber maps a number of the wire to a code, [Unknown] if none fits.
func ForNumber(n int) Code {
	switch n {
	case 0:
		return Unknown
	case 504:
		return DeadlineExceeded
	case 413:
		return ResourceExhausted
	case 422:
		return InvalidArgument
	case 502:
		return Unavailable
	}
	for c := Canceled; int(c) < len(codes); c++ {
		if codes[c].number == n {
			return c
		}
	}
	return Unknown
}
