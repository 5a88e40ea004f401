package pubsub

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/internal/code"
)

var (
	errOne = errors.New("one")
	errTwo = errors.New("two")
)

// sameError reports whether an error is that one, and nothing around it or beside it.
func sameError(got, want error) bool {
	return got == want //nolint:errorlint // that is the question
}

// contexts are one that cannot end, under which handlers run on the emitter's
// goroutine, and one that can, under which they do not. Both must mean the same.
func contexts(t *testing.T, test func(t *testing.T, ctx context.Context)) {
	t.Run("Background", func(t *testing.T) { test(t, context.Background()) })
	t.Run("WithCancel", func(t *testing.T) { test(t, t.Context()) })
}

func TestOrderOfResults(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		subscribe(t, b, "order:*", returns("third"))
		subscribe(t, b, "order:created", returns("fourth"))
		subscribe(t, b, "*", returns("fifth"), Priority(-1))
		subscribe(t, b, "order:**", returns("first"), Priority(2))
		subscribe(t, b, "*:created", returns("second"), Priority(1))
		subscribe(t, b, "order:updated", returns("other"))
		want := []any{"first", "second", "third", "fourth", "fifth"}
		for _, op := range []Op{OpParallel, OpSerial} {
			got, err := b.emitter().EmitEvent(ctx, op, Event{name: "order:created"})
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v: %v, (-want +got):\n%s", op, err, diff)
			}
		}
		add := func(acc, v any) (any, error) { return acc.(string) + " " + v.(string), nil }
		if got, err := b.EmitReduce(ctx, "order:created", add, "0"); got != "0 first second third fourth fifth" || err != nil {
			t.Errorf("EmitReduce = %v, %v", got, err)
		}
		if got, err := b.EmitReduceRight(ctx, "order:created", add, "0"); got != "0 fifth fourth third second first" || err != nil {
			t.Errorf("EmitReduceRight = %v, %v", got, err)
		}
		if got, err := b.EmitChain(ctx, "order:created"); got != "fifth" || err != nil {
			t.Errorf("EmitChain = %v, %v", got, err)
		}
		if got, err := b.EmitChainRight(ctx, "order:created"); got != "first" || err != nil {
			t.Errorf("EmitChainRight = %v, %v", got, err)
		}
	})
}

func TestNilResults(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		subscribe(t, b, "none", returns(nil))
		subscribe(t, b, "none", returns(nil))
		subscribe(t, b, "some", returns(nil))
		subscribe(t, b, "some", returns(7))
		subscribe(t, b, "some", returns(nil))
		for name, want := range map[string][]any{"none": nil, "some": {nil, 7, nil}, "nobody": nil} {
			parallel, err := b.EmitParallel(ctx, name)
			if !cmp.Equal(parallel, want) || err != nil {
				t.Errorf("EmitParallel(%s) = %#v, %v, want %#v", name, parallel, err, want)
			}
			serial, err := b.EmitSerial(ctx, name)
			if !cmp.Equal(serial, want) || err != nil {
				t.Errorf("EmitSerial(%s) = %#v, %v, want %#v", name, serial, err, want)
			}
		}
	})
}

// TestErrors checks what each operation makes of errors.
func TestErrors(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		var calls atomic.Int64
		count := func(h Handler) Handler {
			return func(ctx context.Context, e Event) (any, error) {
				calls.Add(1)
				return h(ctx, e)
			}
		}
		for _, h := range []Handler{returns("a"), fails(errOne), returns("b"), fails(errTwo)} {
			subscribe(t, b, "e", count(h))
		}
		keep := func(_, v any) (any, error) { return v, nil }
		for _, tc := range []struct {
			name      string
			emit      func() (any, error)
			want      any
			calls     int64
			one, two  bool
			unordered bool // which error comes first is not told
		}{
			{"parallel", func() (any, error) { return b.EmitParallel(ctx, "e") }, []any{"a", nil, "b", nil}, 4, true, true, false},
			{"parallel, first", func() (any, error) {
				_, err := b.With(FirstError(), Concurrency(1)).EmitParallel(ctx, "e")
				return nil, err
			}, nil, 0, true, false, false},
			{"serial", func() (any, error) { return b.EmitSerial(ctx, "e") }, []any{"a", nil}, 2, true, false, false},
			{"serial, all", func() (any, error) { return b.With(AllErrors()).EmitSerial(ctx, "e") }, []any{"a", nil, "b", nil}, 4, true, true, false},
			{"reduce", func() (any, error) { return b.EmitReduce(ctx, "e", keep, 0) }, nil, 2, true, false, false},
			{"reduceRight", func() (any, error) { return b.EmitReduceRight(ctx, "e", keep, 0) }, nil, 1, false, true, false},
			{"chain", func() (any, error) { return b.EmitChain(ctx, "e", 1) }, nil, 2, true, false, false},
			{"chainRight", func() (any, error) { return b.EmitChainRight(ctx, "e", 1) }, nil, 1, false, true, false},
		} {
			calls.Store(0)
			got, err := tc.emit()
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tc.name, diff)
			}
			if errors.Is(err, errOne) != tc.one || errors.Is(err, errTwo) != tc.two {
				t.Errorf("%s: error %v, want one %t and two %t in it", tc.name, err, tc.one, tc.two)
			}
			if tc.calls > 0 && calls.Load() != tc.calls {
				t.Errorf("%s called %d handlers, want %d", tc.name, calls.Load(), tc.calls)
			}
		}
	})
}

