// Command typed-methods builds a service from functions in place of a Go value, and calls
// it by functions in place of a struct of funcs. Neither uses reflection on the path of a
// call, and such calls allocate nothing.
package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
)

// PowerArgs are the arguments of power, in their order. The pointer is optional.
type PowerArgs struct {
	Base     float64
	Exponent *float64
}

// newMath returns the service. Services can be made at run time by it, one for each entry
// of a table for example.
func newMath() *netron.Service {
	s := netron.NewService("math", "1.0.0")
	rpc.Handle(s, "power", func(_ context.Context, args *PowerArgs) (float64, error) {
		exponent := 2.0
		if args.Exponent != nil {
			exponent = *args.Exponent
		}
		return math.Pow(args.Base, exponent), nil
	})
	// Any function will do where a little reflection does not matter.
	netron.Func(s, "sum", func(_ context.Context, of ...float64) (sum float64) {
		for _, f := range of {
			sum += f
		}
		return sum
	})
	// Methods that take no time at all can do without a hand-over to a worker. They must
	// never block.
	s.Inline("power")
	return s
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
	if err := server.ExposeService(newMath()); err != nil {
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
	stub, err := peer.Service(ctx, "math")
	if err != nil {
		return err
	}
	fmt.Println(stub.Methods())

	// A typed function that waits.
	power := rpc.Method[PowerArgs, float64](stub, "power")
	result, err := power(ctx, PowerArgs{Base: 3})
	if err != nil {
		return err
	}
	fmt.Println("3 squared:", result)

	// A typed function that does not: it is called back on the goroutine that reads, which
	// makes it the fastest way for very many calls. The callback must not block.
	type outcome struct {
		result float64
		err    error
	}
	outcomes := make(chan outcome, 8)
	powerFunc := rpc.MethodFunc[PowerArgs, float64](stub, "power")
	for i := range 8 {
		exponent := float64(i)
		err := powerFunc(ctx, PowerArgs{2, &exponent}, func(_ context.Context, result float64, err error) {
			outcomes <- outcome{result, err} // there is room for all of them
		})
		if err != nil {
			return err
		}
	}
	var total float64
	for range 8 {
		o := <-outcomes
		if o.err != nil {
			return o.err
		}
		total += o.result
	}
	fmt.Println("1 + 2 + 4 + ... + 128:", total)

	// No types at all.
	var sum float64
	if err := stub.Call(ctx, "sum", &sum, 1, 2.5, 4); err != nil {
		return err
	}
	fmt.Println("1 + 2.5 + 4:", sum)
	return nil
}
