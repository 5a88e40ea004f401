package rpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
)

// inbox is where the events of a peer arrive: a bus, and what the peer was asked for. A
// peer has one from its first subscription on.
type inbox struct {
	peer    *Peer
	bus     *pubsub.Bus
	emitter pubsub.Emitter

	mu     sync.Mutex
	wanted map[string]*wanted // by pattern; guarded by mu
	ended  bool               // guarded by mu
	lost   atomic.Uint64      // events that the peer says it did not send
}

// wanted is a pattern that has subscriptions here.
type wanted struct {
	users int           // guarded by inbox.mu
	asked *conn         // where the peer was asked for it last; guarded by inbox.mu
	busy  chan struct{} // of capacity 1: held by who asks the peer
}

// PeerSubscription is a subscription to the events of a peer. It follows the peer from one
// connection to the next.
type PeerSubscription struct {
	inbox   *inbox
	pattern string
	sub     *pubsub.Subscription         // of an inline handler, else nil
	reader  *pubsub.Reader[pubsub.Event] // else
	cancel  context.CancelFunc           // of the handler
	ended   atomic.Bool
}

// SubscribeOption changes a subscription to the events of a peer.
type SubscribeOption func(*subscribeOptions)

type subscribeOptions struct {
	inline bool
	blocks bool
	reader []pubsub.ReaderOption
}

// SubscribeInline has the handler run on the goroutine that reads from the peer. It must
// not block; what could is refused with [ErrWouldBlock]. It is the fastest way, loses
// nothing, and slows the peer down if it is slow.
func SubscribeInline() SubscribeOption { return func(o *subscribeOptions) { o.inline = true } }

// SubscribeBuffer sets how many events may wait for the handler or the iteration, and what
// becomes of others. Default 256 and [pubsub.DropOldest]. [pubsub.Block] is not possible:
// it would hold up the answers to calls.
func SubscribeBuffer(n int, whenFull pubsub.Policy) SubscribeOption {
	return func(o *subscribeOptions) {
		o.blocks = whenFull == pubsub.Block
		o.reader = []pubsub.ReaderOption{pubsub.Buffer(n), pubsub.WhenFull(whenFull)}
	}
}

// Subscribe has handler called for the events of the peer that match a pattern: those that
// it emits on its bus, and those that it sends with [Peer.Emit] or [Endpoint.Broadcast].
// It returns when the peer has agreed. Towards peers that do not know patterns, which are
// all TypeScript ones, a pattern with wildcards is an error of code [Unimplemented].
//
// The handler runs on a goroutine of the subscription, for one event after another in the
// order of their emission, under a context from which [PeerFrom] gets the peer. Its result
// means nothing. An error and a panic are logged.
//
// The subscription lasts until Unsubscribe, or until the peer is given up. After a reconnect
// the peer is asked anew; events in between are lost.
func (p *Peer) Subscribe(ctx context.Context, pattern string, handler pubsub.Handler, opts ...SubscribeOption) (*PeerSubscription, error) {
	if handler == nil {
		return nil, Errorf(InvalidArgument, "rpc: subscribe %s: there is no handler", shown(pattern))
	}
	o, err := subscribeOptionsOf(opts)
	if err != nil {
		return nil, err
	}
	in, err := p.openInbox()
	if err != nil {
		return nil, err
	}
	s := &PeerSubscription{inbox: in, pattern: pattern}
	run, cancel := context.WithCancel(&peerValues{Context: p.endpoint.ctx, peer: p})
	s.cancel = cancel
	guarded := p.endpoint.guard(handler)
	if o.inline {
		s.sub, err = in.bus.Subscribe(pattern, guarded, pubsub.Inline())
	} else if s.reader, err = in.bus.Reader(pattern, o.reader...); err == nil {
		started := p.endpoint.begin(func() {
			for e, err := range s.reader.All(run) {
				if err == nil {
					_, _ = guarded(run, e) // logged
				}
			}
		})
		if !started {
			err = &Error{Code: Unavailable, Message: "this side has shut down", cause: mux.ErrClosed}
		}
	}
	if err == nil {
		err = in.want(ctx, s)
	}
	if err != nil {
		s.stop()
		return nil, asError(err)
	}
	return s, nil
}

// Events subscribes when the iteration begins, and unsubscribes when it ends. It yields
// the events of the peer that match, and a [*pubsub.LostError] where some are missing.
// Any other error is the last one. See [Peer.Subscribe].
func (p *Peer) Events(ctx context.Context, pattern string, opts ...SubscribeOption) iter.Seq2[pubsub.Event, error] {
	return func(yield func(pubsub.Event, error) bool) {
		s, err := p.openReader(ctx, pattern, opts)
		if err != nil {
			yield(pubsub.Event{}, err)
			return
		}
		defer p.endpoint.begin(func() { _ = s.Unsubscribe(p.endpoint.ctx) })
		s.reader.All(ctx)(yield)
	}
}

