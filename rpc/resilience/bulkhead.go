package resilience

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

// Bulkhead lets at most n requests run at a time, and up to queue others wait for
// their turn, first come, first served. Any more are answered at once with
// [rpc.ResourceExhausted]. One whose context ends while it waits fails with
// [rpc.DeadlineExceeded] or [rpc.Canceled] and has not run. It works on both sides.
//
// n below 1 counts as 1, a negative queue as 0.
func Bulkhead(n, queue int) rpc.Middleware {
	n, queue = max(n, 1), max(queue, 0)
	var waiting atomic.Int64
	places := semaphore.NewWeighted(int64(n))
	enter := func(ctx context.Context) error {
		if places.TryAcquire(1) {
			return nil
		}
		defer waiting.Add(-1)
		if waiting.Add(1) > int64(queue) {
			return rpc.Errorf(rpc.ResourceExhausted, "too many requests at a time")
		}
		return places.Acquire(ctx, 1)
	}
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if err := enter(ctx); err != nil {
				return nil, err
			}
			defer places.Release(1)
			return next(ctx, r)
		}
	}
}

// Timeout limits the time of each request. Handlers are told by the end of their
// context, and are not left behind if they do not listen: an answer that comes anyway
// is used. What ends because of it has the code [rpc.DeadlineExceeded]. d of 0 or less
// means no limit; one that the context has already is kept if it is shorter.
func Timeout(d time.Duration) rpc.Middleware {
	return func(next rpc.Handler) rpc.Handler {
		if d <= 0 {
			return next
		}
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			ctx, cancel := context.WithTimeout(ctx, d)
			defer cancel()
			return next(ctx, r)
		}
	}
}
