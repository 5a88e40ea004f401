package redisbus_test

import (
	"context"
	"fmt"
	"log"

	"github.com/d-e-v-grid/netron/pubsub"
	"github.com/d-e-v-grid/netron/pubsub/redisbus"
)

type Order struct{ ID int }

// Both nodes declare the topic.
var OrderCreated = pubsub.NewTopic[Order]("order:created")

// A node that hears of the orders of all nodes, and tells them of its own.
func Example() { //nolint:testableexamples // it needs a Redis
	ctx := context.Background()
	bus, err := pubsub.New(pubsub.Config{})
	if err != nil {
		log.Fatal(err)
	}
	bridge, err := redisbus.New(bus, redisbus.Config{
		URL:      "redis://127.0.0.1:6379",
		Node:     "shop-1",
		Patterns: []string{"order:*"},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer bridge.Close()

	_, err = OrderCreated.Subscribe(bus, func(ctx context.Context, o Order) error {
		if node, ok := redisbus.Node(ctx); ok {
			fmt.Println("order", o.ID, "of", node)
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	if err := bridge.Ready(ctx); err != nil { // until then events stay here, and are counted
		log.Fatal(err)
	}
	if err := OrderCreated.Emit(ctx, bus, Order{ID: 7}); err != nil {
		log.Fatal(err)
	}
	if err := bridge.Shutdown(ctx); err != nil { // what was emitted has left
		log.Fatal(err)
	}
	stats := bridge.Stats()
	fmt.Println(stats.Sent, "sent", stats.Lost+stats.Dropped, "lost here", stats.Missed+stats.Overflowed, "lost of others")
}
