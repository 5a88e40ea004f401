package resilience

import (
	"context"
	"slices"
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

type cache struct {
	cfg CacheConfig

	flights flights[cacheKey, codec.Raw]
	lru     *simplelru.LRU[cacheKey, cached] // guarded by flights.mu, as are those below
	bytes   int
	sweepAt int // length at which to look for what has expired
}

// Cache answers requests from the results of equal ones: of the same peer, service,
// member and encoded arguments. Of equal requests at a time only one is sent, and all
// get its outcome; if its own context ends first, another one is sent. Errors are not
// kept. It is for the side that asks; requests of peers pass.
//
// Headers are no part of what makes requests equal, and answers from the cache have
// none: do not cache members whose results depend on headers or on who asks. A peer
// whose connection has ended is always asked. Requests that pass streams, or return one, are
// not kept.
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
	c := &cache{cfg: cfg, sweepAt: minSweep}
	c.flights.single = func(raw codec.Raw) bool { return raw.Kind() == codec.KindStreamReference }
	var err error
	c.lru, err = simplelru.NewLRU(orDefault(cfg.MaxEntries, 4096), func(k cacheKey, v cached) { c.bytes -= size(k, v.raw) })
	if err != nil {
		panic("BUG: cache of no entries: " + err.Error())
	}
	return c
}

func (c *cache) mayKeep(r *rpc.Request) bool {
	return r.Outgoing() && (r.Op() == rpc.OpCall || r.Op() == rpc.OpGet) &&
		c.cfg.Members != nil && c.cfg.Members(r) && r.Peer().Err() == nil && !passesStreams(r)
}

// passesStreams reports whether an argument is a stream: what stands for it means something else
// over the next connection of the peer.
func passesStreams(r *rpc.Request) bool {
	d := codec.NewDecoder(r.Args(), codec.Limits{})
	for range r.Len() {
		if d.PeekKind() == codec.KindStreamReference {
			return true
		}
		if d.Skip() != nil {
			return false
		}
	}
	return false
}

// size is what an entry takes, about.
func size(k cacheKey, raw codec.Raw) int {
	const overhead = 256
	return overhead + len(k.args) + len(raw)
}

func (c *cache) do(ctx context.Context, r *rpc.Request, next rpc.Handler) (codec.Raw, error) {
	k := cacheKey{peer: r.Peer(), service: r.Service(), member: r.Member(), args: string(r.Args()), op: r.Op(), count: r.Len()}
	raw, err := c.flights.do(ctx, k,
		func() (codec.Raw, bool) { return c.kept(k) },
		func(raw codec.Raw) { c.keep(k, raw) },
		func() (codec.Raw, error) {
			raw, err := next(ctx, r)
			if err == nil && len(raw) == 0 {
				raw = codec.AppendUndefined(nil)
			}
			return raw, err
		})
	return slices.Clone(raw), err
}

// kept returns a result that is kept. flights.mu is held.
func (c *cache) kept(k cacheKey) (codec.Raw, bool) {
	v, ok := c.lru.Get(k)
	if ok && !time.Now().Before(v.expires) {
		c.lru.Remove(k)
		return nil, false
	}
	return v.raw, ok
}

// keep keeps a result. flights.mu is held.
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
