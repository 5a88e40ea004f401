package rpc

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/stream"
)

// nameTag is the struct tag that gives a field of a client struct another name on
// the wire.
const nameTag = "netron"

// Query asks the peer for a service and returns it as a struct of funcs:
//
//	type Calculator struct {
//		Add    func(ctx context.Context, a, b float64) (float64, error)
//		Divide func(ctx context.Context, a, b float64) (float64, error)
//	}
//
// Every exported field must be a func whose first parameter is a context and
// whose last result is an error. A field calls the method of its name in lower
// camel case with initialisms kept whole; the tag `netron:"name"` overrides it.
//
// A property of the service is read by a field of type func(context.Context) (T,
// error) with its name, or the tag option get: `netron:"version,get"`. With the option
// set a field of type func(context.Context, T) error writes it.
//
// A result that is a *[Stub], or a pointer to another struct of funcs, is a service
// that the method returned. A field of type *[Stub] is the service itself: it is what
// [Stub.Release] needs.
//
// Trailing arguments that are nil pointers are left out, so that the service sees
// them as not given.
//
// Parameters and results may be streams, see package stream. A func that returns an
// [iter.Seq2] and no error makes its call when the sequence is used.
//
// The names are checked now: a method that the service does not have is an error
// of code [NotFound]. Argument counts are not on the wire and cannot be checked.
func Query[T any](ctx context.Context, p *Peer, qualified string) (*T, error) {
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("rpc: query %s: %s is no struct of funcs", qualified, t)
	}
	stub, err := p.Service(ctx, qualified)
	if err != nil {
		return nil, err
	}
	client := new(T)
	if err := stub.bind(reflect.ValueOf(client).Elem()); err != nil {
		return nil, fmt.Errorf("rpc: query %s: %w", qualified, err)
	}
	return client, nil
}

// Bind returns a service as a struct of funcs, by the rules of [Query].
func Bind[T any](s *Stub) (*T, error) {
	t := reflect.TypeFor[T]()
	if t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("rpc: bind %s: %s is no struct of funcs", s.Name(), t)
	}
	client := new(T)
	if err := s.bind(reflect.ValueOf(client).Elem()); err != nil {
		return nil, fmt.Errorf("rpc: bind %s: %w", s.Name(), err)
	}
	return client, nil
}

// Release gives the service of a client back, see [Stub.Release]: client is a *[Stub], or a
// pointer to a struct that [Query] or a method has filled in. A struct needs an exported field
// of type *Stub, which holds the service; one without is an error of code
// [InvalidArgument]. A nil client, and one without a service, is nothing to release.
func Release(ctx context.Context, client any) error {
	if s, ok := client.(*Stub); ok {
		if s == nil {
			return nil
		}
		return s.Release(ctx)
	}
	v := reflect.ValueOf(client)
	if v.Kind() == reflect.Pointer && v.Type().Elem().Kind() == reflect.Struct {
		if v.IsNil() {
			return nil
		}
		for i := range v.Elem().NumField() {
			if field := v.Elem().Type().Field(i); field.IsExported() && field.Type == stubType {
				return Release(ctx, v.Elem().Field(i).Interface())
			}
		}
	}
	return Errorf(InvalidArgument, "rpc: release %T: it has no exported field of type *Stub", client)
}

// bind fills a client struct in.
func (s *Stub) bind(client reflect.Value) error {
	t := client.Type()
	var missing []string
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() {
			continue
		}
		if field.Type == stubType {
			client.Field(i).Set(reflect.ValueOf(s))
			continue
		}
		name, option, _ := strings.Cut(field.Tag.Get(nameTag), ",")
		if name == "" {
			name = codec.WireName(field.Name)
		}
		if _, isProperty := s.view.Load().props[name]; option == "" && isProperty && !s.Has(name) {
			option = tagGet
		}
		if option != "" {
			fn, err := newPropertyFunc(s, name, option, field.Type)
			if err != nil {
				return fmt.Errorf("field %s of %s: %w", field.Name, t, err)
			}
			client.Field(i).Set(fn)
			continue
		}
		fn, err := newClientFunc(s, name, field.Type)
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", field.Name, t, err)
		}
		if !s.Has(name) {
			missing = append(missing, name)
			continue
		}
		client.Field(i).Set(fn)
	}
	if len(missing) > 0 {
		return &Error{Code: NotFound, Message: fmt.Sprintf("service %s has no method %s, which %s names", joinName(s.Name(), s.Version()), strings.Join(missing, ", "), t)}
	}
	return nil
}

// isClient reports whether values of the type are pointers to client structs: nothing
// else has a func for a field.
func isClient(t reflect.Type) bool {
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return false
	}
	for f := range t.Elem().Fields() {
		if f.IsExported() && f.Type.Kind() == reflect.Func && f.Type.NumIn() > 0 && f.Type.In(0) == contextType {
			return true
		}
	}
	return false
}

