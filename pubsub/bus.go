package pubsub

import (
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Bus connects those who emit events with those who subscribed to them, in one process.
// All methods are safe for concurrent use, and may be called by handlers.
type Bus struct {
	cfg      Config
	log      *slog.Logger
	internal []string // names
	root     node
	routes   atomic.Pointer[cache] // nil before the first emission
	chain    atomic.Pointer[chain] // nil without middleware
	pool     sync.Pool             // of *emission; of the bus, since they hold channels
	drained  chan struct{}         // closed when the bus is closed and nothing runs any more
	drain    sync.Once             // closes drained
	stats    counters              // what nothing else counts

	generation atomic.Uint64 // of the patterns with wildcards
	changes    atomic.Uint64 // of subscriptions
	entered    atomic.Uint64 // emissions begun; closedBit forbids more
	left       atomic.Uint64 // emissions ended
	workers    atomic.Int64  // goroutines that run handlers

	mu      sync.Mutex
	seq     uint64                 // of the last subscription; guarded by mu
	count   int                    // of subscriptions; guarded by mu
	readers map[*Subscription]bool // that are told when the bus closes; guarded by mu
}

// closedBit is set in Bus.entered by Close.
const closedBit = 1 << 63

// New returns a bus. [Bus.Close] it in the end, if running handlers are to be waited for.
func New(cfg Config) (*Bus, error) {
	b, _, err := NewPrivileged(cfg)
	return b, err
}

// NewPrivileged returns a bus, and the emitter that may emit its internal events.
func NewPrivileged(cfg Config) (*Bus, Emitter, error) {
	b := &Bus{
		cfg:     cfg,
		log:     cfg.logger(),
		drained: make(chan struct{}),
		readers: make(map[*Subscription]bool),
	}
	b.internal = append(b.internal, internalNames[:]...)
	for _, name := range cfg.Internal {
		if err := checkName(name, cfg.maxNameBytes(), cfg.maxSegments()); err != nil {
			return nil, Emitter{}, err
		}
		b.internal = append(b.internal, name)
	}
	e := b.emitter()
	e.privileged = true
	return b, e, nil
}

// Subscribe has handler called for each event whose name matches the pattern: a name,
// or segments that may be wildcards, see [CheckPattern]. Emissions that begin after
// Subscribe has returned reach the handler.
//
// It returns an error of code invalid_argument, of code resource_exhausted if there are
// too many subscriptions, or [ErrClosed]. It does not block.
func (b *Bus) Subscribe(pattern string, handler Handler, opts ...Option) (*Subscription, error) {
	s := &Subscription{bus: b, pattern: pattern, handler: handler, weight: newWeight()}
	for _, opt := range opts {
		opt(s)
	}
	if err := b.add(s); err != nil {
		return nil, err
	}
	return s, nil
}

func (b *Bus) add(s *Subscription) error {
	if err := checkPattern(s.pattern, b.cfg.maxNameBytes(), b.cfg.maxSegments()); err != nil {
		return err
	}
	if s.handler == nil {
		return errorf(code.InvalidArgument, "subscribe %s: there is no handler", s.pattern)
	}
	if s.key != nil && !reflect.ValueOf(s.key).Comparable() {
		return errorf(code.InvalidArgument, "subscribe %s: a key of type %T cannot be compared", s.pattern, s.key)
	}
	if s.pattern == wildRest {
		s.pattern = wildcard
	}
	first, err := b.insert(s)
	if err != nil {
		return err
	}
	if first && b.cfg.Changed != nil {
		b.cfg.Changed(s.pattern)
	}
	return nil
}

// insert adds a subscription and reports whether it is the first one of its pattern.
func (b *Bus) insert(s *Subscription) (first bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.entered.Load()&closedBit != 0:
		return false, ErrClosed
	case b.count >= b.cfg.maxSubscriptions():
		return false, errorf(code.ResourceExhausted, "subscribe %s: there are %d subscriptions already", s.pattern, b.count)
	}
	b.count++
	b.seq++
	s.seq = b.seq
	_, set := b.root.find(s.pattern, true)
	old := set.Load()
	set.Store(old.insert(s))
	b.changed(s.pattern)
	if s.closed != nil {
		b.readers[s] = true
	}
	return old == nil, nil
}

