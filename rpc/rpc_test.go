package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// newEndpoint returns an endpoint that ends with the test.
func newEndpoint(t testing.TB, cfg Config) *Endpoint {
	t.Helper()
	if cfg.ID == "" {
		cfg.ID = "node"
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	e, err := NewEndpoint(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

type point struct {
	X, Y float64
	Tags []string `msgpack:"tags,omitempty"`
}

// sample has every shape of method.
type sample struct{}

func (s *sample) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }
func (s *sample) Count(_ context.Context, n int) int                   { return n + 1 }
func (s *sample) Nothing(context.Context)                              {}
func (s *sample) Check(_ context.Context, ok bool) error {
	if !ok {
		return errors.New("Division by zero")
	}
	return nil
}

func (s *sample) Move(_ context.Context, p point, dx *float64) (*point, error) {
	if dx != nil {
		p.X += *dx
	}
	return &p, nil
}

func (s *sample) Join(_ context.Context, sep string, parts ...string) (string, error) {
	return strings.Join(parts, sep), nil
}

func (s *sample) Page(_ context.Context, from, size int) ([]int, error) {
	return []int{from, size}, nil
}

func (s *sample) Echo(_ context.Context, v any) (any, error) { return v, nil }

func (s *sample) Fail(_ context.Context, kind string) error {
	switch kind {
	case "code":
		return &Error{Code: FailedPrecondition, Message: "not now", Details: map[string]any{"in": "5s"}}
	case "own":
		return &Error{Message: "custom failure", Name: "TypeError", Fields: map[string]any{"code": "E_X", "details": []any{int64(1)}}}
	case "wrapped":
		return fmt.Errorf("loading: %w", Errorf(NotFound, "no user %d", 7))
	case "context":
		return context.DeadlineExceeded
	case "unencodable":
		return &Error{Code: Aborted, Message: "odd", Details: make(chan int)}
	case "panic":
		panic("secret text")
	case "nil":
		var e *nilError
		return e // not nil, and its method panics
	case "exit":
		runtime.Goexit()
	case "big":
		return Errorf(Aborted, "%s", strings.Repeat("x", 20_000))
	}
	return nil
}

type nilError struct{ text string }

func (e *nilError) Error() string { return e.text }

func (s *sample) Bad(context.Context) (any, error)             { return make(chan int), nil }
func (s *sample) Big(_ context.Context, n int) ([]byte, error) { return make([]byte, n), nil }
func (s *sample) Slow(ctx context.Context, ms int) (bool, error) {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}
func (s *sample) NotForPeers(int) int { return 0 }
func (s *sample) hidden()             {} //nolint:unused // that it is not exposed is the point

func newSample(t testing.TB) (*Endpoint, *Stub) {
	t.Helper()
	e := newEndpoint(t, Config{})
	if err := e.Expose("sample@1.0.0", &sample{}, Optional("Page", 1)); err != nil {
		t.Fatal(err)
	}
	stub, err := e.Local().Service(t.Context(), "sample")
	if err != nil {
		t.Fatal(err)
	}
	return e, stub
}

func TestStubCall(t *testing.T) {
	_, stub := newSample(t)
	dx := 0.5
	tests := []struct {
		method string
		args   []any
		want   any
	}{
		{"add", []any{2, 3.5}, 5.5},
		{"add", []any{2.0, 3.0}, int64(5)}, // a whole number has one form
		{"count", []any{4.0}, int64(5)},
		{"nothing", nil, nil},
		{"nothing", []any{1, "extra arguments are ignored"}, nil},
		{"check", []any{true}, nil},
		{"move", []any{point{X: 1, Y: 2}}, map[string]any{"x": int64(1), "y": int64(2)}},
		{"move", []any{map[string]any{"x": 1, "y": 2, "z": 3}, dx}, map[string]any{"x": 1.5, "y": int64(2)}},
		{"move", []any{point{Tags: []string{"a"}}, nil}, map[string]any{"x": int64(0), "y": int64(0), "tags": []any{"a"}}},
		{"move", []any{point{}, codec.Undefined{}}, map[string]any{"x": int64(0), "y": int64(0)}},
		{"join", []any{"-"}, ""},
		{"join", []any{"-", "a", "b", "c"}, "a-b-c"},
		{"page", []any{1}, []any{int64(1), int64(0)}},
		{"page", []any{1, 2}, []any{int64(1), int64(2)}},
		{"page", []any{1, codec.Undefined{}}, []any{int64(1), int64(0)}},
		{"echo", []any{map[string]any{"list": []any{nil, true, "x"}}}, map[string]any{"list": []any{nil, true, "x"}}},
		{"echo", []any{big.NewInt(5)}, big.NewInt(5)},
		{"echo", []any{[]byte{1, 2}}, []byte{1, 2}},
	}
	for _, tt := range tests {
		var got any
		err := stub.Call(t.Context(), tt.method, &got, tt.args...)
		if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 })); err != nil || diff != "" {
			t.Errorf("Call(%s, %v) = %v, %v; diff (-want +got):\n%s", tt.method, tt.args, got, err, diff)
		}
	}
}

