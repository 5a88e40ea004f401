package resilience

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/rpc"
)

// RetryConfig describes a [Retry].
type RetryConfig struct {
	// MaxAttempts limits how often a request is sent, the first time included. Default
	// 3.
	MaxAttempts int

	// Delay limits the pause before the second attempt; it doubles for each further
	// one, up to MaxDelay. The pause is a random part of it. Defaults 50 ms and 1 s.
	Delay    time.Duration
	MaxDelay time.Duration

	// Budget is how many retries there may be for each request, on average over all
	// requests, so that a broken peer gets little more than the usual load. Ten more
	// are in reserve. Default 0.1, negative means no limit.
	Budget float64

	// Idempotent says which requests may be served twice without harm. Nil means none:
	// then only those are repeated that were never sent.
	Idempotent func(*rpc.Request) bool

	// Retryable says after which errors to try idempotent requests again. Nil means
	// those of code [rpc.Unavailable].
	Retryable func(error) bool
}

// budgetReserve is how many retries are free at first, or after a quiet time.
const budgetReserve = 10

// budget counts retries against requests.
type budget struct {
	ratio float64 // negative means no limit

	mu   sync.Mutex
	left float64 // guarded by mu
}

// earn notes a request.
func (b *budget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left+b.ratio, budgetReserve)
}

// spend takes a retry out, if there is one.
func (b *budget) spend() bool {
	if b.ratio < 0 {
		return true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// Retry sends requests again that failed: idempotent ones whose error says that trying
// again may help, and any that were not sent because the connection was lost first. A
// remote error is never proof that nothing was done, whatever its text: the service
// may have passed it on. What a [Breaker] refused is not tried again.
//
// The last error is returned when the attempts or the budget are used up, and at once
// if the pause would reach past the deadline of the context. Without a deadline each
// attempt has the call timeout of the node. It is for the side that asks; requests of
// peers pass.
func Retry(cfg RetryConfig) rpc.Middleware {
	attempts := orDefault(cfg.MaxAttempts, 3)
	b := &budget{ratio: cfg.Budget, left: budgetReserve}
	if b.ratio == 0 {
		b.ratio = 0.1
	}
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if !r.Outgoing() {
				return next(ctx, r)
			}
			b.earn()
			for n := 1; ; n++ {
				raw, err := next(ctx, r)
				if err == nil || n >= attempts || !cfg.mayRetry(r, err) || ctx.Err() != nil {
					return raw, err
				}
				d := cfg.pause(n)
				if at, ok := ctx.Deadline(); ok && time.Until(at) <= d {
					return nil, err
				}
				if !b.spend() || !sleep(ctx, d) {
					return nil, err
				}
			}
		}
	}
}

func (c *RetryConfig) mayRetry(r *rpc.Request, err error) bool {
	if errors.Is(err, ErrOpen) {
		return false
	}
	if lost, ok := errors.AsType[*mux.LostError](err); ok && !lost.Sent {
		return true
	}
	if c.Idempotent == nil || !c.Idempotent(r) {
		return false
	}
	if c.Retryable != nil {
		return c.Retryable(err)
	}
	return rpc.CodeOf(err) == rpc.Unavailable
}

// pause returns how long to wait after n attempts ("full jitter").
func (c *RetryConfig) pause(n int) time.Duration {
	d, most := orDefault(c.Delay, 50*time.Millisecond), orDefault(c.MaxDelay, time.Second)
	for ; n > 1 && d < most; n-- {
		d *= 2
	}
	return rand.N(min(d, most) + 1)
}

// sleep waits, and reports false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
