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
	wanted map[string]*wanted             // by pattern; guarded by mu
	inline map[*PeerSubscription]struct{} // those with inline handlers; guarded by mu
	ended  bool                           // guarded by mu
}

// wanted is a pattern that has subscriptions here, or that the peer still has to forget.
type wanted struct {
	busy chan struct{} // of capacity 1: held by who asks the peer

	// All guarded by inbox.mu. asked, agreed and tried are changed only by who is busy.
	users  int
	asked  *conn // where the peer may know that it is wanted, nil if it does not
	agreed bool  // the peer has said yes there
	tried  *conn // where it was asked for when the connection took over
}

// PeerSubscription is a subscription to the events of a peer. It follows the peer from one
// connection to the next.
type PeerSubscription struct {
	inbox   *inbox
	pattern string
	sub     *pubsub.Subscription         // of an inline handler, else nil
	reader  *pubsub.Reader[pubsub.Event] // else
	cancel  context.CancelFunc           // of the handler
	counted bool                         // among the users of the pattern; guarded by inbox.mu
	ended   atomic.Bool
	lost    atomic.Uint64 // of an inline handler: events that the peer says it did not send
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
//
// The event is lent: it is good until the handler returns, and a handler that keeps it
// keeps its [pubsub.Event.Clone]. What was decoded from it is the handler's own.
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
// the peer is asked anew, before it counts as connected; events in between are lost. While
// the peer has no connection Subscribe fails as a call does, see Config.OfflineCalls and
// [Idempotent].
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
	s := &PeerSubscription{inbox: in, pattern: pattern, cancel: func() {}}
	if o.inline {
		s.sub, err = in.bus.Subscribe(pattern, p.endpoint.logged(handler), pubsub.Inline())
	} else if s.reader, err = in.bus.Reader(pattern, o.reader...); err == nil {
		err = s.run(p.endpoint.guard(handler))
	}
	if err == nil {
		err = in.want(ctx, s)
	}
	if err != nil {
		s.stop()
		s.cancel()
		return nil, in.errorOf(err)
	}
	return s, nil
}

// run starts the goroutine of the handler. It ends with the subscription, and the other way
// round; the end of the endpoint waits for it.
func (s *PeerSubscription) run(handler pubsub.Handler) error {
	p := s.inbox.peer
	ctx, cancel := context.WithCancel(&peerValues{Context: p.endpoint.ctx, peer: p})
	s.cancel = cancel
	started := p.endpoint.begin(func() {
		defer cancel()
		defer s.leave()
		for e, err := range s.reader.All(ctx) {
			switch {
			case err == nil:
				_, _ = handler(ctx, e) // logged
			case errors.Is(err, pubsub.ErrSlowReader):
				p.endpoint.cfg.logger().Warn("netron: a handler of events is too slow, its subscription has ended", "peer", p.ID(), "pattern", s.pattern)
			}
		}
	})
	if !started {
		cancel()
		return &Error{Code: Unavailable, Message: "this side has shut down", cause: mux.ErrClosed}
	}
	return nil
}

