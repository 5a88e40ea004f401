package netron_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
)

// drainingCluster returns three servers and a client that knows all of them.
func drainingCluster(t *testing.T, calls *atomic.Int64, opts ...netrontest.Option) (*netrontest.Cluster, *counterClient, *netron.Peer) {
	t.Helper()
	opts = append(opts, netrontest.Prepare(func(n *netron.Node) error { return n.Expose("counter", &counter{calls}) }))
	c := netrontest.NewCluster(t, 3, opts...)
	client := c.Start(t, "client:1")
	p, err := client.Dial(t.Context(), c.Nodes[0].Addr(), netron.DialAlso(c.Nodes[1].Addr(), c.Nodes[2].Addr()))
	if err != nil {
		t.Fatal(err)
	}
	funcs, err := netron.Query[counterClient](t.Context(), p, "counter")
	if err != nil {
		t.Fatal(err)
	}
	return c, funcs, p
}

// TestDrainLosesNothing drains and replaces one server after the other under calls that
// nobody would make again.
func TestDrainLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int64
		c, funcs, p := drainingCluster(t, &calls)
		c.Delay(5 * time.Millisecond)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var made, slowest atomic.Int64
		for range 10 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					start := time.Now()
					if sum, err := funcs.Add(t.Context(), 1, 2); sum != 3 || err != nil {
						t.Errorf("Add = %v, %v, state %v", sum, err, p.State())
					}
					made.Add(1)
					slowest.Store(max(slowest.Load(), int64(time.Since(start))))
				}
			})
		}
		for range 2 { // so that some connections do not last
			for i, n := range c.Nodes {
				time.Sleep(2 * time.Second)
				if err := n.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown = %v", err)
				}
				c.Nodes[i] = n.Restart()
			}
		}
		close(stop)
		wg.Wait()
		if calls.Load() != made.Load() || time.Duration(slowest.Load()) > 20*time.Millisecond {
			t.Errorf("%d calls, %d served, the slowest took %v", made.Load(), calls.Load(), time.Duration(slowest.Load()))
		}
	})
}

// TestDrainWindow checks how long a node waits for peers, and when it does not.
func TestDrainWindow(t *testing.T) {
	for name, tc := range map[string]struct {
		window, limit time.Duration // limit 0 is none
		reconnects    bool
		want          time.Duration
	}{
		"the default":             {want: time.Second},
		"a time of its own":       {window: 3 * time.Second, want: 3 * time.Second},
		"none":                    {window: -1, want: 0},
		"half of what is allowed": {window: time.Hour, limit: 10 * time.Second, want: 5 * time.Second},
		"until all have gone":     {window: time.Minute, limit: time.Hour, reconnects: true, want: 32 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := netrontest.NewCluster(t, 3, netrontest.Configure(func(cfg *netron.Config) { cfg.DrainWindow = tc.window }))
				attempts := netron.DialReconnect(0, -1)
				if tc.reconnects {
					attempts = netron.DialReconnect(0, 0)
				}
				if _, err := c.Nodes[1].Dial(t.Context(), c.Nodes[0].Addr(), attempts, netron.DialAlso(c.Nodes[2].Addr())); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // the server may not know of it yet
				shutdown := func(n *netrontest.Node) time.Duration {
					ctx, cancel := context.WithCancel(t.Context())
					if tc.limit > 0 {
						ctx, cancel = context.WithTimeout(t.Context(), tc.limit)
					}
					defer cancel()
					start := time.Now()
					if err := n.Shutdown(ctx); err != nil {
						t.Errorf("Shutdown = %v", err)
					}
					return time.Since(start)
				}
				if d := shutdown(c.Nodes[0]); d > tc.want || (!tc.reconnects && d < tc.want) {
					t.Errorf("Shutdown of the server took %v, want %v", d, tc.want)
				}
				if d := shutdown(c.Nodes[1]); d != 0 {
					t.Errorf("Shutdown of the client took %v, want it not to wait", d)
				}
			})
		})
	}
}

// TestDrainedCallIsMadeAgain checks a call that was on its way when the server closed
// the connection: the server says that it has served nothing more.
func TestDrainedCallIsMadeAgain(t *testing.T) {
	for _, drained := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			var calls atomic.Int64
			c, funcs, _ := drainingCluster(t, &calls, netrontest.Configure(func(cfg *netron.Config) { cfg.DrainWindow = -1 }))
			if !drained { // one call is cut off
				go func() { _, _ = funcs.Slow(t.Context(), 60_000) }()
				synctest.Wait()
				calls.Store(0)
			}
			c.Delay(100 * time.Millisecond)
			limit := time.Minute
			if !drained {
				limit = 50 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- c.Nodes[0].Shutdown(ctx) }()
			time.Sleep(10 * time.Millisecond)
			sum, err := funcs.Add(netron.RetryUnsent(t.Context()), 1, 2)
			if drained && (sum != 3 || err != nil || calls.Load() != 1) {
				t.Errorf("Add = %v, %v, served %d times", sum, err, calls.Load())
			}
			if sent, known := netron.WasSent(err); !drained && (netron.CodeOf(err) != netron.Unavailable || !sent || !known) {
				t.Errorf("Add = %v, %v, want it lost: the server has cut off requests", sum, err)
			}
			if err := <-ended; (err == nil) != drained {
				t.Errorf("Shutdown = %v", err)
			}
		})
	}
}

// TestReconnectAfterDrain checks that a client which had nowhere else to go while its
// server drained is back soon after that has been replaced.
func TestReconnectAfterDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{MaxReconnectAttempts: 3})
		funcs, err := netron.Query[counterClient](t.Context(), p, "counter")
		if err != nil {
			t.Fatal(err)
		}
		slow := make(chan error, 1)
		go func() {
			_, err := funcs.Slow(netron.Idempotent(t.Context()), 4000)
			slow <- err
		}()
		time.Sleep(2 * time.Second)
		if err := s.server.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		if err := <-slow; err != nil {
			t.Errorf("Slow = %v", err)
		}
		s.down()
		s.up()
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		if p.State() != netron.StateConnected {
			t.Errorf("state %v after the server has been replaced", p.State())
		}
	})
}
