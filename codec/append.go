package codec

import (
	"encoding/binary"
	"math"
	"math/big"
	"time"
	"unicode/utf8"
)

// Limits of the wire and of what encoding accepts.
const (
	maxMapLen      = 65535 // peers refuse map32
	maxEncodeDepth = hardDepth
)

// maxExact is the largest magnitude up to which every integer is a float64.
const maxExact = 1 << 53

// AppendNil appends nil, which JavaScript reads as null.
func AppendNil(dst []byte) []byte { return append(dst, codeNil) }

// AppendUndefined appends undefined: the result of a method that has none.
func AppendUndefined(dst []byte) []byte { return append(dst, codeFixExt1, extUndefined, 0) }

// AppendBool appends a boolean.
func AppendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, codeTrue)
	}
	return append(dst, codeFalse)
}

// AppendInt appends an integer in the form that JavaScript peers expect: a
// MessagePack integer from -2^31 to 2^32-1, a float64 up to 2^53 in magnitude,
// and a BigInt (extension 120) beyond.
func AppendInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0:
		return AppendUint(dst, uint64(v))
	case v >= -32:
		return append(dst, byte(v))
	case v >= math.MinInt8:
		return append(dst, codeInt8, byte(v))
	case v >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, codeInt16), uint16(v))
	case v >= math.MinInt32:
		return binary.BigEndian.AppendUint32(append(dst, codeInt32), uint32(v))
	case v >= -maxExact:
		return appendFloat64(dst, float64(v))
	}
	return appendDecimal(dst, func(b []byte) []byte { return appendInt10(b, v) })
}

// AppendUint appends an unsigned integer like [AppendInt].
func AppendUint(dst []byte, v uint64) []byte {
	switch {
	case v <= math.MaxInt8:
		return append(dst, byte(v))
	case v <= math.MaxUint8:
		return append(dst, codeUint8, byte(v))
	case v <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, codeUint16), uint16(v))
	case v <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, codeUint32), uint32(v))
	case v <= maxExact:
		return appendFloat64(dst, float64(v))
	}
	return appendDecimal(dst, func(b []byte) []byte { return appendUint10(b, v) })
}

// AppendFloat appends a number. Like JavaScript it writes a whole one from -2^31
// to 2^32-1 as an integer, negative zero as 0, and every NaN as the same one.
func AppendFloat(dst []byte, v float64) []byte {
	// What int64 makes of a number beyond it differs between machines, but is no
	// integer of this range that equals it.
	i := int64(v)
	if float64(i) != v || i < math.MinInt32 || i > math.MaxUint32 {
		return appendFloat64(dst, v)
	}
	if uint64(i) <= math.MaxInt8 {
		return append(dst, byte(i))
	}
	return AppendInt(dst, i)
}

// jsNaN is the NaN that JavaScript writes; that of package math differs.
const jsNaN = 0x7ff8000000000000

func appendFloat64(dst []byte, v float64) []byte {
	bits := math.Float64bits(v)
	if v != v {
		bits = jsNaN
	}
	return binary.BigEndian.AppendUint64(append(dst, codeFloat64), bits)
}

// AppendString appends a string. Bytes that are not UTF-8 go out as U+FFFD each.
func AppendString(dst []byte, s string) []byte {
	if !isValid(s) {
		return appendRunes(dst, s)
	}
	return append(appendStringHeader(dst, len(s)), s...)
}

func appendRunes(dst []byte, s string) []byte {
	n := 0
	for _, r := range s {
		n += utf8.RuneLen(r)
	}
	dst = appendStringHeader(dst, n)
	for _, r := range s {
		dst = utf8.AppendRune(dst, r)
	}
	return dst
}

func appendStringHeader(dst []byte, n int) []byte {
	switch {
	case n < 32:
		return append(dst, codeFixStr|byte(n))
	case n <= math.MaxUint8:
		return append(dst, codeStr8, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, codeStr16), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, codeStr32), uint32(n))
}

