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
	size    int64 // of the payload
	state   atomic.Uint32
}

// The states of an EarlyAnswer. Who gets it out of earlyOpen answers the request; who
// comes last of Answer and handler takes it off the counts, so that it counts once,
// and until both have ended.
const (
	earlyOpen      uint32 = iota
	earlyAnswering        // Answer sends the answer
	earlyAnswered         // Answer has sent it
	earlyEnded            // the handler has ended
)

// MayAnswerEarly makes e answer the request. Serve calls it, before it returns, for
// a request that is not Inline.
func (r *Request) MayAnswerEarly(e *EarlyAnswer) {
	e.session, e.id, e.typ, e.size = r.session, r.id, r.Type, int64(len(r.Payload))
	r.early = e
}

// Answer sends the answer that payload encodes unless Serve has returned, and
// reports whether it did. It copies payload. It waits while the outgoing queue is
// full, until the session ends. Any goroutine may call it.
func (e *EarlyAnswer) Answer(payload []byte, isError bool) bool {
	if !e.state.CompareAndSwap(earlyOpen, earlyAnswering) {
		return false
	}
	s := e.session
	answer := newAnswer(s)
	start := len(answer.B)
	answer.B = append(answer.B, payload...)
	wire.PutHeader(answer.B[start-wire.HeaderLen:], e.id, wire.Response(e.typ, isError))
	answer.B = s.link.EndFrame(answer.B, 0, false)
	s.respond(newOutgoing(answer, 1))
	if !e.state.CompareAndSwap(earlyAnswering, earlyAnswered) {
		s.release(1, e.size)
	}
	return true
}

// endRequest ends a request whose handler has ended. It reports whether it was
// answered early, and if so, whether it is the caller's to take off the counts.
func (r *Request) endRequest() (answered, mine bool) {
	e := r.early
	switch {
	case e == nil, e.state.CompareAndSwap(earlyOpen, earlyEnded):
		return false, true
	case e.state.CompareAndSwap(earlyAnswering, earlyEnded):
		return true, false
	}
	return true, true
}