// remove takes out a subscription that was added, once.
func (b *Bus) remove(s *Subscription) {
	if last := b.delete(s); last && b.cfg.Changed != nil {
		b.cfg.Changed(s.pattern)
	}
}

// delete takes out a subscription and reports whether it was the last one of its
// pattern.
func (b *Bus) delete(s *Subscription) (last bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, set := b.root.find(s.pattern, false)
	rest := set.Load().remove(s)
	set.Store(rest)
	if rest == nil {
		n.prune()
	}
	b.count--
	delete(b.readers, s)
	b.changed(s.pattern)
	return rest == nil
}

// changed makes routes unknown that the pattern may belong to. The trie has been changed
// before.
func (b *Bus) changed(pattern string) {
	if !isLiteral(pattern) {
		b.generation.Add(1)
	} else if c := b.routes.Load(); c != nil {
		c.forget(pattern)
	}
	b.changes.Add(1)
}

// IsSubscribed reports whether the pattern itself has a subscription.
func (b *Bus) IsSubscribed(pattern string) bool {
	if b.CheckPattern(pattern) != nil {
		return false
	}
	_, set := b.root.find(pattern, false)
	return set != nil && set.Load() != nil
}

// Patterns returns the patterns that have subscriptions, each once and in no order.
// Together with Config.Changed it tells which patterns a peer is to be asked for.
func (b *Bus) Patterns() []string {
	var patterns []string
	b.root.walk(func(t *tree) { patterns = append(patterns, t.sub.pattern) })
	return patterns
}

// HasHandlers reports whether an event of that name would reach anybody.
func (b *Bus) HasHandlers(name string) bool { return b.Interest(name).Any() }

// Interest is the handlers that an event would reach, at a moment.
type Interest struct {
	bus     *Bus
	changes uint64 // of the bus before route was found
	route   *route // nil if no event can have the name
}

// Interest returns the handlers of a name, for [Emitter.LendEvent].
func (b *Bus) Interest(name string) Interest {
	i := Interest{bus: b, changes: b.changes.Load()}
	i.route, _ = b.route(name)
	return i
}

// IsOf reports whether the interest is that of events on bus b still.
func (i Interest) IsOf(b *Bus) bool { return i.bus == b && i.changes == b.changes.Load() }

// Any reports whether there is a handler.
func (i Interest) Any() bool { return i.route != nil && len(i.route.handlers) > 0 }

// CheckName is [CheckName] with the limits of the bus.
func (b *Bus) CheckName(name string) error {
	return checkName(name, b.cfg.maxNameBytes(), b.cfg.maxSegments())
}

// CheckPattern is [CheckPattern] with the limits of the bus.
func (b *Bus) CheckPattern(pattern string) error {
	return checkPattern(pattern, b.cfg.maxNameBytes(), b.cfg.maxSegments())
}

// Lose tells the readers of a name that n of its events are missing at this place, because
// they were lost before they came here. The name * stands for names that are not known:
// all readers are told.
func (b *Bus) Lose(name string, n uint64) {
	if name == wildcard {
		b.mu.Lock()
		readers := slices.Collect(maps.Keys(b.readers))
		b.mu.Unlock()
		for _, s := range readers {
			s.lost(n)
		}
		return
	}
	r, err := b.route(name)
	if err != nil {
		return
	}
	for _, s := range r.handlers {
		if s.lost != nil && !s.ended.Load() {
			s.lost(n)
		}
	}
}

// IsInternal reports whether only the emitter of [NewPrivileged] may emit the name.
func (b *Bus) IsInternal(name string) bool { return slices.Contains(b.internal, name) }

// MatchesInternal reports whether a pattern may match internal events.
func (b *Bus) MatchesInternal(pattern string) bool {
	return slices.ContainsFunc(b.internal, func(name string) bool { return matches(pattern, name, true) })
}

