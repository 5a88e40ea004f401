package netron_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// hubNode returns a node that finds those of a hub, and does not serve.
func hubNode(t *testing.T, hub *discover.Hub, cfg netron.Config) *netron.Node {
	t.Helper()
	reg, err := discover.NewMemory(hub, discover.Config{})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Discovery.Registry = reg
	return newNode(t, cfg)
}

// wantURLs wants that a node finds these nodes.
func wantURLs(t *testing.T, when string, viewer *netron.Node, want ...string) {
	t.Helper()
	nodes, err := viewer.Discovery().Fresh(t.Context(), "namer")
	if err != nil {
		t.Fatal(err)
	}
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.URL())
	}
	if strings.Join(urls, " ") != strings.Join(want, " ") {
		t.Errorf("%s: found at %v, want %v", when, urls, want)
	}
}

// TestListenerBreaks has listeners of a node break, which goes on: it is found where it
// still listens, and nowhere when it does not.
func TestListenerBreaks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var network netrontest.Network
		hub := discover.NewHub()
		server, viewer := hubNode(t, hub, netron.Config{}), hubNode(t, hub, netron.Config{})
		if err := server.Expose("namer", namer{"s"}); err != nil {
			t.Fatal(err)
		}
		serve := func(addr string) (fail func()) {
			t.Helper()
			ln, err := network.Listen(addr)
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- server.ServeListener(context.Background(), ln) }()
			synctest.Wait()
			return func() {
				ln.Close()
				if err := <-ended; err == nil || errors.Is(err, netron.ErrClosed) {
					t.Errorf("ServeListener of a broken listener = %v", err)
				}
				synctest.Wait()
			}
		}
		first, second := serve("one:1"), serve("two:2")
		third := serve("three:3")
		wantURLs(t, "three listeners", viewer, "ws://one:1")
		second()
		wantURLs(t, "the second has failed", viewer, "ws://one:1")
		first()
		wantURLs(t, "the first has failed", viewer, "ws://three:3")
		third()
		wantURLs(t, "all have failed", viewer)
		if err := server.Expose("other", namer{"s"}); err != nil {
			t.Fatal(err)
		}
		fourth := serve("four:4")
		wantURLs(t, "another one", viewer, "ws://four:4")
		fourth()
		ln, err := network.Listen("five:5")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.ServeListener(context.Background(), ln) }() // until the node is closed
		synctest.Wait()
		wantURLs(t, "the last one", viewer, "ws://five:5")
		server.Close()
		wantURLs(t, "closed", viewer)
	})
}

// TestAdvertised shows under which URL nodes with listeners and paths of all kinds are found,
// and that they can be called there.
func TestAdvertised(t *testing.T) {
	hub := discover.NewHub()
	caller := hubNode(t, hub, netron.Config{})
	for _, path := range []string{"", "/", "/a b", "/ü/%41", "/x?y=1#z", "//"} {
		server := hubNode(t, hub, netron.Config{Addr: "127.0.0.1:0", Path: path})
		if err := server.Expose("namer", namer{path}); err != nil {
			t.Fatal(err)
		}
		if err := server.Start(); err != nil {
			t.Fatal(err)
		}
		if err := server.Discovery().WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*netron.Node{caller, server} {
			wantURLs(t, path, n, "ws://"+server.Addr())
			c, err := n.Find("namer")
			if err != nil {
				t.Fatal(err)
			}
			var name string
			if err := c.Call(t.Context(), "name", &name); err != nil || name != path {
				t.Errorf("path %q: Name() = %q, %v", path, name, err)
			}
			if n == server && len(n.Peers()) > 1 {
				t.Errorf("path %q: the node has dialled itself", path)
			}
			c.Close()
		}
		server.Close()
	}
}

// TestUnixListener shows that a node with such a listener needs another address to be found
// under, or is hidden.
func TestUnixListener(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  netron.DiscoveryConfig
		want []string
		fail bool
	}{
		{name: "neither", fail: true},
		{name: "no port", cfg: netron.DiscoveryConfig{Advertise: "proxy"}, fail: true},
		{name: "advertised", cfg: netron.DiscoveryConfig{Advertise: "wss://proxy:443"}, want: []string{"wss://proxy:443"}},
		{name: "hidden", cfg: netron.DiscoveryConfig{Hidden: true}},
	} {
		hub := discover.NewHub()
		server, viewer := hubNode(t, hub, netron.Config{Discovery: tt.cfg}), hubNode(t, hub, netron.Config{})
		if err := server.Expose("namer", namer{"s"}); err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- server.ServeListener(ctx, ln) }()
		if tt.fail {
			if err := <-served; netron.CodeOf(err) != netron.InvalidArgument {
				t.Errorf("%s: ServeListener = %v, want it to say that the address is none", tt.name, err)
			}
			cancel()
			continue
		}
		if tt.want != nil {
			waitFor(t, tt.name, func() bool {
				nodes, err := viewer.Discovery().Fresh(t.Context(), "namer")
				return err == nil && len(nodes) == 1
			})
		}
		wantURLs(t, tt.name, viewer, tt.want...)
		cancel()
		if err := <-served; err != nil {
			t.Errorf("%s: ServeListener = %v", tt.name, err)
		}
	}
}

