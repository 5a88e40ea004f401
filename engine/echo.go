package engine

import (
	"sync"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// maxEcho is how many bytes of answers may wait for a peer that does not read.
// A single message may exceed it, so that the largest ones can be answered.
const maxEcho = 4 << 20

// Echo is a [Handler] that sends every message back, text as text and binary as
// binary. Answers wait in a bounded queue: a peer that sends and does not read is
// closed with code 1008.
type Echo struct {
	conn *Conn
	max  int

	mu      sync.Mutex
	queue   *buf.Buf // frames to send; nil when there are none
	sending *buf.Buf // frames lent to the connection by the last Collect
	full    bool
}

// NewEcho returns a handler for c. Pass it to c.Start.
func NewEcho(c *Conn) *Echo { return &Echo{conn: c, max: maxEcho} }

// Message queues the answer; it copies p.
func (e *Echo) Message(text bool, p []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.full {
		return
	}
	if e.queue == nil {
		e.queue = buf.Get(len(p) + maxHeader)
	}
	if waiting := len(e.queue.B); waiting > 0 && waiting+len(p) > e.max {
		e.full = true
		return
	}
	if need := len(e.queue.B) + len(p) + maxHeader; need > cap(e.queue.B) {
		bigger := buf.Get(max(need, 2*cap(e.queue.B)))
		bigger.B = append(bigger.B, e.queue.B...)
		e.queue.Release()
		e.queue = bigger
	}
	e.queue.B = e.conn.AppendFrame(e.queue.B, text, p)
}

// ReadDone starts the sending, or the closing when the queue was full.
func (e *Echo) ReadDone() {
	e.mu.Lock()
	full := e.full
	e.mu.Unlock()
	if full {
		e.conn.CloseWith(ClosePolicy, "answers are not read")
		return
	}
	e.conn.Kick()
}

// Collect lends what is queued.
func (e *Echo) Collect(dst [][]byte) [][]byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sending != nil {
		e.sending.Release()
		e.sending = nil
	}
	if e.queue == nil || len(e.queue.B) == 0 {
		return dst
	}
	e.sending, e.queue = e.queue, nil
	return append(dst, e.sending.B)
}

// Closed frees the queue.
func (e *Echo) Closed(error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, b := range []*buf.Buf{e.queue, e.sending} {
		if b != nil {
			b.Release()
		}
	}
	e.queue, e.sending = nil, nil
}
