package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/rpc"
)

// RPC describes a run of calls. Zero fields mean the documented default.
type RPC struct {
	URL      string        // of the server. Required
	Conns    int           // connections. Default 1
	Inflight int           // calls in flight on each connection. Default 64
	Payload  int           // bytes that each call sends and gets back; 0 means add(a, b)
	Rate     float64       // calls per second in all; 0 means a closed loop
	Warmup   time.Duration // Default a fifth of Duration
	Duration time.Duration // Default 3 s
	Typed    bool          // use rpc.Method and rpc.Handle in place of a struct of funcs and Expose
	Pid      int           // of the server process, to measure it too; 0 means not
}

func (r *RPC) setDefaults() error {
	if r.Conns == 0 {
		r.Conns = 1
	}
	if r.Inflight == 0 {
		r.Inflight = 64
	}
	if r.Duration == 0 {
		r.Duration = 3 * time.Second
	}
	if r.Warmup == 0 {
		r.Warmup = r.Duration / 5
	}
	if r.Conns < 0 || r.Inflight < 0 || r.Payload < 0 || r.Rate < 0 || r.Duration < 0 || r.Warmup < 0 {
		return errors.New("bench: a negative number of connections, calls, bytes, calls per second or seconds")
	}
	return nil
}

// maxTracked is the longest latency that a histogram tells apart, in nanoseconds.
const maxTracked = int64(60 * time.Second)

// Run makes the calls and reports them. It returns an error if a call fails or
// gives a wrong result.
func (r RPC) Run(ctx context.Context) (*Result, error) {
	if err := r.setDefaults(); err != nil {
		return nil, err
	}
	node, err := netron.New(netron.Config{})
	if err != nil {
		return nil, err
	}
	defer node.Close()
	calls := make([]func(context.Context) error, r.Conns)
	for i := range calls {
		peer, err := node.Dial(ctx, r.URL)
		if err != nil {
			return nil, err
		}
		if calls[i], err = r.call(ctx, peer); err != nil {
			return nil, err
		}
	}

	run := &rpcRun{RPC: r, start: time.Now()}
	run.from = run.start.Add(r.Warmup)
	run.until = run.from.Add(r.Duration)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run.cancel = cancel

	usage := make(chan usage, 1)
	go func() { usage <- run.measure(ctx) }()
	workers := r.Conns * r.Inflight
	histograms := make([]*hdrhistogram.Histogram, workers)
	var wg sync.WaitGroup
	for w := range workers {
		histograms[w] = hdrhistogram.New(100, maxTracked, 3)
		wg.Go(func() { run.work(ctx, w, calls[w%r.Conns], histograms[w]) })
	}
	wg.Wait()
	used := <-usage
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("bench: rpc: %w", err)
	}
	total := hdrhistogram.New(100, maxTracked, 3)
	for _, h := range histograms {
		total.Merge(h)
	}
	if total.TotalCount() == 0 {
		return nil, errors.New("bench: rpc: no call ended within the measured time; measure longer")
	}
	return r.result(total, used), nil
}

// call returns the function that makes one call and checks its result.
func (r *RPC) call(ctx context.Context, peer *netron.Peer) (func(context.Context) error, error) {
	payload := make([]byte, r.Payload)
	checkSum := func(sum float64, err error) error {
		if err == nil && sum != 8 {
			err = fmt.Errorf("add(5, 3) = %v", sum)
		}
		return err
	}
	checkEcho := func(b []byte, err error) error {
		if err == nil && len(b) != len(payload) {
			err = fmt.Errorf("echo of %d bytes gave %d", len(payload), len(b))
		}
		return err
	}
	if r.Typed {
		stub, err := peer.Service(ctx, TypedService)
		if err != nil {
			return nil, err
		}
		if r.Payload > 0 {
			echo := rpc.Method[echoArgs, []byte](stub, "echo")
			return func(ctx context.Context) error { return checkEcho(echo(ctx, echoArgs{payload})) }, nil
		}
		add := rpc.Method[addArgs, float64](stub, "add")
		return func(ctx context.Context) error { return checkSum(add(ctx, addArgs{5, 3})) }, nil
	}
	client, err := netron.Query[struct {
		Add  func(ctx context.Context, a, b float64) (float64, error)
		Echo func(ctx context.Context, v []byte) ([]byte, error)
	}](ctx, peer, demo.ServiceName)
	if err != nil {
		return nil, err
	}
	if r.Payload > 0 {
		return func(ctx context.Context) error { return checkEcho(client.Echo(ctx, payload)) }, nil
	}
	return func(ctx context.Context) error { return checkSum(client.Add(ctx, 5, 3)) }, nil
}

