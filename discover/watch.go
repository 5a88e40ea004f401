package discover

import (
	"context"
	"fmt"
	"iter"
	"sync"
)

// EventKind says what has happened.
type EventKind uint8

// The kinds of events. Of one change those about nodes come before those about services.
const (
	NodeJoined         EventKind = iota + 1 // Node is there
	NodeLeft                                // Node is not there any more; it is as it was last
	NodeChanged                             // Node has changed, or its process was restarted, or it is suspect or no longer so
	ServiceAvailable                        // Node is the first that offers Service
	ServiceUnavailable                      // Node was the last that offered Service
	IDTaken                                 // another process has registered under the id of this node: see ErrTaken
	EventsLost                              // the watcher was too slow for the Lost events that came here
)

var eventNames = [...]string{
	NodeJoined: "node joined", NodeLeft: "node left", NodeChanged: "node changed", ServiceAvailable: "service available",
	ServiceUnavailable: "service unavailable", IDTaken: "id taken", EventsLost: "events lost",
}

// String returns the kind in words.
func (k EventKind) String() string {
	if k == 0 || int(k) >= len(eventNames) {
		return fmt.Sprintf("event %d", uint8(k))
	}
	return eventNames[k]
}

// Event is a change of the view.
type Event struct {
	Kind    EventKind
	Node    Node    // but for EventsLost
	Service Service // of ServiceAvailable and ServiceUnavailable
	Lost    uint64  // of EventsLost
}

// watchers are those who want events. An event is sent with the lock held under which the
// view changes, so that whoever begins to watch misses nothing and gets nothing twice.
type watchers struct {
	mu     sync.Mutex
	all    map[*watcher]struct{} // nil when the registry is closed; guarded by mu
	missed uint64                // events that were lost, of all; guarded by mu
}

// watcher is the bounded queue of one of them.
type watcher struct {
	mu     sync.Mutex
	queue  []Event       // guarded by mu
	most   int           // in queue
	lost   uint64        // behind those in queue; guarded by mu
	ended  bool          // there will be no more; guarded by mu
	wake   chan struct{} // has one element while there may be something in queue
	before []*Node       // there when it began; owned by whoever watches
}

// send sends events to all. It is called with mu held.
func (ws *watchers) send(events []Event) {
	for w := range ws.all {
		ws.missed += w.put(events)
	}
}

// put queues events, and returns how many it had no room for.
func (w *watcher) put(events []Event) (lost uint64) {
	w.mu.Lock()
	for _, e := range events {
		room := w.most - len(w.queue)
		switch {
		case w.lost == 0 && room > 0:
			w.queue = append(w.queue, e)
		case w.lost > 0 && room > 1:
			w.queue = append(w.queue, Event{Kind: EventsLost, Lost: w.lost}, e)
			w.lost = 0
		default:
			w.lost++
			lost++
		}
	}
	w.mu.Unlock()
	w.poke()
	return lost
}

func (w *watcher) poke() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// take returns what is queued, and whether that was all.
func (w *watcher) take() (events []Event, ended bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	events, w.queue = w.queue, nil
	if w.lost > 0 {
		events = append(events, Event{Kind: EventsLost, Lost: w.lost})
		w.lost = 0
	}
	return events, w.ended
}

func (w *watcher) end() {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	w.poke()
}

// begin adds a watcher, nil if the registry is closed, and has a goroutine run if it is to.
func (r *Registry) begin(run func(w *watcher)) *watcher {
	r.watchers.mu.Lock()
	defer r.watchers.mu.Unlock()
	if r.watchers.all == nil {
		return nil
	}
	w := &watcher{most: r.cfg.maxEvents(), wake: make(chan struct{}, 1), before: r.view.Load().nodes}
	r.watchers.all[w] = struct{}{}
	if run != nil {
		r.wg.Go(func() { run(w) }) // here, since Close waits for it as soon as it has the lock
	}
	return w
}

func (r *Registry) end(w *watcher) {
	r.watchers.mu.Lock()
	defer r.watchers.mu.Unlock()
	delete(r.watchers.all, w)
}

// run calls f with what there was and with what happens, until f returns false or ctx
// ends. It returns [ErrClosed] when the registry is closed.
func (w *watcher) run(ctx context.Context, f func(Event) bool) error {
	for _, e := range changesOf(w.before, nil, make(map[Service]int)) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if !f(e) {
			return nil
		}
	}
	w.before = nil
	for {
		events, ended := w.take()
		for _, e := range events {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if !f(e) {
				return nil
			}
		}
		if ended {
			return ErrClosed
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-w.wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Watch returns the events of the view: first what there is already, as if it had come
// just now, then what changes, until ctx ends or the registry is closed, with an error
// that says which. To break off ends it too.
//
// A loop that is too slow loses events, when Config.MaxEvents wait for it, and gets one of
// the kind [EventsLost] in their place: then [Registry.Nodes] says what there is.
func (r *Registry) Watch(ctx context.Context) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		w := r.begin(nil)
		if w == nil {
			yield(Event{}, ErrClosed)
			return
		}
		defer r.end(w)
		stopped := false
		err := w.run(ctx, func(e Event) bool {
			stopped = !yield(e, nil)
			return !stopped
		})
		if err != nil && !stopped {
			yield(Event{}, err)
		}
	}
}

// On calls f for the events of [Registry.Watch], one after another on a goroutine of its
// own, until stop is called or the registry is closed. Close waits for f, and stop does
// not. A slow f holds up nobody else; one that panics is logged, and called again.
func (r *Registry) On(f func(Event)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	w := r.begin(func(w *watcher) {
		defer r.end(w)
		_ = w.run(ctx, func(e Event) bool { // it ends for one of two reasons, of which none is an error
			r.call(f, e)
			return true
		})
	})
	if w == nil {
		cancel()
	}
	return cancel
}

func (r *Registry) call(f func(Event), e Event) {
	defer func() {
		if p := recover(); p != nil {
			r.complain("panic", "discover: a callback panics", "event", e.Kind.String(), "panic", p)
		}
	}()
	f(e)
}

// change is what has become of a node: nil before it was there, and after it.
type change struct {
	before, after *Node
}

// changesOf returns the events of nodes that are new or have changed, and keeps count of
// who offers what.
func changesOf(joined []*Node, changed []change, offers map[Service]int) []Event {
	var events []Event
	for _, n := range joined {
		events = appendChange(events, change{after: n}, offers)
	}
	for _, c := range changed {
		events = appendChange(events, c, offers)
	}
	return events
}

// appendChange appends the events of a change.
func appendChange(events []Event, c change, offers map[Service]int) []Event {
	var before, after []Service
	switch {
	case c.before == nil:
		events = append(events, Event{Kind: NodeJoined, Node: *c.after})
		after = c.after.Services
	case c.after == nil:
		events = append(events, Event{Kind: NodeLeft, Node: *c.before})
		before = c.before.Services
	default:
		events = append(events, Event{Kind: NodeChanged, Node: *c.after})
		before, after = c.before.Services, c.after.Services
	}
	for _, s := range after {
		offers[s]++
	}
	for _, s := range before {
		offers[s]--
	}
	for _, s := range after {
		if offers[s] == 1 && !contains(before, s) {
			events = append(events, Event{Kind: ServiceAvailable, Node: *c.after, Service: s})
		}
	}
	for _, s := range before {
		if offers[s] > 0 {
			continue
		}
		delete(offers, s)
		n := c.before
		if c.after != nil {
			n = c.after
		}
		events = append(events, Event{Kind: ServiceUnavailable, Node: *n, Service: s})
	}
	return events
}
