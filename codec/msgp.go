package codec

import (
	"encoding/binary"
	"math"
	"math/big"
	"time"

	"github.com/tinylib/msgp/msgp"
)

// Types for generated code of msgp, which does not speak this profile by itself.
// A directive puts them in the place of the standard ones, whose fields keep
// their types:
//
//	//msgp:replace float64 with:codec.Float
//	//msgp:replace int64 with:codec.Int
//	//msgp:replace uint64 with:codec.Uint
type (
	// Float is a float64 in generated code.
	Float float64

	// Int is an int64 in generated code.
	Int int64

	// Uint is a uint64 in generated code.
	Uint uint64

	// Time is a time.Time in generated code.
	Time time.Time

	// BigInt is a big.Int in generated code.
	BigInt big.Int
)

// Sizes of the longest forms, in bytes.
const (
	numberSize = 9
	longSize   = 3 + 1 + 20 // a BigInt of 64 bits
	timeSize   = 10
)

// MarshalMsg appends f to b like [AppendFloat].
func (f Float) MarshalMsg(b []byte) ([]byte, error) { return AppendFloat(b, float64(f)), nil }

// UnmarshalMsg reads f from b like [Decoder.Float64] and returns the rest.
func (f *Float) UnmarshalMsg(b []byte) ([]byte, error) {
	if len(b) >= 9 && b[0] == codeFloat64 {
		*f = Float(math.Float64frombits(binary.BigEndian.Uint64(b[1:])))
		return b[9:], nil
	}
	if len(b) > 0 && b[0] <= 0x7f {
		*f = Float(b[0])
		return b[1:], nil
	}
	d := NewDecoder(b, Limits{})
	v, err := d.Float64()
	*f = Float(v)
	return d.Rest(), err
}

// Msgsize returns an upper bound of the encoded size in bytes.
func (f Float) Msgsize() int { return numberSize }

// EncodeMsg writes f like [AppendFloat].
func (f Float) EncodeMsg(w *msgp.Writer) error { return encodeMsg(w, f) }

// DecodeMsg reads f like [Decoder.Float64].
func (f *Float) DecodeMsg(r *msgp.Reader) error { return decodeMsg(r, f) }

// MarshalMsg appends i to b like [AppendInt].
func (i Int) MarshalMsg(b []byte) ([]byte, error) { return AppendInt(b, int64(i)), nil }

// UnmarshalMsg reads i from b like [Decoder.Int64] and returns the rest.
func (i *Int) UnmarshalMsg(b []byte) ([]byte, error) {
	if len(b) > 0 && (b[0] <= 0x7f || b[0] >= 0xe0) {
		*i = Int(int8(b[0]))
		return b[1:], nil
	}
	d := NewDecoder(b, Limits{})
	v, err := d.Int64()
	*i = Int(v)
	return d.Rest(), err
}

// Msgsize returns an upper bound of the encoded size in bytes.
func (i Int) Msgsize() int { return longSize }

// EncodeMsg writes i like [AppendInt].
func (i Int) EncodeMsg(w *msgp.Writer) error { return encodeMsg(w, i) }

// DecodeMsg reads i like [Decoder.Int64].
func (i *Int) DecodeMsg(r *msgp.Reader) error { return decodeMsg(r, i) }

// MarshalMsg appends u to b like [AppendUint].
func (u Uint) MarshalMsg(b []byte) ([]byte, error) { return AppendUint(b, uint64(u)), nil }

// UnmarshalMsg reads u from b like [Decoder.Uint64] and returns the rest.
func (u *Uint) UnmarshalMsg(b []byte) ([]byte, error) {
	if len(b) > 0 && b[0] <= 0x7f {
		*u = Uint(b[0])
		return b[1:], nil
	}
	d := NewDecoder(b, Limits{})
	v, err := d.Uint64()
	*u = Uint(v)
	return d.Rest(), err
}

// Msgsize returns an upper bound of the encoded size in bytes.
func (u Uint) Msgsize() int { return longSize }

// EncodeMsg writes u like [AppendUint].
func (u Uint) EncodeMsg(w *msgp.Writer) error { return encodeMsg(w, u) }

// DecodeMsg reads u like [Decoder.Uint64].
func (u *Uint) DecodeMsg(r *msgp.Reader) error { return decodeMsg(r, u) }

// MarshalMsg appends t to b like [AppendTime].
func (t Time) MarshalMsg(b []byte) ([]byte, error) { return AppendTime(b, time.Time(t)) }

// UnmarshalMsg reads t from b like [Decoder.Time] and returns the rest.
func (t *Time) UnmarshalMsg(b []byte) ([]byte, error) {
	d := NewDecoder(b, Limits{})
	v, err := d.Time()
	*t = Time(v)
	return d.Rest(), err
}

// Msgsize returns the encoded size in bytes.
func (t Time) Msgsize() int { return timeSize }

// EncodeMsg writes t like [AppendTime].
func (t Time) EncodeMsg(w *msgp.Writer) error { return encodeMsg(w, t) }

// DecodeMsg reads t like [Decoder.Time].
func (t *Time) DecodeMsg(r *msgp.Reader) error { return decodeMsg(r, t) }

// MarshalMsg appends i to b like [AppendBigInt].
func (i *BigInt) MarshalMsg(b []byte) ([]byte, error) { return AppendBigInt(b, (*big.Int)(i)), nil }

// UnmarshalMsg reads i from b like [Decoder.BigInt] and returns the rest.
func (i *BigInt) UnmarshalMsg(b []byte) ([]byte, error) {
	d := NewDecoder(b, Limits{})
	err := d.intoBigInt((*big.Int)(i))
	return d.Rest(), err
}

// Msgsize returns an upper bound of the encoded size in bytes.
func (i *BigInt) Msgsize() int {
	const perDigit = 3 // bits; fewer than a digit has
	return 11 + 2 + (*big.Int)(i).BitLen()/perDigit
}

// EncodeMsg writes i like [AppendBigInt].
func (i *BigInt) EncodeMsg(w *msgp.Writer) error { return encodeMsg(w, i) }

// DecodeMsg reads i like [Decoder.BigInt].
func (i *BigInt) DecodeMsg(r *msgp.Reader) error { return decodeMsg(r, i) }

func encodeMsg(w *msgp.Writer, m msgp.Marshaler) error {
	b, err := m.MarshalMsg(nil)
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func decodeMsg(r *msgp.Reader, u msgp.Unmarshaler) error {
	var raw msgp.Raw
	if err := raw.DecodeMsg(r); err != nil {
		return err
	}
	_, err := u.UnmarshalMsg(raw)
	return err
}
