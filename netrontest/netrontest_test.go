package netrontest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/netrontest"
)

// tasks is what the nodes of the tests offer.
var tasks = netrontest.Prepare(func(n *netron.Node) error {
	return errors.Join(
		n.AddTask("name", func(context.Context) string { return n.ID() }),
		n.AddTask("caller", func(ctx context.Context) string { return netron.PeerFrom(ctx).ID() }),
		n.AddTask("echo", func(_ context.Context, b []byte) []byte { return b }),
		n.AddTask("wait", func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		}),
	)
})

func wantName(t *testing.T, p *netron.Peer, want string) {
	t.Helper()
	var got string
	if err := p.RunTask(t.Context(), "name", &got); err != nil || got != want {
		t.Errorf("name = %q, %v, want %q", got, err, want)
	}
}

func dial(t *testing.T, from, to *netrontest.Node) *netron.Peer {
	t.Helper()
	p, err := from.Dial(t.Context(), to.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// wait starts a call that ends only with its connection.
func wait(t *testing.T, p *netron.Peer) <-chan error {
	t.Helper()
	failed := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		failed <- p.RunTask(ctx, "wait", nil)
	}()
	return failed
}

// everywhere runs a test in a bubble and outside.
func everywhere(t *testing.T, f func(t *testing.T)) {
	t.Run("virtual time", func(t *testing.T) { synctest.Test(t, f) })
	t.Run("real time", f)
}

// TestDiscoverReplaced has an option take back what Discover has set.
func TestDiscoverReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network netrontest.Network
		without := netrontest.Configure(func(c *netron.Config) { c.Discovery = netron.DiscoveryConfig{} })
		if n := network.Start(t, "a:1", netrontest.Discover(), without); n.Discovery() != nil {
			t.Error("the node has a registry")
		}
	})
}

func TestPair(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks)
		wantName(t, pair.ToServer, "server")
		wantName(t, pair.ToClient, "client")
		var caller string
		if err := pair.ToServer.RunTask(t.Context(), "caller", &caller); err != nil || caller != "client" {
			t.Errorf("caller = %q, %v, want client", caller, err)
		}
		if pair.ToServer.ID() != "server" || pair.ToClient.ID() != "client" {
			t.Errorf("peers are %q and %q, want server and client", pair.ToServer.ID(), pair.ToClient.ID())
		}
		if pair.Server.Addr() != "server:8080" || pair.Client.Name() != "client" {
			t.Errorf("server at %q, client named %q", pair.Server.Addr(), pair.Client.Name())
		}
		if pair.Dials() != 1 || pair.Conns() != 1 {
			t.Errorf("%d dials, %d connections, want 1 and 1", pair.Dials(), pair.Conns())
		}
		wantName(t, dial(t, pair.Server, pair.Client), "client") // the other way round
		if pair.Dials() != 2 || pair.Conns() != 2 {
			t.Errorf("%d dials, %d connections, want 2 and 2", pair.Dials(), pair.Conns())
		}
	})
}

// Bubbles and the time outside do not meet in anything that nodes share.
func TestBubblesSideBySide(t *testing.T) {
	for i := range 8 {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			everywhere(t, func(t *testing.T) {
				pair := netrontest.NewPair(t, once, tasks)
				for range 20 {
					wantName(t, pair.ToServer, "server")
					runtime.Gosched()
				}
			})
		})
	}
}

func TestShutdownInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks)
		if err := pair.Server.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		<-pair.ToServer.Done()
		if closed, ok := errors.AsType[*engine.CloseError](pair.ToServer.Err()); !ok || closed.Code != engine.CloseGoingAway {
			t.Errorf("the connection ended with %v, want close code 1001", pair.ToServer.Err())
		}
		if _, err := pair.Client.Dial(t.Context(), pair.Server.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial after Shutdown = %v, want ECONNREFUSED", err)
		}
		if n := pair.Conns(); n != 0 {
			t.Errorf("%d connections are left, want none", n)
		}
	})
}