// rpcRun is a run under way.
type rpcRun struct {
	RPC
	start, from, until time.Time
	cancel             context.CancelCauseFunc
}

// work makes calls until the run is over.
func (r *rpcRun) work(ctx context.Context, w int, call func(context.Context) error, h *hdrhistogram.Histogram) {
	var interval time.Duration
	begin := time.Now()
	if r.Rate > 0 {
		workers := r.Conns * r.Inflight
		interval = time.Duration(float64(time.Second) * float64(workers) / r.Rate)
		begin = r.start.Add(interval * time.Duration(w) / time.Duration(workers))
	}
	// The calls have the default time limit of the library, as those of users have;
	// ctx is looked at between them.
	background := context.Background()
	for ctx.Err() == nil && begin.Before(r.until) {
		if interval > 0 {
			sleep(ctx, begin)
			if ctx.Err() != nil {
				return
			}
		}
		if err := call(background); err != nil {
			r.cancel(err)
			return
		}
		end := time.Now()
		if begin.After(r.from) && end.Before(r.until) {
			_ = h.RecordValue(min(int64(end.Sub(begin)), maxTracked)) // within range
		}
		if interval > 0 {
			begin = begin.Add(interval)
		} else {
			begin = end
		}
	}
}

// usage is what a run took between warm-up and end.
type usage struct {
	clientCPU, serverCPU time.Duration
	mallocs              uint64
	serverRSS            int64
}

// measure notes the state of both processes when the warm-up is over, and returns
// what changed until the end.
func (r *rpcRun) measure(ctx context.Context) usage {
	sleep(ctx, r.from)
	before := r.read()
	sleep(ctx, r.until)
	after := r.read()
	after.clientCPU -= before.clientCPU
	after.serverCPU -= before.serverCPU
	after.mallocs -= before.mallocs
	return after
}

// sleep waits until a moment, or until ctx ends.
func sleep(ctx context.Context, until time.Time) {
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (r *rpcRun) read() usage {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	u := usage{clientCPU: ownCPU(), mallocs: mem.Mallocs}
	if r.Pid != 0 {
		u.serverCPU, u.serverRSS = processUsage(r.Pid)
	}
	return u
}

func (r *RPC) result(h *hdrhistogram.Histogram, u usage) *Result {
	n := float64(h.TotalCount())
	seconds := r.Duration.Seconds()
	micros := func(q float64) float64 { return float64(h.ValueAtQuantile(q)) / 1e3 }
	res := &Result{
		Workload:  "rpc",
		Conns:     r.Conns,
		Inflight:  r.Inflight,
		Payload:   r.Payload,
		OpsPerS:   n / seconds,
		MBPerS:    n * float64(2*r.Payload) / seconds / 1e6,
		P50us:     micros(50),
		P99us:     micros(99),
		P999us:    micros(99.9),
		SrvRSSMB:  float64(u.serverRSS) / 1e6,
		ClientCPU: u.clientCPU.Seconds() / n * 1e6,
		ServerCPU: u.serverCPU.Seconds() / n * 1e6,
		AllocsPer: float64(u.mallocs) / n,
	}
	if r.Typed {
		res.Workload = "rpc-typed"
	}
	return res
}
