// Command balancing calls a service at whichever of its instances: by load, by key, always
// the same one for a session, and while an instance is replaced.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// Desk is the service.
type Desk struct{ name string }

// Serve says who has served.
func (d Desk) Serve(context.Context, int) (string, error) { return d.name, nil }

// DeskClient is the service as callers see it.
type DeskClient struct {
	Serve func(ctx context.Context, customer int) (string, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// hub has the nodes of this process; with Redis: Discovery.Redis.
var hub = discover.NewHub()

func newNode(id string) (*netron.Node, error) {
	registry, err := discover.NewMemory(hub, discover.Config{})
	if err != nil {
		return nil, err
	}
	return netron.New(netron.Config{
		ID: id, Addr: "127.0.0.1:0", DrainWindow: 100 * time.Millisecond,
		Discovery: netron.DiscoveryConfig{Registry: registry},
	})
}

func startDesk(ctx context.Context, id string) (*netron.Node, error) {
	node, err := newNode(id)
	if err != nil {
		return nil, err
	}
	if err := node.Expose("desk@1.0.0", Desk{id}); err != nil {
		return nil, err
	}
	if err := node.Start(); err != nil {
		return nil, err
	}
	return node, node.Discovery().WaitReady(ctx) // others find it now
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	desks := make([]*netron.Node, 3)
	for i := range desks {
		node, err := startDesk(ctx, fmt.Sprint("desk-", i+1))
		if err != nil {
			return err
		}
		defer node.Close()
		desks[i] = node
	}
	caller, err := newNode("caller")
	if err != nil {
		return err
	}
	defer caller.Close()
	if _, err := caller.Discovery().Fresh(ctx, "desk"); err != nil { // not older than this question
		return err
	}

	// The faster of two random instances. The default takes the one with fewer calls under way.
	client, err := caller.Find("desk@^1", netron.FindPolicy(balance.LowLatency))
	if err != nil {
		return err
	}
	desk, err := netron.QueryClient[DeskClient](ctx, client)
	if err != nil {
		return err
	}
	served := make(map[string]bool)
	for len(served) < len(desks) {
		name, err := desk.Serve(ctx, 1)
		if err != nil {
			return err
		}
		served[name] = true
	}
	fmt.Println(len(served), "desks have served")

	// All calls with a key go to one instance, for all callers: for what is cached there.
	same := true
	for customer := range 20 {
		keyed := balance.WithKey(ctx, fmt.Sprint("customer-", customer))
		first, err := desk.Serve(keyed, customer)
		if err != nil {
			return err
		}
		again, err := desk.Serve(keyed, customer)
		same = same && err == nil && first == again
	}
	fmt.Println("each customer has one desk:", same)

	// All calls of a session go where its first one went.
	session := balance.Sticky(ctx)
	served = make(map[string]bool)
	for range 20 {
		name, err := desk.Serve(session, 1)
		if err != nil {
			return err
		}
		served[name] = true
	}
	fmt.Println("desks of a session:", len(served))

	// An instance leaves while it is called.
	var wg sync.WaitGroup
	errs := make([]error, 4)
	stop := make(chan struct{})
	for i := range errs {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_, err := desk.Serve(ctx, i)
					errs[i] = errors.Join(errs[i], err)
				}
			}
		})
	}
	err = desks[0].Shutdown(ctx)
	close(stop)
	wg.Wait()
	if err != nil {
		return err
	}
	fmt.Println("calls that failed meanwhile:", errors.Join(errs...))
	left, err := caller.Discovery().Fresh(ctx, "desk")
	fmt.Println("desks that are left:", len(left))
	return err
}
