package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/d-e-v-grid/netron/codec"
)

// Service is a set of methods under a name, optionally with a version, that an
// [Endpoint] exposes to its peers. It is built by [NewService] and [Handle], or
// from a Go value by [Endpoint.Expose], and does not change once it is exposed.
type Service struct {
	name    string
	version string
	methods map[string]*method
	order   []string // of the methods, as they were added
	err     error    // what went wrong while building, reported by ExposeService
	exposed bool     // guarded by the registry's mu
}

// method is one method of a service.
type method struct {
	name   string
	args   []string // their types as TypeScript calls them
	result string   // likewise

	// invoke decodes n arguments from d and calls the method, then appends the
	// encoded result to dst. An error of the decoder or of the method is returned
	// with dst as it was.
	invoke func(ctx context.Context, d *codec.Decoder, n int, dst []byte) ([]byte, error)
}

// NewService returns a service without methods. The name is letters and digits,
// in parts joined by dots; the version is a semantic version or empty. Mistakes
// in either, and in the methods added later, are reported when the service is
// exposed.
func NewService(name, version string) *Service {
	s := &Service{name: name, version: version, methods: make(map[string]*method)}
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
	case s.methods[m.name] != nil:
		s.fail(fmt.Errorf("rpc: service %s has two methods %q", s.QualifiedName(), m.name))
	case s.exposed:
		s.fail(fmt.Errorf("rpc: method %q added to service %s after it was exposed", m.name, s.QualifiedName()))
	default:
		s.methods[m.name] = m
		s.order = append(s.order, m.name)
	}
}

func (s *Service) fail(err error) { s.err = errors.Join(s.err, err) }

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
	return meta
}

// finishArguments checks what follows the arguments that a method takes: further
// ones are ignored, but after them the packet must end.
func finishArguments(d *codec.Decoder, extra int) error {
	for range extra {
		if err := d.Skip(); err != nil {
			return argumentsError(err)
		}
	}
	if err := d.End(); err != nil {
		return argumentsError(err)
	}
	return nil
}

// argumentsError reports arguments that cannot be read.
func argumentsError(err error) error {
	return &Error{Code: InvalidArgument, Message: "malformed arguments: " + err.Error(), cause: err}
}

// argumentError reports an argument that does not fit; i counts from 0.
func argumentError(method string, i int, err error) error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf("argument %d of %s: %v", i+1, method, err), cause: err}
}

// missingArgument reports an argument that is not there; i counts from 0.
func missingArgument(method string, i int) error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf("missing argument %d of %s", i+1, method)}
}

// resultError reports a result that has no form on the wire.
func resultError(method string, err error) error {
	return &Error{Code: Internal, Message: fmt.Sprintf("result of %s: %v", method, err), cause: err}
}
