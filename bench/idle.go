package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Idle describes a run with connections that do nothing.
type Idle struct {
	URL      string        // of the server. Required
	Conns    int           // connections. Default 10,000
	Settle   time.Duration // between the last dial and the measurement. Default 2 s
	Duration time.Duration // for which the server's CPU time is taken. Default 3 s
	Pid      int           // of the server process. Required
	Config   netron.Config // of the client's node
	Dial     []netron.DialOption
}

// dialsAtOnce is how many connections are opened at a time.
const dialsAtOnce = 64

// Run opens the connections, with the whole handshake of the protocol, and reports
// what an idle one costs the server.
func (i Idle) Run(ctx context.Context) (*Result, error) {
	if i.Conns == 0 {
		i.Conns = 10_000
	}
	if i.Settle == 0 {
		i.Settle = 2 * time.Second
	}
	if i.Duration == 0 {
		i.Duration = 3 * time.Second
	}
	if i.Conns < 0 || i.Settle < 0 || i.Duration < 0 {
		return nil, errors.New("bench: a negative number of connections or seconds")
	}
	if i.Pid == 0 {
		return nil, errors.New("bench: idle needs a server process to measure")
	}
	node, err := netron.New(i.Config)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	control, err := node.Dial(ctx, i.URL, i.Dial...)
	if err != nil {
		return nil, err
	}
	if err := control.RunTask(ctx, taskFreeMemory, nil); err != nil {
		return nil, err
	}
	_, empty := processUsage(i.Pid)
	start := time.Now()
	if err := i.dial(ctx, node); err != nil {
		return nil, err
	}
	took := time.Since(start)
	sleep(ctx, time.Now().Add(i.Settle))
	_, settled := processUsage(i.Pid)
	if err := control.RunTask(ctx, taskFreeMemory, nil); err != nil {
		return nil, err
	}
	before, full := processUsage(i.Pid)
	sleep(ctx, time.Now().Add(i.Duration))
	after, _ := processUsage(i.Pid)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if n := len(node.Peers()); n != i.Conns+1 {
		return nil, fmt.Errorf("bench: %d connections are left of %d", n-1, i.Conns)
	}
	each := func(rss int64) float64 { return float64(rss-empty) / float64(i.Conns) / 1024 }
	return &Result{
		Workload:     "idle",
		Conns:        i.Conns,
		OpsPerS:      float64(i.Conns) / took.Seconds(),
		SrvRSSMB:     float64(full) / 1e6,
		KiBPerConn:   each(full),
		KiBUncleaned: each(settled),
		IdleCPU:      (after - before).Seconds() / i.Duration.Seconds(),
	}, nil
}

// dial opens the connections of the run.
func (i *Idle) dial(ctx context.Context, node *netron.Node) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for w := range min(dialsAtOnce, i.Conns) {
		wg.Go(func() {
			for n := w; n < i.Conns && ctx.Err() == nil; n += dialsAtOnce {
				if _, err := node.Dial(ctx, i.URL, i.Dial...); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
