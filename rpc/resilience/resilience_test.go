package resilience

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/rpc"
)

// backend is the service at the other end, whose answers a test chooses.
type backend struct {
	calls  atomic.Int64
	answer func(ctx context.Context, n int) (int, error)
}

func (b *backend) Get(ctx context.Context, n int) (int, error) {
	b.calls.Add(1)
	if b.answer == nil {
		return n, nil
	}
	return b.answer(ctx, n)
}

func (b *backend) Other(ctx context.Context, n int) (int, error) { return b.Get(ctx, n) }

type test struct {
	*backend
	endpoint *rpc.Endpoint
	stub     *rpc.Stub
}

func newTest(t testing.TB) *test {
	t.Helper()
	e, err := rpc.NewEndpoint(rpc.Config{ID: "node", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	b := new(backend)
	if err := e.Expose("backend@1.0.0", b); err != nil {
		t.Fatal(err)
	}
	stub, err := e.Local().Service(t.Context(), "backend@1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	return &test{backend: b, endpoint: e, stub: stub}
}

func (tc *test) get(ctx context.Context, n int) (got int, err error) {
	err = tc.stub.Call(ctx, "get", &got, n)
	return got, err
}

func wantCode(t *testing.T, why string, err error, want rpc.Code) {
	t.Helper()
	if got := rpc.CodeOf(err); got != want {
		t.Errorf("%s: got error %v of code %v, want %v", why, err, got, want)
	}
}

func (tc *test) wantCalls(t *testing.T, want int64) {
	t.Helper()
	if got := tc.calls.Load(); got != want {
		t.Errorf("the service was called %d times, want %d", got, want)
	}
}

// isGet limits middleware to one method, so that the tasks of the harness pass.
func isGet(r *rpc.Request) bool { return r.Op() == rpc.OpCall && r.Member() == "get" }

func TestRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.endpoint.Use(RateLimit(RateLimitConfig{PerSecond: 10, Burst: 2}))
		for range 2 {
			_, err := tc.get(t.Context(), 1)
			wantCode(t, "within the burst", err, 0)
		}
		_, err := tc.get(t.Context(), 1)
		wantCode(t, "past the burst", err, rpc.ResourceExhausted)
		e, _ := errors.AsType[*rpc.Error](err)
		if got := fmt.Sprint(e.Details); got != "map[retryAfterMs:100]" {
			t.Errorf("details are %s, want the time until the next token", got)
		}
		tc.wantCalls(t, 2)
		time.Sleep(100 * time.Millisecond)
		_, err = tc.get(t.Context(), 1)
		wantCode(t, "after the time that the error said", err, 0)
	})
}

func TestRateLimitBy(t *testing.T) {
	for by, want := range map[By][2]rpc.Code{
		PerPeer:          {rpc.ResourceExhausted, 0},
		PerMethod:        {0, rpc.ResourceExhausted},
		PerPeerAndMethod: {0, 0},
		Global:           {rpc.ResourceExhausted, rpc.ResourceExhausted},
	} {
		synctest.Test(t, func(t *testing.T) {
			tc := newTest(t)
			limit := RateLimit(RateLimitConfig{PerSecond: 1, By: by})
			onlyCalls := func(next rpc.Handler) rpc.Handler {
				limited := limit(next)
				return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
					if r.Op() == rpc.OpCall {
						return limited(ctx, r)
					}
					return next(ctx, r)
				}
			}
			tc.endpoint.UseOutgoing(onlyCalls)
			_, err := tc.get(t.Context(), 1)
			wantCode(t, "the first", err, 0)
			wantCode(t, fmt.Sprint(by, " another method"), tc.stub.Call(t.Context(), "other", nil, 1), want[0])
			if err := tc.endpoint.Local().Close(); err != nil {
				t.Fatal(err)
			}
			tc.stub, err = tc.endpoint.Local().Service(t.Context(), "backend@1.0.0")
			wantCode(t, "a new connection", err, 0)
			_, err = tc.get(t.Context(), 1)
			wantCode(t, fmt.Sprint(by, " another peer"), err, want[1])
		})
	}
}

