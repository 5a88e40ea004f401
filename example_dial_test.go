package netron_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

// A peer may have several addresses. It is dialled again when its connection is lost, with
// the stubs in place.
func ExampleNode_Dial() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{ID: "server"})
	defer stop()
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	nobody := freeAddr() // nothing listens there
	peer, err := client.Dial(ctx, nobody,
		netron.DialAlso("ws://"+server.Addr()),
		netron.DialReconnect(100*time.Millisecond, 20), // the first delay, and after how many failures to give up
	)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(peer.ID(), peer.State())
	fmt.Println(peer.Close(), peer.State())
	// Output:
	// server connected
	// <nil> closed
}

// freeAddr returns an address at which nothing listens.
func freeAddr() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// A function is told of each change of a peer's state, with a reason.
func ExamplePeer_onState() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{})
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr(), netron.DialReconnect(0, -1)) // is not dialled again
	if err != nil {
		log.Fatal(err)
	}
	told := make(chan netron.StateEvent, 8)
	remove := peer.OnState(func(e netron.StateEvent) { told <- e })
	defer remove()

	stop()
	for e := range told {
		if e.State == netron.StateClosed { // there may be others before
			fmt.Println(e.State, e.Reason == netron.ReasonGoingAway, e.Err != nil)
			break
		}
	}
	// Output: closed true true
}

// The iterator begins with the present state.
func ExamplePeer_states() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{})
	defer stop()
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	for e := range peer.States(ctx) { // until ctx ends, or the peer is closed
		fmt.Println(e.State, e.Reason)
		if e.State == netron.StateConnected {
			peer.CloseWith(1000, "enough")
		}
	}
	// Output:
	// connected ready
	// closed closed
}

// twice is a server that loses its first connection, and a client of it.
type twice struct {
	server *netron.Node
	client *netron.Node
	calc   *CalculatorClient
	stop   func()
}

// startTwice returns a client whose connection will be lost by the first call of add,
// after it was sent.
func startTwice(ctx context.Context) *twice {
	server, stop := startNode(netron.Config{})
	var stumbled atomic.Bool
	svc := netron.NewService("calculator", "1.0.0")
	netron.Func(svc, "add", func(ctx context.Context, a, b float64) (float64, error) {
		if stumbled.CompareAndSwap(false, true) {
			netron.PeerFrom(ctx).CloseWith(1011, "stumbled")
			<-ctx.Done()
		}
		return a + b, ctx.Err()
	})
	netron.Func(svc, "divide", func(_ context.Context, a, b float64) float64 { return a / b })
	if err := server.ExposeService(svc); err != nil {
		log.Fatal(err)
	}
	client, err := netron.New(netron.Config{ReconnectDelay: 10 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	return &twice{server, client, calc, stop}
}

func (t *twice) end() {
	_ = t.client.Close()
	t.stop()
}

// A call that is lost with its connection is made again.
func ExampleIdempotent() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	t := startTwice(ctx) // its first call loses the connection
	defer t.end()
	sum, err := t.calc.Add(netron.Idempotent(ctx), 5, 3)
	fmt.Println(sum, err)
	// Output: 8 <nil>
}

// A call that may have been served is not made again, and says so.
func ExampleRetryUnsent() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	ctx = netron.RetryUnsent(ctx)
	t := startTwice(ctx) // its first call loses the connection
	defer t.end()
	_, err := t.calc.Add(ctx, 5, 3)
	fmt.Println(netron.CodeOf(err))
	// There may be no connection yet. Nothing was sent then, so the call waits for one.
	sum, err := t.calc.Add(ctx, 5, 3)
	fmt.Println(sum, err)
	// Output:
	// unavailable
	// 8 <nil>
}

// The error of a call tells whether it may have been served.
func ExampleWasSent() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	t := startTwice(ctx) // its first call loses the connection
	defer t.end()
	_, err := t.calc.Add(ctx, 5, 3)
	fmt.Println(netron.WasSent(err))

	_ = t.client.Close()
	_, err = t.calc.Add(ctx, 5, 3)
	fmt.Println(netron.WasSent(err))
	// Output:
	// true true
	// false true
}

// Peers prove who they are by a token in the upgrade request, here one of a fixed few.
func ExampleDialToken() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{Auth: &auth.Config{
		Authenticator: auth.StaticTokens(map[string]*auth.Identity{"s3cret": {UserID: "ann"}}),
		Required:      true,
	}})
	defer stop()
	err := server.AddTask("whoAmI", func(ctx context.Context) string { return auth.From(ctx).UserID })
	if err != nil {
		log.Fatal(err)
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr(), netron.DialToken("s3cret"))
	if err != nil {
		log.Fatal(err)
	}
	var name string
	err = peer.RunTask(ctx, "whoAmI", &name)
	fmt.Println(name, err)

	_, err = client.Dial(ctx, server.Addr(), netron.DialToken("guess"))
	fmt.Println(err != nil)
	// Output:
	// ann <nil>
	// true
}

// Whatever connects can carry a connection: a Unix socket, a proxy, a tunnel.
func ExampleDialNet() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{ID: "behind the tunnel"})
	defer stop()
	tunnel := func(ctx context.Context, network, addr string) (net.Conn, error) {
		fmt.Println("through the tunnel to", addr)
		var d net.Dialer
		return d.DialContext(ctx, network, server.Addr())
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	peer, err := client.Dial(ctx, "ws://inside.example:80", netron.DialNet(tunnel))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(peer.ID())
	// Output:
	// through the tunnel to inside.example:80
	// behind the tunnel
}

// Headers travel beside the arguments of a call.
func ExampleWithHeader() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{})
	defer stop()
	err := server.AddTask("language", func(ctx context.Context) string {
		return netron.HeaderFrom(ctx).Get("Accept-Language")
	})
	if err != nil {
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
	var language string
	err = peer.RunTask(netron.WithHeader(ctx, "Accept-Language", "nb"), "language", &language)
	fmt.Println(language, err)
	// Output: nb <nil>
}

// count returns middleware that prints what passes.
func count(where string) netron.Middleware {
	return func(next netron.Handler) netron.Handler {
		return func(ctx context.Context, r *netron.Request) (codec.Raw, error) {
			if r.Op() != netron.OpTask { // such as those by which services are found
				fmt.Println(where, r.Op(), r.Member())
			}
			return next(ctx, r)
		}
	}
}

// Middleware of the node is outside of that of the service, and that is outside of the
// method's.
func ExampleUse() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	node.Use(count("node:"))
	err = node.Expose("calculator@1.0.0", Calculator{},
		netron.Use(count("service:")),
		netron.UseOn("Add", count("method:")))
	if err != nil {
		log.Fatal(err)
	}
	calc, err := node.Local().Service(ctx, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(calc.Call(ctx, "add", nil, 1, 2))
	fmt.Println(calc.Call(ctx, "divide", nil, 1, 2))
	// Output:
	// node: call add
	// service: call add
	// method: call add
	// <nil>
	// node: call divide
	// service: call divide
	// <nil>
}

// Middleware of the side that asks is for all peers, or for one.
func ExampleNode_UseOutgoing() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("calculator@1.0.0", Calculator{}); err != nil {
		log.Fatal(err)
	}
	node.UseOutgoing(count("all peers:"))
	peer := node.Local()
	peer.Use(count("this peer:"))
	calc, err := peer.Service(ctx, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(calc.Call(ctx, "add", nil, 1, 2))
	// Output:
	// all peers: call add
	// this peer: call add
	// <nil>
}
