package rpc

import (
	"context"
	"reflect"

	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/stream"
)

// Router chooses who serves each call of a stub that [NewRouted] made: such calls go to a
// service, and not to one peer. Package balance has one. Any number of goroutines call its
// methods.
type Router interface {
	// Pick returns where a call goes. member is the name of the method or property. It may
	// wait, but for calls whose ctx says [ErrWouldBlock].
	Pick(ctx context.Context, member string) (Pick, error)

	// Done is told what became of a pick, once: when the answer is there, or when the streams
	// of the call have ended. It must not block. It reports whether a failed call may be made
	// again; then Next follows, unless the call has used up the streams that it was given.
	Done(ctx context.Context, p Pick, err error) (again bool)

	// Next returns where a call goes that has failed at p with err. It may wait. Its error is
	// that of the call.
	Next(ctx context.Context, p Pick, err error) (Pick, error)
}

// Pick is where one attempt of a call goes. All but Stub and Streams belongs to the [Router].
type Pick struct {
	Stub    *Stub
	Streams bool // the call has streams; its time says little of the service

	At    any   // whom Stub belongs to
	Start int64 // when the attempt began
	Past  any   // the attempts before, nil for the first one
}

// NewRouted returns a stub whose calls go where r sends them: those that wait for their
// answer, also with streams, also again, and those of [Stub.CallFunc], [MethodFunc] and
// [Stub.Go]. What [Stub.Has], [Stub.Methods] and [Stub.Properties] say, and what is checked
// by [Bind], is as like has it. The stub has no peer, and cannot be an argument of a call.
func NewRouted(like *Stub, r Router) *Stub {
	b := &binding{}
	b.view.Store(newStubView(nil, like.view.Load().definition)) // no connection is kept
	return &Stub{definition: like.definition, binding: b, router: r}
}

// WouldBlock returns the error, which wraps [ErrWouldBlock], of what must not wait under ctx,
// nil if it may.
func WouldBlock(ctx context.Context) error {
	if err := mux.WouldBlock(ctx); err != nil {
		return callError(err)
	}
	return nil
}

// Pending returns how many calls to the peer wait for their answers.
func (p *Peer) Pending() int { return p.link().Pending() }

// unsent returns the error of a pick as that of a call, which was not sent.
func unsent(err error) error {
	e := *asError(err)
	if e.sent == sentUnknown {
		e.sent = notSent
	}
	return &e
}

// routed makes a call of a routed stub, by run.
func (s *Stub) routed(ctx context.Context, member string, run func(context.Context, *Stub) error) error {
	p, err := s.router.Pick(ctx, member)
	if err != nil {
		return unsent(err)
	}
	err = s.runAt(ctx, p, run)
	if s.router.Done(ctx, p, err) {
		return s.rerouted(ctx, p, err, run)
	}
	return err
}

// runAt is one attempt of routed.
func (s *Stub) runAt(ctx context.Context, p Pick, run func(context.Context, *Stub) error) error {
	returned := false
	defer s.endUnless(ctx, &returned, &p)
	err := run(ctx, p.Stub)
	returned = true
	return err
}

// endUnless ends an attempt that has not returned: a panic passes through, of middleware or of
// what encodes an argument.
func (s *Stub) endUnless(ctx context.Context, returned *bool, p *Pick) {
	if !*returned {
		s.router.Done(ctx, *p, errInternal())
	}
}

// rerouted makes a call again that has failed at p with err.
func (s *Stub) rerouted(ctx context.Context, p Pick, err error, run func(context.Context, *Stub) error) error {
	r := p.Stub.peer.newRetry(ctx)
	defer r.stop()
	for again := true; again; {
		r.note(err)
		next, failure := s.router.Next(r.ctx, p, err)
		if failure != nil {
			return r.outcome(failure)
		}
		p = next
		err = s.runAt(r.ctx, p, run)
		again = s.router.Done(r.ctx, p, err)
	}
	return r.outcome(err)
}

// streamRouted makes a call with streams of a routed stub.
func (s *Stub) streamRouted(ctx context.Context, method string, args []argument, want *stream.Shape, result reflect.Value) error {
	p, err := s.router.Pick(ctx, method)
	if err != nil {
		return unsent(err)
	}
	c, again, err := s.streamAt(ctx, p, method, args, want, result)
	if !again || c.used() {
		return err
	}
	r := p.Stub.peer.newRetry(ctx)
	defer r.stop()
	for again && !c.used() {
		r.note(err)
		next, failure := s.router.Next(r.ctx, p, err)
		if failure != nil {
			return r.outcome(failure)
		}
		p = next
		c, again, err = s.streamAt(ctx, p, method, args, want, result) // see callStreaming for the context
	}
	return r.outcome(err)
}

// streamAt is one attempt of streamRouted.
func (s *Stub) streamAt(ctx context.Context, p Pick, method string, args []argument, want *stream.Shape, result reflect.Value) (c *streamCall, again bool, err error) {
	p.Streams = true
	returned := false
	defer s.endUnless(ctx, &returned, &p)
	c, err = p.Stub.streamOnce(ctx, method, args, want, result)
	returned = true
	if err != nil {
		return c, s.router.Done(ctx, p, err), err
	}
	c.afterEnd(func() { s.router.Done(ctx, p, nil) })
	return c, false, nil
}

// startRouted starts a call of a routed stub by start, which calls the function that it is given
// when the call is over, or returns an error.
func (s *Stub) startRouted(ctx context.Context, member string, start func(at *Stub, done func(error)) error) error {
	p, err := s.router.Pick(ctx, member)
	if err != nil {
		return unsent(err)
	}
	for err == nil {
		at := p
		err = s.runAt(ctx, at, func(_ context.Context, stub *Stub) error {
			return start(stub, func(err error) { s.router.Done(ctx, at, err) })
		})
		if err == nil || !s.router.Done(ctx, p, err) {
			return err
		}
		p, err = s.router.Next(ctx, p, err)
	}
	return err
}

// relayRouted passes a request on that a peer made of a routed stub, and again if nobody has
// served it. It has no streams for arguments.
func (s *Stub) relayRouted(ctx context.Context, member string, relay func(at *Stub) ([]byte, error)) ([]byte, error) {
	p, err := s.router.Pick(ctx, member)
	if err != nil {
		return nil, unsent(err)
	}
	out, again, err := s.relayAt(ctx, p, relay)
	if !again {
		return out, err
	}
	r := p.Stub.peer.newRetry(ctx)
	defer r.stop()
	for again {
		r.note(err)
		next, failure := s.router.Next(r.ctx, p, err)
		if failure != nil {
			return nil, r.outcome(failure)
		}
		p = next
		out, again, err = s.relayAt(ctx, p, relay) // see callStreaming for the context
	}
	return out, r.outcome(err)
}

// relayAt is one attempt of relayRouted. It ends when the stream does which it returns.
func (s *Stub) relayAt(ctx context.Context, p Pick, relay func(at *Stub) ([]byte, error)) (out []byte, again bool, err error) {
	returned := false
	defer s.endUnless(ctx, &returned, &p)
	out, err = relay(p.Stub)
	returned = true
	if request, ok := ctx.Value(requestKey{}).(*requestContext); ok && err == nil {
		if x := request.extra(); x != nil && x.streams != nil {
			p.Streams = true
			x.streams.afterEnd(func() { s.router.Done(ctx, p, nil) })
			return out, false, nil
		}
	}
	return out, s.router.Done(ctx, p, err), err
}
