package bench

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/rpc"
)

// Mode is the API that a run of calls uses.
type Mode uint8

// The modes of a run.
const (
	Funcs    Mode = iota // a struct of funcs on this side, Expose on the other
	Typed                // rpc.Method and rpc.Handle
	Callback             // rpc.MethodFunc and rpc.Handle: no goroutine waits
)

// String returns the name of the workload.
func (m Mode) String() string {
	switch m {
	case Typed:
		return "rpc-typed"
	case Callback:
		return "callback"
	default:
		return "rpc"
	}
}

// RPC describes a run of calls. Zero fields mean the documented default.
type RPC struct {
	URL      string        // of the server. Required
	Conns    int           // connections. Default 1
	Inflight int           // calls in flight on each connection. Default 64
	Payload  int           // bytes that each call sends and gets back; 0 means add(a, b)
	Rate     float64       // calls per second in all; 0 means a closed loop. Not with Callback
	Warmup   time.Duration // Default a fifth of Duration
	Duration time.Duration // Default 3 s
	Mode     Mode          // the API
	Inline   bool          // call methods that are declared inline
	Pid      int           // of the server process, to measure it too; 0 means not
	Config   netron.Config // of the client's node
	Dial     []netron.DialOption
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
	if r.Mode == Callback && r.Rate > 0 {
		return errors.New("bench: callbacks run as a closed loop, without a rate")
	}
	return nil
}

// Run makes the calls and reports them. It returns an error if a call fails or
// gives a wrong result.
func (r RPC) Run(ctx context.Context) (*Result, error) {
	if err := r.setDefaults(); err != nil {
		return nil, err
	}
	node, err := netron.New(r.Config)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	callers := make([]*caller, r.Conns)
	for i := range callers {
		peer, err := node.Dial(ctx, r.URL, r.Dial...)
		if err != nil {
			return nil, err
		}
		if callers[i], err = r.caller(ctx, peer); err != nil {
			return nil, err
		}
	}

	run := &rpcRun{RPC: r, start: time.Now()}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	run.cancel = cancel
	defer context.AfterFunc(ctx, func() { run.stopped.Store(true) })()

	used := make(chan usage, 1)
	go func() { used <- run.measure(ctx, run.read) }()
	workers := r.Conns * r.Inflight
	histograms := make([]*hdrhistogram.Histogram, workers)
	var wg sync.WaitGroup
	for w := range workers {
		if r.Mode == Callback {
			wg.Add(1)
			// Callbacks of a connection run one at a time.
			if histograms[w] = histograms[w%r.Conns]; histograms[w] == nil {
				histograms[w] = newHistogram()
			}
			s := &slot{run: run, histogram: histograms[w], done: wg.Done}
			s.start = callers[w%r.Conns].starter(s.end)
			s.begin()
			continue
		}
		histograms[w] = newHistogram()
		wg.Go(func() { run.work(ctx, w, callers[w%r.Conns].call, histograms[w]) })
	}
	wg.Wait()
	u := <-used
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("bench: %s: %w", r.Mode, err)
	}
	if r.Mode == Callback {
		histograms = histograms[:min(r.Conns, workers)]
	}
	total := merged(histograms)
	if total.TotalCount() == 0 {
		return nil, fmt.Errorf("bench: %s: no call ended within the measured time; measure longer", r.Mode)
	}
	return r.result(total, u), nil
}

// caller makes calls and checks their results.
type caller struct {
	call func(context.Context) error
	// starter returns a function that starts a call whose outcome fn gets. Not with
	// Funcs.
	starter func(fn func(context.Context, error)) (start func(context.Context) error)
}

func (r *RPC) caller(ctx context.Context, peer *netron.Peer) (*caller, error) {
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
	if r.Mode == Funcs {
		service := demo.ServiceName
		if r.Inline {
			service = inlineFuncsService
		}
		client, err := netron.Query[struct {
			Add  func(ctx context.Context, a, b float64) (float64, error)
			Echo func(ctx context.Context, v []byte) ([]byte, error)
		}](ctx, peer, service)
		if err != nil {
			return nil, err
		}
		if r.Payload > 0 {
			return &caller{call: func(ctx context.Context) error { return checkEcho(client.Echo(ctx, payload)) }}, nil
		}
		return &caller{call: func(ctx context.Context) error { return checkSum(client.Add(ctx, 5, 3)) }}, nil
	}
	service := TypedService
	if r.Inline {
		service = inlineTypedService
	}
	stub, err := peer.Service(ctx, service)
	if err != nil {
		return nil, err
	}
	if r.Payload > 0 {
		return typedCaller(stub, "echo", echoArgs{payload}, checkEcho), nil
	}
	return typedCaller(stub, "add", addArgs{5, 3}, checkSum), nil
}

