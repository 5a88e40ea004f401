package engine

import (
	"strings"
	"unicode/utf8"
)

// utf8Check validates text that comes in pieces cut anywhere. It reports bytes
// that no continuation can make valid as soon as they are there.
type utf8Check struct {
	part [utf8.UTFMax]byte // an unfinished rune
	n    int
}

// write takes the next piece and returns false when the text is invalid.
func (u *utf8Check) write(p []byte) bool {
	for u.n > 0 && len(p) > 0 {
		u.part[u.n] = p[0]
		u.n++
		p = p[1:]
		if utf8.FullRune(u.part[:u.n]) {
			if r, size := utf8.DecodeRune(u.part[:u.n]); r == utf8.RuneError && size == 1 {
				return false
			}
			u.n = 0
		}
	}
	end := len(p)
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		if last := p[len(p)-i:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				end = len(p) - i
			}
			break
		}
	}
	if !utf8.Valid(p[:end]) {
		return false
	}
	if end < len(p) {
		u.n = copy(u.part[:], p[end:])
	}
	return true
}

// complete reports whether the text may end here, and starts anew.
func (u *utf8Check) complete() bool {
	ok := u.n == 0
	u.n = 0
	return ok
}

// cutReason returns what fits into a close frame of reason, as valid UTF-8.
func cutReason(reason string) string {
	const room = maxControl - 2
	reason = strings.ToValidUTF8(reason, "\uFFFD")
	if len(reason) <= room {
		return reason
	}
	end := room
	for !utf8.RuneStart(reason[end]) {
		end--
	}
	return reason[:end]
}
