// Command testing is a program with tests: see main_test.go, and run them with
//
//	go test -v ./examples/testing
//
// Run by itself it makes a bid, over loopback.
package main

import (
	"context"
	"fmt"
	"log"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron"
)

// Auction is the service.
type Auction struct {
	mu   sync.Mutex
	best int // guarded by mu
}

// Bid returns the best bid so far.
func (a *Auction) Bid(_ context.Context, cents int) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if cents <= a.best {
		return a.best, netron.Errorf(netron.FailedPrecondition, "%d is not above %d", cents, a.best)
	}
	a.best = cents
	return a.best, nil
}

// AuctionClient is the service as callers see it. A test fills it with any function.
type AuctionClient struct {
	Bid func(ctx context.Context, cents int) (int, error)
}

// Outbid bids one cent more until it has the best bid, or the next one would be above a
// limit. It reports whether it has it.
func Outbid(ctx context.Context, auction *AuctionClient, first, limit int) (bool, error) {
	for bid := first; bid <= limit; {
		_, err := auction.Bid(ctx, bid)
		switch netron.CodeOf(err) {
		case 0:
			return true, nil
		case netron.FailedPrecondition:
			bid++
		case netron.Unavailable:
			if sent, known := netron.WasSent(err); sent || !known {
				return false, err // it may have been made
			}
			if err := pause(ctx, time.Second); err != nil {
				return false, err
			}
		default:
			return false, err
		}
	}
	return false, nil
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Start(); err != nil {
		return err
	}
	if err := server.Expose("auction@1.0.0", &Auction{best: 100}); err != nil {
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
	auction, err := netron.Query[AuctionClient](ctx, peer, "auction")
	if err != nil {
		return err
	}
	won, err := Outbid(ctx, auction, 99, 110)
	fmt.Println("won:", won, err)
	return nil
}
