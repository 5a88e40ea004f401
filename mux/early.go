package mux

import (
	"sync/atomic"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// EarlyAnswer answers a request whose handler still runs, so that its caller need
// not wait for a handler that does not end. The zero value is made ready by
// [Request.MayAnswerEarly]. It is used for one request.
//
// The handler keeps its worker, its request and the buffer it appends to until
// Serve returns, and counts as being served until then; what Serve returns is
// dropped if the request was answered early. So nothing that Serve was lent
// changes hands, and a handler that ends in time costs no hand-over.
type EarlyAnswer struct {
	session *Session
	id      uint32
	typ     wire.Type
	claimed atomic.Bool // by Answer or by the worker, whoever has the outcome first
}

// MayAnswerEarly makes e answer the request. Serve calls it, before it returns, for
// a request that is not Inline.
func (r *Request) MayAnswerEarly(e *EarlyAnswer) {
	e.session, e.id, e.typ = r.session, r.id, r.Type
	r.early = e
}

// Answer sends the answer that payload encodes unless Serve has returned, and
// reports whether it did. It copies payload. It waits while the outgoing queue is
// full, until the session ends. Any goroutine may call it.
func (e *EarlyAnswer) Answer(payload []byte, isError bool) bool {
	s := e.session
	// Whoever drains the session waits for this answer too. Counted before the claim:
	// as long as nobody has claimed, the request itself is counted.
	s.inflight.Add(1)
	defer s.release(1, 0)
	if !e.claim() {
		return false
	}
	answer := newAnswer(s)
	start := len(answer.B)
	answer.B = append(answer.B, payload...)
	wire.PutHeader(answer.B[start-wire.HeaderLen:], e.id, wire.Response(e.typ, isError))
	answer.B = s.link.EndFrame(answer.B, 0, false)
	s.respond(newOutgoing(answer, 1))
	return true
}

// claim takes the right to answer the request. It returns false for the second
// who asks.
func (e *EarlyAnswer) claim() bool { return e.claimed.CompareAndSwap(false, true) }

// answered reports, after Serve has returned, whether the request was answered
// early. If it was not it cannot be any more.
func (r *Request) answered() bool { return r.early != nil && !r.early.claim() }
