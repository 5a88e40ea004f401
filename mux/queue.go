package mux

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// outgoing is a link of the out-queue: one or more framed messages. It belongs to
// a call, or has come from a pool with the buffer that it holds.
type outgoing struct {
	next  *outgoing
	b     []byte
	count int      // messages in b
	call  *Call    // the call that b belongs to, nil if buf is set
	buf   *buf.Buf // the memory of b, released when b has been sent
}

// pooledOutgoing holds links that belong to no call.
var pooledOutgoing = sync.Pool{New: func() any { return new(outgoing) }}

// newOutgoing returns a link that takes b, which holds count messages.
func newOutgoing(b *buf.Buf, count int) *outgoing {
	p, _ := pooledOutgoing.Get().(*outgoing)
	p.b, p.count, p.buf = b.B, count, b
	return p
}

// sent gives back the memory of a message that has been sent.
func (p *outgoing) sent() { p.free(callSent) }

// discard gives back the memory of a message that will never be sent.
func (p *outgoing) discard() { p.free(callUnsent) }

func (p *outgoing) free(state callState) {
	p.next = nil
	if c := p.call; c != nil {
		c.state.Store(uint32(state)) // the last touch: c may be used anew from here on
		return
	}
	p.buf.Release()
	*p = outgoing{}
	pooledOutgoing.Put(p)
}

// lane is a queue that any goroutine may push to and one at a time may take from.
//
// It is a stack that is emptied at once: a push links the message to the head by
// compare-and-swap, which publishes it; the consumer swaps the whole stack for nil
// and turns it round. No wake-up is lost: whoever pushes to an empty lane has to
// wake the consumer, and a push to a lane that is not empty is seen by the same
// look of the consumer that sees the message below it. Swapping everything leaves
// no room for a head that comes back meanwhile: the compare of a push succeeds only
// while the link it read is the head, and then next is right.
//
// The twin with a mutex is in lane_test.go.
type lane struct {
	head  atomic.Pointer[outgoing]
	ready *outgoing // taken and turned round, oldest first; owned by the consumer
}

// endOfLane is the head of a lane that takes nothing any more.
var endOfLane outgoing

// push queues p. first says that the lane was empty: the caller must wake the
// consumer. ok is false if the lane has ended.
func (l *lane) push(p *outgoing) (first, ok bool) {
	for {
		head := l.head.Load()
		if head == &endOfLane {
			return false, false
		}
		p.next = head
		if l.head.CompareAndSwap(head, p) {
			return head == nil, true
		}
	}
}

// pop returns the oldest message, nil if there is none. Only the consumer calls it.
func (l *lane) pop() *outgoing {
	if l.ready == nil && !l.take() {
		return nil
	}
	p := l.ready
	l.ready = p.next
	p.next = nil
	return p
}

// isEmpty reports whether nothing waits. Only the consumer calls it.
func (l *lane) isEmpty() bool {
	head := l.head.Load()
	return l.ready == nil && (head == nil || head == &endOfLane)
}

// take makes ready what has been pushed and reports whether it was anything.
func (l *lane) take() bool {
	head := l.head.Load()
	if head == nil || head == &endOfLane {
		return false
	}
	l.ready = reversed(l.head.Swap(nil))
	return true
}

// end makes the lane refuse what is pushed from now on and returns what it held,
// except for what the consumer had made ready.
func (l *lane) end() *outgoing {
	head := l.head.Swap(&endOfLane)
	if head == &endOfLane {
		return nil
	}
	return reversed(head)
}

func reversed(p *outgoing) (first *outgoing) {
	for p != nil {
		p.next, first, p = first, p, p.next
	}
	return first
}

// outQueue is the bounded queue of a session's outgoing messages, in two lanes:
// large messages let others pass, up to passBytes. Producers are any goroutines; the one
// consumer is the holder of the link's write role.
//
// When the queue is full a producer waits for room, or is told that there is
// none, as it chooses.
type outQueue struct {
	maxBytes    int64
	maxMessages int64

	small, bulk lane
	passed      int // bytes of small messages taken since a bulk one was; owned by the consumer

	// load is what waits: messages << loadShift | bytes. A producer adds what it
	// brings unless the queue is full.
	load    atomic.Int64
	waiting atomic.Int32 // producers that wait for room

	mu    sync.Mutex
	roomc chan struct{} // guarded by mu; made by the first producer that waits, closed when there may be room
	err   error         // guarded by mu; set once before the lanes end
}

