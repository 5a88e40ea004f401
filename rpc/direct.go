package rpc

import (
	"context"
	"reflect"
	"sync"
	"unsafe"

	"github.com/d-e-v-grid/netron/codec"
)

// Methods and fields with a common signature (up to two arguments that are numbers,
// strings, booleans or bytes, with or without a result) are called directly, all
// others through package reflect. Both behave alike; the direct way has no
// allocation of its own and costs a fraction.

// direct is how to call functions of one signature without reflection.
type direct struct {
	// client returns a func of the signature that calls a remote method.
	client func(s *Stub, name string) any

	// server returns the invoke of a method that is bound to the pointer recv and has
	// its code at fn; see methodCode. What does not fit its arguments goes to misfit.
	server func(name string, recv, fn unsafe.Pointer, misfit invokeFunc) invokeFunc
}

// directTable is built once; see [directs].
type directTable map[reflect.Type]direct

// directs holds the common signatures by type.
var directs = sync.OnceValue(func() directTable {
	t := directTable{}
	addNoArgument(t)
	addArgument[bool](t)
	addArgument[int](t)
	addArgument[int64](t)
	addArgument[float64](t)
	addArgument[string](t)
	addArgument[[]byte](t)
	addArgument[codec.Raw](t)
	addArguments[int, int](t)
	addArguments[int64, int64](t)
	addArguments[float64, float64](t)
	addArguments[string, string](t)
	addArguments[string, int](t)
	addArguments[string, int64](t)
	addArguments[string, float64](t)
	addArguments[string, bool](t)
	addArguments[string, []byte](t)
	return t
})

// The argument structs of direct calls.
type (
	args0           struct{}
	args1[A any]    struct{ A A }
	args2[A, B any] struct {
		A A
		B B
	}
)

// fits1 and fits2 look for bytes that are nil: the caller may have sent nil, which is
// an argument, or undefined, which is none.
func fits1[A any](args *args1[A]) bool       { return !isNilBytes(&args.A) }
func fits2[A, B any](args *args2[A, B]) bool { return !isNilBytes(&args.A) && !isNilBytes(&args.B) }

func isNilBytes(arg any) bool {
	b, ok := arg.(*[]byte)
	return ok && *b == nil
}

func addNoArgument(t directTable) {
	add0[bool](t)
	add0[int](t)
	add0[int64](t)
	add0[float64](t)
	add0[string](t)
	add0[[]byte](t)
	type fn = func(context.Context) error
	t[reflect.TypeFor[fn]()] = direct{
		client: func(s *Stub, name string) any {
			c := newCaller[args0, struct{}](s, name)
			return func(ctx context.Context) error {
				_, err := c.call(ctx, args0{})
				return err
			}
		},
		server: func(name string, recv, code unsafe.Pointer, misfit invokeFunc) invokeFunc {
			f := *(*func(unsafe.Pointer, context.Context) error)(unsafe.Pointer(&code))
			return newInvoke(name, func(ctx context.Context, _ *args0) (struct{}, error) { return struct{}{}, f(recv, ctx) }, nil, misfit)
		},
	}
}

func add0[R any](t directTable) {
	type fn = func(context.Context) (R, error)
	t[reflect.TypeFor[fn]()] = direct{
		client: func(s *Stub, name string) any {
			c := newCaller[args0, R](s, name)
			return func(ctx context.Context) (R, error) { return c.call(ctx, args0{}) }
		},
		server: func(name string, recv, code unsafe.Pointer, misfit invokeFunc) invokeFunc {
			f := *(*func(unsafe.Pointer, context.Context) (R, error))(unsafe.Pointer(&code))
			return newInvoke(name, func(ctx context.Context, _ *args0) (R, error) { return f(recv, ctx) }, nil, misfit)
		},
	}
}

