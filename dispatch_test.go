package netron_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
)

// forEachDriver runs a test with each pair of drivers of listener and dialler.
func forEachDriver(t *testing.T, f func(t *testing.T, listener netron.Config, dial netron.DialOption)) {
	for _, listens := range []netron.Driver{netron.DriverStd, netron.DriverEpoll} {
		for _, dials := range []netron.Driver{netron.DriverStd, netron.DriverEpoll} {
			t.Run(fmt.Sprintf("%v to %v", dials, listens), func(t *testing.T) {
				f(t, netron.Config{Driver: listens}, netron.DialDriver(dials))
			})
		}
	}
}

// TestCallsAllocateNothing checks the promise over sockets, both sides together: the
// client with Method and MethodFunc, the server with Handle.
func TestCallsAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	forEachDriver(t, func(t *testing.T, listener netron.Config, dialDriver netron.DialOption) {
		node, url := serve(t, listener)
		if err := node.ExposeService(marks(nil)); err != nil {
			t.Fatal(err)
		}
		stub, err := dial(t, url, dialDriver).Service(t.Context(), "marks")
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		answers := make(chan error, 1)
		answer := func(_ context.Context, _ int, err error) { answers <- err }
		for _, method := range []string{"fast", "inline"} {
			call, start := rpc.Method[markArgs, int](stub, method), rpc.MethodFunc[markArgs, int](stub, method)
			for name, f := range map[string]func() error{
				"Method": func() error {
					_, err := call(ctx, markArgs{1})
					return err
				},
				"MethodFunc": func() error {
					return errors.Join(start(ctx, markArgs{1}, answer), <-answers)
				},
			} {
				n := testing.AllocsPerRun(1000, func() {
					if err := f(); err != nil {
						t.Error(err)
					}
				})
				if n >= 1 {
					t.Errorf("%s of %s: %v allocations per call, want 0", name, method, n)
				}
			}
		}
	})
}

type markArgs struct{ N int }

