package mux

import (
	"context"
	"sync"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// outgoing is one message that waits to be sent.
type outgoing struct {
	buf  *buf.Buf
	text bool  // a text message: handshake frames only
	call *call // the pending call that this request belongs to, to note that it was sent; nil else
}

// outQueue is the bounded queue of a session's outgoing packets. Producers are
// any goroutines; the one consumer is the holder of the link's write role.
//
// When the queue is full a producer waits for room, or is told that there is
// none, as it chooses.
type outQueue struct {
	maxBytes   int
	maxPackets int

	mu      sync.Mutex
	packets []outgoing    // guarded by mu
	bytes   int           // of packets and of those taken but not yet framed; guarded by mu
	count   int           // likewise; guarded by mu
	roomc   chan struct{} // guarded by mu; made by the first producer that waits, closed when there may be room
	err     error         // guarded by mu; set once when the queue closes
}

// push takes the packet if there is room; reserve doubles the limits, for
// answers that refuse work. If there is none it reports false and the packet
// stays the caller's; on an error its buffer has been released.
func (q *outQueue) push(p outgoing, reserve bool) (bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		p.buf.Release()
		return false, q.err
	}
	if q.full() && !(reserve && q.bytes/2 < q.maxBytes && q.count/2 < q.maxPackets) {
		return false, nil
	}
	q.add(p)
	return true, nil
}

// pushWait takes the packet and waits for room until ctx ends. On an error the
// packet's buffer has been released.
func (q *outQueue) pushWait(ctx context.Context, p outgoing) error {
	q.mu.Lock()
	for q.err == nil && q.full() {
		if q.roomc == nil {
			q.roomc = make(chan struct{})
		}
		roomc := q.roomc
		q.mu.Unlock()
		select {
		case <-roomc:
		case <-ctx.Done():
			p.buf.Release()
			return ctx.Err()
		}
		q.mu.Lock()
	}
	defer q.mu.Unlock()
	if q.err != nil {
		p.buf.Release()
		return q.err
	}
	q.add(p)
	return nil
}

// add appends the packet. mu is held.
func (q *outQueue) add(p outgoing) {
	q.packets = append(q.packets, p)
	q.bytes += len(p.buf.B)
	q.count++
}

// full says whether a producer must wait. mu is held.
func (q *outQueue) full() bool { return q.bytes >= q.maxBytes || q.count >= q.maxPackets }

// take swaps the queued packets for the empty slice into.
func (q *outQueue) take(into []outgoing) []outgoing {
	q.mu.Lock()
	defer q.mu.Unlock()
	taken := q.packets
	q.packets = into[:0]
	return taken
}

// sent gives back the room of packets that have been framed.
func (q *outQueue) sent(count, bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.count -= count
	q.bytes -= bytes
	if !q.full() {
		q.wake()
	}
}

// wake lets all waiting producers look again. mu is held.
func (q *outQueue) wake() {
	if q.roomc != nil {
		close(q.roomc)
		q.roomc = nil
	}
}

// empty reports whether nothing is queued.
func (q *outQueue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.packets) == 0
}

// close refuses all further packets with err, wakes the waiting producers and
// releases what is queued.
func (q *outQueue) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		return
	}
	q.err = err
	for _, p := range q.packets {
		p.buf.Release()
	}
	q.packets = nil
	q.wake()
}
