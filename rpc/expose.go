package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/stream"
)

// ExposeOption changes how [NewServiceOf] reads a Go value.
type ExposeOption func(*exposeOptions)

type exposeOptions struct {
	names    map[string]string
	optional map[string]int
	inline   map[string]bool
	use      []Middleware
	useOn    map[string][]Middleware
}

// Name gives the Go method a name of its own choice on the wire.
func Name(goMethod, wireName string) ExposeOption {
	return func(o *exposeOptions) { o.names[goMethod] = wireName }
}

// Optional declares the last n parameters of the Go method optional: where the
// caller leaves them out they have their zero values. Pointer and variadic
// parameters are optional by themselves.
func Optional(goMethod string, n int) ExposeOption {
	return func(o *exposeOptions) { o.optional[goMethod] = n }
}

// Inline declares that the Go methods run on the goroutine that reads the
// connection and never block; see [Service.Inline].
func Inline(goMethods ...string) ExposeOption {
	return func(o *exposeOptions) {
		for _, name := range goMethods {
			o.inline[name] = true
		}
	}
}

// Use adds middleware for the requests of the service; see [Service.Use].
func Use(m ...Middleware) ExposeOption {
	return func(o *exposeOptions) { o.use = append(o.use, m...) }
}

// UseOn adds middleware for a Go method or a field that is a property; see
// [Service.UseOn].
func UseOn(goName string, m ...Middleware) ExposeOption {
	return func(o *exposeOptions) { o.useOn[goName] = append(o.useOn[goName], m...) }
}

var (
	contextType = reflect.TypeFor[context.Context]()
	errorType   = reflect.TypeFor[error]()
)

// NewServiceOf builds a service from a Go value: its exported methods whose first
// parameter is a [context.Context] are the methods of the service, and nothing
// else is. Fields of type [Property], and others whose tag declares them readonly, are
// its properties. The methods' other parameters are the arguments; they return nothing, a
// result, an error, or a result and an error. Parameters and results may be streams, see
// package stream. A method name turns into lower
// camel case with initialisms kept whole: URLFor is urlFor.
//
// qualified is "name@version" or a name alone. Every signature is checked now.
func NewServiceOf(qualified string, value any, opts ...ExposeOption) (*Service, error) {
	name, version, err := parseServiceName(qualified)
	if err != nil {
		return nil, err
	}
	o := exposeOptions{names: map[string]string{}, optional: map[string]int{}, inline: map[string]bool{}, useOn: map[string][]Middleware{}}
	for _, opt := range opts {
		opt(&o)
	}
	rv := reflect.ValueOf(value)
	if !rv.IsValid() || (rv.Kind() == reflect.Pointer && rv.IsNil()) {
		return nil, fmt.Errorf("rpc: expose %s: the value is nil", qualified)
	}
	s := NewService(name, version)
	for i := range rv.NumMethod() {
		goName := rv.Type().Method(i).Name
		fn := rv.Method(i)
		if fn.Type().NumIn() == 0 || fn.Type().In(0) != contextType {
			continue // not meant for peers
		}
		wire := codec.WireName(goName)
		if own, ok := o.names[goName]; ok {
			wire = own
		}
		m, err := newReflectMethod(wire, fn, o.optional[goName])
		if err != nil {
			return nil, fmt.Errorf("rpc: expose %s: method %s: %w", qualified, goName, err)
		}
		m.invoke = directInvoke(wire, rv, goName, m.invoke)
		if m.inline = o.inline[goName]; m.inline && m.streaming {
			return nil, fmt.Errorf("rpc: expose %s: method %s has streams, and cannot be inline", qualified, goName)
		}
		s.add(m)
		s.useOn(&o, goName, wire)
		delete(o.names, goName)
		delete(o.optional, goName)
		delete(o.inline, goName)
	}
	s.addFields(rv, &o)
	s.Use(o.use...)
	for goName := range o.useOn {
		s.fail(fmt.Errorf("rpc: expose %s: option UseOn for %s, which is no member of the service", qualified, goName))
	}
	for goName := range o.names {
		s.fail(fmt.Errorf("rpc: expose %s: option Name for %s, which is no method of the service", qualified, goName))
	}
	for goName := range o.optional {
		s.fail(fmt.Errorf("rpc: expose %s: option Optional for %s, which is no method of the service", qualified, goName))
	}
	for goName := range o.inline {
		s.fail(fmt.Errorf("rpc: expose %s: option Inline for %s, which is no method of the service", qualified, goName))
	}
	if s.err == nil && len(s.order) == 0 && len(s.fields) == 0 {
		s.fail(fmt.Errorf("rpc: expose %s: %T has no exported method whose first parameter is a context.Context, and no property", qualified, value))
	}
	if s.err != nil {
		return nil, s.err
	}
	return s, nil
}

// useOn applies the middleware that the options have for a member.
func (s *Service) useOn(o *exposeOptions, goName, wire string) {
	if use := o.useOn[goName]; use != nil {
		s.UseOn(wire, use...)
		delete(o.useOn, goName)
	}
}

