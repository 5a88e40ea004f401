package codec

import (
	"encoding/binary"
	"math"
	"math/big"
	"strconv"
	"strings"
)

type numberKind uint8

const (
	numInt   numberKind = iota // i
	numUint                    // u, above the largest int64
	numFloat                   // f
	numBig                     // b
)

// number is a number as it came, whatever its form.
type number struct {
	kind numberKind
	i    int64
	u    uint64
	f    float64
	b    *big.Int
}

func intNumber(i int64) number { return number{kind: numInt, i: i} }

func uintNumber(u uint64) number {
	if u <= math.MaxInt64 {
		return intNumber(int64(u))
	}
	return number{kind: numUint, u: u}
}

// String returns n for error messages, cut to a readable length.
func (n number) String() string {
	switch n.kind {
	case numInt:
		return strconv.FormatInt(n.i, 10)
	case numUint:
		return strconv.FormatUint(n.u, 10)
	case numFloat:
		return strconv.FormatFloat(n.f, 'g', -1, 64)
	}
	if n.b.BitLen() > 256 {
		return "an integer of " + strconv.Itoa(n.b.BitLen()) + " bits"
	}
	return n.b.String()
}

// whole returns n as an integer kind if it is a float without fraction in the
// range of int64 or uint64, else n itself.
func (n number) whole() number {
	switch {
	case n.kind == numBig && n.b.IsInt64():
		return intNumber(n.b.Int64())
	case n.kind == numBig && n.b.IsUint64():
		return uintNumber(n.b.Uint64())
	case n.kind != numFloat || n.f != math.Trunc(n.f):
		return n
	case n.f >= -(1<<63) && n.f < 1<<63:
		return intNumber(int64(n.f))
	case n.f >= 1<<63 && n.f < 1<<64:
		return uintNumber(uint64(n.f))
	}
	return n
}

// readNumber reads a number of any form. The cursor is at its first byte.
func (d *Decoder) readNumber() (number, error) {
	b := d.src[d.pos:]
	if len(b) == 0 {
		return number{}, d.truncated()
	}
	c := b[0]
	if c <= 0x7f || c >= 0xe0 {
		d.pos++
		return intNumber(int64(int8(c))), nil
	}
	var width int
	switch c {
	case codeUint8, codeInt8:
		width = 1
	case codeUint16, codeInt16:
		width = 2
	case codeUint32, codeInt32, codeFloat32:
		width = 4
	case codeUint64, codeInt64, codeFloat64:
		width = 8
	default:
		return d.readExtNumber()
	}
	if len(b) <= width {
		return number{}, d.truncated()
	}
	d.pos += 1 + width
	b = b[1:]
	switch c {
	case codeUint8:
		return intNumber(int64(b[0])), nil
	case codeInt8:
		return intNumber(int64(int8(b[0]))), nil
	case codeUint16:
		return intNumber(int64(binary.BigEndian.Uint16(b))), nil
	case codeInt16:
		return intNumber(int64(int16(binary.BigEndian.Uint16(b)))), nil
	case codeUint32:
		return intNumber(int64(binary.BigEndian.Uint32(b))), nil
	case codeInt32:
		return intNumber(int64(int32(binary.BigEndian.Uint32(b)))), nil
	case codeUint64:
		return uintNumber(binary.BigEndian.Uint64(b)), nil
	case codeInt64:
		return intNumber(int64(binary.BigEndian.Uint64(b))), nil
	case codeFloat32:
		return number{kind: numFloat, f: float64(math.Float32frombits(binary.BigEndian.Uint32(b)))}, nil
	}
	return number{kind: numFloat, f: math.Float64frombits(binary.BigEndian.Uint64(b))}, nil
}

