package discover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// store is where the records are: Redis, or the memory of this process. All methods may
// be called at the same time.
type store interface {
	// run stays connected until ctx ends. It marks what changes, passes on announcements,
	// and says why it hears none, or nil when it does. Neither function blocks.
	run(ctx context.Context, m *marks, hear func(message string), deaf func(error))

	// beat writes a record and lets it expire. It does not if another instance has the
	// id and lives, unless claim is set.
	beat(ctx context.Context, b *beat) (beaten, error)

	// leave removes the record of an instance, if that has the id.
	leave(ctx context.Context, id, instance string) (left bool, err error)

	// list returns the index, or about so many of it, and says whether that is all.
	list(ctx context.Context, most int) (ids []string, whole bool, err error)

	// read returns what there is of each id.
	read(ctx context.Context, ids []string) ([]reading, error)

	// tidy takes ids out of the index that have neither heartbeat nor record.
	tidy(ctx context.Context, ids []string) (removed int, err error)

	// announce tells the others.
	announce(ctx context.Context, a announcement) error

	// takes returns why the store takes no signs of life, from whomever: nil if it does, as
	// far as it can tell.
	takes(ctx context.Context) (refusal, err error)

	// fence returns when all that had changed in the store when it was called is marked.
	// If the store can not tell, it has everything marked.
	fence(ctx context.Context) error

	// tells reports whether the answer to a beat comes behind the marks too.
	tells() bool

	// close gives up what run did not. It is called once, after all else.
	close()
}

// Registry is a view of the nodes there are, kept current, and the registration of one's
// own. All methods are safe for concurrent use.
type Registry struct {
	cfg      Config
	log      *slog.Logger
	store    store
	view     atomic.Pointer[snapshot]
	marks    *marks
	watchers watchers
	own      own
	fences   fences
	proof    proof
	health   health
	stats    counters

	born      time.Time
	answered  atomic.Int64  // when the store last answered, in ns after born
	confirmed atomic.Int64  // when the view was last known to be current, likewise
	ready     chan struct{} // closed when all has been read once

	cancel  context.CancelFunc // ends the goroutines
	wg      sync.WaitGroup     // of those and of On
	closing atomic.Bool
	done    chan struct{} // closed when they have ended
}

// New returns a registry over Redis, which connects on its own, now and whenever it has
// lost it; [Registry.WaitReady] waits for that. [Registry.Close] it in the end.
//
// An error is of code invalid_argument. A Redis that is not there is none.
func New(cfg Config) (*Registry, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s, err := newRedisStore(&cfg)
	if err != nil {
		return nil, err
	}
	return newRegistry(cfg, s), nil
}

// NewMemory returns a registry over the memory of this process: those with the same hub
// see each other. Nil means a hub of its own. Of the configuration it takes what is not
// about Redis. [Registry.Close] it in the end.
func NewMemory(hub *Hub, cfg Config) (*Registry, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if hub == nil {
		hub = NewHub()
	}
	return newRegistry(cfg, &memoryStore{hub: hub, cfg: &cfg}), nil
}

// NewStatic returns a registry with a fixed list of nodes, which are always there. It
// takes registrations, which nobody else hears of. [Registry.Close] it in the end.
func NewStatic(nodes ...Node) (*Registry, error) {
	var cfg Config
	hub := NewHub()
	for _, n := range nodes {
		n = n.Clone()
		if err := n.normalize(&cfg); err != nil {
			return nil, err
		}
		if err := hub.pin(&n, &cfg); err != nil {
			return nil, err
		}
	}
	r := newRegistry(cfg, &memoryStore{hub: hub, cfg: &cfg})
	<-r.ready // nothing is in the way
	return r, nil
}

