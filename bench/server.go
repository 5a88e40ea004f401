package bench

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/rpc"
)

// The services that [Expose] adds for the runs, besides the reference service.
const (
	TypedService       = "bench@1.0.0"       // built with rpc.Handle
	inlineTypedService = "benchinline@1.0.0" // likewise, inline
	inlineFuncsService = "demoinline@1.0.0"  // the reference service, some of it inline
	sourceName         = "benchsource@1.0.0"
)

// taskFreeMemory is the task that gives unused memory back to the system, so that
// what is left belongs to the connections.
const taskFreeMemory = "benchFreeMemory"

type addArgs struct{ A, B float64 }

type echoArgs struct{ V []byte }

type sleepArgs struct{ Millis float64 }

// Expose adds what the workloads call to a node.
func Expose(n *netron.Node) error {
	if err := demo.Expose(n); err != nil {
		return err
	}
	if err := n.Expose(inlineFuncsService, &funcs{}, netron.Inline("Add", "Echo")); err != nil {
		return err
	}
	if err := n.Expose(sourceName, sourceService{}); err != nil {
		return err
	}
	if err := n.AddTask(taskFreeMemory, func(context.Context) { debug.FreeOSMemory() }); err != nil {
		return err
	}
	if err := n.AddTask(taskPublish, runPublish, netron.TaskLimit(-1)); err != nil {
		return err
	}
	for _, name := range []string{"bench", "benchinline"} {
		s := netron.NewService(name, "1.0.0")
		rpc.Handle(s, "add", func(_ context.Context, a *addArgs) (float64, error) { return a.A + a.B, nil })
		rpc.Handle(s, "echo", func(_ context.Context, a *echoArgs) ([]byte, error) { return a.V, nil })
		if name == "benchinline" {
			s.Inline("add", "echo")
		} else {
			rpc.Handle(s, "sleep", func(ctx context.Context, a *sleepArgs) (struct{}, error) {
				t := time.NewTimer(time.Duration(a.Millis * float64(time.Millisecond)))
				defer t.Stop()
				select {
				case <-t.C:
					return struct{}{}, nil
				case <-ctx.Done():
					return struct{}{}, ctx.Err()
				}
			})
		}
		if err := n.ExposeService(s); err != nil {
			return err
		}
	}
	return nil
}

// funcs is a service whose methods never block.
type funcs struct{}

// Add returns a + b.
func (*funcs) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }

// Echo returns v.
func (*funcs) Echo(_ context.Context, v []byte) ([]byte, error) { return v, nil }
