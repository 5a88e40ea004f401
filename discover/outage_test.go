package discover

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

// flaky is a store that may be away, or late, and counts how often it was asked: tries
// while it was away, and asked in all.
type flaky struct {
	store
	away  *atomic.Bool
	tries atomic.Int64
	asked atomic.Int64
	late  *atomic.Int64 // ns that a question takes, and an answer again
}

var errAway = errors.New("it is away")

// flakily does what a store is asked, unless it is away.
func flakily[T any](ctx context.Context, s *flaky, f func() (T, error)) (got T, err error) {
	s.asked.Add(1)
	if s.away.Load() {
		s.tries.Add(1)
		return got, errAway
	}
	if !sleep(ctx, time.Duration(s.late.Load())) {
		return got, ctx.Err()
	}
	got, err = f()
	if !sleep(ctx, time.Duration(s.late.Load())) {
		return got, ctx.Err()
	}
	return got, err
}

func (s *flaky) beat(ctx context.Context, b *beat) (beaten, error) {
	return flakily(ctx, s, func() (beaten, error) { return s.store.beat(ctx, b) })
}

func (s *flaky) leave(ctx context.Context, id, instance string) (bool, error) {
	return flakily(ctx, s, func() (bool, error) { return s.store.leave(ctx, id, instance) })
}

func (s *flaky) list(ctx context.Context, most int) (ids []string, whole bool, err error) {
	ids, err = flakily(ctx, s, func() (ids []string, err error) {
		ids, whole, err = s.store.list(ctx, most)
		return ids, err
	})
	return ids, whole, err
}

func (s *flaky) read(ctx context.Context, ids []string) ([]reading, error) {
	return flakily(ctx, s, func() ([]reading, error) { return s.store.read(ctx, ids) })
}

func (s *flaky) fence(ctx context.Context) error {
	_, err := flakily(ctx, s, func() (any, error) { return nil, s.store.fence(ctx) })
	return err
}

// fleet is registries, each with a node, over a store that may fail.
type fleet struct {
	t      *testing.T
	hub    *Hub
	away   atomic.Bool
	late   atomic.Int64
	all    []*Registry
	stores []*flaky
	mu     sync.Mutex
	left   []string // who left whose view; guarded by mu
}

// newFleet returns one with the default times.
func newFleet(t *testing.T, n int) *fleet { return newFleetWith(t, n, Config{}) }

func newFleetWith(t *testing.T, n int, cfg Config) *fleet {
	f := &fleet{t: t, hub: NewHub()}
	cfg.Logger = quiet
	for i := range n {
		s := &flaky{store: &memoryStore{hub: f.hub, cfg: &cfg}, away: &f.away, late: &f.late}
		r := newRegistry(cfg, s)
		f.all, f.stores = append(f.all, r), append(f.stores, s)
		closeLater(t, r)
		wantReady(t, r)
		register(t, r, Node{ID: fmt.Sprintf("n%02d", i), Services: services("s")})
		r.On(func(e Event) {
			if e.Kind == NodeLeft {
				f.mu.Lock()
				defer f.mu.Unlock()
				f.left = append(f.left, e.Node.ID)
			}
		})
	}
	time.Sleep(time.Second)
	f.wantComplete("at first")
	return f
}

// wantComplete wants all nodes in all views, and none suspect.
func (f *fleet) wantComplete(when string) {
	f.t.Helper()
	synctest.Wait()
	for i, r := range f.all {
		if got := r.Nodes(); len(got) != len(f.all) || r.Stats().Suspect > 0 {
			f.t.Errorf("%s node %d sees %v", when, i, ids(got))
		}
	}
}

// wantLeft wants that exactly these have left a view.
func (f *fleet) wantLeft(when string, want ...string) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.left)
	if got := slices.Compact(slices.Clone(f.left)); !slices.Equal(got, want) {
		f.t.Errorf("%s %v have left, want %v", when, got, want)
	}
}

func (f *fleet) flush() {
	f.hub.mu.Lock()
	defer f.hub.mu.Unlock()
	clear(f.hub.records)
	for m := range f.hub.members {
		m.everything()
	}
}

// recovery is how long it may take until all is well after an outage.
const recovery = defaultHeartbeat + 2*time.Second

func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 20)
		for range 5 {
			time.Sleep(7 * time.Second)
			f.flush()
			time.Sleep(recovery)
			f.wantComplete("after a flush")
		}
		f.wantLeft("after all")
	})
}

