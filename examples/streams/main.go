// Command streams has a market that streams prices as they come, history in chunks, takes orders
// as a stream, and talks in both directions at once.
package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/stream"
)

// Price is an item of a stream. Both sides see it.
type Price struct {
	Symbol string
	Cents  int
}

// Market is a service whose methods stream.
type Market struct{}

// released is told when a loop of StreamPrices has ended.
var released = make(chan struct{}, 1)

// StreamPrices goes on until its caller has seen enough: then ctx ends, and yield says no.
func (Market) StreamPrices(ctx context.Context, symbols []string) iter.Seq2[Price, error] {
	return func(yield func(Price, error) bool) {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		defer func() { released <- struct{}{} }()
		for cents := 100; ; cents++ {
			for _, symbol := range symbols {
				if !yield(Price{symbol, cents}, nil) {
					return
				}
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}
}

// History returns old prices, many at a time: one chunk of a hundred costs little more than one of
// a single price.
func (Market) History(_ context.Context, symbol string, days int) (iter.Seq2[[]Price, error], error) {
	if days > 1000 {
		return nil, netron.Errorf(netron.InvalidArgument, "%d days, at most 1000", days)
	}
	return func(yield func([]Price, error) bool) {
		for day := 0; day < days; day += 100 {
			chunk := make([]Price, min(100, days-day))
			for i := range chunk {
				chunk[i] = Price{symbol, 100 + day + i}
			}
			if !yield(chunk, nil) {
				return
			}
		}
		if symbol == "OLD" {
			yield(nil, netron.Errorf(netron.DataLoss, "the archive of %s ends here", symbol))
		}
	}, nil
}

// Import takes prices as they come. It reads them only as fast as it can store them, and so its
// caller sends them.
func (Market) Import(_ context.Context, prices iter.Seq2[Price, error]) (int, error) {
	stored := 0
	for _, err := range prices {
		if err != nil {
			return stored, err
		}
		stored++
	}
	return stored, nil
}

// Trade answers each order while more come.
func (Market) Trade(_ context.Context, d *stream.Duplex[string, string]) error {
	for order, err := range d.All() {
		if err != nil {
			return err
		}
		if err := d.Send(order + ": done"); err != nil {
			return err
		}
	}
	return nil
}

// MarketClient is the same service for callers. A sequence without an error beside it makes its
// call when it is used.
type MarketClient struct {
	StreamPrices func(ctx context.Context, symbols []string) iter.Seq2[Price, error]
	History      func(ctx context.Context, symbol string, days int) (iter.Seq2[[]Price, error], error)
	Import       func(ctx context.Context, prices iter.Seq2[Price, error]) (int, error)
	Trade        func(ctx context.Context) (*stream.Duplex[string, string], error)
}

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	stream.Register[Price]() // these streams need no reflection then

	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Expose("market@1.0.0", Market{}); err != nil {
		return err
	}
	if err := server.Start(); err != nil {
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
	market, err := netron.Query[MarketClient](ctx, peer, "market")
	if err != nil {
		return err
	}
	for _, step := range []func(context.Context, *MarketClient) error{prices, history, imports, trade} {
		if err := step(ctx, market); err != nil {
			return err
		}
	}
	return nil
}

// prices leaves the loop early, which ends that of the market.
func prices(ctx context.Context, market *MarketClient) error {
	seen := 0
	for price, err := range market.StreamPrices(ctx, []string{"ACME", "OLD"}) {
		if err != nil {
			return err
		}
		if seen++; seen > 3 {
			break
		}
		fmt.Println("client: got", price)
	}
	<-released
	fmt.Println("market: nobody wants more prices")
	return nil
}

// history reads to the end, once to an error that the market has sent.
func history(ctx context.Context, market *MarketClient) error {
	for _, symbol := range []string{"ACME", "OLD"} {
		chunks, err := market.History(ctx, symbol, 250)
		if err != nil {
			return err
		}
		n := 0
		for chunk, err := range chunks {
			if netron.CodeOf(err) == netron.DataLoss {
				fmt.Println("client:", err)
				break
			}
			if err != nil {
				return err
			}
			n += len(chunk)
		}
		fmt.Println("client: history of", symbol, "has", n, "prices")
	}
	_, err := market.History(ctx, "ACME", 5000)
	fmt.Println("client:", err)
	return nil
}

// imports passes a sequence, and then one that breaks.
func imports(ctx context.Context, market *MarketClient) error {
	many := func(yield func(Price, error) bool) {
		for i := range 10_000 {
			if !yield(Price{"ACME", i}, nil) {
				return
			}
		}
	}
	n, err := market.Import(ctx, many)
	if err != nil {
		return err
	}
	fmt.Println("client: stored", n)

	torn := errors.New("the tape is torn")
	_, err = market.Import(ctx, func(yield func(Price, error) bool) {
		_ = yield(Price{"ACME", 1}, nil) && yield(Price{}, torn)
	})
	fmt.Println("client: is it the tape?", errors.Is(err, torn))
	return nil
}

// trade sends an order only when the one before was answered.
func trade(ctx context.Context, market *MarketClient) error {
	talk, err := market.Trade(ctx)
	if err != nil {
		return err
	}
	defer talk.Close()
	for _, order := range []string{"buy 10", "sell 5"} {
		if err := talk.Send(order); err != nil {
			return err
		}
		answer, err := talk.Recv()
		if err != nil {
			return err
		}
		fmt.Println("client:", answer)
	}
	return nil
}
