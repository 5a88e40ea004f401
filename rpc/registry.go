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

	isPrivate bool // of one peer; a service may be in several of these

	changed func(e *entry, exposed bool) // told of what peers can call; nil for nobody
}

// registryView is one state of a registry. It is never changed.
type registryView struct {
	byKey map[string]*entry // by qualified name
	byID  map[string]*entry // by definition id
}

// with returns a view that has e besides.
func (view *registryView) with(e *entry) *registryView {
	next := &registryView{byKey: maps.Clone(view.byKey), byID: maps.Clone(view.byID)}
	next.byKey[e.service.QualifiedName()] = e
	next.byID[e.definition.ID] = e
	return next
}

// without returns a view that lacks e.
func (view *registryView) without(e *entry) *registryView {
	next := &registryView{byKey: maps.Clone(view.byKey), byID: maps.Clone(view.byID)}
	delete(next.byKey, e.service.QualifiedName())
	delete(next.byID, e.definition.ID)
	return next
}

// ofService finds what a service is exposed as, nil if it is not.
func (view *registryView) ofService(s *Service) *entry {
	if e := view.byKey[s.QualifiedName()]; e != nil && e.service == s {
		return e
	}
	return nil
}

// entry is an exposed service.
type entry struct {
	service    *Service
	definition codec.Definition
	encoded    []byte // the definition as it is sent
	refs       int    // of a service without a name: how often peers hold it; guarded by the mu of nestedTable
	publisher  *conn  // through which a peer exposed it here; nil if it is our own
}

// newEntry returns a service with the definition of an id. peerID is the id of the node
// that owns it.
func newEntry(s *Service, id, peerID string) (*entry, error) {
	if s.err != nil {
		return nil, s.err
	}
	if len(s.order) == 0 && len(s.fields) == 0 {
		return nil, fmt.Errorf("rpc: expose %s: the service has no methods and no properties", s.QualifiedName())
	}
	e := &entry{service: s, definition: codec.Definition{ID: id, PeerID: peerID, Meta: s.meta()}}
	encoded, err := codec.Append(nil, &e.definition)
	if err != nil {
		return nil, fmt.Errorf("rpc: expose %s: %w", s.QualifiedName(), err)
	}
	e.encoded = encoded
	return e, nil
}

func newRegistry() *registry {
	r := &registry{}
	r.view.Store(&registryView{byKey: map[string]*entry{}, byID: map[string]*entry{}})
	return r
}

// expose makes the service known under its qualified name. peerID is the id of
// the node that owns it.
func (r *registry) expose(s *Service, peerID string) error {
	e, err := newEntry(s, uuid.NewString(), peerID)
	if err != nil {
		return err
	}
	return r.add(e)
}

// add makes an entry known under the qualified name of its service.
func (r *registry) add(e *entry) error {
	if err := r.insert(e); err != nil {
		return err
	}
	if r.changed != nil {
		r.changed(e, true)
	}
	return nil
}

func (r *registry) insert(e *entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	view := r.view.Load()
	key := e.service.QualifiedName()
	if view.byKey[key] != nil {
		return Errorf(AlreadyExists, "rpc: expose %s: a service of that name is exposed already", key)
	}
	if !r.isPrivate && !e.service.home.CompareAndSwap(nil, r) {
		return Errorf(AlreadyExists, "rpc: expose %s: this service is exposed already", key)
	}
	e.service.exposed.Store(true)
	r.view.Store(view.with(e))
	return nil
}

// remove takes an entry out, and reports whether it was there.
func (r *registry) remove(e *entry) bool {
	if !r.delete(e) {
		return false
	}
	if r.changed != nil {
		r.changed(e, false)
	}
	return true
}

func (r *registry) delete(e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	view := r.view.Load()
	if view.byID[e.definition.ID] != e {
		return false
	}
	r.view.Store(view.without(e))
	e.service.home.CompareAndSwap(r, nil)
	return true
}

// conceal takes out the service of that name, nothing but its qualified name.
func (r *registry) conceal(qualified string) error {
	e := r.view.Load().byKey[joinName(splitName(qualified))]
	if e == nil || !r.remove(e) {
		return serviceNotFound(qualified)
	}
	if e.publisher != nil {
		e.publisher.takeExposed(query{name: e.service.name, version: e.service.version})
	}
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
func (r *registry) all() []*entry { return sorted(r.view.Load().byKey) }

// sorted returns services in the order of their names.
func sorted(byKey map[string]*entry) []*entry {
	entries := make([]*entry, 0, len(byKey))
	for _, key := range slices.Sorted(maps.Keys(byKey)) {
		entries = append(entries, byKey[key])
	}
	return entries
}
