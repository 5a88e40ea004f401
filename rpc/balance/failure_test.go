package balance_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// TestKillDuringLoad kills one instance after the other. No idempotent call fails, and no other
// is served twice.
func TestKillDuringLoad(t *testing.T) {
	for _, policy := range []balance.Policy{balance.LeastLoaded, balance.LowLatency, balance.RoundRobin} {
		for _, idempotent := range []bool{true, false} {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, "a", "b", "c")
				for _, wk := range w.workers {
					wk.delay.Store(int64(20 * time.Millisecond))
				}
				c, k := w.client(withPolicy(policy))
				ctx := t.Context()
				if idempotent {
					ctx = rpc.Idempotent(ctx)
				}
				l := w.load(ctx, k, 2*time.Millisecond)
				for _, name := range []string{"a", "b", "a"} {
					time.Sleep(500 * time.Millisecond)
					w.nodes[name].Close()
					w.registry.remove(addressOf(name))
					time.Sleep(500 * time.Millisecond)
					old := w.workers[name]
					w.start(name)
					w.workers[name].delay.Store(old.delay.Load())
					w.registry.add(balance.Instance{ID: name, Address: addressOf(name)})
				}
				time.Sleep(time.Second)
				l.stop()
				twice, failed := 0, len(l.errs)
				for _, n := range w.ledger {
					if n > 1 {
						twice++
					}
				}
				switch {
				case idempotent && failed > 0:
					t.Errorf("%v: %d idempotent calls have failed, the first: %v", policy, failed, l.errs[0])
				case !idempotent && twice > 0:
					t.Errorf("%v: %d calls were served twice", policy, twice)
				case !idempotent && failed > 40: // about what was under way
					t.Errorf("%v: %d calls have failed, the last: %v", policy, failed, l.errs[failed-1])
				}
				for _, err := range l.errs {
					if rpc.CodeOf(err) != rpc.Unavailable {
						t.Error(err)
					}
				}
				for _, s := range c.Stats() {
					if s.InFlight != 0 || s.State != balance.StateReady {
						t.Errorf("%+v", s)
					}
				}
			})
		}
	}
}

// TestRollingRestart replaces all instances, each of which drains. No call fails, whatever it is.
func TestRollingRestart(t *testing.T) {
	for _, unregister := range []bool{true, false} { // before it shuts down
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a", "b", "c")
			for _, wk := range w.workers {
				wk.delay.Store(int64(20 * time.Millisecond))
			}
			c, k := w.client()
			l := w.load(t.Context(), k, 2*time.Millisecond)
			for _, name := range []string{"a", "b", "c"} {
				time.Sleep(300 * time.Millisecond)
				if unregister {
					w.registry.remove(addressOf(name))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				if err := w.nodes[name].Shutdown(ctx); err != nil {
					t.Errorf("Shutdown of %s: %v", name, err)
				}
				cancel()
				w.registry.remove(addressOf(name))
				fresh := name + "2"
				w.start(fresh)
				w.workers[fresh].delay.Store(int64(20 * time.Millisecond))
				w.registry.add(balance.Instance{ID: fresh, Address: addressOf(fresh)})
			}
			time.Sleep(2 * time.Second)
			l.stop()
			if len(l.errs) > 0 {
				t.Errorf("%d of %d calls have failed, the first: %v", len(l.errs), len(l.took), l.errs[0])
			}
			for id, n := range w.ledger {
				if n > 1 {
					t.Errorf("call %d was served %d times", id, n)
				}
			}
			if s := c.Stats(); len(s) != 3 {
				t.Errorf("%d instances, want 3: %+v", len(s), s)
			}
		})
	}
}

