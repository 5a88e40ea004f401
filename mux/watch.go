package mux

import (
	"time"
)

// A block whose handler takes long is rescued: what is finished is sent, and the
// next request gets another worker. Two things notice it. The read owner, when it
// submits another block of the session, looks whether the oldest one has moved since
// it was first seen at its present request. And a timer looks at all running
// blocks, once per watchTick while there are any: then nothing happens on an idle
// node. A block of one request has nothing to rescue and is not watched.

const (
	// watchTick is how often running blocks are looked at.
	watchTick = time.Millisecond
	// stalledAfter is how long a handler may run until its batch goes on without it,
	// if the read owner notices.
	stalledAfter = 100 * time.Microsecond
)

// watchLocked adds a block to the running ones.
func (w *Workers) watchLocked(b *block) {
	b.index = len(w.running)
	w.running = append(w.running, b)
	if !w.ticking {
		w.ticking = true
		if w.timer == nil {
			w.timer = time.AfterFunc(watchTick, w.tick)
		} else {
			w.timer.Reset(watchTick)
		}
	}
}

// unwatchLocked takes a block out of the running ones.
func (w *Workers) unwatchLocked(b *block) {
	if b.index < 0 {
		return
	}
	last := len(w.running) - 1
	w.running[b.index] = w.running[last]
	w.running[b.index].index = b.index
	w.running[last] = nil
	w.running = w.running[:last]
	b.index = -1
	if s := b.session; s.oldest == b {
		s.oldest = nil
	}
}

// tick looks at all running blocks. The timer is armed again before the rescues:
// they call links, and the link of a pipe delivers to the other session.
func (w *Workers) tick() {
	var stalled []*block
	w.mu.Lock()
	for _, b := range w.running {
		if w.stallsLocked(b, b.session.deadlines.now(), watchTick/2) {
			stalled = append(stalled, b)
		}
	}
	if w.ticking = len(w.running) > 0 && !w.closed; w.ticking {
		w.timer.Reset(watchTick)
	}
	w.mu.Unlock()
	for _, b := range stalled {
		w.rescue(b)
	}
}

// stallsLocked reports whether the block needs rescue: no request has been claimed
// since it was first seen at this one, at least limit ago. If so it counts the
// caller as one of the block's workers. now is on the session's clock.
func (w *Workers) stallsLocked(b *block, now int64, limit time.Duration) bool {
	next := b.next.Load()
	if next == 0 {
		// Its worker has not begun, and another would not sooner. It may also be that
		// submit finds no worker at all, and then must find the block as it left it.
		return false
	}
	if b.seenAt == 0 || b.seenNext != next {
		b.seenNext, b.seenAt = next, now
		return false
	}
	if now-b.seenAt < int64(limit) {
		return false
	}
	b.seenAt = now
	b.workers.Add(1)
	return true
}

// rescue sends what is finished in a block and lets another worker go on. It is
// called without mu, because sending calls the link, and for a caller that counts
// as a worker of the block: the new one takes its place.
func (w *Workers) rescue(b *block) {
	sent := b.flush(false)
	next := int(b.next.Load())
	// While the queue is full it may be that, rather than the handler, which a worker
	// waits for, and what is finished has to be sent later.
	if sent {
		if t := b.queue[min(next, len(b.queue))-1].target; t != nil {
			t.Stalled()
		}
		if next >= len(b.queue) {
			w.mu.Lock()
			w.unwatchLocked(b) // the last handlers hold up nothing
			w.mu.Unlock()
		}
	}
	if next < len(b.queue) && w.pool.Invoke(b) == nil {
		return
	}
	b.leave()
}
