package codec

import (
	"fmt"
	"math"
	"math/big"
	"reflect"
	"time"
)

// Marshaler is implemented by types that encode themselves. AppendNetron appends
// exactly one value to dst and returns the longer slice.
type Marshaler interface {
	AppendNetron(dst []byte) ([]byte, error)
}

// Append appends any Go value to dst:
//
//	nil, nil pointers       nil
//	Undefined               undefined
//	bool, numbers, strings  by [AppendBool], [AppendInt], [AppendFloat], [AppendString]
//	[]byte, [N]byte         binary
//	time.Time, *big.Int     date and BigInt, by [AppendTime], [AppendBigInt]
//	slices, arrays          array; a nil slice is an empty one
//	maps with string keys   map, in no particular order; a nil map is an empty one
//	maps with other keys    Map (extension 124)
//	structs                 map of the exported fields, in their order; see the package comment
//	errors                  [*Error] and [*TitanError] as they are, others as an Error with their text
//	Raw, Map, Set, ...      the types of this package in their form
//	Marshaler               what it appends
//
// Everything else (channels, functions, complex numbers) is an error wrapping
// [ErrUnsupported]. On error the bytes of dst up to its length are as they were,
// and it is returned with that length.
//
// Append copies v. Cyclic values are an error wrapping [ErrDepth].
func Append(dst []byte, v any) ([]byte, error) {
	out, err := appendAny(dst, v, 0)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// AppendValue is [Append] for a reflected value; the zero Value is nil.
func AppendValue(dst []byte, rv reflect.Value) ([]byte, error) {
	if !rv.IsValid() {
		return AppendNil(dst), nil
	}
	out, err := appendPlan(dst, planOf(rv.Type()), rv, 0)
	if err != nil {
		return dst, err
	}
	return out, nil
}

func tooDeep() error {
	return &EncodeError{Msg: fmt.Sprintf("nested deeper than %d, or cyclic", maxEncodeDepth), Err: ErrDepth}
}

func appendAny(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return AppendNil(dst), nil
	case bool:
		return AppendBool(dst, v), nil
	case string:
		return AppendString(dst, v), nil
	case int:
		return AppendInt(dst, int64(v)), nil
	case int64:
		return AppendInt(dst, v), nil
	case float64:
		return AppendFloat(dst, v), nil
	case []byte:
		return AppendBytes(dst, v), nil
	case int32:
		return AppendInt(dst, int64(v)), nil
	case int16:
		return AppendInt(dst, int64(v)), nil
	case int8:
		return AppendInt(dst, int64(v)), nil
	case uint:
		return AppendUint(dst, uint64(v)), nil
	case uint64:
		return AppendUint(dst, v), nil
	case uint32:
		return AppendUint(dst, uint64(v)), nil
	case uint16:
		return AppendUint(dst, uint64(v)), nil
	case uint8:
		return AppendUint(dst, uint64(v)), nil
	case float32:
		return AppendFloat(dst, float64(v)), nil
	case time.Time:
		return AppendTime(dst, v)
	case *big.Int:
		return AppendBigInt(dst, v), nil
	case Raw:
		return appendRaw(dst, v)
	case Undefined:
		return AppendUndefined(dst), nil
	}
	if depth >= maxEncodeDepth {
		return dst, tooDeep()
	}
	switch v := v.(type) {
	case []any:
		return appendSlice(dst, v, depth)
	case map[string]any:
		return appendMap(dst, v, depth)
	case []string:
		return appendStrings(dst, v), nil
	case []int:
		dst = AppendArrayHeader(dst, len(v))
		for _, i := range v {
			dst = AppendInt(dst, int64(i))
		}
		return dst, nil
	case []float64:
		return appendFloats(dst, v), nil
	case Fields:
		return v.append(dst, depth)
	case Map:
		return v.append(dst, depth)
	case Set:
		return v.append(dst, depth)
	case Reference:
		return v.append(dst)
	case StreamReference:
		return v.append(dst), nil
	case *Definition:
		if v != nil {
			return v.append(dst, depth)
		}
		return AppendNil(dst), nil
	case Definition:
		return v.append(dst, depth)
	case Meta:
		return v.append(dst, depth)
	case RegExp:
		return v.append(dst), nil
	case Long:
		return v.append(dst), nil
	case Ext:
		return v.append(dst)
	case big.Int:
		return AppendBigInt(dst, &v), nil
	case Time:
		return AppendTime(dst, time.Time(v))
	case BigInt:
		return AppendBigInt(dst, (*big.Int)(&v)), nil
	case TitanError:
		return v.append(dst, depth)
	case Error:
		return v.append(dst, depth)
	}
	// What implements an interface and everything else depends on the type alone.
	rv := reflect.ValueOf(v)
	return appendPlan(dst, planOf(rv.Type()), rv, depth)
}

