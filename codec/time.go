package codec

import (
	"encoding/binary"
	"math"
	"time"
)

// Time reads a moment, in UTC and to the millisecond: a date (extension 125), a
// number of milliseconds since 1970, or a string as RFC 3339 has it.
func (d *Decoder) Time() (time.Time, error) {
	h, err := d.head()
	if err != nil {
		return time.Time{}, err
	}
	start := d.pos
	switch h.kind() {
	case KindTime:
		return d.readDate()
	case KindNumber, KindLong, KindBigInt:
		f, err := d.Float64()
		if err != nil {
			return time.Time{}, err
		}
		if !(math.Abs(f) <= maxTimeMillis) {
			return time.Time{}, d.failAt(start, ErrRange, jsNumber(f)+" is not a time in milliseconds")
		}
		return time.UnixMilli(int64(math.Floor(f))).UTC(), nil
	case KindString:
		t, err := time.Parse(time.RFC3339Nano, string(d.take(h)))
		if err != nil {
			return time.Time{}, d.failAt(start, ErrType, "string is not a time as RFC 3339 has it")
		}
		return t.UTC(), nil
	}
	return time.Time{}, d.mismatch(h, "a time")
}

// readDate reads extension 125. Version 0.6 of the TypeScript peers writes
// moments before 1970 in two's complement, which is understood.
func (d *Decoder) readDate() (time.Time, error) {
	start := d.pos
	outer, err := d.wantExt(extDate, "a date")
	if err != nil {
		return time.Time{}, err
	}
	b, err := d.fixed(8)
	if err != nil {
		return time.Time{}, err
	}
	ms := int64(binary.BigEndian.Uint64(b))
	if ms < -maxTimeMillis || ms > maxTimeMillis {
		return time.Time{}, d.failAt(start, ErrRange, "date is out of range")
	}
	return time.UnixMilli(ms).UTC(), d.leaveExt(outer)
}
