package rpc

import (
	"context"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/codec"
)

// holder has every kind of property.
type holder struct {
	Version string           `netron:"version,readonly"`
	Limits  map[string]int   `netron:",readonly"`
	Count   Property[int]    // under its own name
	State   Property[string] `netron:"status,readonly"`
	Raw     Property[codec.Raw]
	Plain   int // not for peers
}

func (h *holder) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }

func TestProperties(t *testing.T) {
	e := newEndpoint(t, Config{})
	h := &holder{Version: "1.0.0", Limits: map[string]int{"a": 1}}
	h.State.Set("new")
	h.Count.OnSet(func(_ context.Context, n int) error {
		if n < 0 {
			return Errorf(OutOfRange, "count %d is negative", n)
		}
		return nil
	})
	if err := e.Expose("s@1.0.0", h); err != nil {
		t.Fatal(err)
	}
	stub, err := e.Local().Service(t.Context(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(stub.Properties(), " "); got != "version limits count status raw" {
		t.Errorf("properties %q", got)
	}
	var text string
	var n int
	if err := stub.Get(t.Context(), "version", &text); err != nil || text != "1.0.0" {
		t.Errorf("version = %q, %v", text, err)
	}
	h.Version = "2.0.0" // fixed since it was exposed
	if err := stub.Get(t.Context(), "version", &text); err != nil || text != "1.0.0" {
		t.Errorf("version = %q, %v after a change of the field, want the old one", text, err)
	}
	h.State.Set("running")
	if err := stub.Get(t.Context(), "status", &text); err != nil || text != "running" {
		t.Errorf("status = %q, %v", text, err)
	}
	if err := stub.Set(t.Context(), "count", 7.0); err != nil || h.Count.Get() != 7 {
		t.Errorf("set count = %v, the owner has %d", err, h.Count.Get())
	}
	if err := stub.Get(t.Context(), "count", &n); err != nil || n != 7 {
		t.Errorf("count = %d, %v", n, err)
	}
	for _, tc := range []struct {
		name string
		do   func() error
		want Code
	}{
		{"a value that the owner refuses", func() error { return stub.Set(t.Context(), "count", -1) }, OutOfRange},
		{"a value of another type", func() error { return stub.Set(t.Context(), "count", "x") }, InvalidArgument},
		{"a value that cannot be sent", func() error { return stub.Set(t.Context(), "count", make(chan int)) }, InvalidArgument},
		{"a readonly property", func() error { return stub.Set(t.Context(), "status", "x") }, PermissionDenied},
		{"a fixed one", func() error { return stub.Set(t.Context(), "version", "x") }, PermissionDenied},
		{"one that is not there", func() error { return stub.Get(t.Context(), "plain", nil) }, NotFound},
		{"setting one that is not there", func() error { return stub.Set(t.Context(), "plain", 1) }, NotFound},
		{"a method", func() error { return stub.Get(t.Context(), "add", nil) }, NotFound},
		{"calling a property", func() error { return stub.Call(t.Context(), "count", nil) }, NotFound},
	} {
		if err := tc.do(); CodeOf(err) != tc.want {
			t.Errorf("%s: %v, want code %v", tc.name, err, tc.want)
		}
	}
	// A caller that knows no better gets the same from the owner.
	forged := newStub(stub.peer, &codec.Definition{ID: stub.definition.ID, Meta: codec.Meta{Name: "s", Properties: []codec.Property{{Name: "status"}, {Name: "plain"}}}})
	if err := forged.Set(t.Context(), "status", "x"); CodeOf(err) != PermissionDenied || h.State.Get() != "running" {
		t.Errorf("forged write of a readonly property = %v, the owner has %q", err, h.State.Get())
	}
	if err := forged.Get(t.Context(), "plain", nil); CodeOf(err) != NotFound {
		t.Errorf("forged read of a hidden field = %v, want not_found", err)
	}
	if h.Count.Get() != 7 {
		t.Errorf("count is %d after all that was refused, want 7", h.Count.Get())
	}
}

func TestQueryProperties(t *testing.T) {
	e := newEndpoint(t, Config{})
	h := &holder{Version: "1.0.0"}
	if err := e.Expose("s@1.0.0", h); err != nil {
		t.Fatal(err)
	}
	type client struct {
		Add      func(ctx context.Context, a, b float64) (float64, error)
		Version  func(ctx context.Context) (string, error)
		Count    func(ctx context.Context) (int, error)       `netron:"count,get"`
		SetCount func(ctx context.Context, n int) error       `netron:"count,set"`
		Status   func(ctx context.Context) (string, error)    `netron:",get"`
		Anything func(ctx context.Context) (codec.Raw, error) `netron:"raw,get"`
	}
	c, err := Query[client](t.Context(), e.Local(), "s")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetCount(t.Context(), 5); err != nil {
		t.Error(err)
	}
	if n, err := c.Count(t.Context()); n != 5 || err != nil {
		t.Errorf("count = %d, %v, want 5", n, err)
	}
	if v, err := c.Version(t.Context()); v != "1.0.0" || err != nil {
		t.Errorf("version = %q, %v", v, err)
	}
	if sum, err := c.Add(t.Context(), 1, 2); sum != 3 || err != nil {
		t.Errorf("add = %v, %v", sum, err)
	}
	if _, err := Query[struct {
		SetStatus func(ctx context.Context, s string) error `netron:"status,set"`
	}](t.Context(), e.Local(), "s"); CodeOf(err) != PermissionDenied {
		t.Errorf("a client that writes a readonly property = %v, want permission_denied", err)
	}
	if _, err := Query[struct {
		Nobody func(ctx context.Context) (string, error) `netron:",get"`
	}](t.Context(), e.Local(), "s"); CodeOf(err) != NotFound {
		t.Errorf("a client that reads a property that is not there = %v, want not_found", err)
	}
	if _, err := Query[struct {
		Count func(ctx context.Context, n int) (string, error) `netron:",get"`
	}](t.Context(), e.Local(), "s"); err == nil {
		t.Error("a getter with an argument was accepted")
	}
}

func TestPropertyMistakes(t *testing.T) {
	type plain struct {
		A int `netron:"a"`
	}
	type byValue struct{ P Property[int] }
	type badType struct{ P Property[chan int] }
	type badOption struct {
		A int `netron:"a,writable"`
	}
	type badName struct {
		A int `netron:"a b,readonly"`
	}
	type twoNames struct {
		A int `netron:"a,readonly"`
		B int `netron:"a,readonly"`
	}
	for _, tc := range []struct {
		value any
		want  string
	}{
		{&plain{}, "readonly"},
		{byValue{}, "pointer to the struct"},
		{&badType{}, "chan int"},
		{&badOption{}, "unknown option"},
		{&badName{}, "property name"},
		{&twoNames{}, "two members"},
	} {
		e := newEndpoint(t, Config{})
		if err := e.Expose("a", tc.value); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("Expose(%T) = %v, want an error with %q", tc.value, err, tc.want)
		}
	}
	e := newEndpoint(t, Config{})
	s := NewService("only", "1.0.0")
	var p Property[string]
	p.Set("x")
	AddProperty(s, "value", &p, false)
	if err := e.ExposeService(s); err != nil {
		t.Fatalf("a service with nothing but a property: %v", err)
	}
}
