// Package redisbus connects the event buses of several nodes through Redis: what is
// emitted on one of them reaches the subscribers of all.
//
//	node A                                             node B
//	emit ──> middleware ──> handlers            subscribed handlers <── emit
//	             └──> queue ──> PUBLISH ══ Redis ══> SUBSCRIBE ──> queue ──┘
//
// A [Bridge] belongs to one bus. It takes a copy of each event that is emitted there and
// matches its patterns, however it is emitted, and emits in parallel what the bridges of
// other nodes sent. Handlers need not know: [Node] tells them where an event came from.
// Results and errors of handlers stay in their process.
//
// Bridges with the same Redis and the same prefix belong together and share one channel.
// Who may publish on it is trusted like a node.
//
// # What is promised
//
// An event reaches each other node at most once. Events of one goroutine reach the
// handlers of another node in the order in which they were emitted, with gaps where some
// were lost. There is no order between emitters.
//
// Emitting never waits for Redis. Events that are emitted faster than Redis takes them
// wait in a bounded queue; when it is full, new ones are lost. While Redis is away all are
// lost: an event that was kept would leave when nobody has subscribed again yet.
//
// Nothing is lost in silence: the emitting side counts what did not leave, and the others
// count what they miss of an emitter as soon as they hear the next event of it, see
// [Stats]. What must not be lost needs something else than Redis Pub/Sub.
//
// # What travels
//
// Names that match one of Config.Patterns, by default all, but never those that nodes emit
// about themselves. Arguments travel in the MessagePack profile of package codec, so a
// struct arrives as a map for those who do not say what they want: a [pubsub.Topic] does,
// and so does Event.Decode.
//
// An event that came in through a bridge leaves through none. An event that a handler
// emits in answer to one, under its context, leaves with a higher hop count, and stays
// when that passes Config.MaxHops: nodes that answer each other's events come to an end.
//
// # Middleware and order of start
//
// A bridge is middleware of its bus. Middleware added before it may change or stop what
// leaves; what is added later sees events after they have been taken. Results of handlers
// have no influence.
//
// Two nodes that share two channels, with patterns that overlap, get events twice.
//
// # Slow handlers
//
// Events of other nodes are emitted one after another, which keeps their order: the next
// one waits until the handlers of the one before have returned, at most
// Config.HandlerTimeout. What arrives meanwhile waits in a second bounded queue; when that
// is full, new ones are lost and counted. Handlers that take long should hand over to a
// [pubsub.Reader].
package redisbus