// TestFirstErrorDoesNotWait checks that a parallel emission may return before a handler
// that takes long, which is then not stopped.
func TestFirstErrorDoesNotWait(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		release, ended := make(chan struct{}), make(chan struct{})
		subscribe(t, b, "e", func(ctx context.Context, _ Event) (any, error) {
			<-release
			defer close(ended)
			return nil, ctx.Err()
		})
		subscribe(t, b, "e", fails(errTwo))
		if _, err := b.With(FirstError()).EmitParallel(ctx, "e"); !sameError(err, errTwo) {
			t.Errorf("EmitParallel = %v, want %v alone", err, errTwo)
		}
		close(release)
		<-ended
	})
}

func TestFirstErrorOfInlineHandlers(t *testing.T) {
	b := newBus(t, Config{})
	called := 0
	for _, err := range []error{errOne, errTwo} {
		subscribe(t, b, "e", func(context.Context, Event) (any, error) { called++; return nil, err }, Inline())
	}
	if _, err := b.With(FirstError()).EmitParallel(t.Context(), "e"); !sameError(err, errOne) || called != 2 {
		t.Errorf("EmitParallel = %v after %d calls, want %v after 2", err, called, errOne)
	}
}

// TestParallelIsParallel has handlers that wait for each other, so that they must all
// run at the same time.
func TestParallelIsParallel(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		const n = 50
		var barrier sync.WaitGroup
		barrier.Add(n)
		for i := range n {
			subscribe(t, b, "e", func(context.Context, Event) (any, error) {
				barrier.Done()
				barrier.Wait()
				return i, nil
			})
		}
		got, err := b.EmitParallel(ctx, "e")
		if err != nil || len(got) != n || got[0] != 0 || got[n-1] != n-1 {
			t.Errorf("EmitParallel = %v, %v", got, err)
		}
	})
}

// TestBlockedHandlerHoldsUpNobody has one handler wait for all others, at each place.
func TestBlockedHandlerHoldsUpNobody(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		const n = 20
		for slow := range n {
			b := newBus(t, Config{})
			var others sync.WaitGroup
			others.Add(n - 1)
			for i := range n {
				subscribe(t, b, "e", func(context.Context, Event) (any, error) {
					if i == slow {
						others.Wait()
					} else {
						others.Done()
					}
					return nil, nil
				})
			}
			if _, err := b.EmitParallel(ctx, "e"); err != nil {
				t.Errorf("slow handler at %d: %v", slow, err)
			}
		}
	})
}

func TestConcurrency(t *testing.T) {
	for _, limit := range []int{1, 3} {
		for _, where := range []string{"emission", "bus"} {
			synctest.Test(t, func(t *testing.T) {
				cfg, opts := Config{}, []EmitOption{Concurrency(limit)}
				if where == "bus" {
					cfg, opts = Config{Concurrency: limit}, nil
				}
				b := newBus(t, cfg)
				var running, most atomic.Int64
				for range 10 {
					subscribe(t, b, "e", func(context.Context, Event) (any, error) {
						most.Store(max(most.Load(), running.Add(1)))
						time.Sleep(time.Second)
						running.Add(-1)
						return nil, nil
					})
				}
				for _, ctx := range []context.Context{context.Background(), t.Context()} {
					began := time.Now()
					if _, err := b.With(opts...).EmitParallel(ctx, "e"); err != nil {
						t.Error(err)
					}
					want := time.Duration((10+limit-1)/limit) * time.Second
					if most.Load() != int64(limit) || time.Since(began) != want {
						t.Errorf("limit %d of the %s: %d at a time in %v, want %v", limit, where, most.Load(), time.Since(began), want)
					}
				}
				if _, err := b.With(Concurrency(0)).EmitParallel(context.Background(), "e"); err != nil || most.Load() != 10 {
					t.Errorf("without a limit %d at a time, %v", most.Load(), err)
				}
			})
		}
	}
}

