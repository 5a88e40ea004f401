package rpc

import (
	"context"
	"strings"
	"testing"
)

func TestFunc(t *testing.T) {
	e := newEndpoint(t, Config{})
	s := NewService("made", "1.0.0")
	for name, fn := range map[string]any{
		"add":   func(_ context.Context, a, b int) int { return a + b },
		"join":  func(_ context.Context, parts ...string) string { return strings.Join(parts, "-") },
		"check": (&sample{}).Check,
		"child": func(context.Context) *Service { return newTree(t, 6) },
	} {
		Func(s, name, fn)
	}
	if err := e.ExposeService(s); err != nil {
		t.Fatal(err)
	}
	stub, err := e.Local().Service(t.Context(), "made")
	if err != nil {
		t.Fatal(err)
	}
	var sum int
	if err := stub.Call(t.Context(), "add", &sum, 2, 3); err != nil || sum != 5 {
		t.Errorf("add = %d, %v, want 5", sum, err)
	}
	var joined string
	if err := stub.Call(t.Context(), "join", &joined, "a", "b"); err != nil || joined != "a-b" {
		t.Errorf("join = %q, %v, want a-b", joined, err)
	}
	if err := stub.Call(t.Context(), "check", nil, false); err == nil || err.Error() != "Division by zero" {
		t.Errorf("check = %v, want the error of the function", err)
	}
	var child *Stub
	if err := stub.Call(t.Context(), "child", &child); err != nil {
		t.Fatal(err)
	}
	if child.definition.ParentID != stub.definition.ID {
		t.Errorf("parent of the child = %q, want %q", child.definition.ParentID, stub.definition.ID)
	}
	for _, bad := range []any{nil, 5, (func(context.Context))(nil), func() {}, func(int) {}, func(context.Context, chan int) {}, func(context.Context) (int, int) { return 0, 0 }, func(context.Context, ...*Service) {}} {
		s := NewService("bad", "")
		Func(s, "m", bad)
		if err := e.ExposeService(s); err == nil {
			t.Errorf("ExposeService with a method %T = nil, want an error", bad)
		}
	}
}