func newRegistry(cfg Config, s store) *Registry {
	ctx, cancel := context.WithCancel(context.Background())
	r := &Registry{
		cfg:      cfg,
		log:      cfg.logger(),
		store:    s,
		marks:    newMarks(cfg.maxNodes()),
		watchers: watchers{all: make(map[*watcher]struct{})},
		own:      newOwn(),
		fences:   fences{wake: make(chan struct{}, 1)},
		health:   health{parts: make(map[part]error)},
		born:     time.Now(),
		ready:    make(chan struct{}),
		cancel:   cancel,
		done:     make(chan struct{}),
	}
	if _, ok := s.(*redisStore); ok {
		r.health.parts[partRead] = errNotYet
	}
	r.confirmed.Store(math.MinInt64)
	r.marks.everything()
	r.view.Store(newSnapshot(nil))
	deaf := func(err error) { r.report(partListen, explain("listen to announcements", err)) }
	r.wg.Go(func() { s.run(ctx, r.marks, r.hear, deaf) })
	r.wg.Go(func() { r.read(ctx) })
	r.wg.Go(func() { r.keep(ctx) })
	r.wg.Go(func() { r.fence(ctx) })
	return r
}

// Nodes returns the nodes there are, by id; those that are suspect come last.
func (r *Registry) Nodes() []Node { return values(r.view.Load().nodes) }

// Node returns the node with that id.
func (r *Registry) Node(id string) (n Node, ok bool) {
	if p := r.view.Load().node(id); p != nil {
		return *p, true
	}
	return Node{}, false
}

// Find returns the nodes that offer a service: name, which is any release or the service
// without a version; name@1.2.3; name@*, which is as without; or name@^1.2 and other
// ranges. They come by id, and those that are suspect last. There are none for a query
// that makes no sense: see [CheckQuery].
func (r *Registry) Find(query string) []Node { return values(r.view.Load().lookup(query)) }

// Lookup is Find without copies: the slice and what it points to are shared, and must not
// be changed. It takes no lock and allocates nothing for a query that was asked before, if
// there are not more than a thousand of them.
func (r *Registry) Lookup(query string) []*Node { return r.view.Load().lookup(query) }

// FindOne returns a random one of the nodes that Find returns, suspect only if all are.
func (r *Registry) FindOne(query string) (n Node, ok bool) {
	nodes := r.view.Load().lookup(query)
	if len(nodes) == 0 {
		return Node{}, false
	}
	trusted := len(nodes)
	for trusted > 0 && nodes[trusted-1].Suspect {
		trusted--
	}
	if trusted == 0 {
		trusted = len(nodes)
	}
	return *nodes[rand.IntN(trusted)], true
}

// Age returns how long ago the view was known to be what Redis has: about a heartbeat at
// most while Redis is there and tells what changes, else about Config.Reconcile. It is the
// time since the registry was made if that was never so.
func (r *Registry) Age() time.Duration {
	return time.Since(r.born) - time.Duration(max(0, r.confirmed.Load()))
}

// Ready is closed when everything has been read once.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// WaitReady waits until the view is complete and the own node, if there is one, is
// registered. If ctx ends first the error says what is wrong with Redis. After Close it
// is [ErrClosed].
func (r *Registry) WaitReady(ctx context.Context) error {
	for {
		turned, isOpen := r.own.state()
		if !isOpen {
			select {
			case <-r.ready:
				return nil
			default:
				turned = r.ready
			}
		}
		select {
		case <-turned:
		case <-r.done:
			return ErrClosed
		case <-ctx.Done():
			return explain("wait for Redis", fmt.Errorf("%w: %w", ctx.Err(), cmp.Or(r.Err(), errNotYet)))
		}
	}
}

// Done is closed when the registry is closed.
func (r *Registry) Done() <-chan struct{} { return r.done }

// Close takes the own node out of the registry, if it has one and Redis answers before
// ctx ends, and ends the rest. The view stays as it was. It returns when nothing of the
// registry runs any more, so a callback of [Registry.On] must not call it.
//
// An error says that the own node is still there, for at most a TTL. Close may be called
// again, and returns nil then.
func (r *Registry) Close(ctx context.Context) error {
	if r.closing.Swap(true) {
		<-r.done
		return nil
	}
	err := r.Deregister(ctx)
	r.cancel()
	r.watchers.mu.Lock()
	for w := range r.watchers.all {
		w.end()
	}
	r.watchers.all = nil
	r.watchers.mu.Unlock()
	r.wg.Wait()
	r.store.close()
	close(r.done)
	return err
}