func addArgument[A any](t directTable) {
	add1[A, bool](t)
	add1[A, int](t)
	add1[A, int64](t)
	add1[A, float64](t)
	add1[A, string](t)
	add1[A, []byte](t)
	add1[A, codec.Raw](t)
	type fn = func(context.Context, A) error
	t[reflect.TypeFor[fn]()] = direct{
		client: func(s *Stub, name string) any {
			c := newCaller[args1[A], struct{}](s, name)
			return func(ctx context.Context, a A) error {
				_, err := c.call(ctx, args1[A]{a})
				return err
			}
		},
		server: func(name string, recv, code unsafe.Pointer, misfit invokeFunc) invokeFunc {
			f := *(*func(unsafe.Pointer, context.Context, A) error)(unsafe.Pointer(&code))
			return newInvoke(name, func(ctx context.Context, args *args1[A]) (struct{}, error) { return struct{}{}, f(recv, ctx, args.A) }, fits1[A], misfit)
		},
	}
	type plain = func(context.Context, A) A
	t[reflect.TypeFor[plain]()] = direct{
		server: func(name string, recv, code unsafe.Pointer, misfit invokeFunc) invokeFunc {
			f := *(*func(unsafe.Pointer, context.Context, A) A)(unsafe.Pointer(&code))
			return newInvoke(name, func(ctx context.Context, args *args1[A]) (A, error) { return f(recv, ctx, args.A), nil }, fits1[A], misfit)
		},
	}
}

func add1[A, R any](t directTable) {
	type fn = func(context.Context, A) (R, error)
	t[reflect.TypeFor[fn]()] = direct{
		client: func(s *Stub, name string) any {
			c := newCaller[args1[A], R](s, name)
			return func(ctx context.Context, a A) (R, error) { return c.call(ctx, args1[A]{a}) }
		},
		server: func(name string, recv, code unsafe.Pointer, misfit invokeFunc) invokeFunc {
			f := *(*func(unsafe.Pointer, context.Context, A) (R, error))(unsafe.Pointer(&code))
			return newInvoke(name, func(ctx context.Context, args *args1[A]) (R, error) { return f(recv, ctx, args.A) }, fits1[A], misfit)
		},
	}
}

func addArguments[A, B any](t directTable) {
	add2[A, B, bool](t)
	add2[A, B, int](t)
	add2[A, B, int64](t)
	add2[A, B, float64](t)
	add2[A, B, string](t)
	add2[A, B, []byte](t)
	type fn = func(context.Context, A, B) error
	t[reflect.TypeFor[fn]()] = direct{
		client: func(s *Stub, name string) any {
			c := newCaller[args2[A, B], struct{}](s, name)
			return func(ctx context.Context, a A, b B) error {
				_, err := c.call(ctx, args2[A, B]{a, b})
				return err
			}
		},
		server: func(name string, recv, code unsafe.Pointer, misfit invokeFunc) invokeFunc {
			f := *(*func(unsafe.Pointer, context.Context, A, B) error)(unsafe.Pointer(&code))
			return newInvoke(name, func(ctx context.Context, args *args2[A, B]) (struct{}, error) {
				return struct{}{}, f(recv, ctx, args.A, args.B)
			}, fits2[A, B], misfit)
		},
	}
}

func add2[A, B, R any](t directTable) {
	type fn = func(context.Context, A, B) (R, error)
	t[reflect.TypeFor[fn]()] = direct{
		client: func(s *Stub, name string) any {
			c := newCaller[args2[A, B], R](s, name)
			return func(ctx context.Context, a A, b B) (R, error) { return c.call(ctx, args2[A, B]{a, b}) }
		},
		server: func(name string, recv, code unsafe.Pointer, misfit invokeFunc) invokeFunc {
			f := *(*func(unsafe.Pointer, context.Context, A, B) (R, error))(unsafe.Pointer(&code))
			return newInvoke(name, func(ctx context.Context, args *args2[A, B]) (R, error) { return f(recv, ctx, args.A, args.B) }, fits2[A, B], misfit)
		},
	}
}

// directInvoke returns an invoke without reflection for a method of the value rv, or
// misfit if there is none for its signature.
func directInvoke(name string, rv reflect.Value, goName string, misfit invokeFunc) invokeFunc {
	d := directs()[rv.MethodByName(goName).Type()]
	if d.server == nil {
		return misfit
	}
	if rv.Kind() != reflect.Pointer {
		// A pointer to a copy has the same methods, and a receiver of one word.
		p := reflect.New(rv.Type())
		p.Elem().Set(rv)
		rv = p
	}
	m, _ := rv.Type().MethodByName(goName)
	return d.server(name, rv.UnsafePointer(), methodCode(m.Func), misfit)
}

// methodCode returns the pointer that a func value of a method with a pointer
// receiver consists of. It serves as a func that takes an [unsafe.Pointer] in the
// place of the receiver: both are one pointer word, which calls pass alike. A bound
// method value would do without this, but package reflect makes only such that
// copy their arguments through reflection at each call.
func methodCode(method reflect.Value) unsafe.Pointer {
	fn := method.Interface()
	return (*struct{ typ, code unsafe.Pointer })(unsafe.Pointer(&fn)).code
}
