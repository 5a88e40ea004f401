package mux

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// block is the requests of one read that a worker serves one after the other. The
// finished answers gather in out and leave in one piece at the end, which is what
// makes a batch cheap. No handler holds up the others for that: when one runs for
// long, what is finished is sent and another worker goes on with the next request
// (see watch.go).
//
//	collecting --submit--> running --last worker leaves--> free
//	                        |   ^
//	                        +---+  rescue: sends out, adds a worker
type block struct {
	session *Session
	queue   []queued
	data    *buf.Buf      // copies of the payloads
	cost    time.Duration // of the requests, by the means of their targets
	watched bool          // in the list of Workers; fixed at submit

	next    atomic.Int32 // index of the next request to be claimed
	workers atomic.Int32 // those that are in run or about to be; while the block is in Workers.running it is 0 only under Workers.mu

	mu       sync.Mutex
	out      *buf.Buf // finished answers, framed; guarded by mu
	count    int      // of them; guarded by mu
	finished int      // requests to be taken off the session's counts with out; guarded by mu
	bytes    int64    // their payloads; guarded by mu
	after    []func() // to be called when out has been queued; guarded by mu

	// Guarded by Workers.mu.
	index    int   // in Workers.running, -1 when not in it
	seenNext int32 // next, when it was first seen at this value
	seenAt   int64 // when that was, on the session's clock; 0 means never
}

// queued is a request in a block.
type queued struct {
	target        Target
	id            uint32
	at, end       uint32 // the payload in data
	offset, count uint32 // of Request
	typ           wire.Type
	meta          bool
}

const (
	// blockRequests is how many requests a block holds at most, and blockCost how long
	// they may take together, as far as is known. More go to further workers, which
	// other processors may have.
	blockRequests = 256
	blockCost     = 200 * time.Microsecond
	// flushBytes is the size from which answers do not wait for the end of their block.
	flushBytes = 32 << 10
	// answerRoom is the room that an answer's buffer starts with.
	answerRoom = 512
)

var pooledBlocks = sync.Pool{New: func() any { return &block{index: -1} }}

// pooledRequests holds what handlers get; one serves all requests of a worker.
var pooledRequests = sync.Pool{New: func() any { return new(Request) }}

func newBlock(s *Session) *block {
	b, _ := pooledBlocks.Get().(*block)
	b.session = s
	return b
}

// add copies a request into the block.
func (b *block) add(r *Request) {
	if b.data == nil {
		b.data = buf.Get(len(r.Payload))
	}
	if r.Target != nil {
		b.cost += r.Target.Mean()
	}
	at := len(b.data.B)
	b.data.Append(r.Payload)
	b.queue = append(b.queue, queued{
		target: r.Target, id: r.id, typ: r.Type, meta: r.Meta,
		at: uint32(at), end: uint32(len(b.data.B)), offset: uint32(r.Offset), count: uint32(r.Count),
	})
}

// full reports whether the block should take no more requests.
func (b *block) full() bool { return len(b.queue) >= blockRequests || b.cost >= blockCost }

// size returns the bytes of all payloads.
func (b *block) size() int64 {
	if b.data == nil {
		return 0
	}
	return int64(len(b.data.B))
}

// recycle gives the block's memory back. Nobody may refer to it.
func (b *block) recycle() {
	if b.data != nil {
		b.data.Release()
		b.data = nil
	}
	clear(b.queue)
	b.queue = b.queue[:0]
	b.session = nil
	b.cost = 0
	b.watched = false
	b.seenAt = 0
	b.next.Store(0)
	pooledBlocks.Put(b)
}

// run serves requests of the block until none is left. It is what a worker does.
func (b *block) run() {
	s := b.session
	r := s.takeRequest()
	answer := newAnswer(s)
	current := -1
	defer func() {
		if current >= 0 {
			b.abandoned(r, current, recover())
		}
	}()
	for {
		i := int(b.next.Add(1)) - 1
		if i >= len(b.queue) {
			break
		}
		q := &b.queue[i]
		if q.target != nil && i+1 < len(b.queue) && q.target.Dispatch() == Alone {
			b.handOver() // learned while it waited in the block
		}
		current = i
		r.Type, r.Payload, r.Target = q.typ, b.data.B[q.at:q.end], q.target
		r.Offset, r.Count, r.id = int(q.offset), int(q.count), q.id
		r.Meta, r.Trailer, r.early = q.meta, false, nil
		start := len(answer.B)
		out, isError := s.cfg.Serve(r, answer.B)
		answer.B = out
		current = -1
		if b.answeredEarly(r, q) {
			answer.B = out[:start]
		} else {
			answer = b.answer(answer, start, q, r.response(isError))
		}
		if r.AfterAnswer != nil {
			b.then(r.AfterAnswer)
			r.AfterAnswer = nil
		}
	}
	answer.Release()
	s.keepRequest(r)
	b.flush(true)
	b.leave()
}

// takeRequest returns a Request for a worker, if possible one that has served this
// session before.
func (s *Session) takeRequest() *Request {
	r := s.spare.Swap(nil)
	if r == nil {
		r, _ = pooledRequests.Get().(*Request)
	}
	r.session = s
	return r
}

// keepRequest takes back what a worker has done with.
func (s *Session) keepRequest(r *Request) {
	*r = Request{Scratch: r.Scratch}
	if !s.spare.CompareAndSwap(nil, r) {
		pooledRequests.Put(r)
	}
}

