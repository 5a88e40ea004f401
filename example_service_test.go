package netron_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/d-e-v-grid/netron"
)

// startNode returns a node that serves on a free port, and a function that ends it.
func startNode(cfg netron.Config) (node *netron.Node, stop func()) {
	cfg.Addr = "127.0.0.1:0"
	node, err := netron.New(cfg)
	if err != nil {
		log.Fatal(err)
	}
	if err := node.Start(); err != nil {
		log.Fatal(err)
	}
	return node, func() {
		if err := node.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
	}
}

// A node is its own peer, without a socket.
func ExampleNode_Local() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{ID: "alone"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("calculator@1.0.0", Calculator{}); err != nil {
		log.Fatal(err)
	}
	peer := node.Local()
	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator")
	if err != nil {
		log.Fatal(err)
	}
	sum, err := calc.Add(ctx, 5, 3)
	fmt.Println(peer.ID(), sum, err)
	// Output: alone 8 <nil>
}

// A service that was concealed is there no more, also for those who have a stub.
func ExampleNode_Conceal() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := errors.Join(
		node.Expose("calculator@1.0.0", Calculator{}),
		node.Expose("calculator@2.0.0", Calculator{}),
	); err != nil {
		log.Fatal(err)
	}
	stub, err := node.Local().Service(ctx, "calculator@1.0.0")
	if err != nil {
		log.Fatal(err)
	}
	if err := node.Conceal("calculator@1.0.0"); err != nil {
		log.Fatal(err)
	}
	fmt.Println(netron.CodeOf(stub.Call(ctx, "add", nil, 1, 2)))
	fmt.Println(node.Services())
	// Output:
	// not_found
	// [calculator@2.0.0]
}

// Names on the wire and optional arguments are matters of exposing.
func ExampleNode_Expose() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("links@1.0.0", Links{},
		netron.Name("GetURL", "getUrl"), // else getURL
		netron.Optional("GetURL", 1),    // the last argument
	); err != nil {
		log.Fatal(err)
	}
	links, err := node.Local().Service(ctx, "links")
	if err != nil {
		log.Fatal(err)
	}
	var url string
	fmt.Println(links.Call(ctx, "getUrl", &url, "home"), url)
	fmt.Println(links.Call(ctx, "getUrl", &url, "home", 2), url)

	// What cannot be called is found out now.
	err = node.Expose("broken", Broken{})
	fmt.Println(err != nil)
	// Output:
	// <nil> /home
	// <nil> /home?page=2
	// true
}

// Links is a service.
type Links struct{}

func (Links) GetURL(_ context.Context, name string, page int) string {
	if page == 0 {
		return "/" + name
	}
	return fmt.Sprintf("/%s?page=%d", name, page)
}

// Broken has a method with a parameter that cannot travel.
type Broken struct{}

func (Broken) Watch(_ context.Context, events chan int) error {
	_, ok := <-events
	return fmt.Errorf("got one: %t", ok)
}

// A method that never blocks, not even for a moment, can do without a hand-over to a
// worker. What would block under its context fails instead.
func ExampleInline() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("calculator@1.0.0", Calculator{}, netron.Inline("Add")); err != nil {
		log.Fatal(err)
	}
	calc, err := netron.Query[CalculatorClient](ctx, node.Local(), "calculator")
	if err != nil {
		log.Fatal(err)
	}
	sum, err := calc.Add(ctx, 5, 3)
	fmt.Println(sum, err)
	// Output: 8 <nil>
}

// Functions make a service at run time.
func ExampleFunc() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	svc := netron.NewService("units", "1.0.0")
	for name, factor := range map[string]float64{"milesToKm": 1.609344, "inchesToCm": 2.54} {
		netron.Func(svc, name, func(_ context.Context, v float64) float64 { return v * factor })
	}
	if err := node.ExposeService(svc); err != nil {
		log.Fatal(err)
	}
	units, err := node.Local().Service(ctx, "units")
	if err != nil {
		log.Fatal(err)
	}
	var cm float64
	err = units.Call(ctx, "inchesToCm", &cm, 10)
	fmt.Println(cm, err)
	// Output: 25.4 <nil>
}

// Door is a service whose method returns a service.
type Door struct{}

func (Door) Open(_ context.Context, name string) (*netron.Service, error) {
	return netron.NewServiceOf("room", &Room{name})
}

// Room is a service that only those can call who got it.
type Room struct{ name string }

func (r *Room) Name(context.Context) (string, error) { return r.name, nil }

// DoorClient and RoomClient are what callers see.
type (
	DoorClient struct {
		Open func(ctx context.Context, name string) (*RoomClient, error)
	}
	RoomClient struct {
		Service *netron.Stub // the service itself, to give it back
		Name    func(ctx context.Context) (string, error)
	}
)

// A method returns a service, which its caller gives back.
func ExampleNewServiceOf() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("door@1.0.0", Door{}); err != nil {
		log.Fatal(err)
	}
	door, err := netron.Query[DoorClient](ctx, node.Local(), "door")
	if err != nil {
		log.Fatal(err)
	}
	room, err := door.Open(ctx, "attic")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(room.Name(ctx))
	fmt.Println(room.Service.Release(ctx))
	_, err = room.Name(ctx)
	fmt.Println(netron.CodeOf(err))
	// Output:
	// attic <nil>
	// <nil>
	// failed_precondition
}