func TestRateLimitNone(t *testing.T) {
	tc := newTest(t)
	tc.endpoint.Use(RateLimit(RateLimitConfig{PerSecond: -1}))
	for range 300 {
		if _, err := tc.get(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTable(t *testing.T) {
	dead := map[int]bool{}
	table := newTable[int, int](100, func(k int) bool { return dead[k] })
	for k := range 1000 {
		table.get(k, func() int { return k })
	}
	if got := table.len(); got != 100 {
		t.Errorf("table has %d entries, want no more than its limit of 100", got)
	}
	if got := table.get(999, func() int { return -1 }); got != 999 {
		t.Errorf("the newest entry is %d, want 999", got)
	}
	for k := 910; k < 1000; k++ {
		dead[k] = true
	}
	table.get(1001, func() int { return 0 })
	if got := table.len(); got > 100 {
		t.Errorf("table has %d entries, want no more than its limit of 100", got)
	}
	table = newTable[int, int](10_000, func(k int) bool { return k%64 != 0 })
	for k := range 9000 {
		table.get(k, func() int { return k })
	}
	if got := table.len(); got > 2*9000/64+minSweep {
		t.Errorf("table has %d entries, want at most twice those that are alive", got)
	}
}

func TestBulkhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.answer = func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Second)
			return n, nil
		}
		tc.endpoint.UseOutgoing(Bulkhead(2, 1))
		codes := make(chan rpc.Code, 4)
		start := time.Now()
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				_, err := tc.get(t.Context(), i)
				codes <- rpc.CodeOf(err)
			})
		}
		synctest.Wait()
		if got := <-codes; got != rpc.ResourceExhausted {
			t.Errorf("the fourth got %v, want resource_exhausted at once", got)
		}
		wg.Wait()
		if got := time.Since(start); got != 2*time.Second {
			t.Errorf("three calls took %v, want the third to wait for one of two places", got)
		}
		tc.wantCalls(t, 3)
	})
}

func TestBulkheadGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.answer = func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Second)
			return n, nil
		}
		tc.endpoint.UseOutgoing(Bulkhead(0, 5))
		var wg sync.WaitGroup
		wg.Go(func() { tc.get(t.Context(), 1) })
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := tc.get(ctx, 2)
		wantCode(t, "its time ended in the queue", err, rpc.DeadlineExceeded)
		wg.Wait()
		_, err = tc.get(t.Context(), 3)
		wantCode(t, "the place is free again", err, 0)
		tc.wantCalls(t, 2)
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.answer = func(ctx context.Context, n int) (int, error) {
			select {
			case <-ctx.Done():
				return 0, ctx.Err()
			case <-time.After(time.Duration(n) * time.Millisecond):
				return n, nil
			}
		}
		tc.endpoint.Use(Timeout(100*time.Millisecond), Timeout(0))
		_, err := tc.get(t.Context(), 99)
		wantCode(t, "in time", err, 0)
		start := time.Now()
		_, err = tc.get(t.Context(), 1000)
		wantCode(t, "late", err, rpc.DeadlineExceeded)
		if got := time.Since(start); got != 100*time.Millisecond {
			t.Errorf("the answer came after %v, want 100ms", got)
		}
	})
}

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		failing := true
		tc.answer = func(_ context.Context, n int) (int, error) {
			if failing {
				return 0, rpc.Errorf(rpc.Internal, "broken")
			}
			return n, nil
		}
		tc.endpoint.UseOutgoing(Breaker(BreakerConfig{MinRequests: 4, OpenFor: time.Second}))
		for range 4 {
			_, err := tc.get(t.Context(), 1)
			wantCode(t, "closed", err, rpc.Internal)
		}
		_, err := tc.get(t.Context(), 1)
		wantCode(t, "open", err, rpc.Unavailable)
		if !errors.Is(err, ErrOpen) {
			t.Errorf("got %v, want one that wraps ErrOpen", err)
		}
		tc.wantCalls(t, 4)
		if _, err := tc.endpoint.Local().Service(t.Context(), "backend@1.0.0"); err != nil {
			t.Errorf("tasks have a breaker of their own, got %v", err)
		}
		time.Sleep(1001 * time.Millisecond)
		_, err = tc.get(t.Context(), 1)
		wantCode(t, "the probe", err, rpc.Internal)
		_, err = tc.get(t.Context(), 1)
		wantCode(t, "open again", err, rpc.Unavailable)
		failing = false
		time.Sleep(1001 * time.Millisecond)
		for range 2 {
			_, err = tc.get(t.Context(), 1)
			wantCode(t, "closed again", err, 0)
		}
	})
}

