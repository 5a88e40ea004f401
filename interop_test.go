package netron_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/tspeer"
	"github.com/d-e-v-grid/netron/pubsub"
	"github.com/d-e-v-grid/netron/stream"
)

// conversations calls f for each recorded conversation that keep selects by what it
// is and needs, with each driver.
func conversations(t *testing.T, keep func(c *tspeer.Conversation, needs tspeer.Features) bool, f func(*testing.T, *tspeer.Conversation, netron.Driver)) {
	t.Helper()
	all, err := tspeer.Load()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, c := range all {
		needs, err := c.Needs()
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		if !keep(c, needs) || (testing.Short() && needs.Has(tspeer.Slow|tspeer.Large)) {
			continue
		}
		n++
		for _, driver := range []netron.Driver{netron.DriverStd, netron.DriverEpoll} {
			if driver == netron.DriverEpoll && needs.Has(tspeer.Slow|tspeer.Large) {
				continue // once is enough
			}
			t.Run(c.String()+"/"+driver.String(), func(t *testing.T) {
				t.Parallel()
				f(t, c, driver)
			})
		}
	}
	t.Logf("%d of %d conversations", n, len(all))
}

// serveHost returns the address of a node that is what the recorded server was:
// the reference service, and tasks that turn to the client.
func serveHost(t *testing.T, cfg netron.Config) string {
	t.Helper()
	n, url := serve(t, cfg)
	var mu sync.Mutex
	stubs := map[string]*netron.Stub{} // of clients, which are asked once for each service
	stub := func(ctx context.Context, service string) (*netron.Stub, error) {
		mu.Lock()
		defer mu.Unlock()
		peer := netron.PeerFrom(ctx)
		key := fmt.Sprintf("%p %s", peer, service)
		if s := stubs[key]; s != nil {
			return s, nil
		}
		s, err := peer.Service(ctx, service)
		if err == nil {
			stubs[key] = s
		}
		return s, err
	}
	for name, fn := range map[string]any{
		"ask": func(ctx context.Context, name string, args ...codec.Raw) (result codec.Raw, err error) {
			return result, netron.PeerFrom(ctx).RunTask(ctx, name, &result, values(args)...)
		},
		"askService": func(ctx context.Context, service, method string, args ...codec.Raw) (result codec.Raw, err error) {
			s, err := stub(ctx, service)
			if err != nil {
				return nil, err
			}
			return result, s.Call(ctx, method, &result, values(args)...)
		},
		"askProperty": func(ctx context.Context, service, property string) (result codec.Raw, err error) {
			s, err := stub(ctx, service)
			if err != nil {
				return nil, err
			}
			return result, s.Get(ctx, property, &result)
		},
		"callExposed": func(ctx context.Context, service, method string, args ...codec.Raw) (result codec.Raw, err error) {
			s, err := n.Local().Service(ctx, service)
			if err != nil {
				return nil, err
			}
			return result, s.Call(ctx, method, &result, values(args)...)
		},
	} {
		if err := n.AddTask(name, fn); err != nil {
			t.Fatal(err)
		}
	}
	return strings.TrimPrefix(url, "ws://")
}

// hostConfig returns the configuration of the recorded server.
func hostConfig(c *tspeer.Conversation, driver netron.Driver) netron.Config {
	cfg := netron.Config{Driver: driver}
	if c.Name == "remote-exposure" {
		cfg.MaxExposedServices = 10
	}
	return cfg
}

// clock is the service of the recorded clients.
type clock struct {
	Zone string `netron:"zone,readonly"`
}

