package rpc

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// TestTaskLimit runs tasks of every behaviour past their limit of a second, and
// looks at when the caller has which answer.
func TestTaskLimit(t *testing.T) {
	const limit, message = time.Second, "Task job timed out after 1s"
	sleep := func(d time.Duration) func(context.Context) (int, error) {
		return func(context.Context) (int, error) { time.Sleep(d); return 1, nil }
	}
	tests := []struct {
		name  string
		fn    any
		limit time.Duration
		after time.Duration // of the answer
		code  Code
		text  string
	}{
		{"in time", sleep(limit - 1), limit, limit - 1, 0, ""},
		{"ignores its context", sleep(time.Minute), limit, limit, DeadlineExceeded, message},
		{"heeds its context", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }, limit, limit, DeadlineExceeded, message},
		{"heeds it later", func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Second); return ctx.Err() }, limit, limit, DeadlineExceeded, message},
		{"fails later", func(context.Context) error { time.Sleep(time.Minute); return errors.New("late") }, limit, limit, DeadlineExceeded, message},
		{"panics later", func(context.Context) { time.Sleep(time.Minute); panic("late") }, limit, limit, DeadlineExceeded, message},
		{"exits later", func(context.Context) { time.Sleep(time.Minute); runtime.Goexit() }, limit, limit, DeadlineExceeded, message},
		{"a deadline of its own", func(context.Context) error { return context.DeadlineExceeded }, limit, 0, DeadlineExceeded, "deadline exceeded"},
		{"panics in time", func(context.Context) { panic("secret") }, limit, 0, Internal, "internal error"},
		{"no limit", sleep(time.Minute), -1, time.Minute, 0, ""},
	}
	for _, tt := range tests {
		synctest.Test(t, func(t *testing.T) {
			e := newEndpoint(t, Config{TaskTimeout: tt.limit, CallTimeout: -1})
			if err := e.AddTask("job", tt.fn); err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			err := e.Local().RunTask(context.Background(), "job", nil)
			if took := time.Since(start); took != tt.after {
				t.Errorf("%s: answer after %v, want %v", tt.name, took, tt.after)
			}
			got, _ := errors.AsType[*Error](err)
			if CodeOf(err) != tt.code || (got != nil && got.Message != tt.text) {
				t.Errorf("%s: %v, want code %v and message %q", tt.name, err, tt.code, tt.text)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			if s := e.Local().Stats(); s.LateReplies != 0 || s.Replies != 1 {
				t.Errorf("%s: %d answers and %d late ones, want one answer", tt.name, s.Replies, s.LateReplies)
			}
			if n := e.served.link().Inflight(); n != 0 {
				t.Errorf("%s: %d requests still count after the function has ended, want 0", tt.name, n)
			}
		})
	}
}

// TestTaskLimitBuffers lets a task that was answered for go on with its arguments
// and return a result, while others use the same connection: neither may reach what
// does not belong to it. Race-enabled builds poison released buffers.
func TestTaskLimitBuffers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{TaskTimeout: time.Second, CallTimeout: -1})
		kept := make(chan bool, 100)
		err := e.AddTask("late", func(_ context.Context, fill int, p []byte) []byte {
			time.Sleep(time.Minute)
			kept <- bytes.Count(p, []byte{byte(fill)}) == len(p)
			return p
		})
		if err == nil {
			err = e.AddTask("echo", func(_ context.Context, p []byte) []byte { return p })
		}
		if err != nil {
			t.Fatal(err)
		}
		p := e.Local()
		failed := make(chan error, 100)
		for i := range cap(failed) {
			go func() {
				failed <- p.RunTask(context.Background(), "late", nil, i, bytes.Repeat([]byte{byte(i)}, 1000))
			}()
		}
		for range cap(failed) {
			if err := <-failed; CodeOf(err) != DeadlineExceeded {
				t.Errorf("late = %v, want deadline_exceeded", err)
			}
		}
		if n := e.served.link().Inflight(); n != cap(kept) {
			t.Errorf("Inflight = %d while the tasks run on, want %d", n, cap(kept))
		}
		for i := range 1000 {
			want := bytes.Repeat([]byte{byte(i)}, i)
			var got []byte
			if i == 500 {
				time.Sleep(time.Minute) // the late ones end
			}
			if err := p.RunTask(context.Background(), "echo", &got, want); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("echo = %x, %v, want %x", got, err, want)
			}
		}
		for range cap(kept) {
			if !<-kept {
				t.Error("the arguments of a task changed while it ran")
			}
		}
	})
}

// TestTaskLimitCounts checks that a function which goes on keeps its place: a peer
// cannot pile up more of them than it may have requests.
func TestTaskLimitCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{TaskTimeout: time.Second, CallTimeout: -1, MaxRequests: 3})
		if err := e.AddTask("stuck", func(context.Context) { time.Sleep(time.Minute) }); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for i, want := range []Code{DeadlineExceeded, DeadlineExceeded, DeadlineExceeded, ResourceExhausted} {
			if err := e.Local().RunTask(context.Background(), "stuck", nil); CodeOf(err) != want {
				t.Errorf("run %d = %v, want %v", i, err, want)
			}
		}
		if err := e.Drain(context.Background()); err != nil || time.Since(start) != time.Minute+2*time.Second {
			t.Errorf("Drain = %v after %v, want it to wait for the functions", err, time.Since(start))
		}
		if n := e.served.link().Inflight(); n != 0 {
			t.Errorf("Inflight = %d after Drain, want 0", n)
		}
	})
}

