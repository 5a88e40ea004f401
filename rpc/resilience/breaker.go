package resilience

import (
	"context"
	"errors"
	"time"

	"github.com/sony/gobreaker/v2"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

// ErrOpen is wrapped by the errors of a [Breaker] that did not let a request pass.
// Nothing was sent.
var ErrOpen = errors.New("resilience: circuit open")

// BreakerConfig describes a [Breaker].
type BreakerConfig struct {
	// Window is the time over which outcomes are counted. Default 10 s.
	Window time.Duration

	// MinRequests is how many requests there must have been in the window before the
	// breaker may open. Default 10.
	MinRequests int

	// FailureRatio is the part of them that must have failed, between 0 and 1. Default
	// 0.5.
	FailureRatio float64

	// OpenFor is how long the breaker stays open before it tries again. Default 5 s.
	OpenFor time.Duration

	// Probes is how many requests pass then, all of which must succeed for the breaker
	// to close. Default 1.
	Probes int

	// IsFailure says which errors count; it is not asked about nil. Nil means
	// [IsFailure].
	IsFailure func(error) bool

	// MaxKeys limits how many pairs of peer and service are remembered; see
	// [RateLimitConfig]. Default 65,536.
	MaxKeys int
}

// IsFailure reports whether an error says that a peer does not do well: its code is
// [rpc.Unavailable], [rpc.DeadlineExceeded] or [rpc.Internal]. All others are answers
// of a service that works, those of code [rpc.Unknown] included, which any plain error
// of a TypeScript service has.
func IsFailure(err error) bool {
	switch rpc.CodeOf(err) {
	case rpc.Unavailable, rpc.DeadlineExceeded, rpc.Internal:
		return true
	}
	return false
}

// Breaker stops asking a service of a peer that fails too often: from then on requests
// fail at once with [rpc.Unavailable], wrapping [ErrOpen], until a probe succeeds. It
// is for the side that asks; requests of peers pass.
//
// Each service of each peer has a breaker, the tasks of a peer together another one.
// Requests that were canceled count neither way. One that had too little time counts
// as failed.
func Breaker(cfg BreakerConfig) rpc.Middleware {
	isFailure, ratio := cfg.IsFailure, cfg.FailureRatio
	if isFailure == nil {
		isFailure = IsFailure
	}
	if ratio <= 0 {
		ratio = 0.5
	}
	least := uint32(orDefault(cfg.MinRequests, 10))
	window := orDefault(cfg.Window, 10*time.Second)
	settings := gobreaker.Settings{
		MaxRequests:  uint32(orDefault(cfg.Probes, 1)),
		Interval:     window,
		BucketPeriod: max(window/10, 1),
		Timeout:      orDefault(cfg.OpenFor, 5*time.Second),
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.Requests >= least && float64(c.TotalFailures) >= ratio*float64(c.Requests)
		},
		IsSuccessful: func(err error) bool { return err == nil || !isFailure(err) },
		IsExcluded:   func(err error) bool { return err != nil && rpc.CodeOf(err) == rpc.Canceled },
	}
	breakers := newTable[key, *gobreaker.CircuitBreaker[codec.Raw]](orDefault(cfg.MaxKeys, 65_536), key.isDead)
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if !r.Outgoing() {
				return next(ctx, r)
			}
			b := breakers.get(key{peer: r.Peer(), service: r.Service()}, func() *gobreaker.CircuitBreaker[codec.Raw] {
				return gobreaker.NewCircuitBreaker[codec.Raw](settings)
			})
			raw, err := b.Execute(func() (codec.Raw, error) { return next(ctx, r) })
			if errors.Is(err, gobreaker.ErrOpenState) || errors.Is(err, gobreaker.ErrTooManyRequests) {
				return nil, rpc.Errorf(rpc.Unavailable, "%w", ErrOpen)
			}
			return raw, err
		}
	}
}