// newAnswer returns a buffer that begins with room for frame and packet header.
func newAnswer(s *Session) *buf.Buf {
	b := buf.Get(max(int(s.answerSize.Load()), answerRoom))
	var room [wire.HeaderLen]byte
	b.B = append(s.link.BeginFrame(b.B), room[:]...)
	return b
}

// answer takes the finished answer to q and returns a buffer for the next one. The
// payload begins at start.
func (b *block) answer(answer *buf.Buf, start int, q *queued, flags wire.Flags) *buf.Buf {
	s := b.session
	wire.PutHeader(answer.B[start-wire.HeaderLen:], q.id, flags)
	framed := s.link.EndFrame(answer.B, 0, false)
	if size := int32(min(len(framed), keptBytes)); size > s.answerSize.Load() && size > answerRoom {
		s.answerSize.Store(size)
	}
	if len(framed) >= bulkBytes {
		answer.B = framed
		s.respond(newOutgoing(answer, 1))
		b.finish(nil, q)
		return newAnswer(s)
	}
	full := b.finish(framed, q)
	answer.B = framed[:start]
	if full {
		b.flush(true)
	}
	return answer
}

// answeredEarly ends a request whose handler has ended and reports whether it needs
// no answer any more.
func (b *block) answeredEarly(r *Request, q *queued) bool {
	answered, mine := r.endRequest()
	if answered && mine {
		b.finish(nil, q)
		b.flush(true) // it took long: it should not count while others are served
	}
	return answered
}

// then has fn called when what is finished by now has been queued.
func (b *block) then(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.after = append(b.after, fn)
}

// finish counts a request as done and adds its answer, if there is one, to those
// that wait. It reports whether they should be sent now.
func (b *block) finish(framed []byte, q *queued) (full bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.finished++
	b.bytes += int64(q.end - q.at)
	if framed == nil {
		return false
	}
	if b.out == nil {
		// Room for all, but for no more than is sent at once: what waits in the outgoing
		// queue is counted by its length.
		b.out = buf.Get(min(len(b.queue)*len(framed), flushBytes+len(framed)))
	}
	b.out.Append(framed)
	b.count++
	return len(b.out.B) >= flushBytes
}

// flush sends the answers that wait. With mayWait it waits while the outgoing
// queue is full; else it leaves them for later then, and reports false.
func (b *block) flush(mayWait bool) bool {
	s := b.session
	if !mayWait && s.queue.full(s.queue.load.Load()) {
		return false
	}
	b.mu.Lock()
	out, count, finished, bytes, after := b.out, b.count, b.finished, b.bytes, b.after
	b.out, b.count, b.finished, b.bytes, b.after = nil, 0, 0, 0, nil
	b.mu.Unlock()
	if out != nil {
		p := newOutgoing(out, count)
		if mayWait {
			s.respond(p)
		} else {
			s.mustRespond(p)
		}
	}
	for _, fn := range after {
		fn()
	}
	if finished > 0 {
		s.release(finished, bytes) // after the answers: who waits for the last handler may close then
	}
	return true
}

// handOver lets another worker go on with the block and sends what is finished,
// because the next handler takes long. If there is no worker the block stays as
// it is.
func (b *block) handOver() {
	if b.session.cfg.Workers.join(b) {
		b.flush(true)
	}
}

// abandoned ends a worker whose handler did not return: it panicked, or ended its
// goroutine. Its request gets an answer, unless it was answered early, and the rest
// another worker.
func (b *block) abandoned(r *Request, i int, panicked any) {
	s, q := b.session, &b.queue[i]
	if panicked != nil {
		s.cfg.Workers.logPanic(panicked)
	}
	if !b.answeredEarly(r, q) {
		answer := newAnswer(s)
		start := len(answer.B)
		answer.B = append(answer.B, s.cfg.Failed...)
		b.answer(answer, start, q, wire.Response(q.typ, true)).Release()
	}
	if int(b.next.Load()) < len(b.queue) && !s.cfg.Workers.join(b) {
		b.refuseRest()
	}
	b.flush(true)
	b.leave()
}

// refuseRest answers the requests that nobody has claimed.
func (b *block) refuseRest() {
	s := b.session
	for {
		i := int(b.next.Add(1)) - 1
		if i >= len(b.queue) {
			return
		}
		s.stats.refused.Add(1)
		answer := newAnswer(s)
		start := len(answer.B)
		answer.B = append(answer.B, s.cfg.Overloaded...)
		b.answer(answer, start, &b.queue[i], wire.Response(b.queue[i].typ, true)).Release()
		s.refused(b.request(i))
	}
}

// request returns a request of the block that is not served.
func (b *block) request(i int) *Request {
	q := &b.queue[i]
	return &Request{
		Type: q.typ, Payload: b.data.B[q.at:q.end], Target: q.target, Meta: q.meta,
		Offset: int(q.offset), Count: int(q.count), id: q.id, session: b.session,
	}
}

// leave ends a worker's use of the block. The last one gives it back: each worker
// leaves when no request is left to claim and its own handler has ended, and has
// sent what was finished by then.
func (b *block) leave() {
	if b.session.cfg.Workers.left(b) {
		b.recycle()
	}
}