func TestCut(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks)
		failed := []<-chan error{wait(t, pair.ToServer), wait(t, pair.ToClient)}
		wantName(t, pair.ToServer, "server") // so that the calls before it are on their way
		wantName(t, pair.ToClient, "client")
		pair.Cut()
		for _, c := range failed {
			if err := <-c; netron.CodeOf(err) != netron.Unavailable {
				t.Errorf("pending call = %v, want unavailable", err)
			}
		}
		<-pair.ToServer.Done()
		<-pair.ToClient.Done()
		if n := pair.Conns(); n != 0 {
			t.Errorf("%d connections after Cut, want none", n)
		}
		wantName(t, dial(t, pair.Client, pair.Server), "server") // Cut is no state
	})
}

func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks, netrontest.Configure(func(cfg *netron.Config) {
			cfg.PingInterval, cfg.PingTimeout = 10*time.Second, 30*time.Second
		}))
		failed := []<-chan error{wait(t, pair.ToServer), wait(t, pair.ToClient)}
		synctest.Wait()
		start := time.Now()
		pair.Stall()
		for _, c := range failed {
			if err := <-c; netron.CodeOf(err) != netron.Unavailable || !errors.Is(err, engine.ErrPeerDead) {
				t.Errorf("pending call = %v, want unavailable as the peer is silent", err)
			}
		}
		// Each end finds out by itself: neither hears how the other ended.
		for _, p := range []*netron.Peer{pair.ToServer, pair.ToClient} {
			<-p.Done()
			if !errors.Is(p.Err(), engine.ErrPeerDead) {
				t.Errorf("the connection ended with %v, want ErrPeerDead", p.Err())
			}
		}
		if d := time.Since(start); d != 30*time.Second {
			t.Errorf("noticed after %v, want the ping timeout of 30s", d)
		}
	})
}

func TestStallHoldsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks)
		pair.Stall()
		start := time.Now()
		_, err := pair.Client.Dial(t.Context(), pair.Server.Addr())
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			t.Errorf("Dial = %v after %v, want the time limit after 5s", err, time.Since(start))
		}
		time.AfterFunc(3*time.Second, pair.Resume)
		start = time.Now()
		wantName(t, dial(t, pair.Client, pair.Server), "server")
		if d := time.Since(start); d != 3*time.Second {
			t.Errorf("Dial took %v, want until Resume after 3s", d)
		}
		wantName(t, pair.ToServer, "server") // the silence was shorter than the ping timeout
		synctest.Wait()
		if n := pair.Conns(); n != 2 {
			t.Errorf("%d connections, want 2: the failed dial's was reset", n)
		}
	})
}

// One end gives up during the silence; the other learns of it afterwards.
func TestResumeTellsWhoWaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks, netrontest.Configure(func(cfg *netron.Config) {
			if cfg.ID == "server" {
				cfg.PingInterval, cfg.PingTimeout = -1, -1
			}
		}))
		pair.Stall()
		<-pair.ToServer.Done()
		time.Sleep(time.Hour)
		if err := pair.ToClient.Err(); err != nil {
			t.Errorf("the server's connection ended with %v behind the stall", err)
		}
		if n := pair.Conns(); n != 1 {
			t.Errorf("%d connections, want the half-open one", n)
		}
		pair.Resume()
		<-pair.ToClient.Done()
		if n := pair.Conns(); n != 0 {
			t.Errorf("%d connections, want none", n)
		}
	})
}

func TestDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks)
		took := func(what string, f func(), want time.Duration) {
			t.Helper()
			start := time.Now()
			f()
			if d := time.Since(start); d != want {
				t.Errorf("%s took %v, want %v", what, d, want)
			}
		}
		call := func() { wantName(t, pair.ToServer, "server") }
		took("a call without delay", call, 0)
		pair.Delay(50 * time.Millisecond)
		took("a call", call, 100*time.Millisecond)
		took("a call of the server", func() { wantName(t, pair.ToClient, "client") }, 100*time.Millisecond)
		took("5 calls", func() {
			for range 5 {
				call()
			}
		}, 500*time.Millisecond)
		var second *netron.Peer
		took("a dial", func() { second = dial(t, pair.Client, pair.Server) }, 100*time.Millisecond)
		took("a call over it", func() { wantName(t, second, "server") }, 100*time.Millisecond)
		pair.Delay(0)
		time.Sleep(time.Second) // the last of what was delayed
		took("a call after the delay", call, 0)
	})
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks)
		pair.Throttle(100_000)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		for _, p := range []*netron.Peer{pair.ToServer, dial(t, pair.Client, pair.Server)} {
			start := time.Now()
			var got []byte
			if err := p.RunTask(ctx, "echo", &got, make([]byte, 1_000_000)); err != nil || len(got) != 1_000_000 {
				t.Fatalf("echo = %d bytes, %v", len(got), err)
			}
			// A megabyte there and a megabyte back.
			if d := time.Since(start); d < 20*time.Second || d > 21*time.Second {
				t.Errorf("echo of 1 MB at 100 kB/s took %v, want 20s to 21s", d)
			}
		}
		pair.Throttle(0)
		start := time.Now()
		wantName(t, dial(t, pair.Client, pair.Server), "server")
		if d := time.Since(start); d != 0 {
			t.Errorf("a call after the throttle took %v, want no time", d)
		}
	})
}

func TestRefuse(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once, tasks)
		pair.Refuse()
		for _, d := range [][2]*netrontest.Node{{pair.Client, pair.Server}, {pair.Server, pair.Client}} {
			if _, err := d[0].Dial(t.Context(), d[1].Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("Dial = %v, want ECONNREFUSED", err)
			}
		}
		wantName(t, pair.ToServer, "server") // connections go on
		pair.Allow()
		wantName(t, dial(t, pair.Client, pair.Server), "server")
		if n := pair.Dials(); n != 4 {
			t.Errorf("%d dials, want 4 with the refused ones", n)
		}
	})
}

func TestCluster(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := netrontest.NewCluster(t, 3, once, tasks)
		peers := make(map[[2]int]*netron.Peer)
		for i, from := range c.Nodes {
			for k, to := range c.Nodes {
				peers[[2]int{i, k}] = dial(t, from, to) // itself included
				wantName(t, peers[[2]int{i, k}], fmt.Sprintf("node-%d", k+1))
			}
		}
		if c.Dials() != 9 || c.Conns() != 9 {
			t.Errorf("%d dials, %d connections, want 9 and 9", c.Dials(), c.Conns())
		}
		link := c.Link("node-2:8080", "node-1")
		if link != c.Link("node-1", "node-2") || link.Conns() != 2 {
			t.Errorf("link of node-1 and node-2 has %d connections, want 2", link.Conns())
		}
		link.Cut()
		<-peers[[2]int{0, 1}].Done()
		<-peers[[2]int{1, 0}].Done()
		for _, ends := range [][2]int{{0, 2}, {2, 0}, {1, 2}, {2, 1}, {0, 0}} {
			wantName(t, peers[ends], fmt.Sprintf("node-%d", ends[1]+1)) // the other links go on
		}
		c.Cut()
		for _, p := range peers {
			<-p.Done()
		}
	})
}

// Faults of the network hold for all links, and those of one link after them.
func TestNetworkFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := netrontest.NewCluster(t, 3, once, tasks)
		a, b, d := c.Nodes[0], c.Nodes[1], c.Nodes[2]
		old := dial(t, a, b)
		call := func(p *netron.Peer, want time.Duration) {
			t.Helper()
			start := time.Now()
			wantName(t, p, p.ID())
			if d := time.Since(start); d != want {
				t.Errorf("call to %s took %v, want %v", p.ID(), d, want)
			}
		}
		c.Delay(10 * time.Millisecond)
		call(old, 20*time.Millisecond)
		call(dial(t, a, d), 20*time.Millisecond) // a link that was not there
		c.Link("node-1", "node-2").Delay(time.Second)
		call(old, 2*time.Second)
		call(dial(t, d, b), 20*time.Millisecond)
		c.Delay(0)
		time.Sleep(time.Minute)
		call(old, 0)

		c.Refuse()
		if _, err := a.Dial(t.Context(), b.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial = %v, want ECONNREFUSED", err)
		}
		c.Link(a.Name(), b.Name()).Allow()
		dial(t, a, b)
		if _, err := a.Dial(t.Context(), d.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial = %v, want ECONNREFUSED", err)
		}
		c.Allow()
		dial(t, a, d)

		c.Throttle(1)
		c.Throttle(0)
		c.Stall()
		<-old.Done()
		if !errors.Is(old.Err(), engine.ErrPeerDead) {
			t.Errorf("the connection ended with %v, want ErrPeerDead", old.Err())
		}
		c.Resume()
		call(dial(t, a, b), 0)
	})
}

