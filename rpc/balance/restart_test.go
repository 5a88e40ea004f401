package balance_test

import (
	"context"
	"io"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// TestUnknownMethods checks that callers who ask for what no instance has do not have instances
// left out.
func TestUnknownMethods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		c, _ := w.client()
		stub, err := c.Stub(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if err := c.Call(t.Context(), "unknown", nil); rpc.CodeOf(err) != rpc.NotFound {
				t.Errorf("Call = %v, want not_found", err)
			}
			if err := stub.Get(t.Context(), "unknown", nil); rpc.CodeOf(err) != rpc.NotFound {
				t.Errorf("Get = %v, want not_found", err)
			}
		}
		for _, s := range c.Stats() {
			if s.State != balance.StateReady || s.Failures != 0 || s.InFlight != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// newer is a worker with more.
type newer struct {
	*worker
	Level int
}

func (n *newer) Extra(context.Context) (string, error) { return n.name, nil }

// TestUpgrade checks calls while one instance has a method and a property that the others lack.
func TestUpgrade(t *testing.T) {
	type client struct {
		Extra func(ctx context.Context) (string, error)
		Level func(ctx context.Context) (int, error) `netron:",get"`
	}
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		c, _ := w.client(withPolicy(balance.RoundRobin))
		if _, err := balance.Query[client](t.Context(), c); rpc.CodeOf(err) != rpc.NotFound {
			t.Errorf("Query = %v, want not_found", err)
		}
		wk := &newer{&worker{world: w, name: "b"}, 2}
		w.Start(t, "b:1", netrontest.Configure(quiet), netrontest.Prepare(func(n *netron.Node) error {
			s := netron.NewService("worker", "1.1.0")
			netron.Func(s, "extra", wk.Extra)
			var level rpc.Property[int]
			level.Set(2)
			rpc.AddProperty(s, "level", &level, true)
			return n.ExposeService(s)
		}))
		w.registry.add(balance.Instance{Address: "b:1"})
		synctest.Wait()
		var k *client
		for range 4 {
			var err error
			if k, err = balance.Query[client](t.Context(), c); err == nil {
				break
			}
		}
		if k == nil {
			t.Fatal("Query does not find what the new instance has")
		}
		for range 10 {
			if at, err := k.Extra(t.Context()); at != "b" || err != nil {
				t.Errorf("Extra = %q, %v, want b", at, err)
			}
			if level, err := k.Level(t.Context()); level != 2 || err != nil {
				t.Errorf("Level = %d, %v, want 2", level, err)
			}
		}
	})
}

// TestRestartsWithoutService checks an instance which restarts at its address without the service,
// and has it again later: it gets no calls, and then its part at once.
func TestRestartsWithoutService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		c, k := w.client(withPolicy(balance.RoundRobin))
		calls := func(n int) map[string]int { return w.work(k, n) }
		calls(3)
		w.nodes["b"].Close()
		w.nodes["b"] = w.Start(t, "b:1", netrontest.Configure(quiet))
		time.Sleep(time.Minute)
		if got := calls(600); got["a"] < 290 || got["c"] < 290 {
			t.Errorf("calls %v, want them at a and c", got)
		}
		if s := statsOf(c, "b"); s.Failures > 1 || s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
		if err := w.nodes["b"].Expose("worker@1.0.1", w.workers["b"]); err != nil {
			t.Fatal(err)
		}
		calls(150) // it is asked once a second
		if got := calls(300); got["b"] != 100 {
			t.Errorf("calls %v, want b to have its part", got)
		}
	})
}

// TestConceal checks an instance that takes the service back while it runs on, and offers it
// again. No call fails.
func TestConceal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		_, k := w.client()
		calls := func(n int) map[string]int { return w.work(k, n) }
		calls(10)
		if err := w.nodes["b"].Conceal("worker@1.0.0"); err != nil {
			t.Fatal(err)
		}
		if got := calls(300); got["a"] != 300 {
			t.Errorf("calls %v, want all at a", got)
		}
		if err := w.nodes["b"].Expose("worker@1.0.0", w.workers["b"]); err != nil {
			t.Fatal(err)
		}
		calls(150)
		if got := calls(300); got["b"] < 100 {
			t.Errorf("calls %v, want b to have its part", got)
		}
	})
}

// TestPanicsEnd checks that calls in which code of the application panics are over afterwards.
func TestPanicsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		c, k := w.client()
		stub, err := c.Stub(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.caller.UseOutgoing(func(next netron.Handler) netron.Handler {
			return func(ctx context.Context, r *netron.Request) (codec.Raw, error) {
				if r.Member() != "queryInterface" {
					panic("broken")
				}
				return next(ctx, r)
			}
		})
		ctx := t.Context()
		typed := rpc.Method[struct{ ID int }, string](stub, "work")
		for name, call := range map[string]func(){
			"func":   func() { _, _ = k.Work(ctx, 1) },
			"Call":   func() { _ = stub.Call(ctx, "work", nil, 1) },
			"Get":    func() { _ = stub.Get(ctx, "place", nil) },
			"typed":  func() { _, _ = typed(ctx, struct{ ID int }{1}) },
			"reader": func() { _, _ = k.Size(ctx, strings.NewReader("x")) },
			"sequence": func() {
				for range k.Count(ctx, 3) {
				}
			},
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s has hidden the panic", name)
					}
				}()
				call()
			}()
		}
		// Those that are started get an error.
		if err := stub.Go(ctx, "work", nil, 1).Wait(ctx); rpc.CodeOf(err) != rpc.Internal {
			t.Errorf("Go = %v, want internal", err)
		}
		outcome := make(chan error, 1)
		if err := stub.CallFunc(ctx, "work", func(_ context.Context, _ *rpc.Reply, err error) { outcome <- err }, 1); err != nil {
			t.Error(err)
		} else if err := <-outcome; rpc.CodeOf(err) != rpc.Internal {
			t.Errorf("CallFunc = %v, want internal", err)
		}
		workFunc := rpc.MethodFunc[struct{ ID int }, string](stub, "work")
		if err := workFunc(ctx, struct{ ID int }{1}, func(_ context.Context, _ string, err error) { outcome <- err }); err != nil {
			t.Error(err)
		} else if err := <-outcome; rpc.CodeOf(err) != rpc.Internal {
			t.Errorf("MethodFunc = %v, want internal", err)
		}
		for _, s := range c.Stats() {
			if s.InFlight != 0 {
				t.Errorf("%s: %d calls are under way for ever", s.Instance.Address, s.InFlight)
			}
		}
	})
}

