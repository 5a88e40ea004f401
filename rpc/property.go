package rpc

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/d-e-v-grid/netron/codec"
)

// Property is a value of a service that peers read, and write unless it is declared
// readonly. It is a field of the Go value that [Endpoint.Expose] gets, which must be
// a pointer to a struct then:
//
//	type Counter struct {
//		Version string               `netron:"version,readonly"`
//		Count   rpc.Property[int]    // readable and writable as count
//		State   rpc.Property[string] `netron:",readonly"` // only the owner writes it
//	}
//
// The zero value holds the zero value of T. A Property must not be copied. All methods
// are safe for concurrent use.
type Property[T any] struct {
	mu    sync.RWMutex
	value T
	onSet func(ctx context.Context, v T) error
}

// Get returns the value.
func (p *Property[T]) Get() T {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.value
}

// Set stores a value, whatever peers may do. It does not call the function of OnSet.
func (p *Property[T]) Set(v T) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.value = v
}

// OnSet has fn called before a value that a peer sets is stored; an error of fn
// refuses it, and travels to the peer. Of values that are set at the same time fn may
// see one, then another, before either is stored. There is one such function: a later
// call replaces it.
func (p *Property[T]) OnSet(fn func(ctx context.Context, v T) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.onSet = fn
}

// setRemote stores a value that a peer sets.
func (p *Property[T]) setRemote(ctx context.Context, v T) error {
	p.mu.RLock()
	fn := p.onSet
	p.mu.RUnlock()
	if fn != nil {
		if err := fn(ctx, v); err != nil {
			return err
		}
	}
	p.Set(v)
	return nil
}

// property is a property of a service.
type property struct {
	name string
	typ  string  // as TypeScript calls it
	get  *method // takes nothing
	set  *method // takes the value; nil for a readonly property
}

// field is implemented by *Property.
type field interface {
	property(name string, readonly bool) (*property, error)
}

// property describes p as a member of a service.
func (p *Property[T]) property(name string, readonly bool) (*property, error) {
	t := reflect.TypeFor[T]()
	if err := codec.Check(t); err != nil {
		return nil, err
	}
	member := &property{name: name, typ: typeName(t), get: &method{name: name, op: OpGet}}
	member.get.invoke = getter(name, func() any { return p.Get() })
	if readonly {
		return member, nil
	}
	member.set = &method{name: name, op: OpSet, invoke: func(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error) {
		if n < 1 {
			return dst, missingArgument(name, 0)
		}
		d := codec.NewDecoder(args, lim)
		var v T
		if err := d.Decode(&v); err != nil {
			return dst, argumentError(name, 0, err)
		}
		if err := finishArguments(&d, n-1); err != nil {
			return dst, err
		}
		if err := p.setRemote(ctx, v); err != nil {
			return dst, err
		}
		return codec.AppendUndefined(dst), nil
	}}
	return member, nil
}

// getter returns the invoke of a reading.
func getter(name string, value func() any) invokeFunc {
	return func(_ context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error) {
		d := codec.NewDecoder(args, lim)
		if err := finishArguments(&d, n); err != nil {
			return dst, err
		}
		out, err := codec.Append(dst, value())
		if err != nil {
			return dst, resultError(name, err)
		}
		return out, nil
	}
}

// AddProperty adds a property to a service; readonly keeps peers from writing it.
// Mistakes are reported when the service is exposed.
func AddProperty[T any](s *Service, name string, p *Property[T], readonly bool) {
	member, err := p.property(name, readonly)
	if err != nil {
		s.fail(fmt.Errorf("rpc: property %q of service %s: %w", name, s.QualifiedName(), err))
		return
	}
	s.addProperty(member)
}

// constant returns a property that never changes.
func constant(name string, v reflect.Value) (*property, error) {
	encoded, err := codec.AppendValue(nil, v)
	if err != nil {
		return nil, err
	}
	return &property{name: name, typ: typeName(v.Type()), get: &method{
		name: name, op: OpGet, invoke: getter(name, func() any { return codec.Raw(encoded) }),
	}}, nil
}

// addProperty adds a property, or notes what is wrong with it.
func (s *Service) addProperty(p *property) {
	switch {
	case len(p.name) > maxNameBytes || !memberName.MatchString(p.name):
		s.fail(fmt.Errorf("rpc: property name %q of service %s: want 1 to %d of the characters A-Z a-z 0-9 _ $", p.name, s.QualifiedName(), maxNameBytes))
	case s.methods[p.name] != nil || s.props[p.name] != nil:
		s.fail(fmt.Errorf("rpc: service %s has two members %q", s.QualifiedName(), p.name))
	case s.exposed.Load():
		s.fail(fmt.Errorf("rpc: property %q added to service %s after it was exposed", p.name, s.QualifiedName()))
	default:
		p.get.owner = s
		if p.set != nil {
			p.set.owner = s
		}
		s.props[p.name] = p
		s.fields = append(s.fields, p.name)
	}
}