// smallInt reads an integer of at most 32 bits, which any numeric type may be
// asked for without a loss to fear but of range. It reports false for other forms,
// and then has not moved.
func (d *Decoder) smallInt() (int64, bool) {
	b := d.src[d.pos:]
	if len(b) == 0 {
		return 0, false
	}
	c := b[0]
	switch {
	case c <= 0x7f || c >= 0xe0:
		d.pos++
		return int64(int8(c)), true
	case len(b) < 2:
	case c == codeUint8:
		d.pos += 2
		return int64(b[1]), true
	case c == codeInt8:
		d.pos += 2
		return int64(int8(b[1])), true
	case len(b) < 3:
	case c == codeUint16:
		d.pos += 3
		return int64(binary.BigEndian.Uint16(b[1:])), true
	case c == codeInt16:
		d.pos += 3
		return int64(int16(binary.BigEndian.Uint16(b[1:]))), true
	case len(b) < 5:
	case c == codeUint32:
		d.pos += 5
		return int64(binary.BigEndian.Uint32(b[1:])), true
	case c == codeInt32:
		d.pos += 5
		return int64(int32(binary.BigEndian.Uint32(b[1:]))), true
	}
	return 0, false
}

// readExtNumber reads a Long or a BigInt.
func (d *Decoder) readExtNumber() (number, error) {
	h, err := d.head()
	if err != nil {
		return number{}, err
	}
	switch {
	case h.class == classExt && h.ext == extLong:
		l, err := d.readLong()
		if err != nil {
			return number{}, err
		}
		if l.Unsigned {
			return uintNumber(l.Bits), nil
		}
		return intNumber(int64(l.Bits)), nil
	case h.class == classExt && h.ext == extBigInt:
		b, err := d.readBigInt()
		if err != nil {
			return number{}, err
		}
		return number{kind: numBig, b: b}, nil
	}
	return number{}, d.mismatch(h, "a number")
}

// Int64 reads an integer in any of its forms: also a float without fraction, a
// Long or a BigInt. A fraction or a value outside int64 is an error wrapping
// [ErrRange].
func (d *Decoder) Int64() (int64, error) {
	if i, ok := d.smallInt(); ok {
		return i, nil
	}
	return d.wideInt(64)
}

// Uint64 reads an unsigned integer like [Decoder.Int64].
func (d *Decoder) Uint64() (uint64, error) {
	return d.uintOf(64)
}

// Float64 reads a number. An integer that float64 cannot hold exactly is an
// error wrapping [ErrRange].
func (d *Decoder) Float64() (float64, error) {
	if b := d.src[d.pos:]; len(b) >= 9 && b[0] == codeFloat64 {
		d.pos += 9
		return math.Float64frombits(binary.BigEndian.Uint64(b[1:])), nil
	}
	if i, ok := d.smallInt(); ok {
		return float64(i), nil
	}
	return d.wideFloat()
}

// wideFloat is Float64 for the forms that may not be exact.
func (d *Decoder) wideFloat() (float64, error) {
	start := d.pos
	n, err := d.readNumber()
	if err != nil {
		return 0, err
	}
	var f float64
	exact := true
	switch n.kind {
	case numInt:
		f = float64(n.i)
		exact = f < 1<<63 && int64(f) == n.i
	case numUint:
		f = float64(n.u)
		exact = f < 1<<64 && uint64(f) == n.u
	case numFloat:
		f = n.f
	case numBig:
		var acc big.Accuracy
		f, acc = n.b.Float64()
		exact = acc == big.Exact
	}
	if !exact {
		return 0, d.failAt(start, ErrRange, n.String()+" is not exact as a float64")
	}
	return f, nil
}

// readFloat32 reads a number for a float32 target: rounded, but in range.
func (d *Decoder) readFloat32() (float32, error) {
	start := d.pos
	f, err := d.Float64()
	if err != nil {
		return 0, err
	}
	r := float32(f)
	if math.IsInf(float64(r), 0) && !math.IsInf(f, 0) {
		return 0, d.failAt(start, ErrRange, number{kind: numFloat, f: f}.String()+" overflows float32")
	}
	return r, nil
}

// intOf reads an integer that fits a signed type of that many bits.
func (d *Decoder) intOf(bits int) (int64, error) {
	start := d.pos
	if i, ok := d.smallInt(); ok && i<<(64-bits)>>(64-bits) == i {
		return i, nil
	}
	d.pos = start
	return d.wideInt(bits)
}

