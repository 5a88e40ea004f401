package rpc

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// Stub is a service of a peer as its callers see it. Get one with [Peer.Service], or
// as the result of a call: see [Stub.Call]. One with a name
// lives as long as the peer, and follows it from one connection to the next; one that a
// method returned ends with the connection.
//
// A Stub may be an argument of a call to the peer that it came from, which gets its own
// service then, and the result of a method of this side: then its callers reach the
// service through this side.
type Stub struct {
	peer       *Peer
	definition *codec.Definition // as it was when the stub was made
	*binding

	nested *nestedStub // nil for a service with a name
	router Router      // nil for the service of one peer

	childMu  sync.Mutex
	children map[*Stub]struct{} // services that it returned and that are not released; guarded by childMu

	relayOnce sync.Once
	relay     *Service // see relayed
}

// newStub returns a stub that stays with the present connection of the peer.
func newStub(p *Peer, d *codec.Definition) *Stub { return p.conn.Load().newStub(d) }

// newStub returns a stub that stays with the connection.
func (c *conn) newStub(d *codec.Definition) *Stub {
	b := &binding{}
	b.view.Store(newStubView(c, d))
	return &Stub{peer: c.peer, definition: d, binding: b}
}

// Peer returns the peer that serves the calls, nil if they go to several: see [NewRouted].
func (s *Stub) Peer() *Peer { return s.peer }

// Name returns the bare name of the service.
func (s *Stub) Name() string { return s.definition.Meta.Name }

// Version returns the version of the service, empty if it has none.
func (s *Stub) Version() string { return s.definition.Meta.Version }

// Methods returns the names of the methods.
func (s *Stub) Methods() []string {
	methods := s.view.Load().definition.Meta.Methods
	names := make([]string, len(methods))
	for i, m := range methods {
		names[i] = m.Name
	}
	return names
}

// Has reports whether the service has a method.
func (s *Stub) Has(method string) bool { return s.view.Load().methods[method] != nil }

// Properties returns the names of the properties.
func (s *Stub) Properties() []string {
	props := s.view.Load().definition.Meta.Properties
	names := make([]string, len(props))
	for i, p := range props {
		names[i] = p.Name
	}
	return names
}

// Get reads a property into the pointer result. Errors are those of [Stub.Call].
func (s *Stub) Get(ctx context.Context, property string, result any) error {
	return s.ask(ctx, OpGet, property, result, nil)
}

// Set writes a property. Errors are those of [Stub.Call], and of code
// [PermissionDenied] for a property that is readonly.
func (s *Stub) Set(ctx context.Context, property string, value any) error {
	return s.ask(ctx, OpSet, property, nil, []any{value})
}

// finish sends a request, which it takes, through the middleware if there is any. Its
// n arguments begin at start.
func (s *Stub) finish(ctx context.Context, op Op, member string, c *mux.Call, start, n int, result any) error {
	if target, ok := result.(**Stub); ok {
		var raw codec.Raw
		if err := s.finish(ctx, op, member, c, start, n, &raw); err != nil {
			return err
		}
		return s.peer.decodeService(raw, s, target)
	}
	if chain := s.peer.clientChain(); chain != nil {
		r := newClientRequest(s.peer, op, s, member, c.B[start:], n)
		c.Release()
		return s.peer.callThrough(ctx, chain, r, result)
	}
	return s.peer.call(ctx, op.wireType(), c, result)
}

// Call calls a method and stores its result in the pointer result; nil drops it.
//
// An error that the service returned is an [*Error]; so is every other failure:
// [NotFound] for a method that is not there, [InvalidArgument] for an argument
// that cannot be encoded, [DeadlineExceeded], [Canceled], [Unavailable]. The time
// limit is that of ctx, or the default one if it has none.
//
// If the method returns a service, result is a pointer to a *Stub, which is to be
// released: see [Stub.Release]. A *Stub among args is passed as the service that it
// stands for.
//
// Streams are passed as what package stream lists; whatever implements [io.Reader] is one of
// bytes. If the method returns one, result is a pointer to the form that is wanted; a pointer to any gets
// an iter.Seq2[any, error]. Read it to the end, break off, close it, or end ctx: until then it
// is held. Without a deadline in ctx the default time limit begins when all arguments have been sent.
func (s *Stub) Call(ctx context.Context, method string, result any, args ...any) error {
	if asksForStreams(result, args) {
		return s.callStreams(ctx, method, result, args)
	}
	return s.ask(ctx, OpCall, method, result, args)
}

