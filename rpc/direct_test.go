package rpc

import (
	"context"
	"fmt"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

// common has methods of common signatures.
type common struct{ last []any }

func (c *common) None(context.Context) error { c.last = nil; return nil }

func (c *common) Get(context.Context) (string, error) { return fmt.Sprint(c.last...), nil }

func (c *common) Raw(_ context.Context, v codec.Raw) codec.Raw { return v }

func (c *common) Add(_ context.Context, a, b float64) (float64, error) {
	c.last = []any{a, b}
	return a + b, nil
}

func (c *common) Int(_ context.Context, a int) (int, error) {
	if a < 0 {
		return a, Errorf(OutOfRange, "below zero")
	}
	return a * 2, nil
}

func (c *common) Put(_ context.Context, key string, value []byte) error {
	c.last = []any{key, string(value)}
	return nil
}

func (c *common) Bytes(_ context.Context, v []byte) ([]byte, error) { return v, nil }

func (c *common) Has(_ context.Context, key string) (bool, error) {
	return key == fmt.Sprint(c.last...), nil
}

func (c *common) Join(_ context.Context, a, b string) (string, error) { return a + b, nil }

// TestDirectAgreesWithReflection calls methods both ways with arguments that fit and
// that do not: results and errors are the same.
func TestDirectAgreesWithReflection(t *testing.T) {
	values := [][]byte{
		{},
		{0xc0},
		codec.AppendUndefined(nil),
		{0xc3},
		{7},
		{0xff},
		codec.AppendFloat(nil, 2.5), codec.AppendFloat(nil, 1e300),
		codec.AppendString(nil, "text"), codec.AppendString(nil, ""),
		{0xc4, 2, 1, 2},
		{0x91, 1},
		{0x80},
		{0xc1},
		{0xa5, 'x'},
		codec.AppendInt(nil, -1<<40),
		{0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	}
	rv := reflect.ValueOf(&common{})
	for i := range rv.NumMethod() {
		name := rv.Type().Method(i).Name
		m, err := newReflectMethod(name, rv.Method(i), 0)
		if err != nil {
			t.Fatal(err)
		}
		direct := directInvoke(name, rv, name, m.invoke)
		if reflect.ValueOf(direct).UnsafePointer() == reflect.ValueOf(m.invoke).UnsafePointer() {
			t.Errorf("%s %v is not called directly", name, rv.Method(i).Type())
		}
		for _, a := range values {
			for _, b := range values {
				args, n := append(append([]byte{}, a...), b...), 0
				for _, v := range [][]byte{a, b} {
					if len(v) > 0 {
						n++
					}
				}
				for _, n := range []int{n, n - 1, n + 1} {
					if n < 0 {
						continue
					}
					want, wantErr := m.invoke(t.Context(), args, n, codec.Limits{}, nil)
					got, gotErr := direct(t.Context(), args, n, codec.Limits{}, nil)
					if !cmp.Equal(got, want) || fmt.Sprint(gotErr) != fmt.Sprint(wantErr) || CodeOf(gotErr) != CodeOf(wantErr) {
						t.Errorf("%s with %d of % x = % x, %v, by reflection % x, %v", name, n, args, got, gotErr, want, wantErr)
					}
				}
			}
		}
	}
}

// byValue has a method whose receiver is no pointer.
type byValue struct{ factor int }

func (v byValue) Times(_ context.Context, n int) (int, error) { return v.factor * n, nil }

type number int

func (n number) Plus(_ context.Context, m int) (int, error) { return int(n) + m, nil }

// TestDirectReceivers checks values that are no pointers, and methods that come from
// an embedded value.
func TestDirectReceivers(t *testing.T) {
	for _, tt := range []struct {
		value  any
		method string
		want   byte
	}{
		{byValue{3}, "Times", 21},
		{&byValue{3}, "Times", 21},
		{struct{ byValue }{byValue{4}}, "Times", 28},
		{&struct{ *byValue }{&byValue{5}}, "Times", 35},
		{number(8), "Plus", 15},
	} {
		invoke := directInvoke("m", reflect.ValueOf(tt.value), tt.method, nil)
		if invoke == nil {
			t.Errorf("%T is not called directly", tt.value)
			continue
		}
		got, err := invoke(t.Context(), []byte{7}, 1, codec.Limits{}, nil)
		if !cmp.Equal(got, []byte{tt.want}) || err != nil {
			t.Errorf("%T.%s(7) = % x, %v, want %d", tt.value, tt.method, got, err, tt.want)
		}
	}
}

// TestDirectClient checks the funcs of common signatures that Query makes.
func TestDirectClient(t *testing.T) {
	e := newEndpoint(t, Config{})
	if err := e.Expose("common", &common{}); err != nil {
		t.Fatal(err)
	}
	c, err := Query[struct {
		None  func(ctx context.Context) error
		Get   func(ctx context.Context) (string, error)
		Raw   func(ctx context.Context, v codec.Raw) (codec.Raw, error)
		Add   func(ctx context.Context, a, b float64) (float64, error)
		Int   func(ctx context.Context, a int) (int, error)
		Put   func(ctx context.Context, key string, value []byte) error
		Bytes func(ctx context.Context, v []byte) ([]byte, error)
		Has   func(ctx context.Context, key string) (bool, error)
		Join  func(ctx context.Context, a, b string) (string, error)
	}](t.Context(), e.Local(), "common")
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	if sum, err := c.Add(ctx, 2, 0.5); sum != 2.5 || err != nil {
		t.Errorf("Add = %v, %v", sum, err)
	}
	if err := c.Put(ctx, "k", []byte("v")); err != nil {
		t.Errorf("Put = %v", err)
	}
	if s, err := c.Get(ctx); s != "kv" || err != nil {
		t.Errorf("Get = %q, %v", s, err)
	}
	if ok, err := c.Has(ctx, "kv"); !ok || err != nil {
		t.Errorf("Has = %v, %v", ok, err)
	}
	if n, err := c.Int(ctx, 21); n != 42 || err != nil {
		t.Errorf("Int = %v, %v", n, err)
	}
	if _, err := c.Int(ctx, -1); CodeOf(err) != OutOfRange {
		t.Errorf("Int(-1) = %v, want the service's error", err)
	}
	if b, err := c.Bytes(ctx, []byte{1, 2}); string(b) != "\x01\x02" || err != nil {
		t.Errorf("Bytes = %v, %v", b, err)
	}
	if s, err := c.Join(ctx, "a", "b"); s != "ab" || err != nil {
		t.Errorf("Join = %q, %v", s, err)
	}
	if r, err := c.Raw(ctx, codec.Raw{7}); string(r) != "\x07" || err != nil {
		t.Errorf("Raw = %v, %v", r, err)
	}
	if err := c.None(ctx); err != nil {
		t.Errorf("None = %v", err)
	}
}

// TestCallsWithoutAllocation checks what the package promises: a call by Method or
// MethodFunc, and by a func of a common signature, allocates nothing, on either
// side.
func TestCallsWithoutAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations differ under the race detector")
	}
	e := newEndpoint(t, Config{})
	if err := e.Expose("common", &common{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"typed", "typedinline"} {
		s := NewService(name, "")
		Handle(s, "add", func(_ context.Context, a *addArgs) (float64, error) { return a.A + a.B, nil })
		if name == "typedinline" {
			s.Inline("add")
		}
		if err := e.ExposeService(s); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	type client struct {
		Int func(ctx context.Context, a int) (int, error)
	}
	funcs, err := Query[client](ctx, e.Local(), "common")
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]func(){
		"func of a common signature": func() {
			if n, err := funcs.Int(ctx, 21); n != 42 || err != nil {
				t.Error(n, err)
			}
		},
	}
	for _, name := range []string{"typed", "typedinline"} {
		stub, err := e.Local().Service(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		add, addFunc := Method[addArgs, float64](stub, "add"), MethodFunc[addArgs, float64](stub, "add")
		calls["Method of "+name] = func() {
			if sum, err := add(ctx, addArgs{2, 3}); sum != 5 || err != nil {
				t.Error(sum, err)
			}
		}
		done := make(chan struct{}, 1)
		fn := func(_ context.Context, sum float64, err error) {
			if sum != 5 || err != nil {
				t.Error(sum, err)
			}
			done <- struct{}{}
		}
		calls["MethodFunc of "+name] = func() {
			if err := addFunc(ctx, addArgs{2, 3}, fn); err != nil {
				t.Error(err)
			}
			<-done
		}
	}
	for name, call := range calls {
		call()
		if n := testing.AllocsPerRun(1000, call); n >= 1 {
			t.Errorf("%s: %v allocations per call, want 0", name, n)
		}
	}
}