// route returns the handlers of a name.
func (b *Bus) route(name string) (*route, error) {
	c := b.routes.Load()
	if c == nil {
		c = b.makeCache()
	}
	e := c.get(name)
	if e == nil {
		if err := b.CheckName(name); err != nil {
			return nil, err
		}
		e = c.entry(name)
	}
	if r := e.route.Load(); r != nil && r.generation == b.generation.Load() {
		return r, nil
	}
	r := b.find(name)
	e.route.Store(r)
	return r, nil
}

func (b *Bus) makeCache() *cache {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.routes.Load()
	if c == nil {
		c = newCache(b.cfg.cachedNames())
		b.routes.Store(c)
	}
	return c
}

// find looks up the handlers of a name in the trie.
func (b *Bus) find(name string) *route {
	r := &route{generation: b.generation.Load(), internal: b.IsInternal(name), inline: true}
	var sets [8]*tree
	matched := b.root.match(sets[:0], name, r.internal)
	for _, t := range matched {
		r.handlers = t.appendTo(r.handlers)
	}
	if len(matched) > 1 {
		slices.SortFunc(r.handlers, compare)
	}
	r.handlers = distinct(r.handlers)
	for _, s := range r.handlers {
		r.inline = r.inline && s.inline
		r.payload = r.payload || s.payload
		r.scratch = r.scratch || s.scratch
	}
	return r
}

// distinct removes subscriptions whose key an earlier one has.
func distinct(list []*Subscription) []*Subscription {
	var seen map[any]bool
	return slices.DeleteFunc(list, func(s *Subscription) bool {
		if s.key == nil {
			return false
		}
		if seen == nil {
			seen = make(map[any]bool)
		}
		had := seen[s.key]
		seen[s.key] = true
		return had
	})
}

// enter begins an emission, which ends with leave. It fails if the bus is closed.
func (b *Bus) enter() error {
	if b.entered.Add(1)&closedBit == 0 {
		return nil
	}
	b.stats.refused.Add(1)
	b.leave()
	return ErrClosed
}

func (b *Bus) leave() {
	b.left.Add(1)
	if b.entered.Load()&closedBit != 0 {
		b.checkDrained()
	}
}

// addWorker makes room for one more goroutine that runs handlers.
func (b *Bus) addWorker() bool {
	if b.workers.Add(1) <= int64(b.cfg.workers()) {
		return true
	}
	b.workerDone()
	return false
}

func (b *Bus) workerDone() {
	b.workers.Add(-1)
	if b.entered.Load()&closedBit != 0 {
		b.checkDrained()
	}
}

// checkDrained closes drained if nothing runs any more. Emissions are looked at before
// workers: only what runs starts workers.
func (b *Bus) checkDrained() {
	if b.running() == 0 && b.workers.Load() == 0 {
		b.drain.Do(func() { close(b.drained) })
	}
}

// running returns the number of emissions that have not returned.
func (b *Bus) running() uint64 {
	left := b.left.Load()
	return b.entered.Load()&^closedBit - left
}

// Close refuses emissions and subscriptions from now on, with [ErrClosed], and waits
// until all emissions have returned, and all handlers, also those that were left
// behind. Readers then get what they have not read yet, and ErrClosed. If ctx ends
// first, that happens at once, and Close returns an error.
//
// A handler that calls Close waits for itself until ctx ends. Close may be called again.
func (b *Bus) Close(ctx context.Context) error {
	b.entered.Or(closedBit)
	b.checkDrained()
	defer b.closeReaders()
	select {
	case <-b.drained:
		return nil
	default:
	}
	select {
	case <-b.drained:
		return nil
	case <-ctx.Done():
		return contextError(ctx, "close: handlers are still running")
	}
}

func (b *Bus) closeReaders() {
	b.mu.Lock()
	readers := make([]*Subscription, 0, len(b.readers))
	for s := range b.readers {
		readers = append(readers, s)
	}
	b.mu.Unlock()
	for _, s := range readers {
		s.closed(ErrClosed)
		s.Unsubscribe()
	}
}
