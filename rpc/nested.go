package rpc

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/google/uuid"

	"github.com/d-e-v-grid/netron/codec"
)

// Services without a name: those that methods returned. The endpoint has one
// definition of each while a peer holds it; each connection counts the references that
// its peer holds (protocol sections 6.7 and 6.8).

// nestedTable holds the services of an endpoint that peers got as results.
type nestedTable struct {
	mu      sync.Mutex
	entries map[*Service]*entry // guarded by mu
}

// take returns the definition of a service, made at need, with one reference more.
func (t *nestedTable) take(s *Service, peerID string) (*entry, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.entries[s]
	if e == nil {
		var err error
		if e, err = newEntry(s, uuid.NewString(), peerID); err != nil {
			return nil, err
		}
		if t.entries == nil {
			t.entries = make(map[*Service]*entry)
		}
		s.exposed.Store(true)
		t.entries[s] = e
	}
	e.refs++
	return e, nil
}

// drop takes n references back. It must not be called with a lock held.
func (t *nestedTable) drop(e *entry, n int) {
	t.mu.Lock()
	e.refs -= n
	isLast := e.refs == 0
	if isLast {
		delete(t.entries, e.service)
	}
	t.mu.Unlock()
	if isLast && e.service.forgotten != nil {
		e.service.forgotten()
	}
}

// find returns the definition of a service, nil if no peer holds it.
func (t *nestedTable) find(s *Service) *entry {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.entries[s]
}

// holdings are the services without a name that the peer of a connection holds.
type holdings struct {
	mu    sync.Mutex
	byID  map[string]*holding // guarded by mu
	count int                 // of all references; guarded by mu
	ended bool                // guarded by mu

	published // guarded by mu
}

// holding is one of them.
type holding struct {
	entry *entry
	count int // references
}

// add counts a reference, if there may be one more.
func (h *holdings) add(e *entry, limit int) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return &Error{Code: Unavailable, Message: "the connection has ended"}
	case limit > 0 && h.count >= limit:
		return &Error{Code: ResourceExhausted, Message: fmt.Sprintf("the peer holds %d services, limit %d", h.count, limit)}
	}
	held := h.byID[e.definition.ID]
	if held == nil {
		if h.byID == nil {
			h.byID = make(map[string]*holding)
		}
		held = &holding{entry: e}
		h.byID[e.definition.ID] = held
	}
	held.count++
	h.count++
	return nil
}

// remove takes one reference back, and returns what it was to, nil if the peer holds
// nothing of that id.
func (h *holdings) remove(id string) *entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	held := h.byID[id]
	if held == nil {
		return nil
	}
	h.count--
	if held.count--; held.count == 0 {
		delete(h.byID, id)
	}
	return held.entry
}

func (h *holdings) find(id []byte) *entry {
	h.mu.Lock()
	defer h.mu.Unlock()
	if held := h.byID[string(id)]; held != nil {
		return held.entry
	}
	return h.ours[string(id)]
}

// end returns all that the peer held and exposed, and refuses more.
func (h *holdings) end() (held map[string]*holding, exposed map[string]*entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held, exposed = h.byID, h.theirs
	h.byID, h.count, h.ended, h.theirs, h.ours = nil, 0, true, nil, nil
	return held, exposed
}

// unref takes back a reference that the peer gives. One that it does not hold changes
// nothing.
func (c *conn) unref(id string) {
	if e := c.held.remove(id); e != nil {
		c.endpoint.nested.drop(e, 1)
	}
}

// giveBack takes back all that the peer holds, and takes out what it exposed, when the
// connection has ended.
func (c *conn) giveBack() {
	held, exposed := c.held.end()
	for _, h := range held {
		c.endpoint.nested.drop(h.entry, h.count)
	}
	for _, e := range exposed {
		c.endpoint.services.remove(e)
	}
}

// find returns the service that a request of the peer names: by definition id, or one
// with a name by that.
func (c *conn) find(id []byte) *entry {
	if e := c.endpoint.services.byDefinition(id); e != nil {
		return e
	}
	if private := c.peer.private.Load(); private != nil {
		if e := private.byDefinition(id); e != nil {
			return e
		}
	}
	return c.held.find(id)
}

// definitionOf returns under which id the peer knows a service of this side, "" if it
// does not.
func (c *conn) definitionOf(s *Service) string {
	if s == nil {
		return ""
	}
	if e := c.named(s); e != nil {
		return e.definition.ID
	}
	if e := c.endpoint.nested.find(s); e != nil {
		return e.definition.ID
	}
	return ""
}

// appendService appends a service as the result of m, and counts the reference that
// the peer gets.
func (c *conn) appendService(dst []byte, m *method, s *Service) ([]byte, error) {
	if s == nil {
		return codec.AppendNil(dst), nil
	}
	e := c.named(s)
	isNamed := e != nil
	if !isNamed {
		var err error
		if e, err = c.endpoint.nested.take(s, c.endpoint.cfg.ID); err != nil {
			return dst, resultError(m.name, err)
		}
		if err := c.held.add(e, c.endpoint.cfg.maxReferences()); err != nil {
			c.endpoint.nested.drop(e, 1)
			return dst, err
		}
	}
	d := e.definition
	d.ParentID = c.definitionOf(m.owner)
	out, err := codec.Append(dst, &d)
	if err != nil {
		if !isNamed {
			c.unref(d.ID)
		}
		return dst, resultError(m.name, err)
	}
	return out, nil
}

var (
	serviceType = reflect.TypeFor[*Service]()
	stubType    = reflect.TypeFor[*Stub]()
)

// isService reports whether values of the type are services, which have a form of
// their own as arguments and results, and nowhere else.
func isService(t reflect.Type) bool { return t == serviceType || t == stubType }

// appendServiceResult appends what a method returned whose result is a service.
func appendServiceResult(ctx context.Context, dst []byte, m *method, result any) ([]byte, error) {
	c := connFrom(ctx)
	if c == nil {
		return dst, resultError(m.name, errors.New("a service can be returned to a peer only"))
	}
	s, ok := result.(*Service)
	if !ok {
		if stub, _ := result.(*Stub); stub != nil {
			s = stub.relayed()
		}
	}
	return c.appendService(dst, m, s)
}

// decodeService decodes an argument that is a service of this side, into v of type
// *Service or *Stub. What this side relays is a Stub to it.
func decodeService(ctx context.Context, d *codec.Decoder, v reflect.Value) error {
	switch d.PeekKind() {
	case codec.KindNil, codec.KindUndefined:
		return d.Skip()
	case codec.KindReference:
	default:
		return errors.New("it is not a reference to a service of this side")
	}
	var r codec.Reference
	if err := d.Decode(&r); err != nil {
		return err
	}
	c := connFrom(ctx)
	if c == nil {
		return errors.New("a service can come from a peer only")
	}
	e := c.find([]byte(r.DefID))
	if e == nil {
		return definitionNotFound([]byte(r.DefID))
	}
	if v.Type() == serviceType {
		v.Set(reflect.ValueOf(e.service))
		return nil
	}
	if e.service.stub == nil {
		return fmt.Errorf("service %s is not one of another peer", e.service.QualifiedName())
	}
	v.Set(reflect.ValueOf(e.service.stub))
	return nil
}