// TestWorkersLimit checks what happens when the goroutines of the bus are used up.
func TestWorkersLimit(t *testing.T) {
	b := newBus(t, Config{Workers: 1})
	release := make(chan struct{})
	entered := make(chan struct{})
	subscribe(t, b, "wait", func(context.Context, Event) (any, error) {
		close(entered)
		<-release
		return nil, nil
	})
	subscribe(t, b, "e", returns(1))
	subscribe(t, b, "e", returns(2))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := b.EmitParallel(ctx, "wait")
		done <- err
	}()
	<-entered
	if _, err := b.EmitSerial(ctx, "e"); codeOf(err) != code.ResourceExhausted {
		t.Errorf("EmitSerial = %v, want resource_exhausted", err)
	}
	if got, err := b.EmitParallel(context.Background(), "e"); err != nil || !cmp.Equal(got, []any{1, 2}) {
		t.Errorf("an emission that needs no goroutine to begin with = %v, %v", got, err)
	}
	if got := b.Stats(); got.Overloaded != 1 || got.Workers != 1 || got.Running != 1 {
		t.Errorf("Stats() = %+v", got)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestContextEnds checks that no operation waits for handlers that do not listen.
func TestContextEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		emit func(b *Bus, ctx context.Context) (any, error)
		want any
	}{
		{"parallel", func(b *Bus, ctx context.Context) (any, error) { return b.EmitParallel(ctx, "e") }, []any{"quick", nil, "last"}},
		{"serial", func(b *Bus, ctx context.Context) (any, error) { return b.EmitSerial(ctx, "e") }, []any{"quick"}},
		{"reduce", func(b *Bus, ctx context.Context) (any, error) {
			return b.EmitReduce(ctx, "e", func(_, v any) (any, error) { return v, nil }, 0)
		}, nil},
		{"chain", func(b *Bus, ctx context.Context) (any, error) { return b.EmitChain(ctx, "e") }, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t, Config{})
				release := make(chan struct{})
				var began atomic.Int64
				subscribe(t, b, "e", returns("quick"))
				subscribe(t, b, "e", func(context.Context, Event) (any, error) {
					began.Add(1)
					<-release
					return "late", nil
				})
				subscribe(t, b, "e", func(context.Context, Event) (any, error) {
					began.Add(1)
					return "last", nil
				})
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				start := time.Now()
				got, err := tc.emit(b, ctx)
				if !errors.Is(err, context.DeadlineExceeded) || codeOf(err) != code.DeadlineExceeded || time.Since(start) != time.Second {
					t.Errorf("error %v after %v", err, time.Since(start))
				}
				if diff := cmp.Diff(tc.want, got); diff != "" {
					t.Errorf("results (-want +got):\n%s", diff)
				}
				before := began.Load()
				close(release)
				synctest.Wait()
				if tc.name != "parallel" && began.Load() != before {
					t.Error("a handler began after the emission had returned")
				}
				if got := b.Stats(); got.Abandoned != 1 || got.Workers != 0 {
					t.Errorf("Stats() = %+v", got)
				}
				// The next emission uses what the abandoned one left.
				if got, err := b.EmitParallel(t.Context(), "e"); err != nil || !cmp.Equal(got, []any{"quick", "late", "last"}) {
					t.Errorf("the next emission = %v, %v", got, err)
				}
				cancel()
				if got, err := tc.emit(b, ctx); codeOf(err) != code.DeadlineExceeded || got != nil && !cmp.Equal(got, []any(nil)) {
					t.Errorf("with a context that has ended = %v, %v", got, err)
				}
			})
		})
	}
}

