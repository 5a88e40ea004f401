package rpc

import (
	"context"
	"fmt"
	"maps"

	"github.com/google/uuid"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// Services that a peer exposes at this side, those that this side publishes at a peer,
// and those that one peer alone sees (protocol sections 6.7 and 7.3).

// published are the services that one side of a connection exposes at the other.
type published struct {
	theirs map[string]*entry // exposed here by the peer, by qualified name
	ours   map[string]*entry // that we exposed at the peer, by the definition id that it gave

	pending  int           // requests to expose one of ours that have not been answered
	settledc chan struct{} // closed when one of them has been; nil if nobody waits
}

// maxExposed returns how many services a peer may expose here.
func (c *Config) maxExposed() int {
	if c.MaxExposedServices < 0 {
		return int(^uint(0) >> 1)
	}
	return c.MaxExposedServices
}

// exposureRefused is what a peer gets that may not expose services here.
func exposureRefused(task string) error {
	return &Error{Code: PermissionDenied, Message: fmt.Sprintf("Core task '%s' is disabled for remote peers", task)}
}

// runExposeService makes a service of the peer known here, and relays what is asked of
// it.
func (e *Endpoint) runExposeService(ctx context.Context, raw *codec.Raw) (*codec.Definition, error) {
	c := connFrom(ctx)
	if c == nil || e.cfg.maxExposed() == 0 {
		return nil, exposureRefused(taskExposeService)
	}
	if raw == nil {
		return nil, missingArgument(taskExposeService, 0)
	}
	var meta codec.Meta
	if err := codec.UnmarshalLimits(*raw, &meta, e.cfg.Limits); err != nil {
		return nil, argumentError(taskExposeService, 0, err)
	}
	if n := len(meta.Methods) + len(meta.Properties); n > maxExposedMembers {
		return nil, Errorf(ResourceExhausted, "a service with %d members, limit %d", n, maxExposedMembers)
	}
	meta.Extra = nil
	name, version, err := parseServiceName(joinName(meta.Name, meta.Version))
	if err != nil || name != meta.Name || version != meta.Version {
		return nil, Errorf(InvalidArgument, "no name for a service: %q, version %q", shown(meta.Name), shown(meta.Version))
	}
	d := &codec.Definition{ID: uuid.NewString(), PeerID: c.peer.ID(), Meta: meta}
	stub := c.newStub(d)
	stub.nested = &nestedStub{conn: c} // it ends with the connection
	entry, err := newEntry(stub.relayed(), d.ID, d.PeerID)
	if err != nil {
		return nil, &Error{Code: InvalidArgument, Message: err.Error(), cause: err}
	}
	entry.publisher = c
	if err := c.addExposed(entry); err != nil {
		return nil, err
	}
	return &entry.definition, nil
}

func (c *conn) addExposed(e *entry) error {
	h := &c.held
	h.mu.Lock()
	defer h.mu.Unlock()
	switch limit := c.endpoint.cfg.maxExposed(); {
	case h.ended:
		return &Error{Code: Unavailable, Message: "the connection has ended"}
	case len(h.theirs) >= limit:
		return &Error{Code: ResourceExhausted, Message: fmt.Sprintf("the peer exposes %d services, limit %d", len(h.theirs), limit)}
	}
	if err := c.endpoint.services.add(e); err != nil {
		return &Error{Code: CodeOf(err), Message: fmt.Sprintf("Service '%s' exists already", e.service.QualifiedName()), cause: err}
	}
	if h.theirs == nil {
		h.theirs = make(map[string]*entry)
	}
	h.theirs[e.service.QualifiedName()] = e
	return nil
}

// maxExposedMembers limits the members of a service that a peer exposes here.
const maxExposedMembers = 1000

// runUnexposeService takes out what the peer has exposed, and returns the id of its
// definition.
func (e *Endpoint) runUnexposeService(ctx context.Context, qualified *string) (string, error) {
	c := connFrom(ctx)
	if c == nil || e.cfg.maxExposed() == 0 {
		return "", exposureRefused(taskUnexposeService)
	}
	if qualified == nil {
		return "", missingArgument(taskUnexposeService, 0)
	}
	q, err := parseQuery(*qualified)
	if err != nil {
		return "", err
	}
	entry := c.takeExposed(q)
	switch {
	case entry != nil:
		e.services.remove(entry)
		return entry.definition.ID, nil
	case e.services.resolve(q) != nil:
		return "", &Error{Code: PermissionDenied, Message: fmt.Sprintf("Service '%s' was not exposed by this peer", shown(*qualified))}
	}
	return "", serviceNotFound(*qualified)
}

// takeExposed removes what the peer exposed here from the table of the connection, nil
// if there is no such service.
func (c *conn) takeExposed(q query) *entry {
	h := &c.held
	h.mu.Lock()
	defer h.mu.Unlock()
	e := lookUp(h.theirs, q)
	if e != nil {
		delete(h.theirs, e.service.QualifiedName())
	}
	return e
}

// Publish exposes a service of this side at the peer, for all that the peer serves:
// what they ask of it the peer passes on. The peer must allow it; else the error has
// the code [PermissionDenied], and [AlreadyExists] if the name is taken there. It lasts
// until [Peer.Unpublish], or the end of the peer. The service need not be exposed here.
//
// When a dialled peer reconnects the service is published again before calls go over the
// new connection. If that fails the peer is connected all the same: the failure is logged,
// and told by [Peer.OnState] with [ReasonPublishFailed]. It is tried again until
// [ReasonPublished], unless the peer does not allow it: the other side may hold the name
// for the connection that was lost until it notices the loss.
func (p *Peer) Publish(ctx context.Context, s *Service) error {
	for {
		c := p.conn.Load()
		if err := c.publish(ctx, s); err != nil {
			return err
		}
		if p.keepPublished(c, s) {
			return nil
		}
	}
}

// publish exposes a service at the other side of one connection.
func (c *conn) publish(ctx context.Context, s *Service) error {
	e, err := newEntry(s, "", c.endpoint.cfg.ID)
	if err != nil {
		return err
	}
	s.exposed.Store(true)
	c.held.begin()
	var d *codec.Definition
	err = c.runTask(ctx, taskExposeService, &d, &e.definition.Meta)
	if err == nil && d != nil {
		e.definition = *d
	} else {
		e = nil
	}
	c.held.settle(e)
	return err
}

// begin notes that a service is being published.
func (h *holdings) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending++
}

