package discover

import (
	"context"
	"flag"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if p := flag.Lookup("test.parallel"); p.Value.String() == p.DefValue {
		flag.Set(p.Name, "12") // the tests wait more than they work
	}
	// The client of a cluster puts off some of its questions by a second, also when it is closed.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/redis/rueidis.(*call).DelayDo.func1"))
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

var quiet = slog.New(slog.DiscardHandler)

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("after %v it is not so that %s", patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// world is where registries see each other.
type world struct {
	t    *testing.T
	make func(cfg Config) (*Registry, error)
}

// eachWorld runs a test over Redis, over a Redis that does not tell what changes, and in
// memory and in virtual time.
func eachWorld(t *testing.T, test func(w *world)) {
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		test(&world{t: t, make: func(cfg Config) (*Registry, error) {
			cfg.URL = s.URL()
			return New(cfg)
		}})
	})
	t.Run("untold", func(t *testing.T) {
		t.Parallel()
		s := redistest.Start(t)
		test(&world{t: t, make: func(cfg Config) (*Registry, error) {
			cfg.URL = s.URL()
			return newUntold(cfg)
		}})
	})
	t.Run("memory", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			hub := NewHub()
			test(&world{t: t, make: func(cfg Config) (*Registry, error) { return NewMemory(hub, cfg) }})
		})
	})
}

// newUntold returns a registry over a Redis that is not asked to tell what changes.
func newUntold(cfg Config) (*Registry, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s, err := newRedisStore(&cfg)
	if err != nil {
		return nil, err
	}
	s.tracks.Store(false)
	return newRegistry(cfg, s), nil
}

// quick are times that fit tests.
func quick() Config {
	return Config{Heartbeat: 100 * time.Millisecond, TTL: 2 * time.Second, RetryDelay: 20 * time.Millisecond, Logger: quiet}
}

// registry returns one that is ready, and ends with the test.
func (w *world) registry(cfg Config) *Registry {
	w.t.Helper()
	r, err := w.make(cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	closeLater(w.t, r)
	wantReady(w.t, r)
	return r
}

// node returns a registry with a node of its own.
func (w *world) node(cfg Config, n Node) *Registry {
	w.t.Helper()
	r := w.registry(cfg)
	register(w.t, r, n)
	return r
}

func register(t testing.TB, r *Registry, n Node) {
	t.Helper()
	if n.Address == "" {
		n.Address = "10.0.0.1:8080"
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.Register(ctx, n); err != nil {
		t.Fatalf("Register(%s) = %v", n.ID, err)
	}
}

func closeLater(t testing.TB, r *Registry) {
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r.Close(ctx)
	})
}

func wantReady(t testing.TB, r *Registry) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := r.WaitReady(ctx); err != nil {
		t.Fatalf("WaitReady() = %v", err)
	}
}

func services(qualified ...string) []Service {
	list := make([]Service, len(qualified))
	for i, q := range qualified {
		list[i] = ParseService(q)
	}
	return list
}

// ids returns the ids of nodes, those that are suspect with a question mark.
func ids(nodes []Node) []string {
	list := make([]string, len(nodes))
	for i, n := range nodes {
		list[i] = n.ID
		if n.Suspect {
			list[i] += "?"
		}
	}
	return list
}
