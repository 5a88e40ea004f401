package netron_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/pubsub"
	"github.com/d-e-v-grid/netron/pubsub/redisbus"
)

// TestEventsOverRedis checks that what one node emits reaches the peers of another, once
// and in order, whatever the arguments, and that peers of the first get it as ever.
func TestEventsOverRedis(t *testing.T) {
	redis := redistest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	got := make(chan string, 1000)
	var nodes []*netron.Node
	for _, id := range []string{"one", "two"} {
		n := newNode(t, netron.Config{ID: id, Addr: "127.0.0.1:0"})
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		bridge, err := redisbus.New(n.Bus(), redisbus.Config{URL: redis.URL(), Node: id, Patterns: []string{"order:*"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = bridge.Close() }) // always nil
		if err := bridge.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, n)
		for i := range 2 {
			p := dial(t, n.Addr())
			if _, err := p.Subscribe(ctx, "**", func(_ context.Context, e pubsub.Event) (any, error) {
				args, err := e.Args()
				got <- fmt.Sprint(id, i, " ", e.Name(), " ", args)
				return nil, err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	const events = 20
	for i := range events {
		if _, err := nodes[0].Bus().EmitSerial(ctx, "order:created", i, map[string]any{"total": 1.5}); err != nil {
			t.Fatal(err)
		}
		if _, err := nodes[0].Bus().EmitSerial(ctx, "stock:low", i); err != nil {
			t.Fatal(err)
		}
	}
	next := make(map[string]int)
	want := 2*2*events + 2*events // order:created to all four, stock:low to two
	for range want {
		select {
		case text := <-got:
			var who, name string
			var number int
			if _, err := fmt.Sscanf(text, "%s %s [%d", &who, &name, &number); err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			if key := who + name; next[key] != number {
				t.Errorf("%s: number %d of %s, want %d", who, number, name, next[key])
			} else {
				next[key]++
			}
		case <-ctx.Done():
			t.Fatalf("events are missing; came: %v", next)
		}
	}
	if len(next) != 6 || len(got) > 0 {
		t.Errorf("came: %v, and %d more", next, len(got))
	}
}
