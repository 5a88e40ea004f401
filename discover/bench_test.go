package discover

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

// newFull returns a registry with 200 nodes, of which each offers 50 of 1,000 services.
func newFull(b *testing.B, cfg Config) *Registry {
	b.Helper()
	cfg.Logger = quiet
	r, err := New(cfg)
	if err != nil {
		b.Fatal(err)
	}
	closeLater(b, r)
	wantReady(b, r)
	ctx := context.Background()
	for i := range 200 {
		n := Node{ID: fmt.Sprintf("node-%03d", i), Address: fmt.Sprintf("10.0.0.%d:8080", i), Instance: "i", Scheme: schemePlain}
		for s := range 50 {
			n.Services = append(n.Services, Service{Name: fmt.Sprintf("service%d", (i*50+s)%1000), Version: fmt.Sprintf("1.%d.0", i/20%4)})
		}
		n.Services = sorted(n.Services)
		f, err := encode(&n, &r.cfg)
		if err != nil {
			b.Fatal(err)
		}
		f[fieldTimestamp] = "1"
		if _, err := r.store.beat(ctx, &beat{id: n.ID, fields: f, ttl: time.Hour}); err != nil {
			b.Fatal(err)
		}
	}
	eventually(b, "all nodes are there", func() bool { return len(r.Nodes()) == 200 })
	return r
}

func BenchmarkLookup(b *testing.B) {
	r := newFull(b, Config{URL: redistest.Start(b).URL()})
	queries := make([]string, 1000)
	for i := range queries {
		queries[i] = fmt.Sprintf("service%d@^1.1", i)
		if len(r.Lookup(queries[i])) == 0 {
			b.Fatalf("nobody offers %s", queries[i])
		}
	}
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if len(r.Lookup("service7@^1.1")) == 0 {
				b.Fatal("nobody")
			}
		}
	})
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		i := 0
		for b.Loop() {
			if i++; len(r.Lookup(queries[i%len(queries)])) == 0 {
				b.Fatal("nobody")
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			for i := 0; pb.Next(); i++ {
				if len(r.Lookup(queries[i%len(queries)])) == 0 {
					b.Error("nobody")
				}
			}
		})
	})
	b.Run("new", func(b *testing.B) { // a query that was not asked since the view has changed
		b.ReportAllocs()
		for b.Loop() {
			q, _ := parseQuery("service7@^1.1")
			found := 0
			for _, n := range r.view.Load().nodes {
				if n.answers(&q) {
					found++
				}
			}
		}
	})
}

// BenchmarkFresh measures lookups that reach Redis: one caller alone, and many.
func BenchmarkFresh(b *testing.B) {
	r := newFull(b, Config{URL: redistest.Start(b).URL()})
	for _, callers := range []int{1, 64, 1000} {
		b.Run(fmt.Sprint(callers), func(b *testing.B) { benchmarkFresh(b, r, callers) })
	}
}

func benchmarkFresh(b *testing.B, r *Registry, callers int) {
	b.ReportAllocs()
	ctx := context.Background()
	took := make([][]time.Duration, callers)
	each := b.N/callers + 1
	before := r.Stats().Fences
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			took[c] = make([]time.Duration, each)
			for i := range each {
				start := time.Now()
				if nodes, err := r.Fresh(ctx, "service7@^1.1"); err != nil || len(nodes) == 0 {
					b.Errorf("Fresh() = %v, %v", nodes, err)
					return
				}
				took[c][i] = time.Since(start)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(len(all))/b.Elapsed().Seconds(), "calls/s")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(len(all))/float64(r.Stats().Fences-before), "calls/question")
}
