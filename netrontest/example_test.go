package netrontest_test

import (
	"context"
	"fmt"
	"log"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
)

// Greeter is the service of the examples.
type Greeter struct{}

func (Greeter) Greet(_ context.Context, name string) (string, error) { return "hello, " + name, nil }

type GreeterClient struct {
	Greet func(ctx context.Context, name string) (string, error)
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

func ExampleNewPair() {
	ctx, t := context.Background(), new(exampleT) // in a test: t.Context() and t
	defer t.end()

	pair := netrontest.NewPair(t, once)
	if err := pair.Server.Expose("greeter@1.0.0", Greeter{}); err != nil {
		log.Panic(err)
	}
	greeter, err := netron.Query[GreeterClient](ctx, pair.ToServer, "greeter")
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(greeter.Greet(ctx, "Ann"))

	pair.Cut()
	<-pair.ToServer.Done()
	_, err = greeter.Greet(ctx, "Bob")
	fmt.Println(netron.CodeOf(err))
	// Output:
	// hello, Ann <nil>
	// unavailable
}

func ExampleNewCluster() {
	ctx, t := context.Background(), new(exampleT) // in a test: t.Context() and t
	defer t.end()

	cluster := netrontest.NewCluster(t, 3, once, netrontest.Prepare(func(node *netron.Node) error {
		return node.AddTask("whoAreYou", func(context.Context) string { return node.ID() })
	}))
	for _, node := range cluster.Nodes[1:] {
		peer, err := cluster.Nodes[0].Dial(ctx, node.Addr())
		if err != nil {
			log.Panic(err)
		}
		var name string
		err = peer.RunTask(ctx, "whoAreYou", &name)
		fmt.Println(node.Addr(), name, err)
	}
	fmt.Println(cluster.Dials(), cluster.Link("node-1", "node-2").Dials())
	// Output:
	// node-2:8080 node-2 <nil>
	// node-3:8080 node-3 <nil>
	// 2 1
}

func ExampleNode_Restart() {
	ctx, t := context.Background(), new(exampleT) // in a test: t.Context() and t
	defer t.end()

	pair := netrontest.NewPair(t, once, netrontest.Prepare(func(node *netron.Node) error {
		return node.Expose("greeter@1.0.0", Greeter{})
	}))
	pair.Server = pair.Server.Restart()
	<-pair.ToServer.Done() // the client has lost the old one

	peer, err := pair.Client.Dial(ctx, pair.Server.Addr())
	if err != nil {
		log.Panic(err)
	}
	greeter, err := netron.Query[GreeterClient](ctx, peer, "greeter")
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(greeter.Greet(ctx, "Ann"))
	// Output: hello, Ann <nil>
}

func ExampleLink_Refuse() {
	ctx, t := context.Background(), new(exampleT) // in a test: t.Context() and t
	defer t.end()

	cluster := netrontest.NewCluster(t, 2, once)
	link := cluster.Link("node-1", "node-2")
	link.Refuse()
	_, err := cluster.Nodes[0].Dial(ctx, "node-2:8080")
	fmt.Println(err)
	link.Allow()
	_, err = cluster.Nodes[0].Dial(ctx, "node-2:8080")
	fmt.Println(err, link.Dials(), link.Conns())
	// Output:
	// netron: dial node-2:8080: engine: dial node-2:8080: dial memory node-2:8080: connection refused
	// <nil> 2 1
}

func ExampleDiscover() {
	ctx, t := context.Background(), new(exampleT) // in a test: t.Context() and t
	defer t.end()

	cluster := netrontest.NewCluster(t, 3, netrontest.Discover(), netrontest.Prepare(func(node *netron.Node) error {
		return node.Expose("greeter@1.0.0", Greeter{})
	}))
	client, err := cluster.Nodes[0].Find("greeter")
	if err != nil {
		log.Panic(err)
	}
	greeter, err := netron.QueryClient[GreeterClient](ctx, client)
	if err != nil {
		log.Panic(err)
	}
	fmt.Println(greeter.Greet(ctx, "Ann"))
	cluster.Nodes[1].Restart()
	if err := cluster.Nodes[2].Close(); err != nil {
		log.Panic(err)
	}
	fmt.Println(greeter.Greet(netron.Idempotent(ctx), "Bob"))
	// Output:
	// hello, Ann <nil>
	// hello, Bob <nil>
}
