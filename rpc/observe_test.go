package rpc

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
)

// observed has methods that end in various ways.
type observed struct{}

func (observed) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }
func (observed) Fail(context.Context) error                           { return Errorf(OutOfRange, "too far") }
func (observed) Panic(context.Context) error                          { panic("no") }
func (observed) Sleep(context.Context) error                          { time.Sleep(time.Second); return nil }

// observations are what the hooks of an endpoint have told.
type observations struct {
	mu   sync.Mutex
	told []string // guarded by mu
	open int      // starts without an end; guarded by mu
}

type observedKey struct{}

func (o *observations) middleware() Middleware {
	return Observe(func(ctx context.Context, _ *Request) context.Context {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.open++
		return context.WithValue(ctx, observedKey{}, "span")
	}, func(ctx context.Context, r *Request, took time.Duration, err error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.open--
		side := "in"
		if r.Outgoing() {
			side = "out"
		}
		o.told = append(o.told, fmt.Sprintf("%s %s %s %s.%s %v %d %v", side, r.Peer().ID(), r.Op(), r.Service(), r.Member(), took, CodeOf(err), ctx.Value(observedKey{})))
	})
}

// want checks what was told since it was called last.
func (o *observations) want(t *testing.T, why string, want ...string) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	slices.Sort(o.told) // of two sides, either may be told first
	slices.Sort(want)
	if !slices.Equal(o.told, want) || o.open != 0 {
		t.Errorf("%s: told\n%q\nwant\n%q, %d without an end", why, o.told, want, o.open)
	}
	o.told = nil
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{ID: "node", CallTimeout: 10 * time.Second})
		if err := e.Expose("s@1.0.0", observed{}); err != nil {
			t.Fatal(err)
		}
		if err := e.AddTask("job", func(context.Context) {}); err != nil {
			t.Fatal(err)
		}
		stub, err := e.Local().Service(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		var o observations
		e.Use(o.middleware())
		e.UseOutgoing(o.middleware())
		both := func(op, member string, took time.Duration, code Code) []string {
			service := "s@1.0.0"
			if op == "task" {
				service = ""
			}
			rest := fmt.Sprintf(" node %s %s.%s %v %d span", op, service, member, took, code)
			return []string{"in" + rest, "out" + rest}
		}
		typed := Method[struct{ A, B float64 }, float64](stub, "add")
		for name, tc := range map[string]struct {
			do   func() error
			code Code
			want []string
		}{
			"call":     {func() error { return stub.Call(t.Context(), "add", nil, 1, 2) }, 0, both("call", "add", 0, 0)},
			"typed":    {func() error { _, err := typed(t.Context(), struct{ A, B float64 }{1, 2}); return err }, 0, both("call", "add", 0, 0)},
			"future":   {func() error { return stub.Go(t.Context(), "add", nil, 1, 2).Wait(t.Context()) }, 0, both("call", "add", 0, 0)},
			"slow":     {func() error { return stub.Call(t.Context(), "sleep", nil) }, 0, both("call", "sleep", time.Second, 0)},
			"error":    {func() error { return stub.Call(t.Context(), "fail", nil) }, OutOfRange, both("call", "fail", 0, OutOfRange)},
			"panic":    {func() error { return stub.Call(t.Context(), "panic", nil) }, Internal, both("call", "panic", 0, Internal)},
			"task":     {func() error { return e.Local().RunTask(t.Context(), "job", nil) }, 0, both("task", "job", 0, 0)},
			"bad args": {func() error { return stub.Call(t.Context(), "add", nil, "x") }, InvalidArgument, both("call", "add", 0, InvalidArgument)},
		} {
			if err := tc.do(); CodeOf(err) != tc.code {
				t.Errorf("%s = %v, want %v", name, err, tc.code)
			}
			synctest.Wait()
			o.want(t, name, tc.want...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := stub.Call(ctx, "sleep", nil); CodeOf(err) != DeadlineExceeded {
			t.Errorf("a call that is given up = %v", err)
		}
		time.Sleep(time.Second)
		o.want(t, "given up", "in node call s@1.0.0.sleep 1s 0 span", fmt.Sprintf("out node call s@1.0.0.sleep 100ms %d span", DeadlineExceeded))
	})
}

// TestObserveHalf checks that either function may be missing.
func TestObserveHalf(t *testing.T) {
	e := newEndpoint(t, Config{})
	if err := e.Expose("s", observed{}); err != nil {
		t.Fatal(err)
	}
	starts, ends := 0, 0
	e.UseOutgoing(
		Observe(nil, nil),
		Observe(func(ctx context.Context, _ *Request) context.Context { starts++; return ctx }, nil),
		Observe(nil, func(context.Context, *Request, time.Duration, error) { ends++ }),
	)
	stub, err := e.Local().Service(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	starts, ends = 0, 0
	var sum float64
	if err := stub.Call(t.Context(), "add", &sum, 1, 2); err != nil || sum != 3 {
		t.Errorf("add = %v, %v", sum, err)
	}
	if starts != 1 || ends != 1 {
		t.Errorf("%d starts, %d ends, want one of each", starts, ends)
	}
}

// TestObserveAllocates checks that calls allocate nothing where it is not used, and no
// more than with any middleware where it is.
func TestObserveAllocates(t *testing.T) {
	measure := func(m ...Middleware) float64 {
		e := newEndpoint(t, Config{})
		if err := e.Expose("s", observed{}); err != nil {
			t.Fatal(err)
		}
		e.Use(m...)
		e.UseOutgoing(m...)
		stub, err := e.Local().Service(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		add := Method[struct{ A, B float64 }, float64](stub, "add")
		return testing.AllocsPerRun(1000, func() {
			if sum, err := add(ctx, struct{ A, B float64 }{1, 2}); sum != 3 || err != nil {
				t.Error(sum, err)
			}
		})
	}
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	if n := measure(); n >= 1 {
		t.Errorf("%v allocations per call without middleware, want 0", n)
	}
	plain := measure(func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) { return next(ctx, r) }
	})
	hooks := measure(Observe(
		func(ctx context.Context, _ *Request) context.Context { return ctx },
		func(context.Context, *Request, time.Duration, error) {},
	))
	if hooks >= plain+1 {
		t.Errorf("%v allocations per call with hooks, %v with any middleware", hooks, plain)
	}
}
