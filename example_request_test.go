package netron_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
)

// Thermostat has properties: one that is fixed, one that peers write, and one that only
// the owner writes.
type Thermostat struct {
	Version string                   `netron:"version,readonly"`
	Target  netron.Property[float64] // "target"
	Heating netron.Property[bool]    `netron:"heating,readonly"`
}

// ThermostatClient reads and writes them.
type ThermostatClient struct {
	Version   func(ctx context.Context) (string, error)
	Target    func(ctx context.Context) (float64, error)
	Heating   func(ctx context.Context) (bool, error)
	SetTarget func(ctx context.Context, degrees float64) error `netron:"target,set"`
}

func ExampleProperty() {
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	t := &Thermostat{Version: "1.0.0"}
	t.Target.Set(20)
	t.Target.OnSet(func(_ context.Context, degrees float64) error {
		if degrees > 25 {
			return netron.Errorf(netron.OutOfRange, "%v degrees are too warm", degrees)
		}
		t.Heating.Set(degrees > 20)
		return nil
	})
	if err := node.Expose("thermostat@1.0.0", t); err != nil {
		log.Fatal(err)
	}

	ctx := context.Background()
	remote, err := netron.Query[ThermostatClient](ctx, node.Local(), "thermostat")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(remote.SetTarget(ctx, 22))
	target, _ := remote.Target(ctx)
	heating, _ := remote.Heating(ctx)
	fmt.Println(target, heating)
	fmt.Println(remote.SetTarget(ctx, 40))
	// Output:
	// <nil>
	// 22 true
	// out_of_range: 40 degrees are too warm
}

// authorize is middleware: it finds out who asks, or answers in place of the service.
func authorize(next netron.Handler) netron.Handler {
	return func(ctx context.Context, r *netron.Request) (codec.Raw, error) {
		switch netron.HeaderFrom(ctx).Get("Authorization") {
		case "Bearer secret":
			return next(netron.WithUser(ctx, "anna"), r)
		case "":
			return nil, netron.Errorf(netron.Unauthenticated, "%s needs a token", r.Member())
		}
		return nil, netron.Errorf(netron.PermissionDenied, "wrong token")
	}
}

// Greeter greets whoever asks.
type Greeter struct{}

func (Greeter) Hello(ctx context.Context) (string, error) {
	return fmt.Sprintf("hello, %v", netron.UserFrom(ctx)), nil
}

func ExampleMiddleware() {
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("greeter@1.0.0", Greeter{}, netron.Use(authorize)); err != nil {
		log.Fatal(err)
	}
	// The other side of middleware: what this node asks of others.
	node.UseOutgoing(func(next netron.Handler) netron.Handler {
		return func(ctx context.Context, r *netron.Request) (codec.Raw, error) {
			result, err := next(ctx, r)
			if r.Service() != "" {
				fmt.Println(r.Op(), r.Service(), r.Member(), netron.CodeOf(err) == netron.Unauthenticated)
			}
			return result, err
		}
	})

	ctx := context.Background()
	greeter, err := node.Local().Service(ctx, "greeter")
	if err != nil {
		log.Fatal(err)
	}
	var text string
	fmt.Println(greeter.Call(ctx, "hello", &text))
	ctx = netron.WithHeader(ctx, "Authorization", "Bearer secret")
	fmt.Println(greeter.Call(ctx, "hello", &text), text)
	// Output:
	// call greeter@1.0.0 hello true
	// unauthenticated: hello needs a token
	// call greeter@1.0.0 hello false
	// <nil> hello, anna
}

// Count what peers ask, and how it ends.
func ExampleObserve() {
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("greeter@1.0.0", Greeter{}, netron.Use(authorize)); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	greeter, err := node.Local().Service(ctx, "greeter")
	if err != nil {
		log.Fatal(err)
	}
	node.Use(netron.Observe(nil, func(_ context.Context, r *netron.Request, took time.Duration, err error) {
		fmt.Println(r.Service(), r.Member(), took >= 0, netron.CodeOf(err))
	}))
	err = greeter.Call(ctx, "hello", nil)
	fmt.Println(err)
	// Output:
	// greeter@1.0.0 hello true unauthenticated
	// unauthenticated: hello needs a token
}

// Lamp is a service whose method answers with a header.
type Lamp struct{}

func (Lamp) On(ctx context.Context) (bool, error) {
	return true, netron.SetHeader(ctx, "Served-By", "lamp-1")
}

func ExampleSetHeader() {
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("lamp@1.0.0", Lamp{}); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	lamp, err := node.Local().Service(ctx, "lamp")
	if err != nil {
		log.Fatal(err)
	}
	var header netron.Header
	var on bool
	err = lamp.Call(netron.WithAnswerHeader(ctx, &header), "on", &on)
	fmt.Println(on, header.Get("Served-By"), err)
	// Output: true lamp-1 <nil>
}

// Patient waits until it is told not to.
type Patient struct{ told chan error }

func (p *Patient) Wait(ctx context.Context) error {
	<-ctx.Done()
	p.told <- ctx.Err()
	return ctx.Err()
}

// The deadline of a call is that of its handler, and a caller who gives up ends the
// context of the handler.
func Example_cancellation() {
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	p := &Patient{told: make(chan error, 1)}
	if err := node.Expose("patient@1.0.0", p); err != nil {
		log.Fatal(err)
	}
	patient, err := node.Local().Service(context.Background(), "patient")
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err = patient.Call(ctx, "wait", nil)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	fmt.Println((<-p.told) != nil)
	// Output:
	// true
	// true
}
