// Command properties has a service with values that peers read and write: a fixed one,
// one that peers may set after the owner has looked at it, and one that only the owner
// sets.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Thermostat is the service.
type Thermostat struct {
	Model   string                   `netron:"model,readonly"` // never changes
	Target  netron.Property[float64] // peers read and write it
	Heating netron.Property[bool]    `netron:"heating,readonly"` // peers read it
}

// NewThermostat returns a thermostat for 20 degrees.
func NewThermostat() *Thermostat {
	t := &Thermostat{Model: "T-1000"}
	t.Target.Set(20)
	t.Target.OnSet(func(_ context.Context, degrees float64) error {
		if degrees < 5 || degrees > 30 {
			return netron.Errorf(netron.OutOfRange, "%v degrees are not between 5 and 30", degrees)
		}
		t.Heating.Set(degrees > 20)
		return nil
	})
	return t
}

// ThermostatClient is the service as callers see it.
type ThermostatClient struct {
	Model     func(ctx context.Context) (string, error)
	Target    func(ctx context.Context) (float64, error)
	SetTarget func(ctx context.Context, degrees float64) error `netron:"target,set"`
	Heating   func(ctx context.Context) (bool, error)
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
	if err := server.Start(); err != nil {
		return err
	}
	if err := server.Expose("thermostat@1.0.0", NewThermostat()); err != nil {
		return err
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	t, err := netron.Query[ThermostatClient](ctx, peer, "thermostat")
	if err != nil {
		return err
	}

	model, err := t.Model(ctx)
	if err != nil {
		return err
	}
	fmt.Println("model:", model)
	for _, degrees := range []float64{22, 18, 99} {
		if err := t.SetTarget(ctx, degrees); err != nil {
			fmt.Println("refused:", err)
			continue
		}
		heating, err := t.Heating(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("target %v, heating: %t\n", degrees, heating)
	}

	// Without a struct of funcs, by name.
	stub, err := peer.Service(ctx, "thermostat")
	if err != nil {
		return err
	}
	var target float64
	if err := stub.Get(ctx, "target", &target); err != nil {
		return err
	}
	fmt.Println("target:", target)
	fmt.Println("set model:", stub.Set(ctx, "model", "T-800"))
	return nil
}