func (r *Registry) isClosed() bool {
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// hear looks at a message of the channel. It must not block.
func (r *Registry) hear(message string) {
	a, err := parseAnnouncement(message, &r.cfg)
	if err != nil {
		r.stats.malformed.Add(1)
		r.complain("announcement", "discover: an announcement makes no sense", "error", err)
		return
	}
	if id, instance := r.own.identity(); a.NodeID == id && a.Instance == instance {
		r.stats.own.Add(1)
		return
	}
	r.stats.heard.Add(1)
	r.marks.node(a.NodeID, a.Type == typeDeregistered)
}

// emit sends events that are not about the view.
func (r *Registry) emit(e Event) {
	r.watchers.mu.Lock()
	defer r.watchers.mu.Unlock()
	r.watchers.send([]Event{e})
}

// part is one of those that need Redis.
type part string

const (
	partRead     part = "read"
	partBeat     part = "register"
	partWrite    part = "let anybody register"
	partListen   part = "listen"
	partAnnounce part = "announce"
)

// health is what is wrong with Redis, and what was said about it.
type health struct {
	mu     sync.Mutex
	parts  map[part]error       // guarded by mu
	warned map[string]time.Time // guarded by mu; the keys are few and ours
}

// Err returns what is wrong now: why Redis is not read or written, why nobody is heard or
// hears us, or [ErrTaken]. It is nil while all is well.
func (r *Registry) Err() error {
	if r.isClosed() {
		return ErrClosed
	}
	if r.own.isTaken() {
		return ErrTaken
	}
	r.health.mu.Lock()
	defer r.health.mu.Unlock()
	for _, p := range []part{partBeat, partRead, partWrite, partListen, partAnnounce} {
		if err := r.health.parts[p]; err != nil {
			return explain("Redis is away", err)
		}
	}
	return nil
}

// isAway reports whether Redis is not read or written.
func (r *Registry) isAway() bool {
	r.health.mu.Lock()
	defer r.health.mu.Unlock()
	return r.health.parts[partBeat] != nil || r.health.parts[partRead] != nil
}

// report notes how a part fares, and logs when that changes.
func (r *Registry) report(p part, err error) {
	r.health.mu.Lock()
	before := r.health.parts[p]
	if err == nil {
		delete(r.health.parts, p)
	} else {
		r.health.parts[p] = err
	}
	isWell := len(r.health.parts) == 0
	r.health.mu.Unlock()
	switch {
	case err != nil:
		r.stats.failures.Add(1)
		kind := "away"
		if e, ok := errors.AsType[*Error](err); ok {
			kind = e.Code.String()
		}
		r.complain(kind, "discover: Redis does not do what it is asked", "to", string(p), "error", err)
	case before != nil && isWell:
		r.log.Info("discover: Redis is there", "prefix", r.cfg.prefix())
	}
}

// complain logs something, of each kind at most once a minute.
func (r *Registry) complain(kind, text string, args ...any) {
	r.health.mu.Lock()
	now := time.Now()
	last, ok := r.health.warned[kind]
	isQuiet := ok && now.Sub(last) < time.Minute
	if !isQuiet {
		if r.health.warned == nil {
			r.health.warned = make(map[string]time.Time)
		}
		r.health.warned[kind] = now
	}
	r.health.mu.Unlock()
	if isQuiet {
		r.log.Debug(text, args...)
	} else {
		r.log.Warn(text, args...)
	}
}

// answer notes that the store has answered.
func (r *Registry) answer() { r.answered.Store(int64(time.Since(r.born))) }

// confirm notes that the view was current at that time.
func (r *Registry) confirm(at time.Duration) {
	for {
		before := r.confirmed.Load()
		if int64(at) <= before || r.confirmed.CompareAndSwap(before, int64(at)) {
			return
		}
	}
}
