package balance_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/rpc/balance"
)

// TestPolicies checks how calls that come one after the other, and many at a time, are spread.
func TestPolicies(t *testing.T) {
	const calls = 1200
	for _, tc := range []struct {
		name      string
		configure func(*balance.Config)
		instances []balance.Instance
		together  bool
		want      map[string]int // calls; roughly
		within    int
	}{
		{
			name: "round robin", configure: withPolicy(balance.RoundRobin), instances: []balance.Instance{{Address: "a:1"}, {Address: "b:1"}, {Address: "c:1"}},
			want: map[string]int{"a": 400, "b": 400, "c": 400}, within: 1,
		},
		{
			name: "round robin by weight", configure: withPolicy(balance.RoundRobin), instances: []balance.Instance{{Address: "a:1", Weight: 1}, {Address: "b:1", Weight: 2}, {Address: "c:1", Weight: 3}},
			want: map[string]int{"a": 200, "b": 400, "c": 600}, within: 3,
		},
		{
			name: "random", configure: withPolicy(balance.Random), instances: []balance.Instance{{Address: "a:1"}, {Address: "b:1"}, {Address: "c:1"}},
			want: map[string]int{"a": 400, "b": 400, "c": 400}, within: 120,
		},
		{
			name: "random by weight", configure: withPolicy(balance.Random), instances: []balance.Instance{{Address: "a:1", Weight: 10}, {Address: "b:1", Weight: 10}, {Address: "c:1", Weight: 40}},
			want: map[string]int{"a": 200, "b": 200, "c": 800}, within: 120,
		},
		{
			name: "least loaded, idle", configure: withPolicy(balance.LeastLoaded), instances: []balance.Instance{{Address: "a:1"}, {Address: "b:1"}, {Address: "c:1"}},
			want: map[string]int{"a": 400, "b": 400, "c": 400}, within: 120,
		},
		{
			name: "least loaded, busy", configure: withPolicy(balance.LeastLoaded), instances: []balance.Instance{{Address: "a:1"}, {Address: "b:1"}, {Address: "c:1"}}, together: true,
			want: map[string]int{"a": 400, "b": 400, "c": 400}, within: 15,
		},
		{
			name: "least loaded, busy, by weight", configure: withPolicy(balance.LeastLoaded), instances: []balance.Instance{{Address: "a:1", Weight: 1}, {Address: "b:1", Weight: 2}, {Address: "c:1", Weight: 3}}, together: true,
			want: map[string]int{"a": 200, "b": 400, "c": 600}, within: 30,
		},
		{
			name: "low latency, busy", configure: withPolicy(balance.LowLatency), instances: []balance.Instance{{Address: "a:1"}, {Address: "b:1"}, {Address: "c:1"}}, together: true,
			want: map[string]int{"a": 400, "b": 400, "c": 400}, within: 15,
		},
		{
			name: "own zone", configure: func(c *balance.Config) { c.Zone = "east" },
			instances: []balance.Instance{{Address: "a:1", Zone: "east"}, {Address: "b:1", Zone: "west"}, {Address: "c:1", Zone: "east"}},
			want:      map[string]int{"a": 600, "b": 0, "c": 600}, within: 120,
		},
		{
			name: "no instance in the zone", configure: func(c *balance.Config) { c.Zone = "north"; c.Policy = balance.RoundRobin },
			instances: []balance.Instance{{Address: "a:1", Zone: "east"}, {Address: "b:1", Zone: "west"}, {Address: "c:1", Zone: "east"}},
			want:      map[string]int{"a": 400, "b": 400, "c": 400}, within: 1,
		},
		{
			name: "suspect and unwanted ones", configure: withPolicy(balance.RoundRobin),
			instances: []balance.Instance{{Address: "a:1", Suspect: true}, {Address: "b:1"}, {Address: "c:1", Weight: -1}},
			want:      map[string]int{"a": 0, "b": calls, "c": 0},
		},
		{
			name: "only suspect ones", configure: withPolicy(balance.RoundRobin),
			instances: []balance.Instance{{Address: "a:1", Suspect: true}, {Address: "b:1", Suspect: true}, {Address: "c:1", Suspect: true}},
			want:      map[string]int{"a": 400, "b": 400, "c": 400}, within: 1,
		},
		{
			name: "twice, and without an address", configure: withPolicy(balance.RoundRobin),
			instances: []balance.Instance{{Address: "a:1"}, {}, {ID: "x", Address: "a:1", Weight: 5}, {Address: "b:1"}, {Address: "c:1"}},
			want:      map[string]int{"a": 400, "b": 400, "c": 400}, within: 1,
		},
		{
			name: "huge weights", configure: withPolicy(balance.RoundRobin),
			instances: []balance.Instance{{Address: "a:1", Weight: 1 << 30}, {Address: "b:1", Weight: 1 << 30}, {Address: "c:1", Weight: 1 << 30}},
			want:      map[string]int{"a": 400, "b": 400, "c": 400}, within: 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				for _, name := range []string{"a", "b", "c"} {
					w.start(name)
				}
				w.registry.add(tc.instances...)
				_, k := w.client(tc.configure)
				for _, wk := range w.workers {
					wk.delay.Store(int64(time.Second))
					if !tc.together {
						wk.delay.Store(0)
					}
				}
				if tc.together { // all are measured
					warm := w.load(t.Context(), k, time.Second/2)
					time.Sleep(10 * time.Second)
					warm.stop()
					w.counts()
				}
				l := w.loadOf(t.Context(), k, time.Microsecond, calls)
				l.wait()
				got := w.counts()
				for name, want := range tc.want {
					if n := got[name]; n < want-tc.within || n > want+tc.within {
						t.Errorf("%s got %d calls, want %d±%d; all: %v", name, n, want, tc.within, got)
					}
				}
				if len(l.errs) > 0 {
					t.Errorf("%d errors, the first: %v", len(l.errs), l.errs[0])
				}
			})
		})
	}
}

