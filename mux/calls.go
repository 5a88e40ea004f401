package mux

import (
	"sync"
	"sync/atomic"
	"time"
)

// slot is a place in the table of pending calls. Its key is the protocol of
// ownership: free, reserved (somebody is filling or emptying it), or live with
// the request's id. A live key is claimed by a compare-and-swap to reserved, so
// an answer, a timeout, a cancellation and the loss of the connection never meet
// in one call, and an answer whose id is not exactly the key finds nothing.
type slot struct {
	key      atomic.Uint64
	deadline atomic.Int64 // nanoseconds since the session's start, 0 for none; written before key goes live
	call     *Call        // owned by whoever reserved the slot
}

const (
	slotFree     = 0
	slotReserved = 1 << 32
	slotLive     = 1 << 33 // | id

	firstTableSize = 64
	maxTableSize   = 1 << 16
	probes         = 8 // ids tried before the table grows

	// sweepPerSlot is the least time between two sweeps, for each slot of the
	// newest table: deadlines that differ by less are looked at together, so that
	// many different ones cost no more than a share of one core.
	sweepPerSlot = 100 * time.Nanosecond
)

// callTable holds the pending calls of a session by id. It grows by doubling;
// older, smaller tables stay linked until the session ends, and each live id
// stands in exactly one of them.
//
// Lookups and claims are lock-free; growing takes a mutex.
type callTable struct {
	newest  atomic.Pointer[tableSegment]
	lastID  atomic.Uint32
	wrapped atomic.Bool // every id has been used once
	live    atomic.Int32
	mu      sync.Mutex // serialises growth
}

type tableSegment struct {
	slots []slot
	older *tableSegment
}

// has reports whether a call with this id is live in the segment or an older one.
func (seg *tableSegment) has(id uint32) bool {
	for ; seg != nil; seg = seg.older {
		if seg.slots[id&uint32(len(seg.slots)-1)].key.Load() == slotLive|uint64(id) {
			return true
		}
	}
	return false
}

// insert registers c under a fresh id. deadline is in nanoseconds since the
// session's start, 0 for none.
func (t *callTable) insert(c *Call, deadline int64) (id uint32, err error) {
	for {
		if t.live.Load() >= maxTableSize {
			return 0, ErrTooManyCalls // at once, and without using up ids
		}
		seg := t.newest.Load()
		if seg == nil {
			t.grow(nil)
			continue
		}
		tries := probes
		if len(seg.slots) == maxTableSize {
			tries = maxTableSize // long calls may stand in a row
		}
		for range tries {
			id := t.nextID()
			s := &seg.slots[id&uint32(len(seg.slots)-1)]
			if s.key.CompareAndSwap(slotFree, slotReserved) {
				if t.wrapped.Load() && seg.older.has(id) {
					s.key.Store(slotFree)
					continue // a call of that id has lasted since the ids began anew
				}
				s.call = c
				c.id = id
				s.deadline.Store(deadline)
				t.live.Add(1)
				s.key.Store(slotLive | uint64(id))
				return id, nil
			}
		}
		if len(seg.slots) >= maxTableSize {
			return 0, ErrTooManyCalls
		}
		t.grow(seg)
	}
}

// nextID counts from 1 and skips 0 (protocol section 4.4).
func (t *callTable) nextID() uint32 {
	for {
		if id := t.lastID.Add(1); id != 0 {
			return id
		}
		t.wrapped.Store(true)
	}
}

// freshID is nextID for a request that is not put in the table, since nobody waits for
// its answer. The answer must not be taken for that of a call.
func (t *callTable) freshID() uint32 {
	for {
		if id := t.nextID(); !t.wrapped.Load() || !t.newest.Load().has(id) {
			return id
		}
	}
}

func (t *callTable) grow(seen *tableSegment) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.newest.Load() != seen {
		return // somebody else grew it
	}
	size := firstTableSize
	if seen != nil {
		size = 2 * len(seen.slots)
	}
	t.newest.Store(&tableSegment{slots: make([]slot, size), older: seen})
}

