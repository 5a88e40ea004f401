package netron_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/pubsub"
)

// herd is the clients of one server. Each has an id and reconnects on its own; a hundred
// share a node.
type herd struct {
	t      *testing.T
	net    *netrontest.Network
	server *netrontest.Node
	peers  []*netron.Peer
	news   []atomic.Int32 // how many events each has got

	mu    sync.Mutex
	dials []time.Time // guarded by mu
	back  []time.Time // of those that are connected again; guarded by mu
}

func newHerd(t *testing.T, clients int, cfg netron.Config) *herd {
	t.Helper()
	const each = 100
	h := &herd{t: t, net: new(netrontest.Network), news: make([]atomic.Int32, clients)}
	dialer := h.net.Dialer("clients")
	counted := netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
		h.mu.Lock()
		h.dials = append(h.dials, time.Now())
		h.mu.Unlock()
		return dialer(ctx, network, addr)
	})
	h.server = h.net.Start(t, serverAddr, netrontest.Configure(func(cfg *netron.Config) { cfg.Logger, cfg.DrainWindow = quiet, -1 }),
		netrontest.Prepare(func(n *netron.Node) error { return n.Expose("counter@1.0.0", &counter{new(atomic.Int64)}) }))
	for i := range clients / each {
		cfg.ID, cfg.DrainWindow = fmt.Sprint("herd", i), -1
		pool, err := newNode(t, cfg).DialPool(t.Context(), serverAddr, each, counted)
		if err != nil {
			t.Fatal(err)
		}
		h.peers = append(h.peers, pool.Peers()...)
	}
	for i, p := range h.peers {
		handle := func(context.Context, pubsub.Event) (any, error) { h.news[i].Add(1); return nil, nil }
		if _, err := p.Subscribe(t.Context(), "news", handle, netron.SubscribeInline()); err != nil {
			t.Fatal(err)
		}
		p.OnState(func(e netron.StateEvent) {
			if e.State == netron.StateConnected {
				h.mu.Lock()
				h.back = append(h.back, e.At)
				h.mu.Unlock()
			}
		})
	}
	return h
}

// rush returns how many dials there were in the second that had most of them, from one
// time to another, and how many in a second on average.
func (h *herd) rush(from, to time.Time) (most int, mean float64) {
	seconds := make([]int, int(to.Sub(from)/time.Second)+1)
	for _, at := range h.dials {
		if !at.Before(from) && at.Before(to) {
			seconds[at.Sub(from)/time.Second]++
			mean++
		}
	}
	return slices.Max(seconds), mean / to.Sub(from).Seconds()
}

// TestHerd makes a server unreachable for all of its clients at once, and looks at how
// they come back.
//
// How soon depends on how long the server was away, since the delay between dials grows
// meanwhile. That of the defaults grows up to 30 s; who wants all clients back sooner after
// a long time sets Config.MaxReconnectDelay.
//
// No second shall have more dials than twice the mean. The delays are random from zero on,
// so the first second after the loss always has most dials, which nobody gets. What
// matters is what meets the server when it is back: no second of that is to exceed twice
// the mean of the time that it was away, the first second left out.
func TestHerd(t *testing.T) {
	clients := 1000
	if raceEnabled || testing.Short() {
		clients = 200
	}
	for _, tt := range []struct {
		name      string
		maxDelay  time.Duration // Config.MaxReconnectDelay
		away      time.Duration
		most, all time.Duration // until 99 % and all of them are back
	}{
		{"some seconds by default", 0, 3 * time.Second, 20 * time.Second, 35 * time.Second},
		{"some seconds", 5 * time.Second, 10 * time.Second, 5 * time.Second, 5 * time.Second},
		{"a minute", 5 * time.Second, time.Minute, 5 * time.Second, 5 * time.Second},
		{"a minute by default", 0, time.Minute, 30 * time.Second, 35 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHerd(t, clients, netron.Config{MaxReconnectDelay: tt.maxDelay})
				lost := time.Now()
				h.net.Refuse()
				h.net.Cut()
				time.Sleep(tt.away)
				reachable := time.Now()
				h.net.Allow()
				time.Sleep(time.Minute)
				synctest.Wait()
				h.judge(lost, reachable, tt.most, tt.all)
			})
		})
	}
}

func (h *herd) judge(lost, reachable time.Time, most, all time.Duration) {
	h.t.Helper()
	h.mu.Lock()
	back := slices.SortedFunc(slices.Values(h.back), time.Time.Compare)
	h.mu.Unlock()
	clients := len(h.peers)
	if len(back) != clients {
		h.t.Fatalf("%d clients have come back, want each of %d once", len(back), clients)
	}
	after := func(part int) time.Duration { return back[clients*part/100-1].Sub(reachable) }
	rush, _ := h.rush(reachable, back[clients-1].Add(1))
	_, mean := h.rush(lost.Add(time.Second), reachable)
	h.t.Logf("50 %% are back after %v, 99 %% after %v, all after %v; at most %d dials in a second, %.0f while it was away",
		after(50), after(99), after(100), rush, mean)
	if after(99) > most || after(100) > all {
		h.t.Errorf("99 %% are back after %v and all after %v, want %v and %v", after(99), after(100), most, all)
	}
	if float64(rush) > 2*mean {
		h.t.Errorf("%d dials in a second, want twice %.0f at most", rush, mean)
	}
	h.works()
}

// works checks that all clients are served, and get each event once.
func (h *herd) works() {
	h.t.Helper()
	if n := len(h.server.Peers()); n != len(h.peers) {
		h.t.Errorf("the server has %d peers, want %d", n, len(h.peers))
	}
	emit(h.t, h.server, "news", 1)
	synctest.Wait()
	for i, p := range h.peers {
		if n := h.news[i].Load(); n != 1 {
			h.t.Errorf("client %d has got the event %d times", i, n)
		}
		stub, err := p.Service(context.Background(), "counter@1.0.0")
		if err != nil {
			h.t.Errorf("client %d: %v", i, err)
			continue
		}
		var sum int
		if err := stub.Call(context.Background(), "add", &sum, i, 1); err != nil || sum != i+1 {
			h.t.Errorf("client %d: add = %d, %v", i, sum, err)
		}
	}
}
