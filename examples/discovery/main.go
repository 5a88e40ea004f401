// Command discovery has nodes find each other: they say what they offer, hear of what others
// do, and call a service without knowing where it is. The nodes share the memory of this
// process; with Redis they are processes, and all else stays the same.
package main

import (
	"context"
	"fmt"
	"log"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
)

// Stock is the service.
type Stock struct{ shop string }

// Count says how many there are.
func (s Stock) Count(_ context.Context, item string) (string, error) {
	return fmt.Sprintf("%d %ss at %s", len(item), item, s.shop), nil
}

// StockClient is the service as callers see it.
type StockClient struct {
	Count func(ctx context.Context, item string) (string, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

// hub has the nodes of this process.
var hub = discover.NewHub()

// newNode returns a node that finds others, and is found once it serves.
func newNode(id string, zone string) (*netron.Node, error) {
	registry, err := discover.NewMemory(hub, discover.Config{})
	if err != nil {
		return nil, err
	}
	return netron.New(netron.Config{
		ID: id, Addr: "127.0.0.1:0", DrainWindow: 100 * time.Millisecond,
		Discovery: netron.DiscoveryConfig{
			Registry: registry, // or Redis: &discover.Config{URL: "redis://redis:6379"}
			Zone:     zone,
			Metadata: map[string]string{"build": "7"},
		},
	})
}

// startShop starts a node with the service.
func startShop(id, zone, version string) (*netron.Node, error) {
	node, err := newNode(id, zone)
	if err != nil {
		return nil, err
	}
	if err := node.Expose("stock@"+version, Stock{id}); err != nil {
		return nil, err
	}
	return node, node.Start()
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	office, err := newNode("office", "north") // it does not serve, so nobody finds it
	if err != nil {
		return err
	}
	defer office.Close()
	view := office.Discovery()
	events := make(chan discover.Event, 100)
	defer view.On(func(e discover.Event) { events <- e })()
	// hear prints the next events.
	hear := func(n int) {
		for range n {
			switch e := <-events; e.Kind {
			case discover.ServiceAvailable, discover.ServiceUnavailable:
				fmt.Println(e.Kind, e.Service.QualifiedName())
			default:
				fmt.Println(e.Kind, e.Node.ID)
			}
		}
	}

	first, err := startShop("harbour", "north", "1.2.0")
	if err != nil {
		return err
	}
	defer first.Close()
	hear(2)
	second, err := startShop("station", "south", "1.3.0")
	if err != nil {
		return err
	}
	defer second.Close()
	hear(2)

	// Lookups ask nobody: the view is in memory, and kept current.
	for _, query := range []string{"stock", "stock@^1.3", "tools"} {
		fmt.Print(query, ":")
		for _, n := range view.Lookup(query) {
			fmt.Print(" ", n.ID, " in the ", n.Zone)
		}
		fmt.Println()
	}

	client, err := office.Find("stock@^1")
	if err != nil {
		return err
	}
	stock, err := netron.QueryClient[StockClient](ctx, client)
	if err != nil {
		return err
	}
	// Nodes of its own zone are asked, as soon as one of them is connected.
	near := ""
	for !strings.HasSuffix(near, first.ID()) {
		if near, err = stock.Count(ctx, "rope"); err != nil {
			return err
		}
	}
	fmt.Println(near)

	// What a node exposes later is known at once, and so is that it leaves.
	if err := second.Expose("tools@1.0.0", Stock{"station"}); err != nil {
		return err
	}
	hear(2)
	if err := first.Shutdown(ctx); err != nil {
		return err
	}
	hear(2)
	far, err := stock.Count(ctx, "rope")
	fmt.Println(far)
	return err
}
