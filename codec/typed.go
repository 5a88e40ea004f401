package codec

import (
	"fmt"
	"reflect"
	"sync"
	"unsafe"
)

// Typed encodes and decodes values of type T. It does what [Append],
// [AppendTuple], [Decoder.Decode] and [Decoder.DecodeTuple] do, with the same bytes
// and errors, but what depends on T alone is done before. Get one with [TypedOf]
// and keep it. Many goroutines may use it at a time.
//
// Booleans, numbers, strings, bytes, times, [Raw], any, []any, map[string]any, and
// the pointers, slices, arrays and structs made of these without recursion are
// read and written in place. That allocates only what decoding must keep. Values
// of other types (they have methods of their own, are other maps, or stand for
// extensions) are copied and go through reflection; the copy is allocated for each
// call if one of their methods could keep it, and is reused otherwise.
//
// No method lets v escape: it may live on the stack of the caller.
type Typed[T any] struct {
	plan    *plan
	appends shape // by which Append goes
	decodes shape // by which Decode goes
	tuple   bool  // the tuple goes by the shape
	shared  bool  // nobody keeps a pointer to a copy
	copies  sync.Pool
}

// TypedOf compiles T. What is wrong with T is reported when a value is encoded or
// decoded; [Check] reports it before.
//
// Methods that msgp generated are not called. They were proved to do the same, but
// take longer; and while they are charged for the most that they could allocate,
// Typed is charged for what it does. The text that it writes is always UTF-8.
func TypedOf[T any]() *Typed[T] {
	t := reflect.TypeFor[T]()
	p := planOf(t)
	typed := &Typed[T]{
		plan:    p,
		appends: p.shape,
		decodes: p.shape,
		tuple:   p.shape == shapeStruct,
		shared:  !p.hasMethods(map[*plan]bool{}),
	}
	if planOf(reflect.PointerTo(t)).op == opError {
		typed.appends = shapeOpaque // *T is an error, which T is not
		typed.shared = false
	}
	if p.shape == shapeAny {
		typed.decodes = shapeOpaque // Decode sets it on errors, too
	}
	return typed
}

// Append appends the value that v points to, as [Append] does; nil is nil.
func (t *Typed[T]) Append(dst []byte, v *T) ([]byte, error) {
	if v == nil {
		return AppendNil(dst), nil
	}
	switch t.appends {
	case shapeFloat64: // the most common result
		return AppendFloat(dst, *(*float64)(unsafe.Pointer(v))), nil
	case shapeOpaque:
		c := t.copyOf(v)
		out, err := Append(dst, c)
		t.release(c)
		return out, err
	}
	out, err := appendAt(dst, t.plan, unsafe.Pointer(v), 1)
	if err != nil {
		return dst, err
	}
	return out, nil
}

// Decode reads the next value into what v points to, as [Decoder.Decode] does. A
// nil v is an error wrapping [ErrUnsupported].
func (t *Typed[T]) Decode(d *Decoder, v *T) error {
	if v == nil {
		return d.fail(ErrUnsupported, fmt.Sprintf("cannot decode into %T, only into a pointer that is not nil", (*T)(nil)))
	}
	if t.decodes == shapeOpaque {
		c := t.copyOf(v)
		err := d.Decode(c)
		*v = *c
		t.release(c)
		return err
	}
	return d.decodeAt(t.plan, unsafe.Pointer(v))
}

// AppendTuple appends the fields of the struct that v points to, as [AppendTuple]
// does, and returns how many there are.
func (t *Typed[T]) AppendTuple(dst []byte, v *T) (out []byte, n int, err error) {
	if v == nil {
		return AppendTuple(dst, (*T)(nil))
	}
	if !t.tuple {
		c := t.copyOf(v)
		out, n, err = AppendTuple(dst, c)
		t.release(c)
		return out, n, err
	}
	out, n, err = appendTupleAt(dst, t.plan, unsafe.Pointer(v))
	if err != nil {
		return dst, 0, err
	}
	return out, n, nil
}

// DecodeTuple reads n values into the fields of the struct that v points to, as
// [Decoder.DecodeTuple] does.
func (t *Typed[T]) DecodeTuple(d *Decoder, v *T, n int) error {
	if v == nil {
		return d.DecodeTuple((*T)(nil), n)
	}
	if !t.tuple {
		c := t.copyOf(v)
		err := d.DecodeTuple(c, n)
		*v = *c
		t.release(c)
		return err
	}
	return d.decodeTupleAt(t.plan, unsafe.Pointer(v), n)
}

// TupleLen returns how many values [Typed.AppendTuple] appends if that does not
// depend on the value. It does if the last field has the tag option omitempty; a T
// that is no struct has no tuple.
func (t *Typed[T]) TupleLen() (n int, fixed bool) {
	if t.plan.op != opStruct {
		return 0, false
	}
	n = len(t.plan.fields)
	return n, n == 0 || !t.plan.fields[n-1].omitEmpty
}

// copyOf returns a copy of what v points to for release.
func (t *Typed[T]) copyOf(v *T) *T {
	c, ok := t.copies.Get().(*T)
	if !ok {
		c = new(T)
	}
	*c = *v
	return c
}

// release gives a copy back unless a method may have kept it.
func (t *Typed[T]) release(c *T) {
	if t.shared {
		*c = *new(T)
		t.copies.Put(c)
	}
}
