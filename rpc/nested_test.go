package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

func TestConceal(t *testing.T) {
	e := newEndpoint(t, Config{})
	s, err := NewServiceOf("sample@1.0.0", &sample{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for range 2 { // it may be exposed again
		if err := e.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		stub, err := e.Local().Service(t.Context(), "sample")
		if err != nil {
			t.Fatal(err)
		}
		if err := stub.Call(t.Context(), "nothing", nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, stub.definition.ID)
		for _, name := range []string{"sample", "sample@2.0.0", "sample@*", ""} {
			if err := e.Conceal(name); CodeOf(err) != NotFound {
				t.Errorf("Conceal(%q) = %v, want not_found: there is only sample@1.0.0", name, err)
			}
		}
		if err := e.Conceal("sample@1.0.0"); err != nil {
			t.Errorf("Conceal = %v, want nil", err)
		}
		// Browser clients read the wording.
		want := "Definition with id " + stub.definition.ID + " not found"
		if err := stub.Call(t.Context(), "nothing", nil); CodeOf(err) != NotFound || !strings.Contains(err.Error(), want) {
			t.Errorf("a call after Conceal = %v, want %q", err, want)
		}
		if _, err := e.Local().Service(t.Context(), "sample"); CodeOf(err) != NotFound {
			t.Errorf("Service after Conceal = %v, want not_found", err)
		}
	}
	if ids[0] == ids[1] {
		t.Error("exposed again under the same definition id, want a new one")
	}
}

// linked is two endpoints with a connection: near calls, far serves.
type linked struct {
	near, far *Endpoint
	peer      *Peer // far, as near sees it
	back      *Peer // near, as far sees it
}

func link(t testing.TB, near, far *Endpoint) linked {
	t.Helper()
	l := linked{near: near, far: far, peer: near.NewPeer(true), back: far.NewPeer(false)}
	nearConn, farConn := newConn(near, l.peer), newConn(far, l.back)
	a, b := mux.Pipe(nearConn.config(mux.Hint{}), farConn.config(mux.Hint{}))
	nearConn.attach(a)
	farConn.attach(b)
	if err := l.peer.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := l.back.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.peer.Close() })
	return l
}

// wantEmpty checks that nobody holds a service of an endpoint any more, soon.
func wantEmpty(t testing.TB, e *Endpoint, why string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		e.nested.mu.Lock()
		n := len(e.nested.entries)
		e.nested.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d services in the table of %s, want none: %s", n, e.ID(), why)
		}
	}
}

// tree returns services: its own children, and what was passed to it.
type tree struct {
	depth   int
	onlyOne *Service // what Same returns
	foreign *Stub    // what Foreign returns
	Label   Property[string]
}

