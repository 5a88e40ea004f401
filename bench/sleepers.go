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
// other connections, and at last their own, are full of handlers that sleep.
type Sleepers struct {
	URL      string        // of the server. Required
	Conns    int           // connections with sleepers. Default 10
	Each     int           // sleepers on each. Default 1,000
	Inflight int           // fast calls in flight. Default 8
	Duration time.Duration // of each part. Default 3 s
	Config   netron.Config // of the client's node
	Dial     []netron.DialOption
}

// SleepersResult is the latency of the fast calls of a [Sleepers] run.
type SleepersResult struct {
	Alone  *Result // no other connection
	Beside *Result // beside connections full of sleepers
	Among  *Result // with a second sleeper each 10 ms on their own connection
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
	var res SleepersResult
	var err error
	if res.Alone, err = s.fast(ctx, nil); err != nil {
		return nil, err
	}
	if res.Beside, err = s.fast(ctx, func(ctx context.Context, node *netron.Node, _ *netron.Peer, asleep *atomic.Int64) error {
		for range s.Conns {
			peer, err := node.Dial(ctx, s.URL, s.Dial...)
			if err != nil {
				return err
			}
			if err := keepAsleep(ctx, peer, s.Each, asleep); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return nil, err
	}
	res.Among, err = s.fast(ctx, func(ctx context.Context, _ *netron.Node, peer *netron.Peer, asleep *atomic.Int64) error {
		return keepAsleep(ctx, peer, 100, asleep)
	})
	return &res, err
}

// fast measures the fast calls while what disturb has started goes on.
func (s *Sleepers) fast(ctx context.Context, disturb func(context.Context, *netron.Node, *netron.Peer, *atomic.Int64) error) (*Result, error) {
	node, err := netron.New(s.Config)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	peer, err := node.Dial(ctx, s.URL, s.Dial...)
	if err != nil {
		return nil, err
	}
	r := RPC{Mode: Typed, Conns: 1, Inflight: s.Inflight, Duration: s.Duration}
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

// keepAsleep keeps n calls of a second's sleep under way on the peer, whose answers
// come spread over the second, until ctx ends.
func keepAsleep(ctx context.Context, peer *netron.Peer, n int, asleep *atomic.Int64) error {
	stub, err := peer.Service(ctx, TypedService)
	if err != nil {
		return err
	}
	sleep := rpc.MethodFunc[sleepArgs, struct{}](stub, "sleep")
	for i := range n {
		var again func(ctx context.Context, _ struct{}, err error)
		again = func(callbackCtx context.Context, _ struct{}, err error) {
			asleep.Add(1)
			if err == nil && ctx.Err() == nil {
				_ = sleep(callbackCtx, sleepArgs{1000}, again) // it ends with the connection
			}
		}
		if err := sleep(context.Background(), sleepArgs{1000 * float64(i) / float64(n)}, again); err != nil {
			return err
		}
	}
	return nil
}
