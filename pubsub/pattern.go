package pubsub

import (
	"strings"
	"unicode/utf8"

	"github.com/d-e-v-grid/netron/internal/code"
)

const (
	separator = ":"
	wildcard  = "*"  // one segment
	wildRest  = "**" // one or more segments up to the end
)

// internalNames are the events that a node emits about itself. Those of services may
// travel (protocol section 9.3).
var internalNames = [...]string{
	"service:expose", "service:unexpose",
	"peer:connect", "peer:disconnect",
	"discovery:event",
}

// Internal reports whether the name is that of an event which nodes emit about
// themselves, like service:expose. The pattern * does not match these, nor does any
// other that begins with a wildcard. A bus may have more, see [Config].
func Internal(name string) bool {
	for _, n := range internalNames {
		if n == name {
			return true
		}
	}
	return false
}

// CheckName returns an error of code invalid_argument if name is no name of an event
// for a bus with the default limits. A name has segments separated by colons, as in
// order:created. No segment is empty, and none has an asterisk. Names are UTF-8.
func CheckName(name string) error { return checkName(name, defaultMaxNameBytes, defaultMaxSegments) }

// CheckPattern returns an error of code invalid_argument if pattern is none for a bus
// with the default limits. A pattern is a name in which a segment may be *, which
// stands for any one segment, and the last one may be **, which stands for one or more.
// The pattern * alone stands for all names but the internal ones, and so does ** alone.
//
// Protocol section 9.1.
func CheckPattern(pattern string) error {
	return checkPattern(pattern, defaultMaxNameBytes, defaultMaxSegments)
}

// Matches reports whether a pattern matches a name. Both should be valid. It takes the
// names of [Internal] for internal.
func Matches(pattern, name string) bool { return matches(pattern, name, Internal(name)) }

func matches(pattern, name string, internal bool) bool {
	if pattern == wildcard || pattern == wildRest {
		return !internal
	}
	if internal && strings.HasPrefix(pattern, wildcard) {
		return false
	}
	for {
		p, patternRest, morePattern := strings.Cut(pattern, separator)
		n, nameRest, moreName := strings.Cut(name, separator)
		switch {
		case p == wildRest:
			return true
		case p != wildcard && p != n:
			return false
		case !morePattern || !moreName:
			return morePattern == moreName
		}
		pattern, name = patternRest, nameRest
	}
}

func checkName(name string, maxBytes, maxSegments int) error {
	if err := checkSegments("name", name, maxBytes, maxSegments); err != nil {
		return err
	}
	if strings.Contains(name, wildcard) {
		return errorf(code.InvalidArgument, "name %q has an asterisk", name)
	}
	return nil
}

func checkPattern(pattern string, maxBytes, maxSegments int) error {
	if err := checkSegments("pattern", pattern, maxBytes, maxSegments); err != nil {
		return err
	}
	for rest, more := pattern, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, separator)
		switch {
		case segment == wildRest && more:
			return errorf(code.InvalidArgument, "pattern %q goes on after **", pattern)
		case segment == wildRest, segment == wildcard:
		case strings.Contains(segment, wildcard):
			return errorf(code.InvalidArgument, "pattern %q has an asterisk within a segment", pattern)
		}
	}
	return nil
}

// checkSegments checks what names and patterns have in common.
func checkSegments(what, s string, maxBytes, maxSegments int) error {
	switch {
	case s == "":
		return errorf(code.InvalidArgument, "the %s is empty", what)
	case len(s) > maxBytes:
		return errorf(code.InvalidArgument, "the %s has %d bytes, at most %d are allowed", what, len(s), maxBytes)
	case strings.Count(s, separator) >= maxSegments:
		return errorf(code.InvalidArgument, "%s %q has more than %d segments", what, s, maxSegments)
	case s[0] == ':' || s[len(s)-1] == ':' || strings.Contains(s, "::"):
		return errorf(code.InvalidArgument, "%s %q has an empty segment", what, s)
	case !utf8.ValidString(s):
		return errorf(code.InvalidArgument, "%s %q is not UTF-8", what, s)
	}
	return nil
}

// isLiteral reports whether a pattern has no wildcards, so that it matches one name.
func isLiteral(pattern string) bool { return !strings.Contains(pattern, wildcard) }