// TestContextEndsBetweenHandlers checks that inline handlers stop with their context.
func TestContextEndsBetweenHandlers(t *testing.T) {
	b := newBus(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	subscribe(t, b, "e", func(context.Context, Event) (any, error) { cancel(); return "x", nil }, Inline())
	subscribe(t, b, "e", func(context.Context, Event) (any, error) { t.Error("called"); return nil, nil }, Inline())
	got, err := b.EmitSerial(ctx, "e")
	if !errors.Is(err, context.Canceled) || codeOf(err) != code.Canceled || !cmp.Equal(got, []any{"x"}) {
		t.Errorf("EmitSerial = %v, %v", got, err)
	}
}

func TestPanics(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		for _, tc := range []struct {
			name string
			h    Handler
		}{
			{"panic", func(context.Context, Event) (any, error) { panic("secret") }},
			{"index", func(_ context.Context, e Event) (any, error) { return e.args[len(e.args)], nil }},
		} {
			var log bytes.Buffer
			b := newBus(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			subscribe(t, b, "e", returns(1))
			subscribe(t, b, "e", tc.h)
			subscribe(t, b, "e", returns(2))
			for _, emit := range []func() error{
				func() error { _, err := b.EmitParallel(ctx, "e"); return err },
				func() error { _, err := b.EmitSerial(ctx, "e"); return err },
				func() error {
					_, err := b.EmitReduce(ctx, "e", func(a, _ any) (any, error) { return a, nil }, 0)
					return err
				},
				func() error { _, err := b.EmitChainRight(ctx, "e"); return err },
				func() error {
					_, err := b.EmitReduce(ctx, "e", func(_, _ any) (any, error) { panic("secret") }, 0)
					return err
				},
			} {
				log.Reset()
				err := emit()
				if codeOf(err) != code.Internal || strings.Contains(err.Error(), "secret") {
					t.Errorf("%s: %v, want an internal error without the text", tc.name, err)
				}
				if got := log.String(); strings.Count(got, "panic in a handler") != 1 || !strings.Contains(got, "emit_test.go") {
					t.Errorf("%s: the log says\n%s", tc.name, got)
				}
			}
			if got := b.Stats().Panics; got != 5 {
				t.Errorf("%d panics counted, want 5", got)
			}
		}
	})
}

// TestGoexit checks that a handler which ends its goroutine fails alone.
func TestGoexit(t *testing.T) {
	b := newBus(t, Config{})
	subscribe(t, b, "e", returns(1))
	subscribe(t, b, "e", func(context.Context, Event) (any, error) { runtime.Goexit(); return nil, nil })
	subscribe(t, b, "e", returns(3))
	got, err := b.EmitParallel(t.Context(), "e")
	if codeOf(err) != code.Internal || !cmp.Equal(got, []any{1, nil, 3}) {
		t.Errorf("EmitParallel = %v, %v", got, err)
	}
	got, err = b.EmitSerial(t.Context(), "e")
	if codeOf(err) != code.Internal || !cmp.Equal(got, []any{1, nil}) {
		t.Errorf("EmitSerial = %v, %v", got, err)
	}
	if _, err := b.EmitChain(t.Context(), "e"); codeOf(err) != code.Internal {
		t.Errorf("EmitChain = %v", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { b.EmitSerial(context.Background(), "e") }) // ends this goroutine, not the bus
	wg.Wait()
}

func TestChainFeedsResults(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		var seen [][]any
		step := func(result any) Handler {
			return func(_ context.Context, e Event) (any, error) {
				args, err := e.Args()
				seen = append(seen, args)
				return result, err
			}
		}
		subscribe(t, b, "e", step([]any{"x", "y"}))
		subscribe(t, b, "e", step(5))
		subscribe(t, b, "e", step(nil))
		subscribe(t, b, "e", step("end"))
		got, err := b.EmitChain(ctx, "e", 1, 2)
		if got != "end" || err != nil {
			t.Errorf("EmitChain = %v, %v", got, err)
		}
		want := [][]any{{1, 2}, {"x", "y"}, {5}, {nil}}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("arguments (-want +got):\n%s", diff)
		}
		seen = nil
		if got, err := b.EmitChainRight(ctx, "e", 1, 2); !cmp.Equal(got, []any{"x", "y"}) || err != nil {
			t.Errorf("EmitChainRight = %v, %v", got, err)
		}
		want = [][]any{{1, 2}, {"end"}, {nil}, {5}}
		if diff := cmp.Diff(want, seen); diff != "" {
			t.Errorf("arguments from the right (-want +got):\n%s", diff)
		}
		if got, err := b.EmitChain(ctx, "nobody", 1, 2); !cmp.Equal(got, []any{1, 2}) || err != nil {
			t.Errorf("EmitChain without handlers = %v, %v", got, err)
		}
	})
}

