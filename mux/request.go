package mux

import (
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// Dispatch says where a request is served.
type Dispatch uint8

// The ways to serve a request.
const (
	// Batched requests of one read share a worker, which serves them one after the
	// other. When one takes long another worker takes the rest over.
	Batched Dispatch = iota

	// Alone is a worker for this request only: for handlers that are known to take
	// longer than the hand-over costs.
	Alone

	// Inline is the read owner itself. The handler must never block.
	Inline
)

// String returns the name of the constant in lower case.
func (d Dispatch) String() string {
	switch d {
	case Batched:
		return "batched"
	case Alone:
		return "alone"
	case Inline:
		return "inline"
	}
	return "unknown"
}

// Target is what a request asks for, as the owner of the session knows it. Its
// methods are called by all sessions and workers, at any time.
type Target interface {
	// Dispatch says where requests for the target are served. It may change.
	Dispatch() Dispatch

	// Mean is about how long its handlers take. A batch ends when the means of its
	// requests add up to more than a hand-over should bring.
	Mean() time.Duration

	// Stalled is told that a handler of the target took so long that the rest of its
	// batch went to another worker. It must not block.
	Stalled()
}

// Request is a request of the peer that waits to be served. It lives until the
// Serve function that got it returns; Serve must not keep it.
type Request struct {
	// Type is GET, SET, CALL or TASK.
	Type wire.Type

	// Payload is the encoded payload. It lends until Serve returns.
	Payload []byte

	// Target is set by Config.Route; nil means a batched request.
	Target Target

	// Offset and Count are for Config.Route to tell Serve what it has read already.
	Offset, Count int

	// Meta reports that a second value follows the one of the payload (protocol section
	// 12.3).
	Meta bool

	// Always is set by Config.Route for an inline request that is served while the session
	// drains, too.
	Always bool

	// Trailer is set by Serve if it appended a second value to its answer. The peer must
	// have negotiated that.
	Trailer bool

	// Inline reports that Serve runs on the read owner and must not block.
	Inline bool

	// Scratch is for Serve to keep what it wants to find again, most likely with another
	// request of the session, but perhaps with one of another. It is not shared, is nil for
	// requests that are served inline, and may be lost at any time.
	Scratch any

	// AfterAnswer is set by Serve to have something done when its answer has been queued, or
	// dropped since the session has ended or the request was answered early. It must not block. Requests that are served inline
	// have none.
	AfterAnswer func()

	id      uint32
	session *Session
	early   *EarlyAnswer // nil unless the request may be answered before Serve returns
}

// ID returns the id of the request, which is unique among the unfinished ones of
// the connection.
func (r *Request) ID() uint32 { return r.id }

// Session returns the session that the request came from.
func (r *Request) Session() *Session { return r.session }

// response returns the flags of the answer.
func (r *Request) response(isError bool) wire.Flags {
	f := wire.Response(r.Type, isError)
	if r.Trailer {
		f |= wire.FlagMeta
	}
	return f
}

// counters counts what a session met. All are events since its start.
type counters struct {
	requests    atomic.Uint64
	events      atomic.Uint64
	replies     atomic.Uint64
	refused     atomic.Uint64
	lateReplies atomic.Uint64
	malformed   atomic.Uint64
	unknown     atomic.Uint64
	ignoredText atomic.Uint64
	cancels     atomic.Uint64
}

// batchCounts collects what one read brings, to pay for the atomics once.
type batchCounts struct{ requests, replies, events uint64 }

// Stats is a snapshot of a session's counters.
type Stats struct {
	Requests    uint64 // requests received
	Events      uint64 // events received, without those that came as tasks
	Replies     uint64 // answers received that a call waited for
	Refused     uint64 // requests refused by a limit, or while draining
	LateReplies uint64 // answers that nobody waited for: late, unknown or duplicate, and those to events
	Malformed   uint64 // packets dropped because they had no readable header or payload
	Unknown     uint64 // packets dropped because their type is unknown or not expected
	IgnoredText uint64 // text messages after the handshake
	Cancels     uint64 // requests that the peer gave up

	EventsSent    uint64 // events handed to the link, notices of losses included
	EventsDropped uint64 // events given up, since the peer read too slowly or the session ended
	EventsWaiting int    // events that wait to be sent, now
}

// Stats returns what the session has counted.
func (s *Session) Stats() Stats {
	events := s.EventStats()
	return Stats{
		Requests:    s.stats.requests.Load(),
		Events:      s.stats.events.Load(),
		Replies:     s.stats.replies.Load(),
		Refused:     s.stats.refused.Load(),
		LateReplies: s.stats.lateReplies.Load(),
		Malformed:   s.stats.malformed.Load(),
		Unknown:     s.stats.unknown.Load(),
		IgnoredText: s.stats.ignoredText.Load(),
		Cancels:     s.stats.cancels.Load(),

		EventsSent:    events.Sent,
		EventsDropped: events.Dropped,
		EventsWaiting: events.Waiting,
	}
}
