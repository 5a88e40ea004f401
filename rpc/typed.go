package rpc

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// caller makes calls of one method with arguments in a struct A and a result R,
// without reflection and without an allocation of its own.
type caller[A, R any] struct {
	stub   *Stub
	name   string
	none   bool // R is struct{}: the result is dropped
	isStub bool // R is *Stub

	target atomic.Pointer[target] // of the view of the stub that was used last

	arguments *codec.Typed[A]
	results   *codec.Typed[R]
	callbacks sync.Pool // of *callback[A, R]
}

func newCaller[A, R any](s *Stub, name string) *caller[A, R] {
	c := &caller[A, R]{stub: s, name: name, arguments: codec.TypedOf[A](), results: codec.TypedOf[R]()}
	_, c.none = any(*new(R)).(struct{})
	c.isStub = reflect.TypeFor[R]() == stubType
	c.callbacks.New = func() any { return newCallback(c) }
	c.target.Store(newTarget(s.view.Load(), name))
	return c
}

// target is where the calls of a method go.
type target struct {
	view   *stubView
	prefix []byte // encoded definition id and method name; nil if there is no such method
}

func newTarget(v *stubView, name string) *target { return &target{view: v, prefix: v.methods[name]} }

// aim returns where a call of the stub goes now: that of the caller, or one that its router has
// picked.
func (c *caller[A, R]) aim(at *Stub) (*stubView, []byte) {
	t, view := c.target.Load(), at.view.Load()
	if t.view != view {
		if at != c.stub {
			return view, view.methods[c.name]
		}
		t = newTarget(view, c.name)
		c.target.Store(t)
	}
	return view, t.prefix
}

// request encodes a call.
func (c *caller[A, R]) request(at *Stub, args *A) (*mux.Call, error) {
	view, prefix := c.aim(at)
	if prefix == nil {
		return nil, at.noMethod(c.name)
	}
	if err := at.usable(); err != nil {
		return nil, err
	}
	call := view.conn.session.NewCall()
	header := len(call.B)
	b := codec.AppendArrayHeader(call.B, 2)
	b, n, err := c.arguments.AppendTuple(append(b, prefix...), args)
	call.B = b
	if err != nil {
		call.Release()
		return nil, &Error{Code: InvalidArgument, Message: fmt.Sprintf("arguments of %s: %v", c.name, err), cause: err}
	}
	if n > 0 {
		var room [5]byte
		h := codec.AppendArrayHeader(room[:0], 2+n)
		call.B[header] = h[0]
		if len(h) > 1 {
			call.B = slices.Insert(call.B, header+1, h[1:]...)
		}
	}
	return call, nil
}

// decode reads an answer into result.
func (c *caller[A, R]) decode(at *Stub, result *R, r mux.Reply) error {
	lim := at.peer.endpoint.cfg.Limits
	if r.IsError {
		return decodeError(r.Payload, lim)
	}
	if c.isStub {
		var stub *Stub
		err := at.decodeReply(r, &stub)
		*result, _ = any(stub).(R)
		return err
	}
	var d codec.Decoder
	d.Reset(r.Payload, lim)
	var err error
	if c.none {
		err = d.Skip()
	} else {
		err = c.results.Decode(&d, result)
	}
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return answerError(err)
	}
	return nil
}

func (c *caller[A, R]) call(ctx context.Context, args A) (R, error) {
	return c.attempt(ctx, c.stub, args, true)
}

// attempt makes a call, and makes it again if retry is set and its context allows that.
//
// It is in one piece because a goroutine that has waited pays for each function it
// returns from: the processor has forgotten where to.
func (c *caller[A, R]) attempt(ctx context.Context, at *Stub, args A, retry bool) (result R, err error) {
	if at.router != nil {
		return c.routed(ctx, args)
	}
	p := at.peer
	if chain := p.clientChain(); chain != nil {
		result, err = c.callThrough(ctx, chain, at, args)
	} else {
		var call *mux.Call
		if call, err = c.request(at, &args); err != nil {
			return result, err
		}
		var reply mux.Reply
		if timeout, err2 := p.complete(ctx, call); err2 != nil {
			err = err2
		} else if reply, err = call.Do(ctx, wire.TypeCall, timeout); err != nil {
			err = p.callError(err)
		} else if reply.Meta {
			err = p.takeTrailer(ctx, &reply)
		}
		if err == nil {
			err = c.decode(at, &result, reply)
		}
		call.Release()
	}
	if err == nil {
		return result, nil
	}
	if retry && p.mayRetry(ctx, err) {
		return c.retried(ctx, args, err)
	}
	return *new(R), err
}

// retried is [Peer.retried]. It is a function of its own so that the result need not live
// on the heap without.
func (c *caller[A, R]) retried(ctx context.Context, args A, err error) (result R, _ error) {
	err = c.stub.peer.retried(ctx, err, func(ctx context.Context) (err error) {
		result, err = c.attempt(ctx, c.stub, args, false)
		return err
	})
	return result, err
}

// routed is attempt for a stub with a router.
func (c *caller[A, R]) routed(ctx context.Context, args A) (result R, err error) {
	p, err := c.stub.router.Pick(ctx, c.name)
	if err != nil {
		return result, unsent(err)
	}
	returned := false
	defer c.stub.endUnless(ctx, &returned, &p)
	result, err = c.attempt(ctx, p.Stub, args, false)
	returned = true
	if c.stub.router.Done(ctx, p, err) {
		return c.rerouted(ctx, args, p, err)
	}
	return result, err
}

