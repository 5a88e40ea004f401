// Command pool spreads calls over several connections to one server. One connection has a
// goroutine that reads on each side, which is the most that it can carry.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Desk is the service. Each connection is a peer of its own to it.
type Desk struct {
	mu    sync.Mutex
	calls map[string]int // by the id of the peer; guarded by mu
	total int            // guarded by mu
	all   chan struct{}  // closed when as many calls are here as the program makes
}

const (
	conns = 4
	calls = 100
)

// Serve waits for all other calls, so that none is done before the last one has begun.
func (d *Desk) Serve(ctx context.Context) error {
	d.add(netron.PeerFrom(ctx).ID())
	select {
	case <-d.all:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *Desk) add(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls[id]++
	if d.total++; d.total == calls {
		close(d.all)
	}
}

// DeskClient is the service as callers see it.
type DeskClient struct {
	Serve func(ctx context.Context) error
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	desk := &Desk{calls: make(map[string]int), all: make(chan struct{})}
	if err := server.Expose("desk@1.0.0", desk); err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}

	client, err := netron.New(netron.Config{ID: "client"})
	if err != nil {
		return err
	}
	defer client.Close()
	pool, err := client.DialPool(ctx, server.Addr(), conns) // each reconnects on its own
	if err != nil {
		return err
	}
	defer pool.Close()
	clients, err := netron.QueryPool[DeskClient](ctx, pool, "desk")
	if err != nil {
		return err
	}

	errs := make(chan error, calls)
	for range calls {
		// Pick for each call anew: it takes the connection with the fewest calls under way.
		go func() { errs <- clients.Pick().Serve(ctx) }()
	}
	for range calls {
		err = errors.Join(err, <-errs)
	}
	if err != nil {
		return err
	}
	desk.mu.Lock()
	defer desk.mu.Unlock()
	fmt.Println(desk.total, "calls") // about as many over each connection
	for _, id := range slices.Sorted(maps.Keys(desk.calls)) {
		fmt.Println("over", id)
	}
	return nil
}
