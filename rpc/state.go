package rpc

import (
	"context"
	"iter"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// State says how a peer is connected.
type State uint8

// The states of a peer. An accepted one is never reconnecting.
const (
	StateConnecting   State = iota + 1 // the first connection is being made
	StateConnected                     // ready for calls
	StateReconnecting                  // the connection was lost, and is being made anew
	StateDraining                      // the peer asked to connect anew; what is under way goes on
	StateClosed                        // for good
)

// String returns the name in lower case.
func (s State) String() string {
	switch s {
	case StateConnecting:
		return "connecting"
	case StateConnected:
		return "connected"
	case StateReconnecting:
		return "reconnecting"
	case StateDraining:
		return "draining"
	case StateClosed:
		return "closed"
	}
	return "unknown"
}

// Reason says why a peer came into a state. More may be added.
type Reason string

// The reasons.
const (
	ReasonDialled      Reason = "dialled"            // connecting: nothing has happened yet
	ReasonReady        Reason = "ready"              // connected: the handshake is done
	ReasonLost         Reason = "lost"               // the connection broke, or the peer fell silent
	ReasonClosedByPeer Reason = "closed_by_peer"     // by a close frame
	ReasonGoingAway    Reason = "going_away"         // the peer shuts down, or asked to connect anew
	ReasonDialFailed   Reason = "dial_failed"        // one attempt to reconnect
	ReasonClosed       Reason = "closed"             // by this side
	ReasonExhausted    Reason = "attempts_exhausted" // all attempts to reconnect have failed
	// ReasonPublishFailed says that a service was not published again, see [Peer.Publish],
	// and ReasonPublished that it was after all. The state stays what it is.
	ReasonPublishFailed Reason = "publish_failed"
	ReasonPublished     Reason = "published"
)

// StateEvent is a change of the state of a peer.
type StateEvent struct {
	State  State
	Reason Reason

	// Err is what went wrong, nil if nothing did.
	Err error

	// Message is the reason that the peer gave for going away, at most 256 bytes, or the
	// name of a service that was published again, or was not.
	Message string

	// Attempt is how many attempts to reconnect have been made since there was a
	// connection that lasted, 0 for none.
	Attempt int

	At time.Time
}

// maxStateEvents bounds the events that wait for one who does not take them. Of more
// the oldest are dropped.
const maxStateEvents = 64

// life is what a peer knows about its connections.
type life struct {
	donec chan struct{} // closed when the peer has ended for good
	err   error         // set before donec closes

	state atomic.Uint32 // that of event, to be read without mu

	mu       sync.Mutex
	event    StateEvent      // the present state; guarded by mu
	changec  chan struct{}   // closed at the next change, nil while nobody waits; guarded by mu
	funcs    []*stateFunc    // replaced, not changed; guarded by mu
	queue    []delivery      // events for funcs; guarded by mu
	delivers bool            // a goroutine empties queue; guarded by mu
	watchers []*stateWatcher // guarded by mu

	closing   bool   // this side ends the peer; guarded by mu
	endReason Reason // why it does; guarded by mu

	// Of a dialled peer; all guarded by mu.
	candidate   *conn       // that waits for Adopt
	old         *conn       // takes no new calls, but has some under way
	loop        *redialling // makes a new connection; nil if nobody does
	dials       int         // attempts so far
	tries       int         // attempts since there was a steady connection
	connectedAt time.Time   // when the present connection was adopted
	bindings    map[string]weak.Pointer[binding]
	published   map[string]*publication // at the peer, by qualified name
	offline     int                     // calls that wait for the connection
}

type stateFunc struct {
	fn      func(StateEvent)
	removed atomic.Bool
}

// delivery is an event on its way to those who were there when it happened.
type delivery struct {
	event StateEvent
	funcs []*stateFunc
}

// stateWatcher is one iteration of [Peer.States].
type stateWatcher struct {
	wakec chan struct{} // of capacity 1, never closed
	queue []StateEvent  // guarded by life.mu
}

func (l *life) init() {
	l.donec = make(chan struct{})
	l.event = StateEvent{State: StateConnecting, Reason: ReasonDialled, At: time.Now()}
	l.state.Store(uint32(StateConnecting))
}

// State returns how the peer is connected now.
func (p *Peer) State() State { return State(p.life.state.Load()) }

func (p *Peer) stateEvent() StateEvent {
	p.life.mu.Lock()
	defer p.life.mu.Unlock()
	return p.life.event
}

// OnState has fn called for each change of the state from now on, one at a time and in
// order, on a goroutine that lasts as long as there are events. While fn does not
// return up to 64 events wait; of more the oldest are dropped. The end of the node waits
// for fn, up to 10 s, which therefore must not close it. remove takes fn back.
func (p *Peer) OnState(fn func(StateEvent)) (remove func()) {
	f := &stateFunc{fn: fn}
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	l.funcs = append(slices.Clip(l.funcs), f)
	return func() {
		f.removed.Store(true)
		l.mu.Lock()
		defer l.mu.Unlock()
		if i := slices.Index(l.funcs, f); i >= 0 {
			l.funcs = slices.Delete(slices.Clone(l.funcs), i, i+1)
		}
	}
}

// States returns the present state and then each change, until ctx ends or the peer
// is closed, which is the last event. Whoever is slower than 64 events misses the
// oldest.
func (p *Peer) States(ctx context.Context) iter.Seq[StateEvent] {
	return func(yield func(StateEvent) bool) {
		l := &p.life
		w := &stateWatcher{wakec: make(chan struct{}, 1)}
		l.mu.Lock()
		w.queue = append(w.queue, l.event)
		l.watchers = append(l.watchers, w)
		l.mu.Unlock()
		defer func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if i := slices.Index(l.watchers, w); i >= 0 {
				l.watchers = slices.Delete(l.watchers, i, i+1)
			}
		}()
		for {
			l.mu.Lock()
			events := w.queue
			w.queue = nil
			l.mu.Unlock()
			for _, e := range events {
				if !yield(e) || e.State == StateClosed {
					return
				}
			}
			select {
			case <-w.wakec:
			case <-ctx.Done():
				return
			}
		}
	}
}

