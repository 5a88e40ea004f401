package codec

import (
	"fmt"
	"reflect"
	"strconv"
)

// decodePlan reads the next value into rv, whose type is that of the plan.
//
// It calls itself and its parts directly and never through a function value or
// an interface, which keeps d on the caller's stack.
func (d *Decoder) decodePlan(p *plan, rv reflect.Value) error {
	switch p.op {
	case opBool:
		v, err := d.Bool()
		rv.SetBool(v)
		return err
	case opInt:
		v, err := d.intOf(p.bits)
		rv.SetInt(v)
		return err
	case opUint:
		v, err := d.uintOf(p.bits)
		rv.SetUint(v)
		return err
	case opFloat64:
		v, err := d.Float64()
		rv.SetFloat(v)
		return err
	case opFloat32:
		v, err := d.readFloat32()
		rv.SetFloat(float64(v))
		return err
	case opString:
		v, err := d.String()
		rv.SetString(v)
		return err
	case opBytes:
		v, err := d.Bytes()
		rv.SetBytes(v)
		return err
	case opByteArray:
		return d.decodeByteArray(rv)
	case opKnown:
		_, err := d.decodeKnown(rv.Addr().Interface())
		return err
	case opMarshaler:
		if u, ok := reflect.TypeAssert[Unmarshaler](rv.Addr()); ok {
			return d.unmarshaler(u)
		}
		return d.decodePlan(p.plain, rv)
	case opError:
		return d.decodePlan(p.plain, rv)
	case opInterface:
		return d.decodeInterface(p, rv)
	case opPointer:
		return d.decodePointer(p, rv)
	case opSlice:
		return d.decodeSlice(p, rv)
	case opArray:
		return d.decodeArray(p, rv)
	case opMap:
		return d.decodeMap(p, rv)
	case opStruct:
		return d.decodeStruct(p, rv)
	}
	return d.fail(ErrUnsupported, "unsupported type "+p.typ.String())
}

func (d *Decoder) decodeByteArray(rv reflect.Value) error {
	start := d.pos
	b, err := d.BinaryBytes()
	if err != nil {
		return err
	}
	if len(b) != rv.Len() {
		return d.failAt(start, ErrType, fmt.Sprintf("%d bytes do not fit %s", len(b), rv.Type()))
	}
	copy(rv.Bytes(), b)
	return nil
}

func (d *Decoder) decodeInterface(p *plan, rv reflect.Value) error {
	switch {
	case d.TryNil():
		rv.SetZero()
		return nil
	case p.typ == errorType:
		v, err := d.ErrorValue()
		if err == nil {
			rv.Set(reflect.ValueOf(v))
		}
		return err
	case p.typ.NumMethod() > 0:
		return d.fail(ErrUnsupported, "unsupported type "+p.typ.String())
	}
	v, err := d.Any()
	if err == nil {
		rv.Set(reflect.ValueOf(v))
	}
	return err
}

func (d *Decoder) decodePointer(p *plan, rv reflect.Value) error {
	if !p.elem.wantsNil && d.TryNil() {
		rv.SetZero()
		return nil
	}
	if rv.IsNil() {
		if err := d.spend(p.elem.size); err != nil {
			return err
		}
		rv.Set(reflect.New(p.elem.typ))
	}
	return d.decodePlan(p.elem, rv.Elem())
}

func (d *Decoder) decodeSlice(p *plan, rv reflect.Value) error {
	if d.TryNil() {
		rv.SetZero()
		return nil
	}
	c, err := d.enterArray()
	if err != nil {
		return err
	}
	if err := d.decodeElements(p.elem, rv, c.n); err != nil {
		return err
	}
	return d.leaveContainer(c)
}

// decodeElements decodes n values into the slice rv.
func (d *Decoder) decodeElements(elem *plan, rv reflect.Value, n int) error {
	if err := d.resize(rv, n, elem.size); err != nil {
		return err
	}
	for i := range n {
		if err := d.decodePlan(elem, rv.Index(i)); err != nil {
			return atIndex(err, i)
		}
	}
	return nil
}

// resize makes rv a slice of n zero elements of that size, within its capacity
// if it can.
func (d *Decoder) resize(rv reflect.Value, n, size int) error {
	if err := d.spendEach(n, size); err != nil {
		return err
	}
	if rv.IsNil() || rv.Cap() < n {
		rv.Set(reflect.MakeSlice(rv.Type(), n, n))
		return nil
	}
	rv.SetLen(n)
	rv.Clear()
	return nil
}