func TestRestart(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		c := netrontest.NewCluster(t, 2, once, tasks)
		a, b := c.Nodes[0], c.Nodes[1]
		for range 3 {
			p := dial(t, a, b)
			failed := wait(t, p)
			wantName(t, p, "node-2")
			b = b.Restart()
			if err := <-failed; err == nil {
				t.Error("a call to the old node ended without an error")
			}
			<-p.Done()
		}
		wantName(t, dial(t, a, b), "node-2")

		// The same by hand, with a time in between.
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Dial(t.Context(), b.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial of a closed node = %v, want ECONNREFUSED", err)
		}
		b = c.Start(t, b.Addr(), tasks)
		wantName(t, dial(t, a, b), "node-2")
	})
}

// Plain connections use the network like nodes do.
func TestNetworkOfOthers(t *testing.T) {
	everywhere(t, func(t *testing.T) {
		var n netrontest.Network
		ln, err := n.Listen("echo:7")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			io.Copy(c, c)
		}()
		dial := n.Dialer("visitor")
		c, err := dial(t.Context(), "tcp", "echo:7")
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("hi"))
		buf := make([]byte, 2)
		if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "hi" {
			t.Errorf("Read = %q, %v, want hi", buf, err)
		}
		c.Close()

		if _, err := n.Listen("echo:7"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Listen at a taken address = %v, want EADDRINUSE", err)
		}
		if _, err := n.Listen("echo"); err == nil || !strings.Contains(err.Error(), "missing port") {
			t.Errorf("Listen without a port = %v, want missing port", err)
		}
		if _, err := dial(t.Context(), "tcp", "echo:8"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("Dial of another port = %v, want ECONNREFUSED", err)
		}
		_, err = dial(t.Context(), "tcp", "ecco:7")
		if dns, ok := errors.AsType[*net.DNSError](err); !ok || !dns.IsNotFound {
			t.Errorf("Dial of an unknown host = %v, want no such host", err)
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := n.Listen("echo:7")
		if err != nil {
			t.Fatalf("Listen at a free address = %v", err)
		}
		ln.Close() // which is not the listener there any more
		if _, err := n.Listen("echo:7"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Listen at a taken address = %v, want EADDRINUSE", err)
		}
		again.Close()
		if n.Dials() != 3 || n.Link("visitor", "echo").Dials() != 2 {
			t.Errorf("%d dials, %d of them to echo, want 3 and 2", n.Dials(), n.Link("visitor", "echo").Dials())
		}
	})
}

// failing is a test that remembers why it failed.
type failing struct {
	*testing.T
	text string
}

func (f *failing) Fatalf(format string, args ...any) {
	f.text = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// What cannot start ends the test with a reason, and leaves nothing.
func TestStartFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var n netrontest.Network
		n.Start(t, "taken:1")
		for name, tc := range map[string]struct {
			addr, want string
			opts       []netrontest.Option
		}{
			"address": {addr: "taken:1", want: "address already in use"},
			"no port": {addr: "name", want: "missing port"},
			"config":  {addr: "a:1", want: "does not begin with a slash", opts: []netrontest.Option{netrontest.Configure(func(cfg *netron.Config) { cfg.Path = "x" })}},
			"prepare": {addr: "b:1", want: "no services today", opts: []netrontest.Option{netrontest.Prepare(func(*netron.Node) error { return errors.New("no services today") }), tasks}},
		} {
			f := &failing{T: t}
			done := make(chan struct{})
			go func() {
				defer close(done)
				n.Start(f, tc.addr, tc.opts...)
			}()
			<-done
			if !strings.Contains(f.text, tc.want) {
				t.Errorf("%s: Start failed with %q, want %q", name, f.text, tc.want)
			}
		}
		if _, err := n.Listen("b:1"); err != nil {
			t.Errorf("Listen where nothing could start = %v", err)
		}
	})
}