// TestLeaves checks that an instance which left serves its calls to the end, and that its connection
// is closed then.
func TestLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.workers["a"].delay.Store(int64(4 * time.Second))
		c, k := w.client()
		outcome := make(chan error, 2)
		go func() {
			_, err := k.Work(t.Context(), 1)
			outcome <- err
		}()
		go func() {
			n := 0
			for _, err := range k.Count(t.Context(), 20) {
				if err != nil {
					outcome <- err
					return
				}
				n++
			}
			if n != 20 {
				outcome <- fmt.Errorf("%d of 20 values", n)
				return
			}
			outcome <- nil
		}()
		time.Sleep(time.Second)
		w.registry.remove("a:1")
		w.start("b")
		w.registry.add(balance.Instance{Address: "b:1"})
		synctest.Wait()
		if s := statsOf(c, "a"); s.State != balance.StateLeaving || s.InFlight != 2 {
			t.Errorf("a is %v with %d calls, want leaving with 2", s.State, s.InFlight)
		}
		if at, err := k.Work(t.Context(), 2); at != "b" || err != nil {
			t.Errorf("Work = %q, %v, want b", at, err)
		}
		if err := <-outcome; err != nil {
			t.Error(err)
		}
		if w.Link("caller", "a").Conns() != 1 {
			t.Error("the connection was closed before the stream has ended")
		}
		if err := <-outcome; err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if w.Link("caller", "a").Conns() != 0 || len(c.Stats()) != 1 {
			t.Errorf("the connection lives on: %+v", c.Stats())
		}
	})
}

// TestComesBack checks that the connection is kept of an instance that comes back while it has calls under way.
func TestComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.workers["a"].delay.Store(int64(4 * time.Second))
		c, k := w.client()
		outcome := make(chan error, 1)
		go func() {
			_, err := k.Work(t.Context(), 1)
			outcome <- err
		}()
		time.Sleep(time.Second)
		for range 5 {
			w.registry.remove("a:1")
			time.Sleep(100 * time.Millisecond)
			w.registry.add(balance.Instance{ID: "a", Address: "a:1"})
			time.Sleep(100 * time.Millisecond)
		}
		if s := statsOf(c, "a"); s.State != balance.StateReady {
			t.Errorf("a is %v", s.State)
		}
		if err := <-outcome; err != nil {
			t.Error(err)
		}
		if _, err := k.Work(t.Context(), 1); err != nil {
			t.Error(err)
		}
		if w.Dials() != 1 {
			t.Errorf("%d dials, want 1", w.Dials())
		}
	})
}

// TestEjection checks that an instance which only fails is left out, for longer each time, and comes back.
func TestEjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "bad")
		w.workers["bad"].fail.Store(true)
		c, k := w.client(withPolicy(balance.RoundRobin))
		calls := func(n int) (failed int) {
			for i := range n {
				if _, err := k.Work(t.Context(), i); err != nil {
					failed++
				}
			}
			return failed
		}
		if failed := calls(30); failed != 5 {
			t.Errorf("%d calls have failed, want 5", failed)
		}
		s := statsOf(c, "bad")
		if left := time.Until(s.EjectedUntil); s.State != balance.StateEjected || left != 5*time.Second || s.Failures != 5 {
			t.Errorf("%v for %v after %d failures, want ejected for 5s", s.State, left, s.Failures)
		}
		for _, want := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
			time.Sleep(time.Until(statsOf(c, "bad").EjectedUntil) + 1)
			if failed := calls(30); failed != 1 {
				t.Errorf("%d calls have failed, want 1", failed)
			}
			if left := time.Until(statsOf(c, "bad").EjectedUntil); left != want {
				t.Errorf("ejected for %v, want %v", left, want)
			}
		}
		w.workers["bad"].fail.Store(false)
		time.Sleep(time.Minute)
		w.counts()
		if failed, n := calls(30), w.counts()["bad"]; failed != 0 || n != 10 {
			t.Errorf("%d calls have failed, bad got %d, want it to have its part", failed, n)
		}
		time.Sleep(6 * time.Minute)
		calls(3) // the past is forgotten
		w.workers["bad"].fail.Store(true)
		calls(30)
		if left := time.Until(statsOf(c, "bad").EjectedUntil); left != 5*time.Second {
			t.Errorf("ejected for %v, want 5s", left)
		}
	})
}

// TestEjectionLimit checks that never more than half of the instances are left out.
func TestEjectionLimit(t *testing.T) {
	for n := 1; n <= 5; n++ {
		synctest.Test(t, func(t *testing.T) {
			var names []string
			for i := range n {
				names = append(names, fmt.Sprintf("n%d", i))
			}
			w := newWorld(t, names...)
			for _, wk := range w.workers {
				wk.fail.Store(true)
			}
			c, k := w.client()
			for i := range 200 {
				if _, err := k.Work(t.Context(), i); rpc.CodeOf(err) != rpc.Unavailable {
					t.Fatal(err)
				}
			}
			ejected := 0
			for _, s := range c.Stats() {
				if s.State == balance.StateEjected {
					ejected++
				}
			}
			if ejected != n/2 {
				t.Errorf("%d of %d are ejected, want %d", ejected, n, n/2)
			}
		})
	}
}