// TestLongOutage has the store away for longer than nodes live, and empty afterwards.
func TestLongOutage(t *testing.T) {
	for _, empty := range []bool{false, true} {
		t.Run(fmt.Sprintf("empty=%t", empty), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(t, 20)
				time.Sleep(20 * time.Second)
				if age := f.all[3].Age(); age > defaultHeartbeat {
					t.Errorf("Age() = %v while all is well", age)
				}
				const outage = time.Minute
				f.away.Store(true)
				time.Sleep(outage)
				f.wantComplete("during the outage")
				for i, r := range f.all {
					if r.Age() < outage || r.Age() > outage+defaultHeartbeat {
						t.Errorf("Age() = %v after %v", r.Age(), outage)
					}
					if !errors.Is(r.Err(), errAway) {
						t.Errorf("Err() = %v", r.Err())
					}
					if n := f.stores[i].tries.Load(); n > 2*int64(outage/time.Second)+4 {
						t.Errorf("%d tries in %v", n, outage)
					}
				}
				if _, err := f.all[0].Fresh(t.Context(), "s"); !errors.Is(err, errAway) {
					t.Errorf("Fresh() = %v", err)
				}
				if empty {
					f.flush()
				}
				f.away.Store(false)
				time.Sleep(recovery)
				f.wantComplete("after the outage")
				f.wantLeft("after the outage")
				for _, r := range f.all {
					if r.Err() != nil || r.Age() > defaultHeartbeat {
						t.Errorf("Err() = %v, Age() = %v", r.Err(), r.Age())
					}
				}
				time.Sleep(time.Minute)
				f.wantComplete("later")
				f.wantLeft("later")
			})
		})
	}
}

// TestDeathTimes shows how long the dead stay: those that die while all is well, and those
// that die during an outage.
func TestDeathTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 10)
		time.Sleep(11 * time.Second)
		first := f.all[0]
		f.all = f.all[1:]
		kill(first)
		time.Sleep(2 * defaultHeartbeat)
		if n, ok := f.all[0].Node("n00"); !ok || n.Suspect {
			t.Errorf("a node that may live = %+v, %t", n, ok)
		}
		time.Sleep(beatsPerTTL*defaultHeartbeat - 2*defaultHeartbeat + 2*time.Second)
		f.wantComplete("after a death")
		f.wantLeft("after a death", "n00")

		f.away.Store(true)
		time.Sleep(time.Minute)
		second := f.all[0]
		f.all = f.all[1:]
		kill(second)
		time.Sleep(time.Minute)
		f.flush()
		f.away.Store(false)
		// Its life goes on from when the store is found to be there again.
		time.Sleep(beatsPerTTL*defaultHeartbeat + 2*time.Second + 2*defaultRetryDelay)
		f.wantComplete("after a death in an outage")
		f.wantLeft("after a death in an outage", "n00", "n01")
	})
}