func TestReduce(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		times := func(n int) Handler {
			return func(_ context.Context, e Event) (any, error) {
				var v int
				err := e.Decode(&v)
				return n * v, err
			}
		}
		for n := range 3 {
			subscribe(t, b, "sum", times(n+1))
		}
		add := func(acc, v any) (any, error) { return acc.(int) + v.(int), nil }
		if got, err := b.EmitReduce(ctx, "sum", add, 100, 10); got != 160 || err != nil {
			t.Errorf("EmitReduce = %v, %v", got, err)
		}
		if got, err := b.EmitReduce(ctx, "nobody", add, 100, 10); got != 100 || err != nil {
			t.Errorf("EmitReduce without handlers = %v, %v", got, err)
		}
		if _, err := b.EmitReduce(ctx, "sum", func(_, _ any) (any, error) { return 1, errOne }, 0, 1); !sameError(err, errOne) {
			t.Errorf("EmitReduce with a failing reducer = %v", err)
		}
		if _, err := b.EmitReduceRight(ctx, "sum", nil, 0); codeOf(err) != code.InvalidArgument {
			t.Errorf("EmitReduceRight without a reducer = %v", err)
		}
		if _, err := b.With().EmitEvent(ctx, OpReduce, NewEvent("sum", nil)); codeOf(err) != code.InvalidArgument {
			t.Errorf("EmitEvent(OpReduce) = %v", err)
		}
	})
}

func TestOnce(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		var calls atomic.Int64
		subscribe(t, b, "e", func(context.Context, Event) (any, error) { return calls.Add(1), nil }, Once())
		subscribe(t, b, "e", returns("always"))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := b.EmitParallel(ctx, "e"); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if calls.Load() != 1 || b.Stats().Subscriptions != 1 {
			t.Errorf("%d calls, %d subscriptions left", calls.Load(), b.Stats().Subscriptions)
		}
		if got, err := b.EmitParallel(ctx, "e"); !cmp.Equal(got, []any{"always"}) || err != nil {
			t.Errorf("afterwards: %v, %v", got, err)
		}
	})
	// A serial emission that ends before its turn leaves it alone.
	b := newBus(t, Config{})
	subscribe(t, b, "e", fails(errOne))
	once := subscribe(t, b, "e", returns(1), Once())
	if _, err := b.EmitSerial(t.Context(), "e"); !sameError(err, errOne) || once.ended.Load() {
		t.Errorf("EmitSerial = %v, ended %t", err, once.ended.Load())
	}
}

// TestHandlersUseTheBus has handlers emit, subscribe and unsubscribe.
func TestHandlersUseTheBus(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		var last *Subscription
		var log []string
		subscribe(t, b, "outer", func(ctx context.Context, e Event) (any, error) {
			log = append(log, e.Name())
			subscribe(t, b, "inner", func(context.Context, Event) (any, error) {
				log = append(log, "inner")
				return nil, nil
			}, Once())
			if _, err := b.EmitSerial(ctx, "inner"); err != nil {
				return nil, err
			}
			last.Unsubscribe()
			return nil, nil
		})
		last = subscribe(t, b, "outer", func(context.Context, Event) (any, error) {
			log = append(log, "unsubscribed")
			return nil, nil
		})
		if _, err := b.EmitSerial(ctx, "outer"); err != nil {
			t.Fatal(err)
		}
		if want := []string{"outer", "inner"}; !slices.Equal(log, want) {
			t.Errorf("called %q, want %q", log, want)
		}
	})
}

func TestInternalNames(t *testing.T) {
	b, node := newPrivileged(t, Config{Internal: []string{"node:up"}})
	var got []string
	record := func(_ context.Context, e Event) (any, error) {
		got = append(got, e.Name())
		return nil, nil
	}
	subscribe(t, b, "*", record)
	subscribe(t, b, "service:*", record)
	subscribe(t, b, "node:up", record)
	for _, name := range []string{"service:expose", "service:unexpose", "peer:connect", "peer:disconnect", "discovery:event", "node:up"} {
		if _, err := b.EmitSerial(t.Context(), name); codeOf(err) != code.PermissionDenied {
			t.Errorf("emitting %s = %v, want permission_denied", name, err)
		}
		if !b.IsInternal(name) {
			t.Errorf("IsInternal(%q) = false", name)
		}
		if _, err := node.With(AllErrors()).EmitSerial(t.Context(), name); err != nil {
			t.Errorf("the node emitting %s = %v", name, err)
		}
	}
	if _, err := b.EmitSerial(t.Context(), "service:mine"); err != nil {
		t.Errorf("a name that resembles an internal one = %v", err)
	}
	want := []string{"service:expose", "service:unexpose", "node:up", "service:mine", "service:mine"}
	if !slices.Equal(got, want) {
		t.Errorf("handlers saw %q, want %q", got, want)
	}
}

