package rpc

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

// peerContext is the parent of the contexts of the handlers that serve one
// connection, and the context itself of those that run on its read owner. It ends
// when the connection does.
type peerContext struct {
	context.Context //nolint:containedctx // it is one
	conn            *conn
}

type (
	peerKey    struct{}
	connKey    struct{} // of the *conn
	userKey    struct{}
	requestKey struct{} // of the *requestContext
)

// Value implements [context.Context].
func (c *peerContext) Value(key any) any {
	switch key {
	case peerKey{}:
		return c.conn.peer
	case connKey{}:
		return c.conn
	case userKey{}:
		return c.conn.peer.User()
	}
	return c.Context.Value(key)
}

// requestContext is the context of one request. It ends when the handler has
// returned, when the peer gives the request up or its deadline passes, or with the
// connection.
//
// Most handlers never look at it, so it is made to cost almost nothing until Done is
// called: only then is there a channel, a timer, and an entry in the tables of the
// connection. It cannot be used anew, since a handler may have handed it to somebody
// who keeps it; contexts are allocated many at a time instead.
type requestContext struct {
	conn  *conn
	meta  atomic.Pointer[requestMeta] // nil if the request carries none, and no header of the answer was set
	state atomic.Pointer[requestState]
	id    uint32
}

// requestState is what a requestContext has from the first call of Done on.
type requestState struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelCauseFunc
}

// requestEnded is the state of a requestContext whose handler returned before Done
// was called.
var requestEnded = func() *requestState {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(context.Canceled)
	return &requestState{Context: ctx, cancel: cancel}
}()

// contextSlab is memory for some request contexts. None is used twice.
type contextSlab struct {
	contexts [32]requestContext
	used     int
}

func (c *conn) newContext(r *mux.Request) *requestContext {
	if r.Inline {
		return &requestContext{conn: c, id: r.ID()}
	}
	slab, _ := r.Scratch.(*contextSlab)
	if slab == nil || slab.used == len(slab.contexts) {
		slab = new(contextSlab)
		r.Scratch = slab
	}
	ctx := &slab.contexts[slab.used]
	slab.used++
	ctx.conn, ctx.id = c, r.ID()
	return ctx
}

// begun returns the state, and makes it if there is none.
func (r *requestContext) begun() *requestState {
	if s := r.state.Load(); s != nil {
		return s
	}
	s := &requestState{}
	s.Context, s.cancel = context.WithCancelCause(r.conn.ctx)
	if at := r.meta.Load().deadlineAt(); !at.IsZero() {
		ctx, stop := context.WithDeadline(s.Context, at)
		cancel := s.cancel
		s.Context, s.cancel = ctx, func(cause error) {
			cancel(cause)
			stop()
		}
	}
	if !r.state.CompareAndSwap(nil, s) {
		s.cancel(nil)
		return r.state.Load()
	}
	r.conn.track(r, s)
	return s
}

// end ends the context when the handler has returned.
func (r *requestContext) end() {
	if s := r.state.Swap(requestEnded); s != nil {
		r.conn.untrack(r)
		s.cancel(context.Canceled)
	}
	r.conn.takeMark(r.id)
}

// Deadline implements [context.Context].
func (r *requestContext) Deadline() (time.Time, bool) {
	at := r.meta.Load().deadlineAt()
	if parent, ok := r.conn.ctx.Deadline(); ok && (at.IsZero() || parent.Before(at)) {
		return parent, true
	}
	return at, !at.IsZero()
}

// Done implements [context.Context].
func (r *requestContext) Done() <-chan struct{} { return r.begun().Done() }

// Err implements [context.Context].
func (r *requestContext) Err() error {
	if s := r.state.Load(); s != nil {
		return s.Err()
	}
	if r.conn.marks.Load() > 0 || !r.meta.Load().deadlineAt().IsZero() {
		return r.begun().Err()
	}
	return r.conn.ctx.Err()
}

// Value implements [context.Context].
func (r *requestContext) Value(key any) any {
	switch key {
	case peerKey{}:
		return r.conn.peer
	case connKey{}:
		return r.conn
	case userKey{}:
		return r.conn.peer.User()
	case requestKey{}:
		return r
	}
	if s := r.state.Load(); s != nil {
		return s.Value(key)
	}
	return r.conn.ctx.Value(key)
}

// PeerFrom returns the peer whose request is being served under ctx, or nil. Use
// it to call back over the same connection.
func PeerFrom(ctx context.Context) *Peer {
	p, _ := ctx.Value(peerKey{}).(*Peer)
	return p
}

// connFrom returns the connection whose request is being served under ctx, or nil.
func connFrom(ctx context.Context) *conn {
	c, _ := ctx.Value(connKey{}).(*conn)
	return c
}

// WithUser returns a context that carries who the caller is, for what runs below a
// [Middleware] that found it out.
func WithUser(ctx context.Context, user any) context.Context {
	return context.WithValue(ctx, userKey{}, user)
}

// UserFrom returns who the caller of a request is: what a middleware gave to
// [WithUser], else what the peer authenticated as, see [Peer.SetUser], else nil.
func UserFrom(ctx context.Context) any { return ctx.Value(userKey{}) }