// TestDialsWithPauses checks that there is no storm of dials to instances that cannot be reached, and
// never two attempts at a time to one.
func TestDialsWithPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		for i := range 5 {
			w.registry.add(balance.Instance{Address: fmt.Sprintf("none-%d:1", i)})
		}
		w.registry.add(balance.Instance{Address: "not an address"})
		c, k := w.client()
		for range 60 {
			time.Sleep(time.Second)
			for i := range 20 {
				if _, err := k.Work(t.Context(), i); err != nil {
					t.Error(err)
				}
			}
			w.registry.change(func(all []balance.Instance) []balance.Instance { return all })
		}
		for i := range 5 {
			if n := w.dialled(fmt.Sprintf("none-%d:1", i)); n < 3 || n > 25 {
				t.Errorf("none-%d was dialled %d times in a minute", i, n)
			}
		}
		if w.most > 1 {
			t.Errorf("%d attempts at a time to one address", w.most)
		}
		if w.dialled("a:1") != 1 {
			t.Errorf("a was dialled %d times", w.dialled("a:1"))
		}
		if s := statsOf(c, "none-0"); s.State != balance.StateIdle || s.Err == nil {
			t.Errorf("%+v", s)
		}
	})
}

// TestStalledDials checks that calls do not wait for an instance that does not answer while there
// is another, and that joins and leaves start no second attempt.
func TestStalledDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "slow", "a")
		w.Link("caller", "slow").Stall()
		_, k := w.client()
		for range 50 {
			w.registry.remove("slow:1")
			synctest.Wait()
			w.registry.add(balance.Instance{Address: "slow:1"})
			synctest.Wait()
			if at, err := k.Work(t.Context(), 0); at != "a" || err != nil {
				t.Errorf("Work = %q, %v", at, err)
			}
		}
		if w.most != 1 || w.dialled("slow:1") != 1 {
			t.Errorf("%d attempts to connect, %d at a time, want 1", w.dialled("slow:1"), w.most)
		}
		w.Link("caller", "slow").Resume()
		time.Sleep(time.Second)
		w.counts()
		for i := range 40 {
			if _, err := k.Work(t.Context(), i); err != nil {
				t.Error(err)
			}
		}
		if got := w.counts(); got["slow"] < 5 {
			t.Errorf("calls %v, want some at the one that answers again", got)
		}
	})
}

// TestNobody checks calls while there are no instances.
func TestNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.idle()
		if _, err := balance.Query[workerClient](t.Context(), c); rpc.CodeOf(err) != rpc.Unavailable || !strings.Contains(err.Error(), "no instance of worker@^1 is known") {
			t.Errorf("Query = %v", err)
		}
		if err := c.Call(t.Context(), "work", nil, 1); rpc.CodeOf(err) != rpc.Unavailable {
			t.Errorf("Call = %v", err)
		}
		patient := w.idle(func(c *balance.Config) { c.WaitReady = true })
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := patient.Call(ctx, "work", nil, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Call = %v, want the deadline to be met", err)
		}
		start := time.Now()
		if err := patient.Call(t.Context(), "work", nil, 1); rpc.CodeOf(err) != rpc.Unavailable || time.Since(start) != 30*time.Second {
			t.Errorf("Call = %v after %v", err, time.Since(start))
		}
		w.start("a")
		time.AfterFunc(5*time.Second, func() { w.registry.add(balance.Instance{Address: "a:1"}) })
		start = time.Now()
		if err := patient.Call(t.Context(), "work", nil, 1); err != nil || time.Since(start) != 5*time.Second {
			t.Errorf("Call = %v after %v, want it to wait for the instance", err, time.Since(start))
		}
		// One that cannot be reached.
		w.registry.remove("a:1")
		w.registry.add(balance.Instance{Address: "none:1"})
		synctest.Wait()
		if err := c.Call(t.Context(), "work", nil, 1); rpc.CodeOf(err) != rpc.Unavailable {
			t.Errorf("Call = %v", err)
		}
		time.AfterFunc(time.Minute, func() { w.start("none") })
		ctx, cancel = context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		if err := c.Call(rpc.RetryUnsent(ctx), "work", nil, 1); err != nil {
			t.Errorf("Call under RetryUnsent = %v, want it to wait", err)
		}
	})
}