// addFields adds the properties among the fields of a Go value.
func (s *Service) addFields(rv reflect.Value, o *exposeOptions) {
	addressable := rv.Kind() == reflect.Pointer
	if addressable {
		rv = rv.Elem()
	}
	if rv.Kind() != reflect.Struct {
		return
	}
	for i := range rv.NumField() {
		f := rv.Type().Field(i)
		tag, tagged := f.Tag.Lookup(nameTag)
		_, isProperty := reflect.TypeAssert[field](reflect.New(f.Type))
		if !tagged && !isProperty {
			continue
		}
		member, err := fieldProperty(rv.Field(i), f, tag, isProperty, addressable)
		if err != nil {
			s.fail(fmt.Errorf("rpc: expose %s: field %s: %w", s.QualifiedName(), f.Name, err))
			continue
		}
		s.addProperty(member)
		s.useOn(o, f.Name, member.name)
	}
}

func fieldProperty(v reflect.Value, f reflect.StructField, tag string, isProperty, addressable bool) (*property, error) {
	if !f.IsExported() {
		return nil, fmt.Errorf("it is a property, and not exported")
	}
	name, option, _ := strings.Cut(tag, ",")
	if name == "" {
		name = codec.WireName(f.Name)
	}
	if option != "" && option != tagReadonly {
		return nil, fmt.Errorf("unknown option %q of its tag, want %s", option, tagReadonly)
	}
	readonly := option == tagReadonly
	if !isProperty {
		if !readonly {
			return nil, fmt.Errorf("a plain field can be a property only if its tag says %s; others have the type rpc.Property", tagReadonly)
		}
		return constant(name, v)
	}
	if !addressable {
		return nil, fmt.Errorf("it is a Property; expose a pointer to the struct")
	}
	p, _ := reflect.TypeAssert[field](v.Addr())
	return p.property(name, readonly)
}

const (
	tagReadonly = "readonly"
	tagGet      = "get"
	tagSet      = "set"
)

// newPropertyFunc returns a func of type t that reads or writes a property of a peer.
func newPropertyFunc(stub *Stub, name, option string, t reflect.Type) (reflect.Value, error) {
	p, ok := stub.view.Load().props[name]
	switch {
	case option != tagGet && option != tagSet:
		return reflect.Value{}, fmt.Errorf("unknown option %q of its tag, want %s or %s", option, tagGet, tagSet)
	case !ok:
		return reflect.Value{}, &Error{Code: NotFound, Message: fmt.Sprintf("service %s has no property %s", joinName(stub.Name(), stub.Version()), name)}
	case option == tagSet && p.Readonly:
		return reflect.Value{}, &Error{Code: PermissionDenied, Message: fmt.Sprintf("property %s of service %s is readonly", name, joinName(stub.Name(), stub.Version()))}
	case t.Kind() != reflect.Func || t.NumIn() == 0 || t.In(0) != contextType:
		return reflect.Value{}, fmt.Errorf("%s is no func whose first parameter is a context.Context", t)
	}
	s, err := shapeOf(t, func(reflect.Type) bool { return false })
	if err != nil {
		return reflect.Value{}, err
	}
	if option == tagGet {
		if len(s.params) != 0 || s.result == nil || !s.hasError {
			return reflect.Value{}, fmt.Errorf("%s cannot read a property, want func(context.Context) (T, error)", t)
		}
		return reflect.MakeFunc(t, func(in []reflect.Value) []reflect.Value {
			ctx, _ := reflect.TypeAssert[context.Context](in[0])
			result := reflect.New(s.result)
			return []reflect.Value{result.Elem(), errorValue(stub.Get(ctx, name, result.Interface()))}
		}), nil
	}
	if len(s.params) != 1 || s.variadic || s.result != nil || !s.hasError {
		return reflect.Value{}, fmt.Errorf("%s cannot write a property, want func(context.Context, T) error", t)
	}
	return reflect.MakeFunc(t, func(in []reflect.Value) []reflect.Value {
		ctx, _ := reflect.TypeAssert[context.Context](in[0])
		return []reflect.Value{errorValue(stub.Set(ctx, name, in[1].Interface()))}
	}), nil
}

func errorValue(err error) reflect.Value {
	v := reflect.New(errorType).Elem()
	if err != nil {
		v.Set(reflect.ValueOf(err))
	}
	return v
}
