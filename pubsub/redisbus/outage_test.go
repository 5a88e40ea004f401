package redisbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/pubsub"
)

// ledger keeps what a node has got, and finds fault with it.
type ledger struct {
	t    *testing.T
	mu   sync.Mutex
	last map[string]int64 // by emitting goroutine; guarded by mu
	got  int              // guarded by mu
}

// newLedger has a ledger for the events "load:*" of others, whose argument is a number
// that rises.
func newLedger(n *node, t *testing.T) *ledger {
	l := &ledger{t: t, last: make(map[string]int64)}
	n.on("load:**", func(ctx context.Context, e pubsub.Event) (any, error) {
		if _, ok := Node(ctx); !ok {
			return nil, nil
		}
		var number int64
		if err := e.Decode(&number); err != nil {
			t.Errorf("Decode: %v", err)
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if last := l.last[e.Name()]; number <= last {
			t.Errorf("%s has %d after %d", e.Name(), number, last)
		}
		l.last[e.Name()] = number
		l.got++
		return nil, nil
	})
	return l
}

func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.got
}

// load has goroutines emit, each under a name of its own, until stop is closed, and
// returns how many events there were.
func load(nodes []*node, goroutines int, pause time.Duration, stop <-chan struct{}) []*atomic.Int64 {
	emitted := make([]*atomic.Int64, len(nodes))
	var wg sync.WaitGroup
	for i, n := range nodes {
		emitted[i] = new(atomic.Int64)
		for g := range goroutines {
			name := fmt.Sprintf("load:%d:%d", i, g)
			wg.Go(func() {
				for number := 1; ; number++ {
					select {
					case <-stop:
						return
					case <-time.After(pause): // the rate
					}
					for range 4 {
						number++
						n.emit(name, number)
						emitted[i].Add(1)
					}
				}
			})
		}
	}
	wg.Wait()
	return emitted
}

// TestLoad has three nodes emit as fast as the queues allow: everything arrives, once
// and in order.
func TestLoad(t *testing.T) {
	t.Parallel()
	const goroutines, each = 4, 1500
	s := redistest.Start(t)
	var nodes []*node
	var ledgers []*ledger
	for range 3 {
		n := newNode(t, s, Config{})
		nodes, ledgers = append(nodes, n), append(ledgers, newLedger(n, t))
	}
	var wg sync.WaitGroup
	for i, n := range nodes {
		for g := range goroutines {
			name := fmt.Sprintf("load:%d:%d", i, g)
			wg.Go(func() {
				for number := range each {
					n.emit(name, number+1)
				}
			})
		}
	}
	wg.Wait()
	for i, l := range ledgers {
		eventually(t, "all events have come", func() bool { return l.count() >= 2*goroutines*each })
		eventually(t, "all is confirmed", func() bool { return nodes[i].Stats().Waiting == 0 })
		st := nodes[i].Stats()
		if st.Sent != goroutines*each || st.Received != 2*goroutines*each || st.Own != st.Sent || st.Missed+st.Repeated+st.Lost != 0 {
			t.Errorf("node %d: %+v", i, st)
		}
	}
}

// TestOutages has three nodes emit while Redis is killed and started again, and while it
// is stopped: no event comes twice or in the wrong order, none is lost in silence, and no
// emitter waits.
func TestOutages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	var nodes []*node
	var ledgers []*ledger
	for range 3 {
		n := newNode(t, s, Config{Timeout: 250 * time.Millisecond})
		nodes, ledgers = append(nodes, n), append(ledgers, newLedger(n, t))
	}
	var emitted []*atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		emitted = load(nodes, 3, 2*time.Millisecond, stop)
	}()
	connects := uint64(1)
	again := func(what string) {
		t.Helper()
		connects++
		for i, n := range nodes {
			eventually(t, fmt.Sprintf("node %d is connected after %s", i, what), func() bool {
				st := n.Stats()
				return st.Connected && st.Connects >= connects
			})
		}
		before := make([]int, len(ledgers))
		for i, l := range ledgers {
			before[i] = l.count()
		}
		for i, l := range ledgers {
			eventually(t, fmt.Sprintf("events come to node %d after %s", i, what), func() bool { return l.count() > before[i]+100 })
		}
	}
	for i, l := range ledgers {
		eventually(t, fmt.Sprintf("events come to node %d", i), func() bool { return l.count() > 100 })
	}
	s.Restart()
	again("a restart")
	s.Kill()
	for _, n := range nodes {
		lost := n.Stats().Lost
		eventually(t, "what is lost is counted", func() bool { return n.Stats().Lost > lost+50 })
	}
	s.Restart()
	again("a death")
	s.Pause()
	for i, n := range nodes {
		eventually(t, fmt.Sprintf("node %d notices that Redis is silent", i), func() bool { return n.Err() != nil })
	}
	s.Continue()
	again("a stop")
	close(stop)
	<-stopped

	for i, n := range nodes {
		for j := range nodes {
			if i != j {
				n.sync(nodes[j])
			}
		}
	}
	for i, n := range nodes {
		eventually(t, "all is settled", func() bool { return n.Stats().Waiting == 0 })
		st := n.Stats()
		total := uint64(emitted[i].Load()) + 2 // and those of sync
		if st.Sent+st.Lost != total {
			t.Errorf("node %d has emitted %d events, and counted %+v", i, total, st)
		}
		if st.Lost == 0 {
			t.Errorf("node %d has lost nothing in three outages", i)
		}
		var others uint64
		for j := range nodes {
			if j != i {
				others += uint64(emitted[j].Load()) + 2
			}
		}
		eventually(t, fmt.Sprintf("node %d has received or missed the %d events of others", i, others), func() bool {
			st = n.Stats() // the last events of sync were not for this node
			return st.Received+st.Missed == others
		})
		if got := ledgers[i].count() + 4; st.Received != uint64(got) {
			t.Errorf("node %d has received %d events, and its handlers %d", i, st.Received, got)
		}
		if st.Dropped+st.Overflowed+st.Failed+st.Malformed+st.Ignored != 0 {
			t.Errorf("node %d: %+v", i, st)
		}
		t.Logf("node %d: %+v", i, st)
	}
}