// TestWithoutService checks an instance that does not have the service, or loses it.
func TestWithoutService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		w.Start(t, "empty:1")
		w.registry.add(balance.Instance{Address: "empty:1"})
		c, k := w.client(withPolicy(balance.RoundRobin))
		for i := range 10 {
			if _, err := k.Work(t.Context(), i); err != nil {
				t.Error(err)
			}
		}
		if s := statsOf(c, "empty"); rpc.CodeOf(s.Err) != rpc.NotFound {
			t.Errorf("%+v", s)
		}
	})
}

// TestSubset checks that a client connects to some of many instances, and to others in place of those that
// it cannot connect to.
func TestSubset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var names []string
		for i := range 12 {
			names = append(names, fmt.Sprintf("n%d", i))
		}
		w := newWorld(t, names...)
		used := make(map[string]int)
		for i := range 20 {
			c, k := w.client(func(c *balance.Config) { c.ID, c.Subset = fmt.Sprintf("client-%d", i), 3 })
			if len(c.Stats()) != 3 {
				t.Errorf("%d instances, want 3", len(c.Stats()))
			}
			for _, s := range c.Stats() {
				used[s.Instance.Address]++
			}
			if _, err := k.Work(t.Context(), 0); err != nil {
				t.Error(err)
			}
		}
		if len(used) < 10 {
			t.Errorf("20 clients with a subset of 3 use %d of 12 instances", len(used))
		}
		c, k := w.client(func(c *balance.Config) { c.Subset = 3 })
		first := c.Stats()
		for _, s := range first {
			name := strings.TrimSuffix(s.Instance.Address, ":1")
			w.Link("caller", name).Refuse()
		}
		again, _ := w.client(func(c *balance.Config) { c.Subset, c.WaitReady = 3, true })
		time.Sleep(time.Minute)
		ready := 0
		for _, s := range again.Stats() {
			if s.State == balance.StateReady {
				ready++
			}
		}
		if ready != 3 {
			t.Errorf("%d instances are ready, want 3: %+v", ready, again.Stats())
		}
		if _, err := k.Work(t.Context(), 0); err != nil {
			t.Error(err)
		}
	})
}

// TestRetryBudget checks that lost calls are not made again without end.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		for _, wk := range w.workers {
			wk.fail.Store(true)
		}
		_, k := w.client()
		ctx := rpc.Idempotent(t.Context())
		if _, err := k.Work(ctx, 1); rpc.CodeOf(err) != rpc.Unavailable || w.ledger[1] != 3 {
			t.Errorf("Work = %v after %d attempts, want 3", err, w.ledger[1])
		}
		w.counts()
		for i := range 1000 {
			if _, err := k.Work(ctx, i); err == nil {
				t.Fatal("Work has succeeded")
			}
		}
		got := w.counts()
		if n := got["a"] + got["b"]; n < 1280 || n > 1450 {
			t.Errorf("%d attempts for 1000 calls, want about 1370", n)
		}
		_, k = w.client(func(c *balance.Config) { c.RetryRatio = -1 })
		w.counts()
		_, _ = k.Work(ctx, 1)
		if got := w.counts(); got["a"]+got["b"] != 1 {
			t.Errorf("attempts %v, want 1", got)
		}
	})
}

// TestOverload checks that what an instance refuses because it has too much to do goes to another one, and that
// all together give up.
func TestOverload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.limit = 5 // requests at a time, of each
		for _, name := range []string{"a", "b", "c"} {
			w.start(name)
			w.workers[name].delay.Store(int64(time.Second))
			w.registry.add(balance.Instance{Address: addressOf(name)})
		}
		_, k := w.client(withPolicy(balance.Random))
		l := w.loadOf(t.Context(), k, time.Microsecond, 11) // chance puts too many on one
		l.wait()
		if len(l.errs) > 0 {
			t.Error(l.errs[0])
		}
		l = w.loadOf(t.Context(), k, time.Microsecond, 60)
		l.wait()
		if n := len(l.errs); n < 45 || n > 50 {
			t.Errorf("%d of 60 calls have failed, want about 45", n)
		}
		for _, err := range l.errs {
			if rpc.CodeOf(err) != rpc.ResourceExhausted {
				t.Error(err)
			}
		}
	})
}