// setState notes a change and tells those who want to know. life.mu is held.
func (p *Peer) setState(e StateEvent) {
	l := &p.life
	e.At = time.Now()
	l.event = e
	l.state.Store(uint32(e.State))
	if l.changec != nil {
		close(l.changec)
		l.changec = nil
	}
	for _, w := range l.watchers {
		w.queue = appendBounded(w.queue, e)
		select {
		case w.wakec <- struct{}{}:
		default:
		}
	}
	if len(l.funcs) == 0 {
		return
	}
	l.queue = appendBounded(l.queue, delivery{event: e, funcs: l.funcs})
	if !l.delivers {
		l.delivers = p.endpoint.begin(p.deliver)
	}
}

func appendBounded[T any](queue []T, v T) []T {
	if len(queue) >= maxStateEvents {
		queue = slices.Delete(queue, 0, 1)
	}
	return append(queue, v)
}

// deliver passes events on until there are none.
func (p *Peer) deliver() {
	l := &p.life
	for {
		l.mu.Lock()
		if len(l.queue) == 0 {
			l.delivers = false
			l.mu.Unlock()
			return
		}
		d := l.queue[0]
		l.queue = slices.Delete(l.queue, 0, 1)
		l.mu.Unlock()
		for _, f := range d.funcs {
			if !f.removed.Load() {
				p.deliverTo(f, d.event)
			}
		}
	}
}

func (p *Peer) deliverTo(f *stateFunc, e StateEvent) {
	defer func() {
		if v := recover(); v != nil {
			p.endpoint.cfg.logger().Error("netron: panic in a callback for states", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	f.fn(e)
}

// changed returns the present state and a channel that is closed at the next change.
func (p *Peer) changed() (StateEvent, <-chan struct{}) {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changec == nil {
		l.changec = make(chan struct{})
	}
	return l.event, l.changec
}