// marks returns a service with one method for each way of dispatch, and one that
// does not return before gate is closed.
func marks(gate <-chan struct{}) *netron.Service {
	s := netron.NewService("marks", "1.0.0")
	mark := func(_ context.Context, a *markArgs) (int, error) { return a.N, nil }
	rpc.Handle(s, "fast", mark)
	rpc.Handle(s, "inline", mark)
	rpc.Handle(s, "slow", func(ctx context.Context, a *markArgs) (int, error) {
		select {
		case <-gate:
			return a.N, nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	})
	s.Inline("inline")
	return s
}

// TestSlowHandlerHoldsUpNoOther puts a handler that does not return first, in the
// middle and last of calls that arrive together: all others are answered while it
// runs.
func TestSlowHandlerHoldsUpNoOther(t *testing.T) {
	forEachDriver(t, func(t *testing.T, listener netron.Config, dialDriver netron.DialOption) {
		const calls = 64
		for _, slowAt := range []int{0, calls / 2, calls - 1} {
			gate := make(chan struct{})
			node, url := serve(t, listener)
			if err := node.ExposeService(marks(gate)); err != nil {
				t.Fatal(err)
			}
			stub, err := dial(t, url, dialDriver).Service(t.Context(), "marks")
			if err != nil {
				t.Fatal(err)
			}
			fast, inline, slow := rpc.MethodFunc[markArgs, int](stub, "fast"), rpc.MethodFunc[markArgs, int](stub, "inline"), rpc.MethodFunc[markArgs, int](stub, "slow")
			answers := make(chan int, calls)
			answer := func(_ context.Context, n int, err error) {
				if err != nil {
					t.Error(err)
				}
				answers <- n
			}
			// Calls that a callback makes leave, and arrive, together.
			err = inline(t.Context(), markArgs{-1}, func(ctx context.Context, _ int, err error) {
				for i := range calls {
					call := fast
					switch {
					case i == slowAt:
						call = slow
					case i%5 == 4:
						call = inline
					}
					err = errors.Join(err, call(ctx, markArgs{i}, answer))
				}
				if err != nil {
					t.Error(err)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			seen := map[int]bool{}
			for range calls - 1 {
				seen[<-answers] = true
			}
			if len(seen) != calls-1 || seen[slowAt] {
				t.Errorf("slow at %d: %d calls were answered, the slow one %v; want all others", slowAt, len(seen), seen[slowAt])
			}
			close(gate)
			if n := <-answers; n != slowAt {
				t.Errorf("the last answer is that of call %d, want %d", n, slowAt)
			}
		}
	})
}

// TestManySlowHandlers fills connections with handlers that do not return; another
// connection goes on.
func TestManySlowHandlers(t *testing.T) {
	forEachDriver(t, func(t *testing.T, listener netron.Config, dialDriver netron.DialOption) {
		const conns, each = 4, 500
		gate := make(chan struct{})
		node, url := serve(t, listener)
		if err := node.ExposeService(marks(gate)); err != nil {
			t.Fatal(err)
		}
		var asleep sync.WaitGroup
		for range conns {
			stub, err := dial(t, url, dialDriver).Service(t.Context(), "marks")
			if err != nil {
				t.Fatal(err)
			}
			slow := rpc.MethodFunc[markArgs, int](stub, "slow")
			for i := range each {
				asleep.Add(1)
				err := slow(t.Context(), markArgs{i}, func(_ context.Context, n int, err error) {
					if n != i || err != nil {
						t.Errorf("slow(%d) = %d, %v", i, n, err)
					}
					asleep.Done()
				})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		stub, err := dial(t, url, dialDriver).Service(t.Context(), "marks")
		if err != nil {
			t.Fatal(err)
		}
		fast := rpc.Method[markArgs, int](stub, "fast")
		for i := range 1000 {
			if n, err := fast(t.Context(), markArgs{i}); n != i || err != nil {
				t.Fatalf("fast(%d) = %d, %v", i, n, err)
			}
		}
		close(gate)
		asleep.Wait()
	})
}

// TestWouldBlock checks that code on the read owner gets an error in place of a
// wait that would stop the connection, and every other one of the loop.
func TestWouldBlock(t *testing.T) {
	forEachDriver(t, func(t *testing.T, listener netron.Config, dialDriver netron.DialOption) {
		node, url := serve(t, listener)
		s := netron.NewService("inline", "1.0.0")
		rpc.Handle(s, "callBack", func(ctx context.Context, _ *struct{}) (string, error) {
			_, err := netron.PeerFrom(ctx).Service(ctx, "anything")
			if !errors.Is(err, netron.ErrWouldBlock) || netron.CodeOf(err) != netron.FailedPrecondition {
				return "", fmt.Errorf("Service in an inline method = %w, want ErrWouldBlock", err)
			}
			return "refused", nil
		})
		s.Inline("callBack")
		if err := node.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		stub, err := dial(t, url, dialDriver).Service(t.Context(), "inline")
		if err != nil {
			t.Fatal(err)
		}
		callBack := rpc.Method[struct{}, string](stub, "callBack")
		if got, err := callBack(t.Context(), struct{}{}); got != "refused" || err != nil {
			t.Errorf("callBack = %q, %v", got, err)
		}
		done := make(chan error, 1)
		err = rpc.MethodFunc[struct{}, string](stub, "callBack")(t.Context(), struct{}{}, func(ctx context.Context, _ string, err error) {
			if _, blocked := callBack(ctx, struct{}{}); !errors.Is(blocked, netron.ErrWouldBlock) {
				err = errors.Join(err, fmt.Errorf("a call in a callback = %w, want ErrWouldBlock", blocked))
			}
			if blocked := stub.Go(ctx, "callBack", nil).Wait(ctx); !errors.Is(blocked, netron.ErrWouldBlock) {
				err = errors.Join(err, fmt.Errorf("Wait in a callback = %w, want ErrWouldBlock", blocked))
			}
			done <- err
		})
		if err := errors.Join(err, <-done); err != nil {
			t.Error(err)
		}
	})
}