func TestIsFailure(t *testing.T) {
	for _, code := range []rpc.Code{rpc.InvalidArgument, rpc.NotFound, rpc.PermissionDenied, rpc.ResourceExhausted, rpc.Unknown, rpc.Canceled} {
		if IsFailure(rpc.Errorf(code, "x")) {
			t.Errorf("IsFailure(%v) = true, want false", code)
		}
	}
	for _, err := range []error{rpc.Errorf(rpc.Unavailable, "x"), rpc.Errorf(rpc.Internal, "x"), context.DeadlineExceeded} {
		if !IsFailure(err) {
			t.Errorf("IsFailure(%v) = false, want true", err)
		}
	}
}

func TestBreakerIgnoresAnswers(t *testing.T) {
	tc := newTest(t)
	tc.answer = func(context.Context, int) (int, error) { return 0, errors.New("Division by zero") }
	tc.endpoint.UseOutgoing(Breaker(BreakerConfig{MinRequests: 1}))
	for range 20 {
		_, err := tc.get(t.Context(), 1)
		wantCode(t, "an answer like any other", err, rpc.Unknown)
	}
}

// failBefore is a link that loses the first n requests for get.
func failBefore(n int, err error) rpc.Middleware {
	return func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if isGet(r) && n > 0 {
				n--
				return nil, err
			}
			return next(ctx, r)
		}
	}
}

func TestRetry(t *testing.T) {
	unavailable := rpc.Errorf(rpc.Unavailable, "busy")
	notSent := rpc.Errorf(rpc.Unavailable, "lost: %w", &mux.LostError{})
	sent := rpc.Errorf(rpc.Unavailable, "lost: %w", &mux.LostError{Sent: true})
	isAborted := func(err error) bool { return rpc.CodeOf(err) == rpc.Aborted }
	for _, test := range []struct {
		name  string
		cfg   RetryConfig
		fails int
		err   error
		want  rpc.Code
	}{
		{"idempotent", RetryConfig{Idempotent: isGet}, 2, unavailable, 0},
		{"attempts", RetryConfig{Idempotent: isGet}, 3, unavailable, rpc.Unavailable},
		{"more attempts", RetryConfig{Idempotent: isGet, MaxAttempts: 5}, 4, unavailable, 0},
		{"not idempotent", RetryConfig{}, 1, unavailable, rpc.Unavailable},
		{"not sent", RetryConfig{}, 2, notSent, 0},
		{"perhaps sent", RetryConfig{}, 1, sent, rpc.Unavailable},
		{"perhaps sent, idempotent", RetryConfig{Idempotent: isGet}, 1, sent, 0},
		{"an answer", RetryConfig{Idempotent: isGet}, 1, rpc.Errorf(rpc.NotFound, "gone"), rpc.NotFound},
		{"open", RetryConfig{Idempotent: isGet}, 1, rpc.Errorf(rpc.Unavailable, "%w", ErrOpen), rpc.Unavailable},
		{"retryable", RetryConfig{Idempotent: isGet, Retryable: isAborted}, 1, rpc.Errorf(rpc.Aborted, "conflict"), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := newTest(t)
				tc.endpoint.UseOutgoing(Retry(test.cfg), failBefore(test.fails, test.err))
				got, err := tc.get(t.Context(), 7)
				wantCode(t, "after the retries", err, test.want)
				if err == nil && got != 7 {
					t.Errorf("got %d, want 7", got)
				}
			})
		})
	}
}

func TestRetryDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.endpoint.UseOutgoing(
			Retry(RetryConfig{Idempotent: isGet, MaxAttempts: 1000, Delay: 50 * time.Millisecond, Budget: -1}),
			failBefore(1000, rpc.Errorf(rpc.Unavailable, "busy")),
		)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		_, err := tc.get(ctx, 1)
		wantCode(t, "the last error", err, rpc.Unavailable)
		if got := time.Since(start); got >= time.Second {
			t.Errorf("gave up after %v, want less than a second", got)
		}
	})
}

func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		sent := 0
		count := func(next rpc.Handler) rpc.Handler {
			return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
				sent++
				return next(ctx, r)
			}
		}
		tc.endpoint.UseOutgoing(Retry(RetryConfig{Idempotent: isGet}), count, failBefore(1<<30, rpc.Errorf(rpc.Unavailable, "busy")))
		for range 1000 {
			tc.get(t.Context(), 1)
		}
		if sent < 1100 || sent > 1110 {
			t.Errorf("1000 calls were sent %d times, want a tenth and the reserve more", sent)
		}
	})
}

func TestPause(t *testing.T) {
	c := RetryConfig{Delay: 10 * time.Millisecond, MaxDelay: 35 * time.Millisecond}
	for n, most := range []time.Duration{1: 10 * time.Millisecond, 20 * time.Millisecond, 35 * time.Millisecond, 35 * time.Millisecond} {
		if n == 0 {
			continue
		}
		for range 100 {
			if got := c.pause(n); got < 0 || got > most {
				t.Fatalf("pause(%d) = %v, want at most %v", n, got, most)
			}
		}
	}
}

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.endpoint.UseOutgoing(Cache(CacheConfig{Members: isGet, TTL: time.Second}))
		for _, n := range []int{1, 1, 2, 1, 2} {
			if got, err := tc.get(t.Context(), n); got != n || err != nil {
				t.Errorf("get(%d) = %d, %v", n, got, err)
			}
		}
		tc.wantCalls(t, 2)
		tc.stub.Call(t.Context(), "other", nil, 1)
		tc.stub.Call(t.Context(), "other", nil, 1)
		tc.wantCalls(t, 4)
		time.Sleep(time.Second)
		tc.get(t.Context(), 1)
		tc.wantCalls(t, 5)
	})
}

func TestCacheErrors(t *testing.T) {
	tc := newTest(t)
	tc.answer = func(context.Context, int) (int, error) { return 0, errors.New("no") }
	tc.endpoint.UseOutgoing(Cache(CacheConfig{Members: isGet}))
	tc.get(t.Context(), 1)
	tc.get(t.Context(), 1)
	tc.wantCalls(t, 2)
}

// Numbers and Sum have streams.
func (b *backend) Numbers(_ context.Context, n int) iter.Seq[int] {
	b.calls.Add(1)
	time.Sleep(time.Second)
	return func(yield func(int) bool) {
		for i := 0; i < n && yield(i); i++ {
		}
	}
}

func (b *backend) Sum(_ context.Context, numbers iter.Seq[int]) (sum int) {
	b.calls.Add(1)
	for v := range numbers {
		sum += v
	}
	return sum
}

// TestCacheKeepsNoStreams checks that each caller gets a stream of its own.
func TestCacheKeepsNoStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		all := func(*rpc.Request) bool { return true }
		tc.endpoint.UseOutgoing(Cache(CacheConfig{Members: all, TTL: time.Hour}), Retry(RetryConfig{}))
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				var c <-chan int
				if err := tc.stub.Call(t.Context(), "numbers", &c, 3); err != nil {
					t.Error(err)
					return
				}
				n := 0
				for range c {
					n++
				}
				if n != 3 {
					t.Errorf("a stream of %d numbers, want 3", n)
				}
			})
		}
		wg.Wait()
		tc.wantCalls(t, 3)
		for _, want := range []int{1, 2} {
			sum := 0
			if err := tc.stub.Call(t.Context(), "sum", &sum, slices.Values([]int{want})); err != nil || sum != want {
				t.Errorf("sum = %d, %v, want %d", sum, err, want)
			}
		}
		tc.wantCalls(t, 5)
	})
}

