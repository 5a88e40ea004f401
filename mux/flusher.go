package mux

import (
	"runtime"
	"sync"
)

// flusher has links look that events, or chunks of streams, were queued for. Whoever queues
// leaves that to it: while it writes for one connection what is for others, and more for the
// same, gathers. Its goroutines exist only while there is something to do.
type flusher struct {
	mu      sync.Mutex
	dirty   []*Session // those from head on; guarded by mu
	head    int        // guarded by mu
	running int        // goroutines; guarded by mu
	closed  bool       // guarded by mu
	wg      sync.WaitGroup
}

// flushAhead is how many sessions may wait for each goroutine before there is another.
const flushAhead = 4

// soon has the link of a session look. Callers tell it only when nothing was queued before, so
// a session stands there a few times at most.
func (f *flusher) soon(s *Session) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		s.link.Kick()
		return
	}
	f.dirty = append(f.dirty, s)
	if f.running == 0 || len(f.dirty)-f.head > flushAhead*f.running && f.running < runtime.GOMAXPROCS(0) {
		f.running++
		f.wg.Go(f.run)
	}
	f.mu.Unlock()
}

func (f *flusher) run() {
	for {
		f.mu.Lock()
		if f.head == len(f.dirty) {
			f.dirty, f.head = f.dirty[:0], 0
			f.running--
			f.mu.Unlock()
			return
		}
		s := f.dirty[f.head]
		f.dirty[f.head] = nil
		f.head++
		if f.head > 256 && f.head > len(f.dirty)/2 {
			n := copy(f.dirty, f.dirty[f.head:])
			clear(f.dirty[n:])
			f.dirty, f.head = f.dirty[:n], 0
		}
		f.mu.Unlock()
		s.link.Kick()
	}
}

// close waits for the goroutines. Nothing is left to them afterwards.
func (f *flusher) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wg.Wait()
}
