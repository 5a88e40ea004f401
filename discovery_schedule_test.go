package netron_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

var (
	towns    = flag.Int("towns", 0, "how many random towns TestFindSchedules has; by default 12, and fewer with -short or -race")
	townSeed = flag.Uint64("town", 0, "the seed of the first of them")
)

// TestFindSchedules has random nodes start, change what they offer, drain, end, be unreachable
// and lose connections, while clients of Find call them. One node is always there, so no
// idempotent call may fail. In the end all views are right, and nothing is left.
func TestFindSchedules(t *testing.T) {
	n := *towns
	switch {
	case n > 0:
	case raceEnabled || testing.Short():
		n = 3
	default:
		n = 12
	}
	var all townTotals
	for i := range uint64(n) {
		seed := *townSeed + i
		synctest.Test(t, func(t *testing.T) { newSchedule(t, seed, &all).run() })
		if t.Failed() {
			t.Fatalf("seed %d: repeat it with -town=%d -towns=1", seed, seed)
		}
	}
	t.Logf("%d calls, %d of others than idempotent ones have failed, %d were served twice", all.calls.Load(), all.failed.Load(), all.twice)
	if all.calls.Load() < int64(500*n) {
		t.Errorf("%d calls in %d towns, want more", all.calls.Load(), n)
	}
}

// townTotals is what happened in all towns.
type townTotals struct {
	calls, failed atomic.Int64
	twice         int
}

// townWorker is a service of a town: it does what it is told.
type townWorker struct {
	town *townSchedule
	id   string
}

func (s townWorker) Do(_ context.Context, call int) (string, error) {
	s.town.mu.Lock()
	s.town.served[call]++
	s.town.mu.Unlock()
	time.Sleep(time.Duration(call%5) * time.Millisecond)
	return s.id, nil
}

// townSchedule is one random run.
type townSchedule struct {
	*town
	rng    *rand.Rand
	totals *townTotals
	nodes  []*townNode
	caller *netrontest.Node
	stop   atomic.Bool
	wg     sync.WaitGroup // of callers, and of what ends nodes
	next   atomic.Int64

	mu     sync.Mutex
	served map[int]int // by call; guarded by mu
}

// townNode is a node that comes and goes, with what it should offer.
type townNode struct {
	*netrontest.Node
	name    string
	offers  map[string]string // versions by name
	runs    bool
	deaf    bool // no longer listens
	cut     bool
	release int
}

var townServices = []string{"a", "b"}

func newSchedule(t *testing.T, seed uint64, all *townTotals) *townSchedule {
	s := &townSchedule{town: newTown(t), rng: rand.New(rand.NewPCG(seed, 7)), totals: all, served: make(map[int]int)}
	s.net.Delay(time.Duration(s.rng.IntN(3)) * time.Millisecond)
	for i := range 4 {
		s.nodes = append(s.nodes, &townNode{name: fmt.Sprint("s", i)})
	}
	s.begin(s.nodes[0])
	s.begin(s.nodes[1])
	s.caller = s.start("caller")
	settle()
	return s
}

func (s *townSchedule) begin(n *townNode) {
	n.offers, n.runs, n.deaf = make(map[string]string), true, false
	n.Node = s.start(n.name, netrontest.Configure(func(c *netron.Config) { c.Logger, c.DrainWindow = quiet, 100*time.Millisecond }))
	for _, name := range townServices {
		s.replace(n, name)
	}
}

// replace has a node offer another release of a service, or the first one.
func (s *townSchedule) replace(n *townNode, name string) {
	before := n.offers[name]
	n.release++
	n.offers[name] = fmt.Sprintf("1.%d.0", n.release)
	if err := n.Expose(name+"@"+n.offers[name], townWorker{s, n.name}); err != nil {
		s.t.Error(err)
	}
	if before != "" {
		s.conceal(n, name, before)
	}
}

func (s *townSchedule) conceal(n *townNode, name, version string) {
	if err := n.Conceal(name + "@" + version); err != nil {
		s.t.Error(err)
	}
}

// run runs the schedule.
func (s *townSchedule) run() {
	var clients []*netron.Client
	for _, at := range []*netron.Node{s.caller.Node, s.nodes[0].Node.Node} {
		for i, query := range []string{"a", "b@^1"} {
			c, err := at.Find(query, netron.FindPolicy([]balance.Policy{balance.LeastLoaded, balance.RoundRobin}[i]))
			if err != nil {
				s.t.Fatal(err)
			}
			clients = append(clients, c)
			for j := range 2 {
				s.wg.Go(func() { s.call(c, j == 0) })
			}
		}
	}
	for range 50 {
		time.Sleep(time.Duration(s.rng.IntN(200)) * time.Millisecond)
		s.step()
	}
	s.heal()
	time.Sleep(time.Second)
	s.stop.Store(true)
	s.wg.Wait()
	time.Sleep(time.Minute) // the pauses between attempts to connect have grown
	synctest.Wait()
	s.check(clients)
}

