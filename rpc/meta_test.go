package rpc

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// waiter is a service whose handlers wait for the end of their context.
type waiter struct{ ended chan error }

func (w *waiter) Wait(ctx context.Context) error {
	<-ctx.Done()
	w.ended <- context.Cause(ctx)
	return ctx.Err()
}

func (w *waiter) Left(ctx context.Context) (float64, error) {
	at, ok := ctx.Deadline()
	if !ok {
		return -1, nil
	}
	return float64(time.Until(at).Milliseconds()), nil
}

func (w *waiter) Headers(ctx context.Context, answer string) (Header, error) {
	if answer != "" {
		if err := SetHeader(ctx, "X-Answer", answer); err != nil {
			return nil, err
		}
	}
	return HeaderFrom(ctx), nil
}

// pair returns two endpoints and the stub of a service of the second.
func pair(t *testing.T, service any) (near, far *Peer, stub *Stub) {
	t.Helper()
	a, b := newEndpoint(t, Config{ID: "a"}), newEndpoint(t, Config{ID: "b"})
	if err := b.Expose("s", service); err != nil {
		t.Fatal(err)
	}
	near, far = join(a, b)
	t.Cleanup(func() { _ = near.Close() })
	stub, err := near.Service(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	return near, far, stub
}

func join(a, b *Endpoint) (near, far *Peer) {
	near, far = a.NewPeer(true), b.NewPeer(false)
	nearConn, farConn := newConn(a, near), newConn(b, far)
	nearSession, farSession := mux.Pipe(nearConn.config(mux.Hint{}), farConn.config(mux.Hint{}))
	nearConn.attach(nearSession)
	farConn.attach(farSession)
	return near, far
}

// TestCancelReachesHandler checks that a handler learns that its caller has given up,
// in whatever way.
func TestCancelReachesHandler(t *testing.T) {
	for name, call := range map[string]func(ctx context.Context, s *Stub) error{
		"call":   func(ctx context.Context, s *Stub) error { return s.Call(ctx, "wait", nil) },
		"future": func(ctx context.Context, s *Stub) error { return s.Go(ctx, "wait", nil).Wait(context.Background()) },
		"callback": func(ctx context.Context, s *Stub) error {
			done := make(chan error, 1)
			if err := s.CallFunc(ctx, "wait", func(_ context.Context, _ *Reply, err error) { done <- err }); err != nil {
				return err
			}
			return <-done
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &waiter{ended: make(chan error, 1)}
				_, far, stub := pair(t, w)
				ctx, cancel := context.WithCancel(t.Context())
				go func() {
					time.Sleep(time.Second)
					cancel()
				}()
				start := time.Now()
				if err := call(ctx, stub); CodeOf(err) != Canceled {
					t.Errorf("canceled call = %v, want canceled", err)
				}
				if err := <-w.ended; !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
					t.Errorf("the handler ended with %v after %v, want canceled after 1s", err, time.Since(start))
				}
				synctest.Wait()
				c := far.conn.Load()
				if len(c.running) != 0 || len(c.marked) != 0 {
					t.Errorf("%d running and %d marked requests left", len(c.running), len(c.marked))
				}
			})
		})
	}
}

// TestTimeoutReachesHandler checks that the default time limit of a call ends its
// handler too.
func TestTimeoutReachesHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiter{ended: make(chan error, 1)}
		_, _, stub := pair(t, w)
		start := time.Now()
		if err := stub.Call(t.Context(), "wait", nil); CodeOf(err) != DeadlineExceeded {
			t.Errorf("call = %v, want deadline_exceeded", err)
		}
		<-w.ended
		if took := time.Since(start).Round(10 * time.Millisecond); took != defaultCallTimeout {
			t.Errorf("the handler ended after %v, want %v", took, defaultCallTimeout)
		}
	})
}

