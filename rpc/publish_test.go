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
)

// wantServices waits until an endpoint has these services.
func wantServices(t testing.TB, e *Endpoint, want, why string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		got := fmt.Sprint(e.Services())
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("services of %s = %s, want %s: %s", e.ID(), got, want, why)
		}
	}
}

func TestPublish(t *testing.T) {
	ctx := t.Context()
	hub := newEndpoint(t, Config{ID: "hub", MaxExposedServices: 2})
	owner := link(t, newEndpoint(t, Config{ID: "owner"}), hub)
	user := link(t, newEndpoint(t, Config{ID: "user"}), hub)
	seen := 0
	owner.near.UseOutgoing(func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) {
			if r.Member() == taskExposeService {
				seen++
			}
			return next(ctx, r)
		}
	})
	s := newTree(t, 3)
	if err := owner.peer.Publish(ctx, s); err != nil {
		t.Fatal(err)
	}
	if seen != 1 {
		t.Errorf("middleware saw %d requests, want the one of Publish", seen)
	}
	for _, name := range []string{"tree", "tree@1.0.0", "tree@*"} {
		stub, err := user.peer.Service(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if stub.definition.PeerID != "owner" {
			t.Errorf("owner of %s = %s, want the peer that exposed it", name, stub.definition.PeerID)
		}
		var depth int
		if err := stub.Call(ctx, "depth", &depth); err != nil || depth != 3 {
			t.Errorf("depth of %s = %d, %v, want 3", name, depth, err)
		}
		var label string
		if err := errors.Join(stub.Set(ctx, "label", name), stub.Get(ctx, "label", &label)); err != nil || label != name {
			t.Errorf("label = %q, %v, want %s", label, err, name)
		}
		var child *Stub
		if err := stub.Call(ctx, "child", &child, 1); err != nil {
			t.Fatal(err)
		}
		var which string
		if err := stub.Call(ctx, "which", &which, child); err != nil || which != "tree@1.0.0" {
			t.Errorf("which = %q, %v, want tree@1.0.0", which, err)
		}
		if err := stub.Call(ctx, "child", &child, -1); CodeOf(err) != OutOfRange || !strings.Contains(err.Error(), "negative") {
			t.Errorf("child(-1) = %v, want the error of the owner", err)
		}
		if err := stub.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	wantEmpty(t, hub, "all was released")
	wantEmpty(t, owner.near, "all was released")

	// Names belong to whoever took them first.
	if err := owner.peer.Publish(ctx, newTree(t, 1)); CodeOf(err) != AlreadyExists {
		t.Errorf("Publish of a taken name = %v, want already_exists", err)
	}
	if err := user.peer.RunTask(ctx, "unexpose_service", nil, "tree"); CodeOf(err) != PermissionDenied {
		t.Errorf("unexpose_service by another peer = %v, want permission_denied", err)
	}
	if err := user.peer.Unpublish(ctx, "tree@1.0.0"); CodeOf(err) != NotFound {
		t.Errorf("Unpublish by another peer = %v, want not_found", err)
	}
	if err := owner.peer.RunTask(ctx, "unexpose_service", nil, "nobody"); CodeOf(err) != NotFound {
		t.Errorf("unexpose_service of what is not there = %v, want not_found", err)
	}
	if err := owner.peer.Unpublish(ctx, "tree@1.0.0"); err != nil {
		t.Fatal(err)
	}
	wantServices(t, hub, "[]", "it was taken back")
	if err := owner.peer.Unpublish(ctx, "tree@1.0.0"); CodeOf(err) != NotFound {
		t.Errorf("second Unpublish = %v, want not_found", err)
	}

	// The limit, and the end of the connection.
	second, err := NewServiceOf("second", &tree{})
	if err != nil {
		t.Fatal(err)
	}
	third, err := NewServiceOf("third", &tree{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(owner.peer.Publish(ctx, s), owner.peer.Publish(ctx, second)); err != nil {
		t.Fatal(err)
	}
	if err := owner.peer.Publish(ctx, third); CodeOf(err) != ResourceExhausted {
		t.Errorf("Publish of a third = %v, want resource_exhausted", err)
	}
	if err := hub.Conceal("second"); err != nil { // the node itself may
		t.Error(err)
	}
	if err := owner.peer.Publish(ctx, third); err != nil {
		t.Errorf("Publish after one was concealed = %v, want nil", err)
	}
	stub, err := user.peer.Service(ctx, "third")
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.peer.Close(); err != nil {
		t.Fatal(err)
	}
	wantServices(t, hub, "[]", "the peer has gone")
	if err := stub.Call(ctx, "depth", nil); CodeOf(err) != NotFound {
		t.Errorf("call of a service whose owner has gone = %v, want not_found", err)
	}
	if err := hub.Expose("tree@1.0.0", &tree{}); err != nil {
		t.Errorf("Expose of a name that was given up = %v, want nil", err)
	}
}

func TestPublishErrors(t *testing.T) {
	ctx := t.Context()
	closed := link(t, newEndpoint(t, Config{ID: "owner"}), newEndpoint(t, Config{ID: "hub"}))
	if err := closed.peer.Publish(ctx, newTree(t, 1)); CodeOf(err) != PermissionDenied {
		t.Errorf("Publish at a node that does not allow it = %v, want permission_denied", err)
	}
	for _, task := range []string{"expose_service", "unexpose_service"} {
		err := closed.peer.RunTask(ctx, task, nil, "x")
		if e, ok := errors.AsType[*Error](err); !ok || e.Code.Number() != 403 {
			t.Errorf("%s = %v, want code 403", task, err)
		}
	}
	if err := closed.peer.Publish(ctx, NewService("x", "")); err == nil {
		t.Error("Publish of a service without members = nil, want an error")
	}
	open := link(t, newEndpoint(t, Config{ID: "owner"}), newEndpoint(t, Config{ID: "hub", MaxExposedServices: -1}))
	large := make(map[string]any)
	for i := range maxExposedMembers + 1 {
		if i == maxExposedMembers {
			if err := open.peer.RunTask(ctx, "expose_service", nil, map[string]any{"name": "large", "version": "1.0.0", "methods": large}); err != nil {
				t.Errorf("expose_service with %d members = %v", i, err)
			}
			if err := open.peer.RunTask(ctx, "unexpose_service", nil, "large"); err != nil {
				t.Error(err)
			}
		}
		large[fmt.Sprint("m", i)] = map[string]any{"type": "void", "arguments": []any{}}
	}
	if err := open.peer.RunTask(ctx, "expose_service", nil, map[string]any{"name": "larger", "version": "1.0.0", "methods": large}); CodeOf(err) != ResourceExhausted {
		t.Errorf("expose_service with a member too many = %v, want resource_exhausted", err)
	}
	methods := map[string]any{"m": map[string]any{"type": "void", "arguments": []any{}}}
	for _, meta := range []any{
		nil, 5,
		map[string]any{},
		map[string]any{"name": "a b", "methods": methods},
		map[string]any{"name": "a@1.0.0", "methods": methods},
		map[string]any{"name": "a", "version": "x", "methods": methods},
		map[string]any{"name": "a"},
		map[string]any{"name": "a", "methods": map[string]any{"not valid": map[string]any{}}},
	} {
		if err := open.peer.RunTask(ctx, "expose_service", nil, meta); CodeOf(err) != InvalidArgument {
			t.Errorf("expose_service(%v) = %v, want invalid_argument", meta, err)
		}
	}
	if err := open.peer.RunTask(ctx, "expose_service", nil); CodeOf(err) != InvalidArgument {
		t.Errorf("expose_service without metadata = %v, want invalid_argument", err)
	}
	wantServices(t, open.far, "[]", "nothing was exposed")
}

// TestPublishAtOnce checks that the service is there for a request which overtakes the
// answer that says so.
func TestPublishAtOnce(t *testing.T) {
	ctx := t.Context()
	hub := newEndpoint(t, Config{ID: "hub", MaxExposedServices: 1})
	l := link(t, newEndpoint(t, Config{ID: "owner"}), hub)
	early := make(chan error, 2)
	hub.Use(func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) {
			raw, err := next(ctx, r)
			if r.Member() == taskExposeService && err == nil {
				stub, err := hub.Local().Service(ctx, "tree")
				if err != nil {
					return nil, err
				}
				early <- stub.CallFunc(context.Background(), "depth", func(_ context.Context, _ *Reply, err error) { early <- err })
				time.Sleep(20 * time.Millisecond) // the call is ahead of the answer
			}
			return raw, err
		}
	})
	if err := l.peer.Publish(ctx, newTree(t, 1)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-early, <-early); err != nil {
		t.Errorf("call before the answer = %v, want nil", err)
	}
	// Nobody waits for what is not there.
	err := l.back.call(ctx, wire.TypeCall, depthCall(l.back, "a.name"), nil)
	if CodeOf(err) != NotFound {
		t.Errorf("call of an unknown service = %v, want not_found", err)
	}
}

func TestPeerExpose(t *testing.T) {
	ctx := t.Context()
	hub := newEndpoint(t, Config{ID: "hub"})
	friend := link(t, newEndpoint(t, Config{ID: "friend"}), hub)
	other := link(t, newEndpoint(t, Config{ID: "other"}), hub)
	if err := hub.Expose("tree@1.0.0", &tree{depth: 1}); err != nil {
		t.Fatal(err)
	}
	s, err := NewServiceOf("tree@2.0.0", &tree{depth: 2})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may be exposed again
		if err := friend.back.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		if err := friend.back.ExposeService(s); CodeOf(err) != AlreadyExists {
			t.Errorf("second ExposeService = %v, want already_exists", err)
		}
		var depth int
		stub, err := friend.peer.Service(ctx, "tree")
		if err == nil {
			err = stub.Call(ctx, "depth", &depth)
		}
		if err != nil || depth != 2 {
			t.Errorf("depth of the latest = %d, %v, want 2", depth, err)
		}
		var answer struct{ Services codec.Map }
		if err := friend.peer.RunTask(ctx, "abilities", &answer); err != nil || len(answer.Services) != 2 {
			t.Errorf("abilities = %v, %v, want both services", answer, err)
		}
		if err := other.peer.RunTask(ctx, "abilities", &answer); err != nil || len(answer.Services) != 1 {
			t.Errorf("abilities of another peer = %v, %v, want one service", answer, err)
		}
		if _, err := other.peer.Service(ctx, "tree@2.0.0"); CodeOf(err) != NotFound {
			t.Errorf("Service of another peer = %v, want not_found", err)
		}
		for _, id := range []string{stub.definition.ID, "tree@2.0.0"} {
			if err := friend.peer.RunTask(ctx, "unref_service", nil, id); err != nil {
				t.Error(err)
			}
			if err := friend.peer.call(ctx, wire.TypeCall, depthCall(friend.peer, id), nil); err != nil {
				t.Errorf("call of %s = %v, want nil", id, err)
			}
			if err := other.peer.call(ctx, wire.TypeCall, depthCall(other.peer, id), nil); CodeOf(err) != NotFound {
				t.Errorf("call of %s by another peer = %v, want not_found", id, err)
			}
		}
		if err := friend.back.Conceal("tree@2.0.0"); err != nil {
			t.Error(err)
		}
		if err := stub.Call(ctx, "depth", nil); CodeOf(err) != NotFound {
			t.Errorf("call of a concealed service = %v, want not_found", err)
		}
	}
	if err := friend.back.Expose("tree@1.0.0", &tree{}); CodeOf(err) != AlreadyExists {
		t.Errorf("Expose of a name that all see = %v, want already_exists", err)
	}
	for _, p := range []*Peer{friend.back, other.back} {
		if err := p.Conceal("tree@1.0.0"); CodeOf(err) != NotFound {
			t.Errorf("Conceal = %v, want not_found: it is not this peer's own", err)
		}
	}
	if err := other.back.Expose("tree@3.0.0", nil); err == nil {
		t.Error("Expose(nil) = nil, want an error")
	}
}