func TestMiddleware(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		type keyType struct{}
		var log []string
		trace := func(name string) Middleware {
			return func(next Handler) Handler {
				return func(ctx context.Context, e Event) (any, error) {
					log = append(log, fmt.Sprint(name, " ", e.Op(), " ", e.Name()))
					return next(ctx, e)
				}
			}
		}
		subscribe(t, b, "e", func(ctx context.Context, e Event) (any, error) {
			args, err := e.Args()
			return fmt.Sprint(ctx.Value(keyType{}), args), err
		})
		subscribe(t, b, "e", returns(2))
		b.Use()
		b.Use(trace("outer"), trace("middle"))
		b.Use(func(next Handler) Handler {
			return func(ctx context.Context, e Event) (any, error) {
				args, err := e.Args()
				switch {
				case err != nil || len(args) == 0:
					return next(ctx, e)
				case args[0] == "change":
					return next(context.WithValue(ctx, keyType{}, "value"), e.WithArgs("changed"))
				case args[0] == "answer":
					return "short cut", nil
				case args[0] == "fail":
					return nil, errOne
				case args[0] == "again":
					if _, err := next(ctx, e); err != nil {
						return nil, err
					}
				case args[0] == "other":
					return next(ctx, NewEvent("other", nil))
				case args[0] == "panic":
					panic("secret")
				}
				return next(ctx, e)
			}
		})
		for _, tc := range []struct {
			args []any
			want []any
			code Code
			err  error
		}{
			{[]any{"plain"}, []any{"<nil> [plain]", 2}, 0, nil},
			{[]any{"change", 1}, []any{"value[changed]", 2}, 0, nil},
			{[]any{"answer"}, []any{"short cut"}, 0, nil},
			{[]any{"fail"}, nil, 0, errOne},
			{[]any{"again"}, []any{"<nil> [again]", 2}, 0, nil},
			{[]any{"other"}, nil, code.InvalidArgument, nil},
			{[]any{"panic"}, nil, code.Internal, nil},
		} {
			got, err := b.EmitParallel(ctx, "e", tc.args...)
			if diff := cmp.Diff(tc.want, got); diff != "" || codeOf(err) != tc.code || tc.err != nil && !errors.Is(err, tc.err) {
				t.Errorf("%v: %v, (-want +got):\n%s", tc.args, err, diff)
			}
		}
		log = nil
		if got, err := b.EmitChain(ctx, "e"); got != 2 || err != nil {
			t.Errorf("EmitChain = %v, %v", got, err)
		}
		if got, err := b.EmitReduce(ctx, "e", func(_, v any) (any, error) { return v, nil }, 0, "answer"); got != "short cut" || err != nil {
			t.Errorf("EmitReduce with a short cut = %v, %v", got, err)
		}
		if got, err := b.EmitSerial(ctx, "nobody"); got != nil || err != nil {
			t.Errorf("EmitSerial to nobody = %v, %v", got, err)
		}
		want := []string{"outer chain e", "middle chain e", "outer reduce e", "middle reduce e", "outer serial nobody", "middle serial nobody"}
		if diff := cmp.Diff(want, log); diff != "" {
			t.Errorf("order of middleware (-want +got):\n%s", diff)
		}
	})
}