// rerouted is [Stub.rerouted], and a function of its own as retried is.
func (c *caller[A, R]) rerouted(ctx context.Context, args A, p Pick, err error) (result R, _ error) {
	err = c.stub.rerouted(ctx, p, err, func(ctx context.Context, at *Stub) (err error) {
		result, err = c.attempt(ctx, at, args, false)
		return err
	})
	return result, err
}

// callThrough is call with middleware. It is a function of its own so that args need
// not live on the heap without.
func (c *caller[A, R]) callThrough(ctx context.Context, chain Handler, at *Stub, args A) (R, error) {
	return c.through(ctx, chain, at, &args)
}

// through makes a call with middleware.
func (c *caller[A, R]) through(ctx context.Context, chain Handler, at *Stub, args *A) (result R, err error) {
	if _, prefix := c.aim(at); prefix == nil {
		return result, at.noMethod(c.name)
	}
	r := &Request{op: OpCall, client: true, peer: at.peer, stub: at, member: c.name}
	if r.args, r.count, err = c.arguments.AppendTuple(nil, args); err != nil {
		return result, &Error{Code: InvalidArgument, Message: fmt.Sprintf("arguments of %s: %v", c.name, err), cause: err}
	}
	raw, err := chain(ctx, r)
	if err != nil {
		return result, asError(err)
	}
	if err := c.decode(at, &result, mux.Reply{Payload: orUndefined(raw)}); err != nil {
		return *new(R), err
	}
	return result, nil
}

// startThrough is start with middleware, which may block and therefore has a goroutine
// of its own.
func (c *caller[A, R]) startThrough(ctx context.Context, chain Handler, at *Stub, args A, fn func(context.Context, R, error)) error {
	return at.peer.endpoint.background(ctx, func(ctx context.Context) {
		defer at.recoverCallback(c.name)
		result, err := guarded(at, c.name, func() (R, error) { return c.through(ctx, chain, at, &args) })
		fn(ctx, result, err)
	})
}

func (c *caller[A, R]) start(ctx context.Context, args A, fn func(context.Context, R, error)) error {
	return c.startAt(ctx, c.stub, args, fn)
}

func (c *caller[A, R]) startAt(ctx context.Context, at *Stub, args A, fn func(context.Context, R, error)) error {
	if at.router != nil {
		return c.startRouted(ctx, args, fn)
	}
	if chain := at.peer.clientChain(); chain != nil {
		return c.startThrough(ctx, chain, at, args, fn)
	}
	call, err := c.request(at, &args)
	if err != nil {
		return err
	}
	cb, _ := c.callbacks.Get().(*callback[A, R])
	cb.fn, cb.at = fn, at
	if err := at.peer.start(ctx, wire.TypeCall, call, cb.onDone); err != nil {
		cb.free()
		return err
	}
	return nil
}

// startRouted is start for a stub with a router.
func (c *caller[A, R]) startRouted(ctx context.Context, args A, fn func(context.Context, R, error)) error {
	return c.stub.startRouted(ctx, c.name, func(at *Stub, done func(error)) error {
		return c.startAt(ctx, at, args, func(ctx context.Context, result R, err error) {
			done(err)
			fn(ctx, result, err)
		})
	})
}

// callback is a call under way that start began.
type callback[A, R any] struct {
	caller *caller[A, R]
	at     *Stub
	fn     func(context.Context, R, error)
	onDone func(context.Context, mux.Reply, error) // done, made once: a method value allocates
}

func newCallback[A, R any](c *caller[A, R]) *callback[A, R] {
	cb := &callback[A, R]{caller: c}
	cb.onDone = cb.done
	return cb
}

func (cb *callback[A, R]) free() {
	cb.fn, cb.at = nil, nil
	cb.caller.callbacks.Put(cb)
}

// done passes the outcome on.
func (cb *callback[A, R]) done(ctx context.Context, r mux.Reply, err error) {
	c, at, fn := cb.caller, cb.at, cb.fn
	cb.free()
	defer at.recoverCallback(c.name)
	var result R
	if err == nil {
		err = at.peer.cut(&r)
	}
	if err != nil {
		err = at.peer.callError(err)
	} else if err = c.decode(at, &result, r); err != nil {
		result = *new(R)
	}
	fn(ctx, result, err)
}

// Method returns a method of a remote service as a typed function without
// reflection on the path of a call. The exported fields of A, a struct, are the
// arguments in their order; R is the result, struct{} if there is none. Errors
// are those of [Stub.Call]. The function may be called by any number of goroutines.
func Method[A, R any](s *Stub, name string) func(ctx context.Context, args A) (R, error) {
	return newCaller[A, R](s, name).call
}

// MethodFunc is [Method] with a callback: the function that it returns sends the
// call and has fn called with the outcome, exactly once, unless it returns an error
// itself. It is the fastest way to make many calls: no goroutine is woken for the
// answer. For fn the rules of [Stub.CallFunc] hold.
func MethodFunc[A, R any](s *Stub, name string) func(ctx context.Context, args A, fn func(ctx context.Context, result R, err error)) error {
	return newCaller[A, R](s, name).start
}