// TestDeadlineTravels checks that the handler has the deadline of its caller, and ends
// by itself.
func TestDeadlineTravels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &waiter{ended: make(chan error, 1)}
		near, far, stub := pair(t, w)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		var left float64
		if err := stub.Call(ctx, "left", &left); err != nil || left != 1500 {
			t.Errorf("time left = %v ms, %v, want 1500", left, err)
		}
		if err := stub.Call(t.Context(), "left", &left); err != nil || left != -1 {
			t.Errorf("time left = %v ms, %v without a deadline, want none", left, err)
		}
		near.conn.Load().session.Peer() // the caller never cancels here:
		call := near.link().NewCall()
		call.B = codec.AppendString(codec.AppendString(codec.AppendArrayHeader(call.B, 2), stub.definition.ID), "wait")
		call.Meta = true
		call.B = codec.AppendInt(codec.AppendString(append(call.B, 0x81), "d"), 200)
		start := time.Now()
		reply, err := call.Do(t.Context(), wire.TypeCall, 0)
		if err != nil || !reply.IsError || decodeError(reply.Payload, codec.Limits{}).Code != DeadlineExceeded {
			t.Errorf("answer of the handler %v, %v, want deadline_exceeded", reply, err)
		}
		call.Release()
		if cause := <-w.ended; !errors.Is(cause, context.DeadlineExceeded) || time.Since(start) != 200*time.Millisecond {
			t.Errorf("the handler ended with %v after %v, want deadline exceeded after 200ms", cause, time.Since(start))
		}
		if c := far.conn.Load(); len(c.running) != 0 {
			t.Errorf("%d running requests left", len(c.running))
		}
	})
}

// TestHeaders checks headers in both directions.
func TestHeaders(t *testing.T) {
	_, _, stub := pair(t, &waiter{})
	ctx := WithHeader(WithHeader(t.Context(), "X-One", "1"), TraceParent, "00-ab-cd-01")
	var got, answer Header
	if err := stub.Call(WithAnswerHeader(ctx, &answer), "headers", &got, "yes"); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got.Get("x-ONE") != "1" || got[TraceParent] != "00-ab-cd-01" {
		t.Errorf("headers of the request %v", got)
	}
	if len(answer) != 1 || answer.Get("X-Answer") != "yes" {
		t.Errorf("headers of the answer %v", answer)
	}
	// Those who did not ask for headers of the answer are not disturbed by them.
	for i, do := range []func() error{
		func() error { return stub.Call(t.Context(), "headers", &got, "yes") },
		func() error { return stub.Go(t.Context(), "headers", &got, "yes").Wait(t.Context()) },
		func() error {
			_, err := Method[struct{ A string }, Header](stub, "headers")(t.Context(), struct{ A string }{"yes"})
			return err
		},
		func() error {
			done := make(chan error, 1)
			err := MethodFunc[struct{ A string }, Header](stub, "headers")(t.Context(), struct{ A string }{"yes"}, func(_ context.Context, _ Header, err error) { done <- err })
			return errors.Join(err, <-done)
		},
	} {
		if err := do(); err != nil {
			t.Errorf("call %d with headers in its answer: %v", i, err)
		}
	}
	if err := stub.Call(t.Context(), "headers", &got, ""); err != nil || len(got) != 0 {
		t.Errorf("headers %v, %v of a request without", got, err)
	}
	many := Header{}
	for i := range maxHeaders + 1 {
		many[strings.Repeat("x", i+1)] = ""
	}
	for name, ctx := range map[string]context.Context{
		"large": WithHeader(t.Context(), "x", strings.Repeat("y", maxHeaderBytes)),
		"many":  context.WithValue(t.Context(), outgoingKey{}, many),
	} {
		if err := stub.Call(ctx, "headers", &got, ""); CodeOf(err) != ResourceExhausted {
			t.Errorf("%s headers = %v, want resource_exhausted", name, err)
		}
	}
	if err := stub.Call(t.Context(), "headers", &got, strings.Repeat("y", maxHeaderBytes)); CodeOf(err) != ResourceExhausted {
		t.Errorf("large header of an answer = %v, want resource_exhausted", err)
	}
	if err := SetHeader(t.Context(), "a", "b"); CodeOf(err) != FailedPrecondition {
		t.Errorf("SetHeader without a request = %v, want failed_precondition", err)
	}
}

