package netron_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	"github.com/d-e-v-grid/netron"
)

// A main function serves until its process is told to end.
func ExampleSignalContext() {
	ctx, stop := netron.SignalContext(context.Background())
	defer stop()
	node, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	go interrupt(stop) // as an operator does
	fmt.Println(node.Serve(ctx), ctx.Err())
	// Output: <nil> context canceled
}

// interrupt sends this process an interrupt, or calls stop on a system without.
func interrupt(stop func()) {
	self, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = self.Signal(os.Interrupt)
	}
	if err != nil {
		stop()
	}
}

// What must be done at the end is done when running requests have been answered, and
// while peers are still there.
func ExampleNode_OnShutdown() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	node.OnShutdown(func(context.Context) error {
		fmt.Println("the database is closed")
		return nil
	})
	node.OnShutdown(func(context.Context) error { // the last one comes first
		fmt.Println("the journal is written")
		return errors.New("journal: disk full")
	})
	fmt.Println(node.Shutdown(ctx))
	// Output:
	// the journal is written
	// the database is closed
	// journal: disk full
}

// A node that stops listening goes on to serve those that are connected.
func ExampleNode_StopListening() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{})
	defer stop()
	if err := server.Expose("calculator@1.0.0", Calculator{}); err != nil {
		log.Fatal(err)
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	addr := server.Addr()
	server.StopListening()

	_, err = client.Dial(ctx, addr)
	fmt.Println("a new one:", err != nil)
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	sum, err := calc.Add(ctx, 5, 3)
	fmt.Println("the one before:", sum, err)
	// Output:
	// a new one: true
	// the one before: 8 <nil>
}

// Shutdown waits for running calls, Close cuts them off.
func ExampleNode_Shutdown() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	err = node.AddTask("slow", func(context.Context) string {
		close(begun)
		<-end
		return "done"
	})
	if err != nil {
		log.Fatal(err)
	}
	answer := make(chan string, 1)
	go func() {
		var text string
		if err := node.Local().RunTask(ctx, "slow", &text); err != nil {
			log.Print(err)
		}
		answer <- text
	}()
	<-begun
	close(end)
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	fmt.Println(node.Shutdown(limited))
	fmt.Println(<-answer)
	// Output:
	// <nil>
	// done
}

// Any listener will do: one of systemd, of a Unix socket, of a test.
func ExampleNode_ServeListener() {
	ctx, cancel := context.WithCancel(context.Background())
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- node.ServeListener(ctx, ln) }()

	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	peer, err := client.Dial(ctx, ln.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(peer.State())
	_ = client.Close()
	cancel()
	fmt.Println(<-served)
	// Output:
	// connected
	// <nil>
}

// Peers are known by the ids that they claim.
func ExampleNode_Peer() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{})
	defer stop()
	client, err := netron.New(netron.Config{ID: "ann"})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	err = client.AddTask("ring", func(context.Context) string { return "it rings at Ann's" })
	if err != nil {
		log.Fatal(err)
	}
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	// The server may know of the client a moment later; what it answers it has heard.
	if _, err := peer.HasService(ctx, "anything"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(server.Peers()), server.Peer("bob") == nil)
	var text string
	err = server.Peer("ann").RunTask(ctx, "ring", &text)
	fmt.Println(text, err)
	// Output:
	// 1 true
	// it rings at Ann's <nil>
}
