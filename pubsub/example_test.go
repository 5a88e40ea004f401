package pubsub_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/d-e-v-grid/netron/pubsub"
)

func newBus() *pubsub.Bus {
	bus, err := pubsub.New(pubsub.Config{})
	if err != nil {
		panic(err)
	}
	return bus
}

// say returns a handler that prints what it gets, and answers.
func say(who string, answer any) pubsub.Handler {
	return func(_ context.Context, e pubsub.Event) (any, error) {
		args, err := e.Args()
		fmt.Println(who, "got", e.Name(), args)
		return answer, err
	}
}

func Example() {
	ctx := context.Background()
	bus := newBus()
	bus.Subscribe("order:*", say("analytics", nil))
	bus.Subscribe("order:created", say("mail", "sent"))
	bus.Subscribe("order:created", say("stock", "reserved"), pubsub.Priority(1))

	results, err := bus.EmitSerial(ctx, "order:created", 7)
	fmt.Println(results, err)
	fmt.Println(bus.Close(ctx))

	// Output:
	// stock got order:created [7]
	// analytics got order:created [7]
	// mail got order:created [7]
	// [reserved <nil> sent] <nil>
	// <nil>
}

func ExampleBus_EmitParallel() {
	bus := newBus()
	for _, fault := range []error{errors.New("no mail today"), nil, errors.New("no stock")} {
		bus.Subscribe("order:created", func(context.Context, pubsub.Event) (any, error) { return "done", fault })
	}
	results, err := bus.EmitParallel(context.Background(), "order:created")
	fmt.Println(results)
	fmt.Println(err)

	// Output:
	// [<nil> done <nil>]
	// no mail today
	// no stock
}

func ExampleBus_EmitReduce() {
	bus := newBus()
	for _, factor := range []int{1, 10, 100} {
		bus.Subscribe("calculate:sum", func(_ context.Context, e pubsub.Event) (any, error) {
			var n int
			err := e.Decode(&n)
			return factor * n, err
		})
	}
	add := func(acc, v any) (any, error) { return acc.(int) + v.(int), nil }
	fmt.Println(bus.EmitReduce(context.Background(), "calculate:sum", add, 0, 3))

	// Output:
	// 333 <nil>
}

func ExampleBus_EmitChain() {
	bus := newBus()
	for _, word := range []string{"ready", "steady", "go"} {
		bus.Subscribe("text", func(_ context.Context, e pubsub.Event) (any, error) {
			var s string
			err := e.Decode(&s)
			return s + " " + word, err
		})
	}
	fmt.Println(bus.EmitChain(context.Background(), "text", "get"))
	fmt.Println(bus.EmitChainRight(context.Background(), "text", "get"))

	// Output:
	// get ready steady go <nil>
	// get go steady ready <nil>
}

func ExampleBus_Use() {
	bus := newBus()
	bus.Use(func(next pubsub.Handler) pubsub.Handler {
		return func(ctx context.Context, e pubsub.Event) (any, error) {
			result, err := next(ctx, e.WithArgs("changed"))
			fmt.Println("event", e.Name(), "by", e.Op(), "gave", result, err)
			return result, err
		}
	})
	bus.Subscribe("user:created", say("mail", "sent"))
	bus.EmitParallel(context.Background(), "user:created", "plain")

	// Output:
	// mail got user:created [changed]
	// event user:created by parallel gave [sent] <nil>
}

type User struct{ Name string }

// UserCreated is declared once, where both sides see it.
var UserCreated = pubsub.NewTopic[User]("user:created")

func ExampleTopic() {
	ctx := context.Background()
	bus := newBus()
	sub, err := UserCreated.Subscribe(bus, func(_ context.Context, u User) error {
		fmt.Println("welcome,", u.Name)
		return nil
	})
	fmt.Println(err)
	fmt.Println(UserCreated.Emit(ctx, bus, User{"Ann"}))
	sub.Unsubscribe()
	fmt.Println(UserCreated.Emit(ctx, bus, User{"Bob"}))

	// Output:
	// <nil>
	// welcome, Ann
	// <nil>
	// <nil>
}

func ExampleReduce() {
	bus := newBus()
	price := pubsub.NewTopic[int]("price")
	for _, rate := range []float64{0.5, 0.25} {
		pubsub.Handle(bus, price, func(_ context.Context, n int) (float64, error) { return rate * float64(n), nil })
	}
	best := func(acc, offer float64) float64 { return min(acc, offer) }
	fmt.Println(pubsub.Reduce(context.Background(), bus, price, 100, 1000, best))

	// Output:
	// 25 <nil>
}

func ExampleTopic_Reader() {
	ctx := context.Background()
	bus := newBus()
	r, err := UserCreated.Reader(bus, pubsub.Buffer(2), pubsub.WhenFull(pubsub.DropOldest))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer r.Close()
	for _, name := range []string{"Ann", "Bob", "Eve"} {
		UserCreated.Emit(ctx, bus, User{name})
	}
	for u, err := range r.All(ctx) {
		if lost, ok := errors.AsType[*pubsub.LostError](err); ok {
			fmt.Println("missed", lost.Count)
			continue
		}
		fmt.Println(u.Name, err)
		if u.Name == "Eve" {
			break
		}
	}

	// Output:
	// missed 1
	// Bob <nil>
	// Eve <nil>
}
