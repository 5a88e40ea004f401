// Command resilience puts middleware of package rpc/resilience around a service that has
// bad moments: a server that refuses too much, and a client that asks for no more than it
// needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc/resilience"
)

// Weather is the service.
type Weather struct{ asked atomic.Int64 }

// Now returns the weather of a city.
func (w *Weather) Now(_ context.Context, city string) (string, error) {
	w.asked.Add(1)
	return "rain in " + city, nil
}

// Forecast needs a second try, always.
func (w *Weather) Forecast(context.Context) (string, error) {
	if w.asked.Add(1)%2 == 1 {
		return "", netron.Errorf(netron.Unavailable, "the satellite is behind the moon")
	}
	return "more rain", nil
}

// Archive is broken.
func (w *Weather) Archive(context.Context) (string, error) {
	w.asked.Add(1)
	return "", netron.Errorf(netron.Unavailable, "the cellar is under water")
}

// asks prints how often the service has been asked since the last time.
func (w *Weather) asks() { fmt.Println("  asked", w.asked.Swap(0), "times") }

// WeatherClient is the service as callers see it.
type WeatherClient struct {
	Now      func(ctx context.Context, city string) (string, error)
	Forecast func(ctx context.Context) (string, error)
	Archive  func(ctx context.Context) (string, error)
}

func isNow(r *netron.Request) bool      { return r.Member() == "now" }
func isForecast(r *netron.Request) bool { return r.Member() == "forecast" }

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	weather := &Weather{}
	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Start(); err != nil {
		return err
	}
	// Ten requests for the archive at once, then one in a minute, for each peer. At most
	// 100 requests at a time in all, and 100 more that wait.
	limit := resilience.RateLimit(resilience.RateLimitConfig{PerSecond: 1.0 / 60, Burst: 10})
	if err := server.Expose("weather@1.0.0", weather,
		netron.Use(resilience.Bulkhead(100, 100)),
		netron.UseOn("Archive", limit),
	); err != nil {
		return err
	}

	// The first is the outermost.
	protect := []netron.Middleware{
		resilience.Timeout(5 * time.Second),
		resilience.Cache(resilience.CacheConfig{Members: isNow, TTL: time.Minute}),
		resilience.Retry(resilience.RetryConfig{Idempotent: isForecast, Delay: time.Millisecond}),
		resilience.Breaker(resilience.BreakerConfig{MinRequests: 4, OpenFor: time.Minute}),
	}
	careless, err := dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	defer careless.close()
	careful, err := dial(ctx, server.Addr(), protect...)
	if err != nil {
		return err
	}
	defer careful.close()

	fmt.Println("rate limit")
	for range 10 {
		_, err = careless.Archive(ctx)
	}
	fmt.Println("  10:", err)
	_, err = careless.Archive(ctx)
	fmt.Println("  11:", err)
	weather.asks()

	fmt.Println("cache and batch")
	cities := []string{"Bergen", "Oslo", "Bergen", "Oslo", "Bergen"}
	reports, err := resilience.Batch(ctx, cities, 2, careful.Now) // at most two at a time
	if err != nil {
		return err
	}
	fmt.Println(" ", reports[0], "and", reports[4])
	weather.asks()

	fmt.Println("retry")
	forecast, err := careful.Forecast(ctx)
	if err != nil {
		return err
	}
	fmt.Println(" ", forecast)
	weather.asks()

	fmt.Println("circuit breaker") // opens when half of the requests have failed
	for range 6 {
		_, err = careful.Archive(ctx)
	}
	fmt.Println(" ", netron.CodeOf(err), errors.Is(err, resilience.ErrOpen))
	weather.asks()
	return nil
}

// connection is a client with its node.
type connection struct {
	*WeatherClient
	node *netron.Node
}

func (c *connection) close() { _ = c.node.Close() }

// dial returns a client whose requests pass through middleware.
func dial(ctx context.Context, addr string, m ...netron.Middleware) (*connection, error) {
	node, err := netron.New(netron.Config{})
	if err != nil {
		return nil, err
	}
	peer, err := node.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	peer.Use(m...)
	weather, err := netron.Query[WeatherClient](ctx, peer, "weather")
	return &connection{weather, node}, err
}
