package redisbus

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/pubsub"
)

// rewrite is middleware that gives each event other arguments, which takes its payload
// away.
func rewrite(next pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, e pubsub.Event) (any, error) {
		args, err := e.Args()
		if err != nil {
			return nil, err
		}
		return next(ctx, e.WithArgs(args...))
	}
}

// TestNoLoops has three nodes whose middleware hides where events come from.
func TestNoLoops(t *testing.T) {
	t.Parallel()
	const events = 100
	s := redistest.Start(t)
	var nodes []*node
	var got []<-chan pubsub.Event
	for range 3 {
		bus, err := pubsub.New(pubsub.Config{Logger: quiet})
		if err != nil {
			t.Fatal(err)
		}
		bus.Use(rewrite) // outside of the bridge
		n := &node{t: t, bus: bus, Bridge: newBridge(t, bus, s, Config{})}
		bus.Use(rewrite) // and inside
		n.wantReady()
		nodes = append(nodes, n)
		got = append(got, n.collect("x"))
	}
	for i := range events {
		for _, n := range nodes {
			n.emit("x", i)
		}
	}
	for i := range nodes {
		for range 2 * events {
			next(t, got[i])
		}
	}
	for i, n := range nodes {
		n.sync(nodes[(i+1)%3], nodes[(i+2)%3])
	}
	for i, n := range nodes {
		wantNone(t, got[i], "each event comes once")
		eventually(t, "all is confirmed", func() bool { return n.Stats().Waiting == 0 })
		if st := n.Stats(); st.Sent != events+2 {
			t.Errorf("node %d has sent %d events, want its own %d and those of sync", i, st.Sent, events)
		}
	}
}

// TestSeveralBridges has two nodes with two bridges each, and events that only one of
// the channels takes.
func TestSeveralBridges(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := Config{Prefix: "p", Patterns: []string{"p:*"}}
	q := Config{Prefix: "q", Patterns: []string{"q:*"}}
	all := Config{Prefix: "all"}
	a, b, c := newNode(t, s, p), newNode(t, s, p), newNode(t, s, all)
	qa, qb := newBridge(t, a.bus, s, q), newBridge(t, b.bus, s, q)
	allB := newBridge(t, b.bus, s, all)
	for _, bridge := range []*Bridge{qa, qb, allB} {
		wantReady(t, bridge)
	}
	atA, atB, atC := a.collect("**"), b.collect("**"), c.collect("**")
	a.emit("p:1")
	wantEvent(t, atB, "p:1")
	a.emit("q:1")
	wantEvent(t, atB, "q:1")
	c.emit("p:2") // comes to b by another channel than the one that takes its name
	wantEvent(t, atB, "p:2")
	b.emit("q:2")
	wantEvent(t, atA, "q:2")
	wantEvent(t, atC, "q:2")
	wantNone(t, atA, "no bridge passes on what came in through another one")
	wantNone(t, atB, "nothing comes back")
	wantNone(t, atC, "no bridge passes on what came in through another one")
	eventually(t, "all is confirmed", func() bool { return allB.Stats().Waiting == 0 })
	if st := allB.Stats(); st.Sent != 1 {
		t.Errorf("the bridge of b to c has sent %d events, want q:2 alone", st.Sent)
	}
}

// TestBridgesOfOneNode has two bridges of one bus on one channel.
func TestBridgesOfOneNode(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := newNode(t, s, Config{Node: "a", Patterns: []string{"x:*"}})
	b := newNode(t, s, Config{Node: "b"})
	wantReady(t, newBridge(t, a.bus, s, Config{Node: "a", Patterns: []string{"y:*"}}))
	atA, atB := a.collect("*:*"), b.collect("*:*")
	a.emit("x:1")
	wantEvent(t, atB, "x:1")
	a.emit("y:1")
	wantEvent(t, atB, "y:1")
	b.emit("y:2")
	wantEvent(t, atA, "y:2")
	wantNone(t, atA, "events of a node do not come back to it")
}

// TestAnswersTravel shows that what a handler emits in answer to an event leaves, also
// under the same name, and that nodes which answer each other come to an end.
func TestAnswersTravel(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{MaxHops: 4}), newNode(t, s, Config{MaxHops: 4})
	answer := func(n *node, with string) pubsub.Handler {
		return func(ctx context.Context, e pubsub.Event) (any, error) {
			if _, ok := Node(ctx); !ok {
				return nil, nil
			}
			args, err := e.Args()
			if err != nil {
				return nil, err
			}
			return n.bus.EmitParallel(ctx, with, args...)
		}
	}
	atA := a.collect("pong")
	b.on("ping", answer(b, "pong"))
	a.emit("ping", 1)
	wantEvent(t, atA, "pong", int64(1))

	echoes := a.collect("echo")
	var once atomic.Bool
	b.on("echo", func(ctx context.Context, e pubsub.Event) (any, error) {
		if once.Swap(true) {
			return nil, nil
		}
		return answer(b, "echo")(ctx, e)
	})
	a.emit("echo", 2)
	wantEvent(t, echoes, "echo", int64(2))
	wantNone(t, echoes, "the event itself does not come back")

	a.on("tick", answer(a, "tock"))
	b.on("tock", answer(b, "tick"))
	ticks := a.collect("tick")
	a.emit("tock", 3) // hops: tock 0, tick 1, tock 2, tick 3, tock 4, tick 5 stays
	eventually(t, "b has ended it", func() bool { return b.Stats().Looped == 1 })
	wantEvent(t, ticks, "tick", int64(3))
	wantEvent(t, ticks, "tick", int64(3))
	wantNone(t, ticks, "there were too many hops")
}

// TestPassedOnEventsStay shows that an event which came in stays, although a handler
// emits it anew, somewhere else and later.
func TestPassedOnEventsStay(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{}), newNode(t, s, Config{})
	c := newNode(t, s, Config{}) // in the same process as b, which passes events on to it
	b.on("x", func(_ context.Context, e pubsub.Event) (any, error) {
		return c.bus.With().EmitEvent(context.Background(), pubsub.OpSerial, e)
	})
	atA := a.collect("*")
	var got []string
	var mu sync.Mutex
	c.on("x", func(ctx context.Context, _ pubsub.Event) (any, error) {
		mu.Lock()
		defer mu.Unlock()
		id, _ := Node(ctx)
		got = append(got, id)
		return nil, nil
	})
	a.emit("x")
	a.sync(b, c)
	eventually(t, "c has the event from b too", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(got) == 2
	})
	c.sync(a)
	wantNone(t, atA, "it had come in")
}

// TestNodeOfOtherContexts shows that the mark of an event ends with its context.
func TestNodeOfOtherContexts(t *testing.T) {
	t.Parallel()
	if id, ok := Node(context.Background()); ok {
		t.Errorf("Node of the background is %q", id)
	}
	ctx, cancel := context.WithTimeout(context.WithValue(context.Background(), arrivalKey{}, &arrival{node: "n"}), time.Minute)
	defer cancel()
	if id, ok := Node(ctx); id != "n" || !ok {
		t.Errorf("Node = %q, %t; want n", id, ok)
	}
}
