package redisbus

import (
	"math"
	"sync"

	"github.com/d-e-v-grid/netron/codec"
)

// outbox is what leaves: events get their numbers in the order in which they are queued.
// It also knows whether Redis is there.
type outbox struct {
	stats *counters
	queue *queue[message]

	mu       sync.Mutex
	seq      uint64        // of the last event; guarded by mu
	open     bool          // Redis is there; guarded by mu
	session  uint64        // the one that may open; guarded by mu
	pending  int           // events that were queued and are not settled; guarded by mu
	draining bool          // no more events; guarded by mu
	err      error         // why Redis is not there; guarded by mu
	ready    chan struct{} // closed while open; guarded by mu
	drained  chan struct{} // closed when draining and nothing is pending
}

// message is an encoded event.
type message []byte

func (m message) size() int { return len(m) }

func newOutbox(cfg *Config, stats *counters) *outbox {
	return &outbox{
		stats:   stats,
		queue:   newQueue[message](cfg.maxEvents(), cfg.maxBytes()),
		err:     errNotYet,
		ready:   make(chan struct{}),
		drained: make(chan struct{}),
	}
}

// add gives the event the next number, which it appends to it, and queues it. It takes m;
// nil is an event that can not leave, and for which there is a counter already.
func (o *outbox) add(m message) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.draining {
		return
	}
	o.seq++
	switch {
	case m == nil:
	case !o.open:
		o.stats.lost.Add(1)
	case !o.queue.put(codec.AppendUint(m, o.seq)):
		o.stats.dropped.Add(1)
	default:
		o.pending++
	}
}

// passes counts an event as lost and returns false if Redis is away. It also returns false
// if no more events leave.
func (o *outbox) passes() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.draining && !o.open {
		o.seq++
		o.stats.lost.Add(1)
	}
	return !o.draining && o.open
}

// settle counts what became of events that were taken from the queue.
func (o *outbox) settle(sent, lost int) {
	o.stats.sent.Add(uint64(sent))
	o.stats.lost.Add(uint64(lost))
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pending -= sent + lost
	o.checkDrained()
}

// begin returns the number of a session, which may open.
func (o *outbox) begin() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.session++
	return o.session
}

// opened says that Redis is there, unless that session has ended.
func (o *outbox) opened(session uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if session != o.session || o.open || o.draining {
		return false
	}
	o.open, o.err = true, nil
	close(o.ready)
	return true
}

// ended says that Redis is away. What waits for it is lost. It reports whether Redis had
// been there.
func (o *outbox) ended(err error) (wasOpen bool) {
	o.mu.Lock()
	wasOpen = o.open
	o.session++
	o.open, o.err = false, err
	if wasOpen {
		o.ready = make(chan struct{})
	}
	rest := o.queue.take(nil, math.MaxInt)
	o.mu.Unlock()
	o.settle(0, len(rest))
	return wasOpen
}

// drain refuses more events. Then drained is closed when none is pending.
func (o *outbox) drain() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.draining {
		o.draining = true
		o.checkDrained()
	}
}

// checkDrained is called with the lock held.
func (o *outbox) checkDrained() {
	if o.draining && o.pending == 0 {
		select {
		case <-o.drained:
		default:
			close(o.drained)
		}
	}
}

func (o *outbox) connected() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.open
}

func (o *outbox) unsettled() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pending
}

// state returns a channel that is closed while Redis is there, and why it is not.
func (o *outbox) state() (ready <-chan struct{}, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.ready, o.err
}