// TestRedisOutages has registries over a Redis that is killed, flushed, stopped and cut off:
// nobody leaves a view, all register again, and lookups always have an answer.
func TestRedisOutages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := quick()
	cfg.URL, cfg.TTL, cfg.Timeout = s.URL(), 10*time.Second, 250*time.Millisecond
	var all []*Registry
	for i := range 5 {
		r := startReady(t, cfg)
		register(t, r, Node{ID: fmt.Sprint("n", i), Services: services("s")})
		all = append(all, r)
	}
	var left atomic.Int64
	for _, r := range all {
		eventually(t, "all are there", func() bool { return len(r.Find("s")) == len(all) })
		r.On(func(e Event) {
			if e.Kind == NodeLeft {
				left.Add(1)
			}
		})
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, r := range all {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if len(r.Lookup("s@*")) != len(all) {
					t.Error("a lookup does not have all nodes")
					return
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
	defer func() { close(stop); wg.Wait() }()
	ts := newRaw(t, s)
	back := func(what string) {
		t.Helper()
		for _, r := range all {
			eventually(t, "all is well after "+what, func() bool {
				if _, err := r.Fresh(t.Context(), "s"); err != nil {
					return false
				}
				return r.Err() == nil && r.Stats().Suspect == 0
			})
		}
		n, _ := ts.c.Do(t.Context(), ts.c.B().Scard().Key(tsIndex).Build()).AsInt64()
		for range 1000 {
			if n == int64(len(all)) {
				break
			}
			time.Sleep(time.Millisecond)
			n, _ = ts.c.Do(t.Context(), ts.c.B().Scard().Key(tsIndex).Build()).AsInt64()
		}
		if n != int64(len(all)) {
			t.Errorf("after %s %d nodes are registered", what, n)
		}
	}
	noticed := func(what string) {
		t.Helper()
		for _, r := range all {
			eventually(t, "it notices "+what, func() bool { return r.Err() != nil })
		}
	}
	back("nothing")
	ts.do("FLUSHALL")
	back("a flush")
	s.Restart()
	back("a restart")
	s.Kill()
	noticed("a death")
	s.Restart()
	back("a death")
	s.Pause()
	noticed("silence")
	s.Continue()
	back("silence")
	eventually(t, "Redis is there for others", func() bool {
		return ts.c.Do(t.Context(), ts.c.B().Arbitrary("CLIENT", "KILL", "TYPE", "normal").Build()).Error() == nil
	})
	back("a cut")
	if n := left.Load(); n > 0 {
		t.Errorf("nodes have left %d times", n)
	}
}

// TestFailover has sentinels replace a master that dies.
func TestFailover(t *testing.T) {
	t.Parallel()
	master := redistest.Start(t)
	replica := startReplica(t, master)
	rep := newRaw(t, replica)
	sentinel := redistest.StartSentinel(t, master)
	watcher := newRaw(t, sentinel)
	eventually(t, "the sentinel knows the replica", func() bool {
		replicas, _ := watcher.do("SENTINEL", "REPLICAS", "main").ToArray()
		return len(replicas) == 1
	})
	cfg := quick()
	cfg.Addrs, cfg.MasterSet, cfg.TTL, cfg.Timeout = []string{sentinel.Addr()}, "main", patience, time.Second
	var all []*Registry
	var left atomic.Int64
	for i := range 3 {
		r := startReady(t, cfg)
		register(t, r, Node{ID: fmt.Sprint("n", i), Services: services("s")})
		r.On(func(e Event) {
			if e.Kind == NodeLeft {
				left.Add(1)
			}
		})
		all = append(all, r)
	}
	for _, r := range all {
		eventually(t, "all are there", func() bool { return len(r.Find("s")) == len(all) })
	}
	master.Kill()
	for _, r := range all {
		eventually(t, "it notices", func() bool { return r.Err() != nil })
	}
	for _, r := range all {
		eventually(t, "all is well at the new master", func() bool {
			_, err := r.Fresh(t.Context(), "s")
			return err == nil && r.Err() == nil && r.Stats().Suspect == 0
		})
	}
	eventually(t, "the replica is the master", func() bool {
		info, _ := rep.c.Do(t.Context(), rep.c.B().Arbitrary("INFO", "replication").Build()).ToString() // it has cut all connections
		return strings.Contains(info, "role:master")
	})
	if n := left.Load(); n > 0 {
		t.Errorf("nodes have left %d times", n)
	}
}

// TestCloseWithoutRedis shows that Close does not wait for what does not come.
func TestCloseWithoutRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := quick()
	cfg.URL, cfg.Timeout = s.URL(), patience
	r := startReady(t, cfg)
	register(t, r, Node{ID: "a"})
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	began := time.Now()
	if err := r.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close() = %v", err)
	}
	if took := time.Since(began); took > patience/2 {
		t.Errorf("Close() took %v", took)
	}
	cfg.URL = s.URL()
	silent := start(t, cfg)
	if err := silent.Close(t.Context()); err != nil {
		t.Errorf("Close() of a registry that never was connected = %v", err)
	}
	s.Continue()
	s.Kill()
	dead := start(t, cfg)
	register(t, dead, Node{ID: "b"})
	if err := dead.Close(t.Context()); err != nil && !strings.Contains(err.Error(), "refused") {
		t.Errorf("Close() of a node that never was registered = %v", err)
	}
}

// TestImpatient has dials end sooner than the address may be dialled again: they do not push
// the time of the next one further and further away.
func TestImpatient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &redisStore{cfg: &Config{RetryDelay: time.Second}, base: t.Context(), marks: newMarks(1), dialed: make(map[string]time.Time)}
		dials := 0
		dial := func(ctx context.Context) error {
			c, err := s.dial(ctx, "redis:6379", func(context.Context) (net.Conn, error) {
				dials++
				end, _ := net.Pipe()
				return end, nil
			})
			if err == nil {
				c.Close()
			}
			return err
		}
		began := time.Now()
		if err := dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			if err := dial(ctx); err == nil {
				t.Error("an address was dialled again at once")
			}
			cancel()
		}
		if err := dial(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); dials != 2 || took < time.Second || took > 2*time.Second {
			t.Errorf("%d dials in %v, the second is due after 1 to 2 s", dials, took)
		}
	})
}
