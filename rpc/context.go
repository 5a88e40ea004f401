package rpc

import (
	"context"
	"sync/atomic"
	"time"
	"unsafe"

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
// who keeps it. Hence it is one byte, its own place in a slab, where its address is
// what tells it from others; the rest is in the slab.
type requestContext struct{ place uint8 }

// slabContexts is how many contexts share an allocation: as many as ended has bits.
const slabContexts = 32

// contextSlab is memory for the contexts of some requests of one connection. None is
// used twice.
type contextSlab struct {
	contexts [slabContexts]requestContext // at the start, see [requestContext.slab]
	used     int                          // owned by the worker that makes contexts of it
	conn     *conn
	extras   atomic.Pointer[[slabContexts]requestExtra] // nil until a request needs one
	ended    atomic.Uint32                              // bits: whose handler has returned
	ids      [slabContexts]uint32
}

// requestExtra is what few requests have.
type requestExtra struct {
	meta  atomic.Pointer[requestMeta]  // if the request carries any, or a header of the answer was set
	state atomic.Pointer[requestState] // from the first call of Done on

	streams *servedStreams // if its method has any; owned by the worker
}

// requestState makes a context end.
type requestState struct {
	context.Context //nolint:containedctx // it is one
	cancel          context.CancelCauseFunc
}

// newContext returns the context for a request. Contexts come from the slab that the
// worker used last, if it is of the same connection.
func (c *conn) newContext(r *mux.Request) *requestContext {
	slab, _ := r.Scratch.(*contextSlab)
	if slab == nil || slab.used == slabContexts || slab.conn != c {
		slab = &contextSlab{conn: c}
		r.Scratch = slab
	}
	i := slab.used
	slab.used++
	slab.ids[i] = r.ID()
	ctx := &slab.contexts[i]
	ctx.place = uint8(i)
	return ctx
}

func (r *requestContext) slab() *contextSlab {
	return (*contextSlab)(unsafe.Add(unsafe.Pointer(r), -int(r.place)))
}

func (r *requestContext) conn() *conn { return r.slab().conn }

func (r *requestContext) id() uint32 { return r.slab().ids[r.place] }

// extra returns what the request has besides, or nil.
func (r *requestContext) extra() *requestExtra {
	if extras := r.slab().extras.Load(); extras != nil {
		return &extras[r.place]
	}
	return nil
}

// needExtra is extra, never nil.
func (r *requestContext) needExtra() *requestExtra {
	slab := r.slab()
	if slab.extras.Load() == nil {
		slab.extras.CompareAndSwap(nil, new([slabContexts]requestExtra))
	}
	return r.extra()
}

// meta returns what the request carries, or nil.
func (r *requestContext) meta() *requestMeta {
	if x := r.extra(); x != nil {
		return x.meta.Load()
	}
	return nil
}

func (r *requestContext) hasEnded() bool { return r.slab().ended.Load()>>r.place&1 != 0 }

// begun returns the state, and makes it if there is none.
func (r *requestContext) begun() *requestState {
	x := r.needExtra()
	if s := x.state.Load(); s != nil {
		return s
	}
	c := r.conn()
	s := &requestState{}
	s.Context, s.cancel = context.WithCancelCause(c.ctx)
	if at := x.meta.Load().deadlineAt(); !at.IsZero() {
		ctx, stop := context.WithDeadline(s.Context, at)
		cancel := s.cancel
		s.Context, s.cancel = ctx, func(cause error) {
			cancel(cause)
			stop()
		}
	}
	if !x.state.CompareAndSwap(nil, s) {
		s.cancel(nil)
		return x.state.Load()
	}
	c.track(r.id(), s)
	if r.hasEnded() { // end may have looked before there was a state
		r.finish(s)
	}
	return s
}

// end ends the context when the handler has returned. Streams that were made for the answer
// begin when that is sent; it is nil for a request that failed.
func (r *requestContext) end(request *mux.Request, answer []byte) {
	slab, place := r.slab(), r.place%slabContexts
	slab.ended.Or(1 << place)
	if extras := slab.extras.Load(); extras != nil {
		if streams := extras[place].streams; streams != nil {
			streams.answered(request, answer)
		}
		if s := extras[place].state.Load(); s != nil {
			r.finish(s)
		}
	}
	if c := slab.conn; c.marks.Load() != 0 {
		c.takeMark(slab.ids[place])
	}
}

// finish ends the context for those who wait for it. It may be called twice.
func (r *requestContext) finish(s *requestState) {
	r.conn().untrack(r.id(), s)
	s.cancel(context.Canceled)
}

// Deadline implements [context.Context].
func (r *requestContext) Deadline() (time.Time, bool) {
	at := r.meta().deadlineAt()
	if parent, ok := r.conn().ctx.Deadline(); ok && (at.IsZero() || parent.Before(at)) {
		return parent, true
	}
	return at, !at.IsZero()
}

// Done implements [context.Context].
func (r *requestContext) Done() <-chan struct{} { return r.begun().Done() }

// Err implements [context.Context].
func (r *requestContext) Err() error {
	if x := r.extra(); x != nil {
		if s := x.state.Load(); s != nil {
			return s.Err()
		}
		if !x.meta.Load().deadlineAt().IsZero() {
			return r.begun().Err()
		}
	}
	c := r.conn()
	switch {
	case c.marks.Load() > 0:
		return r.begun().Err()
	case r.hasEnded():
		return context.Canceled
	}
	return c.ctx.Err()
}

// Value implements [context.Context].
func (r *requestContext) Value(key any) any {
	if key == (requestKey{}) {
		return r
	}
	if x := r.extra(); x != nil {
		if s := x.state.Load(); s != nil {
			return s.Value(key)
		}
	}
	return r.conn().ctx.Value(key)
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
