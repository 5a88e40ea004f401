package redisbus

import (
	"context"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/pubsub"
)

// BenchmarkEmit is what the bridge costs the emitter of an event: one that leaves, one
// whose name does not, and one that is lost because Redis is away. The handler does
// nothing.
func BenchmarkEmit(b *testing.B) {
	s := redistest.Start(b)
	for _, tc := range []struct {
		name string
		cfg  Config
		away bool
	}{
		{name: "leaves"},
		{name: "stays", cfg: Config{Patterns: []string{"y"}}},
		{name: "away", cfg: Config{URL: "redis://127.0.0.1:1", RetryDelay: time.Hour}, away: true},
	} {
		b.Run(tc.name, func(b *testing.B) {
			n := newLonelyNode(b, s, tc.cfg)
			if !tc.away {
				n.wantReady()
			}
			n.on("x", func(context.Context, pubsub.Event) (any, error) { return nil, nil })
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				if _, err := n.bus.EmitParallel(ctx, "x", "hello", 7); err != nil {
					b.Fatal(err)
				}
			}
			st := n.Stats()
			b.ReportMetric(float64(st.Dropped)/float64(b.N), "dropped/op")
		})
	}
}

// BenchmarkCross is how many events a second come from one node to the handlers of
// another, over a Redis on the same machine, and how long one takes alone.
func BenchmarkCross(b *testing.B) {
	for _, tc := range []struct {
		name   string
		window int // events under way
	}{{"1", 1}, {"8192", 8192}} {
		b.Run(tc.name, func(b *testing.B) {
			s := redistest.Start(b)
			from, to := newNode(b, s, Config{}), newNode(b, s, Config{})
			window := make(chan struct{}, tc.window)
			to.on("x", func(context.Context, pubsub.Event) (any, error) {
				<-window
				return nil, nil
			})
			ctx := context.Background()
			b.ReportAllocs()
			for b.Loop() {
				window <- struct{}{}
				if _, err := from.bus.EmitParallel(ctx, "x", "hello", 7); err != nil {
					b.Fatal(err)
				}
			}
			for range tc.window {
				window <- struct{}{} // the last one has come
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			if st := to.Stats(); st.Missed+st.Overflowed != 0 {
				b.Errorf("events were lost: %+v", st)
			}
		})
	}
}

// BenchmarkArrive is what a message costs a node that does not want it: one of its own,
// one of a name outside its patterns, and one that nobody subscribed to.
func BenchmarkArrive(b *testing.B) {
	bus, err := pubsub.New(pubsub.Config{})
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	bridge := &Bridge{
		bus: bus, self: emitter{node: "n", epoch: 1}, patterns: []string{"x:*"},
		in: newQueue[*envelope](10, 1<<20), heard: make(map[emitter]uint64),
	}
	bridge.head = string(appendHead(nil, bridge.self))
	for _, tc := range []struct {
		what, name string
		from       emitter
	}{
		{"own", "x:y", bridge.self},
		{"otherName", "y:x", emitter{"o", 1}},
		{"nobody", "x:y", emitter{"o", 1}},
	} {
		b.Run(tc.what, func(b *testing.B) {
			m := rueidis.PubSubMessage{Message: encodeEnvelope(b, tc.from, tc.name, 0, 1, "hello", 7)}
			b.ReportAllocs()
			for b.Loop() {
				clear(bridge.heard)
				bridge.arrive(m)
				for _, e := range bridge.in.take(nil, 1) {
					bridge.emit(ctx, e)
				}
			}
		})
	}
}
