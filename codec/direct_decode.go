package codec

import (
	"fmt"
	"reflect"
	"time"
	"unsafe"
)

// decodeAt is decodePlan for the value at ptr, whose shape is not opaque.
func (d *Decoder) decodeAt(p *plan, ptr unsafe.Pointer) error {
	switch p.shape {
	case shapeBool:
		v, err := d.Bool()
		*(*bool)(ptr) = v
		return err
	case shapeInt8:
		v, err := d.intOf(8)
		*(*int8)(ptr) = int8(v)
		return err
	case shapeInt16:
		v, err := d.intOf(16)
		*(*int16)(ptr) = int16(v)
		return err
	case shapeInt32:
		v, err := d.intOf(32)
		*(*int32)(ptr) = int32(v)
		return err
	case shapeInt64:
		v, err := d.Int64()
		*(*int64)(ptr) = v
		return err
	case shapeUint8:
		v, err := d.uintOf(8)
		*(*uint8)(ptr) = uint8(v)
		return err
	case shapeUint16:
		v, err := d.uintOf(16)
		*(*uint16)(ptr) = uint16(v)
		return err
	case shapeUint32:
		v, err := d.uintOf(32)
		*(*uint32)(ptr) = uint32(v)
		return err
	case shapeUint64:
		v, err := d.uintOf(64)
		*(*uint64)(ptr) = v
		return err
	case shapeFloat32:
		v, err := d.readFloat32()
		*(*float32)(ptr) = v
		return err
	case shapeFloat64:
		v, err := d.Float64()
		*(*float64)(ptr) = v
		return err
	case shapeString:
		v, err := d.String()
		*(*string)(ptr) = v
		return err
	case shapeBytes:
		v, err := d.Bytes()
		*(*[]byte)(ptr) = v
		return err
	}
	return d.decodeWideAt(p, ptr)
}

// decodeWideAt is decodeAt for the shapes that are more than a scalar.
func (d *Decoder) decodeWideAt(p *plan, ptr unsafe.Pointer) (err error) {
	switch p.shape {
	case shapeByteArray:
		return d.decodeByteArrayAt(p, ptr)
	case shapeTime:
		*(*time.Time)(ptr), err = d.Time()
		return err
	case shapeRaw:
		return d.intoRaw((*Raw)(ptr))
	case shapeStrings:
		*(*[]string)(ptr), err = d.sliceOfString()
		return err
	case shapeFloats:
		*(*[]float64)(ptr), err = d.sliceOfFloat()
		return err
	case shapeAny:
		return d.decodeAnyAt((*any)(ptr))
	case shapeAnys:
		*(*[]any)(ptr), err = d.sliceOfAny()
		return err
	case shapeAnyMap:
		*(*map[string]any)(ptr), err = d.mapOfAny()
		return err
	case shapePointer:
		return d.decodePointerAt(p, (*unsafe.Pointer)(ptr))
	case shapeSlice:
		return d.decodeSliceAt(p, (*slice)(ptr))
	case shapeArray:
		return d.decodeArrayAt(p, ptr)
	}
	return d.decodeStructAt(p, ptr)
}

func (d *Decoder) decodeByteArrayAt(p *plan, ptr unsafe.Pointer) error {
	start := d.pos
	b, err := d.BinaryBytes()
	if err != nil {
		return err
	}
	if len(b) != p.size {
		return d.failAt(start, ErrType, fmt.Sprintf("%d bytes do not fit %s", len(b), p.typ))
	}
	copy(unsafe.Slice((*byte)(ptr), p.size), b)
	return nil
}

func (d *Decoder) decodeAnyAt(to *any) error {
	if d.TryNil() {
		*to = nil
		return nil
	}
	v, err := d.Any()
	if err == nil {
		*to = v
	}
	return err
}

func (d *Decoder) decodePointerAt(p *plan, to *unsafe.Pointer) error {
	if !p.elem.wantsNil && d.TryNil() {
		*to = nil
		return nil
	}
	if *to == nil {
		if err := d.spend(p.elem.size); err != nil {
			return err
		}
		*to = reflect.New(p.elem.typ).UnsafePointer()
	}
	return d.decodeAt(p.elem, *to)
}

func (d *Decoder) decodeSliceAt(p *plan, s *slice) error {
	if d.TryNil() {
		*s = slice{}
		return nil
	}
	c, err := d.enterArray()
	if err != nil {
		return err
	}
	if err := d.resizeAt(p, s, c.n); err != nil {
		return err
	}
	if err := d.decodeElementsAt(p.elem, s.data, c.n); err != nil {
		return err
	}
	return d.leaveContainer(c)
}

// resizeAt is resize for the slice at s.
func (d *Decoder) resizeAt(p *plan, s *slice, n int) error {
	if err := d.spendEach(n, p.elem.size); err != nil {
		return err
	}
	if s.data == nil || s.cap < n {
		*s = slice{reflect.MakeSlice(p.typ, n, n).UnsafePointer(), n, n}
		return nil
	}
	s.len = n
	for i := range n {
		zeroAt(p.elem, unsafe.Add(s.data, i*p.elem.size))
	}
	return nil
}

func (d *Decoder) decodeElementsAt(elem *plan, ptr unsafe.Pointer, n int) error {
	for i := range n {
		if err := d.decodeAt(elem, unsafe.Add(ptr, i*elem.size)); err != nil {
			return atIndex(err, i)
		}
	}
	return nil
}

func (d *Decoder) decodeArrayAt(p *plan, ptr unsafe.Pointer) error {
	start := d.pos
	c, err := d.enterArray()
	if err != nil {
		return err
	}
	if c.n != p.typ.Len() {
		return d.failAt(start, ErrType, fmt.Sprintf("%d elements do not fit %s", c.n, p.typ))
	}
	if err := d.decodeElementsAt(p.elem, ptr, c.n); err != nil {
		return err
	}
	return d.leaveContainer(c)
}

func (d *Decoder) decodeStructAt(p *plan, ptr unsafe.Pointer) error {
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
		if err := d.decodeMemberAt(f.plan, unsafe.Add(ptr, f.offset)); err != nil {
			return atName(err, f.name)
		}
	}
	return d.leaveContainer(c)
}

// decodeMemberAt is decodeMember for the value at ptr.
func (d *Decoder) decodeMemberAt(p *plan, ptr unsafe.Pointer) error {
	if !p.wantsNil && d.TryNil() {
		zeroAt(p, ptr)
		return nil
	}
	return d.decodeAt(p, ptr)
}

// decodeTupleAt is DecodeTuple for the struct at ptr.
func (d *Decoder) decodeTupleAt(p *plan, ptr unsafe.Pointer, n int) error {
	if n < 0 || n > d.Len() {
		return d.truncated()
	}
	for i := range p.fields {
		f := &p.fields[i]
		at := unsafe.Add(ptr, f.offset)
		var err error
		switch {
		case i >= n && !f.isOptional():
			return d.missing(i, f)
		case i >= n:
			zeroAt(f.plan, at)
		case f.isOptional():
			err = d.decodeMemberAt(f.plan, at)
		default:
			err = d.decodeAt(f.plan, at)
		}
		if err != nil {
			return atName(err, f.name)
		}
	}
	return d.skip(n - len(p.fields))
}