// newClientFunc returns a func of type t that calls a method.
func newClientFunc(stub *Stub, name string, t reflect.Type) (reflect.Value, error) {
	if t.Kind() != reflect.Func || t.NumIn() == 0 || t.In(0) != contextType {
		return reflect.Value{}, fmt.Errorf("%s is no func whose first parameter is a context.Context", t)
	}
	s, err := shapeOf(t, func(t reflect.Type) bool { return t == stubType || isClient(t) })
	if err != nil {
		return reflect.Value{}, err
	}
	lazy := s.returns != nil && s.returns.IsLazy() && !s.hasError
	if !s.hasError && !lazy {
		return reflect.Value{}, fmt.Errorf("%s does not return an error", t)
	}
	if slices.ContainsFunc(s.streams, func(p *stream.Shape) bool { return p != nil && p.IsDuplex() }) {
		return reflect.Value{}, fmt.Errorf("%s has a stream.Duplex for a parameter; for callers it is the result", t)
	}
	if slices.ContainsFunc(s.params, isClient) {
		return reflect.Value{}, fmt.Errorf("%s has a struct of funcs for a parameter; services are passed as *Stub", t)
	}
	if s.hasStreams() && s.result != nil && (s.result == stubType || isClient(s.result)) {
		return reflect.Value{}, fmt.Errorf("%s passes a stream and returns a service, which cannot be together", t)
	}
	if d := directs()[t]; d.client != nil {
		return reflect.ValueOf(d.client(stub, name)), nil
	}
	return reflect.MakeFunc(t, func(in []reflect.Value) []reflect.Value {
		ctx, _ := reflect.TypeAssert[context.Context](in[0])
		args := in[1:]
		if s.variadic {
			last := args[len(args)-1]
			args = append([]reflect.Value{}, args[:len(args)-1]...)
			for i := range last.Len() {
				args = append(args, last.Index(i))
			}
		}
		if s.hasStreams() {
			return callStreamsReflect(ctx, stub, name, &s, args)
		}
		var result reflect.Value
		if s.result != nil {
			result = reflect.New(s.result)
		}
		err := callReflect(ctx, stub, name, args, result)
		errValue := errorValue(err)
		if s.result == nil {
			return []reflect.Value{errValue}
		}
		return []reflect.Value{result.Elem(), errValue}
	}), nil
}

// callStreamsReflect calls a method with streams, and returns what a func of the signature does.
func callStreamsReflect(ctx context.Context, stub *Stub, name string, s *shape, values []reflect.Value) []reflect.Value {
	values = withoutLast(values)
	args := make([]argument, len(values))
	for i, v := range values {
		args[i].value = v
		if i < len(s.streams) {
			args[i].stream = s.streams[i]
		}
	}
	if s.returns != nil && !s.hasError {
		return []reflect.Value{s.returns.Lazy(func() (in *stream.In, err error) {
			err = stub.callStreaming(ctx, name, args, s.returns, reflect.ValueOf(&in))
			return in, err
		})}
	}
	var result reflect.Value
	if s.result != nil {
		result = reflect.New(s.result)
	}
	err := errorValue(stub.callStreaming(ctx, name, args, s.returns, result))
	if s.result == nil {
		return []reflect.Value{err}
	}
	return []reflect.Value{result.Elem(), err}
}

// withoutLast returns arguments without those at the end that are nil pointers.
func withoutLast(args []reflect.Value) []reflect.Value {
	for len(args) > 0 {
		if last := args[len(args)-1]; last.Kind() != reflect.Pointer || !last.IsNil() {
			break
		}
		args = args[:len(args)-1]
	}
	return args
}

// callReflect calls a method and stores the result in the pointer result, unless
// that is invalid.
func callReflect(ctx context.Context, stub *Stub, name string, args []reflect.Value, result reflect.Value) error {
	args = withoutLast(args)
	if stub.router != nil {
		return stub.routed(ctx, name, func(ctx context.Context, at *Stub) error { return callReflectOnce(ctx, at, name, args, result) })
	}
	err := callReflectOnce(ctx, stub, name, args, result)
	if stub.peer.mayRetry(ctx, err) {
		return stub.peer.retried(ctx, err, func(ctx context.Context) error { return callReflectOnce(ctx, stub, name, args, result) })
	}
	return err
}

func callReflectOnce(ctx context.Context, stub *Stub, name string, args []reflect.Value, result reflect.Value) error {
	c, err := stub.begin(name, len(args))
	if err != nil {
		return err
	}
	start := len(c.B)
	for i, arg := range args {
		b, err := stub.peer.appendValue(c.B, arg)
		if err != nil {
			c.Release()
			return argumentError(name, i, err)
		}
		c.B = b
	}
	if result.IsValid() && isClient(result.Type().Elem()) {
		var child *Stub
		if err := stub.finish(ctx, OpCall, name, c, start, len(args), &child); err != nil || child == nil {
			return err
		}
		client := reflect.New(result.Type().Elem().Elem())
		if err := child.bind(client.Elem()); err != nil {
			return errors.Join(asError(err), child.Release(ctx))
		}
		result.Elem().Set(client)
		return nil
	}
	if !result.IsValid() {
		return stub.finish(ctx, OpCall, name, c, start, len(args), nil)
	}
	return stub.finish(ctx, OpCall, name, c, start, len(args), result.Interface())
}
