package balance_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// TestReplaced replaces a service at instances that live by another release of it: no call
// fails, what is under way is answered, and no connection is made for that.
func TestReplaced(t *testing.T) {
	for _, policy := range []balance.Policy{balance.LeastLoaded, balance.ByKey} {
		for _, isShared := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a", "b")
				w.Delay(time.Millisecond)
				options := []func(*balance.Config){withPolicy(policy)}
				if isShared {
					options = append(options, func(c *balance.Config) { c.Release = func(p *rpc.Peer) { p.Close() } })
				}
				c, k := w.client(options...)
				ctx := balance.WithKey(t.Context(), "key")
				l := w.load(ctx, k, time.Millisecond)
				for _, version := range []string{"1.1.0", "1.2.0", "1.3.0"} {
					for name, n := range w.nodes {
						time.Sleep(100 * time.Millisecond)
						w.workers[name].delay.Store(int64(50 * time.Millisecond))
						time.Sleep(100 * time.Millisecond)
						before := n.Services()[0]
						if err := n.Expose("worker@"+version, w.workers[name]); err != nil {
							t.Error(err)
						}
						if err := n.Conceal(before); err != nil {
							t.Error(err)
						}
					}
				}
				time.Sleep(time.Second)
				l.stop()
				if len(l.errs) > 0 {
					t.Errorf("%v: %d calls have failed: %v", policy, len(l.errs), l.errs[0])
				}
				for _, s := range c.Stats() {
					if s.Failures > 0 || s.Err != nil || w.dialled(s.Instance.Address) > 1 {
						t.Errorf("%v: after %d dials an instance is %+v", policy, w.dialled(s.Instance.Address), s)
					}
				}
			})
		}
	}
}

// TestReplacedAlone replaces a service at the only instance, takes it away, has it come back,
// and cuts the connection meanwhile.
func TestReplacedAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		_, k := w.client()
		n := w.nodes["a"]
		want := func(when string, code netron.Code) {
			t.Helper()
			if _, err := k.Work(t.Context(), 1); rpc.CodeOf(err) != code {
				t.Errorf("%s: Work() = %v, want %v", when, err, code)
			}
		}
		replace := func(before, after string) {
			t.Helper()
			if before != "" {
				if err := n.Conceal(before); err != nil {
					t.Fatal(err)
				}
			}
			if after != "" {
				if err := n.Expose(after, w.workers["a"]); err != nil {
					t.Fatal(err)
				}
			}
		}
		replace("worker@1.0.0", "worker@1.1.0")
		want("replaced", 0)
		replace("worker@1.1.0", "worker@1.1.0")
		want("the same again", 0)
		replace("worker@1.1.0", "")
		want("taken away", rpc.NotFound)
		want("still away", rpc.NotFound)
		w.Cut()
		time.Sleep(time.Minute)
		replace("", "worker@1.2.0")
		time.Sleep(time.Minute)
		want("back, as nobody knows", rpc.NotFound) // and has it asked for
		time.Sleep(time.Second)
		want("back", 0)
		replace("worker@1.2.0", "")
		want("taken away again", rpc.NotFound)
		w.registry.remove(addressOf("a"))
		time.Sleep(time.Second)
		want("nobody", rpc.Unavailable)
		if conns := w.Conns(); conns != 0 {
			t.Errorf("%d connections to who has left", conns)
		}
		replace("", "worker@1.3.0")
		w.registry.add(balance.Instance{Address: addressOf("a")})
		time.Sleep(time.Second)
		want("back among the instances", 0)
	})
}

// TestReleases has connections end by all there is: each that was made is given back once.
func TestReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		caller := w.Start(t, "hasty:1", netrontest.Configure(quiet), netrontest.Configure(func(c *netron.Config) { c.MaxReconnectAttempts = 1 }))
		w.start("a")
		w.start("b")
		all := []balance.Instance{{Address: addressOf("a")}, {Address: addressOf("b")}}
		w.registry.add(all...)
		var mu sync.Mutex
		had := make(map[*rpc.Peer]int)
		made := 0
		dial := func(ctx context.Context, address string) (*rpc.Peer, error) {
			p, err := caller.Dial(ctx, address)
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				had[p]++
				made++
			}
			return p, err
		}
		release := func(p *rpc.Peer) {
			mu.Lock()
			defer mu.Unlock()
			had[p]--
			p.Close()
		}
		c, _ := w.client(func(c *balance.Config) { c.Dial, c.Release = dial, release })
		link := w.Link("hasty", "a")
		for round := range 20 {
			switch round % 4 {
			case 0: // it ends for good
				link.Refuse()
				link.Cut()
				time.Sleep(10 * time.Second)
				link.Allow()
			case 1:
				w.registry.remove(addressOf("a"))
				time.Sleep(time.Second)
				w.registry.add(all[0])
			case 2: // both at once
				link.Refuse()
				link.Cut()
				w.registry.remove(addressOf("a"))
				time.Sleep(time.Second)
				link.Allow()
				w.registry.add(all[0])
			case 3:
				link.Cut()
			}
			time.Sleep(time.Minute)
		}
		c.Close()
		synctest.Wait()
		if made < 10 {
			t.Errorf("%d connections were made, want more", made)
		}
		for p, n := range had {
			if n != 0 {
				t.Errorf("a connection in state %v was given back %d times", p.State(), 1-n)
			}
		}
	})
}