func (p *Peer) openReader(ctx context.Context, pattern string, opts []SubscribeOption) (*PeerSubscription, error) {
	o, err := subscribeOptionsOf(opts)
	if err != nil {
		return nil, err
	}
	in, err := p.openInbox()
	if err != nil {
		return nil, err
	}
	s := &PeerSubscription{inbox: in, pattern: pattern, cancel: func() {}}
	if s.reader, err = in.bus.Reader(pattern, o.reader...); err == nil {
		err = in.want(ctx, s)
	}
	if err != nil {
		s.stop()
		return nil, asError(err)
	}
	return s, nil
}

func subscribeOptionsOf(opts []SubscribeOption) (o subscribeOptions, err error) {
	for _, opt := range opts {
		opt(&o)
	}
	if o.blocks {
		return o, Errorf(InvalidArgument, "rpc: a subscription at a peer cannot block")
	}
	return o, nil
}

// Pattern returns what was subscribed.
func (s *PeerSubscription) Pattern() string { return s.pattern }

// Lost returns how many events the subscription has lost since it was made, as far as is
// known: those for which there was no room, here or at the peer.
func (s *PeerSubscription) Lost() uint64 {
	if s.reader != nil {
		return s.reader.Lost()
	}
	return s.inbox.lost.Load()
}

// Unsubscribe ends the subscription at once, and waits until the peer knows. The handler
// may still be running. An error, also of ctx, says that the peer may go on sending, which
// then reaches nobody. On a read owner it does not wait. Further calls do nothing.
func (s *PeerSubscription) Unsubscribe(ctx context.Context) error {
	if !s.stop() {
		return nil
	}
	in := s.inbox
	w := in.unwant(s)
	if w == nil {
		return nil
	}
	if mux.WouldBlock(ctx) != nil {
		return in.peer.endpoint.background(ctx, func(ctx context.Context) { _ = in.settle(ctx, s.pattern, w) })
	}
	return in.settle(ctx, s.pattern, w)
}

// stop ends the local side, and reports whether it was there.
func (s *PeerSubscription) stop() bool {
	if !s.ended.CompareAndSwap(false, true) {
		return false
	}
	if s.sub != nil {
		s.sub.Unsubscribe()
	}
	if s.reader != nil {
		s.reader.Close()
	}
	s.cancel()
	return true
}

// peerValues is a context that knows the peer.
type peerValues struct {
	context.Context //nolint:containedctx // it is one
	peer            *Peer
}

// Value implements [context.Context].
func (c *peerValues) Value(key any) any {
	switch key {
	case peerKey{}:
		return c.peer
	case userKey{}:
		return c.peer.User()
	}
	return c.Context.Value(key)
}

// openInbox returns the inbox of the peer, and makes it if there is none.
func (p *Peer) openInbox() (*inbox, error) {
	if in := p.inbox.Load(); in != nil {
		return in, nil
	}
	cfg := p.endpoint.cfg.Events.Bus
	cfg.CachedNames, cfg.Payload, cfg.Changed = -1, nil, nil
	bus, emitter, err := pubsub.NewPrivileged(cfg)
	if err != nil {
		return nil, asError(err)
	}
	p.inbox.CompareAndSwap(nil, &inbox{peer: p, bus: bus, emitter: emitter, wanted: make(map[string]*wanted)})
	in := p.inbox.Load()
	if p.Err() != nil { // its end may not have seen the inbox
		in.end()
	}
	return in, nil
}

// end ends all subscriptions, when the peer is given up. It does not block.
func (in *inbox) end() {
	in.mu.Lock()
	in.ended = true
	in.mu.Unlock()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = in.bus.Close(ended) // handlers are not waited for
}

// guard keeps what goes wrong in a handler to itself.
func (e *Endpoint) guard(handler pubsub.Handler) pubsub.Handler {
	log := e.cfg.logger()
	return func(ctx context.Context, e pubsub.Event) (_ any, _ error) {
		defer func() {
			if v := recover(); v != nil {
				log.Error("netron: panic in a handler of events", "event", e.Name(), "panic", v, "stack", string(debug.Stack()))
			}
		}()
		if _, err := handler(ctx, e); err != nil {
			log.Error("netron: a handler of events failed", "event", e.Name(), "err", err)
		}
		return nil, nil
	}
}