// call calls until it is told to stop.
func (s *townSchedule) call(c *netron.Client, isIdempotent bool) {
	for !s.stop.Load() {
		ctx, id := s.t.Context(), int(s.next.Add(1))
		if isIdempotent {
			ctx = netron.Idempotent(ctx)
		}
		var name string
		err := c.Call(ctx, "do", &name, id)
		s.mu.Lock()
		served := s.served[id]
		s.mu.Unlock()
		s.totals.calls.Add(1)
		switch {
		case err == nil && served == 0, err == nil && !strings.HasPrefix(name, "s"):
			s.t.Errorf("call %d = %q, and was served %d times", id, name, served)
		case isIdempotent && err != nil:
			s.t.Errorf("call %d of %s, which is idempotent, has failed: %v", id, c.Service(), err)
		case !isIdempotent && served > 1:
			s.t.Errorf("call %d of %s was served %d times", id, c.Service(), served)
		case err != nil && netron.CodeOf(err) != netron.Unavailable:
			s.t.Errorf("call %d of %s has failed: %v", id, c.Service(), err)
		case err != nil:
			s.totals.failed.Add(1)
		}
		time.Sleep(7 * time.Millisecond)
	}
}

// step does something to one of the nodes. The first one may only be changed.
func (s *townSchedule) step() {
	n := s.nodes[1+s.rng.IntN(len(s.nodes)-1)]
	name := townServices[s.rng.IntN(len(townServices))]
	if !n.runs {
		s.begin(n)
		return
	}
	node := n.Node
	switch s.rng.IntN(10) {
	case 0: // an orderly end
		n.runs = false
		s.wg.Go(func() {
			if err := node.Shutdown(context.Background()); err != nil {
				s.t.Error(err)
			}
		})
		synctest.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
	case 1: // a sudden one
		n.runs = false
		if err := node.Close(); err != nil {
			s.t.Error(err)
		}
	case 2: // all at once
		n.runs = false
		for _, f := range []func(){
			func() { _ = node.Shutdown(context.Background()) }, // may be cut off by the next
			func() { node.Close() },
			func() { node.StopListening() },
			func() { _ = node.Expose("late", townWorker{s, "late"}) },
			func() { _ = node.Announce("late:1") },
			func() {
				if c, err := node.Find("a"); err == nil {
					_ = c.Call(context.Background(), "do", nil, int(s.next.Add(1)))
				}
			},
		} {
			s.wg.Go(f)
		}
		<-node.Done()
	case 3: // cut off
		n.cut = !n.cut
		for _, other := range []string{"caller", "s0"} {
			link := s.net.Link(other, n.name)
			if n.cut {
				link.Refuse()
				link.Cut()
			} else {
				link.Allow()
			}
		}
	case 4: // loses its connections
		s.net.Link("caller", n.name).Cut()
		s.net.Link("s0", n.name).Cut()
	case 5:
		n.deaf = true
		n.StopListening()
	case 6: // takes a service away, and offers it again
		if version := n.offers[name]; version != "" {
			delete(n.offers, name)
			s.conceal(n, name, version)
		} else {
			s.replace(n, name)
		}
	case 7:
		s.replace(n, name)
	case 8:
		s.replace(s.nodes[0], name)
	case 9: // a client that does not last
		c, err := s.caller.Find(name)
		if err != nil {
			s.t.Error(err)
			return
		}
		s.wg.Go(func() { _ = c.Call(context.Background(), "do", nil, int(s.next.Add(1))) })
		time.Sleep(time.Duration(s.rng.IntN(4)) * time.Millisecond)
		c.Close()
	}
}

// heal ends what is wrong, and has all nodes run.
func (s *townSchedule) heal() {
	s.net.Allow()
	for _, n := range s.nodes {
		if n.runs && n.deaf {
			if err := n.Close(); err != nil {
				s.t.Error(err)
			}
			n.runs = false
		}
		if !n.runs {
			s.begin(n)
		}
		for _, name := range townServices {
			if n.offers[name] == "" {
				s.replace(n, name)
			}
		}
	}
}

// check wants that everybody sees and calls everybody, and that nothing is left when the
// clients are closed.
func (s *townSchedule) check(clients []*netron.Client) {
	for _, viewer := range []*netron.Node{s.caller.Node, s.nodes[0].Node.Node, s.nodes[3].Node.Node} {
		for _, n := range s.nodes {
			got, ok := viewer.Discovery().Node(n.name)
			want := []discover.Service{{Name: "a", Version: n.offers["a"]}, {Name: "b", Version: n.offers["b"]}}
			if !ok || got.Suspect || got.Address != n.Addr() || !slices.Equal(got.Services, want) {
				s.t.Errorf("%s sees %s as %+v, %t, want services %v", viewer.ID(), n.name, got, ok, want)
			}
		}
		if nodes := viewer.Discovery().Nodes(); len(nodes) != len(s.nodes)+1 {
			s.t.Errorf("%s sees %d nodes", viewer.ID(), len(nodes))
		}
	}
	for _, c := range clients {
		got := make(map[string]bool)
		for range 100 {
			var name string
			if err := c.Call(s.t.Context(), "do", &name, int(s.next.Add(1))); err != nil {
				s.t.Errorf("%s: %v", c.Service(), err)
			}
			got[name] = true
		}
		if len(got) != len(s.nodes) {
			s.t.Errorf("calls of %s were served by %v, instances are %+v", c.Service(), got, c.Stats())
		}
	}
	for _, c := range clients {
		c.Close()
	}
	settle()
	for _, n := range []*netron.Node{s.caller.Node, s.nodes[0].Node.Node} {
		if clients, conns, users := n.DiscoveryHolds(); clients+conns+users > 0 {
			s.t.Errorf("%s still has %d clients, %d connections, %d of them used", n.ID(), clients, conns, users)
		}
	}
	if conns := s.net.Conns(); conns > 0 {
		s.t.Errorf("%d connections are left", conns)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.served {
		if n > 1 {
			s.totals.twice++
		}
	}
}
