package discover

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

func wantIDs(t testing.TB, what string, get func() []Node, want ...string) {
	t.Helper()
	var got []string
	defer func() {
		if t.Failed() {
			t.Logf("%s are %v, want %v", what, got, want)
		}
	}()
	eventually(t, fmt.Sprintf("%s are %v", what, want), func() bool {
		got = ids(get())
		return slices.Equal(got, want)
	})
}

func find(r *Registry, query string) func() []Node { return func() []Node { return r.Find(query) } }

func TestRegistry(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t, ctx := w.t, context.Background()
		a := w.node(quick(), Node{
			ID: "a", Address: "wss://a.example:8443", Services: services("shop@1.2.0", "shop@1.0.0", "mail"),
			Metadata: map[string]string{"arch": "arm"}, Zone: "north", Weight: 7,
		})
		b := w.node(quick(), Node{ID: "b", Address: "10.0.0.2:8080", Services: services("shop@2.0.0")})
		for _, r := range []*Registry{a, b} {
			wantIDs(t, "all", r.Nodes, "a", "b")
			wantIDs(t, "those of any version", find(r, "shop"), "a", "b")
			wantIDs(t, "those of a range", find(r, "shop@^1.1"), "a")
			wantIDs(t, "those of a version", find(r, "shop@2.0.0"), "b")
			wantIDs(t, "those without a version", find(r, "mail@*"), "a")
			wantIDs(t, "those of nobody", find(r, "nobody"))
		}
		n, ok := b.Node("a")
		want := Node{
			ID: "a", Address: "a.example:8443", Scheme: "wss", Services: services("mail", "shop@1.0.0", "shop@1.2.0"),
			Metadata: map[string]string{"arch": "arm"}, Zone: "north", Weight: 7,
		}
		if diff := cmp.Diff(want, n, cmpopts.IgnoreFields(Node{}, "Instance", "Started", "Updated")); !ok || diff != "" {
			t.Errorf("Node(a) differs (-want +got):\n%s", diff)
		}
		if n.Instance == "" || n.Started.IsZero() || n.Updated.IsZero() || n.URL() != "wss://a.example:8443" {
			t.Errorf("Node(a) = %+v", n)
		}

		if err := a.SetServices(ctx, Service{Name: "mail", Version: "3.0.0"}); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Fresh(ctx, "mail@3"); err != nil || len(got) != 1 {
			t.Errorf("Fresh() after SetServices = %v, %v", got, err)
		}
		wantIDs(t, "those of a name that was given up", find(b, "shop"), "b")
		err := a.Update(ctx, func(n *Node) { n.Weight, n.ID, n.Metadata["x"], n.Address = 8, "other", "y", "h:1" })
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the node has changed", func() bool {
			n, _ := b.Node("a")
			return n.Weight == 8 && n.Metadata["x"] == "y" && n.URL() == "wss://h:1"
		})

		if err := a.Deregister(ctx); err != nil {
			t.Fatal(err)
		}
		if got, err := b.Fresh(ctx, "mail@3"); err != nil || len(got) != 0 && !got[0].Suspect {
			t.Errorf("Fresh() after Deregister = %v, %v", got, err)
		}
		wantIDs(t, "those who stay", b.Nodes, "b")
		register(t, a, Node{ID: "c"})
		wantIDs(t, "all", b.Nodes, "b", "c")
		if err := errors.Join(a.Close(ctx), a.Close(ctx)); err != nil {
			t.Errorf("Close() = %v", err)
		}
		wantIDs(t, "those who stay", b.Nodes, "b")
		if err := a.Register(ctx, Node{ID: "c", Address: "h:1"}); !errors.Is(err, ErrClosed) {
			t.Errorf("Register() after Close = %v", err)
		}
		if _, err := a.Fresh(ctx, "x"); !errors.Is(err, ErrClosed) {
			t.Errorf("Fresh() after Close = %v", err)
		}
		if err := a.WaitReady(ctx); !errors.Is(err, ErrClosed) && err != nil || !errors.Is(a.Err(), ErrClosed) {
			t.Errorf("WaitReady() after Close = %v, Err() = %v", err, a.Err())
		}
		if b.Err() != nil || b.Age() > patience {
			t.Errorf("Err() = %v, Age() = %v", b.Err(), b.Age())
		}
	})
}

