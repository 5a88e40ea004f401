package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
)

// EventConfig says how the events of an endpoint travel.
type EventConfig struct {
	// Bus is that of [Endpoint.Bus]. Its Payload is set by the endpoint.
	Bus pubsub.Config

	// Allow is asked before a peer subscribes to a pattern, with the context of its
	// request. An error is the answer. It should not block. Nil allows all.
	Allow func(ctx context.Context, pattern string) error

	// Receive is the handler of all events that peers send, besides those that were
	// subscribed to at the peer: for a hub, to which peers send without being asked. It is
	// called on the goroutine that reads from the peer, and must not block; ctx and event
	// are as for [SubscribeInline]. Nil means that only subscriptions get events.
	Receive pubsub.Handler

	// MaxSubscriptions limits the patterns that one connection subscribes to. Default
	// 1,000, negative means none.
	MaxSubscriptions int

	// WhenFull says what becomes of an event for a peer that reads too slowly. With
	// [pubsub.Block] who emits waits up to BlockFor (default 1 s) for each slow peer, and one
	// that has used this up gets no further patience until it has read something. Default
	// [pubsub.DropOldest]. Peers of this library are told what they have lost.
	WhenFull pubsub.Policy
	BlockFor time.Duration

	// MaxQueued and MaxQueuedBytes limit the events that wait for one peer. Defaults
	// 8,192 and 8 MiB, negative means none.
	MaxQueued      int
	MaxQueuedBytes int

	// ServiceEvents publishes to peers which services are exposed and concealed: the
	// events service:expose and service:unexpose. They are always there for handlers in
	// the same process.
	ServiceEvents bool
}

const (
	defaultMaxSubscriptions = 1000
	defaultEventPatience    = time.Second

	// maxEventName bounds the names of events that are looked at; buses have a limit of
	// their own.
	maxEventName = 4096
)

func (c *EventConfig) maxSubscriptions() int {
	switch {
	case c.MaxSubscriptions == 0:
		return defaultMaxSubscriptions
	case c.MaxSubscriptions < 0:
		return int(^uint(0) >> 1)
	}
	return c.MaxSubscriptions
}

func (c *EventConfig) patience() time.Duration {
	if c.BlockFor == 0 {
		return defaultEventPatience
	}
	return max(c.BlockFor, 0)
}

func (c *EventConfig) overflow() mux.Overflow {
	switch c.WhenFull {
	case pubsub.DropNewest:
		return mux.DropNewest
	case pubsub.Block:
		return mux.Block
	case pubsub.Disconnect:
		return mux.Disconnect
	}
	return mux.DropOldest
}

// Bus returns the bus of the endpoint: events that are emitted there reach its handlers,
// and the peers that have subscribed to them.
func (e *Endpoint) Bus() *pubsub.Bus { return e.bus }

// Broadcast sends an event to all connected peers, whether they have subscribed to it or
// not. Peers that have no handler for it drop it. It does not wait until they have it;
// Config.Events says what becomes of an event for which there is no room, and for how long
// [pubsub.Block] waits for each of them. Peers that have yet to prove who they are, see
// Config.Admit, do not get it.
//
// That a peer reads too slowly, or has gone, is no error. Errors are that of ctx, after which
// some peers have not got the event, and those of the event itself, see [Peer.Emit].
func (e *Endpoint) Broadcast(ctx context.Context, name string, args ...any) error {
	event, err := e.newEvent(name, args)
	if err != nil {
		return err
	}
	for _, p := range e.Peers() {
		if !p.isAdmitted() {
			continue
		}
		_ = p.sendEvent(ctx, event) // the peer's business
		if err := ctx.Err(); err != nil {
			return asError(err)
		}
	}
	return nil
}

// Emit sends an event to the peer, whether it has subscribed to it or not. It does not
// wait until the peer has it. An error says that it was not sent: of code
// [ResourceExhausted] if there was no room or it is too large, [Unavailable],
// [InvalidArgument] if it has no encoding, or [PermissionDenied] for the names of the
// endpoint's own events.
//
// Events come in the order in which one goroutine emits them, at most once.
func (p *Peer) Emit(ctx context.Context, name string, args ...any) error {
	event, err := p.endpoint.newEvent(name, args)
	if err != nil {
		return err
	}
	if err := p.sendEvent(ctx, event); errors.Is(err, mux.ErrDropped) {
		return &Error{Code: ResourceExhausted, Message: "event " + shown(name) + " dropped: the peer reads too slowly", cause: err}
	} else if err != nil {
		return p.callError(err)
	}
	return nil
}

