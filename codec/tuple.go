package codec

import (
	"fmt"
	"reflect"
)

// AppendTuple appends the fields of a struct, or of the struct that a pointer
// points to, as consecutive values without an array header: the arguments of a
// call. It returns how many there are. The fields are those of the struct's map
// form in their order; trailing ones that are empty and marked omitempty are left
// out.
//
// On error the bytes of dst up to its length are as they were, and it is
// returned with that length.
func AppendTuple(dst []byte, v any) (out []byte, n int, err error) {
	rv := reflect.ValueOf(v)
	for rv.Kind() == reflect.Pointer && !rv.IsNil() {
		rv = rv.Elem()
	}
	if rv.Kind() != reflect.Struct {
		return dst, 0, &EncodeError{Msg: fmt.Sprintf("arguments are %T, not a struct", v), Err: ErrUnsupported}
	}
	p := planOf(rv.Type())
	if p.op != opStruct {
		return dst, 0, unsupported(p.typ)
	}
	if g := p.generated; g != nil && g.tuple {
		if out, ok := g.appendTuple(dst, len(p.fields), rv); ok {
			return out, len(p.fields), nil
		}
	}
	out, n, err = appendTuple(dst, p, rv)
	if err != nil {
		return dst, 0, err
	}
	return out, n, nil
}

// appendTuple appends the fields by the plan.
func appendTuple(dst []byte, p *plan, rv reflect.Value) ([]byte, int, error) {
	n := len(p.fields)
	for n > 0 && p.fields[n-1].omitEmpty {
		if _, ok := p.fields[n-1].present(rv); ok {
			break
		}
		n--
	}
	var err error
	for i := range n {
		f := &p.fields[i]
		fv, ok := f.get(rv)
		if !ok {
			dst = AppendNil(dst)
			continue
		}
		if dst, err = appendPlan(dst, f.plan, fv, 1); err != nil {
			return dst, 0, atName(err, f.name)
		}
	}
	return dst, n, nil
}

// DecodeValues decodes the next n values into rv, a settable slice, as if they
// were an array: the arguments of a variadic function. It allocates within the
// limits alone, whatever n claims.
func (d *Decoder) DecodeValues(rv reflect.Value, n int) error {
	if rv.Kind() != reflect.Slice || !rv.CanSet() {
		return d.fail(ErrUnsupported, "cannot decode values into "+rv.Kind().String()+", only into a settable slice")
	}
	if n < 0 || n > d.Len() {
		return d.truncated()
	}
	return d.decodeElements(planOf(rv.Type().Elem()), rv, n)
}

// DecodeTuple reads n values into the fields of the struct that v points to, in
// their order. It is the reverse of [AppendTuple].
//
// Fields beyond n are set to zero if they are optional, which means that they
// are pointers or marked omitempty; else the call lacks an argument and the error
// wraps [ErrMissing]. Nil and undefined count as absent likewise. Values beyond
// the fields are skipped.
func (d *Decoder) DecodeTuple(v any, n int) error {
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() || rv.Elem().Kind() != reflect.Struct {
		return d.fail(ErrUnsupported, fmt.Sprintf("cannot decode arguments into %T, only into a pointer to a struct", v))
	}
	rv = rv.Elem()
	p := planOf(rv.Type())
	if p.op != opStruct {
		return d.fail(ErrUnsupported, "unsupported type "+p.typ.String())
	}
	if n < 0 || n > d.Len() {
		return d.truncated()
	}
	if g := p.generated; g != nil && g.tuple && n == len(p.fields) && d.decodeGeneratedTuple(p, rv) {
		return nil
	}
	for i := range p.fields {
		f := &p.fields[i]
		if i < n {
			if err := d.decodeArgument(f, rv); err != nil {
				return atName(err, f.name)
			}
			continue
		}
		if !f.isOptional() {
			return d.missing(i, f)
		}
		if fv, ok := f.get(rv); ok {
			fv.SetZero()
		}
	}
	return d.skip(n - len(p.fields))
}

func (d *Decoder) missing(i int, f *field) error {
	return d.fail(ErrMissing, fmt.Sprintf("missing argument %d (%s)", i+1, f.name))
}

// skip moves over n values, none if n is negative.
func (d *Decoder) skip(n int) error {
	for range n {
		if err := d.Skip(); err != nil {
			return err
		}
	}
	return nil
}

// isOptional says whether the argument may be missing.
func (f *field) isOptional() bool { return f.omitEmpty || f.plan.op == opPointer }

func (d *Decoder) decodeArgument(f *field, rv reflect.Value) error {
	if f.isOptional() {
		return d.decodeField(f, rv)
	}
	fv, ok := f.get(rv)
	if !ok {
		return d.decodeField(f, rv)
	}
	return d.decodePlan(f.plan, fv)
}

// get returns the field's value in a struct, or false if it lies in an embedded
// struct whose pointer is nil.
func (f *field) get(rv reflect.Value) (reflect.Value, bool) {
	g := *f
	g.omitEmpty = false
	return g.present(rv)
}
