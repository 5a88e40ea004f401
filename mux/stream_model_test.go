package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestStreamsModel runs random streams between two sessions, in virtual time, and checks that
// every chunk is read once and in order, or both ends have an error, and that nothing is left.
func TestStreamsModel(t *testing.T) {
	seeds := 300
	if testing.Short() || raceEnabled {
		seeds = 60
	}
	for seed := range seeds {
		features := [][]string{nil, {FeatureCancel}, {FeatureCancel, FeatureCredit}}[seed%3]
		synctest.Test(t, func(t *testing.T) { newStreamModel(t, uint64(seed), features).run() })
		if t.Failed() {
			t.Fatalf("seed %d, features %v", seed, features)
		}
	}
}

type streamModel struct {
	t        *testing.T
	random   *rand.Rand // of the test's goroutine
	credits  bool
	sessions [2]*Session
	wg       sync.WaitGroup
	closed   bool // the sessions are closed before the streams are done
}

func newStreamModel(t *testing.T, seed uint64, features []string) *streamModel {
	m := &streamModel{t: t, random: rand.New(rand.NewPCG(seed, 7)), credits: len(features) > 1}
	workers, err := NewWorkers(0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := workers.Close(1e9); err != nil {
			t.Error(err)
		}
	})
	config := func(id string) Config {
		return Config{
			LocalID: id, Workers: workers, Serve: echo, Features: features,
			Overloaded: []byte{nilValue}, Draining: []byte{nilValue}, Failed: []byte{nilValue},
			Streams: &StreamConfig{
				Packets: testPackets{}, MaxStreams: 20, Window: 1000, MaxWindow: 4000, SessionWindow: 3000,
				MaxBuffered: 1 << 20, MaxEarlyBytes: 1500,
			},
		}
	}
	m.sessions[0], m.sessions[1] = Pipe(config("a"), config("b"))
	return m
}

// plan is what the ends of a stream do. Durations are between chunks.
type plan struct {
	chunks              []string
	fails               bool // the writer fails in place of ending
	patience            time.Duration
	writeSlow, readSlow time.Duration
	late                time.Duration // the reader begins
	cancelAfter         int           // chunks; -1: never
	byReader            bool          // who announces the stream
}

func (m *streamModel) plan() plan {
	r := m.random
	pick := func(of ...time.Duration) time.Duration { return of[r.IntN(len(of))] }
	p := plan{
		fails: r.IntN(5) == 0, patience: pick(time.Hour, time.Hour, time.Hour, 50*time.Millisecond),
		writeSlow: pick(0, 0, time.Millisecond, time.Second), readSlow: pick(0, 0, time.Millisecond, 20*time.Millisecond, time.Second),
		late: pick(0, 0, 10*time.Millisecond, 5*time.Second), cancelAfter: -1, byReader: r.IntN(3) == 0,
	}
	if r.IntN(4) == 0 {
		p.cancelAfter = r.IntN(10)
	}
	for i := range r.IntN(40) {
		p.chunks = append(p.chunks, fmt.Sprintf("%d:%s", i, strings.Repeat("x", r.IntN(600))))
	}
	return p
}

func (m *streamModel) run() {
	for range 1 + m.random.IntN(6) {
		p, from := m.plan(), m.random.IntN(2)
		writer, reader := m.sessions[from], m.sessions[1-from]
		m.wg.Go(func() { m.stream(p, writer, reader) })
	}
	done := make(chan struct{})
	go func() {
		m.wg.Wait()
		close(done)
	}()
	if m.random.IntN(5) == 0 {
		m.closed = true
		time.Sleep(time.Duration(m.random.IntN(100)) * time.Millisecond)
		m.sessions[0].Close(closeNormal, "")
	}
	<-done
	if !m.closed {
		m.check()
		m.sessions[0].Close(closeNormal, "")
	}
	<-m.sessions[0].Done()
	<-m.sessions[1].Done()
}

// stream carries out a plan, and compares what the ends have seen.
func (m *streamModel) stream(p plan, from, to *Session) {
	var w *StreamWriter
	var r *StreamReader
	var err, readErr error
	if p.byReader {
		if r, err = to.NewReader(false); err == nil {
			w, err = from.WriterFor(r.ID(), false)
		}
	} else {
		w, err = from.NewWriter(false)
	}
	if err != nil {
		if !m.closed {
			m.t.Errorf("open a stream: %v", err)
		}
		return
	}
	var read []string
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		time.Sleep(p.late)
		if r == nil {
			if r, readErr = to.ReaderFor(w.ID(), false); readErr != nil {
				return
			}
		}
		for len(read) != p.cancelAfter {
			b, err := r.Next(context.Background())
			if err != nil {
				readErr = err
				return
			}
			read = append(read, string(b))
			time.Sleep(p.readSlow)
		}
		r.Cancel("enough")
		_, readErr = r.Next(context.Background())
	})
	ctx, cancel := context.WithTimeout(context.Background(), p.patience)
	defer cancel()
	sent := 0
	var writeErr error
	for _, chunk := range p.chunks {
		if writeErr = sendText(ctx, w, chunk); writeErr != nil {
			break
		}
		sent++
		time.Sleep(p.writeSlow)
	}
	if p.fails || writeErr != nil {
		w.Fail("the source has failed", nil)
	} else {
		w.Close()
	}
	<-w.Done()
	wg.Wait()
	for i, got := range read {
		if i >= sent && !(writeErr != nil && i == sent) || got != p.chunks[i] {
			m.t.Errorf("chunk %d of %d is %.20q", i, sent, got)
		}
	}
	var failed *StreamError
	switch {
	case errors.Is(readErr, io.EOF):
		if len(read) != len(p.chunks) || p.fails || writeErr != nil && !errors.Is(writeErr, ErrClosed) {
			m.t.Errorf("the reader has %d of %d chunks and the end; the writer %v, fails %v", len(read), len(p.chunks), writeErr, p.fails)
		}
	case errors.As(readErr, &failed):
		if failed.Remote && !p.fails && writeErr == nil {
			m.t.Errorf("the reader was told %v of a writer that was content", readErr)
		}
	case errors.Is(readErr, ErrClosed) && m.closed:
	default:
		m.t.Errorf("the reader ended with %v", readErr)
	}
}

// check looks for what is left when all streams are done.
func (m *streamModel) check() {
	time.Sleep(2 * defaultIdleLimit) // for early streams that nobody has asked for
	synctest.Wait()
	for i, s := range m.sessions {
		st := s.streams.Load()
		if st == nil {
			continue
		}
		other := m.sessions[1-i].streams.Load()
		st.mu.Lock()
		if len(st.writers)+len(st.readers)+len(st.early) != 0 || st.queued != 0 || st.waiting != 0 || st.turn != nil || st.full != 0 {
			m.t.Errorf("left: %d writers, %d readers, %d early, %d bytes queued, %d waiting, %d full", len(st.writers), len(st.readers), len(st.early), st.queued, st.waiting, st.full)
		}
		if all := int64(st.cfg.sessionWindow()); m.credits && st.window+int64(st.owed) != all {
			m.t.Errorf("the connection's window is %d and %d are owed, want %d together", st.window, st.owed, all)
		}
		window := st.window
		st.mu.Unlock()
		if m.credits && other != nil {
			other.mu.Lock()
			if other.credit != window {
				m.t.Errorf("a side has %d bytes of credit, the other says %d", other.credit, window)
			}
			other.mu.Unlock()
		}
	}
}