func (p *Peer) sendEvent(ctx context.Context, event *mux.Event) error {
	cfg := &p.endpoint.cfg.Events
	return p.link().SendEvent(ctx, event, cfg.overflow(), cfg.patience())
}

// isAdmitted reports whether the peer has proved who it is, if it has to.
func (p *Peer) isAdmitted() bool {
	admit := p.endpoint.cfg.Admit
	return admit == nil || p.connector || admit(p) == nil
}

// newEvent returns an event for peers that is none of the endpoint's own.
func (e *Endpoint) newEvent(name string, args []any) (*mux.Event, error) {
	if e.bus.IsInternal(name) {
		return nil, Errorf(PermissionDenied, "rpc: emit %s: only the node emits it", name)
	}
	if err := e.bus.CheckName(name); err != nil {
		return nil, asError(err)
	}
	return e.encodeEvent(name, args)
}

// encodeEvent returns an event in its encoded form. Its name has been checked.
func (e *Endpoint) encodeEvent(name string, args []any) (*mux.Event, error) {
	p, _ := eventPools.Get().(*eventPool)
	defer eventPools.Put(p)
	if err := p.encode(name, args); err != nil {
		return nil, err
	}
	return p.end(name, len(args), e.cfg.maxMessageBytes())
}

// shareEvent is encodeEvent for the peers that one emission reaches. The event lends, if
// sessions need it no longer than that.
func (e *Endpoint) shareEvent(s *pubsub.Scratch, name string, args []any) (*mux.Event, error) {
	p, _ := s.Value.(*eventScratch)
	if p == nil {
		p = new(eventScratch)
		s.Value = p
	}
	err := p.encode(name, args)
	if err == nil && len(p.scratch) > mux.CopiedEvent {
		p.event, err = p.end(name, len(args), e.cfg.maxMessageBytes())
	} else if err == nil {
		p.lent, err = p.make(name, p.scratch, len(args), e.cfg.maxMessageBytes())
		p.event = &p.lent
	}
	if err != nil {
		return nil, err
	}
	s.Filled = true
	return p.event, nil
}

// eventScratch is the event that some handlers of an emission send to peers.
type eventScratch struct {
	eventPool
	event *mux.Event
	lent  mux.Event
}

// eventPool is memory for events that are emitted. It is not used anew, since nobody knows
// how long sessions need an event; many events share it.
type eventPool struct {
	events  []mux.Event
	bytes   slab
	scratch []byte // the event that is being encoded
	head    int    // bytes of its array's header
}

var eventPools = sync.Pool{New: func() any { return new(eventPool) }}

const (
	slabEvents = 32
	slabBytes  = 4 << 10

	// sharedEvent is the largest event that shares memory with others.
	sharedEvent = slabBytes / 4

	// keptScratch bounds the memory that stays for encoding.
	keptScratch = 64 << 10

	// eventOverhead is how much the task emit adds to an event, and more.
	eventOverhead = 64
)

// encode encodes an event.
func (p *eventPool) encode(name string, args []any) error {
	p.begin(name, len(args))
	for i, arg := range args {
		b, err := codec.Append(p.scratch, arg)
		if err != nil {
			return Errorf(InvalidArgument, "rpc: argument %d of event %s: %w", i+1, shown(name), err)
		}
		p.scratch = b
	}
	return nil
}

// begin begins to encode an event with n arguments, which are to be appended to scratch.
func (p *eventPool) begin(name string, n int) {
	if cap(p.scratch) > keptScratch {
		p.scratch = nil
	}
	b := codec.AppendArrayHeader(p.scratch[:0], 1+n)
	p.head = len(b)
	p.scratch = codec.AppendString(b, name)
}

// end returns the event, in memory of its own.
func (p *eventPool) end(name string, n, limit int) (*mux.Event, error) {
	if len(p.scratch) > sharedEvent { // it would be kept by its small neighbours
		event, err := p.make(name, append([]byte(nil), p.scratch...), n, limit)
		return &event, err
	}
	event, err := p.make(name, p.bytes.keep(p.scratch), n, limit)
	if err != nil {
		return nil, err
	}
	if len(p.events) == cap(p.events) {
		p.events = make([]mux.Event, 0, slabEvents)
	}
	p.events = append(p.events, event)
	return &p.events[len(p.events)-1], nil
}