// TestFresh shows that what was written before the call is in the answer.
func TestFresh(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t, ctx := w.t, context.Background()
		a, b := w.node(quick(), Node{ID: "a"}), w.registry(quick())
		for i := range 200 {
			s := Service{Name: "s", Version: fmt.Sprintf("1.0.%d", i)}
			if err := a.SetServices(ctx, s); err != nil {
				t.Fatal(err)
			}
			if got, err := b.Fresh(ctx, s.QualifiedName()); err != nil || len(got) != 1 {
				t.Fatalf("Fresh(%s) = %v, %v; Nodes() = %v", s.QualifiedName(), got, err, b.Nodes())
			}
		}
		if _, err := b.Fresh(ctx, "s@a b"); codeOf(err) != code.InvalidArgument {
			t.Errorf("Fresh() of nonsense = %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := b.Fresh(gone, "s"); !errors.Is(err, context.Canceled) || codeOf(err) != code.Canceled {
			t.Errorf("Fresh() with a canceled context = %v", err)
		}
	})
}

func codeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return 0
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t, ctx := w.t, context.Background()
		a := w.registry(quick())
		if err := a.Update(ctx, func(*Node) {}); codeOf(err) != code.FailedPrecondition {
			t.Errorf("Update() without a node = %v", err)
		}
		for _, n := range []Node{
			{ID: "", Address: "h:1"},
			{ID: "a\xff", Address: "h:1"},
			{ID: "a", Address: ""},
			{ID: "a", Address: "h"},
			{ID: "a", Address: ":1"},
			{ID: "a", Address: "http://h:1"},
			{ID: "a", Address: "ws://h:1/path"},
			{ID: "a", Address: "h:1", Scheme: "http"},
			{ID: "a", Address: "h:1", Weight: -1},
			{ID: "a", Address: "h:1", Zone: "\xff"},
			{ID: "a", Address: "h:1", Metadata: map[string]string{"a": "\xff"}},
			{ID: "a", Address: "h:1", Services: []Service{{Name: "a@b"}}},
			{ID: "a", Address: "h:1", Services: []Service{{}}},
			{ID: "a", Address: "h:1", Services: make([]Service, 1001)},
			{ID: "a", Address: "h:1", Metadata: map[string]string{"a": string(make([]byte, 1<<20))}},
		} {
			if err := a.Register(ctx, n); codeOf(err) != code.InvalidArgument {
				t.Errorf("Register(%.200v) = %v", n, err)
			}
		}
		register(t, a, Node{ID: "a", Weight: 1})
		if err := a.Register(ctx, Node{ID: "b", Address: "h:1"}); codeOf(err) != code.FailedPrecondition {
			t.Errorf("Register() of a second node = %v", err)
		}
		if err := a.Update(ctx, func(n *Node) { n.Weight = -1 }); codeOf(err) != code.InvalidArgument {
			t.Errorf("Update() to nonsense = %v", err)
		}
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if err := a.Update(gone, func(n *Node) { n.Weight = 2 }); !errors.Is(err, context.Canceled) {
			t.Errorf("Update() with a canceled context = %v", err)
		}
		if n, ok := a.Node("a"); ok && n.Weight != 1 {
			t.Errorf("Node(a) = %v", n)
		}
	})
}

