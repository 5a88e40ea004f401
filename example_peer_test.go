package netron_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// dialCalculator returns a peer that is a server with a calculator, and the client as that
// server sees it.
func dialCalculator(ctx context.Context, cfg netron.Config) (peer, atServer *netron.Peer, stop func()) {
	server, stopServer := startNode(netron.Config{})
	if err := server.Expose("calculator@1.0.0", Calculator{}); err != nil {
		log.Fatal(err)
	}
	cfg.ID = "client"
	client, err := netron.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	if peer, err = client.Dial(ctx, server.Addr()); err != nil {
		log.Fatal(err)
	}
	if _, err := peer.HasService(ctx, "calculator"); err != nil { // then the server knows the client
		log.Fatal(err)
	}
	return peer, server.Peer("client"), func() {
		_ = client.Close()
		stopServer()
	}
}

// await waits until a peer is in a state, and returns how it came there; nothing if it does
// not come there before ctx ends.
func await(ctx context.Context, peer *netron.Peer, state netron.State) netron.StateEvent {
	for e := range peer.States(ctx) {
		if e.State == state {
			return e
		}
	}
	return netron.StateEvent{}
}

// A program that learns that the network is back need not wait for the next attempt.
func ExamplePeer_Reconnect() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	peer, atServer, stop := dialCalculator(ctx, netron.Config{
		ReconnectDelay: 24 * time.Hour, MaxReconnectDelay: 24 * time.Hour,
	})
	defer stop()
	atServer.CloseWith(1011, "stumbled")
	await(ctx, peer, netron.StateReconnecting)
	peer.Reconnect()
	fmt.Println(await(ctx, peer, netron.StateConnected).Reason)
	// Output: ready
}

// A server asks one peer to connect anew, for example because others have more room.
func ExamplePeer_GoAway() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	peer, atServer, stop := dialCalculator(ctx, netron.Config{ReconnectDelay: 10 * time.Millisecond})
	defer stop()
	changes := make(chan netron.StateEvent, 8)
	defer peer.OnState(func(e netron.StateEvent) { changes <- e })()

	fmt.Println(atServer.GoAway("too many here", 50*time.Millisecond)) // within 50 ms
	e := <-changes
	fmt.Println(e.State, e.Message) // what is under way goes on
	fmt.Println((<-changes).State)
	atServer.CloseWith(1001, "") // the old connection
	// Output:
	// true
	// draining too many here
	// connected
}

// A handler notes who the peer is, and those of later requests find it.
func ExamplePeer_SetUser() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{})
	defer stop()
	err := server.AddTask("login", func(ctx context.Context, name, password string) error {
		if password != "s3cret" {
			return netron.Errorf(netron.Unauthenticated, "wrong password")
		}
		netron.PeerFrom(ctx).SetUser(name) // until the connection ends
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	err = server.AddTask("whoAmI", func(ctx context.Context) any { return netron.UserFrom(ctx) })
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
	fmt.Println(peer.RunTask(ctx, "login", nil, "ann", "s3cret"))
	var user any
	err = peer.RunTask(ctx, "whoAmI", &user)
	fmt.Println(user, err)
	// Output:
	// <nil>
	// ann <nil>
}

// Some calls may wait for the next connection, in place of failing while there is none.
func ExampleConfig_offlineCalls() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	peer, atServer, stop := dialCalculator(ctx, netron.Config{
		OfflineCalls:   100,
		ReconnectDelay: 10 * time.Millisecond,
	})
	defer stop()
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	atServer.CloseWith(1011, "stumbled")
	await(ctx, peer, netron.StateReconnecting)
	sum, err := calc.Add(ctx, 5, 3)
	fmt.Println(sum, err)
	// Output: 8 <nil>
}