func TestStubCallErrors(t *testing.T) {
	_, stub := newSample(t)
	tests := []struct {
		method string
		args   []any
		want   Error
	}{
		{"check", []any{false}, Error{Code: Unknown, Message: "Division by zero"}},
		{"fail", []any{"code"}, Error{Code: FailedPrecondition, Message: "not now", Details: map[string]any{"in": "5s"}}},
		{"fail", []any{"own"}, Error{Code: Unknown, Message: "custom failure", Name: "TypeError", Details: []any{int64(1)}, Fields: map[string]any{"code": "E_X"}}},
		{"fail", []any{"wrapped"}, Error{Code: NotFound, Message: "no user 7"}},
		{"fail", []any{"context"}, Error{Code: DeadlineExceeded, Message: "deadline exceeded"}},
		{"fail", []any{"unencodable"}, Error{Code: Aborted, Message: "odd"}},
		{"fail", []any{"panic"}, Error{Code: Internal, Message: "internal error"}},
		{"fail", []any{"nil"}, Error{Code: Internal, Message: "internal error"}},
		{"fail", []any{"exit"}, Error{Code: Internal, Message: "internal error"}},
		{"bad", nil, Error{Code: Internal, Message: "result of bad: codec: unsupported type chan int"}},
		{"gone", nil, Error{Code: NotFound, Message: "Method 'sample.gone' not found"}},
		{"notForPeers", []any{1}, Error{Code: NotFound, Message: "Method 'sample.notForPeers' not found"}},
		{"hidden", nil, Error{Code: NotFound, Message: "Method 'sample.hidden' not found"}},
		{"add", []any{1}, Error{Code: InvalidArgument, Message: "missing argument 2 of add"}},
		{"add", []any{1, codec.Undefined{}}, Error{Code: InvalidArgument, Message: "missing argument 2 of add"}},
		{"add", []any{1, make(chan<- int)}, Error{Code: InvalidArgument, Message: "argument 2 of add: codec: unsupported type chan<- int"}},
	}
	for _, tt := range tests {
		err := stub.Call(t.Context(), tt.method, nil, tt.args...)
		got, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("Call(%s, %v) = %v, want an *Error", tt.method, tt.args, err)
			continue
		}
		if got.Code != tt.want.Code || got.Message != tt.want.Message || got.Name != tt.want.Name || !cmp.Equal(got.Details, tt.want.Details) || !cmp.Equal(got.Fields, tt.want.Fields) {
			t.Errorf("Call(%s, %v) = %#v, want %#v", tt.method, tt.args, got, tt.want)
		}
	}
	for _, tt := range []struct {
		method string
		args   []any
		text   string
	}{
		{"add", []any{1, "x"}, "argument 2 of add: "},
		{"add", []any{1, nil}, "argument 2 of add: "},
		{"count", []any{1.5}, "argument 1 of count: "},
		{"count", []any{1e300}, "argument 1 of count: "},
		{"join", []any{"-", 1}, "arguments of join from 2 on: "},
		{"check", []any{1}, "argument 1 of check: "},
	} {
		err := stub.Call(t.Context(), tt.method, nil, tt.args...)
		if CodeOf(err) != InvalidArgument || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("Call(%s, %v) = %v, want invalid_argument with %q", tt.method, tt.args, err, tt.text)
		}
	}
	var text string
	if err := stub.Call(t.Context(), "add", &text, 1, 2); CodeOf(err) != Internal {
		t.Errorf("Call with a result that does not fit = %v, want internal", err)
	}
}

func TestContextErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{CallTimeout: 2 * time.Second})
		if err := e.Expose("sample", &sample{}); err != nil {
			t.Fatal(err)
		}
		stub, err := e.Local().Service(t.Context(), "sample")
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		err = stub.Call(context.Background(), "slow", nil, 10_000)
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 2*time.Second {
			t.Errorf("Call = %v after %v, want the default limit after 2s", err, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := stub.Call(ctx, "slow", nil, 10_000); err != nil {
			t.Errorf("Call with a longer deadline = %v, want nil", err)
		}
		short, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := stub.Call(short, "slow", nil, 5_000); CodeOf(err) != DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Call with a short deadline = %v, want deadline_exceeded", err)
		}
		gone, cancel := context.WithCancel(context.Background())
		time.AfterFunc(time.Second, cancel)
		if err := stub.Call(gone, "slow", nil, 5_000); CodeOf(err) != Canceled || !errors.Is(err, context.Canceled) {
			t.Errorf("Call with a canceled ctx = %v, want canceled", err)
		}
		time.Sleep(time.Minute) // the handlers end
	})
}

