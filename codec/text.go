package codec

import (
	"encoding/binary"
	"unicode/utf8"
	"unsafe"
)

// maxShortText is the length up to which isASCII is faster than package utf8.
const maxShortText = 64

// isValid says whether s is UTF-8.
func isValid(s string) bool {
	return len(s) <= maxShortText && isASCII(s) || utf8.ValidString(s)
}

// isASCII says whether s is ASCII. It looks at eight bytes at a time, at some of
// the last ones twice.
func isASCII(s string) bool {
	const high = 0x8080808080808080
	b := unsafe.Slice(unsafe.StringData(s), len(s))
	if len(b) < 8 {
		all := byte(0)
		for _, c := range b {
			all |= c
		}
		return all < utf8.RuneSelf
	}
	all := binary.LittleEndian.Uint64(b[len(b)-8:])
	for ; len(b) > 8; b = b[8:] {
		all |= binary.LittleEndian.Uint64(b)
	}
	return all&high == 0
}
