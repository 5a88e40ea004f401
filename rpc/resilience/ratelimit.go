package resilience

import (
	"context"
	"math"
	"time"

	"golang.org/x/time/rate"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

// By says which requests share a limit.
type By uint8

// What a [RateLimit] counts together.
const (
	PerPeer          By = iota // the requests of, or to, one connection
	PerMethod                  // those for one member of one service, whoever asks
	PerPeerAndMethod           // those for one member over one connection
	Global                     // all
)

// DetailRetryAfter is the member of the details of the error of [RateLimit] that says
// after how many milliseconds a request would pass.
const DetailRetryAfter = "retryAfterMs"

// RateLimitConfig describes a [RateLimit].
type RateLimitConfig struct {
	// PerSecond is how many requests pass in a second, on average. Default 100,
	// negative means no limit.
	PerSecond float64

	// Burst is how many pass at once after a time of silence. Default: PerSecond,
	// at least 1.
	Burst int

	// By says which requests share the limit. Default [PerPeer].
	By By

	// MaxKeys limits how many peers, methods or pairs of them are remembered. The one
	// not heard of for the longest time is forgotten first, and starts afresh. Default
	// 65,536. Connections that have ended are forgotten from time to time.
	MaxKeys int
}

func (c *RateLimitConfig) perSecond() float64 {
	if c.PerSecond == 0 {
		return 100
	}
	return c.PerSecond
}

func (c *RateLimitConfig) burst() int {
	if c.Burst > 0 {
		return c.Burst
	}
	return int(max(1, min(math.Ceil(c.perSecond()), math.MaxInt32)))
}

// key is what the states of this package belong to. Zero fields do not matter.
type key struct {
	peer            *rpc.Peer
	service, member string
}

// isDead reports whether the connection of a key has ended.
func (k key) isDead() bool { return k.peer != nil && k.peer.Err() != nil }

func (b By) key(r *rpc.Request) (k key) {
	if b == PerPeer || b == PerPeerAndMethod {
		k.peer = r.Peer()
	}
	if b == PerMethod || b == PerPeerAndMethod {
		k.service, k.member = r.Service(), r.Member()
	}
	return k
}

// RateLimit lets so many requests pass in a second, by a token bucket, and answers the
// others at once with [rpc.ResourceExhausted], whose details say when to try again;
// see [DetailRetryAfter]. It works on both sides.
func RateLimit(cfg RateLimitConfig) rpc.Middleware {
	if cfg.PerSecond < 0 {
		return func(next rpc.Handler) rpc.Handler { return next }
	}
	limit, burst := rate.Limit(cfg.perSecond()), cfg.burst()
	limiters := newTable[key, *rate.Limiter](orDefault(cfg.MaxKeys, 65_536), key.isDead)
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			l := limiters.get(cfg.By.key(r), func() *rate.Limiter { return rate.NewLimiter(limit, burst) })
			if !l.Allow() {
				return nil, rateError(l)
			}
			return next(ctx, r)
		}
	}
}

func rateError(l *rate.Limiter) error {
	missing := max(1-l.Tokens(), 0)
	ms := math.Ceil(missing / float64(l.Limit()) * float64(time.Second/time.Millisecond))
	return &rpc.Error{
		Code:    rpc.ResourceExhausted,
		Message: "too many requests",
		Details: map[string]any{DetailRetryAfter: int64(max(1, min(ms, math.MaxInt32)))},
	}
}

// orDefault returns n, or def for zero and what makes no sense.
func orDefault[T int | time.Duration](n, def T) T {
	if n <= 0 {
		return def
	}
	return n
}