func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, Config{})
		release := make(chan struct{})
		subscribe(t, b, "slow", func(ctx context.Context, _ Event) (any, error) {
			<-release
			_, err := b.EmitSerial(ctx, "nested")
			return nil, err
		})
		emitted := make(chan error, 1)
		go func() {
			_, err := b.EmitSerial(context.Background(), "slow")
			emitted <- err
		}()
		// One whose context ends leaves its handler behind, which is waited for too.
		left, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.EmitSerial(left, "slow"); codeOf(err) != code.DeadlineExceeded {
			t.Errorf("EmitSerial = %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close while handlers run = %v", err)
		}
		if _, err := b.EmitSerial(t.Context(), "e"); !sameError(err, ErrClosed) || codeOf(err) != code.Unavailable {
			t.Errorf("EmitSerial after Close = %v", err)
		}
		if _, err := b.Subscribe("e", returns(1)); !sameError(err, ErrClosed) {
			t.Errorf("Subscribe after Close = %v", err)
		}
		closed := make(chan error, 1)
		go func() { closed <- b.Close(context.Background()) }()
		synctest.Wait()
		select {
		case err := <-closed:
			t.Errorf("Close returned %v while handlers run", err)
		default:
		}
		close(release)
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if err := <-emitted; !sameError(err, ErrClosed) {
			t.Errorf("an emission within a handler during Close = %v", err)
		}
		if got := b.Stats(); got.Running != 0 || got.Workers != 0 || got.Emitted != 2 || got.Refused != 3 {
			t.Errorf("Stats() = %+v", got)
		}
	})
}

