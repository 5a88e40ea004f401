package mux

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/ants/v2"
)

// DefaultWorkers is the size of a pool of [Workers] when none is given.
const DefaultWorkers = 1 << 16

// DefaultWorkerBytes is how many bytes of requests a pool of [Workers] holds when
// nothing else is said.
const DefaultWorkerBytes = 256 << 20

// Workers is a bounded pool of goroutines that serve requests, a batch each. All
// sessions of a node share one. A full pool refuses work, it never blocks the read
// owner.
type Workers struct {
	pool     *ants.PoolWithFuncGeneric[*block]
	log      *slog.Logger
	maxBytes int64
	bytes    atomic.Int64 // of the payloads of the requests being served

	flush   flusher // of events
	streams flusher

	mu      sync.Mutex
	running []*block    // watched blocks; guarded by mu
	timer   *time.Timer // runs tick; guarded by mu
	ticking bool        // the timer is armed, or tick is about to look; guarded by mu
	closed  bool        // guarded by mu
}

// NewWorkers returns a pool of at most size goroutines, which together hold
// requests of at most maxBytes; a single request may exceed that. Zeros mean
// [DefaultWorkers] and [DefaultWorkerBytes], negative values no bound. Close it
// after all its sessions.
func NewWorkers(size, maxBytes int, log *slog.Logger) (*Workers, error) {
	if size == 0 {
		size = DefaultWorkers
	}
	w := &Workers{log: log, maxBytes: int64(limit(maxBytes, DefaultWorkerBytes))}
	pool, err := ants.NewPoolWithFuncGeneric(size, (*block).run, ants.WithNonblocking(true), ants.WithExpiryDuration(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("mux: new worker pool: %w", err)
	}
	w.pool = pool
	return w, nil
}

// submit starts a worker on a new block of the session. It never blocks. The read
// owner of the session calls it.
func (w *Workers) submit(b *block) error {
	b.workers.Store(1)
	if len(b.queue) == 1 {
		return w.pool.Invoke(b)
	}
	b.watched = true
	s := b.session
	w.mu.Lock()
	old := s.oldest
	if old != nil && !w.stallsLocked(old, s.deadlines.now(), stalledAfter) {
		old = nil
	}
	w.watchLocked(b)
	if s.oldest == nil {
		s.oldest = b
	}
	w.mu.Unlock()
	if old != nil {
		w.rescue(old)
	}
	if err := w.pool.Invoke(b); err != nil {
		w.left(b)
		return err
	}
	return nil
}

// join starts another worker on a block whose caller is one of its workers.
func (w *Workers) join(b *block) bool {
	b.workers.Add(1)
	if w.pool.Invoke(b) != nil {
		b.workers.Add(-1)
		return false
	}
	return true
}

// left ends a worker's use of the block and reports whether it was the last one.
// For a watched block that is decided under mu: a rescue may add a worker as long
// as the block is in the list.
func (w *Workers) left(b *block) (last bool) {
	if !b.watched {
		return b.workers.Add(-1) == 0
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if b.workers.Add(-1) > 0 {
		return false
	}
	w.unwatchLocked(b)
	return true
}

// logPanic reports a panic that Serve did not recover.
func (w *Workers) logPanic(v any) {
	if w.log != nil {
		w.log.Error("mux: panic while serving a request", "panic", v, "stack", string(debug.Stack()))
	}
}

// Close refuses new requests and waits for the running ones, up to the timeout;
// zero or less does not wait. Workers that are still busy then end with their
// handlers. Further calls do nothing.
func (w *Workers) Close(timeout time.Duration) error {
	w.mu.Lock()
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.mu.Unlock()
	w.flush.close()
	w.streams.close()
	if timeout <= 0 {
		w.pool.Release()
		return nil
	}
	if err := w.pool.ReleaseTimeout(timeout); err != nil && !errors.Is(err, ants.ErrPoolClosed) {
		return fmt.Errorf("mux: close worker pool: %w", err)
	}
	return nil
}
