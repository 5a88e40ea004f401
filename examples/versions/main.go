// Command versions exposes several versions of a service at a time, and finds them by name,
// by version and by range.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Greeter is the service in its first form.
type Greeter struct{ version string }

// Hello greets.
func (g *Greeter) Hello(_ context.Context, name string) (string, error) {
	return fmt.Sprintf("hello, %s (%s)", name, g.version), nil
}

// Greeter2 is the second form, which does not fit the callers of the first one.
type Greeter2 struct{}

// Hello greets in a language.
func (Greeter2) Hello(_ context.Context, name, language string) (string, error) {
	if language == "nb" {
		return "hei, " + name, nil
	}
	return "hello, " + name, nil
}

// GreeterClient is the first form as callers see it.
type GreeterClient struct {
	Hello func(ctx context.Context, name string) (string, error)
}

// Greeter2Client is the second one.
type Greeter2Client struct {
	Hello func(ctx context.Context, name, language string) (string, error)
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
	for _, version := range []string{"1.2.0", "1.4.3"} {
		if err := server.Expose("greeter@"+version, &Greeter{version}); err != nil {
			return err
		}
	}
	for _, version := range []string{"2.0.0", "2.1.0-beta.1"} {
		if err := server.Expose("greeter@"+version, Greeter2{}); err != nil {
			return err
		}
	}
	if err := server.Start(); err != nil {
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
	if err := find(ctx, peer); err != nil {
		return err
	}
	if err := greet(ctx, peer); err != nil {
		return err
	}

	// A version that nobody needs any more is taken back; its successors stay.
	if err := server.Conceal("greeter@1.2.0"); err != nil {
		return err
	}
	_, err = peer.Service(ctx, "greeter@1.2.0")
	fmt.Println("greeter@1.2.0:", netron.CodeOf(err))
	return nil
}

// find prints what is found under some names.
func find(ctx context.Context, peer *netron.Peer) error {
	for _, name := range []string{
		"greeter",           // the highest release
		"greeter@1.2.0",     // exactly that one
		"greeter@^1.2",      // the highest that does not break its callers
		"greeter@~1.2",      // the same minor version
		"greeter@>=1.3 <2",  // from one to another
		"greeter@>=2.1.0-0", // prereleases only if they are asked for
	} {
		stub, err := peer.Service(ctx, name)
		if err != nil {
			return err
		}
		fmt.Println(name, "is", stub.Version())
	}
	has, err := peer.HasService(ctx, "greeter@^3")
	if err != nil {
		return err
	}
	fmt.Println("greeter@^3 is there:", has)
	return nil
}

// greet has a client of each form, which do not disturb each other.
func greet(ctx context.Context, peer *netron.Peer) error {
	first, err := netron.Query[GreeterClient](ctx, peer, "greeter@^1.2")
	if err != nil {
		return err
	}
	second, err := netron.Query[Greeter2Client](ctx, peer, "greeter@^2")
	if err != nil {
		return err
	}
	text, err := first.Hello(ctx, "Ann")
	if err != nil {
		return err
	}
	fmt.Println(text)
	if text, err = second.Hello(ctx, "Ann", "nb"); err != nil {
		return err
	}
	fmt.Println(text)
	return nil
}