// TestPanicInLoop checks that the stream ends of a loop which panics.
func TestPanicInLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		c, k := w.client()
		func() {
			defer func() { _ = recover() }()
			for range k.Count(t.Context(), 3) {
				panic("broken")
			}
		}()
		if s := statsOf(c, "a"); s.InFlight != 0 {
			t.Errorf("%+v", s)
		}
	})
}

// passedOn returns the service of the client as one gets it who asks the caller for it.
func (w *world) passedOn(c *balance.Client) *workerClient {
	w.t.Helper()
	front := netron.NewService("front", "")
	netron.Func(front, "workers", func(ctx context.Context) (*rpc.Stub, error) { return c.Stub(ctx) })
	if err := w.caller.ExposeService(front); err != nil {
		w.t.Fatal(err)
	}
	outside := w.Start(w.t, "outside:1", netrontest.Configure(quiet))
	peer, err := outside.Dial(w.t.Context(), "caller:1")
	if err != nil {
		w.t.Fatal(err)
	}
	k, err := rpc.Query[struct {
		Workers func(ctx context.Context) (*workerClient, error)
	}](w.t.Context(), peer, "front")
	if err != nil {
		w.t.Fatal(err)
	}
	workers, err := k.Workers(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return workers
}

// TestPassedOnFailures checks that the calls of others, who got the service from the caller, are as
// good as its own: those that nobody has served go elsewhere, and streams are under way until their
// end.
func TestPassedOnFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.limit = 1 // request at a time, of each
		for _, name := range []string{"a", "b"} {
			w.start(name)
			w.registry.add(balance.Instance{Address: addressOf(name)})
		}
		c, own := w.client(withPolicy(balance.RoundRobin))
		workers := w.passedOn(c)
		w.workers["a"].delay.Store(int64(time.Second))
		for w.workers["a"].calls.Load() == 0 {
			go func() { _, _ = own.Work(t.Context(), 1) }()
			synctest.Wait()
		}
		for i := range 4 { // a is busy
			synctest.Wait() // b is done with the one before
			if at, err := workers.Work(t.Context(), i); at != "b" || err != nil {
				t.Errorf("Work = %q, %v, want b", at, err)
			}
		}
		time.Sleep(2 * time.Second)
		open := func() (n int) {
			synctest.Wait()
			for _, s := range c.Stats() {
				n += s.InFlight
			}
			return n
		}
		for v, err := range workers.Count(t.Context(), 3) {
			if err != nil {
				t.Error(err)
			}
			if n := open(); v == 0 && n != 1 {
				t.Errorf("%d calls are under way during a stream, want 1", n)
			}
		}
		for range workers.Count(t.Context(), 1000) {
			break
		}
		time.Sleep(2 * time.Second) // it notices
		if n, err := workers.Size(t.Context(), strings.NewReader("hello")); n != 5 || err != nil {
			t.Errorf("Size = %d, %v, want 5", n, err)
		}
		synctest.Wait()
		inner, err := workers.Inner(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if _, err := inner.Name(t.Context()); err != nil {
			t.Error(err)
		}
		if n := open(); n != 0 {
			t.Errorf("%d calls are under way after all has ended", n)
		}
		// A stream keeps the connection to an instance that has left.
		next, stop := iter.Pull2(workers.Count(t.Context(), 5))
		defer stop()
		if _, err, _ := next(); err != nil {
			t.Error(err)
		}
		w.registry.remove("a:1")
		w.registry.remove("b:1")
		for range 4 {
			if _, err, ok := next(); err != nil || !ok {
				t.Errorf("the stream ends early: %v", err)
			}
		}
	})
}

// TestStreamsForgive checks that streams which were served tell of an instance as calls do: losses
// with them in between are not in a row.
func TestStreamsForgive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		c, k := w.client(withPolicy(balance.RoundRobin), func(c *balance.Config) { c.EjectTime = time.Hour })
		for range 8 {
			for range 2 {
				if _, err := k.Size(t.Context(), io.LimitReader(zeros{}, 10)); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(time.Minute)
			w.Link("caller", "a").Cut()
			time.Sleep(time.Minute)
		}
		if s := statsOf(c, "a"); s.State != balance.StateReady || s.Failures != 8 {
			t.Errorf("a is %v after %d failures, want ready after 8", s.State, s.Failures)
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
