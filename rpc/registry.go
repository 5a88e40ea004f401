package rpc

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/d-e-v-grid/netron/codec"
)

// registry holds the services that an endpoint exposes. Lookups read an immutable
// snapshot; changes replace it.
type registry struct {
	mu   sync.Mutex // serialises changes
	view atomic.Pointer[registryView]
}

// registryView is one state of a registry. It is never changed.
type registryView struct {
	byKey map[string]*entry // by qualified name
	byID  map[string]*entry // by definition id
}

// entry is an exposed service.
type entry struct {
	service    *Service
	definition codec.Definition
	encoded    []byte // the definition as it is sent
}

func newRegistry() *registry {
	r := &registry{}
	r.view.Store(&registryView{byKey: map[string]*entry{}, byID: map[string]*entry{}})
	return r
}

// expose makes the service known under its qualified name. peerID is the id of
// the node that owns it.
func (r *registry) expose(s *Service, peerID string) error {
	if s.err != nil {
		return s.err
	}
	if len(s.order) == 0 && len(s.fields) == 0 {
		return fmt.Errorf("rpc: expose %s: the service has no methods and no properties", s.QualifiedName())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	view := r.view.Load()
	key := s.QualifiedName()
	if view.byKey[key] != nil {
		return Errorf(AlreadyExists, "rpc: expose %s: a service of that name is exposed already", key)
	}
	if s.exposed {
		return Errorf(AlreadyExists, "rpc: expose %s: this service is exposed already", key)
	}
	e := &entry{service: s, definition: codec.Definition{ID: uuid.NewString(), PeerID: peerID, Meta: s.meta()}}
	encoded, err := codec.Append(nil, &e.definition)
	if err != nil {
		return fmt.Errorf("rpc: expose %s: %w", key, err)
	}
	e.encoded = encoded
	s.exposed = true
	next := &registryView{byKey: maps.Clone(view.byKey), byID: maps.Clone(view.byID)}
	next.byKey[key] = e
	next.byID[e.definition.ID] = e
	r.view.Store(next)
	return nil
}

// byDefinition finds the service that a request names: by definition id, or by
// qualified name. It does not keep id.
func (r *registry) byDefinition(id []byte) *entry { return r.view.Load().find(id) }

func (view *registryView) find(id []byte) *entry {
	if e := view.byID[string(id)]; e != nil {
		return e
	}
	return view.byKey[string(id)]
}

// resolve finds what a query asks for, nil if it is not there. See [lookUp].
func (r *registry) resolve(q query) *entry { return lookUp(r.view.Load().byKey, q) }

// all returns the exposed services in the order of their names.
func (r *registry) all() []*entry {
	view := r.view.Load()
	entries := make([]*entry, 0, len(view.byKey))
	for _, key := range slices.Sorted(maps.Keys(view.byKey)) {
		entries = append(entries, view.byKey[key])
	}
	return entries
}