const (
	loadShift = 40
	loadBytes = 1<<loadShift - 1

	// bulkBytes is the size from which a message is bulk.
	bulkBytes = 32 << 10

	// passBytes is how many bytes of small messages may pass a bulk one.
	passBytes = 1 << 20
)

func (p *outgoing) load() int64 { return int64(p.count)<<loadShift + int64(len(p.b)) }

// full says whether a producer must wait at this load.
func (q *outQueue) full(load int64) bool {
	return load&loadBytes >= q.maxBytes || load>>loadShift >= q.maxMessages
}

// push queues p if there is room; reserve doubles the limits, for what refuses
// work or must not wait. first says that the consumer must be woken. If there is
// no room ok is false and p stays the caller's; on an error p has been discarded.
func (q *outQueue) push(p *outgoing, reserve bool) (first, ok bool, err error) {
	load := p.load()
	// Not added and taken back: what a producer that finds no room brings must not
	// make the reserve look used up meanwhile.
	for {
		before := q.load.Load()
		used := before
		if reserve {
			used = before>>loadShift/2<<loadShift | before&loadBytes/2
		}
		if q.full(used) {
			return false, false, nil
		}
		if q.load.CompareAndSwap(before, before+load) {
			break
		}
	}
	l := &q.small
	if len(p.b) >= bulkBytes {
		l = &q.bulk
	}
	first, ok = l.push(p)
	if !ok {
		q.sent(load)
		p.discard()
		q.mu.Lock()
		defer q.mu.Unlock()
		return false, false, q.err
	}
	return first, true, nil
}

// isEmpty reports whether there is nothing to be sent. Only the consumer calls it.
func (q *outQueue) isEmpty() bool { return q.small.isEmpty() && q.bulk.isEmpty() }

// pushWait queues p and waits for room until ctx ends. On an error p has been
// discarded.
func (q *outQueue) pushWait(ctx context.Context, p *outgoing) (first bool, err error) {
	for {
		first, ok, err := q.push(p, false)
		if ok || err != nil {
			return first, err
		}
		if err := q.waitRoom(ctx); err != nil {
			p.discard()
			return false, err
		}
	}
}

// waitRoom waits until there may be room.
func (q *outQueue) waitRoom(ctx context.Context) error {
	q.waiting.Add(1)
	defer q.waiting.Add(-1)
	q.mu.Lock()
	// Looked at after waiting was raised: whoever makes room later sees it.
	if q.err != nil || !q.full(q.load.Load()) {
		defer q.mu.Unlock()
		return q.err
	}
	if q.roomc == nil {
		q.roomc = make(chan struct{})
	}
	roomc := q.roomc
	q.mu.Unlock()
	select {
	case <-roomc:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sent gives back the room of messages that have been taken.
func (q *outQueue) sent(load int64) {
	left := q.load.Add(-load)
	if q.waiting.Load() > 0 && !q.full(left) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.wakeLocked()
	}
}

// wakeLocked lets all waiting producers look again.
func (q *outQueue) wakeLocked() {
	if q.roomc != nil {
		close(q.roomc)
		q.roomc = nil
	}
}

// pop returns the next message to send, nil if there is none. Only the consumer
// calls it. Small messages that never end let a bulk one go from time to time.
func (q *outQueue) pop() *outgoing {
	if q.passed < passBytes {
		if p := q.small.pop(); p != nil {
			q.passed += len(p.b)
			return p
		}
	}
	q.passed = 0
	if p := q.bulk.pop(); p != nil {
		return p
	}
	return q.small.pop()
}

// close refuses all further messages with err, wakes the waiting producers and
// discards what is queued. The consumer must be gone.
func (q *outQueue) close(err error) {
	q.mu.Lock()
	if q.err == nil {
		q.err = err
	}
	q.wakeLocked()
	q.mu.Unlock()
	for _, l := range []*lane{&q.small, &q.bulk} {
		for p := l.ready; p != nil; {
			next := p.next
			q.load.Add(-p.load()) // who comes later is to find the end, not a full queue
			p.discard()
			p = next
		}
		l.ready = nil
		for p := l.end(); p != nil; {
			next := p.next
			q.load.Add(-p.load()) // who comes later is to find the end, not a full queue
			p.discard()
			p = next
		}
	}
}
