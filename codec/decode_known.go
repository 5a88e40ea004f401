package codec

import (
	"math/big"
	"strconv"
	"time"
)

// Unmarshaler is implemented by types that decode themselves. DecodeNetron reads
// exactly one value; it must not keep d, nor anything that d lends.
type Unmarshaler interface {
	DecodeNetron(d *Decoder) error
}

// decodeKnown decodes into the types that need no reflection. It reports false
// for others, and then has not moved.
func (d *Decoder) decodeKnown(v any) (known bool, err error) {
	var i int64
	var u uint64
	switch v := v.(type) {
	case *bool:
		*v, err = d.Bool()
	case *int:
		i, err = d.intOf(strconv.IntSize)
		*v = int(i)
	case *int64:
		*v, err = d.Int64()
	case *float64:
		*v, err = d.Float64()
	case *string:
		*v, err = d.String()
	case *[]byte:
		*v, err = d.Bytes()
	case *any:
		*v, err = d.Any()
	case *int32:
		i, err = d.intOf(32)
		*v = int32(i)
	case *int16:
		i, err = d.intOf(16)
		*v = int16(i)
	case *int8:
		i, err = d.intOf(8)
		*v = int8(i)
	case *uint:
		u, err = d.uintOf(strconv.IntSize)
		*v = uint(u)
	case *uint64:
		*v, err = d.Uint64()
	case *uint32:
		u, err = d.uintOf(32)
		*v = uint32(u)
	case *uint16:
		u, err = d.uintOf(16)
		*v = uint16(u)
	case *uint8:
		u, err = d.uintOf(8)
		*v = uint8(u)
	case *float32:
		*v, err = d.readFloat32()
	case *[]any:
		*v, err = d.sliceOfAny()
	case *[]string:
		*v, err = d.sliceOfString()
	case *[]float64:
		*v, err = d.sliceOfFloat()
	case *map[string]any:
		*v, err = d.mapOfAny()
	default:
		return d.decodeOwn(v)
	}
	return true, err
}

// decodeOwn is decodeKnown for the types of this package and for structs of the
// standard library.
func (d *Decoder) decodeOwn(v any) (known bool, err error) {
	switch v := v.(type) {
	case *time.Time:
		*v, err = d.Time()
	case *Time:
		var t time.Time
		t, err = d.Time()
		*v = Time(t)
	case *big.Int:
		err = d.intoBigInt(v)
	case *BigInt:
		err = d.intoBigInt((*big.Int)(v))
	case *Raw:
		err = d.intoRaw(v)
	case *Undefined:
		if !d.TryNil() {
			var h head
			if h, err = d.head(); err == nil {
				err = d.mismatch(h, "undefined")
			}
		}
	case *Fields:
		*v = nil
		if !d.TryNil() {
			*v, err = d.readFields()
		}
	case *Map:
		*v = nil
		if !d.TryNil() {
			*v, err = d.mapOrFields()
		}
	case *Set:
		var s []any
		s, err = d.sliceOfAny()
		*v = s
	case *RegExp:
		*v, err = d.readRegExp()
	case *Error:
		err = d.intoError(v)
	case *TitanError:
		var e *TitanError
		if e, err = d.readTitanError(); err == nil {
			*v = *e
		}
	case *error:
		*v, err = d.ErrorValue()
	case *Definition:
		var f *Definition
		if f, err = d.readDefinition(); err == nil {
			*v = *f
		}
	case *Meta:
		*v, err = d.readMeta()
	case *Reference:
		*v, err = d.readReference()
	case *StreamReference:
		*v, err = d.readStreamReference()
	case *Long:
		*v, err = d.longOf()
	case *Ext:
		*v, err = d.readExt()
	case Unmarshaler:
		err = d.unmarshaler(v)
	default:
		return false, nil
	}
	return true, err
}

