package rpc

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
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
	special := func(t reflect.Type) bool { return isService(t) || isStream(t) }
	if slices.ContainsFunc(exportedTypes(t), special) || special(reflect.TypeFor[R]()) {
		reflected, err := newServiceMethod(name, fn)
		if err != nil {
			s.fail(fmt.Errorf("rpc: method %q of service %s: %w", name, s.QualifiedName(), err))
			return
		}
		s.add(reflected)
		return
	}
	m.invoke = newInvoke(name, fn, nil, nil)
	if reflect.TypeFor[R]() == noResult {
		m.result = typeName(nil)
	}
	s.add(m)
}

// exportedTypes returns the types of the exported fields of a struct.
func exportedTypes(t reflect.Type) []reflect.Type {
	var types []reflect.Type
	for f := range t.Fields() {
		if f.IsExported() {
			types = append(types, f.Type)
		}
	}
	return types
}

// newServiceMethod returns a method with a service or a stream among its arguments, or for a
// result. It goes through reflection.
func newServiceMethod[A, R any](name string, fn func(ctx context.Context, args *A) (R, error)) (*method, error) {
	a := reflect.TypeFor[A]()
	params, optional := []reflect.Type{contextType}, 0
	var at []int
	for i := range a.NumField() {
		f := a.Field(i)
		if !f.IsExported() {
			continue
		}
		params, at = append(params, f.Type), append(at, i)
		_, option, _ := strings.Cut(f.Tag.Get("msgpack"), ",")
		if optional++; option != "omitempty" && f.Type.Kind() != reflect.Pointer {
			optional = 0
		}
	}
	results := []reflect.Type{reflect.TypeFor[R](), errorType}
	if results[0] == noResult {
		results = results[1:]
	}
	return newReflectMethod(name, reflect.MakeFunc(reflect.FuncOf(params, results, false), func(in []reflect.Value) []reflect.Value {
		args := new(A)
		for i, field := range at {
			reflect.ValueOf(args).Elem().Field(field).Set(in[1+i])
		}
		ctx, _ := reflect.TypeAssert[context.Context](in[0])
		result, err := fn(ctx, args)
		out := []reflect.Value{reflect.ValueOf(&result).Elem(), reflect.New(errorType).Elem()}
		if err != nil {
			out[1].Set(reflect.ValueOf(err))
		}
		return out[2-len(results):]
	}), optional)
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
