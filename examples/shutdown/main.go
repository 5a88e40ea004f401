// Command shutdown serves until the process is told to end, by an interrupt or SIGTERM. A
// call that is running then is finished, and what is buffered is written.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Press is the service.
type Press struct {
	started chan struct{} // closed when a page is being printed
	ink     chan struct{} // closed when it can be finished
}

// Print takes its time.
func (p *Press) Print(ctx context.Context, page string) (string, error) {
	close(p.started)
	select {
	case <-p.ink:
		return page + ", printed", nil
	case <-ctx.Done(): // the caller has given up, or the time to drain is over
		return "", ctx.Err()
	}
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	// A main function that does nothing but serve has these lines, and ends with
	// node.Serve(ctx).
	signalled, hearNoMore := netron.SignalContext(ctx)
	defer hearNoMore()
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0", DrainTimeout: 20 * time.Second})
	if err != nil {
		return err
	}
	press := &Press{started: make(chan struct{}), ink: make(chan struct{})}
	if err := server.Expose("press@1.0.0", press); err != nil {
		return err
	}
	server.OnShutdown(func(context.Context) error {
		fmt.Println("the ink is put away") // connections are still there
		return nil
	})
	if err := server.Listen(); err != nil {
		return err
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(signalled) }()

	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr(), netron.DialReconnect(0, -1)) // once
	if err != nil {
		return err
	}
	stub, err := peer.Service(ctx, "press")
	if err != nil {
		return err
	}
	var page string
	running := stub.Go(ctx, "print", &page, "page 1")
	<-press.started

	if err := interrupt(); err != nil {
		hearNoMore() // not every system lets a process do so; this ends the context as well
	}
	<-signalled.Done()
	// From here on nobody new is let in, and new requests are refused.
	for {
		other, err := client.Dial(ctx, server.Addr(), netron.DialReconnect(0, -1))
		if err != nil {
			fmt.Println("a new client is refused")
			break
		}
		_ = other.Close() // the server has not heard the signal yet
	}

	close(press.ink)
	if err := <-served; err != nil {
		return err
	}
	fmt.Println("Serve has returned")
	if err := running.Wait(ctx); err != nil { // the answer has come before
		return err
	}
	fmt.Println(page)
	<-peer.Done()
	return nil
}

// interrupt is what an operator, or an orchestrator, does.
func interrupt() error {
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		return err
	}
	return self.Signal(os.Interrupt)
}