// TestCloseRace closes while many emit, and checks that no handler runs afterwards.
func TestCloseRace(t *testing.T) {
	for range 50 {
		b, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		var closed atomic.Bool
		for range 3 {
			subscribe(t, b, "e", func(context.Context, Event) (any, error) {
				if closed.Load() {
					t.Error("a handler runs after Close")
				}
				return nil, nil
			})
		}
		var wg sync.WaitGroup
		for i := range 4 {
			ctx := context.Background()
			if i%2 == 0 {
				ctx = t.Context()
			}
			wg.Go(func() {
				for {
					if _, err := b.EmitParallel(ctx, "e"); err != nil {
						if !sameError(err, ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
		}
		for b.Stats().Delivered < 100 {
			runtime.Gosched()
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
		closed.Store(true)
		wg.Wait()
	}
}

func TestBadSubscriptions(t *testing.T) {
	b := newBus(t, Config{})
	if _, err := b.Subscribe("e", nil); codeOf(err) != code.InvalidArgument {
		t.Errorf("without a handler: %v", err)
	}
	if _, err := b.Subscribe("e", returns(1), Distinct([]int{1})); codeOf(err) != code.InvalidArgument {
		t.Errorf("with a key that cannot be compared: %v", err)
	}
	if err := b.Stats(); err.Subscriptions != 0 {
		t.Errorf("%d subscriptions", err.Subscriptions)
	}
}

// bytesPayload stands for the encoded arguments of the layer above.
type bytesPayload struct {
	encoded func() string
	decoded *int // counts
}

func (p *bytesPayload) Args() ([]any, error) {
	*p.decoded++
	return []any{p.encoded()}, nil
}

func (p *bytesPayload) Decode(vs ...any) error {
	*p.decoded++
	return assign(vs[0], p.encoded())
}

// TestPayload checks the seam for events of peers: what is encoded is decoded only if
// somebody asks, and what is not is encoded once.
func TestPayload(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		encodings, decodings := 0, 0
		b := newBus(t, Config{Payload: func(args []any) Payload {
			encodings++
			return &bytesPayload{encoded: func() string { return fmt.Sprint("encoded ", args) }, decoded: &decodings}
		}})
		arrived := &bytesPayload{encoded: func() string { return "arrived" }, decoded: &decodings}

		subscribe(t, b, "plain", func(_ context.Context, e Event) (any, error) { return e.Payload() == nil, nil })
		for range 2 {
			subscribe(t, b, "e", func(_ context.Context, e Event) (any, error) {
				return e.Payload().(*bytesPayload).encoded(), nil
			}, WithPayload())
		}
		for _, tc := range []struct {
			name string
			emit func() ([]any, error)
			want []any
			made int
		}{
			{"nobody wants it", func() ([]any, error) { return b.EmitSerial(ctx, "plain", 1) }, []any{true}, 0},
			{"plain", func() ([]any, error) { return b.EmitSerial(ctx, "e", 1, 2) }, []any{"encoded [1 2]", "encoded [1 2]"}, 1},
			{"no arguments", func() ([]any, error) { return b.EmitSerial(ctx, "e") }, []any{"encoded []", "encoded []"}, 1},
			{"arrived", func() ([]any, error) { return b.With().EmitEvent(ctx, OpSerial, NewEvent("e", arrived)) }, []any{"arrived", "arrived"}, 0},
			{"typed", func() ([]any, error) {
				return b.With().EmitEvent(ctx, OpSerial, NewTopic[int]("e").event(3))
			}, []any{"encoded [3]", "encoded [3]"}, 1},
		} {
			encodings = 0
			got, err := tc.emit()
			if diff := cmp.Diff(tc.want, got); diff != "" || err != nil || encodings != tc.made {
				t.Errorf("%s: %v, %d encodings, want %d, (-want +got):\n%s", tc.name, err, encodings, tc.made, diff)
			}
		}
		if decodings != 0 {
			t.Errorf("%d decodings, nobody asked for any", decodings)
		}
		subscribe(t, b, "e", func(_ context.Context, e Event) (any, error) {
			args, err := e.Args()
			if err != nil {
				return nil, err
			}
			var s string
			err = e.Decode(&s)
			return fmt.Sprint(s, args), err
		}, Priority(1))
		if got, err := b.With().EmitEvent(ctx, OpSerial, NewEvent("e", arrived)); err != nil || got[0] != "arrived[arrived]" || decodings != 2 {
			t.Errorf("decoded on demand = %v, %v, %d decodings", got, err, decodings)
		}
		// Arguments that are there need not be decoded.
		if got, err := b.EmitSerial(ctx, "e", "here"); err != nil || got[0] != "here[here]" || decodings != 2 {
			t.Errorf("arguments of this process = %v, %v, %d decodings", got, err, decodings)
		}
	})
}

func TestDecode(t *testing.T) {
	e := Event{name: "e", args: []any{7, nil, "x"}}
	n, p, s, rest := 1, new(int), "", "unchanged"
	if err := e.Decode(&n, &p, &s, &rest); err != nil || n != 7 || p != nil || s != "x" || rest != "unchanged" {
		t.Errorf("Decode = %v: %v %v %v %v", err, n, p, s, rest)
	}
	var any1 any
	if err := e.Decode(&any1); err != nil || any1 != 7 {
		t.Errorf("Decode into an interface = %v, %v", any1, err)
	}
	for _, bad := range []any{&s, n, nil, (*int)(nil)} {
		if err := e.Decode(bad); codeOf(err) != code.InvalidArgument {
			t.Errorf("Decode into %T = %v", bad, err)
		}
	}
	for op, want := range map[Op]string{OpParallel: "parallel", OpSerial: "serial", OpReduce: "reduce", OpReduceRight: "reduceRight", OpChain: "chain", OpChainRight: "chainRight", 99: "unknown"} {
		if op.String() != want {
			t.Errorf("Op(%d) = %q, want %q", op, op, want)
		}
	}
}

// TestSilentHandlers checks that silent handlers and readers have their place, and that
// nobody reduces or chains what they return.
func TestSilentHandlers(t *testing.T) {
	b, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	var seen []any
	watch := func(_ context.Context, e Event) (any, error) {
		args, err := e.Args()
		seen = append(seen, args...)
		return 1000, err
	}
	add := func(_ context.Context, e Event) (any, error) {
		n := 0
		err := e.Decode(&n)
		return n + 1, err
	}
	sum := func(acc, v any) (any, error) { return acc.(int) + v.(int), nil }
	subscribe := func(h Handler, opts ...Option) {
		if _, err := b.Subscribe("n", h, opts...); err != nil {
			t.Fatal(err)
		}
	}
	check := func(why string, want ...any) {
		t.Helper()
		chain, err1 := b.EmitChain(t.Context(), "n", 1)
		right, err2 := b.EmitChainRight(t.Context(), "n", 1)
		reduced, err3 := b.EmitReduce(t.Context(), "n", sum, 10, 1)
		got, err := fmt.Sprint(chain, right, reduced, seen), errors.Join(err1, err2, err3)
		if want := fmt.Sprint(want...); err != nil || got != want {
			t.Errorf("%s: chain, chain right, reduce, seen: %s, %v, want %s", why, got, err, want)
		}
		seen = nil
	}
	subscribe(watch, Silent())
	if _, err := b.Reader("n"); err != nil {
		t.Fatal(err)
	}
	check("silent ones alone", []any{1}, []any{1}, 10, []any{1, 1, 1})
	subscribe(add)
	subscribe(watch, Silent())
	subscribe(add)
	check("others between", 3, 3, 14, []any{1, 2, 2, 3, 1, 1})
	subscribe(func(context.Context, Event) (any, error) { return nil, errors.New("no") }, Silent())
	if v, err := b.EmitChain(t.Context(), "n", 1); err == nil {
		t.Errorf("with an error EmitChain = %v, want the error", v)
	}
}
