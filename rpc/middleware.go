package rpc

import (
	"context"
	"slices"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// Op is what a [Request] wants.
type Op uint8

// The operations.
const (
	OpCall Op = iota // call a method
	OpGet            // read a property
	OpSet            // write a property
	OpTask           // run a task
)

// String returns the name in lower case.
func (o Op) String() string {
	switch o {
	case OpCall:
		return "call"
	case OpGet:
		return "get"
	case OpSet:
		return "set"
	case OpTask:
		return "task"
	}
	return "unknown"
}

func (o Op) wireType() wire.Type {
	switch o {
	case OpGet:
		return wire.TypeGet
	case OpSet:
		return wire.TypeSet
	case OpTask:
		return wire.TypeTask
	}
	return wire.TypeCall
}

// Request is an operation on its way to where it is carried out, as a [Middleware]
// sees it. It lives until the outermost handler returns.
type Request struct {
	op          Op
	client      bool
	peer        *Peer
	owner       *Service
	stub        *Stub
	conn        *conn       // of an outgoing task
	streams     *streamCall // of an outgoing call, nil if it has none
	takesStream bool        // whoever gets the answer opens the stream that it may announce
	member      string
	args        []byte
	count       int

	// Of the server: where the result goes.
	method *method
	out    []byte
}

// Op returns what the request wants.
func (r *Request) Op() Op { return r.op }

// Outgoing reports whether this side makes the request; else the peer does.
func (r *Request) Outgoing() bool { return r.client }

// Peer returns the other side: who asks, or who is asked if the request is outgoing.
func (r *Request) Peer() *Peer { return r.peer }

// Service returns the qualified name of the service, empty for a task.
func (r *Request) Service() string {
	switch {
	case r.owner != nil:
		return r.owner.QualifiedName()
	case r.stub != nil:
		return joinName(r.stub.Name(), r.stub.Version())
	}
	return ""
}

// Member returns the name of the method, the property or the task.
func (r *Request) Member() string { return r.member }

// Header returns the headers that the request carries; ctx is the one that came with it. They
// must not be changed: who sends adds to them by [WithHeader].
func (r *Request) Header(ctx context.Context) Header {
	if r.client {
		return outgoing(ctx)
	}
	return HeaderFrom(ctx)
}

// Len returns the number of arguments.
func (r *Request) Len() int { return r.count }

// Args returns the encoded arguments, one behind the other. They are lent until the
// outermost handler returns. Middleware of a server that looks at them should heed
// that they have not been checked.
func (r *Request) Args() []byte { return r.args }

// Decode decodes the first arguments into the pointers vs. Those that were left out
// leave their pointers alone. Errors have the code [InvalidArgument].
func (r *Request) Decode(vs ...any) error {
	d := codec.NewDecoder(r.args, r.peer.endpoint.cfg.Limits)
	for i, v := range vs {
		if i >= r.count {
			return nil
		}
		if err := d.Decode(v); err != nil {
			return argumentError(r.member, i, err)
		}
	}
	return nil
}

// Handler carries out a request and returns the encoded result, nil for none. The
// result lends until the outermost handler returns; [codec.Append] makes one.
type Handler func(ctx context.Context, r *Request) (codec.Raw, error)

// Middleware wraps a [Handler]. What it returns is called for each request, by many
// goroutines at a time, in place of next: it may look at the request, replace ctx,
// answer in place of next, and look at the outcome. It may call next again only when
// the request is outgoing. On the side that serves it runs before the arguments are
// decoded.
//
// It is called once for each method or peer, or again when middleware was added: what
// requests share belongs outside of it.
//
// Middleware of an inline method runs on the goroutine that reads the connection and
// must not block. That goes for the task emit too, by which TypeScript peers send events;
// events of other peers pass no middleware, see [EventConfig] and [pubsub.Bus.Use].
type Middleware func(next Handler) Handler

// Use adds middleware for all requests of peers: calls, properties and tasks, those
// of the protocol included. The first one is the outermost. Middleware of a service
// and of a method, see [Service.Use], runs inside of it.
func (e *Endpoint) Use(m ...Middleware) { addMiddleware(e, &e.use, m) }

// UseOutgoing adds middleware for all calls, properties and tasks that this side asks
// of peers. The first one is the outermost.
func (e *Endpoint) UseOutgoing(m ...Middleware) { addMiddleware(e, &e.useOut, m) }

// Use adds middleware for what this side asks of the peer, inside of that of
// [Endpoint.UseOutgoing].
func (p *Peer) Use(m ...Middleware) { addMiddleware(p.endpoint, &p.use, m) }

func addMiddleware(e *Endpoint, list interface {
	Load() *[]Middleware
	Store(*[]Middleware)
}, m []Middleware,
) {
	if len(m) == 0 {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Middleware
	if old := list.Load(); old != nil {
		all = slices.Clone(*old)
	}
	all = append(all, m...)
	list.Store(&all)
}

// serverChain is the middleware of a method, put together.
type serverChain struct {
	use     *[]Middleware // that of the endpoint which is in it
	handler Handler       // nil if there is none at all
}

// serverChain returns what serves requests for m in place of m itself, nil if there is
// no middleware.
func (m *method) serverChain(e *Endpoint) Handler {
	use := e.use.Load()
	if use == nil && len(m.use) == 0 && (m.owner == nil || len(m.owner.use) == 0) {
		return nil
	}
	if c := m.chain.Load(); c != nil && c.use == use {
		return c.handler
	}
	h := wrap(invokeMethod, m.use)
	if m.owner != nil {
		h = wrap(h, m.owner.use)
	}
	if use != nil {
		h = wrap(h, *use)
	}
	m.chain.Store(&serverChain{use: use, handler: h})
	return h
}

func wrap(h Handler, use []Middleware) Handler {
	for _, m := range slices.Backward(use) {
		h = m(h)
	}
	return h
}

// invokeMethod is the innermost handler of a server.
func invokeMethod(ctx context.Context, r *Request) (codec.Raw, error) {
	start := len(r.out)
	out, err := r.method.invoke(ctx, r.args, r.count, r.peer.endpoint.cfg.Limits, r.out)
	if err != nil {
		return nil, err
	}
	r.out = out
	return out[start:], nil
}

// runThrough is run with middleware.
func (c *conn) runThrough(ctx context.Context, chain Handler, m *method, args []byte, n int, dst []byte) ([]byte, error) {
	r := &Request{op: m.op, peer: c.peer, owner: m.owner, member: m.name, args: args, count: n, method: m, out: dst}
	result, err := chain(ctx, r)
	if err != nil {
		return dst, err
	}
	result = orUndefined(result)
	isOwn := len(r.out) > len(dst) && &result[0] == &r.out[len(dst)]
	if !isOwn && checkValue(result, c.endpoint.cfg.Limits) != nil {
		return dst, Errorf(Internal, "the result that a middleware of %s gave is not one value", m.name)
	}
	return append(r.out[:len(dst)], result...), nil
}

// orUndefined returns an encoded result, or undefined for none.
func orUndefined(raw codec.Raw) codec.Raw {
	if len(raw) == 0 {
		return codec.AppendUndefined(nil)
	}
	return raw
}

// clientChain returns what sends requests to the peer in place of the peer itself,
// nil if there is no middleware.
func (p *Peer) clientChain() Handler {
	mine, all := p.use.Load(), p.endpoint.useOut.Load()
	if mine == nil && all == nil {
		return nil
	}
	if c := p.chain.Load(); c != nil && c.mine == mine && c.all == all {
		return c.handler
	}
	var h Handler = sendRequest
	if mine != nil {
		h = wrap(h, *mine)
	}
	if all != nil {
		h = wrap(h, *all)
	}
	p.chain.Store(&clientChain{mine: mine, all: all, handler: h})
	return h
}

// clientChain is the middleware of a peer, put together.
type clientChain struct {
	mine, all *[]Middleware
	handler   Handler
}

// newClientRequest returns an outgoing request. It copies args.
func newClientRequest(p *Peer, op Op, s *Stub, member string, args []byte, n int) *Request {
	return &Request{op: op, client: true, peer: p, stub: s, member: member, args: slices.Clone(args), count: n}
}

// sendRequest is the innermost handler of a client: it sends the request, and may be
// called again to send it anew.
func sendRequest(ctx context.Context, r *Request) (codec.Raw, error) {
	if r.streams != nil {
		return r.streams.sendRequest(ctx, r)
	}
	var c *mux.Call
	if r.stub != nil {
		var err error
		if c, err = r.stub.beginMember(r.op, r.member, r.count); err != nil {
			return nil, err
		}
	} else {
		c = r.conn.session.NewCall()
		c.B = codec.AppendString(codec.AppendArrayHeader(c.B, 1+r.count), r.member)
	}
	c.B = append(c.B, r.args...)
	c.Stream = r.takesStream
	defer c.Release()
	reply, err := r.peer.do(ctx, r.op.wireType(), c)
	if err != nil {
		return nil, err
	}
	if reply.IsError {
		return nil, decodeError(reply.Payload, r.peer.endpoint.cfg.Limits)
	}
	return slices.Clone(reply.Payload), nil
}

// callThrough makes a call with middleware and decodes the result.
func (p *Peer) callThrough(ctx context.Context, chain Handler, r *Request, result any) error {
	raw, err := chain(ctx, r)
	if err != nil {
		return asError(err)
	}
	return p.decodeReply(mux.Reply{Payload: orUndefined(raw)}, result)
}

// Use adds middleware for the requests of the service, inside of that of
// [Endpoint.Use]. It must be called before the service is exposed.
func (s *Service) Use(m ...Middleware) {
	if s.exposed.Load() {
		s.fail(Errorf(FailedPrecondition, "rpc: middleware added to service %s after it was exposed", s.QualifiedName()))
		return
	}
	s.use = append(s.use, m...)
}

// UseOn adds middleware for one method or property, by its name on the wire, inside of
// that of the service. It must be called before the service is exposed.
func (s *Service) UseOn(name string, m ...Middleware) {
	switch target, p := s.methods[name], s.props[name]; {
	case s.exposed.Load():
		s.fail(Errorf(FailedPrecondition, "rpc: middleware added to %s of service %s after it was exposed", name, s.QualifiedName()))
	case target != nil:
		target.use = append(target.use, m...)
	case p != nil:
		p.get.use = append(p.get.use, m...)
		if p.set != nil {
			p.set.use = append(p.set.use, m...)
		}
	default:
		s.fail(Errorf(NotFound, "rpc: service %s has no member %q for middleware", s.QualifiedName(), name))
	}
}