// TestMalformedMeta checks that a second value that is none is an error of its request
// alone.
func TestMalformedMeta(t *testing.T) {
	near, _, stub := pair(t, &waiter{})
	send := func(meta ...byte) Code {
		call := near.link().NewCall()
		defer call.Release()
		call.B = codec.AppendString(codec.AppendString(codec.AppendArrayHeader(call.B, 2), stub.definition.ID), "left")
		call.B = append(call.B, meta...)
		call.Meta = true
		reply, err := call.Do(t.Context(), wire.TypeCall, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if !reply.IsError {
			return 0
		}
		return decodeError(reply.Payload, codec.Limits{}).Code
	}
	d := func(v any) []byte {
		b, err := codec.Append(nil, map[string]any{"d": v})
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	huge, err := codec.Append(nil, map[string]any{"h": map[string]string{"a": strings.Repeat("x", 2*maxHeaderBytes)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		meta []byte
		want Code
	}{
		{"nothing", nil, InvalidArgument},
		{"an array", []byte{0x90}, InvalidArgument},
		{"half a map", []byte{0x81, 0xa1}, InvalidArgument},
		{"two values", []byte{0x80, 0x80}, InvalidArgument},
		{"headers that are none", []byte{0x81, 0xa1, 'h', 0x01}, InvalidArgument},
		{"too large headers", huge, ResourceExhausted},
		{"no time left", d(0), DeadlineExceeded},
		{"less than no time", d(-5), DeadlineExceeded},
		{"text for the time", d("soon"), InvalidArgument},
		{"all the time there is", d(1e300), 0},
		{"unknown members", []byte{0x81, 0xa1, 'z', 0x01}, 0},
		{"an empty map", []byte{0x80}, 0},
	} {
		if got := send(tc.meta...); got != tc.want {
			t.Errorf("%s: code %v, want %v", tc.name, got, tc.want)
		}
	}
	if err := stub.Call(t.Context(), "left", nil); err != nil {
		t.Errorf("a call after all that: %v", err)
	}
}

// TestCancelMarks checks that requests which are given up at odd times leave nothing
// behind.
func TestCancelMarks(t *testing.T) {
	e := newEndpoint(t, Config{})
	p := e.Local()
	c := e.served.conn.Load()
	for id := range uint32(3 * maxMarks) {
		c.cancel(1<<20 + id) // never heard of
	}
	if n := len(c.marked); n > maxMarks {
		t.Errorf("%d marks, limit %d", n, maxMarks)
	}
	if err := p.RunTask(t.Context(), taskAbilities, nil); err != nil {
		t.Errorf("a call among marks: %v", err)
	}
	// One that was given up before its turn does not run.
	ran := false
	if err := e.AddTask("t", func(context.Context) { ran = true }); err != nil {
		t.Fatal(err)
	}
	call := p.link().NewCall()
	call.B = codec.AppendString(codec.AppendArrayHeader(call.B, 1), "t")
	for id := range uint32(100) {
		c.cancel(id)
	}
	reply, err := call.Do(t.Context(), wire.TypeTask, time.Second)
	if err != nil || !reply.IsError || decodeError(reply.Payload, codec.Limits{}).Code != Canceled || ran {
		t.Errorf("request given up before its turn: %v, %v, ran %t", reply, err, ran)
	}
	call.Release()
}

// TestContextEndsWithHandler checks that what a handler leaves behind is told.
func TestContextEndsWithHandler(t *testing.T) {
	e := newEndpoint(t, Config{})
	kept := make(chan context.Context, 1)
	err := e.AddTask("keep", func(ctx context.Context, look bool) error {
		if look {
			_ = ctx.Done()
		}
		kept <- ctx
		return ctx.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, look := range []bool{false, true} {
		if err := e.Local().RunTask(t.Context(), "keep", nil, look); err != nil {
			t.Fatal(err)
		}
		ctx := <-kept
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.Canceled) || PeerFrom(ctx) == nil {
			t.Errorf("context after the handler: %v, peer %v", ctx.Err(), PeerFrom(ctx))
		}
	}
}

// TestMarksFade checks that a connection forgets requests which were given up too late.
func TestMarksFade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{})
		p := e.Local()
		c := e.served.conn.Load()
		c.cancel(1 << 20)
		time.Sleep(markLife + time.Second)
		if err := p.RunTask(t.Context(), taskAbilities, nil); err != nil {
			t.Fatal(err)
		}
		if n := c.marks.Load(); n != 0 {
			t.Errorf("%d marks after %v, want none", n, markLife)
		}
	})
}
