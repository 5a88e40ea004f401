package discover

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

// model is what the nodes are that a test has written, by id.
type model map[string]*Node

// newModelNode returns a node with 50 of 500 services.
func newModelNode(rnd *rand.Rand, id string) *Node {
	n := &Node{
		ID: id, Address: fmt.Sprintf("10.0.0.%d:%d", rnd.IntN(250)+1, rnd.IntN(60_000)+1), Scheme: "ws",
		Zone: []string{"", "a", "b"}[rnd.IntN(3)], Weight: rnd.IntN(3), Instance: fmt.Sprint(rnd.Uint64()), Started: time.UnixMilli(1),
	}
	for range 50 {
		n.Services = append(n.Services, Service{Name: fmt.Sprintf("service%d", rnd.IntN(500)), Version: []string{"", "1.0.0", "1.5.0", "2.0.0-rc.1", "2.0.0"}[rnd.IntN(5)]})
	}
	n.Services = sorted(n.Services)
	return n
}

// find returns the ids of the nodes that answer a query, in the simplest way.
func (m model) find(query string) []string {
	list := []string{}
	for id, n := range m {
		if n.Offers(query) {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}

// TestModel has 200 nodes with 50 services each come, change and go, and compares the
// views with what was written whenever it is quiet.
func TestModel(t *testing.T) {
	t.Parallel()
	const nodes, rounds, steps = 200, 3, 250
	s := redistest.Start(t)
	ctx := t.Context()
	cfg := slow(s)
	cfg.MaxEvents = 1 << 20
	rnd := rand.New(rand.NewPCG(7, 7))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	told := startReady(t, cfg)
	cfg.Heartbeat, cfg.TTL, cfg.Reconcile = time.Second, 0, time.Second
	untold, err := newUntold(cfg)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, untold)
	wantReady(t, untold)
	follower := follow(told)

	writer, m := told.store, make(model)
	write := func(n *Node, kind string) {
		t.Helper()
		f, err := encode(n, &told.cfg)
		if err != nil {
			t.Fatal(err)
		}
		f[fieldTimestamp] = "1"
		if _, err := writer.beat(ctx, &beat{id: n.ID, fields: f, ttl: time.Hour, claim: true}); err != nil {
			t.Fatal(err)
		}
		m[n.ID] = n
		if kind != "" {
			writer.announce(ctx, announce(kind, n, time.Now()))
		}
	}
	for i := range nodes {
		write(newModelNode(rnd, fmt.Sprintf("n%03d", i)), typeRegistered)
	}
	for range rounds {
		for range steps {
			id := fmt.Sprintf("n%03d", rnd.IntN(nodes))
			n := m[id]
			switch k := rnd.IntN(10); {
			case n == nil:
				write(newModelNode(rnd, id), typeRegistered)
			case k == 0:
				if left, err := writer.leave(ctx, id, n.Instance); err != nil || !left {
					t.Fatalf("leave() = %t, %v", left, err)
				}
				writer.announce(ctx, announce(typeDeregistered, n, time.Now()))
				delete(m, id)
			case k < 4: // a heartbeat
				write(n, "")
			default:
				changed := n.Clone()
				changed.Services[rnd.IntN(len(changed.Services))].Version = fmt.Sprintf("3.%d.0", rnd.IntN(9))
				changed.Services = sorted(changed.Services)
				write(&changed, []string{"", typeUpdated}[rnd.IntN(2)])
			}
			told.Lookup(fmt.Sprintf("service%d@^1", rnd.IntN(500)))
		}
		want := make([]Node, 0, len(m))
		for _, n := range m {
			want = append(want, *n)
		}
		slices.SortFunc(want, func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
		for name, r := range map[string]*Registry{"told": told, "untold": untold} {
			eventually(t, "nobody is suspect for "+name, func() bool {
				_, err := r.Fresh(ctx, "x")
				return err == nil && r.Stats().Suspect == 0 && len(r.Nodes()) == len(want)
			})
			if got := r.Nodes(); !slices.EqualFunc(want, got, func(a, b Node) bool { return a.same(&b) }) {
				t.Fatalf("the view of %s differs (-want +got):\n%s", name, cmp.Diff(want, got, cmpopts.IgnoreFields(Node{}, "Updated")))
			}
			for range 5 {
				i := rnd.IntN(500)
				for _, version := range []string{"", "@1.5.0", "@^1", "@>=2.0.0-0", "@3.x"} {
					q := fmt.Sprint("service", i, version)
					if got, want := ids(r.Find(q)), m.find(q); !slices.Equal(got, want) {
						t.Fatalf("Find(%s) of %s = %v, want %v", q, name, got, want)
					}
				}
			}
		}
		eventually(t, "the follower has all", func() bool { return follower.has(m) })
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("two views of %d nodes and the model: %d KiB; %+v", len(m), (int64(after.HeapAlloc)-int64(before.HeapAlloc))/1024, told.Stats())
}

// follower builds a view of its own from the events.
type follower struct {
	mu      sync.Mutex
	updates []Event // not yet applied; guarded by mu
	nodes   map[string]Node
	offers  map[Service]bool
	bad     string
}

func follow(r *Registry) *follower {
	f := &follower{nodes: make(map[string]Node), offers: make(map[Service]bool)}
	r.On(func(e Event) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.updates = append(f.updates, e)
	})
	return f
}

// has reports whether the events amount to the model.
func (f *follower) has(m model) bool {
	f.mu.Lock()
	for _, e := range f.updates {
		f.apply(e)
	}
	f.updates = nil
	f.mu.Unlock()
	offers := make(map[Service]bool)
	for id, n := range m {
		for _, s := range n.Services {
			offers[s] = true
		}
		if got, ok := f.nodes[id]; !ok || got.Address != n.Address || !slices.Equal(got.Services, n.Services) {
			return false
		}
	}
	return f.bad == "" && len(f.nodes) == len(m) && maps.Equal(offers, f.offers)
}

func (f *follower) apply(e Event) {
	_, known := f.nodes[e.Node.ID]
	switch e.Kind {
	case NodeJoined, NodeChanged:
		if known != (e.Kind == NodeChanged) {
			f.bad = text(e)
		}
		f.nodes[e.Node.ID] = e.Node
	case NodeLeft:
		if !known {
			f.bad = text(e)
		}
		delete(f.nodes, e.Node.ID)
	case ServiceAvailable:
		if f.offers[e.Service] {
			f.bad = text(e)
		}
		f.offers[e.Service] = true
	case ServiceUnavailable:
		if !f.offers[e.Service] {
			f.bad = text(e)
		}
		delete(f.offers, e.Service)
	default:
		f.bad = text(e)
	}
}

// TestLookupAllocates shows that the hot path allocates nothing.
func TestLookupAllocates(t *testing.T) {
	r, err := NewStatic(Node{ID: "a", Address: "h:1", Services: services("s@1.0.0")})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	for _, q := range []string{"s@^1", "s", "nobody"} {
		r.Lookup(q)
		if n := testing.AllocsPerRun(1000, func() { r.Lookup(q) }); n != 0 {
			t.Errorf("Lookup(%s) allocates %v times", q, n)
		}
	}
	for i := range maxAnswers + 100 { // more queries than are kept
		if got := r.Lookup(fmt.Sprintf("s@>=1.0.0 <2.0.%d", i)); len(got) != 1 {
			t.Fatalf("Lookup() = %v", got)
		}
	}
	if n := len(*r.view.Load().answers.Load()); n > maxAnswers {
		t.Errorf("%d answers are kept", n)
	}
}
