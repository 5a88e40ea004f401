package netron_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// namer says at which node it is.
type namer struct{ id string }

func (n namer) Name(context.Context) string { return n.id }

type namerClient struct {
	Name func(ctx context.Context) (string, error)
}

// offers exposes a namer.
func offers(qualified string) netrontest.Option {
	return netrontest.Prepare(func(n *netron.Node) error { return n.Expose(qualified, namer{n.ID()}) })
}

// town is nodes in memory that find each other.
type town struct {
	t   *testing.T
	net netrontest.Network
}

func newTown(t *testing.T) *town { return &town{t: t} }

// start starts a node at name:8080.
func (w *town) start(name string, opts ...netrontest.Option) *netrontest.Node {
	w.t.Helper()
	return w.net.Start(w.t, name+":8080", append([]netrontest.Option{netrontest.Discover()}, opts...)...)
}

// find returns a service at whichever nodes have it.
func (w *town) find(n *netron.Node, service string, opts ...netron.FindOption) (*netron.Client, *namerClient) {
	w.t.Helper()
	c, err := n.Find(service, opts...)
	if err != nil {
		w.t.Fatal(err)
	}
	names, err := netron.QueryClient[namerClient](w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return c, names
}

// settle lets everybody hear of everything.
func settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// wantNames wants that calls are answered by these nodes and no others.
func wantNames(t *testing.T, c *namerClient, want ...string) {
	t.Helper()
	got := make(map[string]bool)
	for range 50 {
		name, err := c.Name(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got[name] = true
	}
	var names []string
	for name := range got {
		names = append(names, name)
	}
	slices.Sort(names)
	if !slices.Equal(names, want) {
		t.Errorf("calls were answered by %v, want %v", names, want)
	}
}

func TestFind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		one := w.start("one", offers("namer@1.0.0"))
		two := w.start("two", offers("namer@1.1.0"))
		client := w.start("client")
		settle()
		_, all := w.find(client.Node, "namer")
		settle() // all are connected
		wantNames(t, all, "one", "two")
		_, newer := w.find(client.Node, "namer@^1.1", netron.FindPolicy(balance.RoundRobin))
		wantNames(t, newer, "two")
		if n := w.net.Conns(); n != 2 {
			t.Errorf("%d connections for two clients of two nodes", n)
		}

		three := w.start("three", offers("namer@1.2.0"))
		settle()
		wantNames(t, all, "one", "three", "two")
		wantNames(t, newer, "three", "two")

		if err := three.Conceal("namer@1.2.0"); err != nil {
			t.Fatal(err)
		}
		settle()
		wantNames(t, all, "one", "two")
		if err := client.Expose("namer@1.3.0", namer{"client itself"}); err != nil {
			t.Fatal(err)
		}
		settle()
		wantNames(t, newer, "client itself", "two")
		if n := w.net.Link("client", "client").Dials(); n != 0 {
			t.Errorf("the node has dialled itself %d times", n)
		}
		for _, n := range []*netrontest.Node{one, two} {
			if err := n.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
		}
		settle()
		wantNames(t, all, "client itself")
		if nodes := client.Discovery().Nodes(); len(nodes) != 2 {
			t.Errorf("the nodes are %v", nodes)
		}
	})
}

func TestDiscoveryConfig(t *testing.T) {
	static, err := discover.NewStatic()
	if err != nil {
		t.Fatal(err)
	}
	defer static.Close(t.Context())
	for name, cfg := range map[string]netron.DiscoveryConfig{
		"two registries":  {Redis: &discover.Config{}, Registry: static},
		"no URL":          {Redis: &discover.Config{URL: "http://redis"}},
		"no address":      {Registry: static, Advertise: "ws://a b:1"},
		"another scheme":  {Registry: static, Advertise: "http://host:80"},
		"a great weight":  {Registry: static, Weight: 1 << 30},
		"no weight":       {Redis: &discover.Config{}, Weight: -1},
		"a broken zone":   {Registry: static, Zone: "\xff"},
		"broken metadata": {Registry: static, Metadata: map[string]string{"a": "\xff"}},
	} {
		if n, err := netron.New(netron.Config{Discovery: cfg}); err == nil {
			t.Errorf("%s: New() is no error", name)
			n.Close()
		}
	}
	if err := static.Err(); err != nil {
		t.Errorf("a registry that was refused is closed: %v", err)
	}
}

func TestFindErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		client := w.start("client")
		if _, err := client.Find("a b@@"); netron.CodeOf(err) != netron.InvalidArgument {
			t.Errorf("Find() of no service = %v", err)
		}
		if _, err := client.Find("a", netron.FindPolicy(77)); netron.CodeOf(err) != netron.InvalidArgument {
			t.Errorf("Find() with no policy = %v", err)
		}
		c, err := client.Find("nobody")
		if err != nil {
			t.Fatal(err)
		}
		settle()
		began := time.Now()
		err = c.Call(t.Context(), "name", nil)
		if netron.CodeOf(err) != netron.Unavailable || time.Since(began) > 0 {
			t.Errorf("a call of what nobody offers = %v after %v", err, time.Since(began))
		}
		client.Close()
		if _, err := client.Find("namer"); err == nil {
			t.Error("Find() at a closed node is no error")
		}
		if err := c.Call(t.Context(), "name", nil); netron.CodeOf(err) != netron.Unavailable {
			t.Errorf("a call of a client of a closed node = %v", err)
		}

		alone := w.net.Start(t, "alone:8080")
		if alone.Discovery() != nil {
			t.Error("there is a registry")
		}
		if _, err := alone.Find("namer"); netron.CodeOf(err) != netron.FailedPrecondition {
			t.Errorf("Find() without discovery = %v", err)
		}
		if err := alone.Announce("host:80"); netron.CodeOf(err) != netron.FailedPrecondition {
			t.Errorf("Announce() without discovery = %v", err)
		}
	})
}

// TestFound shows what others see of a node.
func TestFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		viewer := w.start("viewer", netrontest.Configure(func(c *netron.Config) { c.Discovery.Hidden = true }))
		full := w.start("full", offers("namer@1.0.0"), netrontest.Configure(func(c *netron.Config) {
			c.Path = "/netron"
			c.Discovery.Advertise, c.Discovery.Zone, c.Discovery.Weight = "wss://proxy", "north", 3
			c.Discovery.Metadata = map[string]string{"build": "7"}
		}))
		settle()
		nodes := viewer.Discovery().Nodes()
		if len(nodes) != 1 {
			t.Fatalf("the nodes are %v", nodes)
		}
		n := nodes[0]
		if n.ID != "full" || n.URL() != "wss://proxy:8080" || n.Zone != "north" || n.Weight != 3 || n.Metadata["build"] != "7" ||
			!slices.Equal(n.Services, []discover.Service{{Name: "namer", Version: "1.0.0"}}) {
			t.Errorf("the node is %+v", n)
		}
		full.StopListening()
		settle()
		if nodes := viewer.Discovery().Nodes(); len(nodes) != 0 {
			t.Errorf("the nodes after StopListening are %v", nodes)
		}
		if err := full.Expose("late@1.0.0", namer{"x"}); err != nil {
			t.Error(err)
		}
		settle()
		if nodes := viewer.Discovery().Nodes(); len(nodes) != 0 {
			t.Errorf("the nodes after another Expose are %v", nodes)
		}
	})
}

// TestFindPath calls a node that listens at a path, and that is served by a handler.
func TestFindPath(t *testing.T) {
	w, all := newTown(t), discover.NewHub()
	hub := func(cfg netron.Config) *netron.Node {
		reg, err := discover.NewMemory(all, discover.Config{})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Discovery.Registry = reg
		n, err := netron.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return n
	}
	server, client := hub(netron.Config{ID: "server", Path: "/netron"}), hub(netron.Config{ID: "client"})
	if err := server.Expose("namer@1.0.0", namer{"server"}); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/netron", server.Handler())
	web := httptest.NewServer(mux)
	t.Cleanup(web.Close)
	if err := server.Announce("nonsense"); err == nil {
		t.Error("Announce() of no address is no error")
	}
	if err := server.Announce(web.Listener.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := server.Discovery().WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Discovery().Fresh(t.Context(), "namer"); err != nil {
		t.Fatal(err)
	}
	_, names := w.find(client, "namer")
	wantNames(t, names, "server")
}

// TestFindShares shows that clients share connections, and give them back.
func TestFindShares(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		both := netrontest.Prepare(func(n *netron.Node) error { return n.Expose("other@1.0.0", namer{n.ID()}) })
		w.start("one", offers("namer@1.0.0"), both)
		two := w.start("two", offers("namer@1.0.0"), both)
		client := w.start("client")
		settle()
		first, names := w.find(client.Node, "namer")
		second, others := w.find(client.Node, "other")
		third, again := w.find(client.Node, "namer@*")
		settle()
		for _, c := range []*namerClient{names, others, again} {
			wantNames(t, c, "one", "two")
		}
		wantConns := func(want int) {
			t.Helper()
			settle()
			if n := w.net.Conns(); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
		}
		wantConns(2)
		first.Close()
		first.Close()
		wantConns(2)
		wantNames(t, others, "one", "two")
		if err := two.Conceal("namer@1.0.0"); err != nil {
			t.Fatal(err)
		}
		settle()
		wantNames(t, again, "one")
		wantNames(t, others, "one", "two")
		second.Close()
		wantConns(1)
		wantNames(t, again, "one")
		third.Close()
		wantConns(0)
	})
}

// callers call a service until they are stopped, and count what fails.
type callers struct {
	wg            sync.WaitGroup
	stopped       atomic.Bool
	calls, failed atomic.Int64
	mu            sync.Mutex
	first         error // guarded by mu
}