// errorOf returns an error as the caller gets it: if the peer has been given up, why.
func (in *inbox) errorOf(err error) error {
	if cause := in.peer.Err(); cause != nil && errors.Is(err, pubsub.ErrClosed) {
		return in.peer.callError(cause)
	}
	return asError(err)
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
		defer s.leave()
		for e, err := range s.reader.All(ctx) {
			if errors.Is(err, pubsub.ErrClosed) {
				err = s.inbox.errorOf(err)
			}
			if !yield(e, err) {
				return
			}
		}
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
		return nil, in.errorOf(err)
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
// known: those for which there was no room, here or at the peer. If the peer has lost events
// of so many names that it cannot tell them apart, these count for all subscriptions.
func (s *PeerSubscription) Lost() uint64 {
	if s.reader != nil {
		return s.reader.Lost()
	}
	return s.lost.Load()
}

// Unsubscribe ends the subscription at once, and waits until the peer knows. The handler
// may call it, and may still be running; its context ends when Unsubscribe returns. An
// error, also of ctx, says that the peer may go on sending for a while, which reaches
// nobody. On a read owner it does not wait. Further calls do nothing.
func (s *PeerSubscription) Unsubscribe(ctx context.Context) error {
	if !s.stop() {
		return nil
	}
	defer s.cancel()
	in := s.inbox
	w := in.unwant(s)
	if w == nil {
		return nil
	}
	if mux.WouldBlock(ctx) != nil {
		in.settleLater(s.pattern, w)
		return nil
	}
	err := in.settle(ctx, s.pattern, w)
	if err != nil {
		in.settleLater(s.pattern, w)
	}
	return err
}

// leave is Unsubscribe that does not wait.
func (s *PeerSubscription) leave() {
	if !s.stop() {
		return
	}
	if w := s.inbox.unwant(s); w != nil {
		s.inbox.settleLater(s.pattern, w)
	}
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
	if cfg.Logger == nil {
		cfg.Logger = p.endpoint.cfg.logger()
	}
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
	inline := in.inline
	in.ended, in.wanted, in.inline = true, nil, nil
	in.mu.Unlock()
	for s := range inline {
		s.sub.Unsubscribe()
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = in.bus.Close(ended) // handlers are not waited for
}

// guard keeps what goes wrong in a handler to itself.
func (e *Endpoint) guard(handler pubsub.Handler) pubsub.Handler {
	log, handler := e.cfg.logger(), e.logged(handler)
	return func(ctx context.Context, e pubsub.Event) (_ any, _ error) {
		defer func() {
			if v := recover(); v != nil {
				log.Error("netron: panic in a handler of events", "event", e.Name(), "panic", v, "stack", string(debug.Stack()))
			}
		}()
		return handler(ctx, e)
	}
}

// logged is guard for handlers on a bus, which recovers their panics.
func (e *Endpoint) logged(handler pubsub.Handler) pubsub.Handler {
	log := e.cfg.logger()
	return func(ctx context.Context, e pubsub.Event) (any, error) {
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
		return pubsub.ErrClosed
	}
	w := in.wanted[s.pattern]
	if w == nil {
		w = &wanted{busy: make(chan struct{}, 1)}
		in.wanted[s.pattern] = w
	}
	w.users++
	s.counted = true
	if s.sub != nil {
		if in.inline == nil {
			in.inline = make(map[*PeerSubscription]struct{})
		}
		in.inline[s] = struct{}{}
	}
	in.mu.Unlock()
	err := in.settle(ctx, s.pattern, w)
	if p := in.peer; p.mayRetry(ctx, err) {
		err = p.retried(ctx, err, func(ctx context.Context) error { return in.settle(ctx, s.pattern, w) })
	}
	if err != nil && in.unwant(s) != nil {
		in.settleLater(s.pattern, w)
	}
	return err
}

// unwant takes a subscription off the count, once, and returns what is to be settled then.
func (in *inbox) unwant(s *PeerSubscription) *wanted {
	in.mu.Lock()
	defer in.mu.Unlock()
	delete(in.inline, s)
	w := in.wanted[s.pattern]
	if !s.counted || w == nil {
		return nil
	}
	s.counted = false
	if w.users--; w.users > 0 {
		return nil
	}
	return w
}

// settleLater is settle for a pattern that is not wanted any more, without waiting for it.
// Who wants it again meanwhile asks, and learns the answer.
func (in *inbox) settleLater(pattern string, w *wanted) {
	e := in.peer.endpoint
	e.begin(func() { _ = in.settleNow(e.ctx, pattern, w, false) })
}

// settle makes the peer know whether the pattern is wanted. When ctx ends it waits no
// longer, but what has been asked is not given up: the peer might take up what comes
// next before it.
func (in *inbox) settle(ctx context.Context, pattern string, w *wanted) error {
	if in.hasAgreed(w) {
		return nil
	}
	if err := mux.WouldBlock(ctx); err != nil {
		return in.peer.callError(err)
	}
	if err := ctx.Err(); err != nil {
		return asError(err)
	}
	outcome := make(chan error, 1)
	run, cancel := context.WithoutCancel(ctx), context.CancelFunc(func() {})
	if deadline, ok := ctx.Deadline(); ok {
		run, cancel = context.WithDeadline(run, deadline)
	}
	if !in.peer.endpoint.begin(func() {
		defer cancel()
		outcome <- in.settleNow(run, pattern, w, true)
	}) {
		cancel()
		return &Error{Code: Unavailable, Message: "this side has shut down", cause: mux.ErrClosed}
	}
	select {
	case err := <-outcome:
		return err
	case <-ctx.Done():
		return asError(ctx.Err())
	}
}

// hasAgreed reports whether the peer knows a pattern that is wanted, and nobody asks it.
func (in *inbox) hasAgreed(w *wanted) bool {
	select {
	case w.busy <- struct{}{}:
		defer func() { <-w.busy }()
	default:
		return false
	}
	c := in.peer.conn.Load()
	in.mu.Lock()
	defer in.mu.Unlock()
	return w.users > 0 && w.isKnown(c)
}

// settleNow is settle on a goroutine of its own. It forgets a pattern that is not wanted,
// but only when the peer has answered: the next one who wants it must not overtake.
func (in *inbox) settleNow(ctx context.Context, pattern string, w *wanted, asks bool) (failed error) {
	w.busy <- struct{}{} // who has it waits for the peer, within a limit
	defer func() { <-w.busy }()
	for {
		c := in.peer.conn.Load()
		in.mu.Lock()
		users, asked := w.users, w.asked
		isKnown := w.isKnown(c)
		switch {
		case users == 0 && asked != nil:
			w.asked, w.agreed = nil, false
		case users == 0 && in.wanted[pattern] == w:
			delete(in.wanted, pattern)
		}
		in.mu.Unlock()
		switch {
		case users > 0 && !asks:
			return failed
		case users > 0 && !isKnown:
			if err := in.ask(ctx, c, pattern, w); err != nil {
				return err
			}
		case users == 0 && asked != nil:
			if asked.session.Err() == nil {
				failed = asked.runTask(ctx, taskUnsubscribe, nil, pattern)
			}
		case in.peer.conn.Load() == c:
			return failed
		}
	}
}

// ask subscribes at the peer over a connection. w.busy is held.
func (in *inbox) ask(ctx context.Context, c *conn, pattern string, w *wanted) error {
	if err := c.waitReady(ctx); err != nil {
		return in.peer.callError(err)
	}
	if !c.session.CanEvent() && pubsub.CheckName(pattern) != nil {
		return &Error{Code: Unimplemented, Message: fmt.Sprintf("subscribe %s: the peer does not know patterns", shown(pattern)), cause: errors.ErrUnsupported}
	}
	in.note(w, c, false) // from now on it may know
	err := c.runTask(ctx, taskSubscribe, nil, pattern)
	e, isError := errors.AsType[*Error](err)
	switch sent, known := WasSent(err); {
	case err == nil:
		in.note(w, c, true)
	case isError && e.remote, known && !sent:
		in.note(w, nil, false)
	}
	return err
}

func (in *inbox) note(w *wanted, asked *conn, agreed bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	w.asked, w.agreed = asked, agreed
}

// isKnown reports whether the peer has agreed on c, or on a connection that is to take
// over. inbox.mu is held.
func (w *wanted) isKnown(c *conn) bool {
	return w.agreed && (w.asked == c || w.asked == w.tried && w.asked.session.Err() == nil)
}

// isSettled reports whether there is nothing to ask for on c. inbox.mu is held.
func (w *wanted) isSettled(c *conn) bool {
	return w.users == 0 || w.asked == c && w.agreed || w.tried == c
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
		if !w.isSettled(c) {
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
		if !w.isSettled(c) {
			all = append(all, entry{pattern, w})
		}
	}
	in.mu.Unlock()
	forEach(all, func(e entry) { in.askAgain(ctx, c, e.pattern, e.wanted) })
	if err := c.session.Err(); err != nil {
		return &mux.LostError{Cause: err}
	}
	return ctx.Err()
}

// askAgain is ask for a connection that is to take over.
func (in *inbox) askAgain(ctx context.Context, c *conn, pattern string, w *wanted) {
	select {
	case w.busy <- struct{}{}:
		defer func() { <-w.busy }()
	case <-ctx.Done():
		return
	}
	in.mu.Lock()
	isSettled := w.isSettled(c)
	in.mu.Unlock()
	if isSettled {
		return
	}
	err := in.ask(ctx, c, pattern, w)
	if err != nil && (c.session.Err() != nil || ctx.Err() != nil) {
		return
	}
	in.mu.Lock()
	w.tried = c
	in.mu.Unlock()
	if err != nil {
		c.endpoint.cfg.logger().Warn("netron: a peer refuses a subscription after a reconnect", "peer", c.peer.ID(), "pattern", pattern, "err", err)
	}
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
		c.deliver(name, &d, n-1)
	}
}

// eventsLost takes the notice that the peer has not sent some events.
func (c *conn) eventsLost(d *codec.Decoder, n int) {
	in := c.peer.inbox.Load()
	if in == nil || n < 3 || c.muted.Load() || d.Skip() != nil {
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
	in.lose(string(name), uint64(min(count, 1<<53)))
}

// lose tells the subscriptions to which events of a name belong that n are missing.
func (in *inbox) lose(name string, n uint64) {
	in.bus.Lose(name, n)
	in.mu.Lock()
	defer in.mu.Unlock()
	for s := range in.inline {
		if name == mux.OtherEvents || pubsub.Matches(s.pattern, name) {
			s.lost.Add(n)
		}
	}
}

// invokeEmit serves the task emit, on the read owner so that events stay in order. It
// succeeds whatever it is given and whatever handlers do (protocol section 9.2).
func (e *Endpoint) invokeEmit(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error) {
	if c := connFrom(ctx); c != nil && n > 0 {
		d := codec.NewDecoder(args, lim)
		if name, err := d.StringBytes(); err == nil {
			c.deliver(name, &d, n-1)
		}
	}
	return codec.AppendUndefined(dst), nil
}

// deliver hands an event with n arguments, which d holds, to the handlers for the peer. It
// runs on the read owner.
func (c *conn) deliver(name []byte, d *codec.Decoder, n int) {
	in, receive := c.peer.inbox.Load(), c.endpoint.receive
	if in == nil && receive == nil || len(name) > maxEventName || c.muted.Load() {
		return
	}
	if string(name) != c.lastEvent {
		text := string(name)
		if c.endpoint.bus.CheckName(text) != nil {
			return
		}
		c.lastEvent, c.interest = text, pubsub.Interest{}
	}
	var to pubsub.Interest
	if in != nil {
		if !c.interest.IsOf(in.bus) {
			c.interest = in.bus.Interest(c.lastEvent)
		}
		to = c.interest
	}
	if !to.Any() && receive == nil {
		return
	}
	args := d.Rest()
	if finishArguments(d, n) != nil {
		return
	}
	e := pubsub.NewEvent(c.lastEvent, c.received.lend(args, n, &c.endpoint.cfg.Limits))
	if receive != nil {
		_, _ = receive(c.ownerCtx, e) // it has logged its error
	}
	if to.Any() {
		_ = in.emitter.LendEvent(c.ownerCtx, to, e) // likewise
	}
	c.received.end()
}

// arrivals is the event that has come over a connection and is being handled, and memory
// for those that handlers keep. That is not used anew; small ones share it.
type arrivals struct {
	lent lentPayload // owned by the read owner

	mu       sync.Mutex
	payloads []wirePayload // guarded by mu
	bytes    slab          // guarded by mu
}

// lend returns a payload of encoded arguments that lends until end.
func (a *arrivals) lend(args []byte, n int, lim *codec.Limits) *lentPayload {
	p := &a.lent
	p.arrivals, p.raw, p.count, p.limits = a, args, n, lim
	return p
}

// end makes what was lent empty, for those who have kept it against the rules.
func (a *arrivals) end() {
	p := &a.lent
	p.raw, p.count = nil, 0
	if p.event.Load() != nil {
		p.event.Store(nil)
	}
}

// keep returns a payload that holds a copy of encoded arguments.
func (a *arrivals) keep(args []byte, n int, lim *codec.Limits) *wirePayload {
	if len(args) > sharedEvent { // it would be kept by its small neighbours
		return &wirePayload{raw: append([]byte(nil), args...), count: n, limits: lim}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.payloads) == cap(a.payloads) {
		a.payloads = make([]wirePayload, 0, slabEvents)
	}
	i := len(a.payloads)
	a.payloads = a.payloads[:i+1]
	p := &a.payloads[i]
	p.raw, p.count, p.limits = a.bytes.keep(args), n, lim
	return p
}

// lentPayload is a payload whose bytes are where they were read.
type lentPayload struct {
	wirePayload
	arrivals *arrivals
}

// Clone implements [pubsub.Lent].
func (p *lentPayload) Clone() pubsub.Payload { return p.arrivals.keep(p.raw, p.count, p.limits) }

// EncodedArgs is implemented by the payloads of events that came from a peer: see
// [pubsub.Event.Payload].
type EncodedArgs interface {
	pubsub.Payload

	// Encoded returns the arguments as they came, one encoded value behind the other,
	// and their number. They are good as long as the event is, and must not be changed.
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
