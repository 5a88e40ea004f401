package rpc

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
)

// keeper is a service whose handlers keep their contexts, as handlers must not rely on
// but may do.
type keeper struct {
	mu   sync.Mutex
	kept []context.Context
}

func (k *keeper) Keep(ctx context.Context, ask bool) error {
	if ask {
		ctx.Done()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.kept = append(k.kept, ctx)
	return ctx.Err()
}

// TestKeptContexts checks that contexts which share an allocation have nothing else in
// common, also after their handlers have returned.
func TestKeptContexts(t *testing.T) {
	k := &keeper{}
	_, far, stub := pair(t, k)
	const calls = 5 * slabContexts
	for i := range calls {
		ctx := t.Context()
		if i%3 == 0 {
			ctx = WithHeader(ctx, "number", strconv.Itoa(i))
		}
		if err := stub.Call(ctx, "keep", nil, i%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[context.Context]bool)
	for i, ctx := range k.kept {
		if seen[ctx] {
			t.Fatalf("context %d served another request before", i)
		}
		seen[ctx] = true
		want := ""
		if i%3 == 0 {
			want = strconv.Itoa(i)
		}
		if got := HeaderFrom(ctx).Get("number"); got != want {
			t.Errorf("header of request %d: %q, want %q", i, got, want)
		}
		if PeerFrom(ctx) != far {
			t.Errorf("request %d: PeerFrom is another peer", i)
		}
		if err := ctx.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("Err of request %d after its handler: %v", i, err)
		}
		select {
		case <-ctx.Done():
		default:
			t.Errorf("Done of request %d is open after its handler", i)
		}
	}
	if c := far.conn.Load(); len(seen) != calls || len(c.running) != 0 {
		t.Errorf("%d contexts, %d requests still in the table", len(seen), len(c.running))
	}
}
