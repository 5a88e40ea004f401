package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/d-e-v-grid/netron/discover"
)

// Discovery describes a run of lookups in a registry over Redis. The nodes that it finds are
// registered under a prefix of their own, live while it runs, and are removed at the end.
type Discovery struct {
	URL      string        // of Redis. Required
	Fresh    bool          // every lookup is by Registry.Fresh, which asks Redis; else by Registry.Lookup
	Callers  int           // at the same time. Default 64 of Fresh; those of Lookup are as many as processors
	Nodes    int           // that are registered. Default 200
	Warmup   time.Duration // Default a fifth of Duration
	Duration time.Duration // Default 3 s
}

func (d *Discovery) setDefaults() error {
	if !d.Fresh {
		d.Callers = runtime.GOMAXPROCS(0)
	}
	if d.Callers == 0 {
		d.Callers = 64
	}
	if d.Nodes == 0 {
		d.Nodes = 200
	}
	if d.Duration == 0 {
		d.Duration = 3 * time.Second
	}
	if d.Warmup == 0 {
		d.Warmup = d.Duration / 5
	}
	if d.Callers < 0 || d.Nodes < 0 || d.Duration < 0 || d.Warmup < 0 {
		return errors.New("bench: a negative number of callers, nodes or seconds")
	}
	return nil
}

func (d *Discovery) workload() string {
	if d.Fresh {
		return "discovery-redis"
	}
	return "discovery-local"
}

// Run looks services up and reports how fast. It returns an error if a lookup fails or
// finds nobody.
func (d Discovery) Run(ctx context.Context) (result *Result, err error) {
	if err := d.setDefaults(); err != nil {
		return nil, err
	}
	prefix := newPrefix()
	registry, err := discover.New(discover.Config{URL: d.URL, Prefix: prefix, MaxNodes: -1, Cleanup: -1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer registry.Close(context.Background())
	if _, err := registry.Fresh(ctx, serviceName(0)); err != nil {
		return nil, err // what is wrong with Redis
	}
	f, err := newFleet(d.URL, prefix, d.Nodes)
	if err != nil {
		return nil, err
	}
	defer func() {
		if e := f.remove(context.WithoutCancel(ctx)); err == nil {
			err = e
		}
	}()
	if err := f.write(ctx); err != nil {
		return nil, err
	}
	if _, err := registry.Fresh(ctx, serviceName(0)); err != nil {
		return nil, err
	}
	if n := len(registry.Nodes()); n != d.Nodes {
		return nil, fmt.Errorf("bench: %s: the registry has %d nodes of %d", d.workload(), n, d.Nodes)
	}
	return d.measure(ctx, registry, f)
}

// discoveryRun is a Discovery under way.
type discoveryRun struct {
	rpcRun
	registry *discover.Registry
	fleet    *fleet
	queries  []string
	lookups  atomic.Int64 // within the measured time, of callers that have ended; not of Fresh
}

// measure has the nodes live, and callers look for them.
func (d *Discovery) measure(ctx context.Context, registry *discover.Registry, f *fleet) (*Result, error) {
	run := &discoveryRun{registry: registry, fleet: f, queries: f.queries()}
	run.rpcRun = rpcRun{RPC: RPC{Warmup: d.Warmup, Duration: d.Duration}, start: time.Now()}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run.cancel = cancel
	defer context.AfterFunc(ctx, func() { run.stopped.Store(true) })()
	living, end := context.WithCancel(ctx)
	var keeper, callers sync.WaitGroup
	keeper.Go(func() {
		if err := f.keep(living); err != nil {
			cancel(err)
		}
	})
	used := make(chan usage, 1)
	go func() { used <- run.rpcRun.measure(ctx, func() usage { return run.read(ctx) }) }()
	histograms := make([]*hdrhistogram.Histogram, d.Callers)
	for c := range histograms {
		if d.Fresh {
			histograms[c] = newHistogram()
			callers.Go(func() { run.ask(ctx, c, histograms[c]) })
			continue
		}
		histograms[c] = newFineHistogram()
		callers.Go(func() { run.lookUp(c, histograms[c]) })
	}
	callers.Wait()
	u := <-used
	end()
	keeper.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("bench: %s: %w", d.workload(), err)
	}
	return d.result(run, histograms, u)
}

// ask makes calls of Fresh until the run is over.
func (r *discoveryRun) ask(ctx context.Context, c int, h *hdrhistogram.Histogram) {
	ctx, cancel := context.WithCancel(ctx) // each caller has its own, as those of users do
	defer cancel()
	query := r.queries[c%len(r.queries)]
	r.work(ctx, c, func(context.Context) error {
		nodes, err := r.registry.Fresh(ctx, query)
		if err == nil && len(nodes) == 0 {
			err = fmt.Errorf("nobody offers %s", query)
		}
		return err
	}, h)
}

// lookupsPerSample is how many lookups are made for each whose time is taken: reading the
// clock costs as much as a few of them.
const lookupsPerSample = 1024

// lookUp makes calls of Lookup until the run is over. The latencies include that of
// reading the clock.
func (r *discoveryRun) lookUp(c int, h *hdrhistogram.Histogram) {
	var n int64
	defer func() { r.lookups.Add(n) }()
	next := c
	begin := time.Since(r.start)
	for !r.stopped.Load() && begin < r.until() {
		found := true
		for range lookupsPerSample - 1 {
			if next++; next >= len(r.queries) {
				next = 0
			}
			found = found && len(r.registry.Lookup(r.queries[next])) > 0
		}
		at := time.Since(r.start)
		found = found && len(r.registry.Lookup(r.queries[next])) > 0
		end := time.Since(r.start)
		if !found {
			r.cancel(errors.New("a lookup has found nobody"))
			return
		}
		r.record(h, at, end)
		if begin > r.Warmup && end < r.until() {
			n += lookupsPerSample
		}
		begin = end
	}
}

func (r *discoveryRun) read(ctx context.Context) usage {
	u := r.rpcRun.read()
	u.serverCPU, u.serverRSS = r.fleet.redisUsage(ctx)
	u.questions = r.registry.Stats().Fences
	return u
}

func (d *Discovery) result(run *discoveryRun, parts []*hdrhistogram.Histogram, u usage) (*Result, error) {
	h, conns := newFineHistogram(), 0
	for _, part := range parts {
		h.Merge(part)
	}
	n := float64(run.lookups.Load())
	if d.Fresh {
		n, conns = float64(h.TotalCount()), 1
	}
	if n == 0 || h.TotalCount() == 0 {
		return nil, fmt.Errorf("bench: %s: no lookup ended within the measured time; measure longer", d.workload())
	}
	micros := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	result := &Result{
		Workload:  d.workload(),
		Conns:     conns,
		Inflight:  d.Callers,
		OpsPerS:   n / d.Duration.Seconds(),
		P50us:     micros(50),
		P99us:     micros(99),
		P999us:    micros(99.9),
		ClientCPU: u.clientCPU.Seconds() / n * 1e6,
		AllocsPer: float64(u.mallocs) / n,
		SrvRSSMB:  float64(u.serverRSS) / 1e6,
		Nodes:     d.Nodes,
	}
	if d.Fresh {
		result.ServerCPU = u.serverCPU.Seconds() / n * 1e6
		result.QuestionsS = float64(u.questions) / d.Duration.Seconds()
	}
	return result, nil
}