func TestGoAndCallFunc(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEndpoint(t, Config{})
		if err := e.Expose("sample", &sample{}); err != nil {
			t.Fatal(err)
		}
		stub, err := e.Local().Service(t.Context(), "sample")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		var sum float64
		f := stub.Go(ctx, "add", &sum, 1, 2)
		<-f.Done()
		if err := f.Wait(ctx); err != nil || sum != 3 {
			t.Errorf("Wait = %v, sum %v, want 3", err, sum)
		}
		if err := f.Wait(ctx); err != nil {
			t.Errorf("second Wait = %v, want nil", err)
		}
		if err := stub.Go(ctx, "gone", nil).Wait(ctx); CodeOf(err) != NotFound {
			t.Errorf("Go of a missing method = %v, want not_found", err)
		}
		slow := stub.Go(ctx, "slow", nil, 1000)
		short, stop := context.WithTimeout(t.Context(), time.Millisecond)
		defer stop()
		if err := slow.Wait(short); CodeOf(err) != DeadlineExceeded {
			t.Errorf("Wait with a short ctx = %v, want deadline_exceeded", err)
		}
		var ok bool
		slow.result = &ok
		if err := slow.Wait(t.Context()); err != nil || !ok {
			t.Errorf("Wait = %v, %v, want the result", ok, err)
		}
		abandoned := stub.Go(ctx, "slow", nil, 4000)
		cancel()
		if err := abandoned.Wait(t.Context()); CodeOf(err) != Canceled {
			t.Errorf("Wait of an abandoned call = %v, want canceled", err)
		}

		if n := e.Local().link().Pending(); n != 0 {
			t.Errorf("%d calls pending after one was abandoned, want 0", n)
		}

		results := make(chan any, 10)
		record := func(_ context.Context, r *Reply, err error) {
			var v any
			if err == nil {
				err = r.Decode(&v)
			}
			if err != nil {
				v = CodeOf(err)
			}
			results <- v
		}
		for _, call := range []struct {
			method string
			args   []any
			want   any
		}{{"add", []any{1, 2}, int64(3)}, {"fail", []any{"code"}, FailedPrecondition}, {"slow", []any{60_000}, DeadlineExceeded}} {
			if err := stub.CallFunc(t.Context(), call.method, record, call.args...); err != nil {
				t.Fatal(err)
			}
			if got := <-results; got != call.want {
				t.Errorf("CallFunc(%s) = %v, want %v", call.method, got, call.want)
			}
		}
		if err := stub.CallFunc(t.Context(), "gone", record); CodeOf(err) != NotFound {
			t.Errorf("CallFunc of a missing method = %v, want not_found", err)
		}
		if err := stub.CallFunc(t.Context(), "nothing", func(context.Context, *Reply, error) { panic("callback") }); err != nil {
			t.Fatal(err)
		}
		if err := stub.Call(t.Context(), "nothing", nil); err != nil {
			t.Errorf("Call after a callback that panicked = %v, want nil", err)
		}
		time.Sleep(time.Minute)
		if len(results) != 0 {
			t.Errorf("%d more outcomes, want each once", len(results))
		}
	})
}

type addArgs struct{ A, B float64 }

type pageArgs struct {
	From int
	Size *int
}

func TestHandleAndMethod(t *testing.T) {
	e := newEndpoint(t, Config{})
	svc := NewService("math", "2.1.0")
	Handle(svc, "add", func(_ context.Context, a *addArgs) (float64, error) { return a.A + a.B, nil })
	Handle(svc, "page", func(_ context.Context, a *pageArgs) ([]int, error) {
		size := 10
		if a.Size != nil {
			size = *a.Size
		}
		return []int{a.From, size}, nil
	})
	Handle(svc, "nothing", func(context.Context, *struct{}) (struct{}, error) { return struct{}{}, nil })
	Handle(svc, "fail", func(context.Context, *struct{}) (int, error) { return 0, Errorf(Aborted, "no") })
	if err := e.ExposeService(svc); err != nil {
		t.Fatal(err)
	}
	stub, err := e.Local().Service(t.Context(), "math@2.1.0")
	if err != nil {
		t.Fatal(err)
	}
	add := Method[addArgs, float64](stub, "add")
	if got, err := add(t.Context(), addArgs{1.5, 2}); err != nil || got != 3.5 {
		t.Errorf("add(1.5, 2) = %v, %v, want 3.5", got, err)
	}
	page := Method[pageArgs, []int](stub, "page")
	five := 5
	for _, tt := range []struct {
		args pageArgs
		want []int
	}{{pageArgs{From: 1}, []int{1, 10}}, {pageArgs{1, &five}, []int{1, 5}}} {
		if got, err := page(t.Context(), tt.args); err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("page(%v) = %v, %v, want %v", tt.args, got, err, tt.want)
		}
	}
	if _, err := Method[struct{}, struct{}](stub, "nothing")(t.Context(), struct{}{}); err != nil {
		t.Errorf("nothing() = %v, want nil", err)
	}
	if _, err := Method[struct{}, int](stub, "fail")(t.Context(), struct{}{}); CodeOf(err) != Aborted {
		t.Errorf("fail() = %v, want aborted", err)
	}
	if _, err := Method[struct{}, int](stub, "gone")(t.Context(), struct{}{}); CodeOf(err) != NotFound {
		t.Errorf("gone() = %v, want not_found", err)
	}
	for _, args := range [][]any{{1}, {1, "x"}, {}} {
		if err := stub.Call(t.Context(), "add", nil, args...); CodeOf(err) != InvalidArgument {
			t.Errorf("add(%v) = %v, want invalid_argument", args, err)
		}
	}
	if err := stub.Call(t.Context(), "add", nil, 1, 2, 3, "extra"); err != nil {
		t.Errorf("add with extra arguments = %v, want nil", err)
	}
	type many struct{ A, B, C, D, E, F, G, H, I, J, K, L, M, N, O int }
	wide := NewService("wide", "")
	Handle(wide, "last", func(_ context.Context, a *many) (int, error) { return a.O, nil })
	if err := e.ExposeService(wide); err != nil {
		t.Fatal(err)
	}
	stub, err = e.Local().Service(t.Context(), "wide")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Method[many, int](stub, "last")(t.Context(), many{O: 7}); err != nil || got != 7 {
		t.Errorf("last() = %v, %v, want 7", got, err)
	}
}

