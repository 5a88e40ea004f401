package netron_test

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

var outageFor = flag.Duration("outage", 3*time.Second, "how long Redis is stopped by TestOutages")

// outages is servers and clients that find each other through a Redis that fails, with calls
// all the time.
type outages struct {
	t         *testing.T
	heartbeat time.Duration
	servers   []*netron.Node
	clients   []*netron.Node
	load      *callers
}

// startOutages has the heartbeat in proportion to the outage, so that nodes would expire
// during it.
func startOutages(t *testing.T, cfg discover.Config) *outages {
	t.Helper()
	o := &outages{t: t, heartbeat: min(*outageFor/6, 5*time.Second)}
	cfg.Heartbeat, cfg.Logger = o.heartbeat, quiet
	cfg.Timeout = o.heartbeat / 2
	for i := range 3 {
		n := newNode(t, netron.Config{ID: fmt.Sprint("server", i), Addr: "127.0.0.1:0", Discovery: netron.DiscoveryConfig{Redis: &cfg}})
		if err := n.Expose("namer@1.0.0", namer{n.ID()}); err != nil {
			t.Fatal(err)
		}
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		o.servers = append(o.servers, n)
	}
	var names []*namerClient
	for range 2 {
		n := newNode(t, netron.Config{Discovery: netron.DiscoveryConfig{Redis: &cfg}})
		o.clients = append(o.clients, n)
	}
	o.wantWell("at first")
	for _, n := range o.clients {
		c, err := n.Find("namer")
		if err != nil {
			t.Fatal(err)
		}
		service, err := netron.QueryClient[namerClient](t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, service)
	}
	o.load = startCallers(t.Context(), 8, time.Millisecond, func(ctx context.Context) error {
		for _, c := range names {
			if _, err := c.Name(ctx); err != nil {
				return err
			}
		}
		return nil
	})
	return o
}

// wantWell waits until all views are as they should be, and logs how long that took.
func (o *outages) wantWell(when string) {
	o.t.Helper()
	began := time.Now()
	for _, n := range slices.Concat(o.servers, o.clients) {
		reg := n.Discovery()
		waitFor(o.t, when+" a view is whole", func() bool {
			nodes, err := reg.Fresh(o.t.Context(), "namer")
			return err == nil && len(nodes) == len(o.servers) && reg.Err() == nil && reg.Stats().Suspect == 0
		})
	}
	o.t.Logf("%s all is well after %v, a heartbeat is %v", when, time.Since(began), o.heartbeat)
}

// wantTrouble waits until everybody has noticed.
func (o *outages) wantTrouble(what string) {
	o.t.Helper()
	for _, n := range slices.Concat(o.servers, o.clients) {
		waitFor(o.t, "it notices "+what, func() bool { return n.Discovery().Err() != nil })
	}
}

// finish wants that no call has failed and that no view has ever lost a node.
func (o *outages) finish() {
	o.t.Helper()
	for _, n := range o.clients {
		if nodes := n.Discovery().Lookup("namer"); len(nodes) != len(o.servers) {
			o.t.Errorf("a view has %d nodes", len(nodes))
		}
	}
	o.load.stop(o.t)
}

// TestOutages has Redis flushed, killed, restarted and stopped for longer than a node lives
// in it, under load: no call fails, and every view recovers.
func TestOutages(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	o := startOutages(t, discover.Config{URL: redis.URL()})
	admin, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis.Addr()}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	flush := admin.Do(t.Context(), admin.B().Flushall().Build()).Error()
	admin.Close()
	if flush != nil {
		t.Fatal(flush)
	}
	o.wantWell("after a flush")
	redis.Kill()
	o.wantTrouble("a death")
	redis.Restart()
	o.wantWell("after a death")
	redis.Pause()
	o.wantTrouble("silence")
	time.Sleep(*outageFor)
	redis.Continue()
	o.wantWell("after silence")
	redis.Kill()
	time.Sleep(*outageFor)
	redis.Restart()
	o.wantWell("after a long absence")
	o.finish()
}

// TestOutageFailover has sentinels replace the master, under load.
func TestOutageFailover(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	host, port, _ := strings.Cut(master.Addr(), ":")
	redistest.Start(t, "--replicaof", host+" "+port)
	sentinel := redistest.StartSentinel(t, master)
	admin, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{sentinel.Addr()}, DisableCache: true, ForceSingleClient: true})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	waitFor(t, "the sentinel knows the replica", func() bool {
		replicas, _ := admin.Do(t.Context(), admin.B().SentinelReplicas().Master("main").Build()).ToArray()
		return len(replicas) == 1
	})
	o := startOutages(t, discover.Config{Addrs: []string{sentinel.Addr()}, MasterSet: "main"})
	master.Kill()
	o.wantTrouble("the death of the master")
	o.wantWell("after a failover")
	o.finish()
}

// TestFindForeign calls a service at a node whose record was written by a TypeScript peer of
// version 0.6.
func TestFindForeign(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	server, _ := serve(t, netron.Config{})
	if err := server.Expose("namer@1.0.0", namer{"foreign"}); err != nil {
		t.Fatal(err)
	}
	ts, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis.Addr()}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer ts.Close()
	const id = "d0a64b16-6f0b-4c0e-9a8b-5e1f3f2c7a11"
	for _, command := range [][]string{
		{
			"HSET", "netron:discovery:nodes:" + id, "address", server.Addr(),
			"services", `[{"name":"namer","version":"1.0.0"}]`, "timestamp", "1764500000000",
		},
		{"SET", "netron:discovery:heartbeat:" + id, "1", "EX", "15"},
		{"SADD", "netron:discovery:index:nodes", id},
	} {
		if err := ts.Do(t.Context(), ts.B().Arbitrary(command...).Build()).Error(); err != nil {
			t.Fatal(err)
		}
	}
	client := newNode(t, netron.Config{Discovery: netron.DiscoveryConfig{Redis: &discover.Config{URL: redis.URL()}}})
	c, err := client.Find("namer@^1")
	if err != nil {
		t.Fatal(err)
	}
	names, err := netron.QueryClient[namerClient](t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	wantNames(t, names, "foreign")
}

// TestDiscoveryEnds has nodes leave Redis whenever they end, and end whatever Redis does.
func TestDiscoveryEnds(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	admin, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{redis.Addr()}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	begin := func() *netron.Node {
		n := newNode(t, netron.Config{Addr: "127.0.0.1:0", Discovery: netron.DiscoveryConfig{Redis: &discover.Config{URL: redis.URL(), Logger: quiet}}})
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 30 {
		n := begin()
		if i%3 > 0 {
			if err := n.Discovery().WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		end := n.Close
		if i%2 > 0 {
			end = func() error { return n.Shutdown(t.Context()) }
		}
		if err := end(); err != nil {
			t.Error(err)
		}
		keys, err := admin.Do(t.Context(), admin.B().Keys().Pattern("*").Build()).AsStrSlice()
		if err != nil || len(keys) > 0 {
			t.Errorf("Redis has %v after the end of a node, %v", keys, err)
		}
	}
	one, two := begin(), begin()
	for _, n := range []*netron.Node{one, two} {
		if err := n.Discovery().WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	redis.Pause()
	defer redis.Continue()
	began := time.Now()
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if err := two.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	t.Logf("two nodes have ended in %v while Redis was stopped", time.Since(began))
}
