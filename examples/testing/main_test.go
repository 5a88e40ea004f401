package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/examples/internal/leaks"
	"github.com/d-e-v-grid/netron/netrontest"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output: won: true <nil>
}

// A service is a Go value: its methods need no node.
func TestBid(t *testing.T) {
	a := &Auction{best: 100}
	if best, err := a.Bid(t.Context(), 101); best != 101 || err != nil {
		t.Errorf("Bid(101) = %d, %v, want 101", best, err)
	}
	if best, err := a.Bid(t.Context(), 101); best != 101 || netron.CodeOf(err) != netron.FailedPrecondition {
		t.Errorf("second Bid(101) = %d, %v, want failed_precondition", best, err)
	}
}

// A client is a struct of funcs: a fake is a literal.
func TestOutbidStopsAtLimit(t *testing.T) {
	var bids []int
	never := &AuctionClient{Bid: func(_ context.Context, cents int) (int, error) {
		bids = append(bids, cents)
		return 0, netron.Errorf(netron.FailedPrecondition, "too low")
	}}
	if won, err := Outbid(t.Context(), never, 5, 7); won || err != nil || len(bids) != 3 {
		t.Errorf("Outbid = %t, %v after bids of %v, want false after three", won, err, bids)
	}
}

// expose is an option for nodes that have the service from the beginning.
func expose(best int) netrontest.Option {
	return netrontest.Prepare(func(node *netron.Node) error {
		return node.Expose("auction@1.0.0", &Auction{best: best})
	})
}

// Two nodes in memory are enough for what travels: names, codes, values.
func TestOverConnection(t *testing.T) {
	pair := netrontest.NewPair(t, expose(100))
	auction, err := netron.Query[AuctionClient](t.Context(), pair.ToServer, "auction")
	if err != nil {
		t.Fatal(err)
	}
	if won, err := Outbid(t.Context(), auction, 99, 110); !won || err != nil {
		t.Errorf("Outbid = %t, %v, want true", won, err)
	}
}

// In a bubble of testing/synctest the network fails for five seconds, and the test takes
// no time.
func TestOutbidSurvivesOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, expose(100))
		auction, err := netron.Query[AuctionClient](t.Context(), pair.ToServer, "auction")
		if err != nil {
			t.Fatal(err)
		}
		pair.Refuse() // nobody can dial
		pair.Cut()    // and the connection is lost
		synctest.Wait()
		time.AfterFunc(5*time.Second, pair.Allow)
		start := time.Now()
		if won, err := Outbid(t.Context(), auction, 101, 110); !won || err != nil {
			t.Errorf("Outbid = %t, %v, want true", won, err)
		}
		if took := time.Since(start); took < 5*time.Second || took > time.Minute {
			t.Errorf("Outbid took %v, want what the outage lasts, and a little more", took)
		}
	})
}

// A peer that falls silent is noticed, whatever it takes in real time.
func TestSilenceIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, expose(100))
		pair.Stall() // nothing arrives any more, and nobody is told
		start := time.Now()
		<-pair.ToClient.Done()
		if took := time.Since(start); took != time.Minute {
			t.Errorf("the server noticed after %v, want the PingTimeout", took)
		}
	})
}
