// Package pubsub connects those who emit events with those who subscribed to them, in
// one process. What happens between processes is built on top of it.
//
//	emit ──> middleware ──> route ──> handlers, in the order of priority and subscription
//	                          │         ├── func(ctx, Event) (any, error)
//	    name ── cache ── trie of        ├── typed handler of a Topic
//	                     patterns       └── Reader: bounded buffer ──> iteration
//
// A [Bus] is the place. [Bus.Subscribe] has a [Handler] called for the events that match
// a pattern. A [Topic] is a name whose events have one argument of a type. A [Reader], and
// the sequences of [Bus.Events] and [Topic.Events], take events out of a buffer instead.
// [Bus.Use] adds middleware around each emission.
//
// # Names
//
// A name has segments: order:created. In a pattern a segment may be *, any one segment,
// and the last one may be **, one or more segments; * alone is every name. Names of
// events that nodes emit about themselves, such as service:expose, are matched only by
// patterns that begin with their first segment, and only the [Emitter] of
// [NewPrivileged] emits them.
//
// # Operations
//
//	operation                    runs                  returns              after an error
//	EmitParallel                 all at the same time  results in order     goes on, all errors
//	EmitParallel, FirstError     all at the same time  results so far       returns, others go on
//	EmitSerial                   one after another     results in order     stops
//	EmitSerial, AllErrors        one after another     results in order     goes on, all errors
//	EmitReduce, EmitReduceRight  one after another     the folded results   stops
//	EmitChain, EmitChainRight    one after another     the last result      stops
//
// The order is that of priorities, then of subscriptions, whatever the patterns.
//
// # Contexts and goroutines
//
// Handlers get the context of the emission. When it ends, the emission returns; a handler
// that does not listen is left behind, and counts until it returns. That takes a
// goroutine: under a context that cannot end, handlers run on the goroutine of the
// emitter as far as the operation allows, which is the fastest way. [Inline] is for
// handlers that never block, and need no goroutine whatever the context. A handler that
// blocks keeps no others of a parallel emission from running.
//
// A panic is logged, and becomes an error of code internal for that handler alone.
//
// Emitting takes no lock, and no memory when handlers run on the emitter's goroutine,
// except for what the caller's arguments take. Its cost depends on the handlers that
// match, and not on other subscriptions. A subscription costs time logarithmic in the
// number of those with the same pattern. Readers have a lock each.
//
// # Delivery
//
// Each subscription gets each event at most once, while the emission lasts, and events
// that one goroutine emits in the order of their emission. Events that nobody subscribed
// to are gone. Readers lose events by their [Policy], and are told where and how many.
//
// Everything is limited: names, subscriptions, goroutines, buffers; see [Config].
package pubsub
