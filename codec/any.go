package codec

import (
	"math"
	"strconv"
	"unsafe"
)

// What decoded values cost, in bytes: their memory on a 64-bit machine, so that
// the budget bounds what a message can make us allocate.
const (
	costInterface   = 16
	costSlice       = 24
	costBoxedString = 16
	costBoxedNumber = 8
	costMap         = 48 // the map itself
	costTable       = 80 // what a map of several groups of slots has besides them
	slotsOfGroup    = 8
)

// costOfMap returns what a Go map of n entries of that size costs. Slots come in
// groups of eight with eight bytes of control. Above one group, seven of eight
// slots are filled at most and their number is a power of two; the allocator
// rounds up by a quarter at most.
func costOfMap(n, entry int) int {
	switch {
	case n == 0:
		return costMap
	case n <= slotsOfGroup:
		return costMap + slotsOfGroup*(entry+1)
	}
	slots := 2 * slotsOfGroup
	for slots/8*7 < n {
		slots *= 2
	}
	return costMap + costTable + slots*(entry+1)/4*5
}

// maxExactInt is where [Decoder.Any] stops taking whole floats for integers.
const maxExactInt = 1 << 53

// Any reads a value of any kind:
//
//	nil, undefined      nil
//	boolean             bool
//	number              int64 if it is whole, whatever its form (a float64 only up to
//	                    2^53 in magnitude); uint64 above the largest int64; else float64
//	string              string, valid UTF-8
//	binary              []byte, a copy
//	array               []any
//	map                 map[string]any; other keys than strings become what JavaScript
//	                    makes of them, such as "1" or "null"; of equal keys the last one wins
//	extension 107       StreamReference
//	extension 108       Reference
//	extension 109       *Definition
//	extension 110       *TitanError
//	extension 119       Long
//	extension 120       *big.Int
//	extension 121       RegExp
//	extension 123       Set
//	extension 124       Map
//	extension 125       time.Time in UTC
//	extension 126       *Error
//	other extensions    Ext, with a copy of the data
func (d *Decoder) Any() (any, error) {
	h, err := d.head()
	if err != nil {
		return nil, err
	}
	switch h.class {
	case classNil:
		d.pos++
		return nil, nil
	case classBool:
		return d.Bool()
	case classNumber:
		return d.anyNumber()
	case classString:
		if err := d.spend(costBoxedString); err != nil {
			return nil, err
		}
		return d.newString(d.take(h))
	case classBinary:
		if err := d.spend(costSlice); err != nil {
			return nil, err
		}
		return d.Bytes()
	case classArray:
		if d.depth > 0 {
			if err := d.spend(costSlice); err != nil {
				return nil, err
			}
		}
		return d.anySlice(h)
	case classMap:
		return d.anyMap(h)
	}
	return d.anyExt(h)
}

func (d *Decoder) anyNumber() (any, error) {
	n, err := d.readNumber()
	if err != nil {
		return nil, err
	}
	if err := d.spend(costBoxedNumber); err != nil {
		return nil, err
	}
	switch n.kind {
	case numInt:
		return n.i, nil
	case numUint:
		return n.u, nil
	}
	if n.f >= -maxExactInt && n.f <= maxExactInt && n.f == math.Trunc(n.f) {
		return int64(n.f), nil
	}
	return n.f, nil
}

func (d *Decoder) anySlice(h head) ([]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	d.pos += h.size
	s, err := d.anyValues(h.n)
	if err != nil {
		return nil, err
	}
	d.leave()
	return s, nil
}

// anyValues reads n values; the caller has checked n against the bytes left.
func (d *Decoder) anyValues(n int) ([]any, error) {
	if err := d.spendEach(n, costInterface); err != nil {
		return nil, err
	}
	s := make([]any, n)
	for i := range s {
		v, err := d.Any()
		if err != nil {
			return nil, atIndex(err, i)
		}
		s[i] = v
	}
	return s, nil
}

const anyEntry = int(unsafe.Sizeof("")) + costInterface

func (d *Decoder) anyMap(h head) (map[string]any, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	if err := d.spend(costOfMap(h.n, anyEntry)); err != nil {
		return nil, err
	}
	d.pos += h.size
	m := make(map[string]any, h.n)
	for range h.n {
		k, err := d.key()
		if err != nil {
			return nil, err
		}
		v, err := d.Any()
		if err != nil {
			return nil, atName(err, k)
		}
		m[k] = v
	}
	d.leave()
	return m, nil
}

// key reads the key of a map member as a string.
func (d *Decoder) key() (string, error) {
	h, err := d.head()
	if err != nil {
		return "", err
	}
	if h.class == classString {
		return d.newString(d.take(h))
	}
	return d.otherKey(h)
}

// keyBytes is key, but lends the bytes of a string.
func (d *Decoder) keyBytes() ([]byte, error) {
	// The form of short strings, without a detour.
	if b := d.src[d.pos:]; len(b) > 0 && b[0]&0xe0 == codeFixStr {
		if n := int(b[0]&0x1f) + 1; n <= len(b) {
			d.pos += n
			return b[1:n:n], nil
		}
	}
	h, err := d.head()
	if err != nil {
		return nil, err
	}
	if h.class == classString {
		return d.take(h), nil
	}
	s, err := d.otherKey(h)
	return []byte(s), err
}

// otherKey reads a key that is no string and returns the property name that
// JavaScript makes of it.
func (d *Decoder) otherKey(h head) (string, error) {
	if err := d.spend(32); err != nil {
		return "", err
	}
	switch h.kind() {
	case KindNil:
		d.take(h)
		return "null", nil
	case KindUndefined:
		d.take(h)
		return "undefined", nil
	case KindBool:
		v, err := d.Bool()
		return strconv.FormatBool(v), err
	case KindBinary:
		return d.newString(d.take(h))
	case KindNumber, KindLong, KindBigInt:
		n, err := d.readNumber()
		switch {
		case err != nil:
			return "", err
		case n.kind == numFloat:
			return jsNumber(n.f), nil
		case n.kind == numBig:
			return n.b.String(), nil
		}
		return n.String(), nil
	}
	return "", d.fail(ErrType, h.kind().String()+" cannot be the key of a map")
}

func (d *Decoder) anyExt(h head) (any, error) {
	// What the boxes of the structs cost; their strings count separately.
	if err := d.spend(costSlice); err != nil {
		return nil, err
	}
	switch h.ext {
	case extUndefined:
		d.take(h)
		return nil, nil
	case extStreamReference:
		return boxed(d.readStreamReference())
	case extReference:
		return boxed(d.readReference())
	case extDefinition:
		return boxedPointer(d.readDefinition())
	case extTitanError:
		return boxedPointer(d.readTitanError())
	case extLong:
		return boxed(d.readLong())
	case extBigInt:
		return boxedPointer(d.readBigInt())
	case extRegExp:
		return boxed(d.readRegExp())
	case extSet:
		return boxed(d.readSet())
	case extMap:
		return boxed(d.readMap())
	case extDate:
		return boxed(d.readDate())
	case extError:
		return boxedPointer(d.readError())
	}
	return boxed(d.readExt())
}

func boxed[T any](v T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func boxedPointer[T any](v *T, err error) (any, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}