// settle notes that the publishing of a service has ended, without success if e is nil.
func (h *holdings) settle(e *entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending--
	if h.settledc != nil {
		close(h.settledc)
		h.settledc = nil
	}
	if e == nil || h.ended {
		return
	}
	if h.ours == nil {
		h.ours = make(map[string]*entry)
	}
	h.ours[e.definition.ID] = e
}

// settled returns a channel that is closed when the next publishing has ended, nil if
// there is none under way.
func (h *holdings) settled() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pending == 0 {
		return nil
	}
	if h.settledc == nil {
		h.settledc = make(chan struct{})
	}
	return h.settledc
}

// await is find for a request that may have come before the answer which says that its
// service has been published: others know of it as soon as the peer does.
func (c *conn) await(ctx context.Context, id []byte) *entry {
	for {
		settledc := c.held.settled()
		e := c.find(id)
		if e != nil || settledc == nil {
			return e
		}
		select {
		case <-settledc:
		case <-ctx.Done():
			return nil
		}
	}
}

// Unpublish takes back a service that [Peer.Publish] exposed, by its qualified name. It
// returns an error of code [NotFound] if there is none. The service is not published again
// when the peer reconnects, even if Unpublish fails.
func (p *Peer) Unpublish(ctx context.Context, qualified string) error {
	kept := p.dropPublished(qualified)
	err := p.conn.Load().unpublish(ctx, qualified)
	if kept && CodeOf(err) == NotFound {
		return nil // its connection was lost, or it could not be published again
	}
	return err
}

// unpublish takes back what was exposed at the other side of one connection.
func (c *conn) unpublish(ctx context.Context, qualified string) error {
	h := &c.held
	h.mu.Lock()
	var found *entry
	for _, e := range h.ours {
		if e.service.QualifiedName() == qualified {
			found = e
		}
	}
	h.mu.Unlock()
	if found == nil {
		return Errorf(NotFound, "rpc: service %s is not published at the peer", qualified)
	}
	key := qualified
	if c.kind() != mux.KindNetron {
		key = found.service.Name() // TypeScript peers have it under its bare name
	}
	if err := c.runTask(ctx, taskUnexposeService, nil, key); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.ours, found.definition.ID)
	return nil
}

// Expose makes a Go value callable by this peer alone, also when it reconnects, if it is
// one that this side has dialled. See [Endpoint.Expose].
func (p *Peer) Expose(qualified string, value any, opts ...ExposeOption) error {
	s, err := NewServiceOf(qualified, value, opts...)
	if err != nil {
		return err
	}
	return p.ExposeService(s)
}

// ExposeService makes a service callable by this peer alone: for all others it is not
// there. It may be exposed to several peers. A service that is exposed to all comes
// before one of the same qualified name, whose name is taken therefore.
func (p *Peer) ExposeService(s *Service) error {
	if p.endpoint.services.view.Load().byKey[s.QualifiedName()] != nil {
		return Errorf(AlreadyExists, "rpc: expose %s: a service of that name is exposed already", s.QualifiedName())
	}
	private := p.private.Load()
	if private == nil {
		private = newRegistry()
		private.isPrivate = true
		if !p.private.CompareAndSwap(nil, private) {
			private = p.private.Load()
		}
	}
	return private.expose(s, p.endpoint.cfg.ID)
}

// Conceal ends what [Peer.Expose] began. It returns an error of code [NotFound] if there
// is no such service.
func (p *Peer) Conceal(qualified string) error {
	if private := p.private.Load(); private != nil {
		return private.conceal(qualified)
	}
	return serviceNotFound(qualified)
}

// visible returns the services with a name that the peer sees, by that.
func (c *conn) visible() map[string]*entry {
	public := c.endpoint.services.view.Load().byKey
	private := c.peer.private.Load()
	if private == nil {
		return public
	}
	all := maps.Clone(private.view.Load().byKey)
	maps.Copy(all, public)
	return all
}

// named returns what a service is exposed as to the peer, nil if it is not.
func (c *conn) named(s *Service) *entry {
	if e := c.endpoint.services.view.Load().ofService(s); e != nil {
		return e
	}
	if private := c.peer.private.Load(); private != nil {
		return private.view.Load().ofService(s)
	}
	return nil
}