func (d *Decoder) decodeArray(p *plan, rv reflect.Value) error {
	start := d.pos
	c, err := d.enterArray()
	if err != nil {
		return err
	}
	if c.n != rv.Len() {
		return d.failAt(start, ErrType, fmt.Sprintf("%d elements do not fit %s", c.n, p.typ))
	}
	for i := range c.n {
		if err := d.decodePlan(p.elem, rv.Index(i)); err != nil {
			return atIndex(err, i)
		}
	}
	return d.leaveContainer(c)
}

// decodeMember decodes a member of a map or a struct: nil and undefined count as
// absent, because JavaScript sends undefined members.
func (d *Decoder) decodeMember(p *plan, rv reflect.Value) error {
	if !p.wantsNil && d.TryNil() {
		rv.SetZero()
		return nil
	}
	return d.decodePlan(p, rv)
}

func (d *Decoder) decodeMap(p *plan, rv reflect.Value) error {
	if d.TryNil() {
		rv.SetZero()
		return nil
	}
	c, err := d.enterMap()
	if err != nil {
		return err
	}
	if err := d.spend(costOfMap(c.n, p.key.size+p.elem.size)); err != nil {
		return err
	}
	m := reflect.MakeMapWithSize(p.typ, c.n)
	k := reflect.New(p.key.typ).Elem()
	v := reflect.New(p.elem.typ).Elem()
	for range c.n {
		k.SetZero()
		v.SetZero()
		if err := d.decodeKey(p.key, k); err != nil {
			return err
		}
		if err := d.decodeMember(p.elem, v); err != nil {
			return atName(err, keyName(k))
		}
		m.SetMapIndex(k, v)
	}
	rv.Set(m)
	return d.leaveContainer(c)
}

// decodeKey decodes the key of a map. The keys of plain maps are strings on the
// wire, so numbers and booleans are taken from their text, too.
func (d *Decoder) decodeKey(p *plan, k reflect.Value) error {
	start := d.pos
	if p.op == opString {
		s, err := d.key()
		k.SetString(s)
		return err
	}
	if d.PeekKind() != KindString {
		if err := d.decodePlan(p, k); err != nil {
			return err
		}
		if !k.Comparable() {
			return d.failAt(start, ErrType, "key of a map cannot be compared")
		}
		return nil
	}
	var err error
	switch p.op {
	case opInt:
		var i int64
		i, err = strconv.ParseInt(d.keyText(), 10, p.bits)
		k.SetInt(i)
	case opUint:
		var u uint64
		u, err = strconv.ParseUint(d.keyText(), 10, p.bits)
		k.SetUint(u)
	case opFloat64, opFloat32:
		var f float64
		f, err = strconv.ParseFloat(d.keyText(), p.bits)
		k.SetFloat(f)
	case opBool:
		var b bool
		b, err = strconv.ParseBool(d.keyText())
		k.SetBool(b)
	default:
		return d.decodePlan(p, k)
	}
	if err != nil {
		return d.failAt(start, ErrType, "key of a map does not fit "+p.typ.String())
	}
	return nil
}

// keyText reads a string that is the text of a number; a longer one gives "".
func (d *Decoder) keyText() string {
	b, err := d.StringBytes()
	if err != nil || len(b) > 64 {
		return ""
	}
	return string(b)
}

func (d *Decoder) decodeStruct(p *plan, rv reflect.Value) error {
	if g := p.generated; g != nil && !g.tuple && d.decodeGenerated(p, rv) {
		return nil
	}
	c, err := d.enterMap()
	if err != nil {
		return err
	}
	next := 0
	for range c.n {
		name, err := d.keyBytes()
		if err != nil {
			return err
		}
		i := p.fieldNamed(name, next)
		if i < 0 {
			if err := d.Skip(); err != nil {
				return err
			}
			continue
		}
		next = i + 1
		f := &p.fields[i]
		if err := d.decodeField(f, rv); err != nil {
			return atName(err, f.name)
		}
	}
	return d.leaveContainer(c)
}

func (d *Decoder) decodeField(f *field, rv reflect.Value) error {
	fv := rv.Field(f.index[0])
	for _, i := range f.index[1:] {
		if fv.Kind() == reflect.Pointer {
			if fv.IsNil() {
				if err := d.spend(int(fv.Type().Elem().Size())); err != nil {
					return err
				}
				fv.Set(reflect.New(fv.Type().Elem()))
			}
			fv = fv.Elem()
		}
		fv = fv.Field(i)
	}
	return d.decodeMember(f.plan, fv)
}