// ask makes a request, and makes it again where ctx says so.
func (s *Stub) ask(ctx context.Context, op Op, member string, result any, args []any) error {
	if s.router != nil {
		return s.routed(ctx, member, func(ctx context.Context, at *Stub) error { return at.askOnce(ctx, op, member, result, args) })
	}
	err := s.askOnce(ctx, op, member, result, args)
	if s.peer.mayRetry(ctx, err) {
		return s.peer.retried(ctx, err, func(ctx context.Context) error { return s.askOnce(ctx, op, member, result, args) })
	}
	return err
}

func (s *Stub) askOnce(ctx context.Context, op Op, member string, result any, args []any) error {
	c, err := s.beginMember(op, member, len(args))
	if err != nil {
		return err
	}
	start := len(c.B)
	if err := s.peer.appendArguments(c, member, args); err != nil {
		return err
	}
	return s.finish(ctx, op, member, c, start, len(args), result)
}

// request encodes a call.
func (s *Stub) request(method string, args []any) (*mux.Call, error) {
	c, err := s.begin(method, len(args))
	if err != nil {
		return nil, err
	}
	if err := s.peer.appendArguments(c, method, args); err != nil {
		return nil, err
	}
	return c, nil
}

// begin starts the encoding of a call with n arguments.
func (s *Stub) begin(method string, n int) (*mux.Call, error) {
	return s.beginOn(s.view.Load(), method, n)
}

// beginOn is begin over the connection of a view.
func (s *Stub) beginOn(view *stubView, method string, n int) (*mux.Call, error) {
	prefix := view.methods[method]
	if prefix == nil {
		return nil, s.noMethod(method)
	}
	if err := s.usable(); err != nil {
		return nil, err
	}
	c := view.conn.session.NewCall()
	c.B = append(codec.AppendArrayHeader(c.B, 2+n), prefix...)
	return c, nil
}

// beginMember starts the encoding of a request about a member with n values behind its
// name.
func (s *Stub) beginMember(op Op, name string, n int) (*mux.Call, error) {
	if op == OpCall {
		return s.begin(name, n)
	}
	view := s.view.Load()
	p, ok := view.props[name]
	switch {
	case !ok && view.gone != nil:
		return nil, s.notThere(view)
	case !ok:
		return nil, &Error{Code: NotFound, Message: fmt.Sprintf("Property '%s.%s' not found", s.Name(), shown(name)), sent: notSent}
	case op == OpSet && p.Readonly:
		return nil, &Error{Code: PermissionDenied, Message: fmt.Sprintf("Property '%s.%s' is readonly", s.Name(), shown(name))}
	}
	if err := s.usable(); err != nil {
		return nil, err
	}
	c := view.conn.session.NewCall()
	c.B = codec.AppendString(codec.AppendString(codec.AppendArrayHeader(c.B, 2+n), view.definition.ID), name)
	return c, nil
}

func (s *Stub) noMethod(name string) error {
	if view := s.view.Load(); view.gone != nil {
		return s.notThere(view)
	}
	return &Error{Code: NotFound, Message: fmt.Sprintf("Method '%s.%s' not found", s.Name(), shown(name)), sent: notSent}
}

// Reply is the answer that a callback of [Stub.CallFunc] gets. It lends until the
// callback returns.
type Reply struct {
	stub  *Stub
	reply mux.Reply
}

// Decode stores the result in the pointer v.
func (r *Reply) Decode(v any) error { return r.stub.decodeReply(r.reply, v) }

// Raw returns the encoded result.
func (r *Reply) Raw() codec.Raw { return r.reply.Payload }