// make returns an event with n arguments that was encoded by begin, with payload b.
func (p *eventPool) make(name string, b []byte, n, limit int) (mux.Event, error) {
	if len(b)+eventOverhead > limit {
		return mux.Event{}, Errorf(ResourceExhausted, "rpc: event %s of %d bytes, limit %d", shown(name), len(b), limit)
	}
	if n < len(emitHeads) {
		return mux.MakeEvent(name, b, p.head, emitHeads[n]), nil
	}
	return mux.MakeEvent(name, b, p.head, emitHead(n)), nil
}

// emitHead returns what the task emit for an event with n arguments begins with, in place
// of the array's header of the event.
func emitHead(n int) []byte { return codec.AppendString(codec.AppendArrayHeader(nil, 2+n), taskEmit) }

// emitHeads are those of most events.
var emitHeads = func() (heads [8][]byte) {
	for n := range heads {
		heads[n] = emitHead(n)
	}
	return heads
}()

// slab is memory that small pieces of bytes share.
type slab []byte

// keep returns a copy of b, which is at most [sharedEvent] bytes.
func (s *slab) keep(b []byte) []byte {
	if len(b) > cap(*s)-len(*s) {
		*s = make([]byte, 0, slabBytes)
	}
	at := len(*s)
	*s = append(*s, b...)
	return (*s)[at:len(*s):len(*s)]
}

// encodable is a payload that peers can get.
type encodable interface {
	pubsub.Payload

	// encoded returns the event in its encoded form, which is made once.
	encoded(e *Endpoint, name string) (*mux.Event, error)
}

// encoding is the encoded form of an event, if somebody has needed it.
type encoding struct{ event atomic.Pointer[mux.Event] }

// get returns the event, and makes it if there is none. A payload may be emitted again
// under another name.
func (c *encoding) get(name string, encode func() (*mux.Event, error)) (*mux.Event, error) {
	if event := c.event.Load(); event != nil && event.Name() == name {
		return event, nil
	}
	event, err := encode()
	if err != nil {
		return nil, err
	}
	c.event.CompareAndSwap(nil, event)
	return event, nil
}

// argsPayload is the arguments of an event that was emitted here.
type argsPayload struct {
	args []any
	encoding
}

// Args implements [pubsub.Payload].
func (p *argsPayload) Args() ([]any, error) { return p.args, nil }

// Decode implements [pubsub.Payload].
func (p *argsPayload) Decode(vs ...any) error {
	for i, v := range vs[:min(len(vs), len(p.args))] {
		b, err := codec.Append(nil, p.args[i])
		if err == nil {
			err = codec.Unmarshal(b, v)
		}
		if err != nil {
			return eventArgumentError(i, err)
		}
	}
	return nil
}

func eventArgumentError(i int, err error) error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf("argument %d of an event: %v", i+1, err), cause: err}
}

// encoded implements [encodable].
func (p *argsPayload) encoded(e *Endpoint, name string) (*mux.Event, error) {
	return p.get(name, func() (*mux.Event, error) { return e.encodeEvent(name, p.args) })
}

// appendEventLoss appends the notice that n events of a name were not sent to a peer
// (protocol section 12.4).
func appendEventLoss(dst []byte, name string, n uint64) []byte {
	return codec.AppendUint(codec.AppendString(codec.AppendNil(codec.AppendArrayHeader(dst, 3)), name), n)
}

// outlets are the subscriptions of the peer of one connection.
type outlets struct {
	mu        sync.Mutex
	byPattern map[string]*pubsub.Subscription // nil for what no event can match; guarded by mu
	ended     bool                            // guarded by mu
}