func TestQuery(t *testing.T) {
	e, _ := newSample(t)
	type client struct {
		Add   func(ctx context.Context, a, b float64) (float64, error)
		Check func(ctx context.Context, ok bool) error
		Move  func(ctx context.Context, p point, dx *float64) (point, error)
		Join  func(ctx context.Context, sep string, parts ...string) (string, error)
		Sum   func(ctx context.Context, a, b int) (int, error) `netron:"add"`

		private int
	}
	c, err := Query[client](t.Context(), e.Local(), "sample@1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Add(t.Context(), 1, 2.5); err != nil || got != 3.5 {
		t.Errorf("Add = %v, %v, want 3.5", got, err)
	}
	if got, err := c.Sum(t.Context(), 1, 2); err != nil || got != 3 {
		t.Errorf("Sum = %v, %v, want 3", got, err)
	}
	if err := c.Check(t.Context(), false); err == nil || err.Error() != "Division by zero" {
		t.Errorf("Check(false) = %v, want Division by zero", err)
	}
	if got, err := c.Move(t.Context(), point{X: 1}, nil); err != nil || got.X != 1 {
		t.Errorf("Move = %v, %v, want X 1", got, err)
	}
	if got, err := c.Join(t.Context(), "+", "a", "b"); err != nil || got != "a+b" {
		t.Errorf("Join = %q, %v, want a+b", got, err)
	}
	_ = c.private

	if _, err := Query[client](t.Context(), e.Local(), "nobody"); CodeOf(err) != NotFound {
		t.Errorf("Query of a missing service = %v, want not_found", err)
	}
	type missing struct {
		Gone func(ctx context.Context) error
		Add  func(ctx context.Context, a, b int) (int, error)
	}
	if _, err := Query[missing](t.Context(), e.Local(), "sample"); CodeOf(err) != NotFound || !strings.Contains(err.Error(), "gone") {
		t.Errorf("Query with a missing method = %v, want not_found that names it", err)
	}
	type noContext struct{ Add func(a, b int) (int, error) }
	if _, err := Query[noContext](t.Context(), e.Local(), "sample"); err == nil {
		t.Error("Query with a func without context = nil, want an error")
	}
	type noError struct {
		Add func(ctx context.Context, a, b int) int
	}
	if _, err := Query[noError](t.Context(), e.Local(), "sample"); err == nil {
		t.Error("Query with a func without error = nil, want an error")
	}
	type notFunc struct{ Add int }
	if _, err := Query[notFunc](t.Context(), e.Local(), "sample"); err == nil {
		t.Error("Query with a field that is no func = nil, want an error")
	}
	if _, err := Query[int](t.Context(), e.Local(), "sample"); err == nil {
		t.Error("Query of no struct = nil, want an error")
	}
}

type withChannel struct{}

func (withChannel) Watch(context.Context, chan int) {}

type threeResults struct{}

func (threeResults) Get(context.Context) (int, int, error) { return 0, 0, nil }

type empty struct{}

func (empty) Local() {}

type twice struct{}

func (twice) GetID(context.Context) {}
func (twice) Getid(context.Context) {}

func TestExposeErrors(t *testing.T) {
	e := newEndpoint(t, Config{})
	tests := []struct {
		name  string
		value any
		opts  []ExposeOption
		text  string
	}{
		{"bad name", &sample{}, nil, "invalid service name"},
		{"a@1", &sample{}, nil, "version of service"},
		{"a", nil, nil, "the value is nil"},
		{"a", (*sample)(nil), nil, "the value is nil"},
		{"a", empty{}, nil, "no exported method whose first parameter is a context"},
		{"a", withChannel{}, nil, "method Watch: parameter 1: codec: unsupported type chan int"},
		{"a", threeResults{}, nil, "method Get: returns 2 results"},
		{"a", twice{}, []ExposeOption{Name("Getid", "getID")}, `two members "getID"`},
		{"a", &sample{}, []ExposeOption{Name("Gone", "x")}, "option Name for Gone"},
		{"a", &sample{}, []ExposeOption{Name("Add", "not valid")}, `method name "not valid"`},
		{"a", &sample{}, []ExposeOption{Optional("Add", 3)}, "3 optional parameters declared, it has 2"},
		{"a", &sample{}, []ExposeOption{Optional("Gone", 1)}, "option Optional for Gone"},
	}
	for _, tt := range tests {
		if err := e.Expose(tt.name, tt.value, tt.opts...); err == nil || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("Expose(%q, %T) = %v, want an error with %q", tt.name, tt.value, err, tt.text)
		}
	}
	if got := e.Services(); len(got) != 0 {
		t.Errorf("Services = %v after failures, want none", got)
	}
	if err := e.Expose("a@1.0.0", &sample{}); err != nil {
		t.Fatal(err)
	}
	if err := e.Expose("a@1.0.0", &sample{}); CodeOf(err) != AlreadyExists {
		t.Errorf("second Expose = %v, want already_exists", err)
	}
	s := NewService("b", "")
	Handle(s, "x", func(context.Context, *struct{}) (int, error) { return 1, nil })
	if err := e.ExposeService(s); err != nil {
		t.Fatal(err)
	}
	other := newEndpoint(t, Config{ID: "other"})
	if err := other.ExposeService(s); CodeOf(err) != AlreadyExists {
		t.Errorf("ExposeService of an exposed service = %v, want already_exists", err)
	}
	broken := NewService("c d", "")
	if err := e.ExposeService(broken); err == nil {
		t.Error("ExposeService with a bad name = nil, want an error")
	}
	notStruct := NewService("d", "")
	Handle(notStruct, "x", func(context.Context, *int) (int, error) { return 1, nil })
	if err := e.ExposeService(notStruct); err == nil || !strings.Contains(err.Error(), "want a struct") {
		t.Errorf("ExposeService of a method whose arguments are no struct = %v, want an error", err)
	}
	if err := e.ExposeService(NewService("e", "")); err == nil {
		t.Error("ExposeService without methods = nil, want an error")
	}
	if got := fmt.Sprint(e.Services()); got != "[a@1.0.0 b]" {
		t.Errorf("Services = %v, want [a@1.0.0 b]", got)
	}
}