func appendStrings(dst []byte, s []string) []byte {
	dst = AppendArrayHeader(dst, len(s))
	for _, v := range s {
		dst = AppendString(dst, v)
	}
	return dst
}

func appendFloats(dst []byte, s []float64) []byte {
	dst = AppendArrayHeader(dst, len(s))
	for _, v := range s {
		dst = AppendFloat(dst, v)
	}
	return dst
}

func appendSlice(dst []byte, s []any, depth int) ([]byte, error) {
	dst = AppendArrayHeader(dst, len(s))
	var err error
	for i, v := range s {
		if dst, err = appendAny(dst, v, depth+1); err != nil {
			return dst, atIndex(err, i)
		}
	}
	return dst, nil
}

func appendMap(dst []byte, m map[string]any, depth int) ([]byte, error) {
	dst, err := AppendMapHeader(dst, len(m))
	if err != nil {
		return dst, err
	}
	for k, v := range m {
		if dst, err = appendAny(AppendString(dst, k), v, depth+1); err != nil {
			return dst, atName(err, k)
		}
	}
	return dst, nil
}

// appendError appends a Go error that is not nil.
func appendError(dst []byte, err error, depth int) ([]byte, error) {
	switch e := err.(type) {
	case *Error:
		return e.append(dst, depth)
	case *TitanError:
		return e.append(dst, depth)
	}
	return (&Error{Message: err.Error()}).append(dst, depth)
}

// appendPlan appends rv, whose type is that of the plan.
func appendPlan(dst []byte, p *plan, rv reflect.Value, depth int) ([]byte, error) {
	switch p.op {
	case opBool:
		return AppendBool(dst, rv.Bool()), nil
	case opInt:
		return AppendInt(dst, rv.Int()), nil
	case opUint:
		return AppendUint(dst, rv.Uint()), nil
	case opFloat32, opFloat64:
		return AppendFloat(dst, rv.Float()), nil
	case opString:
		return AppendString(dst, rv.String()), nil
	case opBytes:
		return AppendBytes(dst, rv.Bytes()), nil
	case opUnsupported:
		return dst, unsupported(p.typ)
	}
	if depth >= maxEncodeDepth {
		return dst, tooDeep()
	}
	switch p.op {
	case opByteArray:
		return appendByteArray(dst, rv), nil
	case opKnown:
		return appendKnown(dst, rv, depth)
	case opMarshaler:
		return appendMarshaler(dst, p, rv, depth)
	case opError:
		if isNil(rv) {
			return AppendNil(dst), nil
		}
		return appendError(dst, rv.Interface().(error), depth)
	case opInterface:
		if rv.IsNil() {
			return AppendNil(dst), nil
		}
		return appendAny(dst, rv.Interface(), depth+1)
	case opPointer:
		if rv.IsNil() {
			return AppendNil(dst), nil
		}
		return appendPlan(dst, p.elem, rv.Elem(), depth+1)
	case opSlice, opArray:
		n := rv.Len()
		dst = AppendArrayHeader(dst, n)
		var err error
		for i := range n {
			if dst, err = appendPlan(dst, p.elem, rv.Index(i), depth+1); err != nil {
				return dst, atIndex(err, i)
			}
		}
		return dst, nil
	case opMap:
		return appendReflectMap(dst, p, rv, depth)
	}
	return appendStruct(dst, p, rv, depth)
}

func isNil(rv reflect.Value) bool {
	switch rv.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Slice, reflect.Map, reflect.Func, reflect.Chan:
		return rv.IsNil()
	}
	return false
}