// subscribe has events that match go to the peer (protocol section 9.1). What cannot
// match anything is no error: TypeScript peers subscribe to any text.
func (c *conn) subscribe(ctx context.Context, pattern string) error {
	e := c.endpoint
	if allow := e.cfg.Events.Allow; allow != nil {
		if err := allow(ctx, pattern); err != nil {
			return err
		}
	}
	o := &c.outlets
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, found := o.byPattern[pattern]; found || o.ended {
		return nil
	}
	if limit := e.cfg.Events.maxSubscriptions(); len(o.byPattern) >= limit {
		return Errorf(ResourceExhausted, "%d subscriptions, limit %d", len(o.byPattern), limit)
	}
	var sub *pubsub.Subscription
	if c.mayMatch(pattern) {
		handler := c.forward
		if e.bus.MatchesInternal(pattern) {
			handler = c.forwardOwn
		}
		var err error
		if sub, err = e.bus.Subscribe(pattern, handler, pubsub.Inline(), pubsub.Silent(), pubsub.WithScratch(), pubsub.Distinct(c)); err != nil {
			return asError(err)
		}
	}
	if o.byPattern == nil {
		o.byPattern = make(map[string]*pubsub.Subscription)
	}
	o.byPattern[pattern] = sub
	return nil
}

// mayMatch reports whether events can come to the peer under a pattern.
func (c *conn) mayMatch(pattern string) bool {
	bus := c.endpoint.bus
	switch {
	case bus.CheckPattern(pattern) != nil:
		return false
	case c.session.CanEvent():
		return true
	}
	return bus.CheckName(pattern) == nil // without the extension a name is only itself
}

// unsubscribe ends a subscription of the peer.
func (c *conn) unsubscribe(pattern string) {
	o := &c.outlets
	o.mu.Lock()
	defer o.mu.Unlock()
	if sub := o.byPattern[pattern]; sub != nil {
		sub.Unsubscribe()
	}
	delete(o.byPattern, pattern)
}

// endOutlets ends all subscriptions of the peer.
func (c *conn) endOutlets() {
	o := &c.outlets
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, sub := range o.byPattern {
		if sub != nil {
			sub.Unsubscribe()
		}
	}
	o.byPattern, o.ended = nil, true
}

// forward is the handler that sends events to the peer. That it does not read in time is
// not the business of who emits.
func (c *conn) forward(ctx context.Context, e pubsub.Event) (any, error) {
	event, err := c.endpoint.encodedEvent(e)
	if err != nil {
		return nil, err
	}
	cfg := &c.endpoint.cfg.Events
	if err = c.session.SendEvent(ctx, event, cfg.overflow(), cfg.patience()); err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return nil, nil
}

// encodedEvent returns an event in encoded form, which all peers that get it share. It is
// good until the handler returns, or longer if it is large.
func (e *Endpoint) encodedEvent(event pubsub.Event) (*mux.Event, error) {
	if p, ok := event.Payload().(encodable); ok {
		return p.encoded(e, event.Name())
	}
	s := event.Scratch()
	if s != nil && s.Filled {
		if p, ok := s.Value.(*eventScratch); ok {
			return p.event, nil
		}
		s = nil // somebody else's
	}
	args, err := event.Args()
	switch {
	case err != nil:
		return nil, err
	case s != nil:
		return e.shareEvent(s, event.Name(), args)
	}
	return e.encodeEvent(event.Name(), args)
}

// forwardOwn is forward for patterns that may match what the endpoint says of itself, of
// which peers learn of services at most.
func (c *conn) forwardOwn(ctx context.Context, e pubsub.Event) (any, error) {
	if c.endpoint.bus.IsInternal(e.Name()) && (!c.endpoint.cfg.Events.ServiceEvents || !strings.HasPrefix(e.Name(), "service:")) {
		return nil, nil
	}
	return c.forward(ctx, e)
}

// runSubscribe and runUnsubscribe serve the tasks of that name (protocol section 9.1).
func (e *Endpoint) runSubscribe(ctx context.Context, event codec.Raw) error {
	if c, pattern, ok := subscriberOf(ctx, event); ok {
		return c.subscribe(ctx, pattern)
	}
	return nil
}

func (e *Endpoint) runUnsubscribe(ctx context.Context, event codec.Raw) {
	if c, pattern, ok := subscriberOf(ctx, event); ok {
		c.unsubscribe(pattern)
	}
}

// subscriberOf reports whether event names events, and for which connection.
func subscriberOf(ctx context.Context, event codec.Raw) (c *conn, pattern string, ok bool) {
	c = connFrom(ctx)
	ok = c != nil && event.Unmarshal(&pattern) == nil && len(pattern) <= maxEventName
	return c, pattern, ok
}
