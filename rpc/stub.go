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

// Stub is a service of a peer as its callers see it. Get one with [Peer.Service].
// It lives as long as the connection.
type Stub struct {
	peer       *Peer
	definition *codec.Definition
	methods    map[string][]byte // the encoded definition id and method name of each method
}

func newStub(p *Peer, d *codec.Definition) *Stub {
	s := &Stub{peer: p, definition: d, methods: make(map[string][]byte, len(d.Meta.Methods))}
	for _, m := range d.Meta.Methods {
		s.methods[m.Name] = codec.AppendString(codec.AppendString(nil, d.ID), m.Name)
	}
	return s
}

// Peer returns the peer that serves the calls.
func (s *Stub) Peer() *Peer { return s.peer }

// Name returns the bare name of the service.
func (s *Stub) Name() string { return s.definition.Meta.Name }

// Version returns the version of the service, empty if it has none.
func (s *Stub) Version() string { return s.definition.Meta.Version }

// Methods returns the names of the methods.
func (s *Stub) Methods() []string {
	names := make([]string, len(s.definition.Meta.Methods))
	for i, m := range s.definition.Meta.Methods {
		names[i] = m.Name
	}
	return names
}

// Has reports whether the service has a method.
func (s *Stub) Has(method string) bool { return s.methods[method] != nil }

// Call calls a method and stores its result in the pointer result; nil drops it.
//
// An error that the service returned is an [*Error]; so is every other failure:
// [NotFound] for a method that is not there, [InvalidArgument] for an argument
// that cannot be encoded, [DeadlineExceeded], [Canceled], [Unavailable]. The time
// limit is that of ctx, or the default one if it has none.
func (s *Stub) Call(ctx context.Context, method string, result any, args ...any) error {
	c, err := s.request(method, args)
	if err != nil {
		return err
	}
	return s.peer.call(ctx, wire.TypeCall, c, result)
}

// request encodes a call.
func (s *Stub) request(method string, args []any) (*mux.Call, error) {
	c, err := s.begin(method, len(args))
	if err != nil {
		return nil, err
	}
	if err := appendArguments(c, method, args); err != nil {
		return nil, err
	}
	return c, nil
}

// begin starts the encoding of a call with n arguments.
func (s *Stub) begin(method string, n int) (*mux.Call, error) {
	prefix := s.methods[method]
	if prefix == nil {
		return nil, s.noMethod(method)
	}
	c := s.peer.link().NewCall()
	c.B = append(codec.AppendArrayHeader(c.B, 2+n), prefix...)
	return c, nil
}

func (s *Stub) noMethod(name string) error {
	return &Error{Code: NotFound, Message: fmt.Sprintf("Method '%s.%s' not found", s.Name(), shown(name))}
}

// Reply is the answer that a callback of [Stub.CallFunc] gets. It lends until the
// callback returns.
type Reply struct {
	peer  *Peer
	reply mux.Reply
}

// Decode stores the result in the pointer v.
func (r *Reply) Decode(v any) error { return r.peer.decodeReply(r.reply, v) }

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
	c, err := s.request(method, args)
	if err != nil {
		return err
	}
	return s.peer.start(ctx, wire.TypeCall, c, func(ctx context.Context, reply mux.Reply, err error) {
		defer s.recoverCallback(method)
		switch {
		case err != nil:
			fn(ctx, nil, callError(err))
		case reply.IsError:
			fn(ctx, nil, decodeError(reply.Payload, s.peer.endpoint.cfg.Limits))
		default:
			fn(ctx, &Reply{peer: s.peer, reply: reply}, nil)
		}
	})
}

// recoverCallback keeps a panic in a callback from whoever called it.
func (s *Stub) recoverCallback(method string) {
	if v := recover(); v != nil {
		s.peer.endpoint.cfg.logger().Error("netron: panic in a callback", "service", s.Name(), "method", method, "panic", v, "stack", string(debug.Stack()))
	}
}

// start sends a request, which it takes, and has fn called with the outcome once,
// also when ctx ends first.
func (p *Peer) start(ctx context.Context, t wire.Type, c *mux.Call, fn func(context.Context, mux.Reply, error)) error {
	if err := p.checkSize(c); err != nil {
		c.Release()
		return err
	}
	session, timeout := p.link(), p.timeout(ctx)
	if ctx.Done() == nil || session.Owns(ctx) { // which ends with the connection, as the call does
		if _, err := c.Start(ctx, t, timeout, fn); err != nil {
			c.Release()
			return callError(err)
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
		return callError(err)
	}
	w.begin(context.AfterFunc(ctx, func() {
		if session.Abandon(id) {
			fn(session.OwnerContext(session.Context()), mux.Reply{}, ctx.Err())
		}
	}))
	return nil
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
	peer   *Peer
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
	f := &Future{donec: make(chan struct{}), peer: s.peer, result: result}
	c, err := s.request(method, args)
	if err == nil {
		err = s.peer.start(ctx, wire.TypeCall, c, func(_ context.Context, r mux.Reply, err error) {
			if err != nil {
				f.err = callError(err)
			} else {
				f.answer, f.failed = buf.Copy(r.Payload), r.IsError
			}
			close(f.donec)
		})
	}
	if err != nil {
		f.err = err
		close(f.donec)
	}
	return f
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
		f.err = f.peer.decodeReply(mux.Reply{Payload: f.answer.B, IsError: f.failed}, f.result)
		f.answer.Release()
		f.answer = nil
	}
	return f.err
}
