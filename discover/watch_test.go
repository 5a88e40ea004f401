package discover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"
)

// stream is what a watcher gets.
type stream struct {
	t testing.TB
	c chan Event
}

// watch collects the events of a registry until the test ends.
func watch(t testing.TB, r *Registry) *stream {
	t.Helper()
	s := &stream{t: t, c: make(chan Event, 1<<14)}
	stop := r.On(func(e Event) { s.c <- e })
	t.Cleanup(stop)
	return s
}

func text(e Event) string {
	switch e.Kind {
	case EventsLost:
		return fmt.Sprintf("%v %d", e.Kind, e.Lost)
	case ServiceAvailable, ServiceUnavailable:
		return fmt.Sprintf("%v %s by %s", e.Kind, e.Service.QualifiedName(), e.Node.ID)
	}
	return fmt.Sprintf("%v %s", e.Kind, e.Node.ID)
}

// next returns the next event.
func (s *stream) next() Event {
	s.t.Helper()
	select {
	case e := <-s.c:
		return e
	case <-time.After(patience):
		s.t.Fatal("no event has come")
		return Event{}
	}
}

// want skips events until one is of the kind, which must be about the node.
func (s *stream) want(kind EventKind, id string) Event {
	s.t.Helper()
	for {
		if e := s.next(); e.Kind == kind {
			if e.Node.ID != id {
				s.t.Fatalf("the event is %q, want one about %s", text(e), id)
			}
			return e
		}
	}
}

// wantAll wants exactly these events.
func (s *stream) wantAll(want ...string) {
	s.t.Helper()
	for _, w := range want {
		if got := text(s.next()); got != w {
			s.t.Fatalf("the event is %q, want %q", got, w)
		}
	}
}

func TestEvents(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t, ctx := w.t, context.Background()
		a := w.node(quick(), Node{ID: "a", Services: services("s@1.0.0", "t")})
		c := w.registry(quick())
		wantIDs(t, "all", c.Nodes, "a")
		early := watch(t, c)
		early.wantAll("node joined a", "service available s@1.0.0 by a", "service available t by a")
		b := w.node(quick(), Node{ID: "b", Services: services("s@1.0.0", "s@2.0.0")})
		early.wantAll("node joined b", "service available s@2.0.0 by b")
		if err := a.SetServices(ctx, services("u")...); err != nil {
			t.Fatal(err)
		}
		early.wantAll("node changed a", "service available u by a", "service unavailable t by a")
		if err := a.Update(ctx, func(n *Node) { n.Weight = 3 }); err != nil {
			t.Fatal(err)
		}
		early.wantAll("node changed a")
		if err := b.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if e := early.next(); e.Kind == NodeChanged { // its keys were seen to be gone before it was heard to leave
			early.wantAll("node left b")
		} else if text(e) != "node left b" {
			t.Fatalf("the event is %q, want that b has left", text(e))
		}
		early.wantAll("service unavailable s@1.0.0 by b", "service unavailable s@2.0.0 by b")

		stop := c.On(func(Event) { panic("on purpose") })
		again := watch(t, c)
		again.wantAll("node joined a", "service available u by a")
		stop()

		late := 0
		watching, cancel := context.WithCancel(ctx)
		defer cancel()
		var last error
		for e, err := range c.Watch(watching) {
			if err != nil {
				last = err
				continue
			}
			late++
			if got := text(e); !slices.Contains([]string{"node joined a", "service available u by a"}, got) {
				t.Errorf("a late watcher gets %q", got)
			}
			if late == 2 {
				cancel()
			}
		}
		if late != 2 || !errors.Is(last, context.Canceled) {
			t.Errorf("a late watcher gets %d events and %v", late, last)
		}
		for range c.Watch(ctx) {
			break
		}
		c.Close(ctx)
		for _, err := range c.Watch(ctx) {
			if !errors.Is(err, ErrClosed) {
				t.Errorf("a watcher of a closed registry gets %v", err)
			}
		}
	})
}

// TestSlowWatcher shows that a watcher that does not come along is told how many events it
// has lost, and holds up nobody.
func TestSlowWatcher(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t, ctx := w.t, context.Background()
		cfg := quick()
		cfg.MaxEvents = 8
		a := w.node(cfg, Node{ID: "a"})
		wantIDs(t, "all", a.Nodes, "a")
		hold, slow := make(chan struct{}), make(chan Event, 1<<14)
		begun := false
		stop := a.On(func(e Event) {
			if !begun {
				begun = true
				<-hold
			}
			slow <- e
		})
		defer stop()
		quickOnes := watch(t, a)
		quickOnes.want(NodeJoined, "a")
		const changes = 100
		for i := range changes {
			if err := a.Update(ctx, func(n *Node) { n.Weight = i + 1 }); err != nil {
				t.Fatal(err)
			}
			if e := quickOnes.want(NodeChanged, "a"); e.Node.Weight != i+1 {
				t.Fatalf("the weight is %d, want %d", e.Node.Weight, i+1)
			}
		}
		close(hold)
		var got, lost uint64
		for got+lost < changes+1 {
			select {
			case e := <-slow:
				lost += e.Lost
				if e.Kind != EventsLost {
					got++
				}
			case <-time.After(patience):
				t.Fatalf("%d events have come and %d are lost", got, lost)
			}
		}
		if st := a.Stats(); lost < changes-20 || st.LostEvents != lost {
			t.Errorf("%d events have come and %d are lost; %+v", got, lost, st)
		}
	})
}
