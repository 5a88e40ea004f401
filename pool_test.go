package netron_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/memlink"
	"github.com/d-e-v-grid/netron/rpc"
)

// pooled is a station with a pool of connections to it.
type pooled struct {
	*station
	client  *netron.Node
	pool    *netron.Pool
	counter *netron.PoolClient[counterClient]

	holder *netron.PoolClient[holderClient]

	connsMu sync.Mutex
	conns   []*memlink.Conn // as they were dialled; guarded by connsMu

	heldMu sync.Mutex
	held   map[string]int // calls under way, by the id of the connection; guarded by heldMu
}

// Hold is a method that takes a minute.
func (p *pooled) Hold(ctx context.Context) error {
	id := netron.PeerFrom(ctx).ID()
	count := func(by int) {
		p.heldMu.Lock()
		defer p.heldMu.Unlock()
		p.held[id] += by
	}
	count(1)
	defer count(-1)
	select {
	case <-time.After(time.Minute):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type holderClient struct {
	Hold func(ctx context.Context) error
}

func newPooled(t *testing.T, conns int) *pooled {
	t.Helper()
	p := &pooled{station: newStation(t, netron.Config{}), client: newNode(t, netron.Config{ID: "client", CallTimeout: -1}), held: make(map[string]int)}
	s := netron.NewService("holder", "")
	netron.Func(s, "hold", p.Hold)
	err := p.server.ExposeService(s)
	if err != nil {
		t.Fatal(err)
	}
	p.pool, err = p.client.DialPool(t.Context(), "server:1", conns, netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
		nc, err := p.dial(ctx, network, addr)
		if c, ok := nc.(*memlink.Conn); ok {
			p.connsMu.Lock()
			p.conns = append(p.conns, c)
			p.connsMu.Unlock()
		}
		return nc, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	if p.counter, err = netron.QueryPool[counterClient](t.Context(), p.pool, "counter"); err != nil {
		t.Fatal(err)
	}
	if p.holder, err = netron.QueryPool[holderClient](t.Context(), p.pool, "holder"); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return p
}

// slow starts a call that takes a minute.
func (p *pooled) slow() {
	go func() { _ = p.holder.Pick().Hold(p.t.Context()) }()
	synctest.Wait()
}

// loads returns how many calls each connection has under way, in the order of Peers.
func (p *pooled) loads() []int {
	p.heldMu.Lock()
	defer p.heldMu.Unlock()
	all := []int{p.held["client"]}
	for i := 2; i <= len(p.pool.Peers()); i++ {
		all = append(all, p.held[fmt.Sprintf("client#%d", i)])
	}
	return all
}

func TestPoolSpreadsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPooled(t, 4)
		for range 12 {
			p.slow()
		}
		for i, n := range p.loads() {
			if n != 3 {
				t.Errorf("connection %d has %d calls under way, want 3: %v", i+1, n, p.loads())
			}
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestPoolOfMany checks the choice of two: no connection is far from the mean.
func TestPoolOfMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPooled(t, 9)
		for range 90 {
			p.slow()
		}
		for i, n := range p.loads() {
			if n < 5 || n > 15 {
				t.Errorf("connection %d has %d calls under way, want about 10: %v", i+1, n, p.loads())
			}
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestPoolLosesConnection checks that calls go on over the other connections, and over
// the lost one when it is back.
func TestPoolLosesConnection(t *testing.T) {
	for _, conns := range []int{2, 4, 8} {
		synctest.Test(t, func(t *testing.T) {
			p := newPooled(t, conns)
			for _, c := range p.conns[1:] { // all but one
				c.Cut()
			}
			synctest.Wait()
			for i := range 100 {
				if sum, err := p.counter.Pick().Add(t.Context(), 1, 2); sum != 3 || err != nil {
					t.Fatalf("call %d over what is left of %d connections = %v, %v", i, conns, sum, err)
				}
			}
			time.Sleep(time.Second)
			for i, peer := range p.pool.Peers() {
				if peer.State() != netron.StateConnected {
					t.Errorf("connection %d is %v", i+1, peer.State())
				}
			}
			for range conns {
				p.slow()
			}
			if got := p.loads(); conns <= 4 && slices.Contains(got, 0) {
				t.Errorf("calls under way %v, want one on each connection", got)
			}
			time.Sleep(2 * time.Minute)
		})
	}
}

// TestPoolLeavesConnection checks that calls avoid a connection which the peer asked to
// leave.
func TestPoolLeavesConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPooled(t, 3)
		p.server.Peer("client#2").GoAway("balance", time.Hour)
		synctest.Wait()
		if s := p.pool.Peers()[1].State(); s != netron.StateDraining {
			t.Skip("it was back at once, which chance may have") // one in millions
		}
		for range 8 {
			p.slow()
		}
		if got := p.loads(); got[0] != 4 || got[1] != 0 || got[2] != 4 {
			t.Errorf("calls under way %v, want none on the second connection", got)
		}
		time.Sleep(2 * time.Minute)
	})
}

// TestPoolWithoutConnections checks that calls wait, or fail, as those of one peer do.
func TestPoolWithoutConnections(t *testing.T) {
	for _, conns := range []int{3, 6} {
		synctest.Test(t, func(t *testing.T) {
			p := newPooled(t, conns)
			p.down()
			synctest.Wait()
			if _, err := p.counter.Pick().Add(t.Context(), 1, 2); netron.CodeOf(err) != netron.Unavailable {
				t.Errorf("Add = %v, want unavailable", err)
			}
			if _, err := netron.QueryPool[counterClient](t.Context(), p.pool, "counter"); netron.CodeOf(err) != netron.Unavailable {
				t.Errorf("QueryPool = %v, want unavailable", err)
			}
			time.AfterFunc(time.Second, p.up)
			if sum, err := p.counter.Pick().Add(netron.RetryUnsent(t.Context()), 1, 2); sum != 3 || err != nil {
				t.Errorf("Add = %v, %v, want it to wait", sum, err)
			}
		})
	}
}

// TestPoolClose checks that nothing is left, and what a closed pool does.
func TestPoolClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPooled(t, 5)
		if n, m := len(p.server.Peers()), len(p.client.Peers()); n != 5 || m != 5 {
			t.Errorf("%d peers of the server, %d of the client, want 5", n, m)
		}
		if err := p.pool.Close(); err != nil {
			t.Errorf("Close = %v", err)
		}
		for i, peer := range p.pool.Peers() {
			select {
			case <-peer.Done():
			default:
				t.Errorf("connection %d lives after Close", i+1)
			}
		}
		synctest.Wait()
		if n, m := len(p.server.Peers()), len(p.client.Peers()); n != 0 || m != 0 {
			t.Errorf("%d peers of the server and %d of the client are left", n, m)
		}
		if _, err := p.counter.Pick().Add(t.Context(), 1, 2); netron.CodeOf(err) != netron.Unavailable {
			t.Errorf("Add after Close = %v, want unavailable", err)
		}
		if err := p.pool.Close(); err != nil {
			t.Errorf("second Close = %v", err)
		}
	})
}

func TestDialPoolFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		n := newNode(t, netron.Config{})
		for _, conns := range []int{-1, 0, 257} {
			if _, err := n.DialPool(t.Context(), "server:1", conns, netron.DialNet(s.dial)); netron.CodeOf(err) != netron.InvalidArgument {
				t.Errorf("DialPool of %d = %v, want invalid_argument", conns, err)
			}
		}
		long := newNode(t, netron.Config{ID: strings.Repeat("x", 255)})
		if _, err := long.DialPool(t.Context(), "server:1", 2, netron.DialNet(s.dial)); netron.CodeOf(err) != netron.InvalidArgument {
			t.Errorf("DialPool with a long id = %v, want invalid_argument", err)
		}
		if s.dialled() != 0 {
			t.Error("something was dialled")
		}
		var mu sync.Mutex
		dials := 0
		_, err := n.DialPool(t.Context(), "server:1", 4, netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
			mu.Lock()
			defer mu.Unlock()
			if dials++; dials == 3 {
				return nil, syscall.ECONNREFUSED
			}
			return s.dial(ctx, network, addr)
		}))
		synctest.Wait()
		if err == nil || len(n.Peers()) != 0 || len(s.server.Peers()) != 0 {
			t.Errorf("DialPool = %v, %d peers left here and %d there", err, len(n.Peers()), len(s.server.Peers()))
		}
		if _, err := rpc.NewPool(); netron.CodeOf(err) != netron.InvalidArgument {
			t.Errorf("NewPool of nothing = %v, want invalid_argument", err)
		}
	})
}

// TestPoolAllocates checks that choosing a connection costs no memory.
func TestPoolAllocates(t *testing.T) {
	_, url := serve(t, netron.Config{})
	n := newNode(t, netron.Config{})
	for _, conns := range []int{1, 3, 6} {
		pool, err := n.DialPool(t.Context(), url, conns)
		if err != nil {
			t.Fatal(err)
		}
		if allocs := testing.AllocsPerRun(1000, func() { pool.Peer() }); allocs != 0 {
			t.Errorf("Peer of a pool of %d allocates %v times", conns, allocs)
		}
	}
}