// wideInt is intOf for all forms.
func (d *Decoder) wideInt(bits int) (int64, error) {
	start := d.pos
	n, err := d.readNumber()
	if err != nil {
		return 0, err
	}
	w := n.whole()
	switch {
	case w.kind == numInt && w.i<<(64-bits)>>(64-bits) == w.i:
		return w.i, nil
	case w.kind == numFloat && !(math.Trunc(w.f) == w.f && !math.IsInf(w.f, 0)):
		return 0, d.failAt(start, ErrRange, n.String()+" is not an integer")
	}
	return 0, d.failAt(start, ErrRange, n.String()+" overflows int"+strconv.Itoa(bits))
}

// uintOf reads an integer that fits an unsigned type of that many bits.
func (d *Decoder) uintOf(bits int) (uint64, error) {
	start := d.pos
	if i, ok := d.smallInt(); ok && i >= 0 && i>>bits == 0 {
		return uint64(i), nil
	}
	d.pos = start
	return d.wideUint(bits)
}

// wideUint is uintOf for all forms.
func (d *Decoder) wideUint(bits int) (uint64, error) {
	start := d.pos
	n, err := d.readNumber()
	if err != nil {
		return 0, err
	}
	w := n.whole()
	u := w.u
	if w.kind == numInt {
		u = uint64(w.i)
	}
	switch {
	case w.kind == numInt && w.i < 0:
	case w.kind <= numUint && u<<(64-bits)>>(64-bits) == u:
		return u, nil
	case w.kind == numFloat && !(math.Trunc(w.f) == w.f && !math.IsInf(w.f, 0)):
		return 0, d.failAt(start, ErrRange, n.String()+" is not an integer")
	}
	return 0, d.failAt(start, ErrRange, n.String()+" overflows uint"+strconv.Itoa(bits))
}

// What a big.Int costs, and what a float64 costs on its way into one, in bytes.
const (
	costBigInt   = 96
	costBigFloat = 512
)

// BigInt reads an integer of any size and form into a new big.Int.
func (d *Decoder) BigInt() (*big.Int, error) {
	start := d.pos
	n, err := d.readNumber()
	if err != nil {
		return nil, err
	}
	if err := d.spend(costBigInt); err != nil {
		return nil, err
	}
	switch w := n.whole(); w.kind {
	case numInt:
		return big.NewInt(w.i), nil
	case numUint:
		return new(big.Int).SetUint64(w.u), nil
	case numBig:
		return w.b, nil
	}
	if math.IsInf(n.f, 0) || math.Trunc(n.f) != n.f {
		return nil, d.failAt(start, ErrRange, n.String()+" is not an integer")
	}
	if err := d.spend(costBigFloat); err != nil {
		return nil, err
	}
	b, _ := big.NewFloat(n.f).Int(nil)
	return b, nil
}

// readBigInt reads extension 120, whose content is a string of decimal digits.
func (d *Decoder) readBigInt() (*big.Int, error) {
	start := d.pos
	outer, err := d.enterExt()
	if err != nil {
		return nil, err
	}
	s, err := d.StringBytes()
	if err != nil {
		return nil, err
	}
	if err := d.leaveExt(outer); err != nil {
		return nil, err
	}
	digits := s
	if len(digits) > 0 && digits[0] == '-' {
		digits = digits[1:]
	}
	if len(digits) > d.digits {
		return nil, d.failAt(start, ErrLimit, "BigInt of more than "+strconv.Itoa(d.digits)+" digits")
	}
	if err := d.spend(costBigInt + len(digits)); err != nil {
		return nil, err
	}
	for _, c := range digits {
		if c < '0' || c > '9' {
			return nil, d.failAt(start, ErrMalformed, "BigInt is not a decimal number")
		}
	}
	b, ok := new(big.Int).SetString(string(s), 10)
	if !ok {
		return nil, d.failAt(start, ErrMalformed, "BigInt is not a decimal number")
	}
	return b, nil
}

func appendInt10(b []byte, v int64) []byte   { return strconv.AppendInt(b, v, 10) }
func appendUint10(b []byte, v uint64) []byte { return strconv.AppendUint(b, v, 10) }

// jsNumber returns f as JavaScript's String(f) does.
func jsNumber(f float64) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	case f == 0:
		return "0"
	}
	if a := math.Abs(f); a >= 1e-6 && a < 1e21 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	s := strconv.FormatFloat(f, 'e', -1, 64)
	s = strings.Replace(s, "e-0", "e-", 1)
	return strings.Replace(s, "e+0", "e+", 1)
}