// TestDeath shows that a node whose heartbeat ends is suspect, then gone.
func TestDeath(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t := w.t
		cfg := quick()
		cfg.TTL, cfg.Grace = 500*time.Millisecond, 300*time.Millisecond
		a, b, c := w.node(cfg, Node{ID: "a", Services: services("s")}), w.node(cfg, Node{ID: "b", Services: services("s")}), w.registry(cfg)
		wantIDs(t, "all", c.Nodes, "a", "b")
		kill(a)
		wantIDs(t, "those with one suspect", c.Nodes, "b", "a?")
		wantIDs(t, "those of the service", find(c, "s"), "b", "a?")
		for range 100 {
			if n, _ := c.FindOne("s"); n.ID != "b" && len(c.Find("s")) == 2 {
				t.Fatalf("FindOne() = %v, which is suspect", n)
			}
		}
		wantIDs(t, "those who live", c.Nodes, "b")
		wantIDs(t, "those who live", find(b, "s"), "b")
		if st := c.Stats(); st.Nodes != 1 || st.Suspect != 0 || st.Refused+st.Odd+st.Malformed != 0 {
			t.Errorf("Stats() = %+v", st)
		}
	})
}

// kill ends a registry without a word.
func kill(r *Registry) {
	r.own.mu.Lock()
	r.own.node = nil
	r.own.mu.Unlock()
	r.Close(context.Background())
}

// TestOneID has two processes with one id.
func TestOneID(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t, ctx := w.t, context.Background()
		a := w.node(quick(), Node{ID: "x", Address: "a:1"})
		events := watch(t, a)
		c := w.registry(quick())
		b := w.node(quick(), Node{ID: "x", Address: "b:1"})
		at := func(address string) func() bool {
			return func() bool {
				n, ok := c.Node("x")
				return ok && n.Address == address && !n.Suspect
			}
		}
		eventually(t, "the later one has the id", at("b:1"))
		events.want(IDTaken, "x")
		if st := a.Stats(); !errors.Is(a.Err(), ErrTaken) || st.Conflicts != 1 || st.Takeovers != 0 {
			t.Errorf("the earlier one: %v, %+v", a.Err(), st)
		}
		if st := b.Stats(); b.Err() != nil || st.Conflicts != 0 || st.Takeovers != 1 {
			t.Errorf("the later one: %v, %+v", b.Err(), st)
		}
		beats := a.Stats().Beats
		eventually(t, "the earlier one tries again", func() bool { return a.Stats().Beats > beats+3 })
		if !at("b:1")() {
			t.Error("the earlier one has the id back")
		}
		other := w.node(quick(), Node{ID: "y"})
		announced := b.Stats().Announced
		a2 := w.node(quick(), Node{ID: "x", Address: "c:1"})
		events2 := watch(t, c)
		eventually(t, "the last one has the id", at("c:1"))
		eventually(t, "the one before notices", func() bool { return errors.Is(b.Err(), ErrTaken) })
		if err := b.Close(ctx); err != nil || b.Stats().Announced != announced || !at("c:1")() {
			t.Errorf("Close() of one without its id = %v, %+v", err, b.Stats())
		}
		other.Close(ctx)
		events2.want(NodeLeft, "y")
		if err := a2.Close(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the earlier one has the id back", at("a:1"))
		eventually(t, "its error ends", func() bool { return a.Err() == nil })
		if err := a.Close(ctx); err != nil {
			t.Fatal(err)
		}
		wantIDs(t, "all", c.Nodes)
	})
}

func TestStatic(t *testing.T) {
	t.Parallel()
	r, err := NewStatic(
		Node{ID: "b", Address: "b:1", Services: services("s@1.0.0")},
		Node{ID: "a", Address: "a:1", Services: services("s@2.0.0", "t")},
	)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, r)
	wantIDs(t, "all", r.Nodes, "a", "b")
	wantIDs(t, "those of a range", find(r, "s@^1"), "b")
	if got, err := r.Fresh(context.Background(), "t"); err != nil || len(got) != 1 {
		t.Errorf("Fresh() = %v, %v", got, err)
	}
	register(t, r, Node{ID: "c", Services: services("t")})
	wantIDs(t, "those with the own one", find(r, "t"), "a", "c")
	if _, err := NewStatic(Node{ID: "a"}); codeOf(err) != code.InvalidArgument {
		t.Errorf("NewStatic() of nonsense = %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{
		{URL: "http://127.0.0.1"},
		{URL: "redis://:secret word@h"},
		{URL: "redis://h/x"},
		{Addrs: []string{"nowhere"}},
		{Prefix: string(make([]byte, 300))},
		{Heartbeat: time.Second, TTL: 2 * time.Second},
		{Heartbeat: time.Nanosecond},
	} {
		r, err := New(cfg)
		if codeOf(err) != code.InvalidArgument {
			t.Errorf("New(%+v) = %v", cfg, err)
		}
		if r != nil {
			closeLater(t, r)
		}
	}
}

