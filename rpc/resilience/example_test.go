package resilience_test

import (
	"context"
	"errors"
	"fmt"
	"log"
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

// service answers by a function.
type service struct {
	answer func(ctx context.Context) (string, error)
}

func (s service) Get(ctx context.Context) (string, error) { return s.answer(ctx) }

// through returns a function that asks such a service through middleware, and one that
// ends both.
func through(m rpc.Middleware, answer func(ctx context.Context) (string, error)) (get func(ctx context.Context) (string, error), end func()) {
	e, err := rpc.NewEndpoint(rpc.Config{ID: "node"})
	if err != nil {
		log.Fatal(err)
	}
	if err := e.Expose("service", service{answer}); err != nil {
		log.Fatal(err)
	}
	client, err := rpc.Query[struct {
		Get func(ctx context.Context) (string, error)
	}](context.Background(), e.Local(), "service")
	if err != nil {
		log.Fatal(err)
	}
	e.UseOutgoing(m)
	return client.Get, func() { _ = e.Close() }
}

// What is refused says when to try again.
func ExampleRateLimit() {
	ctx := context.Background()
	limit := resilience.RateLimit(resilience.RateLimitConfig{PerSecond: 0.001, Burst: 2, By: resilience.PerPeer})
	get, end := through(limit, func(context.Context) (string, error) { return "answer", nil })
	defer end()
	for range 3 {
		text, err := get(ctx)
		if e, ok := errors.AsType[*rpc.Error](err); ok {
			details, _ := e.Details.(map[string]any)
			fmt.Println(e.Code, "- says when:", details[resilience.DetailRetryAfter] != nil)
			continue
		}
		fmt.Println(text)
	}
	// Output:
	// answer
	// answer
	// resource_exhausted - says when: true
}

// One request at a time, and no queue.
func ExampleBulkhead() {
	ctx := context.Background()
	begun, finish := make(chan struct{}), make(chan struct{})
	get, end := through(resilience.Bulkhead(1, 0), func(context.Context) (string, error) {
		close(begun)
		<-finish
		return "answer", nil
	})
	defer end()
	first := make(chan string, 1)
	go func() {
		text, err := get(ctx)
		if err != nil {
			log.Print(err)
		}
		first <- text
	}()
	<-begun
	_, err := get(ctx)
	fmt.Println(rpc.CodeOf(err))
	close(finish)
	fmt.Println(<-first)
	// Output:
	// resource_exhausted
	// answer
}

// A service that fails is left alone for a while.
func ExampleBreaker() {
	ctx := context.Background()
	asked := 0
	breaker := resilience.Breaker(resilience.BreakerConfig{MinRequests: 3, FailureRatio: 0.5, OpenFor: time.Minute})
	get, end := through(breaker, func(context.Context) (string, error) {
		asked++
		return "", rpc.Errorf(rpc.Unavailable, "out of order")
	})
	defer end()
	for range 5 {
		_, err := get(ctx)
		fmt.Println(rpc.CodeOf(err), errors.Is(err, resilience.ErrOpen))
	}
	fmt.Println("asked", asked)
	// Output:
	// unavailable false
	// unavailable false
	// unavailable false
	// unavailable true
	// unavailable true
	// asked 3
}

// Only requests that may be served twice are repeated, and those that were never sent.
func ExampleRetry() {
	ctx := context.Background()
	asked := 0
	retry := resilience.Retry(resilience.RetryConfig{
		MaxAttempts: 3,
		Delay:       time.Millisecond,
		Idempotent:  func(r *rpc.Request) bool { return r.Member() == "get" },
	})
	get, end := through(retry, func(context.Context) (string, error) {
		asked++
		if asked < 3 {
			return "", rpc.Errorf(rpc.Unavailable, "not yet")
		}
		return "answer", nil
	})
	defer end()
	text, err := get(ctx)
	fmt.Println(text, err, "asked", asked)
	// Output: answer <nil> asked 3
}

// Equal requests have one answer for a while.
func ExampleCache() {
	ctx := context.Background()
	asked := 0
	cache := resilience.Cache(resilience.CacheConfig{
		Members: func(r *rpc.Request) bool { return r.Member() == "get" },
		TTL:     time.Minute,
	})
	get, end := through(cache, func(context.Context) (string, error) {
		asked++
		return fmt.Sprint("answer ", asked), nil
	})
	defer end()
	for range 3 {
		fmt.Println(get(ctx))
	}
	// Output:
	// answer 1 <nil>
	// answer 1 <nil>
	// answer 1 <nil>
}

// The handler learns of the limit by its context.
func ExampleTimeout() {
	get, end := through(resilience.Timeout(10*time.Millisecond), func(ctx context.Context) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	})
	defer end()
	_, err := get(context.Background())
	fmt.Println(rpc.CodeOf(err), errors.Is(err, context.DeadlineExceeded))
	// Output: deadline_exceeded true
}

// Not every error is a reason to leave a service alone.
func ExampleIsFailure() {
	for _, code := range []rpc.Code{rpc.NotFound, rpc.Unavailable, rpc.Internal} {
		fmt.Println(code, resilience.IsFailure(rpc.Errorf(code, "text")))
	}
	// Output:
	// not_found false
	// unavailable true
	// internal true
}
