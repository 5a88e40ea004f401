package pubsub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Policy says what becomes of an event when the buffer of a [Reader] is full.
type Policy uint8

// The policies. The bus counts for each, see [Stats].
const (
	DropOldest Policy = iota // the oldest event in the buffer is lost
	DropNewest               // the event is lost
	Disconnect               // the reader gets what is in the buffer, then [ErrSlowReader]
	Block                    // the emission waits for room, up to a bound; then the event is lost
)

// String returns the name in lower case.
func (p Policy) String() string {
	switch p {
	case DropOldest:
		return "drop oldest"
	case DropNewest:
		return "drop newest"
	case Disconnect:
		return "disconnect"
	case Block:
		return "block"
	}
	return "unknown"
}

// queue is the buffer of a reader: a ring that knows where values are missing. Any
// number of emissions push, one goroutine at a time pops. Nobody is called, and nothing
// is waited for, with mu held.
type queue[T any] struct {
	policy Policy
	bound  time.Duration // of Block
	max    int
	stats  *counters
	lost   atomic.Uint64 // in all
	wakec  chan struct{} // one place: there is something for the reader; never closed
	roomc  chan struct{} // one place: there may be room for a waiting emission; never closed
	endc   chan struct{} // closed with the queue

	mu      sync.Mutex
	ring    []item[T] // guarded by mu
	head    int       // of the oldest; guarded by mu
	count   int       // guarded by mu
	missing uint64    // lost after the newest; guarded by mu
	waiting int       // emissions; guarded by mu
	err     error     // why the queue has ended, nil before; guarded by mu
}

// item is a value and how many are missing before it.
type item[T any] struct {
	value   T
	missing uint64
}

func newQueue[T any](r *readerConfig, stats *counters) *queue[T] {
	return &queue[T]{
		policy: r.policy, bound: r.bound, max: r.buffer, stats: stats,
		wakec: make(chan struct{}, 1), roomc: make(chan struct{}, 1), endc: make(chan struct{}),
	}
}

// push adds a value, or loses one as the policy says. It returns ErrSlowReader if the
// reader is to be disconnected, and what ended ctx if that ended the wait for room.
func (q *queue[T]) push(ctx context.Context, v T) error {
	q.mu.Lock()
	for q.err == nil && q.count == q.max {
		switch q.policy {
		case DropOldest:
			q.dropOldest()
			q.stats.droppedOldest.Add(1)
			continue
		case DropNewest:
			q.loseLocked(1)
			q.stats.droppedNewest.Add(1)
			q.mu.Unlock()
			return nil
		case Disconnect:
			q.endLocked(ErrSlowReader)
			q.stats.disconnected.Add(1)
			q.mu.Unlock()
			return ErrSlowReader
		}
		if !q.waitLocked(ctx) && q.err == nil && q.count == q.max {
			q.loseLocked(1)
			q.stats.timedOut.Add(1)
			q.mu.Unlock()
			return ctx.Err()
		}
	}
	if q.err == nil {
		q.put(v)
		notify(q.wakec)
		if q.waiting > 0 && q.count < q.max {
			notify(q.roomc)
		}
	}
	q.mu.Unlock()
	return nil
}

// waitLocked waits for room, and reports false when the bound or ctx has passed. It is
// called and returns with mu held.
func (q *queue[T]) waitLocked(ctx context.Context) bool {
	q.waiting++
	q.mu.Unlock()
	q.stats.blocked.Add(1)
	t := time.NewTimer(q.bound)
	inTime := false
	select {
	case <-q.roomc:
		inTime = true
	case <-q.endc:
	case <-t.C:
	case <-ctx.Done():
	}
	t.Stop()
	q.mu.Lock()
	q.waiting--
	return inTime
}

// put adds a value where there is room. The caller holds mu.
func (q *queue[T]) put(v T) {
	if q.count == len(q.ring) {
		grown := make([]item[T], min(max(8, 2*len(q.ring)), q.max))
		n := copy(grown, q.ring[q.head:])
		copy(grown[n:], q.ring[:q.head])
		q.ring, q.head = grown, 0
	}
	q.ring[(q.head+q.count)%len(q.ring)] = item[T]{value: v, missing: q.missing}
	q.missing = 0
	q.count++
}

// take removes the oldest value. The caller holds mu.
func (q *queue[T]) take() item[T] {
	it := q.ring[q.head]
	q.ring[q.head] = item[T]{}
	q.head = (q.head + 1) % len(q.ring)
	q.count--
	return it
}

// dropOldest loses the oldest value. The caller holds mu.
func (q *queue[T]) dropOldest() {
	gap := q.take().missing + 1
	q.lost.Add(1)
	if q.count > 0 {
		q.ring[q.head].missing += gap
	} else {
		q.missing += gap
	}
}

// loseLocked loses a value that would be the newest. The caller holds mu.
func (q *queue[T]) loseLocked(n uint64) {
	q.missing += n
	q.lost.Add(n)
	notify(q.wakec)
}

// lose counts n values that never came.
func (q *queue[T]) lose(n uint64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.loseLocked(n)
	}
}

// pop returns the oldest value, or a *LostError where some are missing, and waits if
// there is neither. When the queue has ended and is empty it returns the reason.
func (q *queue[T]) pop(ctx context.Context) (v T, err error) {
	for {
		q.mu.Lock()
		switch {
		case q.count > 0 && q.ring[q.head].missing == 0:
			v = q.take().value
			if q.waiting > 0 {
				notify(q.roomc)
			}
			q.mu.Unlock()
			return v, nil
		case q.count > 0:
			err = &LostError{Count: q.ring[q.head].missing}
			q.ring[q.head].missing = 0
		case q.missing > 0:
			err = &LostError{Count: q.missing}
			q.missing = 0
		default:
			err = q.err
		}
		q.mu.Unlock()
		if err != nil {
			return v, err
		}
		select {
		case <-q.wakec:
		case <-ctx.Done():
			return v, contextError(ctx, "read")
		}
	}
}

// end ends the queue. What is in it can still be read, unless discard is true. The first
// reason stays.
func (q *queue[T]) end(reason error, discard bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err == nil {
		q.endLocked(reason)
	}
	if discard {
		q.ring, q.head, q.count, q.missing, q.err = nil, 0, 0, 0, reason
	}
}

func (q *queue[T]) endLocked(reason error) {
	q.err = reason
	close(q.endc)
	notify(q.wakec)
}

// notify puts a token into a channel of one place.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