// CallFunc calls a method and has fn called with the outcome, exactly once,
// unless CallFunc itself returns an error.
//
// fn runs on the goroutine that reads the connection, or on another when the call
// fails; it must not block. Its ctx says so to what it calls: further calls by
// CallFunc and [MethodFunc] are fine, and leave together when the read is done; what
// would block returns [ErrWouldBlock]. err is nil or an [*Error]; the Reply is nil if
// it is not.
func (s *Stub) CallFunc(ctx context.Context, method string, fn func(context.Context, *Reply, error), args ...any) error {
	if s.router != nil {
		return s.startRouted(ctx, method, func(at *Stub, done func(error)) error {
			return at.CallFunc(ctx, method, func(ctx context.Context, r *Reply, err error) {
				done(err)
				fn(ctx, r, err)
			}, args...)
		})
	}
	if chain := s.peer.clientChain(); chain != nil {
		return s.callFuncThrough(ctx, chain, method, fn, args)
	}
	c, err := s.request(method, args)
	if err != nil {
		return err
	}
	return s.peer.start(ctx, wire.TypeCall, c, func(ctx context.Context, reply mux.Reply, err error) {
		defer s.recoverCallback(method)
		if err == nil {
			err = s.peer.cut(&reply)
		}
		switch {
		case err != nil:
			fn(ctx, nil, s.peer.callError(err))
		case reply.IsError:
			fn(ctx, nil, decodeError(reply.Payload, s.peer.endpoint.cfg.Limits))
		default:
			fn(ctx, &Reply{stub: s, reply: reply}, nil)
		}
	})
}

// callFuncThrough is CallFunc with middleware, which may block and therefore has a
// goroutine of its own.
func (s *Stub) callFuncThrough(ctx context.Context, chain Handler, method string, fn func(context.Context, *Reply, error), args []any) error {
	r, err := s.outgoing(method, args)
	if err != nil {
		return err
	}
	return s.peer.endpoint.background(ctx, func(ctx context.Context) {
		defer s.recoverCallback(method)
		raw, err := guarded(s, method, func() (codec.Raw, error) { return chain(ctx, r) })
		if err != nil {
			fn(ctx, nil, asError(err))
			return
		}
		fn(ctx, &Reply{stub: s, reply: mux.Reply{Payload: orUndefined(raw)}}, nil)
	})
}

// outgoing returns the request of a call for the middleware.
func (s *Stub) outgoing(method string, args []any) (*Request, error) {
	if !s.Has(method) {
		return nil, s.noMethod(method)
	}
	r := &Request{op: OpCall, client: true, peer: s.peer, stub: s, member: method, count: len(args)}
	for i, arg := range args {
		var err error
		if r.args, err = s.peer.appendArgument(r.args, arg); err != nil {
			return nil, argumentError(method, i, err)
		}
	}
	return r, nil
}

// recoverCallback keeps a panic in a callback from whoever called it.
func (s *Stub) recoverCallback(method string) {
	if v := recover(); v != nil {
		s.logPanic("netron: panic in a callback", method, v)
	}
}

func (s *Stub) logPanic(message, method string, v any) {
	s.peer.endpoint.cfg.logger().Error(message, "service", s.Name(), "method", method, "panic", v, "stack", string(debug.Stack()))
}

// guarded makes a call through middleware, whose panic is an error of the call: its callback
// is waited for.
func guarded[R any](s *Stub, method string, call func() (R, error)) (result R, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic("netron: panic in a middleware", method, v)
			err = errInternal()
		}
	}()
	return call()
}

// start sends a request, which it takes, and has fn called with the outcome once,
// also when ctx ends first.
func (p *Peer) start(ctx context.Context, t wire.Type, c *mux.Call, fn func(context.Context, mux.Reply, error)) error {
	timeout, err := p.complete(ctx, c)
	if err != nil {
		c.Release()
		return err
	}
	session := c.Session()
	if session.CanMeta() {
		fn = p.trimmed(ctx, fn)
	}
	if ctx.Done() == nil || session.Owns(ctx) { // which ends with the connection, as the call does
		if _, err := c.Start(ctx, t, timeout, fn); err != nil {
			c.Release()
			return p.callError(err)
		}
		return nil
	}
	w := &watch{}
	id, err := c.Start(ctx, t, timeout, func(ctx context.Context, r mux.Reply, err error) {
		w.end()
		fn(ctx, r, err)
	})
	if err != nil {
		c.Release()
		return p.callError(err)
	}
	w.begin(context.AfterFunc(ctx, func() {
		if session.Abandon(id) {
			fn(session.OwnerContext(session.Context()), mux.Reply{}, ctx.Err())
		}
	}))
	return nil
}