func startCallers(ctx context.Context, n int, pause time.Duration, call func(context.Context) error) *callers {
	c := &callers{}
	for range n {
		c.wg.Go(func() {
			for !c.stopped.Load() {
				err := call(ctx)
				c.calls.Add(1)
				if err != nil && c.failed.Add(1) == 1 {
					c.mu.Lock()
					c.first = err
					c.mu.Unlock()
				}
				time.Sleep(pause)
			}
		})
	}
	return c
}

// stop stops them, and wants that no call has failed.
func (c *callers) stop(t *testing.T) {
	t.Helper()
	c.stopped.Store(true)
	c.wg.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	t.Logf("%d calls, %d failed", c.calls.Load(), c.failed.Load())
	if c.failed.Load() > 0 || c.calls.Load() == 0 {
		t.Errorf("%d of %d calls have failed, the first one: %v", c.failed.Load(), c.calls.Load(), c.first)
	}
}

// underLoad starts three instances, s0 to s2, and calls of them by a node named client.
func (w *town) underLoad(ctx context.Context, pause time.Duration) (servers []*netrontest.Node, names *namerClient, load *callers) {
	w.t.Helper()
	w.net.Delay(time.Millisecond)
	for i := range 3 {
		servers = append(servers, w.start(fmt.Sprint("s", i), offers("namer@1.0.0")))
	}
	client := w.start("client")
	settle()
	_, names = w.find(client.Node, "namer")
	return servers, names, startCallers(ctx, 8, pause, func(ctx context.Context) error {
		_, err := names.Name(ctx)
		return err
	})
}

// TestFindRolling replaces all instances in turn, under load: no call fails.
func TestFindRolling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		servers, names, load := w.underLoad(t.Context(), 3*time.Millisecond)
		for i, s := range servers {
			time.Sleep(time.Second)
			if err := s.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			servers[i] = s.Restart()
		}
		time.Sleep(2 * time.Second)
		wantNames(t, names, "s0", "s1", "s2")
		load.stop(t)
	})
}

// TestFindKill cuts instances off without a word: no idempotent call fails.
func TestFindKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		servers, names, load := w.underLoad(netron.Idempotent(t.Context()), 20*time.Millisecond)
		for round := range 6 {
			time.Sleep(12 * time.Second) // the pauses between attempts to connect do not grow
			w.net.Link("client", servers[round%3].Name()).Refuse()
			w.net.Link("client", servers[round%3].Name()).Cut()
			time.Sleep(2 * time.Second)
			w.net.Allow()
		}
		time.Sleep(40 * time.Second)
		wantNames(t, names, "s0", "s1", "s2")
		load.stop(t)
	})
}

// TestFindWaits shows that the first calls wait for the view, and those after for nothing.
func TestFindWaits(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	redis.Kill()
	cfg := netron.Config{Discovery: netron.DiscoveryConfig{Redis: &discover.Config{URL: redis.URL(), RetryDelay: 10 * time.Millisecond}}}
	client := newNode(t, cfg)
	c, err := client.Find("namer")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.Call(ctx, "name", nil); netron.CodeOf(err) != netron.DeadlineExceeded {
		t.Errorf("a call without Redis = %v", err)
	}
	answered := make(chan error, 1)
	var name string
	go func() { answered <- c.Call(t.Context(), "name", &name) }()

	cfg.ID, cfg.Addr = "server", "127.0.0.1:0"
	server := newNode(t, cfg)
	if err := server.Expose("namer@1.0.0", namer{"server"}); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Errorf("Start() without Redis = %v", err)
	}
	redis.Restart()
	// It may have found Redis before the server was registered there.
	for err := <-answered; err != nil; err = c.Call(t.Context(), "name", &name) {
		if netron.CodeOf(err) != netron.Unavailable {
			t.Fatal(err)
		}
	}
	if name != "server" {
		t.Errorf("%q has answered", name)
	}
}

// TestFindPanic has an option of Discovery.Dial panic the first time: nobody who waits for that
// attempt waits for ever.
func TestFindPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newTown(t)
		w.start("one", offers("namer@1.0.0"))
		var dials atomic.Int64
		dial := w.net.Dialer("client")
		client := w.start("client", netrontest.Configure(func(c *netron.Config) {
			c.Logger = quiet
			c.Discovery.Dial = []netron.DialOption{netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
				if dials.Add(1) == 1 {
					time.Sleep(time.Second) // others wait by now
					panic("a mistake")
				}
				return dial(ctx, network, addr)
			})}
		}))
		settle()
		ctx := netron.RetryUnsent(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			c, err := client.Find("namer")
			if err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				if err := c.Call(ctx, "name", nil); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n := dials.Load(); n != 2 {
			t.Errorf("%d dials, want the second one to be shared", n)
		}
	})
}