// claim takes the call with exactly this id out of the table, or returns nil.
func (t *callTable) claim(id uint32) *Call {
	for seg := t.newest.Load(); seg != nil; seg = seg.older {
		s := &seg.slots[id&uint32(len(seg.slots)-1)]
		if s.key.Load() == slotLive|uint64(id) {
			return t.take(s, slotLive|uint64(id))
		}
	}
	return nil
}

// take empties the slot if it still has the given live key.
func (t *callTable) take(s *slot, key uint64) *Call {
	if !s.key.CompareAndSwap(key, slotReserved) {
		return nil
	}
	c := s.call
	s.call = nil
	s.key.Store(slotFree)
	t.live.Add(-1)
	return c
}

// size returns how many slots the newest table has.
func (t *callTable) size() int {
	if seg := t.newest.Load(); seg != nil {
		return len(seg.slots)
	}
	return 0
}

// sweep claims every call that due selects and passes it on. It returns the
// earliest deadline among the calls that remain, 0 for none.
func (t *callTable) sweep(due func(deadline int64) bool, do func(*Call)) (next int64) {
	for seg := t.newest.Load(); seg != nil; seg = seg.older {
		for i := range seg.slots {
			s := &seg.slots[i]
			key := s.key.Load()
			if key&slotLive == 0 {
				continue
			}
			// The deadline belongs to key only if the claim below succeeds, or if the
			// key is unchanged; a stale one merely causes one needless sweep.
			deadline := s.deadline.Load()
			if due(deadline) {
				if c := t.take(s, key); c != nil {
					do(c)
				}
				continue
			}
			if deadline != 0 && (next == 0 || deadline < next) {
				next = deadline
			}
		}
	}
	return next
}

// deadlines wakes the session when the earliest deadline of a pending call
// passes. One timer serves all calls; with equal time limits it is armed once
// per limit, not once per call.
type deadlines struct {
	start  time.Time
	expire func(now int64) (next int64, pause time.Duration) // completes what is due, returns the next deadline and the least time until the next sweep

	armed     atomic.Int64 // when the timer fires, nanoseconds since start, 0 when it does not
	mu        sync.Mutex
	notBefore int64       // the next sweep; guarded by mu
	timer     *time.Timer // guarded by mu
	done      bool        // guarded by mu
	wg        sync.WaitGroup
}

// now returns nanoseconds since start, never 0.
func (d *deadlines) now() int64 { return int64(time.Since(d.start)) + 1 }

// watch makes sure that the timer fires at deadline or earlier.
func (d *deadlines) watch(deadline int64) {
	if a := d.armed.Load(); a != 0 && a <= deadline {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arm(deadline)
}

// arm sets the timer to deadline if it would fire later. mu is held.
func (d *deadlines) arm(deadline int64) {
	deadline = max(deadline, d.notBefore)
	if d.done {
		return
	}
	if a := d.armed.Load(); a != 0 && a <= deadline {
		return
	}
	d.armed.Store(deadline)
	wait := time.Duration(deadline - d.now())
	if d.timer == nil {
		d.timer = time.AfterFunc(wait, d.fire)
		return
	}
	d.timer.Reset(wait)
}

func (d *deadlines) fire() {
	d.mu.Lock()
	if d.done {
		d.mu.Unlock()
		return
	}
	d.wg.Add(1)
	defer d.wg.Done()
	// Cleared before the sweep: a call that is inserted while it runs either is
	// seen by it or arms the timer itself.
	d.armed.Store(0)
	d.mu.Unlock()

	next, pause := d.expire(d.now())
	d.mu.Lock()
	defer d.mu.Unlock()
	d.notBefore = d.now() + int64(pause)
	if next != 0 {
		d.arm(next)
	}
}

// stop ends the timer and waits for a sweep that is running.
func (d *deadlines) stop() {
	d.mu.Lock()
	d.done = true
	if d.timer != nil {
		d.timer.Stop()
	}
	d.mu.Unlock()
	d.wg.Wait()
}
