package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

// newEndpoint returns the rpc side of a node, which is netron.New for programs.
func newEndpoint() *rpc.Endpoint {
	e, err := rpc.NewEndpoint(rpc.Config{ID: "node"})
	if err != nil {
		log.Fatal(err)
	}
	return e
}

// Adder is a service.
type Adder struct{}

func (Adder) Add(_ context.Context, a, b int) (int, error) { return a + b, nil }

// AdderClient is the service as its callers see it.
type AdderClient struct {
	Add func(ctx context.Context, a, b int) (int, error)
}

func Example() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	if err := e.Expose("adder@1.0.0", Adder{}); err != nil {
		log.Fatal(err)
	}
	adder, err := rpc.Query[AdderClient](ctx, e.Local(), "adder@^1.0")
	if err != nil {
		log.Fatal(err)
	}
	sum, err := adder.Add(ctx, 2, 3)
	fmt.Println(sum, err)
	// Output: 5 <nil>
}

// ScaleArgs are the arguments of scale, in their order. The pointer is optional.
type ScaleArgs struct {
	Value float64
	By    *float64
}

// scaler returns a stub of a service that is built of functions.
func scaler(ctx context.Context, e *rpc.Endpoint) *rpc.Stub {
	s := rpc.NewService("scaler", "1.0.0")
	rpc.Handle(s, "scale", func(_ context.Context, args *ScaleArgs) (float64, error) {
		if args.By == nil {
			return 2 * args.Value, nil
		}
		return *args.By * args.Value, nil
	})
	if err := e.ExposeService(s); err != nil {
		log.Fatal(err)
	}
	stub, err := e.Local().Service(ctx, "scaler")
	if err != nil {
		log.Fatal(err)
	}
	return stub
}

func ExampleHandle() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	s := rpc.NewService("counter", "1.0.0")
	var n atomic.Int64 // methods are called by many goroutines
	rpc.Handle(s, "next", func(_ context.Context, _ *struct{}) (int64, error) {
		return n.Add(1), nil
	})
	rpc.Handle(s, "reset", func(_ context.Context, args *struct{ To int64 }) (struct{}, error) {
		n.Store(args.To)
		return struct{}{}, nil // no result
	})
	s.Inline("next", "reset") // they never block
	if err := e.ExposeService(s); err != nil {
		log.Fatal(err)
	}
	counter, err := e.Local().Service(ctx, "counter")
	if err != nil {
		log.Fatal(err)
	}
	var next int
	err = errors.Join(
		counter.Call(ctx, "reset", nil, 41),
		counter.Call(ctx, "next", &next),
	)
	fmt.Println(next, err)
	// Output: 42 <nil>
}

func ExampleMethod() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	scale := rpc.Method[ScaleArgs, float64](scaler(ctx, e), "scale")
	by := 10.0
	fmt.Println(scale(ctx, ScaleArgs{Value: 4}))
	fmt.Println(scale(ctx, ScaleArgs{Value: 4, By: &by}))
	// Output:
	// 8 <nil>
	// 40 <nil>
}

// The callback runs on the goroutine that reads, and must not block.
func ExampleMethodFunc() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	scale := rpc.MethodFunc[ScaleArgs, float64](scaler(ctx, e), "scale")
	results := make(chan float64, 3)
	for _, v := range []float64{1, 2, 3} {
		err := scale(ctx, ScaleArgs{Value: v}, func(_ context.Context, result float64, err error) {
			if err != nil {
				log.Print(err)
			}
			results <- result
		})
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(<-results + <-results + <-results)
	// Output: 12
}

func ExampleFunc() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	s := rpc.NewService("text", "")
	rpc.Func(s, "repeat", func(_ context.Context, text string, times ...int) string {
		for _, n := range times {
			for once := text; n > 1; n-- {
				text += once
			}
		}
		return text
	})
	if err := e.ExposeService(s); err != nil {
		log.Fatal(err)
	}
	text, err := e.Local().Service(ctx, "text")
	if err != nil {
		log.Fatal(err)
	}
	var repeated string
	err = text.Call(ctx, "repeat", &repeated, "ho", 3)
	fmt.Println(repeated, err)
	// Output: hohoho <nil>
}

func ExampleAddProperty() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	var level rpc.Property[int]
	level.OnSet(func(_ context.Context, v int) error {
		if v > 10 {
			return rpc.Errorf(rpc.OutOfRange, "%d is too loud", v)
		}
		return nil
	})
	s := rpc.NewService("speaker", "1.0.0")
	rpc.AddProperty(s, "level", &level, false)
	if err := e.ExposeService(s); err != nil {
		log.Fatal(err)
	}
	speaker, err := e.Local().Service(ctx, "speaker")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(speaker.Set(ctx, "level", 7), level.Get())
	fmt.Println(speaker.Set(ctx, "level", 11), level.Get())
	level.Set(3)
	var v int
	err = speaker.Get(ctx, "level", &v)
	fmt.Println(v, err)
	// Output:
	// <nil> 7
	// out_of_range: 11 is too loud 7
	// 3 <nil>
}

// Middleware may look at arguments, which nobody has checked yet, and answer by itself.
func ExampleRequest_Decode() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	e.Use(func(next rpc.Handler) rpc.Handler {
		return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
			if r.Member() != "add" {
				return next(ctx, r)
			}
			var a, b int
			if err := r.Decode(&a, &b); err != nil {
				return nil, err
			}
			if a == 0 {
				return codec.Append(nil, b) // needs no service
			}
			return next(ctx, r)
		}
	})
	if err := e.Expose("adder@1.0.0", Adder{}); err != nil {
		log.Fatal(err)
	}
	adder, err := rpc.Query[AdderClient](ctx, e.Local(), "adder")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(adder.Add(ctx, 0, 3))
	fmt.Println(adder.Add(ctx, 2, 3))
	// Output:
	// 3 <nil>
	// 5 <nil>
}

// NoMoneyError is an error of an application, which says how it travels.
type NoMoneyError struct{ Missing int }

func (e *NoMoneyError) Error() string { return fmt.Sprintf("account is short of %d", e.Missing) }

func (e *NoMoneyError) NetronError() *rpc.Error {
	return &rpc.Error{Code: rpc.FailedPrecondition, Message: "not enough money", Details: map[string]any{"missing": e.Missing}}
}

func ExampleDescriber() {
	ctx := context.Background()
	e := newEndpoint()
	defer e.Close()
	if err := e.AddTask("pay", func(context.Context) error { return &NoMoneyError{Missing: 5} }); err != nil {
		log.Fatal(err)
	}
	err := e.Local().RunTask(ctx, "pay", nil)
	if remote, ok := errors.AsType[*rpc.Error](err); ok {
		fmt.Println(remote.Code, "-", remote.Message, remote.Details, remote.Remote())
	}
	// Output: failed_precondition - not enough money map[missing:5] true
}

// The error of a request by a caller who has given up is that of his context.
func ExampleError_Is() {
	ctx, cancel := context.WithCancel(context.Background())
	e := newEndpoint()
	defer e.Close()
	err := e.AddTask("wait", func(ctx context.Context) error {
		cancel() // the caller gives up when the task has begun
		<-ctx.Done()
		return ctx.Err()
	})
	if err != nil {
		log.Fatal(err)
	}
	err = e.Local().RunTask(ctx, "wait", nil)
	fmt.Println(errors.Is(err, context.Canceled), rpc.CodeOf(err))
	// Output: true canceled
}