// TestZoneSpills checks that calls leave the zone only while none of it can be asked.
func TestZoneSpills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.start("near")
		w.start("far")
		w.registry.add(balance.Instance{Address: "near:1", Zone: "east"}, balance.Instance{Address: "far:1", Zone: "west"})
		_, k := w.client(func(c *balance.Config) { c.Zone = "east" })
		expect := func(want string) {
			t.Helper()
			for range 10 {
				if at, err := k.Work(t.Context(), 0); at != want || err != nil {
					t.Errorf("Work = %q, %v, want %q", at, err, want)
				}
			}
		}
		expect("near")
		w.Link("caller", "near").Refuse()
		w.Link("caller", "near").Cut()
		synctest.Wait()
		expect("far")
		w.Link("caller", "near").Allow()
		time.Sleep(time.Minute)
		expect("near")
	})
}

// TestSlowInstance checks that a policy which heeds latencies avoids an instance that is 20 times slower.
func TestSlowInstance(t *testing.T) {
	p99 := make(map[balance.Policy]time.Duration)
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.LeastLoaded, balance.LowLatency} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b", "slow")
			for name, wk := range w.workers {
				wk.delay.Store(int64(10 * time.Millisecond))
				if name == "slow" {
					wk.delay.Store(int64(200 * time.Millisecond))
				}
			}
			_, k := w.client(withPolicy(policy))
			l := w.load(t.Context(), k, 5*time.Millisecond)
			time.Sleep(15 * time.Second)
			l.stop()
			if len(l.errs) > 0 {
				t.Error(l.errs[0])
			}
			p99[policy] = l.quantile(0.99)
			t.Logf("%v: %d calls, p50 %v, p90 %v, p99 %v, max %v, %v", policy, len(l.took), l.quantile(0.5), l.quantile(0.9), l.quantile(0.99), l.quantile(1), w.counts())
		})
	}
	if slow, fast := p99[balance.RoundRobin], p99[balance.LowLatency]; slow < 5*fast {
		t.Errorf("p99 is %v with round robin and %v with low latency, want at least a factor of 5", slow, fast)
	}
}

