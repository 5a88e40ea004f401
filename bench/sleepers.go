package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
)

// Sleepers describes a run of fast calls on one connection, first alone, then while
// other connections, and at last their own, have handlers that sleep.
type Sleepers struct {
	URL      string        // of the server. Required
	Conns    int           // connections with sleepers. Default 10
	Each     int           // sleepers on each. Default 1,000
	Inflight int           // fast calls in flight. Default 8
	Duration time.Duration // of each part, at most 4 s. Default 3 s
	Config   netron.Config // of the client's node
	Dial     []netron.DialOption
}

// SleepersResult is the latency of the fast calls of a [Sleepers] run.
type SleepersResult struct {
	Alone    *Result // no other connection
	Beside   *Result // beside connections full of handlers that are asleep all the time
	Churning *Result // beside as many that sleep for a second, one after the other
	Among    *Result // with 100 handlers that sleep for a second each on their own connection
}

// Run makes the calls and reports their latency in the three situations.
func (s Sleepers) Run(ctx context.Context) (*SleepersResult, error) {
	if s.Conns == 0 {
		s.Conns = 10
	}
	if s.Each == 0 {
		s.Each = 1000
	}
	if s.Inflight == 0 {
		s.Inflight = 8
	}
	if s.Duration == 0 {
		s.Duration = 3 * time.Second
	}
	if s.Conns < 0 || s.Each < 0 || s.Inflight < 0 || s.Duration < 0 {
		return nil, errors.New("bench: a negative number of connections, sleepers, calls or seconds")
	}
	if s.Duration > maxSleepers {
		return nil, fmt.Errorf("bench: sleepers for more than %v would pass the time limit of calls", maxSleepers)
	}
	beside := func(first, again time.Duration) disturbance {
		return func(ctx context.Context, node *netron.Node, _ *netron.Peer, ended *atomic.Int64) error {
			for range s.Conns {
				peer, err := node.Dial(ctx, s.URL, s.Dial...)
				if err != nil {
					return err
				}
				if err := keepAsleep(ctx, peer, s.Each, first, again, ended); err != nil {
					return err
				}
			}
			return nil
		}
	}
	among := func(ctx context.Context, _ *netron.Node, peer *netron.Peer, ended *atomic.Int64) error {
		return keepAsleep(ctx, peer, 100, 0, time.Second, ended)
	}
	var res SleepersResult
	for _, part := range []struct {
		result  **Result
		disturb disturbance
	}{
		{&res.Alone, nil},
		{&res.Beside, beside(maxSleepers+500*time.Millisecond, time.Second)},
		{&res.Churning, beside(0, time.Second)},
		{&res.Among, among},
	} {
		var err error
		if *part.result, err = s.fast(ctx, part.disturb); err != nil {
			return nil, err
		}
	}
	return &res, nil
}

// maxSleepers is the longest part of a run, which all sleepers must outlast within
// the default time limit of their calls.
const maxSleepers = 4 * time.Second

// disturbance starts what goes on beside the fast calls, until ctx ends. It counts
// the sleeping calls that have ended.
type disturbance func(ctx context.Context, node *netron.Node, fast *netron.Peer, ended *atomic.Int64) error

// fast measures the fast calls while what disturb has started goes on.
func (s *Sleepers) fast(ctx context.Context, disturb disturbance) (*Result, error) {
	node, err := netron.New(s.Config)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	peer, err := node.Dial(ctx, s.URL, s.Dial...)
	if err != nil {
		return nil, err
	}
	r := RPC{Mode: Typed, Conns: 1, Inflight: s.Inflight, Warmup: s.Duration / 10, Duration: s.Duration * 9 / 10}
	if err := r.setDefaults(); err != nil {
		return nil, err
	}
	caller, err := r.caller(ctx, peer)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var asleep atomic.Int64
	if disturb != nil {
		if err := disturb(ctx, node, peer, &asleep); err != nil {
			return nil, err
		}
	}
	run := &rpcRun{RPC: r, start: time.Now(), cancel: cancel}
	total := newHistogram()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range r.Inflight {
		wg.Go(func() {
			h := newHistogram()
			run.work(ctx, w, caller.call, h)
			mu.Lock()
			defer mu.Unlock()
			total.Merge(h)
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("bench: sleepers: %w", err)
	}
	res := r.result(total, usage{})
	res.Workload, res.Sleepers = "sleepers", asleep.Load()
	return res, nil
}

// keepAsleep keeps n sleeping calls under way on the peer until ctx ends. The first
// of each sleeps for first; if that is 0, for different parts of again, so that they
// do not end together. The later ones sleep for again.
func keepAsleep(ctx context.Context, peer *netron.Peer, n int, first, again time.Duration, ended *atomic.Int64) error {
	stub, err := peer.Service(ctx, TypedService)
	if err != nil {
		return err
	}
	sleep := rpc.MethodFunc[sleepArgs, struct{}](stub, "sleep")
	for i := range n {
		var next func(callbackCtx context.Context, _ struct{}, err error)
		next = func(callbackCtx context.Context, _ struct{}, err error) {
			ended.Add(1)
			if err == nil && ctx.Err() == nil {
				_ = sleep(callbackCtx, sleepArgs{again.Seconds() * 1e3}, next) // it ends with the connection
			}
		}
		d := first
		if d == 0 {
			d = again * time.Duration(i) / time.Duration(n)
		}
		if err := sleep(context.Background(), sleepArgs{d.Seconds() * 1e3}, next); err != nil {
			return err
		}
	}
	return nil
}
