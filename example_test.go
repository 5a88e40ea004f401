package netron_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
)

// Calculator is a service: its exported methods whose first parameter is a
// context are callable by peers.
type Calculator struct{}

func (Calculator) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }

func (Calculator) Divide(_ context.Context, a, b float64) (float64, error) {
	if b == 0 {
		return 0, netron.Errorf(netron.InvalidArgument, "division by zero")
	}
	return a / b, nil
}

// CalculatorClient has the same signatures.
type CalculatorClient struct {
	Add    func(ctx context.Context, a, b float64) (float64, error)
	Divide func(ctx context.Context, a, b float64) (float64, error)
}

// startCalculator serves the calculator on a free port.
func startCalculator(ctx context.Context) *netron.Node {
	node, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	if err := node.Expose("calculator@1.0.0", Calculator{}); err != nil {
		log.Fatal(err)
	}
	if err := node.Listen(); err != nil {
		log.Fatal(err)
	}
	go func() {
		if err := node.Serve(ctx); err != nil {
			log.Print(err)
		}
	}()
	return node
}

// connect returns a peer of the calculator and a function that ends both nodes.
func connect(ctx context.Context) (*netron.Peer, func()) {
	ctx, stop := context.WithCancel(ctx)
	server := startCalculator(ctx)
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	return peer, func() {
		_ = client.Close()
		stop()
		<-server.Done()
	}
}

func Example() {
	ctx, stop := context.WithCancel(context.Background())
	server := startCalculator(ctx)

	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	peer, err := client.Dial(ctx, "ws://"+server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator@1.0.0")
	if err != nil {
		log.Fatal(err)
	}
	sum, err := calc.Add(ctx, 5, 3)
	fmt.Println(sum, err)

	_ = client.Close()
	stop() // Serve drains and returns
	<-server.Done()
	// Output: 8 <nil>
}

func ExampleError() {
	ctx := context.Background()
	peer, closeAll := connect(ctx)
	defer closeAll()
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	_, err = calc.Divide(ctx, 1, 0)
	if e, ok := errors.AsType[*netron.Error](err); ok {
		fmt.Println(e.Code, "-", e.Message)
	}
	fmt.Println(netron.CodeOf(err) == netron.InvalidArgument)
	// Output:
	// invalid_argument - division by zero
	// true
}

func ExamplePeer_Service() {
	ctx := context.Background()
	peer, closeAll := connect(ctx)
	defer closeAll()
	stub, err := peer.Service(ctx, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stub.Name(), stub.Version(), stub.Methods())
	var sum float64
	err = stub.Call(ctx, "add", &sum, 2, 3)
	fmt.Println(sum, err)
	// Output:
	// calculator 1.0.0 [add divide]
	// 5 <nil>
}

// A range of versions finds the highest version that it admits.
func ExampleQuery_range() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	for _, version := range []string{"1.2.0", "1.4.3", "2.0.0", "2.1.0-beta.1"} {
		if err := node.Expose("calculator@"+version, Calculator{}); err != nil {
			log.Fatal(err)
		}
	}
	peer := node.Local()
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator@^1.2")
	if err != nil {
		log.Fatal(err)
	}
	sum, err := calc.Add(ctx, 5, 3)
	fmt.Println(sum, err)

	for _, versions := range []string{"^1.2", ">=1 <1.4", "2.x", ">=2.1.0-0"} {
		stub, err := peer.Service(ctx, "calculator@"+versions)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(versions, "finds", stub.Version())
	}
	has, err := peer.HasService(ctx, "calculator@^3")
	fmt.Println("^3:", has, err)
	// Output:
	// 8 <nil>
	// ^1.2 finds 1.4.3
	// >=1 <1.4 finds 1.2.0
	// 2.x finds 2.0.0
	// >=2.1.0-0 finds 2.1.0-beta.1
	// ^3: false <nil>
}

