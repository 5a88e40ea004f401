package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/stream"
)

// TestStreamModel makes random calls with streams in both directions of a connection, with ends
// that are slow, stop, fail, panic and give up, in virtual time. It checks that every item comes
// once and in order, that an end which is no success is an error at both sides, and that nothing
// is left.
func TestStreamModel(t *testing.T) {
	seeds := 200
	if testing.Short() || raceEnabled {
		seeds = 40
	}
	for seed := range seeds {
		synctest.Test(t, func(t *testing.T) { runStreamModel(t, uint64(seed)) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// flow is what happens to one stream of items, and what its ends have seen.
type flow struct {
	items, size   int
	failsAt       int           // item in place of which the source fails; -1 for none
	panicsAt      int           // likewise
	stopsAt       int           // items after which the reader stops; -1 for never
	writes, reads time.Duration // between items

	mu             sync.Mutex
	sent, received int   // guarded by mu, as are those below
	ended          bool  // the source
	complete       bool  // it was asked for all
	err            error // of the reader
}

func (f *flow) note(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

var errModelSource = Errorf(FailedPrecondition, "the source has failed")

// source yields the items.
func (f *flow) source(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		defer f.note(func() { f.ended = true })
		for i := range f.items {
			if !pause(ctx, f.writes) {
				yield("", context.Cause(ctx))
				return
			}
			switch i {
			case f.failsAt:
				yield("", errModelSource)
				return
			case f.panicsAt:
				panic("of the model")
			}
			f.note(func() { f.sent++ })
			if !yield(fmt.Sprint(i, strings.Repeat("x", f.size)), nil) {
				return
			}
		}
		f.note(func() { f.complete = true })
	}
}

// drain reads the items as the flow says.
func (f *flow) drain(t *testing.T, seq iter.Seq2[string, error]) error {
	n := 0
	if f.stopsAt == 0 {
		for range seq {
			break
		}
		return nil
	}
	for v, err := range seq {
		if err != nil {
			f.note(func() { f.err = err })
			return err
		}
		if want := fmt.Sprint(n, "x"); f.size > 0 && !strings.HasPrefix(v, want) || f.size == 0 && v != fmt.Sprint(n) || len(v) != len(fmt.Sprint(n))+f.size {
			t.Errorf("item %d is %.20q", n, v)
		}
		n++
		f.note(func() { f.received++ })
		if n == f.stopsAt {
			return nil
		}
		time.Sleep(f.reads)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// modelService serves flows by their number.
type modelService struct {
	t     *testing.T
	mu    sync.Mutex
	flows []*flow
}

func (m *modelService) flow(i int) *flow {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flows[i]
}

func (m *modelService) add(f *flow) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flows = append(m.flows, f)
	return len(m.flows) - 1
}

func (m *modelService) Down(ctx context.Context, i int) iter.Seq2[string, error] {
	return m.flow(i).source(ctx)
}

func (m *modelService) DownChan(ctx context.Context, i int) (<-chan string, error) {
	c := make(chan string)
	go func() {
		defer close(c)
		f := m.flow(i)
		for v, err := range f.source(ctx) {
			if err != nil {
				return
			}
			select {
			case c <- v:
			case <-ctx.Done():
				return
			}
		}
	}()
	return c, nil
}

func (m *modelService) Up(_ context.Context, i int, items iter.Seq2[string, error]) error {
	return m.flow(i).drain(m.t, items)
}

func (m *modelService) UpChan(_ context.Context, i int, items <-chan string) error {
	return m.flow(i).drain(m.t, func(yield func(string, error) bool) {
		for v := range items {
			if !yield(v, nil) {
				return
			}
		}
	})
}

func (m *modelService) Both(_ context.Context, i, j int, a, b iter.Seq2[string, error]) error {
	var wg sync.WaitGroup
	var err, err2 error
	wg.Go(func() { err = m.flow(i).drain(m.t, a) })
	wg.Go(func() { err2 = m.flow(j).drain(m.t, b) })
	wg.Wait()
	return errors.Join(err, err2)
}

func (m *modelService) Turn(ctx context.Context, i, j int, items iter.Seq2[string, error]) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		done := make(chan error, 1)
		go func() { done <- m.flow(i).drain(m.t, items) }()
		for v, err := range m.flow(j).source(ctx) {
			if !yield(v, err) {
				break
			}
		}
		<-done
	}
}

func (m *modelService) Talk(ctx context.Context, i, j int, d *stream.Duplex[string, string]) error {
	return m.talk(ctx, m.flow(i), m.flow(j), d)
}

// talk reads one flow and writes another.
func (m *modelService) talk(ctx context.Context, in, out *flow, d *stream.Duplex[string, string]) error {
	done := make(chan error, 1)
	go func() {
		err := in.drain(m.t, d.All())
		if in.stopsAt >= 0 {
			d.Close() // else the other side waits for it to go on
		}
		done <- err
	}()
	var err error
	for v, sourceErr := range out.source(ctx) {
		if err = sourceErr; err == nil {
			err = d.Send(v)
		}
		if err != nil {
			break
		}
	}
	if err == nil {
		d.CloseSend()
	}
	if readErr := <-done; err == nil {
		err = readErr
	}
	return err
}

type modelClient struct {
	Down     func(ctx context.Context, i int) (iter.Seq2[string, error], error)
	DownChan func(ctx context.Context, i int) (<-chan string, error)
	Up       func(ctx context.Context, i int, items iter.Seq2[string, error]) error
	UpChan   func(ctx context.Context, i int, items iter.Seq2[string, error]) error
	Both     func(ctx context.Context, i, j int, a, b iter.Seq2[string, error]) error
	Turn     func(ctx context.Context, i, j int, items iter.Seq2[string, error]) (iter.Seq2[string, error], error)
	Talk     func(ctx context.Context, i, j int) (*stream.Duplex[string, string], error)
}

// modelSide calls the model service at the other side.
type modelSide struct {
	*modelService // of the other side
	client        *modelClient
}

// outcome is how a call has ended, for one of its flows.
type outcome struct {
	f    *flow
	kind int
	err  error // of the call
	gone bool  // the flow may have ended early because the rest did

	impatient bool // the other side may have seen first that the time is up
}

func (s *modelSide) call(ctx context.Context, kind int, f, g *flow) (outcomes []outcome) {
	var err error
	take := func(f *flow, seq iter.Seq2[string, error]) {
		if err == nil {
			_ = f.drain(s.t, seq)
		}
	}
	switch kind {
	case 0:
		var seq iter.Seq2[string, error]
		seq, err = s.client.Down(ctx, s.add(f))
		take(f, seq)
		return []outcome{{f: f, err: err}}
	case 1:
		f.panicsAt, f.failsAt = -1, -1
		var c <-chan string
		ctx, cancel := context.WithCancel(ctx)
		defer cancel() // it may be left unread
		c, err = s.client.DownChan(ctx, s.add(f))
		take(f, func(yield func(string, error) bool) {
			for v := range c {
				if !yield(v, nil) {
					return
				}
			}
		})
		return []outcome{{f: f, gone: true}}
	case 2:
		err = s.client.Up(ctx, s.add(f), f.source(ctx))
		return []outcome{{f: f, err: err}}
	case 3:
		err = s.client.UpChan(ctx, s.add(f), f.source(ctx))
		return []outcome{{f: f, err: err}}
	case 4:
		err = s.client.Both(ctx, s.add(f), s.add(g), f.source(ctx), g.source(ctx))
		return []outcome{{f: f, err: err}, {f: g, err: err}}
	case 5:
		var seq iter.Seq2[string, error]
		seq, err = s.client.Turn(ctx, s.add(f), s.add(g), f.source(ctx))
		take(g, seq)
		return []outcome{{f: f, gone: true}, {f: g, err: err}}
	}
	f.panicsAt = -1 // on a goroutine of the test, which nobody guards
	d, err := s.client.Talk(ctx, s.add(f), s.add(g))
	if err == nil {
		_ = s.talk(ctx, g, f, d)
		d.Close()
	}
	return []outcome{{f: f, gone: true}, {f: g, gone: true}}
}

func runStreamModel(t *testing.T, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 3))
	cfg := Config{Streams: StreamConfig{Window: 1000, MaxWindow: 4000, ConnWindow: 3000, MaxEarlyBytes: 2000}}
	if seed%4 == 3 {
		cfg.Streams = StreamConfig{}
	}
	near, far := cfg, cfg
	near.ID, far.ID = "near", "far"
	l := link(t, newEndpoint(t, near), newEndpoint(t, far))
	var sides [2]*modelSide
	for i, e := range []*Endpoint{l.far, l.near} {
		s := &modelSide{modelService: &modelService{t: t}}
		if err := e.Expose("model@1.0.0", s.modelService); err != nil {
			t.Fatal(err)
		}
		var err error
		if s.client, err = Query[modelClient](t.Context(), []*Peer{l.peer, l.back}[i], "model"); err != nil {
			t.Fatal(err)
		}
		sides[i] = s
	}
	pick := func(of ...time.Duration) time.Duration { return of[random.IntN(len(of))] }
	at := func(n, most int) int {
		if random.IntN(n) > 0 {
			return -1
		}
		return random.IntN(most + 1)
	}
	newFlow := func() *flow {
		f := &flow{items: random.IntN(60), size: []int{0, 10, 300, 2500}[random.IntN(4)]}
		f.failsAt, f.panicsAt, f.stopsAt = at(5, f.items), at(12, f.items), at(4, f.items)
		f.writes, f.reads = pick(0, 0, time.Millisecond, 300*time.Millisecond), pick(0, 0, time.Millisecond, 300*time.Millisecond)
		return f
	}
	cut, start := random.IntN(5) == 0, time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var all []outcome
	for range 2 + random.IntN(12) {
		f, g, kind, side := newFlow(), newFlow(), random.IntN(7), sides[random.IntN(2)]
		wait, patience := pick(0, 0, time.Millisecond, time.Second), pick(time.Hour, time.Hour, time.Hour, 100*time.Millisecond)
		if kind == 6 {
			g.panicsAt = -1
		}
		wg.Go(func() {
			time.Sleep(wait)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			outcomes := side.call(ctx, kind, f, g)
			mu.Lock()
			defer mu.Unlock()
			for _, o := range outcomes {
				o.kind, o.gone = kind, o.gone || ctx.Err() != nil
				o.impatient = patience < time.Hour
				all = append(all, o)
			}
		})
	}
	if cut {
		time.Sleep(time.Duration(random.IntN(2000)) * time.Millisecond)
		l.peer.CloseWith(closeNormal, "")
	}
	wg.Wait()
	if time.Since(start) > time.Minute {
		t.Errorf("the calls took %v: something stood still", time.Since(start))
	}
	time.Sleep(30 * time.Second) // for slow sources to see that they have ended, and readers to read what was sent
	synctest.Wait()
	for _, o := range all {
		o.check(t, cut)
	}
	if !cut {
		(&streamWorld{linked: l}).wantNothing(t)
	}
}

// check compares what the ends of a stream have seen.
func (o *outcome) check(t *testing.T, cut bool) {
	t.Helper()
	f := o.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.received > f.sent || f.sent > 0 && !f.ended {
		t.Errorf("%d of %d items came, the source has ended: %t", f.received, f.sent, f.ended)
	}
	stopped := f.stopsAt >= 0 && f.received >= f.stopsAt || f.stopsAt == 0
	whole := f.complete && f.received == f.items
	fails := f.failsAt >= 0 && f.failsAt < f.items || f.panicsAt >= 0 && f.panicsAt < f.items
	switch {
	case o.gone, cut, stopped, o.impatient && CodeOf(f.err) == DeadlineExceeded:
	case whole:
	case f.err == nil && o.err == nil:
		t.Errorf("call %d: the reader has %d of %d items and no error; the call %v; %+v", o.kind, f.received, f.items, o.err, f)
	case fails && f.failsAt >= 0 && (f.panicsAt < 0 || f.panicsAt > f.failsAt) && f.err != nil && CodeOf(f.err) != FailedPrecondition && !errors.Is(f.err, io.ErrClosedPipe):
		t.Errorf("call %d: the reader was told %v of a source that has failed; the call %v; %+v", o.kind, f.err, o.err, f)
	case !fails && f.err != nil:
		t.Errorf("call %d: the reader was told %v although nothing failed; the call %v; %+v", o.kind, f.err, o.err, f)
	}
}
