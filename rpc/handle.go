package rpc

import (
	"context"
	"fmt"
	"reflect"
	"sync"

	"github.com/d-e-v-grid/netron/codec"
)

// Handle adds a method to a service without reflection on the path of a call.
// The exported fields of A, a struct, are the arguments in their order; fields
// that are pointers or have the tag option omitempty are optional. R is the
// result; struct{} means none.
//
// The argument struct comes from a pool: fn must not keep args after it returned,
// but may keep what its fields refer to. Mistakes are reported when the service
// is exposed.
func Handle[A, R any](s *Service, name string, fn func(ctx context.Context, args *A) (R, error)) {
	t := reflect.TypeFor[A]()
	if t.Kind() != reflect.Struct {
		s.fail(fmt.Errorf("rpc: method %q of service %s: arguments of type %s, want a struct", name, s.QualifiedName(), t))
		return
	}
	m := &method{name: name, result: typeName(reflect.TypeFor[R]())}
	for f := range t.Fields() {
		if f.IsExported() {
			m.args = append(m.args, typeName(f.Type))
		}
	}
	m.invoke = newInvoke(name, fn, nil, nil)
	if reflect.TypeFor[R]() == noResult {
		m.result = typeName(nil)
	}
	s.add(m)
}

// noResult is the type of a result that is none.
var noResult = reflect.TypeFor[struct{}]()

// newInvoke returns the invoke of a method that takes its arguments in a struct.
// If misfit is not nil, arguments that cannot be decoded, or that fits, which may be
// nil, does not like, go there.
func newInvoke[A, R any](name string, fn func(ctx context.Context, args *A) (R, error), fits func(args *A) bool, misfit invokeFunc) invokeFunc {
	arguments, results := codec.TypedOf[A](), codec.TypedOf[R]()
	none := reflect.TypeFor[R]() == noResult
	pool := sync.Pool{New: func() any { return new(A) }}
	return func(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error) {
		a, _ := pool.Get().(*A)
		defer func() {
			*a = *new(A)
			pool.Put(a)
		}()
		var d codec.Decoder
		d.Reset(args, lim)
		if err := arguments.DecodeTuple(&d, a, n); err != nil {
			if misfit != nil {
				return misfit(ctx, args, n, lim, dst)
			}
			return dst, &Error{Code: InvalidArgument, Message: fmt.Sprintf("arguments of %s: %v", name, err), cause: err}
		}
		if fits != nil && !fits(a) {
			return misfit(ctx, args, n, lim, dst)
		}
		if err := d.End(); err != nil {
			return dst, argumentsError(err)
		}
		result, err := fn(ctx, a)
		if err != nil {
			return dst, err
		}
		if none {
			return codec.AppendUndefined(dst), nil
		}
		out, err := results.Append(dst, &result)
		if err != nil {
			return dst, resultError(name, err)
		}
		return out, nil
	}
}