// TestLater registers and updates without waiting.
func TestLater(t *testing.T) {
	t.Parallel()
	eachWorld(t, func(w *world) {
		t, ctx := w.t, context.Background()
		a, b := w.registry(quick()), w.registry(quick())
		<-a.Ready()
		n := Node{ID: "a", Address: "h:1", Services: services("shop@1.0.0")}
		for _, bad := range []Node{{}, {ID: "a", Address: "h"}, {ID: "a", Address: "h:1", Weight: -1}} {
			if err := a.Check(bad); codeOf(err) != code.InvalidArgument {
				t.Errorf("Check(%v) = %v", bad, err)
			}
			if err := a.RegisterLater(bad); codeOf(err) != code.InvalidArgument {
				t.Errorf("RegisterLater(%v) = %v", bad, err)
			}
		}
		if err := a.Check(n); err != nil {
			t.Error(err)
		}
		if err := a.UpdateLater(func(*Node) {}); codeOf(err) != code.FailedPrecondition {
			t.Errorf("UpdateLater() without a node = %v", err)
		}
		if err := a.RegisterLater(n); err != nil {
			t.Fatal(err)
		}
		wantReady(t, a)
		if got, err := b.Fresh(ctx, "shop@1"); err != nil || len(got) != 1 {
			t.Errorf("Fresh() after WaitReady = %v, %v", got, err)
		}
		for v := range 20 {
			if err := a.UpdateLater(func(n *Node) { n.Services = services(fmt.Sprintf("shop@2.%d.0", v)) }); err != nil {
				t.Fatal(err)
			}
		}
		wantIDs(t, "those of the last version", find(b, "shop@2.19"), "a")
		if err := a.UpdateLater(func(n *Node) { n.Address = "" }); codeOf(err) != code.InvalidArgument {
			t.Errorf("UpdateLater() to no address = %v", err)
		}
		if err := a.UpdateLater(func(n *Node) { n.Weight = 7 }); err != nil {
			t.Fatal(err)
		}
		if err := a.Deregister(ctx); err != nil {
			t.Fatal(err)
		}
		wantIDs(t, "those that are left", b.Nodes)
		time.Sleep(3 * quick().Heartbeat)
		wantIDs(t, "those that are left", b.Nodes)
		if err := a.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if err := a.RegisterLater(n); !errors.Is(err, ErrClosed) {
			t.Errorf("RegisterLater() after Close = %v", err)
		}
	})
}

// TestLaterRefused registers with a Redis that refuses it, and does not mind later.
func TestLaterRefused(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	admin := newRaw(t, s)
	admin.do("CONFIG", "SET", "requirepass", "secret") // its own connection stays as it is
	cfg := quick()
	cfg.URL = s.URL()
	r := start(t, cfg)
	if err := r.RegisterLater(Node{ID: "a", Address: "h:1"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it says that it was refused", func() bool { return codeOf(r.Err()) == code.Unauthenticated })
	admin.do("CONFIG", "SET", "requirepass", "")
	wantReady(t, r)
	wantIDs(t, "all", r.Nodes, "a")
}

// TestLongNames registers services whose names are as long as those of package rpc may be.
func TestLongNames(t *testing.T) {
	r, err := NewMemory(nil, Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	for _, tt := range []struct {
		name, version int
		ok            bool
	}{{255, 0, true}, {256, 0, false}, {249, 5, true}, {250, 5, false}} {
		s := Service{Name: strings.Repeat("n", tt.name), Version: "1.0.0"[:tt.version]}
		if err := r.Check(Node{ID: "a", Address: "a:1", Services: []Service{s}}); (err == nil) != tt.ok {
			t.Errorf("Check() of a name of %d bytes and a version of %d = %v", tt.name, tt.version, err)
		}
	}
}