// trimmed returns fn for answers that may carry headers.
func (p *Peer) trimmed(callCtx context.Context, fn func(context.Context, mux.Reply, error)) func(context.Context, mux.Reply, error) {
	if target, ok := callCtx.Value(trailerKey{}).(*Header); !ok || target == nil {
		return fn
	}
	return func(ctx context.Context, r mux.Reply, err error) {
		if err == nil && r.Meta {
			err = p.takeTrailer(callCtx, &r)
		}
		fn(ctx, r, err)
	}
}

// watch stops watching the context of a call when the call has ended, which may
// happen before the watching has begun.
type watch struct {
	mu    sync.Mutex
	ended bool
	stop  func() bool
}

func (w *watch) begin(stop func() bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stop = stop
	if w.ended {
		stop()
	}
}

func (w *watch) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if w.stop != nil {
		w.stop()
	}
}

// Future is a call under way that [Stub.Go] started.
type Future struct {
	donec  chan struct{} // closed when the outcome is there
	stub   *Stub
	answer *buf.Buf // the encoded result or error; nil if there is none, or it was taken
	failed bool     // answer is an error
	err    error
	result any
	taken  atomic.Bool
}

// Go calls a method and returns without waiting for the answer; it waits only
// while the outgoing queue is full. The result is stored in the pointer
// result, nil drops it, by [Future.Wait].
func (s *Stub) Go(ctx context.Context, method string, result any, args ...any) *Future {
	f := &Future{donec: make(chan struct{}), stub: s, result: result}
	if err := s.startFuture(ctx, f, method, args, nil); err != nil {
		f.err = err
		close(f.donec)
	}
	return f
}

// startFuture begins the call of a future. It has done called before the future is, unless
// that is nil.
func (s *Stub) startFuture(ctx context.Context, f *Future, method string, args []any, done func(error)) error {
	if s.router != nil {
		return s.startRouted(ctx, method, func(at *Stub, done func(error)) error {
			f.stub = at
			return at.startFuture(ctx, f, method, args, done)
		})
	}
	if chain := s.peer.clientChain(); chain != nil {
		return s.callFuncThrough(ctx, chain, method, func(_ context.Context, r *Reply, err error) {
			if err != nil {
				f.err = err
			} else {
				f.answer = buf.Copy(r.reply.Payload)
			}
			if done != nil {
				done(err)
			}
			close(f.donec)
		}, args)
	}
	c, err := s.request(method, args)
	if err != nil {
		return err
	}
	return s.peer.start(ctx, wire.TypeCall, c, func(_ context.Context, r mux.Reply, err error) {
		if err == nil {
			err = s.peer.cut(&r)
		}
		if err != nil {
			f.err = s.peer.callError(err)
		} else {
			f.answer, f.failed = buf.Copy(r.Payload), r.IsError
			if r.IsError && done != nil {
				err = decodeError(r.Payload, s.peer.endpoint.cfg.Limits)
			}
		}
		if done != nil {
			done(err)
		}
		close(f.donec)
	})
}

// Done is closed when the outcome is there.
func (f *Future) Done() <-chan struct{} { return f.donec }

// Wait waits for the outcome, stores the result and returns the error as
// [Stub.Call] does; if ctx ends first it returns an error of code [Canceled] or
// [DeadlineExceeded] and the call goes on. Under the ctx of a read owner it returns
// an error that wraps [ErrWouldBlock] unless the outcome is there. After an outcome
// it returns the same error again. It must not be called by several goroutines at a
// time.
func (f *Future) Wait(ctx context.Context) error {
	select {
	case <-f.donec:
	default:
		if err := mux.WouldBlock(ctx); err != nil {
			return callError(err)
		}
		select {
		case <-f.donec:
		case <-ctx.Done():
			return callError(ctx.Err())
		}
	}
	if f.err == nil && f.taken.CompareAndSwap(false, true) {
		f.err = f.stub.decodeReply(mux.Reply{Payload: f.answer.B, IsError: f.failed}, f.result)
		f.answer.Release()
		f.answer = nil
	}
	return f.err
}