// AppendBytes appends binary data, copying it.
func AppendBytes(dst, p []byte) []byte {
	switch n := len(p); {
	case n <= math.MaxUint8:
		dst = append(dst, codeBin8, byte(n))
	case n <= math.MaxUint16:
		dst = binary.BigEndian.AppendUint16(append(dst, codeBin16), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint32(append(dst, codeBin32), uint32(n))
	}
	return append(dst, p...)
}

// maxTimeMillis is the last moment that a JavaScript Date can hold.
const maxTimeMillis = 8_640_000_000_000_000

// AppendTime appends a moment (extension 125), cut to milliseconds. The wire has
// no form for moments before 1970 nor after the year 275760: they are an error
// wrapping [ErrRange], and dst comes back as it was.
func AppendTime(dst []byte, t time.Time) ([]byte, error) {
	ms := t.UnixMilli()
	if ms < 0 {
		return dst, &EncodeError{Msg: "time " + t.UTC().Format(time.RFC3339) + " is before 1970", Err: ErrRange}
	}
	if ms > maxTimeMillis {
		return dst, &EncodeError{Msg: "time is after the year 275760", Err: ErrRange}
	}
	return binary.BigEndian.AppendUint64(append(dst, codeFixExt8, extDate), uint64(ms)), nil
}

// AppendBigInt appends an integer of any size as a BigInt (extension 120), also
// when it is small; nil appends nil.
func AppendBigInt(dst []byte, v *big.Int) []byte {
	if v == nil {
		return AppendNil(dst)
	}
	return appendDecimal(dst, func(b []byte) []byte { return v.Append(b, 10) })
}

// appendDecimal appends extension 120 around the digits that digits appends.
func appendDecimal(dst []byte, digits func([]byte) []byte) []byte {
	// The length of the digits comes before them twice, so they are written
	// first to where they end up for all but huge numbers, then moved if needed.
	start := len(dst)
	dst = digits(dst)
	n := len(dst) - start
	var head [12]byte
	h := appendStringHeader(head[:0], n)
	var pre [12]byte
	p := append(AppendExtHeader(pre[:0], extBigInt, len(h)+n), h...)
	dst = append(dst, p...)
	copy(dst[start+len(p):], dst[start:start+n])
	copy(dst[start:], p)
	return dst
}

// AppendArrayHeader appends the header of an array of n values, which must follow.
func AppendArrayHeader(dst []byte, n int) []byte {
	switch {
	case n < 16:
		return append(dst, codeFixArray|byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, codeArray16), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(dst, codeArray32), uint32(n))
}

// AppendMapHeader appends the header of a map of n members, each a string and a
// value, which must follow. More than 65,535 members are an error wrapping
// [ErrLimit], because peers refuse the form that they would need.
func AppendMapHeader(dst []byte, n int) ([]byte, error) {
	switch {
	case n < 16:
		return append(dst, codeFixMap|byte(n)), nil
	case n <= maxMapLen:
		return binary.BigEndian.AppendUint16(append(dst, codeMap16), uint16(n)), nil
	}
	return dst, &EncodeError{Msg: "map of more than 65535 members", Err: ErrLimit}
}

// AppendExtHeader appends the header of an extension value of n bytes, which must follow.
func AppendExtHeader(dst []byte, typ byte, n int) []byte {
	switch n {
	case 1:
		return append(dst, codeFixExt1, typ)
	case 2:
		return append(dst, codeFixExt2, typ)
	case 4:
		return append(dst, codeFixExt4, typ)
	case 8:
		return append(dst, codeFixExt8, typ)
	case 16:
		return append(dst, codeFixExt16, typ)
	}
	switch {
	case n <= math.MaxUint8:
		return append(dst, codeExt8, byte(n), typ)
	case n <= math.MaxUint16:
		return append(binary.BigEndian.AppendUint16(append(dst, codeExt16), uint16(n)), typ)
	}
	return append(binary.BigEndian.AppendUint32(append(dst, codeExt32), uint32(n)), typ)
}

// extStart reserves room for the longest extension header; extEnd fills it in
// when the content is known, moving the content down to a shorter header.
const extRoom = 6

func extStart(dst []byte) []byte { return append(dst, 0, 0, 0, 0, 0, 0) }

func extEnd(dst []byte, start int, typ byte) []byte {
	n := len(dst) - start - extRoom
	h := AppendExtHeader(dst[:start], typ, n) // overwrites the reserved room only
	copy(dst[len(h):], dst[start+extRoom:])
	return dst[:len(h)+n]
}
