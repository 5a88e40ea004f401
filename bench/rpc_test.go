package bench_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/bench"
)

// serve returns the URL of a server for the runs.
func serve(t *testing.T) string {
	t.Helper()
	node, err := netron.New(netron.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := bench.Expose(node); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := node.ServeListener(ctx, ln); err != nil {
			t.Errorf("ServeListener = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return "ws://" + ln.Addr().String()
}

func TestRPC(t *testing.T) {
	url := serve(t)
	for _, r := range []bench.RPC{
		{Inflight: 4, Conns: 2},
		{Payload: 100, Mode: bench.Typed, Inflight: 4},
		{Payload: 100, Mode: bench.Callback, Inflight: 4},
		{Mode: bench.Callback, Inline: true, Inflight: 4, Conns: 2},
		{Inline: true, Inflight: 4},
		{Rate: 1000},
	} {
		r.URL, r.Duration = url, time.Second // long enough for a call on a busy machine
		result, err := r.Run(t.Context())
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if result.OpsPerS <= 0 || result.P50us <= 0 {
			t.Errorf("%+v: %v calls per second, p50 %v us, want some", r, result.OpsPerS, result.P50us)
		}
	}
}

// TestRPCEnds checks that a run does not outlast its ctx, and that one without
// calls is no result.
func TestRPCEnds(t *testing.T) {
	url := serve(t)
	for name, r := range map[string]bench.RPC{"closed loop": {}, "open loop": {Rate: 0.001, Inflight: 1}} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		r.URL, r.Duration = url, time.Hour
		if _, err := r.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: Run = %v, want context.DeadlineExceeded", name, err)
		}
		cancel()
	}
	r := bench.RPC{URL: url, Rate: 0.001, Inflight: 1, Duration: 10 * time.Millisecond}
	if result, err := r.Run(t.Context()); err == nil {
		t.Errorf("Run without calls = %v, want an error", result)
	}
	if _, err := (bench.RPC{Conns: -1}).Run(t.Context()); err == nil {
		t.Error("Run with -1 connections = nil, want an error")
	}
}

func TestSleepers(t *testing.T) {
	r, err := bench.Sleepers{URL: serve(t), Conns: 2, Each: 50, Duration: 300 * time.Millisecond}.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i, part := range []*bench.Result{r.Alone, r.Beside, r.Churning, r.Among} {
		if part.OpsPerS <= 0 {
			t.Errorf("part %d: no calls", i)
		}
	}
	if r.Beside.Sleepers != 0 || r.Churning.Sleepers == 0 || r.Among.Sleepers == 0 {
		t.Errorf("%d, %d and %d sleepers ended, want none, some and some", r.Beside.Sleepers, r.Churning.Sleepers, r.Among.Sleepers)
	}
	if _, err := (bench.Sleepers{Duration: time.Minute}).Run(t.Context()); err == nil {
		t.Error("a minute of sleepers = nil, want an error")
	}
}

func TestIdle(t *testing.T) {
	run := bench.Idle{URL: serve(t), Conns: 100, Settle: 10 * time.Millisecond, Duration: 100 * time.Millisecond}
	if _, err := run.Run(t.Context()); err == nil {
		t.Error("Run without a process to measure = nil, want an error")
	}
	run.Pid = os.Getpid() // both sides are measured
	r, err := run.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" && r.SrvRSSMB <= 0 {
		t.Errorf("%v: no memory was measured", r)
	}
}