// want counts a subscription, and asks the peer if it is the first of its pattern.
func (in *inbox) want(ctx context.Context, s *PeerSubscription) error {
	in.mu.Lock()
	if in.ended {
		in.mu.Unlock()
		return in.peer.callError(in.peer.Err())
	}
	w := in.wanted[s.pattern]
	if w == nil {
		w = &wanted{busy: make(chan struct{}, 1)}
		in.wanted[s.pattern] = w
	}
	w.users++
	in.mu.Unlock()
	err := in.settle(ctx, s.pattern, w)
	if err != nil {
		in.unwant(s)
	}
	return err
}

// unwant takes a subscription off the count, and returns what is to be settled then.
func (in *inbox) unwant(s *PeerSubscription) *wanted {
	in.mu.Lock()
	defer in.mu.Unlock()
	w := in.wanted[s.pattern]
	if w == nil {
		return nil
	}
	if w.users--; w.users > 0 {
		return nil
	}
	return w
}

// settle makes the peer know whether the pattern is wanted.
func (in *inbox) settle(ctx context.Context, pattern string, w *wanted) error {
	select {
	case w.busy <- struct{}{}:
		defer func() { <-w.busy }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		c := in.peer.conn.Load()
		wants, asked := in.look(pattern, w)
		var err error
		switch {
		case wants && asked != c:
			err = in.ask(ctx, c, pattern, w)
		case !wants && asked == c:
			in.note(w, nil)
			err = c.runTask(ctx, taskUnsubscribe, nil, pattern)
		}
		if err != nil || in.peer.conn.Load() == c {
			return err
		}
	}
}

// look returns whether a pattern is wanted, and where it was asked for. One that is not is
// forgotten.
func (in *inbox) look(pattern string, w *wanted) (wants bool, asked *conn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if w.users == 0 && in.wanted[pattern] == w {
		delete(in.wanted, pattern)
	}
	return w.users > 0, w.asked
}

func (in *inbox) note(w *wanted, asked *conn) {
	in.mu.Lock()
	defer in.mu.Unlock()
	w.asked = asked
}

// ask subscribes at the peer over a connection. w.busy is held.
func (in *inbox) ask(ctx context.Context, c *conn, pattern string, w *wanted) error {
	if err := c.waitReady(ctx); err != nil {
		return in.peer.callError(err)
	}
	if !c.session.CanEvent() && pubsub.CheckName(pattern) != nil {
		return &Error{Code: Unimplemented, Message: fmt.Sprintf("subscribe %s: the peer does not know patterns", shown(pattern)), cause: errors.ErrUnsupported}
	}
	if err := c.runTask(ctx, taskSubscribe, nil, pattern); err != nil {
		return err
	}
	in.note(w, c)
	return nil
}

