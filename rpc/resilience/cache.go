package resilience

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

// CacheConfig describes a [Cache].
type CacheConfig struct {
	// Members says which calls and reads of properties have results that may be kept.
	// Required: nil means none. It is not asked about writes and tasks, which always
	// pass.
	Members func(*rpc.Request) bool

	// TTL is how long a result is used. Default 10 s.
	TTL time.Duration

	// MaxEntries limits the number of results kept, and MaxBytes what they and their
	// arguments take together. Those not used for the longest time go first. Defaults
	// 4,096 and 16 MiB.
	MaxEntries int
	MaxBytes   int
}

// cacheKey is what a result depends on.
type cacheKey struct {
	peer                  *rpc.Peer
	service, member, args string
	op                    rpc.Op
	count                 int
}

type cached struct {
	raw     codec.Raw
	expires time.Time
}

// flight is a request under way that equal ones wait for.
type flight struct {
	donec chan struct{} // closed by the one who asks
	raw   codec.Raw     // valid once donec is closed, as are those below
	err   error
	valid bool // the outcome is also that of those who wait
}

type cache struct {
	cfg CacheConfig

	mu      sync.Mutex
	lru     *simplelru.LRU[cacheKey, cached] // guarded by mu
	bytes   int                              // guarded by mu
	sweepAt int                              // length at which to look for what has expired; guarded by mu
	flights map[cacheKey]*flight             // guarded by mu
}

// Cache answers requests from the results of equal ones: of the same peer, service,
// member and encoded arguments. Of equal requests at a time only one is sent, and all
// get its outcome; if its own context ends first, another one is sent. Errors are not
// kept. It is for the side that asks; requests of peers pass.
//
// Headers are no part of what makes requests equal, and answers from the cache have
// none: do not cache members whose results depend on headers or on who asks. A peer
// whose connection has ended is always asked.
func Cache(cfg CacheConfig) rpc.Middleware {
	cfg.TTL = orDefault(cfg.TTL, 10*time.Second)
	cfg.MaxBytes = orDefault(cfg.MaxBytes, 16<<20)
	c := newCache(cfg)
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if !c.mayKeep(r) {
				return next(ctx, r)
			}
			return c.do(ctx, r, next)
		}
	}
}

func newCache(cfg CacheConfig) *cache {
	c := &cache{cfg: cfg, sweepAt: minSweep, flights: make(map[cacheKey]*flight)}
	var err error
	c.lru, err = simplelru.NewLRU(orDefault(cfg.MaxEntries, 4096), func(k cacheKey, v cached) { c.bytes -= size(k, v.raw) })
	if err != nil {
		panic("BUG: cache of no entries: " + err.Error())
	}
	return c
}

func (c *cache) mayKeep(r *rpc.Request) bool {
	return r.Outgoing() && (r.Op() == rpc.OpCall || r.Op() == rpc.OpGet) &&
		c.cfg.Members != nil && c.cfg.Members(r) && r.Peer().Err() == nil
}

// size is what an entry takes, about.
func size(k cacheKey, raw codec.Raw) int {
	const overhead = 256
	return overhead + len(k.args) + len(raw)
}

func (c *cache) do(ctx context.Context, r *rpc.Request, next rpc.Handler) (codec.Raw, error) {
	k := cacheKey{peer: r.Peer(), service: r.Service(), member: r.Member(), args: string(r.Args()), op: r.Op(), count: r.Len()}
	for {
		raw, f, isMine := c.begin(k)
		switch {
		case raw != nil:
			return raw, nil
		case isMine:
			return c.ask(ctx, r, next, k, f)
		}
		select {
		case <-f.donec:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if f.valid {
			return slices.Clone(f.raw), f.err
		}
	}
}

// begin returns a copy of a kept result, or else the flight of a request, and whether
// the caller has to carry it out.
func (c *cache) begin(k cacheKey) (codec.Raw, *flight, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.lru.Get(k); ok {
		if time.Now().Before(v.expires) {
			return slices.Clone(v.raw), nil, false
		}
		c.lru.Remove(k)
	}
	if f := c.flights[k]; f != nil {
		return nil, f, false
	}
	f := &flight{donec: make(chan struct{})}
	c.flights[k] = f
	return nil, f, true
}

// ask sends the request, also for those who wait for f. A panic of next leaves f
// without a valid outcome.
func (c *cache) ask(ctx context.Context, r *rpc.Request, next rpc.Handler, k cacheKey, f *flight) (raw codec.Raw, err error) {
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if f.valid && f.err == nil {
			c.keep(k, f.raw)
		}
		delete(c.flights, k)
		close(f.donec)
	}()
	raw, err = next(ctx, r)
	if err == nil && len(raw) == 0 {
		raw = codec.AppendUndefined(nil)
	}
	f.raw, f.err = slices.Clone(raw), err
	f.valid = err == nil || ctx.Err() == nil
	return raw, err
}

// keep is called with mu locked.
func (c *cache) keep(k cacheKey, raw codec.Raw) {
	n := size(k, raw)
	if n > c.cfg.MaxBytes {
		return
	}
	now := time.Now()
	if c.lru.Len() >= c.sweepAt {
		for _, old := range c.lru.Keys() {
			if v, ok := c.lru.Peek(old); ok && (!now.Before(v.expires) || old.peer.Err() != nil) {
				c.lru.Remove(old)
			}
		}
		c.sweepAt = max(minSweep, 2*c.lru.Len())
	}
	for c.bytes+n > c.cfg.MaxBytes {
		c.lru.RemoveOldest()
	}
	c.bytes += n
	c.lru.Add(k, cached{raw: raw, expires: now.Add(c.cfg.TTL)})
}
