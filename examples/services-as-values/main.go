// Command services-as-values has methods that return services: a session that belongs to
// its caller, and a service of another node that is passed on. It also has callbacks, by
// a service that a client exposes to its server alone.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Shop is a service whose methods return services.
type Shop struct {
	prices *netron.Stub // a service of another node
}

// Open returns a cart of the caller's own. Each call makes a new one.
func (s *Shop) Open(_ context.Context, customer string) (*netron.Service, error) {
	return netron.NewServiceOf("cart@1.0.0", &Cart{customer: customer})
}

// Prices passes on a service of another node, which its caller need not know. Requests
// for it go through this node.
func (s *Shop) Prices(context.Context) *netron.Stub { return s.prices }

// Cart is the service that Open returns. Nobody else can call it. It is for one caller,
// who does one thing after the other; others would need a lock.
type Cart struct {
	customer string
	items    []string
}

// Put adds an item, and tells the caller of it.
func (c *Cart) Put(ctx context.Context, item string) error {
	c.items = append(c.items, item)
	// A callback: the other side of this connection exposes a display.
	display, err := netron.Query[DisplayClient](ctx, netron.PeerFrom(ctx), "display")
	if err != nil {
		return err
	}
	return display.Show(ctx, fmt.Sprintf("%d in the cart of %s: %v", len(c.items), c.customer, c.items))
}

// Prices is the service of the other node.
type Prices struct{}

// Of returns the price of an item.
func (Prices) Of(_ context.Context, item string) (int, error) { return 100 * len(item), nil }

// Display is the service of the client.
type Display struct{}

// Show prints a line.
func (Display) Show(_ context.Context, line string) error {
	_, err := fmt.Println("display:", line)
	return err
}

// The services as their callers see them. A field of type *netron.Stub is the service
// itself, which Release needs.
type (
	ShopClient struct {
		Open   func(ctx context.Context, customer string) (*CartClient, error)
		Prices func(ctx context.Context) (*PricesClient, error)
	}
	CartClient struct {
		Service *netron.Stub
		Put     func(ctx context.Context, item string) error
	}
	PricesClient struct {
		Service *netron.Stub
		Of      func(ctx context.Context, item string) (int, error)
	}
	DisplayClient struct {
		Show func(ctx context.Context, line string) error
	}
)

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	catalogue, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer catalogue.Close()
	if err := catalogue.Start(); err != nil {
		return err
	}
	if err := catalogue.Expose("prices@1.0.0", Prices{}); err != nil {
		return err
	}
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Start(); err != nil {
		return err
	}
	behind, err := server.Dial(ctx, catalogue.Addr())
	if err != nil {
		return err
	}
	prices, err := behind.Service(ctx, "prices")
	if err != nil {
		return err
	}
	if err := server.Expose("shop@1.0.0", &Shop{prices: prices}); err != nil {
		return err
	}
	return visit(ctx, server.Addr())
}

// visit is the client.
func visit(ctx context.Context, addr string) error {
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, addr)
	if err != nil {
		return err
	}
	if err := peer.Expose("display", Display{}); err != nil { // this peer alone sees it
		return err
	}
	shop, err := netron.Query[ShopClient](ctx, peer, "shop")
	if err != nil {
		return err
	}
	cart, err := shop.Open(ctx, "Ann")
	if err != nil {
		return err
	}
	if err := errors.Join(cart.Put(ctx, "tea"), cart.Put(ctx, "milk")); err != nil {
		return err
	}
	prices, err := shop.Prices(ctx)
	if err != nil {
		return err
	}
	price, err := prices.Of(ctx, "milk")
	if err != nil {
		return err
	}
	fmt.Println("milk costs", price)

	// What was returned is held for the client until it is given back, or until the
	// connection ends.
	if err := errors.Join(cart.Service.Release(ctx), prices.Service.Release(ctx)); err != nil {
		return err
	}
	fmt.Println("after the release:", netron.CodeOf(cart.Put(ctx, "jam")))
	return nil
}