// TestSlowInstanceRecovers checks that one which is fast again gets its part of the calls.
func TestSlowInstanceRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for _, wk := range w.workers {
			wk.delay.Store(int64(10 * time.Millisecond))
		}
		w.workers["c"].delay.Store(int64(time.Second))
		_, k := w.client(withPolicy(balance.LowLatency))
		l := w.load(t.Context(), k, 20*time.Millisecond)
		time.Sleep(20 * time.Second)
		w.workers["c"].delay.Store(int64(10 * time.Millisecond))
		time.Sleep(2 * time.Minute)
		w.counts()
		time.Sleep(30 * time.Second)
		l.stop()
		if got := w.counts(); got["c"] < got["a"]/2 {
			t.Errorf("calls %v, want c to have its part", got)
		}
	})
}

const numKeys = 300

// keys calls with many keys, and returns where each went.
func keys(t *testing.T, k *workerClient) map[string]string {
	t.Helper()
	at := make(map[string]string)
	for i := range numKeys {
		key := fmt.Sprintf("user-%d", i)
		name, err := k.Work(balance.WithKey(t.Context(), key), i)
		if err != nil {
			t.Fatalf("Work with key %s: %v", key, err)
		}
		at[key] = name
	}
	return at
}

// TestKeys checks that a key stays with its instance, and moves only when that leaves.
func TestKeys(t *testing.T) {
	for _, policy := range []balance.Policy{balance.ByKey, balance.LeastLoaded} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b", "c", "d", "e")
			c, k := w.client(withPolicy(policy))
			before := keys(t, k)
			got := w.counts()
			for name, calls := range got {
				if calls < numKeys/5-35 || calls > numKeys/5+35 {
					t.Errorf("%s has %d keys of %d: %v", name, calls, numKeys, got)
				}
			}
			if again := keys(t, k); !maps.Equal(again, before) {
				t.Error("keys have moved")
			}
			_, other := w.client(withPolicy(policy), func(c *balance.Config) { c.ID = "another" })
			if again := keys(t, other); !maps.Equal(again, before) {
				t.Error("another client has other instances for the keys")
			}
			w.registry.remove("c:1")
			synctest.Wait()
			after := keys(t, k)
			for key, at := range after {
				if at == "c" || before[key] != "c" && at != before[key] {
					t.Errorf("%s has moved from %s to %s", key, before[key], at)
				}
			}
			w.registry.add(balance.Instance{ID: "c", Address: "c:1"})
			synctest.Wait()
			if again := keys(t, k); !maps.Equal(again, before) {
				t.Error("keys are not back")
			}
			w.Link("caller", "d").Refuse() // it cannot be reached, but is there
			w.Link("caller", "d").Cut()
			synctest.Wait()
			for key, at := range keys(t, k) {
				if at == "d" || before[key] != "d" && at != before[key] {
					t.Errorf("%s has moved from %s to %s", key, before[key], at)
				}
			}
			if len(c.Stats()) != 5 {
				t.Error(c.Stats())
			}
		})
	}
}

// TestKeyLoad checks that a key whose instance has too many calls goes to another one, always the
// same.
func TestKeyLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c", "d")
		for _, wk := range w.workers {
			wk.delay.Store(int64(time.Minute))
		}
		_, k := w.client(func(c *balance.Config) { c.Policy, c.KeyLoad = balance.ByKey, 1.5 })
		l := w.load(balance.WithKey(t.Context(), "hot"), k, time.Millisecond)
		time.Sleep(99*time.Millisecond + 1)
		got := w.counts()
		l.stop()
		loads := slices.Sorted(maps.Values(got))
		if loads[3] > 40 || loads[2] < 30 {
			t.Errorf("calls under way %v, want no more than 1.5 times the mean of 25, by turns", got)
		}
	})
}

