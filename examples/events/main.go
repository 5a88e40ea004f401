// Command events has a shop that emits events on its bus, and a client that subscribes to
// them: by a typed topic, and by a pattern.
package main

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/pubsub"
)

// Order is the argument of an event. Both sides see it.
type Order struct {
	ID    int
	Total float64
}

// OrderCreated is an event with one argument of a type.
var OrderCreated = pubsub.NewTopic[Order]("order:created")

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	shop, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer shop.Close()
	if err := shop.Start(); err != nil {
		return err
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, shop.Addr())
	if err != nil {
		return err
	}

	// A handler runs for one event after another. Subscribe returns when the shop has
	// agreed, and holds over reconnects until Unsubscribe.
	orders := make(chan Order)
	sub, err := peer.Subscribe(ctx, OrderCreated.Name(), OrderCreated.Handler(func(_ context.Context, o Order) error {
		orders <- o
		return nil
	}))
	if err != nil {
		return err
	}

	// The shop's own handlers and its peers get the same events.
	if _, err := OrderCreated.Subscribe(shop.Bus(), func(_ context.Context, o Order) error {
		fmt.Println("shop: stored", o.ID)
		return nil
	}); err != nil {
		return err
	}
	if err := OrderCreated.Emit(ctx, shop.Bus(), Order{ID: 7, Total: 12.5}); err != nil {
		return err
	}
	fmt.Println("client: got", <-orders)
	if err := sub.Unsubscribe(ctx); err != nil {
		return err
	}

	// A pattern stands for many names: * is one segment, ** the rest. Broadcast sends to all
	// peers; those without a handler for it drop it.
	paid := make(chan pubsub.Event, 2)
	if _, err := peer.Subscribe(ctx, "order:*", func(_ context.Context, e pubsub.Event) (any, error) {
		paid <- e
		return nil, nil
	}); err != nil {
		return err
	}
	for _, name := range []string{"order:paid", "stock:low", "order:sent"} {
		if err := shop.Broadcast(ctx, name, 7); err != nil {
			return err
		}
	}
	for range 2 {
		event := <-paid
		var id int
		if err := event.Decode(&id); err != nil {
			return err
		}
		fmt.Println("client:", event.Name(), id)
	}
	return nil
}