func appendByteArray(dst []byte, rv reflect.Value) []byte {
	if rv.CanAddr() {
		return AppendBytes(dst, rv.Bytes())
	}
	n := rv.Len()
	switch {
	case n <= math.MaxUint8:
		dst = append(dst, codeBin8, byte(n))
	case n <= math.MaxUint16:
		dst = append(dst, codeBin16, byte(n>>8), byte(n))
	default:
		dst = append(dst, codeBin32, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	for i := range n {
		dst = append(dst, byte(rv.Index(i).Uint()))
	}
	return dst
}

// appendKnown appends a value of one of the types that appendAny knows. The
// pointer avoids a copy of what is large.
func appendKnown(dst []byte, rv reflect.Value, depth int) ([]byte, error) {
	if rv.CanAddr() {
		switch v := rv.Addr().Interface().(type) {
		case *time.Time:
			return AppendTime(dst, *v)
		case *[]string:
			return appendStrings(dst, *v), nil
		case *[]float64:
			return appendFloats(dst, *v), nil
		case *[]any:
			return appendSlice(dst, *v, depth)
		case *map[string]any:
			return appendMap(dst, *v, depth)
		case *big.Int:
			return AppendBigInt(dst, v), nil
		case *BigInt:
			return AppendBigInt(dst, (*big.Int)(v)), nil
		case *Definition:
			return v.append(dst, depth)
		case *Meta:
			return v.append(dst, depth)
		case *Error:
			return v.append(dst, depth)
		case *TitanError:
			return v.append(dst, depth)
		}
	}
	return appendAny(dst, rv.Interface(), depth)
}

func appendMarshaler(dst []byte, p *plan, rv reflect.Value, depth int) ([]byte, error) {
	if isNil(rv) {
		return AppendNil(dst), nil
	}
	if p.marshalByPointer {
		if !rv.CanAddr() {
			c := reflect.New(p.typ).Elem()
			c.Set(rv)
			rv = c
		}
		rv = rv.Addr()
	}
	m, ok := reflect.TypeAssert[Marshaler](rv)
	if !ok { // decodes itself only
		return appendPlan(dst, p.plain, rv, depth)
	}
	start := len(dst)
	dst, err := m.AppendNetron(dst)
	if err != nil {
		return dst, &EncodeError{Msg: err.Error(), Err: err}
	}
	if len(dst) <= start {
		return dst, &EncodeError{Msg: p.typ.String() + " appended nothing", Err: ErrMalformed}
	}
	return dst, nil
}

func appendReflectMap(dst []byte, p *plan, rv reflect.Value, depth int) ([]byte, error) {
	n := rv.Len()
	start := len(dst)
	var err error
	if p.key.op == opString {
		if dst, err = AppendMapHeader(dst, n); err != nil {
			return dst, err
		}
	} else {
		dst = extStart(dst)
		dst = append(dst, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
	}
	for it := rv.MapRange(); it.Next(); {
		if dst, err = appendPlan(dst, p.key, it.Key(), depth+1); err == nil {
			dst, err = appendPlan(dst, p.elem, it.Value(), depth+1)
		}
		if err != nil {
			return dst, atName(err, keyName(it.Key()))
		}
	}
	if p.key.op == opString {
		return dst, nil
	}
	return extEnd(dst, start, extMap), nil
}

func keyName(k reflect.Value) string {
	if k.Kind() == reflect.String {
		return k.String()
	}
	return fmt.Sprintf("[%v]", k)
}

func appendStruct(dst []byte, p *plan, rv reflect.Value, depth int) ([]byte, error) {
	if g := p.generated; g != nil && !g.tuple {
		if out, ok := g.append(dst, rv); ok {
			return out, nil
		}
	}
	n := len(p.fields)
	if p.optional {
		n = 0
		for i := range p.fields {
			if _, ok := p.fields[i].present(rv); ok {
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
		fv, ok := f.present(rv)
		if !ok {
			continue
		}
		if dst, err = appendPlan(append(dst, f.key...), f.plan, fv, depth+1); err != nil {
			return dst, atName(err, f.name)
		}
	}
	return dst, nil
}
