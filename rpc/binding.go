package rpc

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// stubView is a service as one connection has it. It does not change.
type stubView struct {
	conn       *conn
	definition *codec.Definition
	methods    map[string][]byte // the encoded definition id and method name of each method
	props      map[string]codec.Property
	gone       error // why there is no such service on the connection, nil if there is
}

func newStubView(c *conn, d *codec.Definition) *stubView {
	v := &stubView{conn: c, definition: d, methods: make(map[string][]byte, len(d.Meta.Methods)), props: make(map[string]codec.Property, len(d.Meta.Properties))}
	for _, f := range d.Meta.Properties {
		v.props[f.Name] = f
	}
	for _, m := range d.Meta.Methods {
		v.methods[m.Name] = codec.AppendString(codec.AppendString(nil, d.ID), m.Name)
	}
	return v
}

// binding is what the stubs of a service share. Those of a peer that reconnects get
// another view for each connection, before calls go over it.
type binding struct {
	qualified string // as it was asked for; empty if it cannot be asked for again
	view      atomic.Pointer[stubView]

	askedAt atomic.Int64 // Unix nanoseconds, when a service that has gone was asked for last
}

const (
	// sweepBindings is at how many bindings those are looked for that nobody uses.
	sweepBindings = 500
	// maxQuestions is how many services are asked for, or published, at a time.
	maxQuestions = 16
	// askPause is the least time between two questions for a service that has gone.
	askPause = time.Second
)

// bind asks for a service and returns a stub of it.
func (p *Peer) bind(ctx context.Context, qualified string) (*Stub, error) {
	for {
		c := p.conn.Load()
		d, err := c.definition(ctx, qualified)
		if err != nil {
			return nil, err
		}
		if p.redial == nil {
			return newStub(p, d), nil
		}
		if b := p.keep(c, d, qualified); b != nil {
			return &Stub{peer: p, definition: d, binding: b}, nil
		}
	}
}

// keep notes that there are stubs of a service, unless c has been replaced meanwhile.
func (p *Peer) keep(c *conn, d *codec.Definition, qualified string) *binding {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if p.conn.Load() != c {
		return nil
	}
	b := l.bindings[qualified].Value()
	if b == nil {
		b = &binding{qualified: qualified}
		l.remember(b)
	}
	if v := b.view.Load(); v == nil || v.conn != c || v.gone != nil || v.definition.ID != d.ID {
		b.view.Store(newStubView(c, d))
	}
	return b
}

// remember notes a binding for the next connection, if there can be one. mu is held.
func (l *life) remember(b *binding) {
	if l.event.State == StateClosed {
		return
	}
	if len(l.bindings) >= sweepBindings {
		l.living()
	}
	if l.bindings == nil {
		l.bindings = make(map[string]weak.Pointer[binding])
	}
	l.bindings[b.qualified] = weak.Make(b)
}

// living returns the bindings that are in use, and forgets the others. mu is held.
func (l *life) living() []*binding {
	var all []*binding
	for name, w := range l.bindings {
		if b := w.Value(); b != nil {
			all = append(all, b)
		} else {
			delete(l.bindings, name)
		}
	}
	return all
}

// findServices asks for the services that stubs stand for and that have no view yet.
func (c *conn) findServices(ctx context.Context, views map[*binding]*stubView) error {
	c.peer.life.mu.Lock()
	all := c.peer.life.living()
	c.peer.life.mu.Unlock()
	var (
		mu    sync.Mutex
		first error
	)
	forEach(slices.DeleteFunc(all, func(b *binding) bool { return views[b] != nil }), func(b *binding) {
		v, err := c.findService(ctx, b)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			views[b] = v
		} else if first == nil {
			first = err
		}
	})
	return first
}

// forEach runs ask for each of all, for at most maxQuestions at a time, and waits.
func forEach[T any](all []T, ask func(T)) {
	var wg sync.WaitGroup
	room := make(chan struct{}, maxQuestions)
	for _, v := range all {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			ask(v)
		})
	}
	wg.Wait()
}

// findService asks for a service that stubs stand for. That it is not there is no error.
func (c *conn) findService(ctx context.Context, b *binding) (*stubView, error) {
	d, err := c.definition(ctx, b.qualified)
	switch {
	case err == nil:
		return newStubView(c, d), nil
	case CodeOf(err) == Unavailable || ctx.Err() != nil || c.session.Context().Err() != nil:
		return nil, err
	}
	gone := *asError(err)
	gone.remote, gone.sent = false, notSent // it will be that of calls, which stay here
	return &stubView{conn: c, definition: b.view.Load().definition, gone: &gone}, nil
}

// notThere returns the error of a call to a service that has gone, and has it asked for
// again: a peer that has restarted may expose it only later.
func (s *Stub) notThere(v *stubView) error {
	if ctx := v.conn.session.Context(); ctx.Err() != nil {
		return s.peer.callError(&mux.LostError{Cause: context.Cause(ctx)}) // nobody knows what the next connection has
	}
	s.askAgain(v)
	return v.gone
}

// askAgain has the service asked for again, unless that was done just now.
func (s *Stub) askAgain(v *stubView) {
	now, last := time.Now(), s.askedAt.Load()
	if s.qualified != "" && now.Sub(time.Unix(0, last)) >= askPause && s.askedAt.CompareAndSwap(last, now.UnixNano()) {
		s.peer.endpoint.begin(func() { v.conn.findAgain(s.binding, v) })
	}
}

// Gone reports whether the peer is known not to have the service any more. Then it is asked
// again, once a second at most, by this and by calls.
func (s *Stub) Gone() bool {
	v := s.view.Load()
	if v.gone == nil {
		return false
	}
	_ = s.notThere(v)
	return true
}

// Doubt says that the peer may not have the service any more, since it has refused a call for
// that reason. It is asked again, as by [Stub.Gone].
func (s *Stub) Doubt() {
	if v := s.view.Load(); s.peer != nil {
		s.askAgain(v)
	}
}

// findAgain replaces the view of a service that had gone and has come back, or that may have gone.
func (c *conn) findAgain(b *binding, old *stubView) {
	ctx := c.session.Context()
	if d := c.peer.timeout(ctx); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	if v, err := c.findService(ctx, b); err == nil && (v.gone == nil || old.gone == nil) {
		b.view.CompareAndSwap(old, v)
	}
}
