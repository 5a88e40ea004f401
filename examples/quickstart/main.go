// Command quickstart has a server and a client, which are two nodes in one process: the
// server exposes a Go value, and the client calls its methods.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Calculator is the service. Its exported methods whose first parameter is a context are
// what peers can call; nothing else is.
type Calculator struct{}

// Add returns a + b.
func (Calculator) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }

// Divide returns a / b, or an error with a code.
func (Calculator) Divide(_ context.Context, a, b float64) (float64, error) {
	if b == 0 {
		return 0, netron.Errorf(netron.InvalidArgument, "division by zero")
	}
	return a / b, nil
}

// CalculatorClient is the service as callers see it: the same signatures, as fields.
type CalculatorClient struct {
	Add    func(ctx context.Context, a, b float64) (float64, error)
	Divide func(ctx context.Context, a, b float64) (float64, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	// The server takes a free port. A program that does nothing else writes an address
	// of its own, and calls Serve alone.
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	if err := server.Expose("calculator@1.0.0", Calculator{}); err != nil {
		return err
	}
	if err := server.Listen(); err != nil {
		return err
	}
	serving, stop := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- server.Serve(serving) }()

	err = ask(ctx, "ws://"+server.Addr())
	stop() // Serve lets running calls finish, and returns
	return errors.Join(err, <-served)
}

// ask is the client.
func ask(ctx context.Context, url string) error {
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, url)
	if err != nil {
		return err
	}
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator@1.0.0")
	if err != nil {
		return err
	}
	sum, err := calc.Add(ctx, 5, 3)
	if err != nil {
		return err
	}
	fmt.Println("5 + 3 =", sum)
	if _, err := calc.Divide(ctx, 1, 0); err != nil {
		fmt.Println("1 / 0:", err)
	}
	return nil
}