// TestRegistryMisused gives nodes registries that are not theirs.
func TestRegistryMisused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := func() *discover.Registry {
			reg, err := discover.NewMemory(nil, discover.Config{})
			if err != nil {
				t.Fatal(err)
			}
			return reg
		}
		closed := memory()
		closed.Close(t.Context())
		if _, err := netron.New(netron.Config{Discovery: netron.DiscoveryConfig{Registry: closed}}); !errors.Is(err, discover.ErrClosed) {
			t.Errorf("New() with a closed registry = %v", err)
		}
		reg := memory()
		defer reg.Close(t.Context())
		nothing := netron.DiscoveryConfig{Registry: reg, Dial: []netron.DialOption{nil}}
		if _, err := netron.New(netron.Config{Discovery: nothing}); netron.CodeOf(err) != netron.InvalidArgument {
			t.Errorf("New() with a nil option = %v", err)
		}

		var network netrontest.Network
		serve := func(n *netron.Node, addr string) error {
			ln, err := network.Listen(addr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			return n.ServeListener(ctx, ln)
		}
		taken := memory()
		if err := taken.Register(t.Context(), discover.Node{ID: "x", Address: "x:1"}); err != nil {
			t.Fatal(err)
		}
		n := newNode(t, netron.Config{ID: "y", Discovery: netron.DiscoveryConfig{Registry: taken}})
		if err := serve(n, "y:1"); netron.CodeOf(err) != netron.FailedPrecondition {
			t.Errorf("ServeListener() with the registry of another node = %v", err)
		}

		early := memory()
		n = newNode(t, netron.Config{Discovery: netron.DiscoveryConfig{Registry: early}})
		c, err := n.Find("namer")
		if err != nil {
			t.Fatal(err)
		}
		early.Close(t.Context())
		began := time.Now()
		if err := c.Call(t.Context(), "name", nil); netron.CodeOf(err) != netron.Unavailable || !errors.Is(err, discover.ErrClosed) || time.Since(began) > 0 {
			t.Errorf("a call with a registry that was closed = %v after %v", err, time.Since(began))
		}
		if err := serve(n, "z:1"); !errors.Is(err, discover.ErrClosed) {
			t.Errorf("ServeListener() with a registry that was closed = %v", err)
		}
		n.Close()
		if err := n.Announce("z:1"); !errors.Is(err, netron.ErrClosed) {
			t.Errorf("Announce() of a closed node = %v", err)
		}
	})
}

// TestClosedBeforeRead closes a registry that has never reached Redis: calls that wait for it
// fail then.
func TestClosedBeforeRead(t *testing.T) {
	reg, err := discover.New(discover.Config{URL: "redis://127.0.0.1:1", Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	n := newNode(t, netron.Config{CallTimeout: -1, Discovery: netron.DiscoveryConfig{Registry: reg}})
	c, err := n.Find("namer")
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() { failed <- c.Call(t.Context(), "name", nil) }()
	reg.Close(t.Context())
	if err := <-failed; !errors.Is(err, discover.ErrClosed) {
		t.Errorf("a call with a registry that was closed = %v", err)
	}
}

// TestTakenID shows that a node whose id another process has still finds others, and that
// errors of calls do not speak of that.
func TestTakenID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		one := w.start("one", offers("namer"))
		settle()
		w.start("again", netrontest.Configure(func(c *netron.Config) { c.ID = "one" }))
		two := w.start("two", offers("other"))
		time.Sleep(10 * time.Second)
		if err := one.Discovery().Err(); !errors.Is(err, discover.ErrTaken) {
			t.Fatalf("Err() = %v", err)
		}
		c, err := one.Find("nobody")
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Call(t.Context(), "name", nil); netron.CodeOf(err) != netron.Unavailable || errors.Is(err, discover.ErrTaken) {
			t.Errorf("a call = %v", err)
		}
		_, others := w.find(one.Node, "other")
		wantNames(t, others, two.ID())
	})
}

// TestFindOptions shows that options cannot part the dialler from who gives connections back.
func TestFindOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		w.start("s", offers("namer"))
		client := w.start("client")
		settle()
		c, names := w.find(client.Node, "namer", func(c *balance.Config) {
			c.Release = func(*netron.Peer) {}
			c.Resolver = nil
			c.Dial = nil
		})
		wantNames(t, names, "s")
		c.Close()
		settle()
		if n := w.net.Conns(); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}
