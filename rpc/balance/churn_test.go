package balance_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// unreachable is a dialler that reaches nobody.
func unreachable(context.Context, string) (*rpc.Peer, error) { return nil, errors.New("unreachable") }

func manyInstances(n int, weight func(i int) int) []balance.Instance {
	all := make([]balance.Instance, n)
	for i := range all {
		all[i] = balance.Instance{Address: fmt.Sprintf("n%05d:1", i), Weight: weight(i)}
	}
	return all
}

func even(int) int { return 1 }

func addressesOf(c *balance.Client) []string {
	var all []string
	for _, s := range c.Stats() {
		all = append(all, s.Instance.Address)
	}
	return all
}

// TestManyInstances checks that clients look at all of very many instances, and that those which
// cannot look at all agree on which.
func TestManyInstances(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n, clients = 10_000, 100
		w := newWorld(t)
		w.registry.add(manyInstances(n, even)...)
		used := make(map[string]bool)
		for i := range clients {
			c := w.idle(func(c *balance.Config) { c.Dial, c.ID = unreachable, fmt.Sprintf("client-%d", i) })
			for _, address := range addressesOf(c) {
				used[address] = true
			}
			_ = c.Close()
		}
		late := 0
		for address := range used {
			if address >= "n05000" {
				late++
			}
		}
		if len(used) < 1400 || late < 600 {
			t.Errorf("%d clients use %d of %d instances, %d of them in the second half", clients, len(used), n, late)
		}
		var before []string
		for i := range 3 {
			c := w.idle(func(c *balance.Config) {
				c.Dial, c.ID, c.Policy = unreachable, fmt.Sprintf("client-%d", i), balance.ByKey
			})
			got := addressesOf(c)
			if before != nil && !slices.Equal(got, before) {
				t.Error("clients with keys know different instances")
			}
			before = got
			rand.Shuffle(n, func(i, j int) { a := w.registry.instances; a[i], a[j] = a[j], a[i] })
			_ = c.Close()
		}
	})
}

// TestFlapping checks an instance that comes and goes all the time: it keeps its connection, and
// there is one goroutine for its end.
func TestFlapping(t *testing.T) {
	for _, busy := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.workers["b"].delay.Store(int64(time.Hour))
			c, k := w.client(withPolicy(balance.RoundRobin))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for w.workers["b"].calls.Load() == 0 && busy {
				go func() { _, _ = k.Work(ctx, 1) }()
				synctest.Wait()
			}
			before := runtime.NumGoroutine()
			for i := range 2000 {
				w.registry.remove("b:1")
				synctest.Wait()
				time.Sleep(time.Millisecond / 2)
				w.registry.add(balance.Instance{ID: "b", Address: "b:1"})
				synctest.Wait()
				time.Sleep(time.Millisecond / 2)
				if n := runtime.NumGoroutine() - before; n > 20 {
					t.Fatalf("%d goroutines after %d changes", n, i)
				}
			}
			if n := w.dialled("b:1"); n > 10 || busy && n != 1 {
				t.Errorf("%d dials in 2 s, busy: %t", n, busy)
			}
			if s := statsOf(c, "b"); s.State != balance.StateReady {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestFlapsWhileDialled checks that calls wait for an instance that was away for a moment while it
// was connected to for the first time.
func TestFlapsWhileDialled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.Link("caller", "a").Stall()
		c := w.idle()
		first := make(chan error, 1)
		go func() { first <- c.Call(t.Context(), "work", nil, 1) }()
		synctest.Wait()
		w.registry.remove("a:1")
		if err := <-first; rpc.CodeOf(err) != rpc.Unavailable {
			t.Errorf("Call = %v, want unavailable", err)
		}
		w.registry.add(balance.Instance{ID: "a", Address: "a:1"})
		synctest.Wait()
		time.AfterFunc(time.Second, func() { w.Link("caller", "a").Resume() })
		if err := c.Call(t.Context(), "work", nil, 1); err != nil {
			t.Errorf("Call = %v, want it to wait for the connection", err)
		}
	})
}

// TestReplacesLost checks that instances which died without a word from the resolver are replaced in
// a subset, and that the others leave when they are back.
func TestReplacesLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 12 {
			names = append(names, fmt.Sprintf("n%d", i))
		}
		w := newWorld(t, names...)
		c, k := w.client(func(c *balance.Config) { c.Subset = 3 })
		first := addressesOf(c)
		for _, address := range first {
			w.Link("caller", address).Refuse()
			w.Link("caller", address).Cut()
		}
		time.Sleep(time.Minute)
		ready := 0
		for _, s := range c.Stats() {
			if s.State == balance.StateReady {
				ready++
			}
		}
		if ready != 3 {
			t.Errorf("%d instances are ready, want 3: %+v", ready, c.Stats())
		}
		if _, err := k.Work(t.Context(), 0); err != nil {
			t.Error(err)
		}
		w.Allow()
		time.Sleep(2 * time.Minute)
		if got := addressesOf(c); !slices.Equal(got, first) {
			t.Errorf("instances %v, want %v as at first", got, first)
		}
	})
}

// TestSubsetOfZones checks which instances are in a subset: those of the own zone and some others;
// of the own zone too those that replace some; and the same when the resolver doubts all.
func TestSubsetOfZones(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i := range 60 {
			w.registry.add(balance.Instance{Address: fmt.Sprintf("n%02d:1", i), Zone: fmt.Sprint("zone-", i%3)})
		}
		up := make(map[string]bool)
		c := w.idle(func(c *balance.Config) {
			c.Zone, c.Subset = "zone-1", 8
			c.Dial = func(_ context.Context, address string) (*rpc.Peer, error) {
				if up[address] {
					return w.caller.Local(), nil
				}
				return nil, errors.New("down")
			}
			c.Release = func(*rpc.Peer) {}
		})
		zones := func() (near, far int) {
			synctest.Wait()
			for _, s := range c.Stats() {
				if s.Instance.Zone == "zone-1" {
					near++
				} else {
					far++
				}
			}
			return near, far
		}
		if near, far := zones(); near != 6 || far != 2 {
			t.Errorf("%d near and %d far ones, want 6 and 2", near, far)
		}
		before := addressesOf(c)
		w.registry.change(func(all []balance.Instance) []balance.Instance {
			for i := range all {
				all[i].Suspect = true
			}
			return all
		})
		synctest.Wait()
		if got := addressesOf(c); !slices.Equal(got, before) {
			t.Errorf("%v when all are suspect, %v before", got, before)
		}
		w.registry.change(func(all []balance.Instance) []balance.Instance {
			for i := range all {
				all[i].Suspect = false
			}
			return all
		})
		_ = w.caller.Expose("worker@1.0.0", &worker{world: w})
		for _, i := range w.registry.Resolve("") {
			up[i.Address] = !slices.Contains(before, i.Address)
		}
		_ = c.Call(t.Context(), "work", nil, 1)
		time.Sleep(time.Minute)
		ready := make(map[string]int)
		for _, s := range c.Stats() {
			if s.State == balance.StateReady {
				ready[s.Instance.Zone]++
			}
		}
		if ready["zone-1"] != 6 {
			t.Errorf("ready instances by zone %v, want 6 of the own one", ready)
		}
	})
}
