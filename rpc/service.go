package rpc

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// Service is a set of methods under a name, optionally with a version, that an
// [Endpoint] exposes to its peers. It is built by [NewService] and [Handle], or
// from a Go value by [Endpoint.Expose], and does not change once it is exposed. A
// method may return one: see [Endpoint.ExposeService].
type Service struct {
	name      string
	version   string
	methods   map[string]*method
	order     []string // of the methods, as they were added
	props     map[string]*property
	fields    []string // the names of the properties, as they were added
	use       []Middleware
	err       error  // what went wrong while building, reported by ExposeService
	stub      *Stub  // that it relays to; nil for a service of this side
	forgotten func() // called when no peer holds it any more, if it is there

	home    atomic.Pointer[registry] // that it is exposed in; nil if it is not
	exposed atomic.Bool              // it has been exposed once, or sent to a peer: it does not change any more
}

// NewService returns a service without methods. The name is letters and digits,
// in parts joined by dots; the version is a semantic version or empty. Mistakes
// in either, and in the methods added later, are reported when the service is
// exposed.
func NewService(name, version string) *Service {
	s := &Service{name: name, version: version, methods: make(map[string]*method), props: make(map[string]*property)}
	gotName, gotVersion, err := parseServiceName(joinName(name, version))
	if err != nil || gotName != name || gotVersion != version {
		s.err = errors.Join(fmt.Errorf("rpc: new service %q version %q", name, version), err)
	}
	return s
}

// Name returns the service's bare name.
func (s *Service) Name() string { return s.name }

// Version returns the service's version, empty if it has none.
func (s *Service) Version() string { return s.version }

// QualifiedName returns name@version, or the bare name if there is no version.
func (s *Service) QualifiedName() string { return joinName(s.name, s.version) }

// Methods returns the names of the service's methods in the order in which they
// were added.
func (s *Service) Methods() []string { return slices.Clone(s.order) }

// add adds a method, or notes what is wrong with it.
func (s *Service) add(m *method) {
	switch {
	case len(m.name) > maxNameBytes || !memberName.MatchString(m.name):
		s.fail(fmt.Errorf("rpc: method name %q of service %s: want 1 to %d of the characters A-Z a-z 0-9 _ $", m.name, s.QualifiedName(), maxNameBytes))
	case s.methods[m.name] != nil || s.props[m.name] != nil:
		s.fail(fmt.Errorf("rpc: service %s has two members %q", s.QualifiedName(), m.name))
	case s.exposed.Load():
		s.fail(fmt.Errorf("rpc: method %q added to service %s after it was exposed", m.name, s.QualifiedName()))
	default:
		m.owner = s
		s.methods[m.name] = m
		s.order = append(s.order, m.name)
	}
}

func (s *Service) fail(err error) { s.err = errors.Join(s.err, err) }

// Inline declares methods, by their names on the wire, to run on the goroutine that
// reads the connection: no hand-over to a worker, which saves about a third of the
// cost of a small call. Such a method must never block, not even for a moment: on an
// event loop it would stop all connections of the loop. Nor may it end its goroutine
// by runtime.Goexit, as the Fatal of a test does. Its ctx makes what would block fail
// with [ErrWouldBlock] instead. It must be called before the service is
// exposed; a name that the service does not have is reported then.
func (s *Service) Inline(names ...string) {
	for _, name := range names {
		m := s.methods[name]
		switch {
		case s.exposed.Load():
			s.fail(fmt.Errorf("rpc: method %q of service %s declared inline after the service was exposed", name, s.QualifiedName()))
		case m == nil:
			s.fail(fmt.Errorf("rpc: service %s has no method %q to be inline", s.QualifiedName(), name))
		case m.streaming:
			s.fail(fmt.Errorf("rpc: method %q of service %s has streams, and cannot be inline", name, s.QualifiedName()))
		default:
			m.inline = true
		}
	}
}

// member finds what a request of type t names.
func (s *Service) member(t wire.Type, name []byte) (*method, error) {
	if t == wire.TypeCall {
		if m := s.methods[string(name)]; m != nil {
			return m, nil
		}
		return nil, &Error{Code: NotFound, Message: fmt.Sprintf("Method '%s.%s' not found", s.name, shown(name))}
	}
	p := s.props[string(name)]
	switch {
	case p == nil:
		return nil, &Error{Code: NotFound, Message: fmt.Sprintf("Property '%s.%s' not found", s.name, shown(name))}
	case t == wire.TypeGet:
		return p.get, nil
	case p.set == nil:
		return nil, &Error{Code: PermissionDenied, Message: fmt.Sprintf("Property '%s.%s' is readonly", s.name, p.name)}
	}
	return p.set, nil
}

// meta returns the metadata that peers get (protocol section 6.6).
func (s *Service) meta() codec.Meta {
	meta := codec.Meta{Name: s.name, Version: s.version}
	for _, name := range s.order {
		m := s.methods[name]
		described := codec.Method{Name: name, Type: m.result}
		for i, t := range m.args {
			described.Arguments = append(described.Arguments, codec.Argument{Type: t, Indexed: true, Index: i})
		}
		meta.Methods = append(meta.Methods, described)
	}
	for _, name := range s.fields {
		p := s.props[name]
		meta.Properties = append(meta.Properties, codec.Property{Name: name, Type: p.typ, Readonly: p.set == nil})
	}
	return meta
}
