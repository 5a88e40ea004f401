package rpc

import (
	"fmt"
	"reflect"
)

// Func adds a function to a service as a method: the signatures are those of the
// methods that [NewServiceOf] takes, and the first parameter must be a
// [context.Context]. So a service can be made at run time, from whatever functions
// there are. Mistakes are reported when the service is exposed.
func Func(s *Service, name string, fn any) {
	rv := reflect.ValueOf(fn)
	if rv.Kind() != reflect.Func || rv.IsNil() || rv.Type().NumIn() == 0 || rv.Type().In(0) != contextType {
		s.fail(fmt.Errorf("rpc: method %q of service %s: %T is no function whose first parameter is a context.Context", name, s.QualifiedName(), fn))
		return
	}
	m, err := newReflectMethod(name, rv, 0)
	if err != nil {
		s.fail(fmt.Errorf("rpc: method %q of service %s: %w", name, s.QualifiedName(), err))
		return
	}
	s.add(m)
}
