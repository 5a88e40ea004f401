package mux

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/panjf2000/ants/v2"
)

// DefaultWorkers is the size of a pool of [Workers] when none is given.
const DefaultWorkers = 1 << 16

// DefaultWorkerBytes is how many bytes of requests a pool of [Workers] holds when
// nothing else is said.
const DefaultWorkerBytes = 256 << 20

// Workers is a bounded pool of goroutines that serve requests. All sessions of a
// node share one. A full pool refuses work, it never blocks the read owner.
type Workers struct {
	pool     *ants.PoolWithFuncGeneric[*Request]
	log      *slog.Logger
	maxBytes int64
	bytes    atomic.Int64 // of the payloads of the requests being served
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
	pool, err := ants.NewPoolWithFuncGeneric(size, w.run, ants.WithNonblocking(true), ants.WithExpiryDuration(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("mux: new worker pool: %w", err)
	}
	w.pool = pool
	return w, nil
}

// submit starts the request on a worker. It never blocks.
func (w *Workers) submit(r *Request) error {
	err := w.pool.Invoke(r)
	if errors.Is(err, ants.ErrPoolClosed) {
		return ErrWorkersClosed
	}
	return err
}

// run serves one request. A panic that Serve did not recover ends that request
// without an answer, and nothing else.
func (w *Workers) run(r *Request) {
	defer r.finish()
	defer func() {
		if v := recover(); v != nil && w.log != nil {
			w.log.Error("mux: panic while serving a request", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	r.session.cfg.Serve(r)
}

// Close refuses new requests and waits for the running ones, up to the timeout;
// zero or less does not wait. Workers that are still busy then end with their
// handlers. Further calls do nothing.
func (w *Workers) Close(timeout time.Duration) error {
	if timeout <= 0 {
		w.pool.Release()
		return nil
	}
	if err := w.pool.ReleaseTimeout(timeout); err != nil && !errors.Is(err, ants.ErrPoolClosed) {
		return fmt.Errorf("mux: close worker pool: %w", err)
	}
	return nil
}