// TestRetryOfUsedStreams checks that the error of a call is that of its first attempt when its
// streams have been used.
func TestRetryOfUsedStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.endpoint.UseOutgoing(Retry(RetryConfig{Idempotent: func(*rpc.Request) bool { return true }, Retryable: func(error) bool { return true }}))
		err := tc.stub.Call(t.Context(), "fails", nil, slices.Values([]int{1}))
		wantCode(t, "the first attempt", err, rpc.Aborted)
		tc.wantCalls(t, 1)
	})
}

func (b *backend) Fails(context.Context, iter.Seq[int]) error {
	b.calls.Add(1)
	return rpc.Errorf(rpc.Aborted, "no")
}

func TestCacheSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTest(t)
		tc.answer = func(_ context.Context, n int) (int, error) {
			time.Sleep(time.Second)
			return n, nil
		}
		tc.endpoint.UseOutgoing(Cache(CacheConfig{Members: isGet}))
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			_, err := tc.get(first, 1)
			wantCode(t, "the first gave up", err, rpc.Canceled)
		})
		synctest.Wait()
		for range 5 {
			wg.Go(func() {
				if got, err := tc.get(t.Context(), 1); got != 1 || err != nil {
					t.Errorf("get(1) = %d, %v", got, err)
				}
			})
		}
		impatient, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		_, err := tc.get(impatient, 1)
		wantCode(t, "one that cannot wait", err, rpc.DeadlineExceeded)
		cancel()
		wg.Wait()
		tc.wantCalls(t, 2)
	})
}

func TestCacheLimits(t *testing.T) {
	tc := newTest(t)
	c := newCache(CacheConfig{Members: isGet, TTL: time.Hour, MaxBytes: 3000})
	tc.endpoint.UseOutgoing(func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if !c.mayKeep(r) {
				return next(ctx, r)
			}
			return c.do(ctx, r, next)
		}
	})
	for n := range 500 {
		tc.get(t.Context(), n)
		if c.bytes > 3000 || c.lru.Len() > 11 {
			t.Fatalf("the cache holds %d bytes in %d entries, limit 3000", c.bytes, c.lru.Len())
		}
	}
	total := 0
	for _, k := range c.lru.Keys() {
		v, _ := c.lru.Peek(k)
		total += size(k, v.raw)
	}
	if total != c.bytes || total == 0 {
		t.Errorf("the cache counts %d bytes, want %d", c.bytes, total)
	}
}

func TestBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		items := []int{5, 4, 3, 2, 1, 0}
		got, err := Batch(t.Context(), items, 2, func(_ context.Context, n int) (string, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			time.Sleep(time.Duration(n) * time.Second)
			return fmt.Sprint(n), nil
		})
		if diff := cmp.Diff([]string{"5", "4", "3", "2", "1", "0"}, got); diff != "" || err != nil {
			t.Errorf("Batch: %v, difference (-want +got):\n%s", err, diff)
		}
		if most.Load() != 2 {
			t.Errorf("%d ran at a time, want 2", most.Load())
		}
	})
}

func TestBatchError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		boom := errors.New("boom")
		var started atomic.Int64
		got, err := Batch(t.Context(), make([]int, 100), 3, func(ctx context.Context, _ int) (int, error) {
			if started.Add(1) == 3 {
				return 0, boom
			}
			<-ctx.Done()
			return 0, ctx.Err()
		})
		if got != nil || !errors.Is(err, boom) {
			t.Errorf("Batch = %v, %v, want the first error", got, err)
		}
		if n := started.Load(); n > 4 {
			t.Errorf("%d were started, want none after the error", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if got, err := Batch(ctx, []int{1}, 1, func(context.Context, int) (int, error) { return 1, nil }); got != nil || !errors.Is(err, context.Canceled) {
			t.Errorf("Batch with an ended context = %v, %v", got, err)
		}
		if got, err := Batch(ctx, nil, 1, func(context.Context, int) (int, error) { return 1, nil }); len(got) != 0 || err != nil {
			t.Errorf("Batch of nothing = %v, %v", got, err)
		}
	})
}