func TestResolve(t *testing.T) {
	e := newEndpoint(t, Config{})
	for _, name := range []string{"a@1.2.0", "a@1.10.0", "a@2.0.0-beta.1", "b", "b@3.0.0", "c@1.0.0-rc.1", "a.x@9.0.0"} {
		if err := e.Expose(name, &sample{}); err != nil {
			t.Fatal(err)
		}
	}
	for query, want := range map[string]string{
		"a": "a@1.10.0", "a@*": "a@1.10.0", "a@1.2.0": "a@1.2.0", "a:1.2.0": "a@1.2.0", "a@2.0.0-beta.1": "a@2.0.0-beta.1",
		"b": "b", "b@*": "b", "b@3.0.0": "b@3.0.0", "c": "", "c@1.0.0-rc.1": "c@1.0.0-rc.1", "a@9.0.0": "", "": "", "x": "", "a@": "a@1.10.0",
	} {
		got := ""
		if stub, err := e.Local().Service(t.Context(), query); err == nil {
			got = joinName(stub.Name(), stub.Version())
		} else if CodeOf(err) != NotFound {
			t.Errorf("Service(%q) = %v, want not_found", query, err)
		}
		if got != want {
			t.Errorf("Service(%q) = %q, want %q", query, got, want)
		}
	}
	if _, err := e.Local().Service(t.Context(), strings.Repeat("x", 1000)); CodeOf(err) != InvalidArgument {
		t.Errorf("Service with an endless name = %v, want invalid_argument", err)
	}
}

func TestTasks(t *testing.T) {
	e := newEndpoint(t, Config{})
	sum := func(_ context.Context, nums ...float64) float64 {
		total := 0.0
		for _, n := range nums {
			total += n
		}
		return total
	}
	if err := e.AddTask("sum", sum); err != nil {
		t.Fatal(err)
	}
	var got float64
	if err := e.Local().RunTask(t.Context(), "sum", &got, 1, 2.5, 3); err != nil || got != 6.5 {
		t.Errorf("sum = %v, %v, want 6.5", got, err)
	}
	if err := e.AddTask("sum", func(context.Context) int { return -1 }); err != nil {
		t.Fatal(err)
	}
	if err := e.Local().RunTask(t.Context(), "sum", &got, 1); err != nil || got != -1 {
		t.Errorf("replaced sum = %v, %v, want -1", got, err)
	}
	if err := e.Local().RunTask(t.Context(), "nope", nil); CodeOf(err) != NotFound || !strings.Contains(err.Error(), "Task with id nope not found") {
		t.Errorf("missing task = %v, want not_found", err)
	}
	for _, tt := range []struct {
		name string
		fn   any
	}{{"", sum}, {"x", nil}, {"x", 1}, {"x", func() {}}, {"x", func(context.Context, chan int) {}}, {"abilities", sum}, {strings.Repeat("x", 300), sum}} {
		if err := e.AddTask(tt.name, tt.fn); err == nil {
			t.Errorf("AddTask(%.10q, %T) = nil, want an error", tt.name, tt.fn)
		}
	}
}

