package resilience_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/resilience"
)

type counterClient struct {
	Stub *rpc.Stub
	Next func(ctx context.Context) (int, error)
}

// TestInterfaces checks when the peer is asked.
func TestInterfaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t)
		asked, hold := atomic.Int32{}, make(chan struct{})
		pair.Client.UseOutgoing(func(next rpc.Handler) rpc.Handler {
			return func(ctx context.Context, r *rpc.Request) (codec.Raw, error) {
				if r.Member() == "query_interface" {
					asked.Add(1)
					select {
					case <-hold:
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				return next(ctx, r)
			}
		})
		wantAsked := func(why string, want int32) {
			t.Helper()
			if got := asked.Load(); got != want {
				t.Errorf("%s: the peer was asked %d times, want %d", why, got, want)
			}
		}
		cache := resilience.NewInterfaces[counterClient](resilience.InterfacesConfig{})
		query := func(ctx context.Context) (*counterClient, error) { return cache.Query(ctx, pair.ToServer, "counter") }
		close(hold)
		if _, err := query(t.Context()); rpc.CodeOf(err) != rpc.NotFound {
			t.Fatalf("before the service is there: %v", err)
		}
		n := 0
		s := rpc.NewService("counter", "1.0.0")
		rpc.Handle(s, "next", func(context.Context, *struct{}) (int, error) { n++; return n, nil })
		if err := pair.Server.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		hold = make(chan struct{})
		asked.Store(0)
		// Several at a time, of whom the one who asks gives up.
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := query(first); !errors.Is(err, context.Canceled) {
				t.Errorf("who gave up: %v", err)
			}
		})
		synctest.Wait()
		clients := make([]*counterClient, 5)
		for i := range clients {
			wg.Go(func() {
				var err error
				if clients[i], err = query(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		wantAsked("several at a time", 1)
		cancel()
		synctest.Wait()
		wantAsked("one has given up", 2)
		close(hold)
		wg.Wait()
		for _, c := range clients {
			if c != clients[0] {
				t.Fatal("there are several clients")
			}
		}
		if got, err := clients[0].Next(t.Context()); err != nil || got != 1 {
			t.Errorf("Next = %d, %v", got, err)
		}
		if c, err := query(t.Context()); err != nil || c != clients[0] {
			t.Errorf("a moment later: another client, %v", err)
		}
		wantAsked("a moment later", 2)
		cache.Forget(pair.ToServer, "counter")
		again, err := query(t.Context())
		if err != nil || again == clients[0] {
			t.Errorf("after Forget: the same client, %v", err)
		}
		wantAsked("after Forget", 3)
		time.Sleep(time.Minute)
		if c, err := query(t.Context()); err != nil || c == again {
			t.Errorf("after the TTL: the same client, %v", err)
		}
		wantAsked("after the TTL", 4)
		pair.ToServer.Close()
		if _, err := query(t.Context()); err == nil {
			t.Error("a peer that was closed has a service")
		}
	})
}
