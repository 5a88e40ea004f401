// Command publish has a hub, a worker that offers a service there without listening
// itself, and a client that knows the hub alone.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Resizer is the service of the worker.
type Resizer struct{}

// Fit returns the size of a picture that must not be wider than a limit.
func (Resizer) Fit(_ context.Context, width, height, limit int) ([]int, error) {
	if limit <= 0 {
		return nil, netron.Errorf(netron.InvalidArgument, "limit %d is not positive", limit)
	}
	if width <= limit {
		return []int{width, height}, nil
	}
	return []int{limit, height * limit / width}, nil
}

// ResizerClient is the service as callers see it.
type ResizerClient struct {
	Fit func(ctx context.Context, width, height, limit int) ([]int, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	// A node lets peers expose nothing, unless it says how many services each may.
	hub, err := netron.New(netron.Config{Addr: "127.0.0.1:0", MaxExposedServices: 4})
	if err != nil {
		return err
	}
	defer hub.Close()
	if err := hub.Start(); err != nil {
		return err
	}
	worker, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer worker.Close()
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()

	// The worker dials the hub and publishes its service there.
	resizer, err := netron.NewServiceOf("resizer@1.0.0", Resizer{})
	if err != nil {
		return err
	}
	workerToHub, err := worker.Dial(ctx, hub.Addr())
	if err != nil {
		return err
	}
	if err := workerToHub.Publish(ctx, resizer); err != nil {
		return err
	}
	fmt.Println("at the hub:", hub.Services())

	// The client asks the hub, which passes its requests on.
	clientToHub, err := client.Dial(ctx, hub.Addr())
	if err != nil {
		return err
	}
	pictures, err := netron.Query[ResizerClient](ctx, clientToHub, "resizer@^1.0")
	if err != nil {
		return err
	}
	size, err := pictures.Fit(ctx, 1600, 900, 800)
	if err != nil {
		return err
	}
	fmt.Println("800 wide:", size)
	_, err = pictures.Fit(ctx, 1600, 900, 0)
	fmt.Println(err) // errors of the worker arrive as they are

	// It lasts until it is taken back, or until the worker's connection ends.
	if err := workerToHub.Unpublish(ctx, "resizer@1.0.0"); err != nil {
		return err
	}
	_, err = pictures.Fit(ctx, 1600, 900, 800)
	fmt.Println("afterwards:", netron.CodeOf(err)) // at once, not after a time limit
	return nil
}
