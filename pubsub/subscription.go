package pubsub

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
)

// Handler does something about an event and may return a result. It runs on a goroutine
// of the bus or of the emitter, and for many emissions at a time. A panic counts as an
// error of code internal, and is logged.
//
// A handler should end when its context does: that of the emission. One that does not
// is left behind, and goes on until it returns.
type Handler func(ctx context.Context, e Event) (any, error)

// Option changes a subscription.
type Option func(*Subscription)

// Once ends the subscription with the first event that reaches its handler.
func Once() Option { return func(s *Subscription) { s.once = true } }

// Priority has the handler run before those of lower priority, whatever their patterns.
// The default is 0. Handlers of one priority run in the order of their subscriptions.
func Priority(p int) Option { return func(s *Subscription) { s.priority = p } }

// Inline promises that the handler never blocks. An emission all of whose handlers are
// inline runs them on the goroutine of the emitter, one after another, even if it is
// parallel. They cannot be left behind when its context ends.
func Inline() Option { return func(s *Subscription) { s.inline = true } }

// Distinct makes subscriptions with the same key share events: of those that match an
// event only the one that runs first gets it. The key must be comparable.
func Distinct(key any) Option { return func(s *Subscription) { s.key = key } }

// WithPayload asks for events that have a [Payload], see [Config]. The handlers of one
// emission share it, so what it encodes is encoded once.
func WithPayload() Option { return func(s *Subscription) { s.payload = true } }

// WithScratch is for handlers that share work with the others of an emission, by what they
// find under [Event.Scratch]. Where there is none they have a payload to share, as by
// [WithPayload].
func WithScratch() Option { return func(s *Subscription) { s.scratch = true } }

// Silent says that the results of the handler mean nothing: what reduces or chains results
// passes it over. Errors count all the same. A [Reader] is silent.
func Silent() Option { return func(s *Subscription) { s.silent = true } }

// Subscription is a handler on a bus.
type Subscription struct {
	bus      *Bus
	pattern  string
	handler  Handler
	key      any // of Distinct; nil for none
	priority int
	seq      uint64
	weight   uint32 // of the tree, random
	once     bool
	inline   bool
	payload  bool
	scratch  bool
	silent   bool // results mean nothing
	ended    atomic.Bool
	lost     func(uint64) // tells a reader that events are missing; nil for others
	closed   func(error)  // tells a reader that the bus is closed; nil for others
}

// Pattern returns what was subscribed. It is * for the pattern **, which is the same.
func (s *Subscription) Pattern() string { return s.pattern }

// Unsubscribe ends the subscription. Handlers that have begun, or are just about to,
// are not waited for. Further calls do nothing. It does not block, and a handler may
// call it.
func (s *Subscription) Unsubscribe() {
	if s.ended.CompareAndSwap(false, true) {
		s.bus.remove(s)
	}
}

// begin reports whether the handler may be called now.
func (s *Subscription) begin() bool {
	if !s.once {
		return !s.ended.Load()
	}
	if !s.ended.CompareAndSwap(false, true) {
		return false
	}
	s.bus.remove(s)
	return true
}

// newWeight returns a weight for the tree.
func newWeight() uint32 { return rand.Uint32() }

// before reports whether the handler of s runs before that of o.
func (s *Subscription) before(o *Subscription) bool { return compare(s, o) < 0 }

func compare(a, b *Subscription) int {
	switch {
	case a.priority != b.priority:
		if a.priority > b.priority {
			return -1
		}
		return 1
	case a.seq < b.seq:
		return -1
	case a.seq > b.seq:
		return 1
	}
	return 0
}
