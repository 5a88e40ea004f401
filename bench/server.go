package bench

import (
	"context"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/rpc"
)

// TypedService is the name of the service that [Expose] adds for the runs
// without reflection.
const TypedService = "bench@1.0.0"

type addArgs struct{ A, B float64 }

type echoArgs struct{ V []byte }

// Expose adds what the workloads call to a node: the reference service, and one
// built with rpc.Handle.
func Expose(n *netron.Node) error {
	if err := demo.Expose(n); err != nil {
		return err
	}
	s := netron.NewService("bench", "1.0.0")
	rpc.Handle(s, "add", func(_ context.Context, a *addArgs) (float64, error) { return a.A + a.B, nil })
	rpc.Handle(s, "echo", func(_ context.Context, a *echoArgs) ([]byte, error) { return a.V, nil })
	return n.ExposeService(s)
}