func ExampleStub_go() {
	ctx := context.Background()
	peer, closeAll := connect(ctx)
	defer closeAll()
	stub, err := peer.Service(ctx, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	var a, b float64
	first := stub.Go(ctx, "add", &a, 1, 2)
	second := stub.Go(ctx, "add", &b, 3, 4)
	fmt.Println(errors.Join(first.Wait(ctx), second.Wait(ctx)), a, b)
	// Output: <nil> 3 7
}

func ExampleStub_callFunc() {
	ctx := context.Background()
	peer, closeAll := connect(ctx)
	defer closeAll()
	stub, err := peer.Service(ctx, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	sums := make(chan float64, 1)
	err = stub.CallFunc(ctx, "add", func(_ context.Context, r *netron.Reply, err error) {
		var sum float64
		if err == nil {
			err = r.Decode(&sum)
		}
		if err != nil {
			log.Print(err)
		}
		sums <- sum
	}, 20, 22)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(<-sums)
	// Output: 42
}

// AddArgs are the arguments of add, in their order.
type AddArgs struct{ A, B float64 }

// Services built with rpc.Handle and functions made by rpc.Method use no
// reflection on the path of a call.
func ExampleNewService() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	svc := netron.NewService("math", "1.0.0")
	rpc.Handle(svc, "add", func(_ context.Context, args *AddArgs) (float64, error) { return args.A + args.B, nil })
	if err := node.ExposeService(svc); err != nil {
		log.Fatal(err)
	}

	stub, err := node.Local().Service(ctx, "math") // the node itself, over the same path
	if err != nil {
		log.Fatal(err)
	}
	add := rpc.Method[AddArgs, float64](stub, "add")
	sum, err := add(ctx, AddArgs{2, 3})
	fmt.Println(sum, err)
	// Output: 5 <nil>
}

func ExampleNode_AddTask() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	err = node.AddTask("greet", func(_ context.Context, names ...string) string { return "hello, " + strings.Join(names, " and ") })
	if err != nil {
		log.Fatal(err)
	}
	var greeting string
	err = node.Local().RunTask(ctx, "greet", &greeting, "Ann", "Bob")
	fmt.Println(greeting, err)
	// Output: hello, Ann and Bob <nil>
}

// What happens when the name of a task is taken is a matter of Config.TaskOverwrite,
// and of the option Overwrite.
func ExampleOverwrite() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{TaskOverwrite: netron.TaskThrow})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	answer := func(text string) func(context.Context) string {
		return func(context.Context) string { return text }
	}
	show := func(what string, err error) {
		var text string
		if err := node.Local().RunTask(ctx, "hello", &text); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s (%v)\n", what, text, err)
	}
	show("first", node.AddTask("hello", answer("one")))
	show("throw", node.AddTask("hello", answer("two")))
	show("skip", node.AddTask("hello", answer("three"), netron.Overwrite(netron.TaskSkip)))
	show("replace", node.AddTask("hello", answer("four"), netron.Overwrite(netron.TaskReplace)))
	// Output:
	// first: one (<nil>)
	// throw: one (already_exists: rpc: add task hello: there is a task of that name)
	// skip: one (<nil>)
	// replace: four (<nil>)
}

// The caller of a task has an answer at the limit, even if the task goes on.
func ExampleTaskLimit() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	stop := make(chan struct{})
	defer close(stop)
	err = node.AddTask("report", func(context.Context) { <-stop }, netron.TaskLimit(20*time.Millisecond))
	if err != nil {
		log.Fatal(err)
	}
	err = node.Local().RunTask(ctx, "report", nil)
	fmt.Println(err)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// deadline_exceeded: Task report timed out after 20ms
	// true
}

// A node can share the port of an existing HTTP server.
func ExampleNode_Handler() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("calculator@1.0.0", Calculator{}); err != nil {
		log.Fatal(err)
	}
	handler := http.NewServeMux()
	handler.Handle("GET /netron", node.Handler())
	server := httptest.NewServer(handler)
	defer server.Close()

	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	peer, err := client.Dial(ctx, "ws"+strings.TrimPrefix(server.URL, "http")+"/netron")
	if err != nil {
		log.Fatal(err)
	}
	stub, err := peer.Service(ctx, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	var sum float64
	err = stub.Call(ctx, "add", &sum, 1, 1)
	fmt.Println(sum, err)
	// Output: 2 <nil>
}

// Calls are spread over four connections.
func ExampleNode_DialPool() {
	ctx, stop := context.WithCancel(context.Background())
	server := startCalculator(ctx)
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	pool, err := client.DialPool(ctx, server.Addr(), 4)
	if err != nil {
		log.Fatal(err)
	}
	type calculator struct {
		Add func(ctx context.Context, a, b float64) (float64, error)
	}
	service, err := netron.QueryPool[calculator](ctx, pool, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	sum, err := service.Pick().Add(ctx, 2, 3) // pick for each call anew
	fmt.Println(sum, err)

	_ = pool.Close()
	_ = client.Close()
	stop()
	<-server.Done()
	// Output: 5 <nil>
}

// The server calls back over the connection that the client opened.
func ExamplePeerFrom() {
	ctx, stop := context.WithCancel(context.Background())
	server := startCalculator(ctx)
	err := server.AddTask("whoAmI", func(ctx context.Context) (string, error) {
		var name string
		err := netron.PeerFrom(ctx).RunTask(ctx, "name", &name)
		return "you are " + name, err
	})
	if err != nil {
		log.Fatal(err)
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.AddTask("name", func(context.Context) string { return "Ann" }); err != nil {
		log.Fatal(err)
	}
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	var answer string
	err = peer.RunTask(ctx, "whoAmI", &answer)
	fmt.Println(answer, err)

	_ = client.Close()
	stop()
	<-server.Done()
	// Output: you are Ann <nil>
}
