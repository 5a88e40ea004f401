package balance_test

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// sharing gives the same connection to all clients that dial an address, and closes it when all
// have given it back.
type sharing struct {
	t    *testing.T
	dial balance.Dialer

	mu    sync.Mutex
	uses  map[*rpc.Peer]int
	at    map[string]*rpc.Peer
	given int // guarded by mu
	back  int // guarded by mu
}

func (w *world) sharing(dial balance.Dialer) *sharing {
	return &sharing{t: w.t, dial: dial, uses: make(map[*rpc.Peer]int), at: make(map[string]*rpc.Peer)}
}

func (s *sharing) configure(c *balance.Config) { c.Dial, c.Release = s.get, s.release }

func (s *sharing) get(ctx context.Context, address string) (*rpc.Peer, error) {
	if p := s.reuse(address); p != nil {
		return p, nil
	}
	p, err := s.dial(ctx, address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at[address] = p
	s.uses[p]++
	s.given++
	return p, nil
}

func (s *sharing) reuse(address string) *rpc.Peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.at[address]
	if p == nil || p.Err() != nil {
		return nil
	}
	s.uses[p]++
	s.given++
	return p
}

func (s *sharing) release(p *rpc.Peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.back++
	if s.uses[p]--; s.uses[p] < 0 {
		s.t.Error("a connection was given back twice")
	}
	if s.uses[p] == 0 {
		for address, other := range s.at {
			if other == p {
				delete(s.at, address)
			}
		}
		p.CloseWith(1000, "")
	}
}

// want checks how many connections are in use.
func (s *sharing) want(what string, inUse int) {
	s.t.Helper()
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.given-s.back != inUse {
		s.t.Errorf("%s: %d connections were dialled and %d given back, want %d in use", what, s.given, s.back, inUse)
	}
}

// TestGivesBack checks that each connection which was dialled is given back once, whatever becomes
// of it.
func TestGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		w.Start(t, "empty:1", netrontest.Configure(quiet))
		s := w.sharing(func(ctx context.Context, address string) (*rpc.Peer, error) {
			return w.caller.Dial(ctx, address, netron.DialReconnect(time.Second, -1))
		})
		c, k := w.client(s.configure)
		s.want("two instances", 2)
		w.registry.add(balance.Instance{Address: "empty:1"})
		s.want("one without the service", 2)
		w.registry.remove("empty:1")
		time.Sleep(time.Minute)
		s.want("it has left", 2)
		for range 3 {
			w.Link("caller", "a").Cut() // for good: the peer does not reconnect
			synctest.Wait()
			if _, err := k.Work(rpc.Idempotent(t.Context()), 1); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			s.want("after a connection was lost", 2)
		}
		w.registry.remove("b:1")
		time.Sleep(time.Second)
		s.want("another has left", 1)
		w.registry.add(balance.Instance{Address: "b:1"})
		w.registry.remove("b:1") // before it was connected to
		time.Sleep(time.Second)
		s.want("one that has left at once", 1)
		w.registry.add(balance.Instance{Address: "b:1"})
		_, other := w.client(s.configure)
		s.want("two clients", 4)
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		s.want("one of them", 2)
		for i := range 10 {
			if _, err := other.Work(t.Context(), i); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestLateDial checks that a connection is given back which comes after its instance has left, or
// after the client was closed.
func TestLateDial(t *testing.T) {
	for _, closes := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a")
			letc := make(chan struct{})
			s := w.sharing(func(_ context.Context, address string) (*rpc.Peer, error) {
				<-letc // whatever its context says
				return w.caller.Dial(context.Background(), address)
			})
			c := w.idle(s.configure)
			outcome := make(chan error, 1)
			go func() { outcome <- c.Call(t.Context(), "work", nil, 1) }()
			synctest.Wait()
			if closes {
				go func() { _ = c.Close() }()
			} else {
				w.registry.remove("a:1")
			}
			synctest.Wait()
			if err := <-outcome; rpc.CodeOf(err) != rpc.Unavailable {
				t.Errorf("Call = %v, want unavailable", err)
			}
			close(letc)
			s.want("it came late", 0)
			if s.given != 1 || w.Conns() != 0 {
				t.Errorf("%d dials, %d connections, want one that was closed", s.given, w.Conns())
			}
		})
	}
}

// TestClosedOverShared checks that a closed client makes no calls over connections that others go
// on with.
func TestClosedOverShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "b")
		s := w.sharing(w.dial)
		w.client(s.configure)
		c, k := w.client(s.configure)
		sticky := balance.Sticky(t.Context())
		if _, err := k.Work(sticky, 0); err != nil {
			t.Error(err)
		}
		_ = c.Close()
		w.counts()
		for _, ctx := range []context.Context{t.Context(), sticky, balance.WithKey(t.Context(), "x"), rpc.Idempotent(t.Context())} {
			if _, err := k.Work(ctx, 1); rpc.CodeOf(err) != rpc.Unavailable {
				t.Errorf("Work = %v, want unavailable", err)
			}
		}
		if got := w.counts(); got["a"]+got["b"] != 0 {
			t.Errorf("a closed client has made calls: %v", got)
		}
	})
}

// TestCloseEndsWaiting checks that nobody goes on waiting for an instance of a client that is
// closed, whenever that happens.
func TestCloseEndsWaiting(t *testing.T) {
	for range 300 {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t)
			c := w.idle(func(c *balance.Config) { c.WaitReady = true })
			var wg sync.WaitGroup
			start := time.Now()
			for range 8 {
				wg.Go(func() {
					if err := c.Call(t.Context(), "work", nil, 1); rpc.CodeOf(err) != rpc.Unavailable {
						t.Errorf("Call = %v", err)
					}
				})
			}
			synctest.Wait()
			_ = c.Close()
			wg.Wait()
			if d := time.Since(start); d != 0 {
				t.Fatalf("calls have waited %v after the end", d)
			}
		})
	}
}

// curious is a log handler that looks at the client.
type curious struct {
	slog.Handler
	seen func()
}

func (h *curious) Enabled(context.Context, slog.Level) bool { return true }

func (h *curious) Handle(context.Context, slog.Record) error {
	h.seen()
	return nil
}

// TestLogsWithoutLock checks that a logger may use the client.
func TestLogsWithoutLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a", "bad")
		w.registry.add(balance.Instance{Address: "none:1"})
		w.workers["bad"].fail.Store(true)
		var c *balance.Client
		records := 0
		h := &curious{slog.DiscardHandler, func() {
			records++
			c.Stats()
		}}
		c = w.idle(func(c *balance.Config) { c.Logger, c.Policy = slog.New(h), balance.RoundRobin })
		for range 20 {
			_ = c.Call(t.Context(), "work", nil, 1)
			synctest.Wait()
		}
		if records < 2 {
			t.Errorf("%d records, want one for the dial and one for the ejection", records)
		}
	})
}

// TestDiallerPanics checks that a dialler which panics has failed.
func TestDiallerPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, "a")
		var mended atomic.Bool
		c := w.idle(func(c *balance.Config) {
			c.Dial = func(ctx context.Context, address string) (*rpc.Peer, error) {
				if !mended.Load() {
					panic("broken")
				}
				return w.dial(ctx, address)
			}
		})
		if err := c.Call(t.Context(), "work", nil, 1); rpc.CodeOf(err) != rpc.Unavailable {
			t.Errorf("Call = %v, want unavailable", err)
		}
		mended.Store(true)
		time.Sleep(time.Second)
		if err := c.Call(t.Context(), "work", nil, 1); err != nil {
			t.Error(err)
		}
	})
}