// shape is the part of a function's signature that both sides look at: what
// follows the context, and what is returned.
type shape struct {
	params   []reflect.Type // the arguments; for a variadic function the last is the element type
	variadic bool
	result   reflect.Type // nil if there is none
	hasError bool

	streams []*stream.Shape // of the params; those that are no streams have none
	returns *stream.Shape   // of the result; nil if that is no stream
	duplex  bool            // the last parameter, or for a caller the result, is a [stream.Duplex]
}

// hasStreams reports whether there is any stream in the signature.
func (s *shape) hasStreams() bool { return s.returns != nil || s.takesStreams() }

func (s *shape) takesStreams() bool {
	return slices.ContainsFunc(s.streams, func(p *stream.Shape) bool { return p != nil })
}

// isStream reports whether values of the type are streams.
func isStream(t reflect.Type) bool {
	s, err := stream.ShapeOf(t)
	return s != nil || err != nil
}

// shapeOf reads the signature of a function whose first parameter is a context.
// isService says which types are services, that have no form in the codec.
func shapeOf(t reflect.Type, isService func(reflect.Type) bool) (shape, error) {
	s := shape{variadic: t.IsVariadic()}
	for i := 1; i < t.NumIn(); i++ {
		p := t.In(i)
		if s.variadic && i == t.NumIn()-1 {
			p = p.Elem()
		}
		s.params, s.streams = append(s.params, p), append(s.streams, nil)
		if rest := s.variadic && i == t.NumIn()-1; !rest {
			if isService(p) {
				continue
			}
			of, err := stream.ShapeOf(p)
			if err != nil {
				return s, fmt.Errorf("parameter %d: %w", i, err)
			}
			if of != nil {
				s.streams[i-1] = of
				continue
			}
		}
		if err := codec.Check(p); err != nil {
			return s, fmt.Errorf("parameter %d: %w", i, err)
		}
	}
	n := t.NumOut()
	if n > 0 && t.Out(n-1) == errorType {
		s.hasError = true
		n--
	}
	if n > 1 {
		return s, fmt.Errorf("returns %d results, want at most one and an error", n)
	}
	if n == 1 {
		s.result = t.Out(0)
		if isService(s.result) {
			return s, nil
		}
		of, err := stream.ShapeOf(s.result)
		if err != nil {
			return s, fmt.Errorf("result: %w", err)
		}
		if s.returns = of; of != nil {
			return s, nil
		}
		if err := codec.Check(s.result); err != nil {
			return s, fmt.Errorf("result: %w", err)
		}
	}
	return s, nil
}

// newReflectMethod wraps a bound method value.
func newReflectMethod(name string, fn reflect.Value, optional int) (*method, error) {
	s, err := shapeOf(fn.Type(), isService)
	if err == nil {
		err = s.checkServed()
	}
	if err != nil {
		return nil, err
	}
	fixed := len(s.params)
	if s.variadic {
		fixed--
	}
	if optional < 0 || optional > fixed {
		return nil, fmt.Errorf("%d optional parameters declared, it has %d", optional, fixed)
	}
	m := &method{name: name, result: typeName(s.result), streaming: s.hasStreams(), takesStreams: s.takesStreams()}
	for _, p := range s.params {
		m.args = append(m.args, typeName(p))
	}
	if s.duplex {
		m.result = streamTypeName
	}
	f := &reflectMethod{method: m, shape: s, fn: fn, fixed: fixed, optional: optional}
	m.invoke = f.invoke
	return m, nil
}

// reflectMethod calls a function through package reflect.
type reflectMethod struct {
	*method
	shape
	fn              reflect.Value
	fixed, optional int // parameters
}

func (f *reflectMethod) invoke(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error) {
	if f.streaming {
		return f.invokeStreams(ctx, args, n, lim, dst)
	}
	in, err := f.decode(ctx, args, n, lim, nil)
	if err != nil {
		return dst, err
	}
	return appendResults(ctx, dst, f.method, f.shape, f.call(in))
}

// invokeStreams is invoke for a method with streams.
func (f *reflectMethod) invokeStreams(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) (out []byte, err error) {
	streams, streamCtx, err := beginStreams(ctx, f.method, f.returns != nil || f.duplex)
	if err != nil {
		return dst, err
	}
	answering := false
	defer func() {
		if !answering { // it has failed, or panicked
			streams.end(context.Canceled)
		}
	}()
	in, err := f.decode(streamCtx, args, n, lim, streams)
	if err != nil {
		return dst, err
	}
	if f.duplex {
		out, err = streams.talk(dst, f, in)
		answering = err == nil
		return out, err
	}
	results := f.call(in)
	if f.returns == nil {
		hidden := streams.returned()
		out, err = appendResults(ctx, dst, f.method, f.shape, results)
		if err == nil && hidden != nil {
			return dst, hidden
		}
		return out, err
	}
	if f.hasError {
		if err, _ := reflect.TypeAssert[error](results[len(results)-1]); err != nil {
			return dst, err
		}
	}
	value := results[0]
	if value.IsNil() {
		return dst, resultError(f.name, errors.New("the stream is nil"))
	}
	out, err = streams.result(dst, value, func(o *stream.Out) error { return f.returns.Send(o, value) })
	if answering = err == nil; !answering {
		streams.closeSource(value)
	}
	return out, err
}