// resubscribed reports whether all that is wanted was asked for on c.
func (p *Peer) resubscribed(c *conn) bool {
	in := p.inbox.Load()
	if in == nil {
		return true
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, w := range in.wanted {
		if w.users > 0 && w.asked != c {
			return false
		}
	}
	return true
}

// resubscribe subscribes over a connection that is to take over to all that is wanted. What the
// peer refuses is logged; an error says that the connection is of no use.
func (c *conn) resubscribe(ctx context.Context) error {
	in := c.peer.inbox.Load()
	if in == nil {
		return nil
	}
	type entry struct {
		pattern string
		*wanted
	}
	var all []entry
	in.mu.Lock()
	for pattern, w := range in.wanted {
		all = append(all, entry{pattern, w})
	}
	in.mu.Unlock()
	forEach(all, func(e entry) {
		select {
		case e.busy <- struct{}{}:
			defer func() { <-e.busy }()
		case <-ctx.Done():
			return
		}
		if wants, asked := in.look(e.pattern, e.wanted); !wants || asked == c {
			return
		}
		if err := in.ask(ctx, c, e.pattern, e.wanted); err != nil && c.session.Err() == nil && ctx.Err() == nil {
			in.note(e.wanted, c) // as good as it gets
			c.endpoint.cfg.logger().Warn("netron: a peer refuses a subscription after a reconnect", "peer", c.peer.ID(), "pattern", e.pattern, "err", err)
		}
	})
	if err := c.session.Err(); err != nil {
		return &mux.LostError{Cause: err}
	}
	return ctx.Err()
}

// event is told on the read owner of an EVENT packet (protocol section 12.4). A malformed
// one is dropped.
func (c *conn) event(_ *mux.Session, payload []byte) {
	if !c.peer.isAdmitted() {
		return
	}
	d := codec.NewDecoder(payload, c.endpoint.cfg.Limits)
	n, err := d.ArrayHeader()
	if err != nil || n < 1 {
		return
	}
	if d.PeekKind() == codec.KindNil {
		c.eventsLost(&d, n)
		return
	}
	if name, err := d.StringBytes(); err == nil {
		c.deliver(name, d.Rest(), n-1)
	}
}

// eventsLost takes the notice that the peer has not sent some events.
func (c *conn) eventsLost(d *codec.Decoder, n int) {
	in := c.peer.inbox.Load()
	if in == nil || n < 3 || d.Skip() != nil {
		return
	}
	name, err := d.StringBytes()
	if err != nil {
		return
	}
	var count float64
	if d.Decode(&count) != nil || !(count >= 1) {
		return
	}
	lost := uint64(min(count, 1<<53))
	in.lost.Add(lost)
	in.bus.Lose(string(name), lost)
}

// invokeEmit serves the task emit, on the read owner so that events stay in order. It
// succeeds whatever it is given and whatever handlers do (protocol section 9.2).
func (e *Endpoint) invokeEmit(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error) {
	if c := connFrom(ctx); c != nil && n > 0 {
		d := codec.NewDecoder(args, lim)
		if name, err := d.StringBytes(); err == nil {
			c.deliver(name, d.Rest(), n-1)
		}
	}
	return codec.AppendUndefined(dst), nil
}

// deliver hands an event with n encoded arguments to the handlers for the peer. It runs on
// the read owner.
func (c *conn) deliver(name, args []byte, n int) {
	in, receive := c.peer.inbox.Load(), c.endpoint.receive
	if in == nil && receive == nil || len(name) > maxEventName {
		return
	}
	if string(name) != c.lastEvent {
		text := string(name)
		if c.endpoint.bus.CheckName(text) != nil {
			return
		}
		c.lastEvent = text
	}
	if wanted := in != nil && in.bus.HasHandlers(c.lastEvent); !wanted {
		if in = nil; receive == nil {
			return
		}
	}
	if d := codec.NewDecoder(args, c.endpoint.cfg.Limits); finishArguments(&d, n) != nil {
		return
	}
	e := pubsub.NewEvent(c.lastEvent, c.received.keep(args, n, &c.endpoint.cfg.Limits))
	if receive != nil {
		_, _ = receive(c.ownerCtx, e) // it has logged its error
	}
	if in != nil {
		_, _ = in.emitter.EmitEvent(c.ownerCtx, pubsub.OpSerial, e) // likewise
	}
}

// arrivals is memory for the events that have come over a connection. It belongs to the
// read owner. It is not used anew, since handlers may keep events; small ones share it.
type arrivals struct {
	payloads []wirePayload
	bytes    slab
}

// keep returns a payload that holds a copy of encoded arguments.
func (a *arrivals) keep(args []byte, n int, lim *codec.Limits) *wirePayload {
	if len(a.payloads) == cap(a.payloads) {
		a.payloads = make([]wirePayload, 0, slabEvents)
	}
	i := len(a.payloads)
	a.payloads = a.payloads[:i+1]
	p := &a.payloads[i]
	p.raw, p.count, p.limits = a.bytes.keep(args), n, lim
	return p
}

// EncodedArgs is implemented by the payloads of events that came from a peer: see
// [pubsub.Event.Payload].
type EncodedArgs interface {
	pubsub.Payload

	// Encoded returns the arguments as they came, one encoded value behind the other,
	// and their number. They are good as long as somebody holds the event, and must not
	// be changed.
	Encoded() (values []byte, n int)
}

// wirePayload is the arguments of an event that came from a peer.
type wirePayload struct {
	raw    []byte // count encoded values
	count  int
	limits *codec.Limits
	encoding
}

// Encoded implements [EncodedArgs].
func (p *wirePayload) Encoded() (values []byte, n int) { return p.raw, p.count }

// Args implements [pubsub.Payload].
func (p *wirePayload) Args() ([]any, error) {
	d := codec.NewDecoder(p.raw, *p.limits)
	args := make([]any, 0, min(p.count, len(p.raw)))
	for i := range p.count {
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, eventArgumentError(i, err)
		}
		args = append(args, v)
	}
	return args, nil
}

// Decode implements [pubsub.Payload].
func (p *wirePayload) Decode(vs ...any) error {
	d := codec.NewDecoder(p.raw, *p.limits)
	for i, v := range vs[:min(len(vs), p.count)] {
		if err := d.Decode(v); err != nil {
			return eventArgumentError(i, err)
		}
	}
	return nil
}

// encoded implements [encodable].
func (p *wirePayload) encoded(e *Endpoint, name string) (*mux.Event, error) {
	return p.get(name, func() (*mux.Event, error) {
		pool, _ := eventPools.Get().(*eventPool)
		defer eventPools.Put(pool)
		pool.begin(name, p.count)
		pool.scratch = append(pool.scratch, p.raw...)
		return pool.end(name, p.count, e.cfg.maxMessageBytes())
	})
}