// TestErrorsOfServices checks that what a service returns is no reason to ask another instance.
func TestErrorsOfServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		c, k := w.client()
		if err := c.Call(rpc.Idempotent(t.Context()), "work", nil, "no number"); rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("Call = %v, want invalid_argument", err)
		}
		if err := c.Call(t.Context(), "unknown", nil); rpc.CodeOf(err) != rpc.NotFound {
			t.Errorf("Call = %v, want not_found", err)
		}
		for _, wk := range w.workers {
			wk.delay.Store(int64(time.Hour))
		}
		w.counts()
		ctx, cancel := context.WithTimeout(rpc.Idempotent(t.Context()), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := k.Work(ctx, 1); rpc.CodeOf(err) != rpc.DeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("Work = %v after %v, want the deadline to be met", err, time.Since(start))
		}
		if got := w.counts(); got["a"]+got["b"] != 1 {
			t.Errorf("attempts %v, want 1", got)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := k.Work(ctx, 1); rpc.CodeOf(err) != rpc.Canceled {
			t.Errorf("Work = %v, want canceled", err)
		}
	})
}

// TestStall checks that calls leave an instance whose connection has fallen silent, when that is noticed.
func TestStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for _, wk := range w.workers {
			wk.delay.Store(int64(10 * time.Millisecond))
		}
		_, k := w.client(withPolicy(balance.LowLatency))
		l := w.load(rpc.Idempotent(t.Context()), k, 10*time.Millisecond)
		time.Sleep(5 * time.Second)
		w.Link("caller", "c").Stall()
		time.Sleep(2 * time.Minute)
		l.stop()
		if n := len(l.errs); n > 30 {
			t.Errorf("%d of %d calls have failed, the last: %v", n, len(l.took), l.errs[n-1])
		}
		w.Link("caller", "c").Resume()
	})
}

// broken is a source that ends the connection which it is sent over.
type broken struct {
	once sync.Once
	cut  func()
}

func (b *broken) Read([]byte) (int, error) {
	b.once.Do(b.cut)
	time.Sleep(time.Second)
	return 0, io.ErrUnexpectedEOF
}

// TestStreamsAreUsedOnce checks that a call is not made again whose arguments have begun to be sent.
func TestStreamsAreUsedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		c, k := w.client()
		ctx := rpc.Idempotent(t.Context())
		if n, err := k.Size(ctx, strings.NewReader("hello")); n != 5 || err != nil {
			t.Errorf("Size = %d, %v", n, err)
		}
		w.counts()
		if n, err := k.Size(ctx, &broken{cut: w.Cut}); err == nil {
			t.Errorf("Size = %d, nil, want an error", n)
		}
		if got := w.counts(); got["a"]+got["b"] > 1 {
			t.Errorf("served %v, want one call at most", got)
		}
		for _, s := range c.Stats() {
			if s.InFlight != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestNestedServices checks that a service which a method returned stays with its instance.
func TestNestedServices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		_, k := w.client(withPolicy(balance.RoundRobin))
		seen := make(map[string]bool)
		for range 3 {
			inner, err := k.Inner(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			first, err := inner.Name(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if at, err := inner.Name(t.Context()); at != first || err != nil {
					t.Errorf("Name = %q, %v, want %q", at, err, first)
				}
			}
			seen[first] = true
		}
		if len(seen) != 3 {
			t.Errorf("services of %v, want all instances", seen)
		}
	})
}

// TestOtherCalls makes calls of the kinds that callers of one peer have: properties, calls that are
// started, and callbacks. All are spread, and none is left open.
func TestOtherCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		c, _ := w.client(withPolicy(balance.RoundRobin))
		stub, err := c.Stub(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		outcome := make(chan string, 1)
		workFunc := rpc.MethodFunc[struct{ ID int }, string](stub, "work")
		for name, call := range map[string]func() (string, error){
			"Get": func() (at string, err error) {
				err = stub.Get(t.Context(), "place", &at)
				return at, err
			},
			"Go": func() (at string, err error) {
				err = stub.Go(t.Context(), "work", &at, 1).Wait(t.Context())
				return at, err
			},
			"MethodFunc": func() (string, error) {
				err := workFunc(t.Context(), struct{ ID int }{1}, func(_ context.Context, at string, _ error) { outcome <- at })
				return <-outcome, err
			},
			"CallFunc": func() (string, error) {
				err := stub.CallFunc(t.Context(), "work", func(_ context.Context, r *rpc.Reply, _ error) {
					var at string
					_ = r.Decode(&at)
					outcome <- at
				}, 1)
				return <-outcome, err
			},
		} {
			seen := make(map[string]int)
			for range 9 {
				at, err := call()
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				seen[at]++
			}
			if seen["a"] != 3 || seen["b"] != 3 || seen["c"] != 3 {
				t.Errorf("%s went to %v", name, seen)
			}
		}
		for _, s := range c.Stats() {
			if s.InFlight != 0 {
				t.Errorf("%+v", s)
			}
		}
	})
}

