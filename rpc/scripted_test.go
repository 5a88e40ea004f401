package rpc

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// scripted is a peer whose other side is the test: it answers tasks as the script
// says, and notes which were run.
type scripted struct {
	*Peer
	t testing.TB

	mu   sync.Mutex
	runs []string // task and arguments; guarded by mu
}

// newScripted returns a peer of some kind, as the endpoint that calls it sees it.
func newScripted(t testing.TB, kind mux.Kind, script map[string]func(arg any) (any, error)) *scripted {
	t.Helper()
	e, far := newEndpoint(t, Config{ID: "near"}), newEndpoint(t, Config{ID: "far"})
	sp := &scripted{Peer: e.NewPeer(true), t: t}
	nearConn := newConn(e, sp.Peer)
	near := nearConn.config(mux.Hint{})
	near.Ready = func(*mux.Session, mux.Peer) {
		info := &mux.Peer{ID: "far", Kind: kind}
		nearConn.info.Store(info)
	}
	other := far.NewPeer(false)
	otherConn := newConn(far, other)
	cfg := otherConn.config(mux.Hint{})
	cfg.Route, cfg.Features = nil, nil
	cfg.Serve = func(r *mux.Request, dst []byte) ([]byte, bool) { return sp.serve(script, r, dst) }
	a, b := mux.Pipe(near, cfg)
	nearConn.attach(a)
	otherConn.attach(b)
	t.Cleanup(func() { _ = sp.Close() })
	return sp
}

func (sp *scripted) serve(script map[string]func(any) (any, error), r *mux.Request, dst []byte) ([]byte, bool) {
	var request []any
	if err := codec.Unmarshal(r.Payload, &request); err != nil {
		return appendError(dst, err), true
	}
	sp.mu.Lock()
	sp.runs = append(sp.runs, strings.TrimSuffix(fmt.Sprintln(request...), "\n"))
	sp.mu.Unlock()
	name, _ := request[0].(string)
	fn := script[name]
	if fn == nil {
		return appendError(dst, Errorf(NotFound, "Task with id %s not found", name)), true
	}
	v, err := fn(request[1])
	if err == nil {
		dst, err = codec.Append(dst, v)
	}
	if err != nil {
		return appendError(dst, err), true
	}
	return dst, false
}

// wantRuns checks which tasks were run since it was called last.
func (sp *scripted) wantRuns(why string, want ...string) {
	sp.t.Helper()
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if !slices.Equal(sp.runs, want) {
		sp.t.Errorf("%s: tasks run = %q, want %q", why, sp.runs, want)
	}
	sp.runs = nil
}

func definitionOf(name, version string) *codec.Definition {
	return &codec.Definition{ID: name + version, PeerID: "far", Meta: codec.Meta{Name: name, Version: version}}
}

// typeScript answers query_interface for versions of a service "a" as current
// TypeScript peers do: by the exact key, or by the bare name with the first of them.
func typeScript(versions ...string) map[string]func(any) (any, error) {
	return map[string]func(any) (any, error){"query_interface": func(arg any) (any, error) {
		const name = "a"
		for _, v := range versions {
			if arg == name || arg == joinName(name, v) {
				return definitionOf(name, v), nil
			}
		}
		return nil, Errorf(NotFound, "Service '%v' not found", arg)
	}}
}

// abilities answers the task of that name with a table of services.
func abilities(keys ...string) func(any) (any, error) {
	return func(any) (any, error) {
		services := codec.Map{}
		for _, key := range keys {
			services = append(services, codec.Pair{Key: key, Value: definitionOf(splitName(key))})
		}
		return map[string]any{"services": services, "allowServiceEvents": false}, nil
	}
}

func failing(err error) func(any) (any, error) { return func(any) (any, error) { return nil, err } }

func (sp *scripted) service(ctx context.Context, qualified string) (string, error) {
	stub, err := sp.Service(ctx, qualified)
	if err != nil {
		return "", err
	}
	return joinName(stub.Name(), stub.Version()), nil
}