func newTree(t testing.TB, depth int) *Service {
	t.Helper()
	s, err := NewServiceOf("tree@1.0.0", &tree{depth: depth})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (n *tree) Depth(context.Context) int { return n.depth }

func (n *tree) Child(_ context.Context, by int) (*Service, error) {
	switch {
	case by < 0:
		return nil, Errorf(OutOfRange, "negative")
	case by == 0:
		return nil, nil //nolint:nilnil // no service is a result, too
	}
	return NewServiceOf("tree@1.0.0", &tree{depth: n.depth + by})
}

func (n *tree) Same(context.Context) *Service          { return n.onlyOne }
func (n *tree) Foreign(context.Context) (*Stub, error) { return n.foreign, nil }

// Which says what it got.
func (n *tree) Which(_ context.Context, s *Service, _ ...string) string {
	if s == nil {
		return "none"
	}
	return s.QualifiedName()
}

// Pass returns what it got.
func (n *tree) Pass(_ context.Context, s *Service) *Service { return s }

// Ask calls the service of another peer that this side relays.
func (n *tree) Ask(ctx context.Context, s *Stub) (depth int, err error) {
	return depth, s.Call(ctx, "depth", &depth)
}

func (n *tree) Unlock(context.Context) *Service { return NewService("broken", "x") }

type treeClient struct {
	Service *Stub

	Depth func(ctx context.Context) (int, error)
	Child func(ctx context.Context, by int) (*treeClient, error)
	Which func(ctx context.Context, s *Stub) (string, error)
	Pass  func(ctx context.Context, s any) (*Stub, error)
}

func newTrees(t testing.TB, far Config) (linked, *Stub) {
	t.Helper()
	far.ID = "far"
	l := link(t, newEndpoint(t, Config{ID: "near"}), newEndpoint(t, far))
	inner := newTree(t, 100)
	if err := l.far.Expose("tree@1.0.0", &tree{onlyOne: inner}); err != nil {
		t.Fatal(err)
	}
	stub, err := l.peer.Service(t.Context(), "tree")
	if err != nil {
		t.Fatal(err)
	}
	return l, stub
}

func TestServiceAsResult(t *testing.T) {
	l, stub := newTrees(t, Config{})
	ctx := t.Context()
	var child, grandchild *Stub
	if err := stub.Call(ctx, "child", &child, 5); err != nil {
		t.Fatal(err)
	}
	if got := child.definition; got.ParentID != stub.definition.ID || got.PeerID != "far" || got.Meta.Name != "tree" || got.ID == stub.definition.ID {
		t.Errorf("definition of the child = %+v, want one of its own with the caller's for parent", got)
	}
	if err := child.Call(ctx, "child", &grandchild, 2); err != nil {
		t.Fatal(err)
	}
	var depth int
	if err := grandchild.Call(ctx, "depth", &depth); err != nil || depth != 7 {
		t.Errorf("depth = %d, %v, want 7", depth, err)
	}
	if err := child.Set(ctx, "label", "x"); err != nil {
		t.Error(err)
	}
	var label string
	if err := child.Get(ctx, "label", &label); err != nil || label != "x" {
		t.Errorf("label = %q, %v, want x", label, err)
	}
	none := child
	if err := stub.Call(ctx, "child", &none, 0); err != nil || none != nil {
		t.Errorf("no child = %v, %v, want nil", none, err)
	}
	if err := stub.Call(ctx, "child", &none, -1); CodeOf(err) != OutOfRange {
		t.Errorf("child(-1) = %v, want out_of_range", err)
	}
	if err := stub.Call(ctx, "depth", &none); CodeOf(err) != Internal {
		t.Errorf("a number for a service = %v, want internal", err)
	}
	if err := stub.Call(ctx, "unlock", &none); CodeOf(err) != Internal {
		t.Errorf("a service that cannot be exposed = %v, want internal", err)
	}
	// Both ways that give a result later.
	var later *Stub
	if err := stub.Go(ctx, "child", &later, 1).Wait(ctx); err != nil {
		t.Error(err)
	}
	typed, err := Method[struct{ By int }, *Stub](stub, "child")(ctx, struct{ By int }{3})
	if err != nil || typed == nil {
		t.Fatalf("Method = %v, %v, want a stub", typed, err)
	}
	if err := child.Release(ctx); err != nil {
		t.Error(err)
	}
	for _, s := range []*Stub{child, grandchild} {
		if err := s.Call(ctx, "depth", &depth); CodeOf(err) != FailedPrecondition {
			t.Errorf("call of a released service = %v, want failed_precondition", err)
		}
		if err := s.Get(ctx, "label", &label); CodeOf(err) != FailedPrecondition {
			t.Errorf("reading of a released service = %v, want failed_precondition", err)
		}
		if _, err := Method[struct{}, int](s, "depth")(ctx, struct{}{}); CodeOf(err) != FailedPrecondition {
			t.Errorf("typed call of a released service = %v, want failed_precondition", err)
		}
		// The peer has forgotten it, too.
		err := l.peer.call(ctx, wire.TypeCall, depthCall(l.peer, s.definition.ID), nil)
		if want := "Definition with id " + s.definition.ID + " not found"; CodeOf(err) != NotFound || !strings.Contains(err.Error(), want) {
			t.Errorf("a call of what nobody holds = %v, want %q", err, want)
		}
	}
	// Releasing twice, and what has a name, does nothing but release the children.
	for _, s := range []*Stub{child, stub, stub} {
		if err := s.Release(ctx); err != nil {
			t.Errorf("Release = %v, want nil", err)
		}
	}
	if err := stub.Call(ctx, "depth", &depth); err != nil {
		t.Errorf("call of a named service after Release = %v, want nil", err)
	}
	wantEmpty(t, l.far, "all was released")
}

// depthCall returns a call of the method depth of whatever has that id.
func depthCall(p *Peer, id string) *mux.Call {
	c := p.link().NewCall()
	c.B = codec.AppendString(codec.AppendString(codec.AppendArrayHeader(c.B, 2), id), "depth")
	return c
}

// TestReferencesAreCounted checks that a service which was sent several times lives
// until it was given back as often, by each peer.
func TestReferencesAreCounted(t *testing.T) {
	l, stub := newTrees(t, Config{})
	ctx := t.Context()
	other := link(t, newEndpoint(t, Config{ID: "other"}), l.far)
	theirs, err := other.peer.Service(ctx, "tree")
	if err != nil {
		t.Fatal(err)
	}
	var a, b, c *Stub
	for _, call := range []struct {
		of *Stub
		to **Stub
	}{{stub, &a}, {stub, &b}, {theirs, &c}} {
		if err := call.of.Call(ctx, "same", call.to); err != nil {
			t.Fatal(err)
		}
	}
	if a.definition.ID != b.definition.ID || a.definition.ID != c.definition.ID {
		t.Error("one service has several definitions, want one while it lives")
	}
	if err := a.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if err := b.Call(ctx, "depth", nil); err != nil {
		t.Errorf("call after one of two references was given back = %v, want nil", err)
	}
	if err := b.Release(ctx); err != nil {
		t.Fatal(err)
	}
	// What a peer does not hold it cannot reach, nor give back for another.
	if err := l.peer.call(ctx, wire.TypeCall, depthCall(l.peer, c.definition.ID), nil); CodeOf(err) != NotFound {
		t.Errorf("a call of what another peer holds = %v, want not_found", err)
	}
	for _, id := range []any{c.definition.ID, stub.definition.ID, "", 5, nil} {
		if err := l.peer.RunTask(ctx, "unref_service", nil, id); err != nil {
			t.Errorf("unref_service(%v) = %v, want nil", id, err)
		}
	}
	if err := l.peer.RunTask(ctx, "unref_service", nil); err != nil {
		t.Errorf("unref_service without an id = %v, want nil", err)
	}
	if err := c.Call(ctx, "depth", nil); err != nil {
		t.Errorf("call by a peer that holds it = %v, want nil", err)
	}
	if err := other.peer.Close(); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, l.far, "the connection of who held it has ended")
	if err := c.Call(ctx, "depth", nil); CodeOf(err) != Unavailable {
		t.Errorf("call after the connection = %v, want unavailable", err)
	}
	if err := c.Release(ctx); err != nil {
		t.Errorf("Release after the connection = %v, want nil", err)
	}
}

