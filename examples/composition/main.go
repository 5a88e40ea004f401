// Command composition has a service that is made of two others, which run on nodes of
// their own: a checkout asks for the user, then for a payment.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
)

// User is what the service users knows.
type User struct {
	ID   string
	Name string
}

// Users is a service.
type Users struct{}

// Get returns a user.
func (Users) Get(_ context.Context, id string) (*User, error) {
	if id != "u1" {
		return nil, netron.Errorf(netron.NotFound, "no user %q", id)
	}
	return &User{ID: id, Name: "Ann"}, nil
}

// Payments is a service.
type Payments struct{}

// Pay returns the number of a payment.
func (Payments) Pay(_ context.Context, userID string, cents int) (string, error) {
	return fmt.Sprintf("%s-%d", userID, cents), nil
}

// UsersClient and PaymentsClient are the services as callers see them.
type (
	UsersClient struct {
		Get func(ctx context.Context, id string) (*User, error)
	}
	PaymentsClient struct {
		Pay func(ctx context.Context, userID string, cents int) (string, error)
	}
)

// Checkout is the service that is made of them. Its fields are plain structs of funcs,
// so a test fills them with functions of its own.
type Checkout struct {
	users    *UsersClient
	payments *PaymentsClient
}

// Receipt is the result of a checkout.
type Receipt struct {
	Customer  string
	PaymentID string
}

// Buy has a user pay. It passes its context on: the deadline of the caller holds for
// what is asked of the other nodes, and so does his giving up.
func (c *Checkout) Buy(ctx context.Context, userID string, cents int) (*Receipt, error) {
	user, err := c.users.Get(ctx, userID)
	if err != nil {
		return nil, err // with its code
	}
	id, err := c.payments.Pay(ctx, user.ID, cents)
	if err != nil {
		return nil, err
	}
	return &Receipt{Customer: user.Name, PaymentID: id}, nil
}

// CheckoutClient is the service as callers see it.
type CheckoutClient struct {
	Buy func(ctx context.Context, userID string, cents int) (*Receipt, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	// Two nodes with a service each, and one that is a client of both, and a server too.
	usersNode, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer usersNode.Close()
	if err := usersNode.Start(); err != nil {
		return err
	}
	paymentsNode, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer paymentsNode.Close()
	if err := paymentsNode.Start(); err != nil {
		return err
	}
	shop, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer shop.Close()
	if err := shop.Start(); err != nil {
		return err
	}
	if err := errors.Join(
		usersNode.Expose("users@1.0.0", Users{}),
		paymentsNode.Expose("payments@1.0.0", Payments{}),
	); err != nil {
		return err
	}
	users, err := find[UsersClient](ctx, shop, usersNode.Addr(), "users@^1")
	if err != nil {
		return err
	}
	payments, err := find[PaymentsClient](ctx, shop, paymentsNode.Addr(), "payments@^1")
	if err != nil {
		return err
	}
	if err := shop.Expose("checkout@1.0.0", &Checkout{users: users, payments: payments}); err != nil {
		return err
	}

	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	checkout, err := find[CheckoutClient](ctx, client, shop.Addr(), "checkout")
	if err != nil {
		return err
	}
	receipt, err := checkout.Buy(ctx, "u1", 1250)
	if err != nil {
		return err
	}
	fmt.Printf("%+v\n", *receipt)
	_, err = checkout.Buy(ctx, "u2", 1250)
	fmt.Println(err, "/", netron.CodeOf(err) == netron.NotFound)
	return nil
}

// find dials an address and asks for a service there. The peer lives as long as the node.
func find[T any](ctx context.Context, node *netron.Node, addr, service string) (*T, error) {
	peer, err := node.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	return netron.Query[T](ctx, peer, service)
}
