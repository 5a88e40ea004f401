package balance_test

import (
	"context"
	"fmt"
	"log"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// Greeter is the service of the examples.
type Greeter struct{ name string }

func (g Greeter) Greet(_ context.Context, name string) (string, error) { return "hello, " + name, nil }
func (g Greeter) Where(context.Context) (string, error)                { return g.name, nil }

type GreeterClient struct {
	Greet func(ctx context.Context, name string) (string, error)
	Where func(ctx context.Context) (string, error)
}

// exampleT stands for the *testing.T of a test, which examples do not have.
type exampleT struct{ cleanups []func() }

func (t *exampleT) Helper()                      {}
func (t *exampleT) Cleanup(f func())             { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Errorf(f string, args ...any) { log.Printf(f, args...) }
func (t *exampleT) Fatalf(f string, args ...any) { log.Panicf(f, args...) }

// end does what the end of a test does.
func (t *exampleT) end() {
	for i := len(t.cleanups) - 1; i >= 0; i-- {
		t.cleanups[i]()
	}
}

// newExample returns three nodes that greet, at "node-1:8080" and so on, and a dialler.
func newExample() (t *exampleT, dial balance.Dialer) {
	t = new(exampleT)
	cluster := netrontest.NewCluster(t, 3, netrontest.Prepare(func(n *netron.Node) error {
		return n.Expose("greeter@1.0.0", Greeter{n.ID()})
	}))
	caller := cluster.Start(t, "caller:1")
	return t, func(ctx context.Context, address string) (*rpc.Peer, error) { return caller.Dial(ctx, address) }
}

func Example() {
	ctx := context.Background()
	t, dial := newExample() // dial is the Dial of a node
	defer t.end()

	client, err := balance.New("greeter@^1", balance.Config{
		Dial: dial,
		Resolver: balance.Static(
			balance.Instance{Address: "node-1:8080", Zone: "east"},
			balance.Instance{Address: "node-2:8080", Zone: "east", Suspect: true},
			balance.Instance{Address: "node-3:8080", Zone: "west"},
		),
		Zone:      "east",
		WaitReady: true,
	})
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	greeter, err := balance.Query[GreeterClient](ctx, client)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(greeter.Greet(ctx, "Ann"))                 // at one of them
	fmt.Println(greeter.Greet(rpc.Idempotent(ctx), "Bob")) // at another one, if that fails
	// Output:
	// hello, Ann <nil>
	// hello, Bob <nil>
}

func ExampleWithKey() {
	ctx := context.Background()
	t, dial := newExample()
	defer t.end()

	client, err := balance.New("greeter", balance.Config{
		Dial:   dial,
		Policy: balance.ByKey,
		Resolver: balance.Static(
			balance.Instance{Address: "node-1:8080"}, balance.Instance{Address: "node-2:8080"}, balance.Instance{Address: "node-3:8080"},
		),
	})
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()
	places := make(map[string]bool)
	for range 5 {
		var where string
		if err := client.Call(balance.WithKey(ctx, "user-7"), "where", &where); err != nil {
			log.Panic(err)
		}
		places[where] = true
	}
	fmt.Println(len(places), "instance")
	// Output:
	// 1 instance
}

func ExampleSticky() {
	ctx := context.Background()
	t, dial := newExample()
	defer t.end()

	client, err := balance.New("greeter", balance.Config{
		Dial:     dial,
		Resolver: balance.Static(balance.Instance{Address: "node-1:8080"}, balance.Instance{Address: "node-2:8080"}),
	})
	if err != nil {
		log.Panic(err)
	}
	defer client.Close()

	session := balance.Sticky(ctx)
	var first, second string
	if err := client.Call(session, "where", &first); err != nil {
		log.Panic(err)
	}
	if err := client.Call(session, "where", &second); err != nil {
		log.Panic(err)
	}
	fmt.Println(first == second)
	// Output:
	// true
}
