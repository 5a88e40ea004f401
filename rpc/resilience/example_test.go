package resilience_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/resilience"
)

type greeter struct{}

func (greeter) Hello(_ context.Context, name string) (string, error) {
	fmt.Println("asked for", name)
	return "Hello, " + name, nil
}

// A client that asks little of its peers, and a server that lets nobody ask too much.
func Example() {
	e, err := rpc.NewEndpoint(rpc.Config{ID: "node"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer e.Close()
	isRead := func(r *rpc.Request) bool { return r.Service() == "greeter@1.0.0" }
	e.UseOutgoing(
		resilience.Timeout(2*time.Second),
		resilience.Cache(resilience.CacheConfig{Members: isRead, TTL: time.Minute}),
		resilience.Retry(resilience.RetryConfig{Idempotent: isRead}),
		resilience.Breaker(resilience.BreakerConfig{}),
	)
	limit := resilience.RateLimit(resilience.RateLimitConfig{PerSecond: 1, Burst: 1})
	if err := e.Expose("greeter@1.0.0", greeter{}, rpc.Use(limit)); err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	s, err := e.Local().Service(ctx, "greeter@1.0.0")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, name := range []string{"Ann", "Ann", "Bob"} {
		var text string
		if err := s.Call(ctx, "hello", &text, name); err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(text)
	}

	// Output:
	// asked for Ann
	// Hello, Ann
	// Hello, Ann
	// resource_exhausted: too many requests
}

func ExampleBatch() {
	upper := func(_ context.Context, s string) (string, error) { return strings.ToUpper(s), nil }
	names, err := resilience.Batch(context.Background(), []string{"ann", "bob", "eve"}, 2, upper)
	fmt.Println(names, err)

	// Output:
	// [ANN BOB EVE] <nil>
}
