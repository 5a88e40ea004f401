package discover_test

import (
	"context"
	"fmt"
	"log"

	"github.com/d-e-v-grid/netron/discover"
)

// newRegistry returns a registry; with discover.New it would be one over Redis.
func newRegistry(hub *discover.Hub) *discover.Registry {
	reg, err := discover.NewMemory(hub, discover.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return reg
}

func Example() {
	ctx := context.Background()
	hub := discover.NewHub() // what Redis is otherwise
	server, client := newRegistry(hub), newRegistry(hub)
	defer client.Close(ctx)

	err := server.Register(ctx, discover.Node{
		ID:       "market-1",
		Address:  "wss://10.0.0.7:8443",
		Services: []discover.Service{{Name: "market", Version: "1.2.0"}, {Name: "health"}},
		Zone:     "north",
	})
	if err != nil {
		log.Fatal(err)
	}
	for e, err := range client.Watch(ctx) { // until the service is there
		if err != nil {
			log.Fatal(err)
		}
		if e.Kind == discover.ServiceAvailable && e.Service.Name == "market" {
			fmt.Println(e.Service.QualifiedName(), "is available")
			break
		}
	}
	for _, n := range client.Lookup("market@^1") {
		fmt.Println(n.ID, "at", n.URL(), "in", n.Zone)
	}

	if err := server.Close(ctx); err != nil { // the others hear of it
		log.Fatal(err)
	}
	nodes, err := client.Fresh(ctx, "market@^1")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(nodes), "are left")

	// Output:
	// market@1.2.0 is available
	// market-1 at wss://10.0.0.7:8443 in north
	// 0 are left
}

func ExampleRegistry_On() {
	ctx := context.Background()
	reg := newRegistry(nil)
	seen := make(chan string)
	stop := reg.On(func(e discover.Event) {
		if e.Kind == discover.NodeJoined {
			seen <- e.Node.ID + " is there"
		}
	})
	if err := reg.Register(ctx, discover.Node{ID: "a", Address: "10.0.0.1:8080"}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-seen)
	stop()
	if err := reg.Close(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: a is there
}

func ExampleNewStatic() {
	reg, err := discover.NewStatic(
		discover.Node{ID: "a", Address: "a.example:8080", Services: []discover.Service{{Name: "market", Version: "1.0.0"}}},
		discover.Node{ID: "b", Address: "b.example:8080", Services: []discover.Service{{Name: "market", Version: "2.1.0"}}},
	)
	if err != nil {
		log.Fatal(err)
	}
	defer reg.Close(context.Background())
	fmt.Println(len(reg.Find("market")), "have any version")
	n, ok := reg.FindOne("market@^2")
	fmt.Println(n.Address, ok)
	// Output:
	// 2 have any version
	// b.example:8080 true
}

func ExampleAdvertisedAddress() {
	fmt.Println(discover.AdvertisedAddress("10.0.0.7:8080", ""))
	fmt.Println(discover.AdvertisedAddress("0.0.0.0:8080", "node7.example"))
	fmt.Println(discover.AdvertisedAddress("0.0.0.0:8080", "wss://node7.example:443"))
	// Output:
	// 10.0.0.7:8080 <nil>
	// node7.example:8080 <nil>
	// wss://node7.example:443 <nil>
}
