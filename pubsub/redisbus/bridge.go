package redisbus

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/pubsub"
)

// Bridge connects a bus with those of other nodes. All methods are safe for concurrent
// use.
type Bridge struct {
	cfg      Config
	bus      *pubsub.Bus
	log      *slog.Logger
	redis    rueidis.ClientOption
	channel  string
	self     emitter
	head     string // what events of this bridge begin with
	patterns []string
	out      *outbox
	in       *queue[*envelope]
	stats    counters
	warned   atomic.Int64 // when a message was complained about, in Unix seconds

	heard map[emitter]uint64 // last number of each; owned by the session

	cancel context.CancelFunc // ends the goroutines
	wg     sync.WaitGroup     // of connect and deliver
	done   chan struct{}      // closed when they have ended
	ending sync.Once          // has somebody close done
}

var errNotYet = errors.New("the first attempt is still under way")

// New returns a bridge for a bus, which connects to Redis on its own, now and whenever it
// has lost it: events travel as soon as [Bridge.Ready] says so. [Bridge.Close] it in the
// end, before the bus.
//
// An error is of code invalid_argument. A Redis that is not there is none.
func New(bus *pubsub.Bus, cfg Config) (*Bridge, error) {
	if err := cfg.check(bus); err != nil {
		return nil, err
	}
	options, err := cfg.options()
	if err != nil {
		return nil, err
	}
	b := &Bridge{
		cfg:      cfg,
		bus:      bus,
		log:      cfg.logger(),
		redis:    options,
		channel:  cfg.prefix() + ":events",
		self:     emitter{node: cfg.node(), epoch: rand.Uint64N(maxEpoch)},
		patterns: cfg.patterns(),
		in:       newQueue[*envelope](cfg.maxEvents(), cfg.maxBytes()),
		heard:    make(map[emitter]uint64),
		done:     make(chan struct{}),
	}
	b.head = string(appendHead(nil, b.self))
	b.out = newOutbox(&cfg, &b.stats)
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	bus.Use(b.middleware)
	b.wg.Go(func() { b.connect(ctx) })
	b.wg.Go(func() { b.deliver(ctx) })
	return b, nil
}

// Node returns the id of this node, as handlers elsewhere see it.
func (b *Bridge) Node() string { return b.self.node }

// Ready waits until events travel, which they do while Redis is there. If ctx ends first
// the error says what is wrong with Redis. After Close it is [ErrClosed].
func (b *Bridge) Ready(ctx context.Context) error {
	for {
		ready, why := b.out.state()
		select {
		case <-b.done:
			return ErrClosed
		default:
		}
		select {
		case <-ready:
			if b.out.connected() {
				return nil
			}
		case <-b.done:
			return ErrClosed
		case <-ctx.Done():
			e := &Error{Code: code.Canceled, Message: "wait for Redis", cause: errors.Join(ctx.Err(), why)}
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				e.Code = code.DeadlineExceeded
			}
			return e
		}
	}
}

// Err returns why events do not travel now, nil if they do.
func (b *Bridge) Err() error {
	select {
	case <-b.done:
		return ErrClosed
	default:
	}
	if _, why := b.out.state(); why != nil {
		return &Error{Code: code.Unavailable, Message: "Redis is away", cause: why}
	}
	return nil
}

// Shutdown takes no more events of the bus, waits until those that were taken have left or
// are lost, and closes the bridge. If ctx ends first it closes at once and returns an error.
func (b *Bridge) Shutdown(ctx context.Context) error {
	b.out.drain()
	var err error
	select {
	case <-b.out.drained:
	case <-b.done:
	case <-ctx.Done():
		err = &Error{Code: code.Canceled, Message: "shutdown: events still wait for Redis", cause: ctx.Err()}
	}
	return errors.Join(err, b.Close())
}

// Close ends the bridge. What waits for Redis is lost, and so is what has arrived and
// waits for handlers; the context of those that run ends. It returns when nothing of the
// bridge runs any more, so a handler of an event that came through it must not call it.
//
// It returns nil, and may be called again. The bus stays as it is.
func (b *Bridge) Close() error {
	b.out.drain()
	b.cancel()
	b.ending.Do(func() {
		b.wg.Wait()
		close(b.done)
	})
	<-b.done
	return nil
}

// Done is closed when the bridge is closed.
func (b *Bridge) Done() <-chan struct{} { return b.done }

// wants reports whether a name may travel, whatever the node.
func (b *Bridge) wants(name string) bool {
	return slices.ContainsFunc(b.patterns, func(p string) bool { return pubsub.Matches(p, name) })
}

// isInternal reports whether a name never travels.
func (b *Bridge) isInternal(name string) bool { return b.bus.IsInternal(name) || pubsub.Internal(name) }

// complain logs something about messages, at most once a minute.
func (b *Bridge) complain(text string, args ...any) {
	now, last := time.Now().Unix(), b.warned.Load()
	if now-last >= 60 && b.warned.CompareAndSwap(last, now) {
		b.log.Warn("redisbus: "+text+"; more like it are only counted", args...)
	}
}