// TestKeyOfConfig checks keys that the configuration finds, and that only the instances are dialled which
// calls are for.
func TestKeyOfConfig(t *testing.T) {
	type tenant struct{}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for i := range 40 {
			w.registry.add(balance.Instance{Address: fmt.Sprintf("none-%d:1", i)})
		}
		w.registry.change(func(all []balance.Instance) []balance.Instance { return all[:3] })
		c := w.idle(func(c *balance.Config) {
			c.Policy = balance.ByKey
			c.Key = func(ctx context.Context) string { name, _ := ctx.Value(tenant{}).(string); return name }
		})
		var at string
		for i := range 10 {
			var name string
			if err := c.Call(context.WithValue(t.Context(), tenant{}, "acme"), "work", &name, i); err != nil {
				t.Fatal(err)
			}
			if at != "" && name != at {
				t.Errorf("call %d went to %s, the one before to %s", i, name, at)
			}
			at = name
		}
		if w.Dials() != 1 {
			t.Errorf("%d dials, want one", w.Dials())
		}
		var name string
		if err := c.Call(t.Context(), "work", &name, 0); err != nil { // without a key
			t.Error(err)
		}
	})
}

// TestSticky checks that calls of one context stay together, and move when they must.
func TestSticky(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		_, k := w.client(withPolicy(balance.RoundRobin))
		ctx := balance.Sticky(t.Context())
		first, err := k.Work(ctx, 0)
		for range 10 {
			if at, err := k.Work(ctx, 0); at != first || err != nil {
				t.Errorf("Work = %q, %v, want %q", at, err, first)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		if other, err := k.Work(balance.Sticky(t.Context()), 0); other == first || err != nil {
			t.Errorf("another context = %q, %v, want the next instance", other, err)
		}
		w.registry.remove(addressOf(first))
		synctest.Wait()
		second, err := k.Work(ctx, 0)
		if second == first || err != nil {
			t.Errorf("after %s has left: %q, %v", first, second, err)
		}
		w.registry.add(balance.Instance{ID: first, Address: addressOf(first)})
		synctest.Wait()
		for range 10 {
			if at, err := k.Work(ctx, 0); at != second || err != nil {
				t.Errorf("Work = %q, %v, want %q", at, err, second)
			}
		}
		keyed := balance.Sticky(balance.WithKey(t.Context(), "x"))
		want, err := k.Work(balance.WithKey(t.Context(), "x"), 0)
		if at, err2 := k.Work(keyed, 0); at != want || err != nil || err2 != nil {
			t.Errorf("with a key %q, %v, %v, want %q", at, err, err2, want)
		}
	})
}

// TestSkippedTurns checks that the part of an instance that cannot be asked is spread over all others,
// and not given to the next one.
func TestSkippedTurns(t *testing.T) {
	for _, policy := range []balance.Policy{balance.RoundRobin, balance.Random, balance.LeastLoaded} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b", "c", "d")
			_, k := w.client(withPolicy(policy))
			w.Link("caller", "b").Refuse()
			w.Link("caller", "b").Cut()
			synctest.Wait()
			w.counts()
			for i := range 1200 {
				if _, err := k.Work(t.Context(), i); err != nil {
					t.Fatal(err)
				}
			}
			got := w.counts()
			for _, name := range []string{"a", "c", "d"} {
				if n := got[name]; n < 330 || n > 470 || policy == balance.RoundRobin && n != 400 {
					t.Errorf("%v: calls %v, want 400 each", policy, got)
				}
			}
		})
	}
}

// TestWeightsOfIdle checks that weights count while there is one call at a time.
func TestWeightsOfIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		for i, name := range []string{"a", "b", "c"} {
			w.start(name)
			w.registry.add(balance.Instance{Address: addressOf(name), Weight: i + 1})
		}
		_, k := w.client()
		for i := range 1200 {
			if _, err := k.Work(t.Context(), i); err != nil {
				t.Fatal(err)
			}
		}
		got := w.counts()
		for name, want := range map[string]int{"a": 200, "b": 400, "c": 600} {
			if n := got[name]; n < want-90 || n > want+90 {
				t.Errorf("calls %v, want 200, 400 and 600", got)
			}
		}
	})
}