// TestTaskLimitOldBrowserForm: the limit holds for tasks that were not found by
// route, too.
func TestTaskLimitOldBrowserForm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{CallTimeout: -1})
		if err := e.AddTask("stuck", func(context.Context) { time.Sleep(time.Minute) }, TaskLimit(2*time.Second)); err != nil {
			t.Fatal(err)
		}
		p := e.Local()
		c := p.link().NewCall()
		c.B = append(c.B, mustAppend(t, map[string]any{"task": "stuck"})...)
		start := time.Now()
		if err := p.call(context.Background(), wire.TypeTask, c, nil); CodeOf(err) != DeadlineExceeded || time.Since(start) != 2*time.Second {
			t.Errorf("stuck = %v after %v, want deadline_exceeded after 2s", err, time.Since(start))
		}
		time.Sleep(time.Minute)
	})
}

// TestTaskContext checks that the context of a task is like any other.
func TestTaskContext(t *testing.T) {
	type userKey struct{}
	run := func(t *testing.T, limit time.Duration, fn func(ctx context.Context)) *Endpoint {
		e := newEndpoint(t, Config{TaskTimeout: limit, CallTimeout: -1, Context: context.WithValue(context.Background(), userKey{}, "of the node")})
		if err := e.AddTask("job", fn); err != nil {
			t.Fatal(err)
		}
		go e.Local().RunTask(context.Background(), "job", nil)
		synctest.Wait()
		return e
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		kept := make(chan context.Context, 1)
		run(t, time.Second, func(ctx context.Context) {
			kept <- ctx
			if d, ok := ctx.Deadline(); !ok || d.Sub(start) != time.Second {
				t.Errorf("Deadline = %v, %v, want a second from now", d.Sub(start), ok)
			}
			if PeerFrom(ctx) == nil || ctx.Value(userKey{}) != "of the node" {
				t.Errorf("PeerFrom = %v, value %v, want those of the connection", PeerFrom(ctx), ctx.Value(userKey{}))
			}
			if err := ctx.Err(); err != nil {
				t.Errorf("Err = %v at the start, want nil", err)
			}
			child, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			<-child.Done()
			if took := time.Since(start); took != time.Second || !errors.Is(child.Err(), context.DeadlineExceeded) || !errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				t.Errorf("a child ended after %v with %v, cause %v, want the limit", took, child.Err(), context.Cause(ctx))
			}
		})
		time.Sleep(time.Minute)
		if err := (<-kept).Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Err = %v after the end, want deadline exceeded", err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // kept, and asked for the first time after the end
		kept := make(chan context.Context, 1)
		run(t, time.Second, func(ctx context.Context) { kept <- ctx })
		ctx := <-kept
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("Err = %v after the task has ended, want canceled", ctx.Err())
		}
	})
	synctest.Test(t, func(t *testing.T) { // the connection ends first
		ended := make(chan error, 1)
		e := run(t, time.Minute, func(ctx context.Context) { <-ctx.Done(); ended <- ctx.Err() })
		if err := e.Local().Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Err = %v when the connection has ended, want canceled", err)
		}
	})
	synctest.Test(t, func(t *testing.T) { // a parent that ends earlier
		at := time.Now().Add(time.Second)
		parent, cancel := context.WithDeadline(context.Background(), at)
		defer cancel()
		c := &taskContext{parent: parent, deadline: at.Add(time.Second)}
		if d, ok := c.Deadline(); !ok || !d.Equal(at) {
			t.Errorf("Deadline = %v, %v, want that of the parent", d, ok)
		}
	})
}

// TestTaskCallsBack: a call of a task under its context ends with it.
func TestTaskCallsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{TaskTimeout: time.Second, CallTimeout: -1})
		inner := make(chan error, 1)
		err := e.AddTask("outer", func(ctx context.Context) error {
			err := PeerFrom(ctx).RunTask(ctx, "inner", nil)
			inner <- err
			return err
		})
		if err == nil {
			err = e.AddTask("inner", func(context.Context) { time.Sleep(time.Minute) }, TaskLimit(-1))
		}
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := e.Local().RunTask(context.Background(), "outer", nil); CodeOf(err) != DeadlineExceeded {
			t.Errorf("outer = %v, want deadline_exceeded", err)
		}
		if err := <-inner; CodeOf(err) != DeadlineExceeded || time.Since(start) != time.Second {
			t.Errorf("inner = %v after %v, want deadline_exceeded after a second", err, time.Since(start))
		}
		time.Sleep(time.Minute)
	})
}

// TestTaskLimitAllocates keeps the cost of the limit small for a task that ends in
// time and does not look at its context.
func TestTaskLimitAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	e := newEndpoint(t, Config{})
	for name, limit := range map[string]time.Duration{"limited": time.Minute, "free": -1} {
		if err := e.AddTask(name, func(ctx context.Context) bool { return PeerFrom(ctx) != nil }, TaskLimit(limit)); err != nil {
			t.Fatal(err)
		}
	}
	allocs := func(name string) float64 {
		return testing.AllocsPerRun(500, func() {
			if err := e.Local().RunTask(t.Context(), name, nil); err != nil {
				t.Fatal(err)
			}
		})
	}
	if limited, free := allocs("limited"), allocs("free"); limited > free+4 {
		t.Errorf("a task with a limit makes %v allocations, one without %v, want at most 4 more", limited, free)
	}
}

func BenchmarkTask(b *testing.B) {
	e := newEndpoint(b, Config{})
	for name, limit := range map[string]time.Duration{"limited": time.Minute, "free": -1} {
		if err := e.AddTask(name, func(_ context.Context, n int) int { return n }, TaskLimit(limit)); err != nil {
			b.Fatal(err)
		}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			p, ctx := e.Local(), context.Background()
			for b.Loop() {
				if err := p.RunTask(ctx, name, nil, 1); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
