package rpc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

// tracer is middleware that writes down its name and what passes.
func tracer(mu *sync.Mutex, log *[]string, name string) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) {
			mu.Lock()
			*log = append(*log, name+" "+r.Op().String()+" "+r.Service()+" "+r.Member())
			mu.Unlock()
			return next(ctx, r)
		}
	}
}

// TestMiddlewareOrder checks who sees what, and in which order, on both sides.
func TestMiddlewareOrder(t *testing.T) {
	e := newEndpoint(t, Config{})
	var mu sync.Mutex
	var log []string
	trace := func(name string) Middleware { return tracer(&mu, &log, name) }
	err := e.Expose("s@1.0.0", &holder{}, Use(trace("service")), UseOn("Add", trace("method")), UseOn("Count", trace("property")))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.AddTask("job", func(_ context.Context, n int) int { return n }); err != nil {
		t.Fatal(err)
	}
	stub, err := e.Local().Service(t.Context(), "s@1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	e.Use(trace("node"), trace("second"))
	e.UseOutgoing(trace("out"))
	e.Local().Use(trace("peer"))

	for _, tc := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"call", func() error { return stub.Call(t.Context(), "add", nil, 1, 2) }, []string{"out call s@1.0.0 add", "peer call s@1.0.0 add", "node call s@1.0.0 add", "second call s@1.0.0 add", "service call s@1.0.0 add", "method call s@1.0.0 add"}},
		{"get", func() error { return stub.Get(t.Context(), "count", nil) }, []string{"out get s@1.0.0 count", "peer get s@1.0.0 count", "node get s@1.0.0 count", "second get s@1.0.0 count", "service get s@1.0.0 count", "property get s@1.0.0 count"}},
		{"set", func() error { return stub.Set(t.Context(), "count", 3) }, []string{"out set s@1.0.0 count", "peer set s@1.0.0 count", "node set s@1.0.0 count", "second set s@1.0.0 count", "service set s@1.0.0 count", "property set s@1.0.0 count"}},
		{"task", func() error { return e.Local().RunTask(t.Context(), "job", nil, 1) }, []string{"out task  job", "peer task  job", "node task  job", "second task  job"}},
		{"future", func() error { return stub.Go(t.Context(), "add", nil, 1, 2).Wait(t.Context()) }, []string{"out call s@1.0.0 add", "peer call s@1.0.0 add", "node call s@1.0.0 add", "second call s@1.0.0 add", "service call s@1.0.0 add", "method call s@1.0.0 add"}},
		{"typed", func() error {
			_, err := Method[struct{ A, B float64 }, float64](stub, "add")(t.Context(), struct{ A, B float64 }{1, 2})
			return err
		}, []string{"out call s@1.0.0 add", "peer call s@1.0.0 add", "node call s@1.0.0 add", "second call s@1.0.0 add", "service call s@1.0.0 add", "method call s@1.0.0 add"}},
		{"callback", func() error {
			done := make(chan error, 1)
			err := MethodFunc[struct{ A, B float64 }, float64](stub, "add")(t.Context(), struct{ A, B float64 }{1, 2}, func(_ context.Context, sum float64, err error) {
				if sum != 3 {
					err = errors.Join(err, Errorf(Internal, "sum %v", sum))
				}
				done <- err
			})
			if err != nil {
				return err
			}
			return <-done
		}, []string{"out call s@1.0.0 add", "peer call s@1.0.0 add", "node call s@1.0.0 add", "second call s@1.0.0 add", "service call s@1.0.0 add", "method call s@1.0.0 add"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			log = nil
			if err := tc.do(); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, log); diff != "" {
				t.Errorf("middleware ran differently (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMiddlewareDecides checks what middleware may do besides calling next.
func TestMiddlewareDecides(t *testing.T) {
	e, stub := newSample(t)
	var times atomic.Int32
	e.Use(func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) {
			if r.Op() == OpTask {
				return next(ctx, r)
			}
			var a, b float64
			if err := r.Decode(&a, &b); err != nil {
				return nil, err
			}
			switch a {
			case 1:
				return nil, Errorf(PermissionDenied, "not for you")
			case 2:
				return codec.Append(nil, 42)
			case 3:
				return nil, nil // no result
			case 4:
				return codec.Raw{0x93, 1}, nil // half a value
			case 5:
				panic("in a middleware")
			case 6:
				raw, err := next(ctx, r)
				if err != nil {
					return nil, err
				}
				var sum float64
				if err := raw.Unmarshal(&sum); err != nil {
					return nil, err
				}
				return codec.Append(nil, sum+1000)
			}
			return next(WithUser(ctx, "anna"), r)
		}
	})
	call := func(a, b any) (any, error) {
		var sum any
		err := stub.Call(t.Context(), "add", &sum, a, b)
		return sum, err
	}
	for _, tc := range []struct {
		a    any
		want any
		code Code
	}{
		{1, nil, PermissionDenied},
		{2, int64(42), 0},
		{3, nil, 0},
		{4, nil, Internal},
		{5, nil, Internal},
		{6, int64(1009), 0},
		{7, int64(10), 0},
		{"x", nil, InvalidArgument},
	} {
		got, err := call(tc.a, 3)
		if CodeOf(err) != tc.code || got != tc.want {
			t.Errorf("add(%v, 3) = %v, %v, want %v and code %v", tc.a, got, err, tc.want, tc.code)
		}
	}

	// A client may try again.
	e.UseOutgoing(func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) {
			for {
				times.Add(1)
				if raw, err := next(ctx, r); err != nil || times.Load() == 3 {
					return raw, err
				}
			}
		}
	})
	if got, err := call(7, 3); got != int64(10) || err != nil || times.Load() != 3 {
		t.Errorf("add(7, 3) = %v, %v after %d times, want 10 after 3", got, err, times.Load())
	}
}

// TestUserFrom checks where the user of a request comes from.
func TestUserFrom(t *testing.T) {
	e := newEndpoint(t, Config{})
	if err := e.AddTask("who", func(ctx context.Context) any { return UserFrom(ctx) }); err != nil {
		t.Fatal(err)
	}
	who := func() (user any) {
		if err := e.Local().RunTask(t.Context(), "who", &user); err != nil {
			t.Fatal(err)
		}
		return user
	}
	if got := who(); got != nil {
		t.Errorf("user %v before anybody said, want nil", got)
	}
	e.served.SetUser("bob")
	if got := who(); got != "bob" {
		t.Errorf("user %v, want that of the peer", got)
	}
	e.Use(func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) { return next(WithUser(ctx, "anna"), r) }
	})
	if got := who(); got != "anna" {
		t.Errorf("user %v, want that of the middleware", got)
	}
}

// TestMiddlewareMistakes checks what is refused while a service is built.
func TestMiddlewareMistakes(t *testing.T) {
	pass := func(next Handler) Handler { return next }
	e := newEndpoint(t, Config{})
	if err := e.Expose("a", &sample{}, UseOn("Nobody", pass)); err == nil || !strings.Contains(err.Error(), "UseOn for Nobody") {
		t.Errorf("UseOn for a member that is not there = %v", err)
	}
	s := NewService("b", "")
	Handle(s, "add", func(context.Context, *struct{}) (int, error) { return 1, nil })
	s.UseOn("nobody", pass)
	if err := e.ExposeService(s); CodeOf(err) != NotFound {
		t.Errorf("UseOn for a member that is not there = %v, want not_found", err)
	}
	if got := slices.Collect(slices.Values(e.Services())); len(got) != 0 {
		t.Errorf("services %v after mistakes, want none", got)
	}
}
