package netron_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
)

// napper has one method, which takes a fixed time.
type napper struct{}

const nap = 50 * time.Millisecond

func (napper) Nap(ctx context.Context) error {
	select {
	case <-time.After(nap):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type napClient struct {
	Nap func(ctx context.Context) error
}

// napCall is how a call ended.
type napCall struct {
	begun time.Time
	took  time.Duration
	err   error
}

// napClients are connections of one node over which calls are made on schedule.
type napClients struct {
	t     *testing.T
	conns []*napClient

	wg    sync.WaitGroup
	mu    sync.Mutex
	calls []napCall // guarded by mu
}

func newNapClients(t *testing.T, server netron.Config, conns int) *napClients {
	t.Helper()
	n := new(netrontest.Network)
	n.Delay(time.Millisecond)
	n.Start(t, serverAddr, netrontest.Configure(func(cfg *netron.Config) {
		id := cfg.ID
		*cfg = server
		cfg.ID, cfg.Logger, cfg.DrainWindow = id, quiet, -1
	}), netrontest.Prepare(func(n *netron.Node) error { return n.Expose("napper@1.0.0", napper{}) }))
	pool, err := newNode(t, netron.Config{DrainWindow: -1}).DialPool(t.Context(), serverAddr, conns, netron.DialNet(n.Dialer("clients")))
	if err != nil {
		t.Fatal(err)
	}
	c := &napClients{t: t}
	for _, p := range pool.Peers() {
		client, err := netron.Query[napClient](t.Context(), p, "napper@1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		c.conns = append(c.conns, client)
	}
	return c
}

// offer makes calls for some time, the next one after what pause returns, whatever
// becomes of those before, and returns how all have ended.
func (c *napClients) offer(d time.Duration, pause func() time.Duration) []napCall {
	c.calls = nil
	for i, end := 0, time.Now().Add(d); time.Now().Before(end); i++ {
		c.wg.Go(func() {
			begun := time.Now()
			err := c.conns[i%len(c.conns)].Nap(context.Background())
			c.mu.Lock()
			defer c.mu.Unlock()
			c.calls = append(c.calls, napCall{begun, time.Since(begun), err})
		})
		time.Sleep(pause())
	}
	c.wg.Wait()
	return c.calls
}

func evenly(mean time.Duration) func() time.Duration { return func() time.Duration { return mean } }

func randomly(mean time.Duration) func() time.Duration {
	return func() time.Duration { return time.Duration(rand.ExpFloat64() * float64(mean)) }
}

// inBursts has nine calls made at once.
func inBursts(mean time.Duration) func() time.Duration {
	const burst = 9
	n := 0
	return func() time.Duration {
		if n++; n%burst != 0 {
			return 0
		}
		return burst * mean
	}
}

// TestOverload offers three times of what a server can serve, by the limit of the node and
// by that of a connection.
func TestOverload(t *testing.T) {
	const (
		atATime  = 20
		load     = 5 * time.Second
		mean     = nap / (3 * atATime)
		capacity = float64(load) / float64(nap) * atATime // calls
		refusal  = 10 * time.Millisecond
		usual    = nap + 5*time.Millisecond
		recovery = 5 * time.Second
	)
	for _, limit := range []struct {
		name   string
		server netron.Config
		conns  int
	}{
		{"workers", netron.Config{Workers: atATime}, 8},
		{"requests of a connection", netron.Config{MaxRequests: atATime}, 1},
	} {
		for name, pause := range map[string]func() time.Duration{"evenly": evenly(mean), "randomly": randomly(mean), "in bursts": inBursts(mean)} {
			t.Run(fmt.Sprintf("%s, %s", limit.name, name), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newNapClients(t, limit.server, limit.conns)
					var good int
					var refused []time.Duration
					calls := c.offer(load, pause)
					for _, call := range calls {
						switch {
						case call.err == nil:
							good++
						case netron.CodeOf(call.err) == netron.ResourceExhausted:
							refused = append(refused, call.took)
						default:
							t.Errorf("a call failed after %v: %v", call.took, call.err)
						}
					}
					if len(refused) == 0 {
						t.Fatal("no call was refused")
					}
					slices.Sort(refused)
					t.Logf("%d calls, %d served, which is %.1f %% of the capacity, %d refused after %v to %v",
						len(calls), good, 100*float64(good)/capacity, len(refused), refused[0], refused[len(refused)-1])
					if float64(good) < 0.8*capacity {
						t.Errorf("%d calls were served, want 80 %% of %.0f", good, capacity)
					}
					if longest := refused[len(refused)-1]; longest > refusal {
						t.Errorf("a refusal took %v, want %v at most", longest, refusal)
					}

					ended, last := time.Now(), time.Duration(0)
					for _, call := range c.offer(2*recovery, evenly(10*mean)) {
						if call.err != nil || call.took > usual {
							last = max(last, call.begun.Sub(ended)+call.took)
						}
					}
					t.Logf("calls are as before %v after the load", last)
					if last > recovery {
						t.Errorf("%v after the load a call still failed or took more than %v", last, usual)
					}
				})
			})
		}
	}
}