func newClock(t *testing.T) *netron.Service {
	t.Helper()
	s, err := netron.NewServiceOf("clock@1.0.0", &clock{Zone: "UTC"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (*clock) Tick(_ context.Context, n float64) float64 { return n + 1 }
func (*clock) Broken(context.Context) error {
	return &netron.Error{Message: "client method failed", Fields: map[string]any{"code": "E_CLOCK"}}
}

func values(args []codec.Raw) []any {
	list := make([]any, len(args))
	for i, arg := range args {
		list[i] = arg
	}
	return list
}

// TestRecordedClients lets recorded TypeScript clients talk to our listener.
func TestRecordedClients(t *testing.T) {
	keep := func(*tspeer.Conversation, tspeer.Features) bool { return true }
	conversations(t, keep, func(t *testing.T, c *tspeer.Conversation, driver netron.Driver) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		report, err := c.ReplayClient(ctx, tspeer.Dial("tcp", serveHost(t, hostConfig(c, driver))))
		if err != nil {
			t.Errorf("%v", err)
		}
		t.Log(report)
	})
}

// TestRecordedServers lets our dialler talk to recorded TypeScript servers.
func TestRecordedServers(t *testing.T) {
	keep := func(c *tspeer.Conversation, needs tspeer.Features) bool {
		switch {
		case c.Client == tspeer.Raw:
			return false // no ordinary program behaves like these clients
		case c.Client == tspeer.Browser && needs.Has(tspeer.ServerTasks):
			return false // browsers answer null and maps where we answer undefined and errors
		case c.Client == tspeer.Browser && c.Name == "stream-upload-at-once":
			return false // the server lost chunks that the client had sent before the call
		case c.Client == tspeer.Titan && c.Name == "stream-upload-native":
			return false // the server did not find the id that the client had written
		}
		return true
	}
	conversations(t, keep, func(t *testing.T, c *tspeer.Conversation, driver netron.Driver) {
		calls, err := c.Calls()
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		served := make(chan error, 1)
		go func() {
			report, err := c.ServeRecorded(ctx, tspeer.Accept(ln))
			t.Log(report)
			served <- err
		}()
		program := &program{
			t: t, driver: driver, url: ln.Addr().String(), peers: map[int]*netron.Peer{}, stubs: map[string]*netron.Stub{}, nested: map[int]*netron.Stub{},
			events: map[int]chan tspeer.Event{}, subs: map[string]*netron.PeerSubscription{},
		}
		for i := range calls {
			program.perform(ctx, i, &calls[i])
		}
		for _, p := range program.peers {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := <-served; err != nil {
			t.Errorf("the recorded server: %v", err)
		}
	})
}

// program makes the calls that a recorded client made.
type program struct {
	t      *testing.T
	driver netron.Driver
	url    string
	peers  map[int]*netron.Peer
	stubs  map[string]*netron.Stub             // by connection and service
	nested map[int]*netron.Stub                // by the call that returned it
	events map[int]chan tspeer.Event           // by connection: there is no order between these
	subs   map[string]*netron.PeerSubscription // by connection and event
}

// subscribe has the events of a name gathered.
func (p *program) subscribe(ctx context.Context, c *tspeer.Call, peer *netron.Peer) error {
	sub, err := peer.Subscribe(ctx, c.Name, func(_ context.Context, e pubsub.Event) (any, error) {
		var args []codec.Raw
		for raw := range argumentsOf(p.t, e) {
			args = append(args, raw)
		}
		got := tspeer.Event{Conn: c.Conn, Name: e.Name(), Args: []any{}}
		for _, raw := range args {
			v, err := tspeer.DecodeValue(tspeer.Current, raw)
			if err != nil {
				return nil, err
			}
			got.Args = append(got.Args, v)
		}
		p.events[c.Conn] <- got
		return nil, nil
	}, netron.SubscribeBuffer(10_000, pubsub.DropOldest))
	if err == nil {
		p.subs[fmt.Sprint(c.Conn, c.Name)] = sub
	}
	return err
}

// argumentsOf returns the encoded arguments of an event.
func argumentsOf(t *testing.T, e pubsub.Event) iter.Seq[codec.Raw] {
	return func(yield func(codec.Raw) bool) {
		args, err := e.Args()
		if err != nil {
			t.Errorf("event %s: %v", e.Name(), err)
			return
		}
		raws := make([]codec.Raw, len(args))
		into := make([]any, len(args))
		for i := range raws {
			into[i] = &raws[i]
		}
		if err := e.Decode(into...); err != nil {
			t.Errorf("event %s: %v", e.Name(), err)
			return
		}
		for _, raw := range raws {
			if !yield(raw) {
				return
			}
		}
	}
}

// wantEvents checks which events a call has brought.
func (p *program) wantEvents(c *tspeer.Call) {
	p.t.Helper()
	for _, want := range c.Events {
		select {
		case got := <-p.events[want.Conn]:
			if got.Name != want.Name {
				p.t.Errorf("event %s, want %s", got.Name, want.Name)
			} else if err := tspeer.Diff(got.Args, want.Args); err != nil {
				p.t.Errorf("event %s: %v", got.Name, err)
			}
		case <-time.After(10 * time.Second):
			p.t.Fatalf("event %s has not come", want.Name)
		}
	}
}

// stub returns the service that a call is about.
func (p *program) stub(c *tspeer.Call) *netron.Stub {
	p.t.Helper()
	stub := p.stubs[fmt.Sprint(c.Conn, c.Service)]
	if c.Of >= 0 {
		stub = p.nested[c.Of]
	}
	if stub == nil {
		p.t.Fatalf("%s of %s, call %d, on connection %d, which was not asked for", c.Name, c.Service, c.Of, c.Conn)
	}
	return stub
}

// perform makes call i of the program.
func (p *program) perform(ctx context.Context, i int, c *tspeer.Call) {
	p.t.Helper()
	for conn := len(p.peers) + 1; conn <= c.Conn; conn++ { // in the order of the recording
		peer, err := p.newNode().Dial(ctx, p.url, netron.DialDriver(p.driver))
		if err != nil {
			p.t.Fatal(err)
		}
		p.peers[conn], p.events[conn] = peer, make(chan tspeer.Event, 10_000)
	}
	peer := p.peers[c.Conn]
	var result codec.Raw
	var err error
	switch c.Op {
	case tspeer.OpQuery:
		var stub *netron.Stub
		if stub, err = peer.Service(ctx, c.Service); err == nil {
			p.stubs[fmt.Sprint(c.Conn, c.Service)] = stub
		}
	case tspeer.OpCall:
		if _, ok := c.Result.(*tspeer.Definition); ok {
			var stub *netron.Stub
			if err := p.stub(c).Call(ctx, c.Name, &stub, p.arguments(c.Args)...); err != nil || stub.Name() != "inner" || stub.Version() != "1.0.0" {
				p.t.Fatalf("%s = %v, %v, want a service inner@1.0.0", c.Name, stub, err)
			}
			p.nested[i] = stub
			return
		}
		if want, ok := c.Result.(tspeer.Stream); ok {
			p.callStream(ctx, c, want)
			return
		}
		isLive := slices.ContainsFunc(c.Args, func(arg any) bool {
			s, ok := arg.(tspeer.Stream)
			return ok && s.Live
		})
		err = p.stub(c).Call(stream.With(ctx, stream.Options{Live: isLive}), c.Name, &result, p.arguments(c.Args)...)
	case tspeer.OpGet:
		err = p.stub(c).Get(ctx, c.Name, &result)
	case tspeer.OpSet:
		result = codec.AppendUndefined(nil)
		err = p.stub(c).Set(ctx, c.Name, p.arguments(c.Args)[0])
	case tspeer.OpRelease:
		result = codec.AppendUndefined(nil)
		err = p.stub(c).Release(ctx)
	case tspeer.OpExpose:
		p.published(c, peer.Publish(ctx, newClock(p.t)))
		return
	case tspeer.OpUnexpose:
		p.published(c, peer.Unpublish(ctx, "clock@1.0.0"))
		return
	case tspeer.OpSubscribe:
		result = codec.AppendUndefined(nil)
		err = p.subscribe(ctx, c, peer)
	case tspeer.OpUnsubscribe:
		result = codec.AppendUndefined(nil)
		if sub := p.subs[fmt.Sprint(c.Conn, c.Name)]; sub != nil {
			err = sub.Unsubscribe(ctx)
		} else {
			err = peer.RunTask(ctx, "unsubscribe", &result, c.Name)
		}
	case tspeer.OpEmit:
		result = codec.AppendUndefined(nil)
		err = peer.Emit(ctx, c.Name, p.arguments(c.Args)...)
	case tspeer.OpTask:
		err = peer.RunTask(ctx, c.Name, &result, p.arguments(c.Args)...)
	default:
		p.t.Fatalf("operation %s is not part of this test", c.Op)
	}
	p.check(c, result, err)
	p.wantEvents(c)
}

// callStream makes a call whose result is a stream.
func (p *program) callStream(ctx context.Context, c *tspeer.Call, want tspeer.Stream) {
	p.t.Helper()
	var seq iter.Seq2[codec.Raw, error]
	if err := p.stub(c).Call(ctx, c.Name, &seq, p.arguments(c.Args)...); err != nil {
		p.t.Errorf("%s: %v", c.Name, err)
		return
	}
	got := []any{}
	for raw, err := range seq {
		if err != nil {
			p.t.Errorf("%s: after %d items: %v", c.Name, len(got), err)
			return
		}
		v, err := tspeer.DecodeValue(tspeer.Current, raw)
		if err != nil {
			p.t.Errorf("%s: item %d: %v", c.Name, len(got), err)
			return
		}
		got = append(got, v)
	}
	if len(got) != len(want.Items) {
		p.t.Errorf("%s: %d items, want %d", c.Name, len(got), len(want.Items))
	} else if err := tspeer.Diff(got, append([]any{}, want.Items...)); err != nil {
		p.t.Errorf("%s: %v", c.Name, err)
	}
}

// streamed returns a sequence of the items of a recorded stream.
func streamed(s tspeer.Stream) iter.Seq2[codec.Raw, error] {
	return func(yield func(codec.Raw, error) bool) {
		for _, item := range s.Items {
			if !yield(tspeer.AppendValue(nil, tspeer.Current, item), nil) {
				return
			}
		}
	}
}

// published checks the outcome of publishing a service, or of taking it back. What was
// never published is not asked to be taken back.
func (p *program) published(c *tspeer.Call, err error) {
	p.t.Helper()
	want := netron.Code(0)
	if c.Failure != nil {
		if want = netron.PermissionDenied; c.Op == tspeer.OpUnexpose {
			want = netron.NotFound
		}
	}
	if netron.CodeOf(err) != want {
		p.t.Errorf("%s = %v, want code %v", c.Op, err, want)
	}
}

// newNode returns a node with the tasks and the service of the recorded clients.
func (p *program) newNode() *netron.Node {
	p.t.Helper()
	n := newNode(p.t, netron.Config{ConnectTimeout: time.Minute})
	for name, fn := range map[string]any{
		"double":  func(_ context.Context, x float64) float64 { return 2 * x },
		"nothing": func(context.Context) {},
		"boom": func(context.Context) error {
			return &netron.Error{Name: "RangeError", Message: "client task failed", Fields: map[string]any{"code": "E_CLIENT"}}
		},
	} {
		if err := n.AddTask(name, fn); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := n.ExposeService(newClock(p.t)); err != nil {
		p.t.Fatal(err)
	}
	return n
}

// arguments turns the values of a recording into Go values that our codec
// encodes; where a Go value loses something, such as undefined, into the bytes.
func (p *program) arguments(args []any) []any {
	p.t.Helper()
	list := make([]any, len(args))
	for i, arg := range args {
		if s, ok := arg.(tspeer.Stream); ok {
			list[i] = streamed(s)
			continue
		}
		raw := tspeer.AppendValue(nil, tspeer.Current, arg)
		list[i] = codec.Raw(raw)
		var v any
		if codec.Unmarshal(raw, &v) != nil {
			continue // over the default limits for values of any type
		}
		ours, err := codec.Append(nil, v)
		if err != nil {
			p.t.Errorf("argument %d: %v", i, err)
			continue
		}
		if again, err := tspeer.DecodeValue(tspeer.Current, ours); err == nil && tspeer.Diff(again, arg) == nil {
			list[i] = v
		}
	}
	return list
}

// check compares the outcome of a call with what the recorded client saw.
func (p *program) check(c *tspeer.Call, result codec.Raw, err error) {
	p.t.Helper()
	if c.Failure == nil {
		if err != nil {
			p.t.Errorf("%s %s%s: %v", c.Op, c.Service, c.Name, err)
			return
		}
		if c.Op == tspeer.OpQuery {
			return
		}
		got, err := tspeer.DecodeValue(tspeer.Current, result)
		if err != nil {
			p.t.Errorf("%s %s: result of %d bytes: %v", c.Op, c.Name, len(result), err)
		} else if err := tspeer.Diff(got, c.Result); err != nil {
			p.t.Errorf("%s %s: %v", c.Op, c.Name, err)
		}
		return
	}
	got, ok := errors.AsType[*netron.Error](err)
	if !ok {
		p.t.Errorf("%s %s: %v, want the failure %v", c.Op, c.Name, err, c.Failure)
		return
	}
	if c.Failure.Refused {
		if got.Code != netron.NotFound || !strings.Contains(got.Message, "not found") {
			p.t.Errorf("%s %s: %v, want not_found", c.Op, c.Name, err)
		}
		return
	}
	name := got.Name
	if name == "" {
		name = "Error"
	}
	code := got.Fields["code"]
	if n := got.Code.Number(); n != 0 {
		code = n
	}
	if name != c.Failure.Name || got.Message != c.Failure.Message || fmt.Sprint(code) != fmt.Sprint(c.Failure.Code) {
		p.t.Errorf("%s %s: %#v, want %+v", c.Op, c.Name, got, c.Failure)
	}
}

// TestOldClient lets a TypeScript client of version 0.6 talk to our listener.
func TestOldClient(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	nc, err := net.Dial("tcp", serveHost(t, netron.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	report, err := tspeer.Replay06(ctx, nc, tspeer.UserTasks)
	if err != nil {
		t.Error(err)
	}
	t.Log(report)
}

// TestOldServer lets our dialler talk to a TypeScript server of version 0.6.
func TestOldServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	served := make(chan error, 1)
	go func() {
		nc, err := ln.Accept()
		if err == nil {
			_, err = tspeer.Serve06(ctx, nc)
		}
		served <- err
	}()
	peer, err := newNode(t, netron.Config{}).Dial(ctx, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"calculator", "calculator@1.0.0", "calculator@*"} {
		stub, err := peer.Service(ctx, name)
		if err != nil {
			t.Fatalf("Service(%q) = %v", name, err)
		}
		var sum float64
		if err := stub.Call(ctx, "add", &sum, 5, 3); err != nil || sum != 8 {
			t.Errorf("add = %v, %v, want 8", sum, err)
		}
		if err := stub.Call(ctx, "divide", nil, 1, 0); err == nil || err.Error() != "Division by zero" {
			t.Errorf("divide by zero = %v", err)
		}
		if err := stub.Call(ctx, "nothing", nil); err != nil {
			t.Errorf("nothing = %v", err)
		}
	}
	var sum float64
	if err := peer.RunTask(ctx, "sum", &sum, 1, 2, 3); err != nil || sum != 6 {
		t.Errorf("sum = %v, %v, want 6", sum, err)
	}
	for _, name := range []string{"nobody", "calculator@9.9.9"} {
		if _, err := peer.Service(ctx, name); netron.CodeOf(err) != netron.NotFound {
			t.Errorf("Service(%q) = %v, want not_found", name, err)
		}
	}
	if err := peer.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
