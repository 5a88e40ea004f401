package rpc

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// caller makes calls of one method with arguments in a struct A and a result R,
// without reflection and without an allocation of its own.
type caller[A, R any] struct {
	stub   *Stub
	name   string
	prefix []byte // encoded definition id and method name; nil if there is no such method
	none   bool   // R is struct{}: the result is dropped

	arguments *codec.Typed[A]
	results   *codec.Typed[R]
	frames    sync.Pool // of *callFrame[A, R]
}

// callFrame is the memory of one call.
type callFrame[A, R any] struct {
	d      codec.Decoder
	args   A
	result R

	// For a callback.
	fn     func(context.Context, R, error)
	onDone func(context.Context, mux.Reply, error) // done, made once: a method value allocates
}

func newCaller[A, R any](s *Stub, name string) *caller[A, R] {
	c := &caller[A, R]{stub: s, name: name, prefix: s.methods[name], arguments: codec.TypedOf[A](), results: codec.TypedOf[R]()}
	_, c.none = any(*new(R)).(struct{})
	c.frames.New = func() any {
		f := new(callFrame[A, R])
		f.onDone = func(ctx context.Context, r mux.Reply, err error) { c.done(f, ctx, r, err) }
		return f
	}
	return c
}

func (c *caller[A, R]) frame() *callFrame[A, R] {
	f, _ := c.frames.Get().(*callFrame[A, R])
	return f
}

// free clears the frame, so that it keeps nothing of the caller's alive.
func (c *caller[A, R]) free(f *callFrame[A, R]) {
	*f = callFrame[A, R]{onDone: f.onDone}
	c.frames.Put(f)
}

// request encodes a call with the arguments of f.
func (c *caller[A, R]) request(f *callFrame[A, R]) (*mux.Call, error) {
	if c.prefix == nil {
		return nil, c.stub.noMethod(c.name)
	}
	call := c.stub.peer.link().NewCall()
	at := len(call.B)
	b := codec.AppendArrayHeader(call.B, 2)
	b, n, err := c.arguments.AppendTuple(append(b, c.prefix...), &f.args)
	call.B = b
	if err != nil {
		call.Release()
		return nil, &Error{Code: InvalidArgument, Message: fmt.Sprintf("arguments of %s: %v", c.name, err), cause: err}
	}
	if n > 0 {
		var room [5]byte
		header := codec.AppendArrayHeader(room[:0], 2+n)
		call.B[at] = header[0]
		if len(header) > 1 {
			call.B = slices.Insert(call.B, at+1, header[1:]...)
		}
	}
	return call, nil
}

// decode reads an answer into f.result.
func (c *caller[A, R]) decode(f *callFrame[A, R], r mux.Reply) error {
	lim := c.stub.peer.endpoint.cfg.Limits
	if r.IsError {
		return decodeError(r.Payload, lim)
	}
	var err error
	if c.none {
		err = checkValue(r.Payload, lim)
	} else {
		f.d.Reset(r.Payload, lim)
		if err = c.results.Decode(&f.d, &f.result); err == nil {
			err = f.d.End()
		}
	}
	if err != nil {
		return answerError(err)
	}
	return nil
}

func (c *caller[A, R]) call(ctx context.Context, args A) (result R, err error) {
	f := c.frame()
	defer c.free(f)
	f.args = args
	call, err := c.request(f)
	if err != nil {
		return result, err
	}
	reply, err := c.stub.peer.do(ctx, wire.TypeCall, call)
	if err == nil {
		err = c.decode(f, reply)
	}
	call.Release()
	if err != nil {
		return result, err
	}
	return f.result, nil
}

func (c *caller[A, R]) start(ctx context.Context, args A, fn func(context.Context, R, error)) error {
	f := c.frame()
	f.args, f.fn = args, fn
	call, err := c.request(f)
	if err == nil {
		err = c.stub.peer.start(ctx, wire.TypeCall, call, f.onDone)
	}
	if err != nil {
		c.free(f)
	}
	return err
}

// done passes the outcome of a call that start began to its callback.
func (c *caller[A, R]) done(f *callFrame[A, R], ctx context.Context, r mux.Reply, err error) {
	defer c.stub.recoverCallback(c.name)
	if err != nil {
		err = callError(err)
	} else {
		err = c.decode(f, r)
	}
	fn, result := f.fn, f.result
	if err != nil {
		result = *new(R)
	}
	c.free(f)
	fn(ctx, result, err)
}

// Method returns a method of a remote service as a typed function without
// reflection on the path of a call. The exported fields of A, a struct, are the
// arguments in their order; R is the result, struct{} if there is none. Errors
// are those of [Stub.Call].
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
