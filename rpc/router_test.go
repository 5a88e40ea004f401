package rpc

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"

	"github.com/d-e-v-grid/netron/mux"
)

// turns is a [Router] that takes its stubs in turn, and counts.
type turns struct {
	stubs []*Stub
	next  atomic.Int64
	open  atomic.Int64 // picks without their Done
	fails atomic.Int64
}

func (r *turns) Pick(context.Context, string) (Pick, error) {
	r.open.Add(1)
	return Pick{Stub: r.stubs[r.next.Add(1)%int64(len(r.stubs))]}, nil
}

func (r *turns) Done(_ context.Context, _ Pick, err error) bool {
	r.open.Add(-1)
	if err != nil {
		r.fails.Add(1)
	}
	return Unserved(err)
}

func (r *turns) Next(ctx context.Context, _ Pick, _ error) (Pick, error) { return r.Pick(ctx, "") }

type multiplier struct{ by int }

func (n multiplier) Times(_ context.Context, v int) (int, error)     { return n.by * v, nil }
func (n multiplier) Sum(_ context.Context, a, b, c int) (int, error) { return n.by * (a + b + c), nil }

func (n multiplier) Count(ctx context.Context, upTo int) <-chan int {
	c := make(chan int)
	go func() {
		defer close(c)
		for i := range upTo {
			select {
			case c <- i:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c
}

// lesser has less than multiplier.
type lesser struct{ by int }

func (n lesser) Times(_ context.Context, v int) (int, error) { return n.by * v, nil }

func newRouted(t testing.TB) (*Stub, *turns) {
	t.Helper()
	e := newEndpoint(t, Config{})
	r := &turns{}
	for _, of := range []struct {
		name  string
		value any
	}{{"one", multiplier{1}}, {"ten", multiplier{10}}, {"less", lesser{100}}} {
		if err := e.Expose(of.name, of.value); err != nil {
			t.Fatal(err)
		}
		stub, err := e.Local().Service(t.Context(), of.name)
		if err != nil {
			t.Fatal(err)
		}
		r.stubs = append(r.stubs, stub)
	}
	return NewRouted(r.stubs[0], r), r
}

// TestRouted makes calls of all kinds, each of which goes to the next service. The third one
// lacks methods, and the next one is asked.
func TestRouted(t *testing.T) {
	stub, r := newRouted(t)
	ctx := t.Context()
	client, err := Bind[struct {
		Times func(ctx context.Context, v int) (int, error)
		Sum   func(ctx context.Context, a, b, c int) (int, error)
		Count func(ctx context.Context, upTo int) iter.Seq2[int, error]
	}](stub)
	if err != nil {
		t.Fatal(err)
	}
	typed, typedFunc := Method[struct{ V int }, int](stub, "times"), MethodFunc[struct{ V int }, int](stub, "times")
	outcome := make(chan error, 1)
	for name, call := range map[string]func() (int, error){
		"func":    func() (int, error) { return client.Times(ctx, 2) },
		"reflect": func() (int, error) { return client.Sum(ctx, 1, 1, 0) },
		"Call": func() (v int, err error) {
			err = stub.Call(ctx, "times", &v, 2)
			return v, err
		},
		"Method": func() (int, error) { return typed(ctx, struct{ V int }{2}) },
		"MethodFunc": func() (v int, _ error) {
			if err := typedFunc(ctx, struct{ V int }{2}, func(_ context.Context, result int, err error) {
				v = result
				outcome <- err
			}); err != nil {
				return 0, err
			}
			return v, <-outcome
		},
		"CallFunc": func() (v int, _ error) {
			if err := stub.CallFunc(ctx, "times", func(_ context.Context, r *Reply, err error) {
				if err == nil {
					err = r.Decode(&v)
				}
				outcome <- err
			}, 2); err != nil {
				return 0, err
			}
			return v, <-outcome
		},
		"Go": func() (v int, err error) {
			err = stub.Go(ctx, "times", &v, 2).Wait(ctx)
			return v, err
		},
		"stream": func() (int, error) {
			sum := 0
			for v, err := range client.Count(ctx, 3) {
				if err != nil {
					return 0, err
				}
				if open := r.open.Load(); open != 1 {
					t.Errorf("%d picks are open during a stream, want 1", open)
				}
				sum += v
			}
			return sum - 1, nil
		},
	} {
		r.next.Store(2)
		var got [3]int
		for i := range got {
			var err error
			if got[i], err = call(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		want := [3]int{2, 20, 200}
		switch name {
		case "reflect":
			want[2] = 2
		case "stream":
			want = [3]int{2, 2, 2}
		}
		if got != want {
			t.Errorf("%s = %v, want %v", name, got, want)
		}
		if open := r.open.Load(); open != 0 {
			t.Errorf("%s: %d picks have no end", name, open)
		}
	}
}

// TestRoutedAllocates checks that a router costs ordinary calls no memory.
func TestRoutedAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	stub, _ := newRouted(t)
	ctx := context.Background()
	client, err := Bind[struct {
		Times func(ctx context.Context, v int) (int, error)
	}](stub)
	if err != nil {
		t.Fatal(err)
	}
	call := func() {
		if _, err := client.Times(ctx, 2); err != nil {
			t.Error(err)
		}
	}
	call()
	if n := testing.AllocsPerRun(1000, call); n >= 1 {
		t.Errorf("%v allocations per call, want 0", n)
	}
}

func TestUnserved(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		want bool
	}{
		{"success", nil, false},
		{"lost before", callError(&mux.LostError{}), true},
		{"lost after", callError(&mux.LostError{Sent: true}), false},
		{"after one that was lost", &Error{Code: Unavailable, sent: maybeSent, cause: &mux.LostError{}}, false},
		{"refused", &Error{Code: Unavailable, remote: true, Fields: map[string]any{fieldUnserved: true}}, true},
		{"overloaded", &Error{Code: ResourceExhausted, remote: true, Fields: map[string]any{fieldUnserved: true}}, true},
		{"said so by a service of this side", errDraining(), false},
		{"of a service", &Error{Code: Unavailable, remote: true}, false},
		{"too many calls", callError(mux.ErrTooManyCalls), true},
		{"must not wait", callError(mux.ErrWouldBlock), false},
		{"timeout", callError(mux.ErrTimeout), false},
	} {
		if got := Unserved(tc.err); got != tc.want {
			t.Errorf("Unserved(%s) = %t, want %t", tc.name, got, tc.want)
		}
	}
}