func TestMaxReferences(t *testing.T) {
	l, stub := newTrees(t, Config{MaxReferences: 2})
	ctx := t.Context()
	var first, last *Stub
	for _, to := range []**Stub{&first, &last} {
		if err := stub.Call(ctx, "child", to, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := stub.Call(ctx, "same", &last); CodeOf(err) != ResourceExhausted {
		t.Errorf("a third service = %v, want resource_exhausted", err)
	}
	if err := first.Release(ctx); err != nil {
		t.Fatal(err)
	}
	if err := stub.Call(ctx, "same", &last); err != nil {
		t.Errorf("a service after one was given back = %v, want nil", err)
	}
	if err := l.peer.Close(); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, l.far, "the connection has ended")
}

func TestServiceAsArgument(t *testing.T) {
	l, stub := newTrees(t, Config{})
	ctx := t.Context()
	other := link(t, l.near, newEndpoint(t, Config{ID: "other"}))
	if err := other.far.Expose("tree", &tree{}); err != nil {
		t.Fatal(err)
	}
	strange, err := other.peer.Service(ctx, "tree")
	if err != nil {
		t.Fatal(err)
	}
	client, err := Query[treeClient](ctx, l.peer, "tree")
	if err != nil {
		t.Fatal(err)
	}
	child, err := client.Child(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if depth, err := child.Depth(ctx); err != nil || depth != 1 {
		t.Errorf("Depth = %v, %v, want 1", depth, err)
	}
	if none, err := client.Child(ctx, 0); none != nil || err != nil {
		t.Errorf("Child(0) = %v, %v, want nil", none, err)
	}
	released, err := client.Child(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := released.Service.Release(ctx); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		arg  any
		want string
		code Code
	}{
		{"a named one", stub, "tree@1.0.0", 0},
		{"a nested one", child.Service, "tree@1.0.0", 0},
		{"none", (*Stub)(nil), "none", 0},
		{"null", nil, "none", 0},
		{"undefined", codec.Undefined{}, "none", 0},
		{"of another peer", strange, "service tree is not one of the peer that is called", InvalidArgument},
		{"of this side", newTree(t, 1), "a service of this side cannot be passed", InvalidArgument},
		{"released", released.Service, "was released", InvalidArgument},
		{"unknown", codec.Reference{DefID: strange.definition.ID}, "Definition with id " + strange.definition.ID + " not found", NotFound},
		{"no reference", 5, "it is not a reference", InvalidArgument},
	}
	for _, tt := range tests {
		var got string
		err := stub.Call(ctx, "which", &got, tt.arg, "more")
		if tt.code == 0 {
			if err != nil || got != tt.want {
				t.Errorf("which(%s) = %q, %v, want %q", tt.name, got, err, tt.want)
			}
		} else if CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("which(%s) = %v, want %v with %q", tt.name, err, tt.code, tt.want)
		}
	}
	if got, err := client.Which(ctx, child.Service); err != nil || got != "tree@1.0.0" {
		t.Errorf("Which = %q, %v, want tree@1.0.0", got, err)
	}
	if _, err := client.Which(ctx, strange); CodeOf(err) != InvalidArgument {
		t.Errorf("Which of another peer's = %v, want invalid_argument", err)
	}
	if got, err := client.Which(ctx, nil); err != nil || got != "none" {
		t.Errorf("Which(nil) = %q, %v, want none", got, err)
	}
	// What goes to the callee and comes back is the same service.
	if same, err := client.Pass(ctx, child.Service); err != nil || same.definition.ID != child.Service.definition.ID {
		t.Errorf("Pass = %v, %v, want the service that was passed", same, err)
	}
	if same, err := client.Pass(ctx, stub); err != nil || same.definition.ID != stub.definition.ID {
		t.Errorf("Pass of a named one = %v, %v, want it", same, err)
	}
	if err := client.Service.Release(ctx); err != nil {
		t.Error(err)
	}
	wantEmpty(t, l.far, "the root of all clients was released")
}

// TestHandleWithServices checks the arguments and results of a method without a Go
// value.
func TestHandleWithServices(t *testing.T) {
	l := link(t, newEndpoint(t, Config{ID: "near"}), newEndpoint(t, Config{ID: "far"}))
	s := NewService("shop", "")
	Handle(s, "open", func(context.Context, *struct{}) (*Service, error) { return newTree(t, 4), nil })
	Handle(s, "name", func(_ context.Context, args *struct {
		S *Service
		N int `msgpack:"n,omitempty"`
	},
	) (string, error) {
		return fmt.Sprint(args.S.Name(), args.N), nil
	})
	Handle(s, "close", func(context.Context, *struct{ S *Service }) (struct{}, error) { return struct{}{}, nil })
	if err := l.far.ExposeService(s); err != nil {
		t.Fatal(err)
	}
	if err := l.far.AddTask("open", func(context.Context) *Service { return newTree(t, 9) }); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	stub, err := l.peer.Service(ctx, "shop")
	if err != nil {
		t.Fatal(err)
	}
	var opened, fromTask *Stub
	if err := stub.Call(ctx, "open", &opened); err != nil {
		t.Fatal(err)
	}
	if err := l.peer.RunTask(ctx, "open", &fromTask); err != nil {
		t.Fatal(err)
	}
	var depth int
	if err := fromTask.Call(ctx, "depth", &depth); err != nil || depth != 9 {
		t.Errorf("depth of what a task returned = %d, %v, want 9", depth, err)
	}
	var name string
	if err := stub.Call(ctx, "name", &name, opened, 3); err != nil || name != "tree3" {
		t.Errorf("name = %q, %v, want tree3", name, err)
	}
	if err := stub.Call(ctx, "name", &name, opened); err != nil || name != "tree0" {
		t.Errorf("name = %q, %v, want tree0", name, err)
	}
	var v any
	if err := stub.Call(ctx, "close", &v, opened); err != nil || v != nil {
		t.Errorf("close = %v, %v, want nothing", v, err)
	}
	if opened.definition.ParentID != stub.definition.ID || fromTask.definition.ParentID != "" {
		t.Errorf("parents = %q and %q, want that of the service, and none", opened.definition.ParentID, fromTask.definition.ParentID)
	}
	for _, s := range []*Stub{stub, fromTask} {
		if err := s.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	wantEmpty(t, l.far, "all was released")
}

// TestRelay checks a service of one peer that another reaches through this side.
func TestRelay(t *testing.T) {
	ctx := t.Context()
	middle := newEndpoint(t, Config{ID: "middle"})
	up := link(t, middle, newEndpoint(t, Config{ID: "up"}))
	root := &tree{depth: 1}
	root.Label.OnSet(func(_ context.Context, s string) error {
		if s == "bad" {
			return &Error{Name: "RangeError", Message: "bad label", Fields: map[string]any{"code": "E_LABEL"}}
		}
		return nil
	})
	if err := up.far.Expose("tree@2.0.0", root); err != nil {
		t.Fatal(err)
	}
	upstream, err := up.peer.Service(ctx, "tree")
	if err != nil {
		t.Fatal(err)
	}
	if err := middle.Expose("tree@1.0.0", &tree{foreign: upstream}); err != nil {
		t.Fatal(err)
	}
	down := link(t, newEndpoint(t, Config{ID: "down"}), middle)
	gate, err := down.peer.Service(ctx, "tree")
	if err != nil {
		t.Fatal(err)
	}
	var far *Stub
	if err := gate.Call(ctx, "foreign", &far); err != nil {
		t.Fatal(err)
	}
	if d := far.definition; d.ID == upstream.definition.ID || d.PeerID != "middle" || d.Meta.Version != "2.0.0" || d.ParentID != gate.definition.ID {
		t.Errorf("definition = %+v, want one of the node in the middle", d)
	}
	var depth int
	if err := far.Call(ctx, "depth", &depth); err != nil || depth != 1 {
		t.Errorf("depth = %d, %v, want 1", depth, err)
	}
	var label string
	if err := errors.Join(far.Set(ctx, "label", "x"), far.Get(ctx, "label", &label)); err != nil || label != "x" || root.Label.Get() != "x" {
		t.Errorf("label = %q, %v, want x", label, err)
	}
	err = far.Set(ctx, "label", "bad")
	if e, ok := errors.AsType[*Error](err); !ok || e.Name != "RangeError" || e.Message != "bad label" || e.Fields["code"] != "E_LABEL" {
		t.Errorf("Set = %#v, want the error of the owner unchanged", err)
	}
	// Nested ones, results and arguments.
	var child, same *Stub
	if err := far.Call(ctx, "child", &child, 4); err != nil {
		t.Fatal(err)
	}
	if err := child.Call(ctx, "depth", &depth); err != nil || depth != 5 {
		t.Errorf("depth of a nested service = %d, %v, want 5", depth, err)
	}
	var which string
	if err := far.Call(ctx, "which", &which, child, "x"); err != nil || which != "tree@1.0.0" {
		t.Errorf("which = %q, %v, want tree@1.0.0", which, err)
	}
	if err := far.Call(ctx, "which", &which, gate); CodeOf(err) != InvalidArgument {
		t.Errorf("which(a service of the middle) = %v, want invalid_argument", err)
	}
	if err := far.Call(ctx, "which", &which, codec.Reference{DefID: upstream.definition.ID}); CodeOf(err) != NotFound {
		t.Errorf("which(unknown) = %v, want not_found", err)
	}
	if err := gate.Call(ctx, "ask", &depth, child); err != nil || depth != 5 {
		t.Errorf("ask = %d, %v, want 5", depth, err)
	}
	if err := gate.Call(ctx, "ask", &depth, gate); CodeOf(err) != InvalidArgument {
		t.Errorf("ask(a service of its own) = %v, want invalid_argument", err)
	}
	if err := far.Call(ctx, "pass", &same, child); err != nil {
		t.Error(err)
	}
	if err := gate.Release(ctx); err != nil {
		t.Error(err)
	}
	wantEmpty(t, middle, "all was released")
	wantEmpty(t, up.far, "what was held by the middle for its peer was released")
	// The loss of a connection does the same.
	if err := errors.Join(gate.Call(ctx, "foreign", &far), far.Call(ctx, "child", &child, 4)); err != nil {
		t.Fatal(err)
	}
	if err := down.peer.Close(); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, middle, "the peer has gone")
	wantEmpty(t, up.far, "the peer of the middle has gone")
}

// TestRelease gives back services by whatever holds them.
func TestRelease(t *testing.T) {
	ctx := t.Context()
	l := link(t, newEndpoint(t, Config{}), newEndpoint(t, Config{}))
	if err := l.far.Expose("tree", &tree{depth: 1}); err != nil {
		t.Fatal(err)
	}
	root, err := l.peer.Service(ctx, "tree")
	if err != nil {
		t.Fatal(err)
	}
	type treeClient struct {
		Depth   func(context.Context) (int, error)
		Service *Stub
	}
	var stub *Stub
	if err := root.Call(ctx, "child", &stub, 5); err != nil {
		t.Fatal(err)
	}
	parent, err := Query[struct {
		Child func(context.Context, int) (*treeClient, error)
	}](ctx, l.peer, "tree")
	if err != nil {
		t.Fatal(err)
	}
	client, err := parent.Child(ctx, 5)
	if err != nil {
		t.Fatal(err)
	}
	for name, what := range map[string]any{"stub": stub, "client": client} {
		for range 2 {
			if err := Release(ctx, what); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := client.Depth(ctx); CodeOf(err) != FailedPrecondition {
		t.Errorf("a call of what was released: %v", err)
	}
	wantEmpty(t, l.far, "all was released")
	for name, what := range map[string]any{"nil stub": (*Stub)(nil), "nil client": (*treeClient)(nil), "client of nothing": &treeClient{}} {
		if err := Release(ctx, what); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, what := range map[string]any{"nil": nil, "no client": 5, "no stub": &struct{ A int }{}, "no pointer": treeClient{Service: stub}} {
		if err := Release(ctx, what); CodeOf(err) != InvalidArgument {
			t.Errorf("%s: %v, want invalid_argument", name, err)
		}
	}
}

// TestRelayMeta checks what goes on with a request to another peer, and what does not.
func TestRelayMeta(t *testing.T) {
	ctx := t.Context()
	hub := newEndpoint(t, Config{ID: "hub", MaxExposedServices: 1})
	owner := link(t, newEndpoint(t, Config{ID: "owner"}), hub)
	user := link(t, newEndpoint(t, Config{ID: "user"}), hub)
	began, ended := make(chan Header, 1), make(chan error, 1)
	s := NewService("far", "1.0.0")
	Handle(s, "look", func(ctx context.Context, wait *struct{ Wait bool }) (bool, error) {
		began <- HeaderFrom(ctx)
		_, limited := ctx.Deadline()
		if wait.Wait {
			<-ctx.Done()
			ended <- ctx.Err()
		}
		return limited, nil
	})
	if err := owner.peer.Publish(ctx, s); err != nil {
		t.Fatal(err)
	}
	far, err := user.peer.Service(ctx, "far")
	if err != nil {
		t.Fatal(err)
	}
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	traced := WithHeader(WithHeader(ctx, TraceParent, trace), "authorization", "secret")
	limited, cancel := context.WithTimeout(traced, time.Hour)
	defer cancel()
	for want, ctx := range map[bool]context.Context{false: traced, true: limited} {
		var got bool
		if err := far.Call(ctx, "look", &got, false); err != nil || got != want {
			t.Errorf("the owner sees a deadline: %v, %v, want %v", got, err, want)
		}
		if h := <-began; len(h) != 1 || h[TraceParent] != trace {
			t.Errorf("the owner sees the headers %v, want the trace alone", h)
		}
	}
	given, giveUp := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- far.Call(given, "look", nil, true) }()
	<-began
	giveUp()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ends with %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler of the owner ends with %v", err)
	}
}
