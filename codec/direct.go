package codec

import (
	"reflect"
	"time"
	"unsafe"
)

// shape is how the values of a plan lie in memory. Those of a shape other than
// opaque are read and written where they are, without reflection, and no method
// of theirs is ever called: nobody can keep a pointer to them.
type shape uint8

const (
	shapeOpaque shape = iota // only the plan knows
	shapeBool
	shapeInt8
	shapeInt16
	shapeInt32
	shapeInt64
	shapeUint8
	shapeUint16
	shapeUint32
	shapeUint64
	shapeFloat32
	shapeFloat64
	shapeString
	shapeBytes
	shapeByteArray
	shapeTime
	shapeRaw
	shapeStrings
	shapeFloats
	shapeAny
	shapeAnys
	shapeAnyMap
	shapePointer
	shapeSlice
	shapeArray
	shapeStruct
)

// maxDirect is the size up to which values need not be opaque. It keeps the lists
// of their pointers short.
const maxDirect = 16 << 10

// layOut sets the shapes of p and of the plans in it. Recursive types are opaque.
func (c *compiler) layOut(p *plan) shape {
	if c.made[p.typ] != p || c.laidOut[p] {
		return p.shape
	}
	c.laidOut[p] = true
	if p.size > maxDirect {
		return shapeOpaque
	}
	p.shape = c.shapeOf(p)
	if p.shape != shapeOpaque {
		p.pointers = pointers(nil, p.typ, 0)
	}
	return p.shape
}

func (c *compiler) shapeOf(p *plan) shape {
	switch p.op {
	case opBool:
		return shapeBool
	case opInt:
		return sized(p.size, shapeInt8, shapeInt16, shapeInt32, shapeInt64)
	case opUint:
		return sized(p.size, shapeUint8, shapeUint16, shapeUint32, shapeUint64)
	case opFloat32:
		return shapeFloat32
	case opFloat64:
		return shapeFloat64
	case opString:
		return shapeString
	case opBytes:
		return shapeBytes
	case opByteArray:
		return shapeByteArray
	case opKnown:
		return knownShape(p.typ)
	case opInterface:
		if p.typ.NumMethod() == 0 {
			return shapeAny
		}
	case opPointer:
		return c.around(p, shapePointer)
	case opSlice:
		return c.around(p, shapeSlice)
	case opArray:
		return c.around(p, shapeArray)
	case opStruct:
		return c.structShape(p)
	}
	return shapeOpaque
}

func sized(size int, of1, of2, of4, of8 shape) shape {
	switch size {
	case 1:
		return of1
	case 2:
		return of2
	case 4:
		return of4
	}
	return of8
}

func knownShape(t reflect.Type) shape {
	switch t {
	case timeType:
		return shapeTime
	case reflect.TypeFor[Raw]():
		return shapeRaw
	case stringsType:
		return shapeStrings
	case floatsType:
		return shapeFloats
	case reflect.TypeFor[[]any]():
		return shapeAnys
	case reflect.TypeFor[map[string]any]():
		return shapeAnyMap
	}
	return shapeOpaque
}

// around returns s unless the element is opaque.
func (c *compiler) around(p *plan, s shape) shape {
	if c.layOut(p.elem) == shapeOpaque {
		return shapeOpaque
	}
	return s
}

func (c *compiler) structShape(p *plan) shape {
	for i := range p.fields {
		f := &p.fields[i]
		if f.embedded || c.layOut(f.plan) == shapeOpaque {
			return shapeOpaque
		}
		f.offset, f.shape = 0, f.plan.shape
		for t, path := p.typ, f.index; len(path) > 0; path = path[1:] {
			sf := t.Field(path[0])
			f.offset += sf.Offset
			t = sf.Type
		}
	}
	return shapeStruct
}

// slice is how a slice of any type lies in memory.
type slice struct {
	data     unsafe.Pointer
	len, cap int
}

// pointers appends where in a value of type t, which begins at offset, pointers lie.
func pointers(offsets []uintptr, t reflect.Type, offset uintptr) []uintptr {
	switch t.Kind() {
	case reflect.Pointer, reflect.Map, reflect.Chan, reflect.Func, reflect.UnsafePointer, reflect.String, reflect.Slice:
		return append(offsets, offset) // of those that are longer, the first word
	case reflect.Interface:
		return append(offsets, offset, offset+unsafe.Sizeof(uintptr(0)))
	case reflect.Array:
		for i := range t.Len() {
			offsets = pointers(offsets, t.Elem(), offset+uintptr(i)*t.Elem().Size())
		}
	case reflect.Struct:
		for f := range t.Fields() {
			offsets = pointers(offsets, f.Type, offset+f.Offset)
		}
	}
	return offsets
}

// zeroAt sets the value at ptr to zero: first its pointers, of which the garbage
// collector wants to know, then all of it.
func zeroAt(p *plan, ptr unsafe.Pointer) {
	for _, offset := range p.pointers {
		*(*unsafe.Pointer)(unsafe.Add(ptr, offset)) = nil
	}
	clear(unsafe.Slice((*byte)(ptr), p.size))
}