// unmarshaler lets v decode itself. It works on a copy of d, so that d itself can
// stay on the stack of those who never meet an Unmarshaler, and that ends where
// the value ends.
func (d *Decoder) unmarshaler(v Unmarshaler) error {
	c := new(Decoder)
	*c = *d
	start := d.pos
	if err := d.Skip(); err != nil {
		return err
	}
	c.src = d.src[:d.pos]
	if err := c.enter(); err != nil { // its type may be recursive
		return err
	}
	if err := v.DecodeNetron(c); err != nil {
		if _, ok := err.(*DecodeError); ok {
			return err
		}
		return &DecodeError{Offset: start, Msg: err.Error(), Err: err}
	}
	if c.pos != d.pos || c.depth != d.depth+1 {
		return d.failAt(start, ErrMalformed, "an Unmarshaler did not read exactly one value")
	}
	d.budget = c.budget
	return nil
}

func (d *Decoder) intoRaw(v *Raw) error {
	r, err := d.Raw()
	if err != nil {
		return err
	}
	if err := d.spend(len(r)); err != nil {
		return err
	}
	*v = append(Raw(nil), r...)
	return nil
}

func (d *Decoder) intoBigInt(v *big.Int) error {
	b, err := d.BigInt()
	if err == nil {
		v.Set(b)
	}
	return err
}

func (d *Decoder) intoError(v *Error) error {
	h, err := d.head()
	if err != nil {
		return err
	}
	switch h.kind() {
	case KindError, KindTitanError, KindMap, KindMapExt, KindString:
		e, err := d.ErrorValue()
		if err == nil {
			*v = *errorOf(e)
		}
		return err
	}
	return d.mismatch(h, "an error")
}

// longOf reads a Long, or another integer as a signed or unsigned one.
func (d *Decoder) longOf() (Long, error) {
	if d.PeekKind() == KindLong {
		return d.readLong()
	}
	start := *d
	if i, err := d.Int64(); err == nil {
		return Long{Bits: uint64(i)}, nil
	}
	*d = start
	u, err := d.Uint64()
	return Long{Bits: u, Unsigned: true}, err
}

// mapOrFields reads a map of either kind.
func (d *Decoder) mapOrFields() (Map, error) {
	if d.PeekKind() != KindMap {
		h, err := d.head()
		if err != nil {
			return nil, err
		}
		if h.kind() != KindMapExt {
			return nil, d.mismatch(h, "a map")
		}
		return d.readMap()
	}
	c, err := d.enterMap()
	if err != nil {
		return nil, err
	}
	if err := d.spendEach(c.n, 2*costInterface); err != nil {
		return nil, err
	}
	m := make(Map, c.n)
	for i := range m {
		if m[i].Key, err = d.Any(); err == nil {
			m[i].Value, err = d.Any()
		}
		if err != nil {
			return nil, atIndex(err, i)
		}
	}
	return m, d.leaveContainer(c)
}

func (d *Decoder) sliceOfAny() ([]any, error) {
	if d.TryNil() {
		return nil, nil
	}
	c, err := d.enterArray()
	if err != nil {
		return nil, err
	}
	s, err := d.anyValues(c.n)
	if err != nil {
		return nil, err
	}
	return s, d.leaveContainer(c)
}

func (d *Decoder) sliceOfString() ([]string, error) {
	if d.TryNil() {
		return nil, nil
	}
	c, err := d.enterArray()
	if err != nil {
		return nil, err
	}
	if err := d.spendEach(c.n, costBoxedString); err != nil {
		return nil, err
	}
	s := make([]string, c.n)
	for i := range s {
		if s[i], err = d.String(); err != nil {
			return nil, atIndex(err, i)
		}
	}
	return s, d.leaveContainer(c)
}

func (d *Decoder) sliceOfFloat() ([]float64, error) {
	if d.TryNil() {
		return nil, nil
	}
	c, err := d.enterArray()
	if err != nil {
		return nil, err
	}
	if err := d.spendEach(c.n, 8); err != nil {
		return nil, err
	}
	s := make([]float64, c.n)
	for i := range s {
		if s[i], err = d.Float64(); err != nil {
			return nil, atIndex(err, i)
		}
	}
	return s, d.leaveContainer(c)
}

func (d *Decoder) mapOfAny() (map[string]any, error) {
	if d.TryNil() {
		return nil, nil
	}
	c, err := d.enterMap()
	if err != nil {
		return nil, err
	}
	if err := d.spend(costOfMap(c.n, anyEntry)); err != nil {
		return nil, err
	}
	m := make(map[string]any, c.n)
	for range c.n {
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
	return m, d.leaveContainer(c)
}