func (f *reflectMethod) call(in []reflect.Value) []reflect.Value {
	if f.variadic {
		return f.fn.CallSlice(in)
	}
	return f.fn.Call(in)
}

// decode returns what the function is called with.
func (f *reflectMethod) decode(ctx context.Context, args []byte, n int, lim codec.Limits, streams *servedStreams) ([]reflect.Value, error) {
	decoder := codec.NewDecoder(args, lim)
	d := &decoder
	in := make([]reflect.Value, 1, 1+len(f.params))
	in[0] = reflect.ValueOf(ctx)
	for i := range f.fixed {
		p := f.params[i]
		arg := reflect.New(p).Elem()
		switch {
		case i >= n || (d.PeekKind() == codec.KindUndefined && !holdsUndefined(p)):
			if i < f.fixed-f.optional && arg.Kind() != reflect.Pointer || f.streams[i] != nil {
				return nil, missingArgument(f.name, i)
			}
			if i < n {
				if err := d.Skip(); err != nil {
					return nil, argumentsError(err)
				}
			}
		case isService(p):
			if err := decodeService(ctx, d, arg); err != nil {
				return nil, serviceArgumentError(f.name, i, err)
			}
		case f.streams[i] != nil:
			from, err := streams.argument(d)
			if err != nil {
				return nil, serviceArgumentError(f.name, i, err)
			}
			if f.streams[i].IsDuplex() {
				break // talk makes it
			}
			arg = f.streams[i].Receive(from)
		default:
			if err := d.DecodeValue(arg); err != nil {
				return nil, argumentError(f.name, i, err)
			}
		}
		in = append(in, arg)
	}
	rest := max(n-f.fixed, 0)
	if !f.variadic {
		return in, finishArguments(d, rest)
	}
	list := reflect.New(f.fn.Type().In(1 + f.fixed)).Elem()
	if rest > 0 {
		if err := d.DecodeValues(list, rest); err != nil {
			return nil, &Error{Code: InvalidArgument, Message: fmt.Sprintf("arguments of %s from %d on: %v", f.name, 1+f.fixed, err), cause: err}
		}
	}
	return append(in, list), finishArguments(d, 0)
}

// checkServed returns what is wrong with the streams of a method.
func (s *shape) checkServed() error {
	for i, p := range s.streams {
		if p == nil || !p.IsDuplex() {
			continue
		}
		if s.duplex = true; i != len(s.streams)-1 || s.result != nil {
			return errors.New("a stream.Duplex must be the last parameter, of a method without a result")
		}
	}
	if s.returns != nil && s.returns.IsDuplex() {
		return errors.New("a stream.Duplex is a parameter of a method, and the result for its callers")
	}
	return nil
}

// holdsUndefined reports whether an argument that is given as undefined is passed
// on, rather than counting as left out.
func holdsUndefined(t reflect.Type) bool { return t.Kind() == reflect.Interface || t == rawType }

// appendResults encodes what a method returned.
func appendResults(ctx context.Context, dst []byte, m *method, s shape, out []reflect.Value) ([]byte, error) {
	if s.hasError {
		if err, _ := reflect.TypeAssert[error](out[len(out)-1]); err != nil {
			return dst, err
		}
	}
	if s.result == nil {
		return codec.AppendUndefined(dst), nil
	}
	if isService(s.result) {
		return appendServiceResult(ctx, dst, m, out[0].Interface())
	}
	dst, err := codec.AppendValue(dst, out[0])
	if err != nil {
		return dst, resultError(m.name, err)
	}
	return dst, nil
}

var (
	timeType   = reflect.TypeFor[time.Time]()
	bigIntType = reflect.TypeFor[big.Int]()
	mapType    = reflect.TypeFor[codec.Map]()
	rawType    = reflect.TypeFor[codec.Raw]()
	setType    = reflect.TypeFor[codec.Set]()
)

// streamTypeName is what TypeScript calls a stream.
const streamTypeName = "ReadableStream"

// typeName returns what TypeScript calls a type, for the metadata. Peers show it
// and never depend on it.
func typeName(t reflect.Type) string {
	if t == nil {
		return "void"
	}
	if isStream(t) {
		return streamTypeName
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t {
	case timeType:
		return "Date"
	case bigIntType:
		return "BigInt"
	case mapType:
		return "Map"
	case setType:
		return "Set"
	}
	switch t.Kind() {
	case reflect.Bool:
		return "Boolean"
	case reflect.String:
		return "String"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Float32, reflect.Float64:
		return "Number"
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "Buffer"
		}
		return "Array"
	}
	return "Object"
}