// appendAt is appendPlan for the value at ptr, whose shape is not opaque.
func appendAt(dst []byte, p *plan, ptr unsafe.Pointer, depth int) ([]byte, error) {
	switch p.shape {
	case shapeBool:
		return AppendBool(dst, *(*bool)(ptr)), nil
	case shapeInt8:
		return AppendInt(dst, int64(*(*int8)(ptr))), nil
	case shapeInt16:
		return AppendInt(dst, int64(*(*int16)(ptr))), nil
	case shapeInt32:
		return AppendInt(dst, int64(*(*int32)(ptr))), nil
	case shapeInt64:
		return AppendInt(dst, *(*int64)(ptr)), nil
	case shapeUint8:
		return AppendUint(dst, uint64(*(*uint8)(ptr))), nil
	case shapeUint16:
		return AppendUint(dst, uint64(*(*uint16)(ptr))), nil
	case shapeUint32:
		return AppendUint(dst, uint64(*(*uint32)(ptr))), nil
	case shapeUint64:
		return AppendUint(dst, *(*uint64)(ptr)), nil
	case shapeFloat32:
		return AppendFloat(dst, float64(*(*float32)(ptr))), nil
	case shapeFloat64:
		return AppendFloat(dst, *(*float64)(ptr)), nil
	case shapeString:
		return AppendString(dst, *(*string)(ptr)), nil
	}
	return appendWideAt(dst, p, ptr, depth)
}

// appendWideAt is appendAt for the shapes that are more than a scalar. It has a
// frame on the stack that scalars should not pay for.
func appendWideAt(dst []byte, p *plan, ptr unsafe.Pointer, depth int) ([]byte, error) {
	switch p.shape {
	case shapeBytes:
		return AppendBytes(dst, *(*[]byte)(ptr)), nil
	case shapeByteArray:
		return AppendBytes(dst, unsafe.Slice((*byte)(ptr), p.size)), nil
	case shapeTime:
		return AppendTime(dst, *(*time.Time)(ptr))
	case shapeRaw:
		return appendRaw(dst, *(*Raw)(ptr))
	case shapeStrings:
		return appendStrings(dst, *(*[]string)(ptr)), nil
	case shapeFloats:
		return appendFloats(dst, *(*[]float64)(ptr)), nil
	case shapeAny:
		return appendAny(dst, *(*any)(ptr), depth+1)
	case shapeAnys:
		return appendSlice(dst, *(*[]any)(ptr), depth)
	case shapeAnyMap:
		return appendMap(dst, *(*map[string]any)(ptr), depth)
	case shapePointer:
		to := *(*unsafe.Pointer)(ptr)
		if to == nil {
			return AppendNil(dst), nil
		}
		return appendAt(dst, p.elem, to, depth+1)
	case shapeSlice:
		s := (*slice)(ptr)
		return appendElementsAt(dst, p.elem, s.data, s.len, depth)
	case shapeArray:
		return appendElementsAt(dst, p.elem, ptr, p.typ.Len(), depth)
	}
	return appendStructAt(dst, p, ptr, depth)
}

func appendElementsAt(dst []byte, elem *plan, ptr unsafe.Pointer, n, depth int) ([]byte, error) {
	dst = AppendArrayHeader(dst, n)
	var err error
	for i := range n {
		if dst, err = appendAt(dst, elem, unsafe.Add(ptr, i*elem.size), depth+1); err != nil {
			return dst, atIndex(err, i)
		}
	}
	return dst, nil
}

func appendStructAt(dst []byte, p *plan, ptr unsafe.Pointer, depth int) ([]byte, error) {
	n := len(p.fields)
	if p.optional {
		n = 0
		for i := range p.fields {
			if !p.fields[i].isOmittedAt(ptr) {
				n++
			}
		}
	}
	dst, err := AppendMapHeader(dst, n)
	if err != nil {
		return dst, err
	}
	for i := range p.fields {
		f := &p.fields[i]
		if f.isOmittedAt(ptr) {
			continue
		}
		dst = append(dst, f.key...)
		if dst, err = appendAt(dst, f.plan, unsafe.Add(ptr, f.offset), depth+1); err != nil {
			return dst, atName(err, f.name)
		}
	}
	return dst, nil
}

// appendTupleAt is appendTuple for the struct at ptr.
func appendTupleAt(dst []byte, p *plan, ptr unsafe.Pointer) ([]byte, int, error) {
	n := len(p.fields)
	for n > 0 && p.fields[n-1].isOmittedAt(ptr) {
		n--
	}
	var err error
	for i := range n {
		f := &p.fields[i]
		at := unsafe.Add(ptr, f.offset)
		if f.shape == shapeFloat64 { // the most common argument
			dst = AppendFloat(dst, *(*float64)(at))
			continue
		}
		if dst, err = appendAt(dst, f.plan, at, 1); err != nil {
			return dst, 0, atName(err, f.name)
		}
	}
	return dst, n, nil
}

// isOmittedAt says whether the field of the struct at ptr is left out.
func (f *field) isOmittedAt(ptr unsafe.Pointer) bool {
	return f.omitEmpty && isEmptyAt(f.plan, unsafe.Add(ptr, f.offset))
}

// isEmptyAt is isEmpty for the value at ptr.
func isEmptyAt(p *plan, ptr unsafe.Pointer) bool {
	switch p.shape {
	case shapeFloat32:
		return *(*float32)(ptr) == 0 // also if it is negative
	case shapeFloat64:
		return *(*float64)(ptr) == 0
	case shapeString:
		return *(*string)(ptr) == ""
	case shapeBytes, shapeRaw, shapeStrings, shapeFloats, shapeAnys, shapeSlice:
		return (*slice)(ptr).len == 0
	case shapeAnyMap:
		return len(*(*map[string]any)(ptr)) == 0
	case shapeAny:
		return *(*any)(ptr) == nil
	case shapePointer:
		return *(*unsafe.Pointer)(ptr) == nil
	case shapeByteArray, shapeArray:
		return p.typ.Len() == 0
	case shapeTime:
		return *(*time.Time)(ptr) == time.Time{} //nolint:staticcheck // what is left out is the zero value, not its moment
	case shapeStruct:
		return false
	}
	for _, c := range unsafe.Slice((*byte)(ptr), p.size) { // a boolean or an integer
		if c != 0 {
			return false
		}
	}
	return true
}