// TestStart has a bridge begin before Redis is there.
func TestStart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Kill()
	a, b := newLonelyNode(t, s, Config{}), newLonelyNode(t, s, Config{})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	err := a.Ready(ctx)
	if e, ok := errors.AsType[*Error](err); !ok || e.Code != code.DeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Ready() without Redis = %v", err)
	}
	eventually(t, "the error says why", func() bool { return a.Err() != nil && !errors.Is(a.Err(), errNotYet) })
	if e, ok := errors.AsType[*Error](a.Err()); !ok || e.Code != code.Unavailable {
		t.Errorf("Err() = %v", a.Err())
	}
	a.emit("x", 1)
	if st := a.Stats(); st.Lost != 1 || st.Connected {
		t.Errorf("Stats() without Redis: %+v", st)
	}
	s.Restart()
	a.wantReady()
	b.wantReady()
	events := b.collect("x")
	a.emit("x", 2)
	wantEvent(t, events, "x", int64(2))
}

// TestSilentRedis shows that emitters never wait, and that the queue is bounded.
func TestSilentRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := newNode(t, s, Config{MaxEvents: 10, Timeout: patience})
	s.Pause()
	start := time.Now()
	const events = 5000
	for i := range events {
		a.emit("x", i)
	}
	if took := time.Since(start); took > patience/2 {
		t.Errorf("%d events took %v", events, took)
	}
	st := a.Stats()
	if st.Dropped == 0 || st.Dropped+uint64(st.Waiting)+st.Lost+st.Sent != events || st.Waiting > batchEvents+10 {
		t.Errorf("with a silent Redis: %+v", st)
	}
	start = time.Now()
	a.Close()
	if took := time.Since(start); took > patience/2 {
		t.Errorf("Close() with a silent Redis took %v", took)
	}
	st = a.Stats()
	if st.Waiting != 0 || st.Dropped+st.Lost+st.Sent != events {
		t.Errorf("after Close(): %+v", st)
	}
	s.Continue()
}

// TestSilentAtStart closes a bridge while Redis accepts connections and says nothing.
func TestSilentAtStart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Pause()
	a := newLonelyNode(t, s, Config{Timeout: patience})
	start := time.Now()
	a.Close()
	if took := time.Since(start); took > patience/2 {
		t.Errorf("Close() took %v", took)
	}
	if err := a.Err(); !errors.Is(err, ErrClosed) {
		t.Errorf("Err() = %v, want ErrClosed", err)
	}
}

func TestShutdown(t *testing.T) {
	t.Parallel()
	const events = 3000
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{}), newNode(t, s, Config{})
	got := b.collect("x")
	for i := range events {
		a.emit("x", i)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := a.Shutdown(ctx); err != nil {
		t.Fatalf("Shutdown() = %v", err)
	}
	for i := range events {
		wantEvent(t, got, "x", int64(i))
	}
	if st := a.Stats(); st.Sent != events || st.Lost != 0 {
		t.Errorf("Stats() = %+v", st)
	}
	select {
	case <-a.Done():
	default:
		t.Error("Done() is open after Shutdown")
	}
	a.emit("x", 1) // the bus goes on
	if st := a.Stats(); st.Sent+st.Lost+st.Dropped != events {
		t.Errorf("a closed bridge counts: %+v", st)
	}
	if err := a.Ready(ctx); !errors.Is(err, ErrClosed) {
		t.Errorf("Ready() after Shutdown = %v", err)
	}
	if err := errors.Join(a.Close(), a.Shutdown(ctx)); err != nil {
		t.Errorf("Close and Shutdown of a closed bridge = %v", err)
	}

	s.Pause()
	b.emit("y")
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := b.Shutdown(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown() with a silent Redis = %v", err)
	}
	if st := b.Stats(); st.Lost != 1 || st.Waiting != 0 {
		t.Errorf("Stats() = %+v, want one event lost", st)
	}
}