// typedCaller returns a caller of one method with always the same arguments.
func typedCaller[A, R any](stub *netron.Stub, method string, args A, check func(R, error) error) *caller {
	call, start := rpc.Method[A, R](stub, method), rpc.MethodFunc[A, R](stub, method)
	return &caller{
		call: func(ctx context.Context) error { return check(call(ctx, args)) },
		starter: func(fn func(context.Context, error)) func(context.Context) error {
			end := func(ctx context.Context, result R, err error) { fn(ctx, check(result, err)) }
			return func(ctx context.Context) error { return start(ctx, args, end) }
		},
	}
}

// rpcRun is a run under way.
type rpcRun struct {
	RPC
	start   time.Time
	cancel  context.CancelCauseFunc
	stopped atomic.Bool // the context has ended
}

// until returns the end of the measured time, since the start.
func (r *rpcRun) until() time.Duration { return r.Warmup + r.Duration }

// record notes a call that began and ended at these times since the start, if both
// are within the measured time.
func (r *rpcRun) record(h *hdrhistogram.Histogram, begin, end time.Duration) {
	if begin > r.Warmup && end < r.until() {
		_ = h.RecordValue(min(int64(end-begin), maxTracked)) // within range
	}
}

// work makes calls until the run is over.
func (r *rpcRun) work(ctx context.Context, w int, call func(context.Context) error, h *hdrhistogram.Histogram) {
	var interval time.Duration
	begin := time.Since(r.start)
	if r.Rate > 0 {
		workers := r.Conns * r.Inflight
		interval = time.Duration(float64(time.Second) * float64(workers) / r.Rate)
		begin = interval * time.Duration(w) / time.Duration(workers)
	}
	// The calls have the default time limit of the library, as those of users have;
	// the end of ctx is looked at between them.
	background := context.Background()
	for !r.stopped.Load() && begin < r.until() {
		if interval > 0 {
			sleep(ctx, r.start.Add(begin))
			if ctx.Err() != nil {
				return
			}
		}
		if err := call(background); err != nil {
			r.cancel(err)
			return
		}
		end := time.Since(r.start)
		r.record(h, begin, end)
		if interval > 0 {
			begin += interval
		} else {
			begin = end
		}
	}
}

// slot makes one call after the other by callbacks.
type slot struct {
	run       *rpcRun
	histogram *hdrhistogram.Histogram
	start     func(context.Context) error
	done      func()
	at        time.Duration // the start of the call under way, since that of the run
}

func (s *slot) begin() {
	s.at = time.Since(s.run.start)
	s.next(context.Background())
}

func (s *slot) next(ctx context.Context) {
	if err := s.start(ctx); err != nil {
		s.run.cancel(err)
		s.done()
	}
}

// end takes the outcome of a call, on the read owner, and makes the next one.
func (s *slot) end(ctx context.Context, err error) {
	now := time.Since(s.run.start)
	if err != nil {
		s.run.cancel(err)
		s.done()
		return
	}
	s.run.record(s.histogram, s.at, now)
	if now >= s.run.until() || s.run.stopped.Load() {
		s.done()
		return
	}
	s.at = now
	s.next(ctx)
}

// usage is what a run took between warm-up and end.
type usage struct {
	clientCPU, serverCPU time.Duration
	mallocs              uint64
	serverRSS            int64
	questions            uint64 // of a registry to Redis
}

// measure notes the state of both processes, which read returns, when the warm-up is over,
// and returns what changed until the end.
func (r *rpcRun) measure(ctx context.Context, read func() usage) usage {
	sleep(ctx, r.start.Add(r.Warmup))
	before := read()
	sleep(ctx, r.start.Add(r.until()))
	after := read()
	after.clientCPU -= before.clientCPU
	after.serverCPU -= before.serverCPU
	after.mallocs -= before.mallocs
	after.questions -= before.questions
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
		Workload:  r.Mode.String(),
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
	if r.Inline {
		res.Workload += "-inline"
	}
	return res
}
