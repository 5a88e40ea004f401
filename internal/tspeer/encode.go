package tspeer

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
)

// AppendValue appends v to dst in the form that a TypeScript encoder of that dialect chooses. v is in the neutral form; anything else is
// a bug of the caller.
func AppendValue(dst []byte, d Dialect, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, 0xc0)
	case Undefined:
		return append(dst, 0xd4, 0, 0)
	case bool:
		if v {
			return append(dst, 0xc3)
		}
		return append(dst, 0xc2)
	case float64:
		return appendNumber(dst, d, v)
	case string:
		return append(appendLength(dst, len(v), 0xa0, 32, 0xd9), v...)
	case []byte:
		return append(appendLength(dst, len(v), 0, 0, 0xc4), v...)
	case []any:
		return appendAll(appendCount(dst, len(v), 0x90, 0xdc), d, v)
	case Object:
		dst = appendCount(dst, len(v), 0x80, 0xde)
		for _, m := range v {
			dst = AppendValue(AppendValue(dst, d, m.Key), d, m.Value)
		}
		return dst
	}
	typ, data := extensionData(d, v)
	return append(appendExtHeader(dst, len(data), typ), data...)
}

func appendAll(dst []byte, d Dialect, vs []any) []byte {
	for _, v := range vs {
		dst = AppendValue(dst, d, v)
	}
	return dst
}

// extensionData returns the type and data of a value that travels as an extension.
func extensionData(d Dialect, v any) (typ byte, data []byte) {
	all := func(vs ...any) []byte { return appendAll(nil, d, vs) }
	switch v := v.(type) {
	case StreamRef:
		data = all(strconv.FormatUint(uint64(v.StreamID), 10))
		data = append(data, oneIf(v.Writable), oneIf(v.Live))
		return 107, AppendValue(data, d, v.PeerID)
	case Reference:
		return 108, all(v.DefID)
	case *Definition:
		return 109, all(v.ID, v.ParentID, v.PeerID, v.Meta)
	case *TitanError:
		return 110, all(v.Name, v.Code, v.Message, v.Details, v.Context, v.Timestamp, v.RequestID, v.CorrelationID, v.SpanID, v.TraceID, v.Stack, v.Cause, v.Extras)
	case Long:
		x, err := strconv.ParseUint(v.Value, 10, 64)
		if !v.Unsigned {
			var signed int64
			signed, err = strconv.ParseInt(v.Value, 10, 64)
			x = uint64(signed)
		}
		if err != nil {
			panic("BUG: Long " + v.Value)
		}
		return 119, binary.BigEndian.AppendUint64([]byte{oneIf(v.Unsigned)}, x)
	case BigInt:
		return 120, all(string(v))
	case RegExp:
		return 121, all(v.Source, v.Flags)
	case Set:
		return 123, appendAll(binary.BigEndian.AppendUint32(nil, uint32(len(v))), d, v)
	case Map:
		data = binary.BigEndian.AppendUint32(nil, uint32(len(v)))
		for _, p := range v {
			data = appendAll(data, d, []any{p.Key, p.Value})
		}
		return 124, data
	case Date:
		return 125, binary.BigEndian.AppendUint64(nil, uint64(v))
	case *Error:
		return 126, errorData(d, v)
	}
	panic(fmt.Sprintf("BUG: %T is not in the neutral form", v))
}

func errorData(d Dialect, e *Error) []byte {
	id := max(slices.Index(errorClasses[:], e.Ctor), 1)
	data := binary.BigEndian.AppendUint16(nil, uint16(id))
	data = appendAll(data, d, []any{e.Name, e.Stack, e.Message})
	data = binary.BigEndian.AppendUint16(data, uint16(len(e.Fields)))
	for _, m := range e.Fields {
		data = appendAll(data, d, []any{m.Key, m.Value})
	}
	return data
}

func oneIf(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// appendNumber writes a number as the dialect's encoder does: the ranges of 32-bit integers differ.
func appendNumber(dst []byte, d Dialect, f float64) []byte {
	const wrongInt32Bound = -214748365 // 0.6 has this where -2^31 is meant
	mostUint, leastInt32 := float64(math.MaxUint32), float64(math.MinInt32)
	if d == V06 {
		mostUint, leastInt32 = math.MaxInt32, wrongInt32Bound+1
	}
	switch {
	case math.IsNaN(f):
		const quietNaN = 0x7ff8_0000_0000_0000
		return binary.BigEndian.AppendUint64(append(dst, 0xcb), quietNaN)
	case f != math.Trunc(f) || f > mostUint || f < math.MinInt32:
		return binary.BigEndian.AppendUint64(append(dst, 0xcb), math.Float64bits(f))
	case f >= 0x10000:
		return binary.BigEndian.AppendUint32(append(dst, 0xce), uint32(f))
	case f >= 0x100:
		return binary.BigEndian.AppendUint16(append(dst, 0xcd), uint16(f))
	case f >= 0x80:
		return append(dst, 0xcc, byte(f))
	case f >= -0x20:
		return append(dst, byte(int8(f)))
	case f >= math.MinInt8:
		return append(dst, 0xd0, byte(int8(f)))
	case f >= math.MinInt16:
		return binary.BigEndian.AppendUint16(append(dst, 0xd1), uint16(int16(f)))
	case f >= leastInt32:
		return binary.BigEndian.AppendUint32(append(dst, 0xd2), uint32(int32(f)))
	default:
		return binary.BigEndian.AppendUint64(append(dst, 0xd3), uint64(int64(f)))
	}
}

// appendLength writes a length: below small in the lead byte short, else in 1, 2 or 4 bytes after long, long+1 or long+2.
func appendLength(dst []byte, n int, short byte, small int, long byte) []byte {
	switch {
	case n < small:
		return append(dst, short|byte(n))
	case n < 1<<8:
		return append(dst, long, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, long+1), uint16(n))
	default:
		return binary.BigEndian.AppendUint32(append(dst, long+2), uint32(n))
	}
}

// appendCount writes the number of elements of an array or map.
func appendCount(dst []byte, n int, short, long byte) []byte {
	switch {
	case n < 16:
		return append(dst, short|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(dst, long), uint16(n))
	case long == 0xde:
		panic("BUG: map32 is never written")
	default:
		return binary.BigEndian.AppendUint32(append(dst, long+1), uint32(n))
	}
}

func appendExtHeader(dst []byte, n int, typ byte) []byte {
	switch n {
	case 1, 2, 4, 8, 16:
		lead := map[int]byte{1: 0xd4, 2: 0xd5, 4: 0xd6, 8: 0xd7, 16: 0xd8}[n]
		return append(dst, lead, typ)
	}
	return append(appendLength(dst, n, 0, 0, 0xc7), typ)
}
