package pubsub

import (
	"context"
	"fmt"
	"sync"
	"testing"
)

var benchArgs = []any{7} // made once: a call with its own allocates them

func benchHandlers(b *testing.B, n int, opts ...Option) *Bus {
	b.Helper()
	bus := newBus(b, Config{})
	for range n {
		subscribe(b, bus, "order:created", returns(nil), opts...)
	}
	return bus
}

// BenchmarkEmit measures emissions to handlers that do nothing.
func BenchmarkEmit(b *testing.B) {
	cancelable := b.Context()
	for _, n := range []int{0, 1, 10, 1000} {
		for _, tc := range []struct {
			name string
			opts []Option
		}{
			{"", nil},
			{"Cancelable", nil},
			{"CancelableInline", []Option{Inline()}},
		} {
			ctx := context.Background()
			if tc.name != "" {
				ctx = cancelable
			}
			bus := benchHandlers(b, n, tc.opts...)
			b.Run(fmt.Sprintf("Serial%s/%d", tc.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					bus.EmitSerial(ctx, "order:created", benchArgs...)
				}
			})
			b.Run(fmt.Sprintf("Parallel%s/%d", tc.name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					bus.EmitParallel(ctx, "order:created", benchArgs...)
				}
			})
		}
	}
}

// BenchmarkEmitters measures many goroutines that emit at a time.
func BenchmarkEmitters(b *testing.B) {
	bus := benchHandlers(b, 1)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			bus.EmitSerial(context.Background(), "order:created", benchArgs...)
		}
	})
}

func BenchmarkTopic(b *testing.B) {
	bus := newBus(b, Config{})
	topic := NewTopic[user]("user:created")
	if _, err := topic.Subscribe(bus, func(context.Context, user) error { return nil }); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		topic.EmitSerial(context.Background(), bus, user{"Ann"})
	}
}

// BenchmarkReader measures a value on its way through a reader, emitter and reader in
// turn.
func BenchmarkReader(b *testing.B) {
	bus := newBus(b, Config{})
	r, err := numbers.Reader(bus)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		numbers.EmitSerial(context.Background(), bus, 1)
		if _, err := r.Next(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
	r.Close()
}

// BenchmarkMatch measures a lookup past the cache, with and without a million unrelated
// subscriptions.
func BenchmarkMatch(b *testing.B) {
	for _, unrelated := range []int{0, 1_000_000} {
		bus := benchHandlers(b, 1)
		subscribe(b, bus, "order:*", returns(nil))
		for i := range unrelated {
			subscribe(b, bus, fmt.Sprint("user:", i), returns(nil))
		}
		b.Run(fmt.Sprintf("unrelated=%d", unrelated), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				bus.find("order:created")
			}
		})
	}
}

// BenchmarkSubscribe measures a subscription and its end.
func BenchmarkSubscribe(b *testing.B) {
	for _, others := range []int{0, 100_000} {
		bus := benchHandlers(b, others)
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				subscribe(b, bus, "order:created", returns(nil)).Unsubscribe()
			}
		})
	}
}

// BenchmarkRoute measures the cache of routes beside its twin with a mutex.
func BenchmarkRoute(b *testing.B) {
	bus := benchHandlers(b, 10)
	b.Run("lock-free", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				bus.route("order:created")
			}
		})
	})
	var mu sync.Mutex
	routes := map[string]*route{"order:created": bus.find("order:created")}
	b.Run("mutex", func(b *testing.B) {
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				mu.Lock()
				_ = routes["order:created"]
				mu.Unlock()
			}
		})
	})
}

// TestAllocations proves what the documentation says about memory. It runs on one
// processor, where the spare worker of a parallel emission often ends after the emission
// and keeps its memory from being used for the next one.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	cancelable := t.Context()
	b := newBus(t, Config{})
	for range 10 {
		subscribe(t, b, "plain", returns(nil))
		subscribe(t, b, "inline", returns(nil), Inline())
	}
	topic := NewTopic[user]("typed")
	if _, err := topic.Subscribe(b, func(context.Context, user) error { return nil }); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		emit func() error
		max  float64
	}{
		{"serial", func() error { _, err := b.EmitSerial(context.Background(), "plain", benchArgs...); return err }, 0},
		{"nobody", func() error { _, err := b.EmitParallel(cancelable, "nobody", benchArgs...); return err }, 0},
		{"serial inline", func() error { _, err := b.EmitSerial(cancelable, "inline", benchArgs...); return err }, 0},
		{"parallel inline", func() error { _, err := b.EmitParallel(cancelable, "inline", benchArgs...); return err }, 0},
		{"serial, cancelable", func() error { _, err := b.EmitSerial(cancelable, "plain", benchArgs...); return err }, 0.5},
		{"parallel", func() error { _, err := b.EmitParallel(context.Background(), "plain", benchArgs...); return err }, 8},
		{"parallel, cancelable", func() error { _, err := b.EmitParallel(cancelable, "plain", benchArgs...); return err }, 8},
		{"reduce", func() error {
			_, err := b.EmitReduce(context.Background(), "plain", func(acc, _ any) (any, error) { return acc, nil }, nil, benchArgs...)
			return err
		}, 0},
		{"typed", func() error { return topic.EmitSerial(context.Background(), b, user{"Ann"}) }, 1},
	} {
		got := testing.AllocsPerRun(500, func() {
			if err := tc.emit(); err != nil {
				t.Fatal(err)
			}
		})
		if got > tc.max {
			t.Errorf("%s: %v allocations for an emission, at most %v were promised", tc.name, got, tc.max)
		}
	}
}
