package mux

import (
	"sync/atomic"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// Request is a request of the peer that waits to be served. It lives until the
// Serve function that got it returns; Serve must not keep it.
type Request struct {
	// Type is GET, SET, CALL or TASK.
	Type wire.Type

	// Payload is the encoded payload. It lends until Serve returns.
	Payload []byte

	id       uint32
	session  *Session
	buf      *buf.Buf
	answered bool
}

// Session returns the session that the request came from.
func (r *Request) Session() *Session { return r.session }

// Response returns a buffer that begins with room for the packet header, for a
// payload of about n bytes to be appended. Pass it to [Request.Respond], or
// release it.
func (r *Request) Response(n int) *buf.Buf { return newPacket(n) }

// Respond answers the request with a packet from [Request.Response] and takes
// it. It waits while the outgoing queue is full. It must be called once; further
// calls release the packet and do nothing.
func (r *Request) Respond(packet *buf.Buf, isError bool) {
	if r.answered {
		packet.Release()
		return
	}
	r.answered = true
	r.session.respond(r.id, r.Type, packet, isError)
}

// finish ends the request: its memory goes back and it no longer counts.
func (r *Request) finish() {
	s, n := r.session, int64(len(r.Payload))
	r.recycle()
	s.release(n)
}

// recycle gives the request's memory back.
func (r *Request) recycle() {
	s := r.session
	r.buf.Release()
	*r = Request{}
	s.requests.Put(r)
}

// newPacket returns a buffer with room for a header and n bytes of payload.
func newPacket(n int) *buf.Buf {
	b := buf.Get(wire.HeaderLen + n)
	b.B = b.B[:wire.HeaderLen]
	return b
}

// counters counts what a session met. All are events since its start.
type counters struct {
	requests    atomic.Uint64
	replies     atomic.Uint64
	refused     atomic.Uint64
	lateReplies atomic.Uint64
	malformed   atomic.Uint64
	unknown     atomic.Uint64
	ignoredText atomic.Uint64
}

// Stats is a snapshot of a session's counters.
type Stats struct {
	Requests    uint64 // requests received
	Replies     uint64 // answers received that a call waited for
	Refused     uint64 // requests refused by a limit, or while draining
	LateReplies uint64 // answers that nobody waited for: late, unknown or duplicate
	Malformed   uint64 // packets dropped because they had no readable header or payload
	Unknown     uint64 // packets dropped because their type is unknown or not expected
	IgnoredText uint64 // text messages after the handshake
}

// Stats returns what the session has counted.
func (s *Session) Stats() Stats {
	return Stats{
		Requests:    s.stats.requests.Load(),
		Replies:     s.stats.replies.Load(),
		Refused:     s.stats.refused.Load(),
		LateReplies: s.stats.lateReplies.Load(),
		Malformed:   s.stats.malformed.Load(),
		Unknown:     s.stats.unknown.Load(),
		IgnoredText: s.stats.ignoredText.Load(),
	}
}
