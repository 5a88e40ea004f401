// Command errors shows what callers see of the errors of a service: codes, details, fields
// of the service's own, and little of what is internal.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"time"

	"github.com/d-e-v-grid/netron"
)

// OutOfStockError is an error of the application. It says how it travels.
type OutOfStockError struct {
	Item string
	Left int
}

// Error is for this process.
func (e *OutOfStockError) Error() string {
	return fmt.Sprintf("%s: only %d left in the database", e.Item, e.Left)
}

// NetronError is for callers.
func (e *OutOfStockError) NetronError() *netron.Error {
	return &netron.Error{
		Code:    netron.FailedPrecondition,
		Message: "out of stock",
		Details: map[string]any{"item": e.Item},
		Fields:  map[string]any{"left": e.Left}, // members of the error for TypeScript peers
	}
}

// Store is the service.
type Store struct{}

// Order shows ways to fail.
func (Store) Order(ctx context.Context, item string) (string, error) {
	switch item {
	case "unicorn":
		return "", netron.Errorf(netron.NotFound, "no item %q", item)
	case "lamp":
		return "", &OutOfStockError{Item: item, Left: 1}
	case "":
		return "", errors.New("the item has no name") // any error travels as its text
	case "bomb":
		panic("secret of this process") // callers see no more than a code; it is logged here
	case "snail":
		<-ctx.Done() // the deadline of the caller, or an earlier end of the call
		return "", ctx.Err()
	}
	return item + " is on its way", nil
}

// StoreClient is the service as callers see it.
type StoreClient struct {
	Order func(ctx context.Context, item string) (string, error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Start(); err != nil {
		return err
	}
	if err := server.Expose("store@1.0.0", Store{}); err != nil {
		return err
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		return err
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	store, err := netron.Query[StoreClient](ctx, peer, "store")
	if err != nil {
		return err
	}
	for _, item := range []string{"book", "unicorn", "lamp", "", "bomb"} {
		answer, err := store.Order(ctx, item)
		report(item, answer, err)
	}

	soon, cancelSoon := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancelSoon()
	_, err = store.Order(soon, "snail")
	fmt.Println("snail:", netron.CodeOf(err), errors.Is(err, context.DeadlineExceeded))

	// Failures of the library have codes too.
	_, err = peer.Service(ctx, "nothing")
	fmt.Println("nothing:", netron.CodeOf(err))
	return nil
}

// report prints what a caller can tell from an error.
func report(item, answer string, err error) {
	e, ok := errors.AsType[*netron.Error](err)
	if !ok {
		fmt.Printf("%s: %s\n", item, answer)
		return
	}
	fmt.Printf("%q: code %v (%d), message %q", item, e.Code, e.Code.Number(), e.Message)
	if e.Details != nil {
		fmt.Printf(", details %v", e.Details)
	}
	if left, ok := e.Fields["left"]; ok {
		fmt.Printf(", left %v", left)
	}
	fmt.Println()
}
