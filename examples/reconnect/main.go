// Command reconnect has a client that knows two addresses of a service. The first server
// goes away while the second is not ready yet; the peer and the struct of funcs stay good.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Namer is the service.
type Namer struct{ name string }

// Name returns the name of the server.
func (n *Namer) Name(context.Context) (string, error) { return n.name, nil }

// NamerClient is the service as callers see it.
type NamerClient struct {
	Name func(ctx context.Context) (string, error)
}

// listen returns a node that has an address, but does not serve yet.
func listen(name string) (*netron.Node, error) {
	node, err := netron.New(netron.Config{ID: name, Addr: "127.0.0.1:0"})
	if err != nil {
		return nil, err
	}
	if err := node.Expose("namer@1.0.0", &Namer{name}); err != nil {
		return nil, err
	}
	return node, node.Listen()
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	first, err := listen("first")
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := listen("second")
	if err != nil {
		return err
	}
	defer second.Close()
	if err := first.Start(); err != nil {
		return err
	}

	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, first.Addr(),
		netron.DialAlso(second.Addr()),
		netron.DialReconnect(10*time.Millisecond, 0), // at first; without a limit of attempts
	)
	if err != nil {
		return err
	}
	namer, err := netron.Query[NamerClient](ctx, peer, "namer")
	if err != nil {
		return err
	}
	name, err := namer.Name(ctx)
	if err != nil {
		return err
	}
	fmt.Println("answered by", name)

	if err := first.Shutdown(ctx); err != nil {
		return err
	}
	for event := range peer.States(ctx) { // peer.OnState calls a function instead
		if event.State == netron.StateReconnecting {
			fmt.Println(event.State)
			break
		}
	}

	// While there is no connection calls fail at once, and say that they were not sent.
	_, err = namer.Name(ctx)
	sent, known := netron.WasSent(err)
	fmt.Printf("%v, sent: %t, known: %t\n", netron.CodeOf(err), sent, known)

	// A call that may be served twice without harm can wait for the next connection, as
	// long as its context lets it. netron.RetryUnsent is for calls that must not be
	// served twice.
	type answer struct {
		name string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		name, err := namer.Name(netron.Idempotent(ctx))
		answers <- answer{name, err}
	}()
	if err := second.Start(); err != nil {
		return err
	}
	a := <-answers
	if a.err != nil {
		return a.err
	}
	fmt.Println("answered by", a.name)
	fmt.Println(peer.State(), "to", peer.ID())
	return nil
}
