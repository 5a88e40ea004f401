package balance_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

type adder struct{}

func (adder) Add(_ context.Context, a, b int) (int, error) { return a + b, nil }

type adderClient struct {
	Add func(ctx context.Context, a, b int) (int, error)
}

// local returns a client over instances in this process, its service, and that of the first of them
// alone.
func local(tb testing.TB, n int, configure func(*balance.Config)) (c *balance.Client, balanced, single *adderClient) {
	tb.Helper()
	peers := make(map[string]*rpc.Peer)
	var instances []balance.Instance
	for i := range n {
		node, err := netron.New(netron.Config{})
		if err != nil {
			tb.Fatal(err)
		}
		tb.Cleanup(func() { _ = node.Close() })
		if err := node.Expose("adder@1.0.0", adder{}); err != nil {
			tb.Fatal(err)
		}
		address := fmt.Sprint(i)
		peers[address] = node.Local()
		instances = append(instances, balance.Instance{Address: address})
	}
	cfg := balance.Config{
		Dial:     func(_ context.Context, address string) (*rpc.Peer, error) { return peers[address], nil },
		Resolver: balance.Static(instances...),
		Release:  func(*rpc.Peer) {},
	}
	configure(&cfg)
	c, err := balance.New("adder", cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = c.Close() })
	if balanced, err = balance.Query[adderClient](tb.Context(), c); err != nil {
		tb.Fatal(err)
	}
	for cfg.Policy != balance.ByKey && slices.ContainsFunc(c.Stats(), func(s balance.InstanceStats) bool { return s.State != balance.StateReady }) {
		time.Sleep(time.Millisecond)
	}
	if single, err = rpc.Query[adderClient](tb.Context(), peers["0"], "adder"); err != nil {
		tb.Fatal(err)
	}
	return c, balanced, single
}

// BenchmarkCall compares calls of one peer with balanced ones, in this process.
func BenchmarkCall(b *testing.B) {
	ctx := context.Background()
	_, _, single := local(b, 3, func(*balance.Config) {})
	call := func(b *testing.B, k *adderClient, ctx context.Context) {
		b.ReportAllocs()
		for b.Loop() {
			if sum, err := k.Add(ctx, 2, 3); sum != 5 || err != nil {
				b.Fatal(sum, err)
			}
		}
	}
	b.Run("one peer", func(b *testing.B) { call(b, single, ctx) })
	for _, policy := range []balance.Policy{balance.LeastLoaded, balance.LowLatency, balance.RoundRobin, balance.Random} {
		for _, n := range []int{3, 16} {
			_, balanced, _ := local(b, n, withPolicy(policy))
			b.Run(fmt.Sprintf("%v of %d", policy, n), func(b *testing.B) { call(b, balanced, ctx) })
		}
	}
	_, balanced, _ := local(b, 16, withPolicy(balance.ByKey))
	b.Run("by key of 16", func(b *testing.B) { call(b, balanced, balance.WithKey(ctx, "user")) })
	b.Run("sticky of 16", func(b *testing.B) { call(b, balanced, balance.Sticky(ctx)) })
}

// BenchmarkPick is what a balanced call costs besides the call.
func BenchmarkPick(b *testing.B) {
	for _, policy := range []balance.Policy{balance.LeastLoaded, balance.LowLatency, balance.RoundRobin, balance.Random, balance.ByKey} {
		for _, n := range []int{3, 16} {
			c, balanced, _ := local(b, n, withPolicy(policy))
			ctx := context.Background()
			if policy == balance.ByKey {
				ctx = balance.WithKey(ctx, "user")
			}
			if _, err := balanced.Add(ctx, 1, 2); err != nil {
				b.Fatal(err)
			}
			r := c.Router()
			b.Run(fmt.Sprintf("%v of %d", policy, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					p, err := r.Pick(ctx, "add")
					if err != nil {
						b.Fatal(err)
					}
					r.Done(ctx, p, nil)
				}
			})
		}
	}
}

// TestCallAllocates checks that picking an instance costs no memory.
func TestCallAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	for policy := range balance.ByKey + 1 {
		_, balanced, _ := local(t, 3, withPolicy(policy))
		for name, ctx := range map[string]context.Context{
			"plain": context.Background(), "keyed": balance.WithKey(context.Background(), "k"), "sticky": balance.Sticky(context.Background()),
		} {
			call := func() {
				if _, err := balanced.Add(ctx, 2, 3); err != nil {
					t.Error(err)
				}
			}
			call()
			if n := testing.AllocsPerRun(500, call); n >= 1 {
				t.Errorf("%v, %s: %v allocations per call, want 0", policy, name, n)
			}
		}
	}
}

// BenchmarkNew measures what it takes to look at many instances.
func BenchmarkNew(b *testing.B) {
	for _, tc := range []struct {
		name      string
		n, subset int
		weight    func(i int) int
	}{
		{"16 of 10000", 10_000, 16, even},
		{"4096 of 10000", 10_000, -1, even},
		{"4096 with weights", 4096, -1, func(i int) int { return 1 + i*i%65_537 }},
	} {
		b.Run(tc.name, func(b *testing.B) {
			all := balance.Static(manyInstances(tc.n, tc.weight)...)
			b.ReportAllocs()
			for b.Loop() {
				c, err := balance.New("x", balance.Config{Dial: unreachable, Resolver: all, Subset: tc.subset})
				if err != nil {
					b.Fatal(err)
				}
				_ = c.Close()
			}
		})
	}
}