// The same without structs of funcs. What is held until it is released, is held at most
// as long as the connection.
func ExampleStub_release() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	if err := node.Expose("door@1.0.0", Door{}); err != nil {
		log.Fatal(err)
	}
	door, err := node.Local().Service(ctx, "door")
	if err != nil {
		log.Fatal(err)
	}
	var room *netron.Stub
	if err := door.Call(ctx, "open", &room, "cellar"); err != nil {
		log.Fatal(err)
	}
	var name string
	err = room.Call(ctx, "name", &name)
	fmt.Println(name, err)
	fmt.Println(room.Release(ctx))
	// Output:
	// cellar <nil>
	// <nil>
}

// Screen is what a client lets its server call.
type Screen struct{}

func (Screen) Show(_ context.Context, text string) error {
	_, err := fmt.Println("screen:", text)
	return err
}

// A client exposes a service to its server alone, which calls it back.
func ExamplePeer_expose() {
	ctx := context.Background()
	server, stop := startNode(netron.Config{})
	defer stop()
	err := server.AddTask("build", func(ctx context.Context) error {
		screen, err := netron.PeerFrom(ctx).Service(ctx, "screen")
		if err != nil {
			return err
		}
		return errors.Join(screen.Call(ctx, "show", nil, "half"), screen.Call(ctx, "show", nil, "done"))
	})
	if err != nil {
		log.Fatal(err)
	}
	client, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		log.Fatal(err)
	}
	if err := peer.Expose("screen", Screen{}); err != nil {
		log.Fatal(err)
	}
	fmt.Println(peer.RunTask(ctx, "build", nil))
	fmt.Println("for all peers:", client.Services())
	// Output:
	// screen: half
	// screen: done
	// <nil>
	// for all peers: []
}

// A worker publishes a service at a hub, which passes on what others ask of it.
func ExamplePeer_publish() {
	ctx := context.Background()
	hub, stop := startNode(netron.Config{MaxExposedServices: 1}) // none by default
	defer stop()
	worker, err := netron.New(netron.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer worker.Close()
	peer, err := worker.Dial(ctx, hub.Addr())
	if err != nil {
		log.Fatal(err)
	}
	svc, err := netron.NewServiceOf("calculator@1.0.0", Calculator{})
	if err != nil {
		log.Fatal(err)
	}
	if err := peer.Publish(ctx, svc); err != nil {
		log.Fatal(err)
	}

	stub, err := hub.Local().Service(ctx, "calculator") // or any other peer of the hub
	if err != nil {
		log.Fatal(err)
	}
	var sum float64
	err = stub.Call(ctx, "add", &sum, 40, 2)
	fmt.Println(sum, err)
	fmt.Println(peer.Unpublish(ctx, "calculator@1.0.0"), hub.Services())
	// Output:
	// 42 <nil>
	// <nil> []
}

// Peers say which services they have; current TypeScript ones do not.
func ExamplePeer_services() {
	ctx := context.Background()
	peer, closeAll := connect(ctx)
	defer closeAll()
	names, err := peer.Services(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		fmt.Println("ask for the one you want")
	}
	fmt.Println(names, err)
	for _, name := range []string{"calculator", "calculator@^1.0", "calculator@^2.0", "printer"} {
		has, err := peer.HasService(ctx, name)
		fmt.Println(name, has, err)
	}
	// Output:
	// [calculator@1.0.0] <nil>
	// calculator true <nil>
	// calculator@^1.0 true <nil>
	// calculator@^2.0 false <nil>
	// printer false <nil>
}

// A fake of a service is a struct literal.
func ExampleQuery_fake() {
	total := func(ctx context.Context, calc *CalculatorClient, numbers ...float64) (sum float64, err error) {
		for _, n := range numbers {
			if sum, err = calc.Add(ctx, sum, n); err != nil {
				return 0, err
			}
		}
		return sum, nil
	}
	fake := &CalculatorClient{Add: func(_ context.Context, a, b float64) (float64, error) { return a + b, nil }}
	fmt.Println(total(context.Background(), fake, 1, 2, 3))
	// Output: 6 <nil>
}

// A handler finds the node that it runs on, and who asks, by its context.
func ExampleNodeFrom() {
	ctx := context.Background()
	node, err := netron.New(netron.Config{ID: "node-1"})
	if err != nil {
		log.Fatal(err)
	}
	defer node.Close()
	err = node.AddTask("where", func(ctx context.Context) string {
		return fmt.Sprintf("at %s, for %s", netron.NodeFrom(ctx).ID(), netron.PeerFrom(ctx).ID())
	})
	if err != nil {
		log.Fatal(err)
	}
	var where string
	err = node.Local().RunTask(ctx, "where", &where)
	fmt.Println(where, err)
	// Output: at node-1, for node-1 <nil>
}

// Callers see the code and the message. What %w wraps is for this process.
func ExampleErrorf() {
	cause := errors.New("connection pool is empty")
	err := netron.Errorf(netron.Unavailable, "no database: %w", cause)
	fmt.Println(err, errors.Is(err, cause)) // here
	fmt.Println(err.Code, err.Code.Number())
	// Output:
	// unavailable: no database: connection pool is empty true
	// unavailable 503
}

func ExampleCodeOf() {
	for _, err := range []error{
		nil,
		netron.Errorf(netron.NotFound, "no user %d", 7),
		fmt.Errorf("load: %w", netron.Errorf(netron.PermissionDenied, "not yours")),
		context.DeadlineExceeded,
		errors.New("anything else"),
	} {
		if code := netron.CodeOf(err); code == 0 {
			fmt.Println("no error")
		} else {
			fmt.Println(code)
		}
	}
	// Output:
	// no error
	// not_found
	// permission_denied
	// deadline_exceeded
	// unknown
}