// TestRequestsOfPeers sends packets as peers of any kind may, and looks at the
// answers.
func TestRequestsOfPeers(t *testing.T) {
	e, stub := newSample(t)
	p := e.Local()
	id := stub.definition.ID
	str := func(s string) []byte { return codec.AppendString(nil, s) }
	list := func(parts ...[]byte) []byte {
		b := codec.AppendArrayHeader(nil, len(parts))
		for _, part := range parts {
			b = append(b, part...)
		}
		return b
	}
	enc := func(v any) []byte {
		b, err := codec.Append(nil, v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	tests := []struct {
		name    string
		t       wire.Type
		payload []byte
		want    any    // the result
		code    Code   // or the code of the error
		text    string // and a part of its message
	}{
		{"by id", wire.TypeCall, list(str(id), str("add"), enc(1), enc(2)), int64(3), 0, ""},
		{"by qualified name", wire.TypeCall, list(str("sample@1.0.0"), str("add"), enc(1), enc(2)), int64(3), 0, ""},
		{"old browser form", wire.TypeCall, enc(map[string]any{"defId": id, "method": "add", "args": []any{1, 2}}), int64(3), 0, ""},
		{"old browser form without arguments", wire.TypeCall, enc(map[string]any{"defId": id, "method": "nothing"}), nil, 0, ""},
		{"old browser form, bad arguments", wire.TypeCall, enc(map[string]any{"defId": id, "method": "add", "args": 1}), nil, InvalidArgument, "the arguments"},
		{"old browser get", wire.TypeGet, enc(map[string]any{"defId": id, "name": "v"}), nil, NotFound, "Property 'sample.v' not found"},
		{"old browser set", wire.TypeSet, enc(map[string]any{"defId": id, "name": "v", "value": 1}), nil, NotFound, "Property 'sample.v' not found"},
		{"old browser task", wire.TypeTask, enc(map[string]any{"task": "query_interface", "serviceName": "nobody"}), nil, NotFound, "Service 'nobody' not found"},
		{"no payload", wire.TypeCall, nil, nil, InvalidArgument, "malformed request"},
		{"not MessagePack", wire.TypeCall, []byte{0xc1}, nil, InvalidArgument, "malformed request"},
		{"a string", wire.TypeCall, str("hi"), nil, InvalidArgument, "the payload is no array"},
		{"nil", wire.TypeTask, []byte{0xc0}, nil, InvalidArgument, "the payload is no array"},
		{"empty array", wire.TypeCall, list(), nil, InvalidArgument, "lacks definition id and name"},
		{"empty task", wire.TypeTask, list(), nil, InvalidArgument, "lacks the task name"},
		{"id alone", wire.TypeCall, list(str(id)), nil, InvalidArgument, "lacks definition id and name"},
		{"id is a number", wire.TypeCall, list(enc(1), str("add")), nil, InvalidArgument, "the definition id"},
		{"name is a number", wire.TypeCall, list(str(id), enc(1)), nil, InvalidArgument, "the member name"},
		{"task is a number", wire.TypeTask, list(enc(1)), nil, InvalidArgument, "the task name"},
		{"unknown definition", wire.TypeCall, list(str("550e8400-e29b-41d4-a716-446655440000"), str("add")), nil, NotFound, "Definition with id 550e8400-e29b-41d4-a716-446655440000 not found"},
		{"endless definition id", wire.TypeCall, list(str(strings.Repeat("x", 1000)), str("add")), nil, NotFound, "Service with id xxx"},
		{"unknown method", wire.TypeCall, list(str(id), str("constructor")), nil, NotFound, "Method 'sample.constructor' not found"},
		{"get", wire.TypeGet, list(str(id), str("got")), nil, NotFound, "Property 'sample.got' not found"},
		{"trailing bytes", wire.TypeCall, append(list(str(id), str("nothing")), 0xc0), nil, InvalidArgument, "malformed arguments"},
		{"lying array", wire.TypeCall, []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, nil, InvalidArgument, "malformed request"},
		{"argument cut off", wire.TypeCall, append([]byte{0x94}, append(append(str(id), str("add")...), 1)...), nil, InvalidArgument, "argument 2 of add"},
		{"too deep", wire.TypeCall, list(str(id), str("echo"), []byte(strings.Repeat("\x91", 100)+"\xc0")), nil, InvalidArgument, "argument 1 of echo"},
		{"query by a number", wire.TypeTask, list(str("query_interface"), enc(7)), nil, InvalidArgument, "argument 1 of query_interface"},
		{"unref of anything", wire.TypeTask, list(str("unref_service"), str("x")), nil, 0, ""},
	}
	for _, tt := range tests {
		packet := p.link().NewCall()
		packet.B = append(packet.B, tt.payload...)
		var got any
		err := p.call(t.Context(), tt.t, packet, &got)
		if tt.code != 0 {
			if CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s: %v, want %v with %q", tt.name, err, tt.code, tt.text)
			}
			continue
		}
		if err != nil || !cmp.Equal(got, tt.want) {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestAbilities(t *testing.T) {
	e, stub := newSample(t)
	var answer struct {
		Services           codec.Map
		AllowServiceEvents bool
	}
	for _, args := range [][]any{nil, {map[string]any{"allowServiceEvents": true}}} {
		if err := e.Local().RunTask(t.Context(), "abilities", &answer, args...); err != nil {
			t.Fatal(err)
		}
		v, _ := answer.Services.Get("sample@1.0.0")
		d, ok := v.(*codec.Definition)
		if !ok || d.ID != stub.definition.ID || d.PeerID != "node" || len(d.Meta.Methods) == 0 {
			t.Errorf("abilities(%v) = %v, want the definition of sample@1.0.0", args, answer)
		}
	}
}

// TestUnreadableAnswers checks that an answer which is no value fails its call,
// also where the caller wants no result (protocol section 4.5).
func TestUnreadableAnswers(t *testing.T) {
	p := newEndpoint(t, Config{}).Local()
	for _, payload := range []string{"", "\xc1", "\x91", "\xc0\xc0"} {
		for _, result := range []any{nil, new(any)} {
			if err := p.decodeReply(mux.Reply{Payload: []byte(payload)}, result); CodeOf(err) != Internal {
				t.Errorf("decodeReply(%q, %T) = %v, want internal", payload, result, err)
			}
		}
		if err := p.decodeReply(mux.Reply{Payload: []byte(payload), IsError: true}, nil); err == nil {
			t.Errorf("decodeReply(error %q) = nil, want an error", payload)
		}
	}
	if err := p.decodeReply(mux.Reply{Payload: []byte{0xc0}}, nil); err != nil {
		t.Errorf("decodeReply(nil) = %v, want nil", err)
	}
}

func TestOversizeMessages(t *testing.T) {
	e := newEndpoint(t, Config{MaxMessageBytes: 10_000})
	if err := e.Expose("sample", &sample{}); err != nil {
		t.Fatal(err)
	}
	stub, err := e.Local().Service(t.Context(), "sample")
	if err != nil {
		t.Fatal(err)
	}
	if err := stub.Call(t.Context(), "echo", nil, make([]byte, 10_000)); CodeOf(err) != ResourceExhausted {
		t.Errorf("a large request = %v, want resource_exhausted", err)
	}
	if err := stub.Call(t.Context(), "big", nil, 10_000); CodeOf(err) != ResourceExhausted {
		t.Errorf("a large result = %v, want resource_exhausted", err)
	}
	if err := stub.Call(t.Context(), "fail", nil, "big"); CodeOf(err) != Aborted || !strings.Contains(err.Error(), "limit 10000: xxx") {
		t.Errorf("a large error = %v, want a short one of the same code", err)
	}
	if err := stub.Call(t.Context(), "big", nil, 9_000); err != nil {
		t.Errorf("a result within the limit = %v, want nil", err)
	}
}

func TestLocal(t *testing.T) {
	e, _ := newSample(t)
	first := e.Local()
	if e.Local() != first {
		t.Error("Local gave two peers, want one")
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Service(t.Context(), "sample"); CodeOf(err) != Unavailable {
		t.Errorf("Service of a closed peer = %v, want unavailable", err)
	}
	if _, err := e.Local().Service(t.Context(), "sample"); err != nil {
		t.Errorf("Service after Close = %v, want a new local peer", err)
	}
	if n := len(e.Peers()); n != 0 {
		t.Errorf("%d peers, want none: the local ones do not count", n)
	}
}

// TestDrainRefusesNewcomers checks that a peer which becomes ready while the
// endpoint drains is told so, and not served until it is cut off.
func TestDrainRefusesNewcomers(t *testing.T) {
	e, other := newEndpoint(t, Config{}), newEndpoint(t, Config{ID: "other"})
	if err := e.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	near, far := other.NewPeer(true), e.NewPeer(false)
	nearConn, farConn := newConn(other, near), newConn(e, far)
	a, b := mux.Pipe(nearConn.config(mux.Hint{}), farConn.config(mux.Hint{}))
	nearConn.attach(a)
	farConn.attach(b)
	defer near.Close()
	for _, p := range []*Peer{near, e.Local()} {
		if err := p.RunTask(t.Context(), "abilities", nil); CodeOf(err) != Unavailable || !strings.Contains(err.Error(), "shutting down") {
			t.Errorf("a task while the endpoint drains = %v, want unavailable", err)
		}
	}
	if err := e.Drain(t.Context()); err != nil {
		t.Errorf("second Drain = %v, want nil", err)
	}
}

// TestEndOfHandlersContext checks that a caller does not take the end of the
// endpoint for its own giving up.
func TestEndOfHandlersContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := newEndpoint(t, Config{Context: ctx})
	started := make(chan struct{})
	if err := e.AddTask("wait", func(ctx context.Context) error {
		close(started)
		<-ctx.Done()
		return fmt.Errorf("waiting: %w", ctx.Err())
	}); err != nil {
		t.Fatal(err)
	}
	go func() {
		<-started
		cancel()
	}()
	if err := e.Local().RunTask(context.Background(), "wait", nil); CodeOf(err) != Unavailable || errors.Is(err, context.Canceled) {
		t.Errorf("wait = %v, want unavailable", err)
	}
}

func TestPeerFrom(t *testing.T) {
	e := newEndpoint(t, Config{})
	if err := e.AddTask("who", func(ctx context.Context) string { return PeerFrom(ctx).ID() }); err != nil {
		t.Fatal(err)
	}
	var id string
	if err := e.Local().RunTask(t.Context(), "who", &id); err != nil || id != "node" {
		t.Errorf("who = %q, %v, want node", id, err)
	}
	if p := PeerFrom(context.Background()); p != nil {
		t.Errorf("PeerFrom outside a handler = %v, want nil", p)
	}
}

// codedError is an error of another package that knows its code.
type codedError struct{}

func (codedError) Error() string         { return "no such thing" }
func (codedError) NetronCode() code.Code { return code.NotFound }

func TestCodes(t *testing.T) {
	numbers := map[int]Code{}
	for c := Canceled; c <= Unauthenticated; c++ {
		if n := c.Number(); c != Unknown {
			if other, taken := numbers[n]; taken {
				t.Errorf("%v and %v have the number %d", c, other, n)
			}
			numbers[n] = c
			if got := code.ForNumber(n); got != c {
				t.Errorf("code.ForNumber(%d) = %v, want %v", n, got, c)
			}
		}
		if c.String() == "" || c.String() == "invalid code" {
			t.Errorf("Code(%d) has no name", c)
		}
	}
	for n, want := range map[int]Code{0: Unknown, 1: Unknown, 418: Unknown, 504: DeadlineExceeded, 413: ResourceExhausted, 422: InvalidArgument, 502: Unavailable} {
		if got := code.ForNumber(n); got != want {
			t.Errorf("code.ForNumber(%d) = %v, want %v", n, got, want)
		}
	}
	if Code(99).String() != "invalid code" || Code(99).Number() != 0 {
		t.Error("a code out of range has a name or a number")
	}
	if Code(0).String() != "ok" {
		t.Errorf("Code(0) is %v, want ok", Code(0))
	}
	if CodeOf(nil) != 0 || CodeOf(io.EOF) != Unknown || CodeOf(fmt.Errorf("x: %w", context.Canceled)) != Canceled {
		t.Error("CodeOf of nil, a plain error or a context error is wrong")
	}
	if err := asError(fmt.Errorf("x: %w", codedError{})); err.Code != NotFound || err.Message != "no such thing" {
		t.Errorf("an error with a code of its own travels as %v, %q", err.Code, err.Message)
	}
}

type described struct{}

func (described) Error() string       { return "local text" }
func (described) NetronError() *Error { return &Error{Code: Unauthenticated, Message: "log in first"} }

func TestErrorsOnTheWire(t *testing.T) {
	tests := []struct {
		name string
		v    any // as a peer sends it
		want Error
	}{
		{"plain", &codec.Error{Message: "boom"}, Error{Code: Unknown, Message: "boom"}},
		{"number", &codec.Error{Message: "m", Fields: codec.Fields{{Name: "code", Value: 403}}}, Error{Code: PermissionDenied, Message: "m"}},
		{"foreign number", &codec.Error{Message: "m", Fields: codec.Fields{{Name: "code", Value: 418}}}, Error{Code: Unknown, Message: "m", Fields: map[string]any{"code": int64(418)}}},
		{"text code", &codec.Error{Name: "ServiceError", Message: "m", Fields: codec.Fields{{Name: "code", Value: "VALIDATION"}, {Name: "statusCode", Value: 400}}}, Error{Code: Unknown, Name: "ServiceError", Message: "m", Fields: map[string]any{"code": "VALIDATION", "statusCode": int64(400)}}},
		{"titan", &codec.TitanError{Name: "TitanError", Code: 404, Message: "Service 'x' not found", Details: codec.Fields{{Name: "id", Value: "x"}}}, Error{Code: NotFound, Message: "Service 'x' not found", Details: map[string]any{"id": "x"}}},
		{"map", map[string]any{"message": "handler failed"}, Error{Code: Unknown, Message: "handler failed"}},
		{"text", "just text", Error{Code: Unknown, Message: "just text"}},
		{"nothing", nil, Error{Code: Unknown, Message: "the peer sent an error without a value"}},
	}
	for _, tt := range tests {
		b, err := codec.Append(nil, tt.v)
		if err != nil {
			t.Fatal(err)
		}
		got := decodeError(b, codec.Limits{})
		if got.Code != tt.want.Code || got.Message != tt.want.Message || got.Name != tt.want.Name || !cmp.Equal(got.Details, tt.want.Details) || !cmp.Equal(got.Fields, tt.want.Fields) || !got.Remote() {
			t.Errorf("%s: %#v, want %#v", tt.name, got, tt.want)
		}
		// What came from one peer goes on to the next unchanged.
		again := decodeError(appendError(nil, got), codec.Limits{})
		if again.Code != got.Code || again.Message != got.Message || again.Name != got.Name || !cmp.Equal(again.Details, got.Details) || !cmp.Equal(again.Fields, got.Fields) {
			t.Errorf("%s: relayed %#v, want %#v", tt.name, again, got)
		}
	}
	relayed := decodeError(appendError(nil, decodeError(mustAppend(t, &codec.Error{Message: "m", Fields: codec.Fields{{Name: "code", Value: 504}}}), codec.Limits{})), codec.Limits{})
	if relayed.number != 504 {
		t.Errorf("relayed number = %d, want the 504 that came", relayed.number)
	}
	if got := decodeError([]byte{0xc1}, codec.Limits{}); got.Code != Internal {
		t.Errorf("an unreadable error = %v, want internal", got)
	}
	if got := decodeError(appendError(nil, fmt.Errorf("x: %w", described{})), codec.Limits{}); got.Code != Unauthenticated || got.Message != "log in first" {
		t.Errorf("an error that describes itself = %v, want its own description", got)
	}
	cause := errors.New("cause")
	local := Errorf(Aborted, "outer: %w", cause)
	if !errors.Is(local, cause) || local.Remote() || local.Error() != "aborted: outer: cause" {
		t.Errorf("Errorf = %v, want the cause wrapped", local)
	}
}

func mustAppend(t *testing.T, v any) []byte {
	t.Helper()
	b, err := codec.Append(nil, v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCallsAfterClose(t *testing.T) {
	e, err := NewEndpoint(Config{ID: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Expose("sample", &sample{}); err != nil {
		t.Fatal(err)
	}
	p := e.Local()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Service(t.Context(), "sample"); CodeOf(err) != Unavailable {
		t.Errorf("Service after Close = %v, want unavailable", err)
	}
	if err := e.Close(); err != nil {
		t.Errorf("second Close = %v, want nil", err)
	}
	if _, err := NewEndpoint(Config{}); err == nil {
		t.Error("NewEndpoint without id = nil, want an error")
	}
}

func FuzzRequest(f *testing.F) {
	e, err := NewEndpoint(Config{ID: "x", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = e.Close() })
	if err := e.Expose("sample", &sample{}); err != nil {
		f.Fatal(err)
	}
	p := e.Local()
	for _, s := range []string{"\x94\xa6sample\xa3add\x01\x02", "\x93\xa6sample\xa4echo\x81\xa1x\xc0", "\x92\xa9abilities\x80", "\x83\xa5defId\xa6sample\xa6method\xa3add\xa4args\x92\x01\x02"} {
		f.Add(byte(3), []byte(s))
		f.Add(byte(4), []byte(s))
	}
	f.Fuzz(func(t *testing.T, typ byte, payload []byte) {
		packet := p.link().NewCall()
		packet.B = append(packet.B, payload...)
		var v any
		_ = p.call(t.Context(), wire.Type(1+typ%4), packet, &v)
	})
}

func BenchmarkCall(b *testing.B) {
	e := newEndpoint(b, Config{})
	if err := e.Expose("sample", &sample{}); err != nil {
		b.Fatal(err)
	}
	svc := NewService("fast", "")
	Handle(svc, "add", func(_ context.Context, a *addArgs) (float64, error) { return a.A + a.B, nil })
	if err := e.ExposeService(svc); err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	slow, err := e.Local().Service(ctx, "sample")
	if err != nil {
		b.Fatal(err)
	}
	fast, err := e.Local().Service(ctx, "fast")
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Handle+Method", func(b *testing.B) {
		add := Method[addArgs, float64](fast, "add")
		b.ReportAllocs()
		for b.Loop() {
			if _, err := add(ctx, addArgs{2.5, 3}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Expose+Query", func(b *testing.B) {
		c, err := Query[struct {
			Add func(ctx context.Context, a, b float64) (float64, error)
		}](ctx, slow.Peer(), "sample")
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Add(ctx, 2.5, 3); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Expose+Call", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var sum float64
			if err := slow.Call(ctx, "add", &sum, 2.5, 3); err != nil {
				b.Fatal(err)
			}
		}
	})
}