// TestPassedOn checks a node that returns a balanced service to its own callers.
func TestPassedOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		c, _ := w.client(withPolicy(balance.RoundRobin))
		workers := w.passedOn(c)
		seen := make(map[string]int)
		for i := range 9 {
			at, err := workers.Work(t.Context(), i)
			if err != nil {
				t.Error(err)
			}
			seen[at]++
		}
		if seen["a"] != 3 || seen["b"] != 3 || seen["c"] != 3 {
			t.Errorf("calls went to %v", seen)
		}
	})
}

// TestClose checks that nothing is left, and what a closed client does.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		w.registry.add(balance.Instance{Address: "none:1"})
		for _, wk := range w.workers {
			wk.delay.Store(int64(time.Hour))
		}
		c, k := w.client()
		l := w.load(rpc.Idempotent(t.Context()), k, time.Millisecond)
		time.Sleep(50 * time.Millisecond)
		w.registry.remove("a:1")
		synctest.Wait()
		close(l.stopc)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		l.wait()
		synctest.Wait() // for the other side
		if len(l.errs) != len(l.took) {
			t.Errorf("%d of %d calls have failed", len(l.errs), len(l.took))
		}
		if w.Conns() != 0 || len(w.caller.Peers()) != 0 {
			t.Errorf("%d connections are left", w.Conns())
		}
		if _, err := k.Work(rpc.Idempotent(t.Context()), 1); rpc.CodeOf(err) != rpc.Unavailable {
			t.Errorf("Work after Close = %v", err)
		}
		if len(w.registry.watchers) != 0 {
			t.Error("the resolver still has a watcher")
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestChangesDuringCalls changes the instances all the time.
func TestChangesDuringCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b", "c")
		for _, wk := range w.workers {
			wk.delay.Store(int64(7 * time.Millisecond))
		}
		_, k := w.client()
		l := w.load(t.Context(), k, time.Millisecond)
		for i := range 300 {
			name := []string{"a", "b", "c"}[i%3]
			w.registry.remove(addressOf(name))
			time.Sleep(time.Duration(i%11) * 3 * time.Millisecond)
			w.registry.add(balance.Instance{ID: name, Address: addressOf(name), Weight: i % 4})
			time.Sleep(time.Duration(i%7) * time.Millisecond)
		}
		l.stop()
		if len(l.errs) > 0 {
			t.Errorf("%d calls have failed, the first: %v", len(l.errs), l.errs[0])
		}
		if w.most > 1 {
			t.Errorf("%d attempts to connect to one address at a time", w.most)
		}
	})
}

// TestBadConfig checks what New refuses.
func TestBadConfig(t *testing.T) {
	dial := func(context.Context, string) (*rpc.Peer, error) { return nil, nil }
	for name, cfg := range map[string]balance.Config{
		"no dialler":     {Resolver: balance.Static()},
		"no resolver":    {Dial: dial},
		"unknown policy": {Dial: dial, Resolver: balance.Static(), Policy: 77},
		"a low bound":    {Dial: dial, Resolver: balance.Static(), KeyLoad: 0.5},
	} {
		if _, err := balance.New("x", cfg); rpc.CodeOf(err) != rpc.InvalidArgument {
			t.Errorf("New with %s = %v, want invalid_argument", name, err)
		}
	}
	c, err := balance.New("x", balance.Config{
		Dial: dial, Resolver: balance.Static(balance.Instance{Address: "a:1"}), Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Call(t.Context(), "x", nil); rpc.CodeOf(err) != rpc.Unavailable {
		t.Errorf("Call with a dialler that returns nothing = %v", err)
	}
}
