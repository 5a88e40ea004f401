package mux

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// Session is the protocol of one connection. Make it with [NewSession], hand it
// to the link as the link's handler, then call [Session.Begin].
type Session struct {
	cfg  Config
	link Link

	ctx    context.Context //nolint:containedctx // the documented lifetime of the session, handed to request handlers
	cancel context.CancelCauseFunc

	// Negotiated. They are read by everybody, and away from what changes all the time.
	canCancel atomic.Bool
	canMeta   atomic.Bool
	canGoAway atomic.Bool
	canEvent  atomic.Bool
	canCredit atomic.Bool
	canStream atomic.Bool
	events    atomic.Pointer[outbox] // nil until the first event is sent

	streams           atomic.Pointer[streams] // nil until there is one
	peerWindow        int                     // of a stream, as the peer said; set before canCredit
	peerSessionWindow int                     // the same for all streams

	handshake handshake
	ready     bool // owned by the read owner

	table     callTable
	deadlines deadlines
	calls     sync.Pool // of *Call; of this session, as they hold channels

	queue outQueue
	// The three below are owned by the holder of the link's write role.
	out     *buf.Buf   // small messages, copied together
	lent    *outgoing  // a large message that the link is writing
	outSize int        // of the last out
	written []*buf.Buf // what the link has been given of events and streams
	passed  int        // writes in a row that streams had no part of

	// Owned by the read owner, for the time of one read.
	ownerCtx    context.Context //nolint:containedctx // that of functions which run on the read owner
	request     Request         // the one that is being looked at
	block       *block          // batched requests so far
	answers     *buf.Buf        // framed answers of inline requests, refusals, pongs
	answered    int             // how many
	answersSize int             // bytes of the last answers
	inlined     bool            // inline requests count as one more in inflight until ReadDone
	counts      batchCounts
	reads       int64        // negative, and another for each read
	readAt      atomic.Int64 // when the read began, on the session's clock; reads until somebody asks

	reading    atomic.Bool // between Message and ReadDone
	kickWanted atomic.Bool // see kickLater

	oldest *block // the watched block that the read owner looks at, nil when it has ended; guarded by Workers.mu

	answerSize    atomic.Int32            // the room that a worker's next answer should have
	spare         atomic.Pointer[Request] // for the next worker
	inflight      atomic.Int32            // requests being served
	inflightBytes atomic.Int64            // of their payloads
	draining      atomic.Bool
	idlec         chan struct{} // closed when draining and no request is being served
	idleOnce      sync.Once

	donec chan struct{} // closed when the session has ended
	err   error         // set before donec closes
	stats counters
}

const (
	// collectBytes is about how much is framed for one write of the link, and
	// minCollect the room that a write starts with.
	collectBytes = 64 << 10
	minCollect   = 4 << 10
	// maxPing is the largest payload of a PING packet that is sent back, in bytes. They
	// are small, and a large one would be copied for nothing.
	maxPing = 4 << 10
)

// NewSession returns a session over link. The link must call its Message,
// ReadDone, Collect and Closed methods as *engine.Conn does with its handler.
func NewSession(link Link, cfg Config) *Session {
	parent := cfg.Context
	if parent == nil {
		parent = context.Background()
	}
	s := &Session{
		cfg:   cfg,
		link:  link,
		queue: outQueue{maxBytes: int64(cfg.maxQueueBytes()), maxMessages: int64(cfg.maxQueuePackets())},
		idlec: make(chan struct{}),
		donec: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(parent)
	s.ownerCtx = s.OwnerContext(s.ctx)
	s.handshake.readyc = make(chan struct{})
	s.deadlines = deadlines{start: time.Now(), expire: s.expire}
	return s
}

// Context ends when the session does; its cause is why. Handlers of requests run
// under it.
func (s *Session) Context() context.Context { return s.ctx }

// Done is closed when the session has ended and all its calls have failed.
func (s *Session) Done() <-chan struct{} { return s.donec }

// Err returns why the session ended, or nil while it lives.
func (s *Session) Err() error {
	select {
	case <-s.donec:
		return s.err
	default:
		return nil
	}
}

// Close ends the session with a WebSocket close code after sending what is
// queued. It does not wait; see [Session.Done].
func (s *Session) Close(code uint16, reason string) { s.link.CloseWith(code, reason) }

// Refuse refuses all requests of the peer from now on. It does not wait for those
// being served; see [Session.Drain].
func (s *Session) Refuse() {
	s.draining.Store(true)
	if s.inflight.Load() == 0 {
		s.idleOnce.Do(func() { close(s.idlec) })
	}
}

// Drain refuses new requests of the peer and waits until those being served have
// been answered or ctx ends. It does not close the session.
func (s *Session) Drain(ctx context.Context) error {
	s.Refuse()
	select {
	case <-s.idlec: // whether ctx has ended or not
		return nil
	default:
	}
	select {
	case <-s.idlec:
		return nil
	case <-s.donec:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// CanMeta reports whether requests and answers may carry a second value. It is false
// until the handshake is done.
func (s *Session) CanMeta() bool { return s.canMeta.Load() }

// callsSeen returns how many requests and answers have come.
func (s *Session) callsSeen() uint64 { return s.stats.requests.Load() + s.stats.replies.Load() }

// Inflight returns how many requests of the peer are being served.
func (s *Session) Inflight() int { return int(s.inflight.Load()) }

// Pending returns how many calls wait for an answer of the peer.
func (s *Session) Pending() int { return int(s.table.live.Load()) }

// respond queues finished answers and waits for room. Answers to a session that
// has ended are dropped.
func (s *Session) respond(p *outgoing) {
	if first, err := s.queue.pushWait(s.ctx, p); err == nil && first {
		s.link.Kick()
	}
}

// mustRespond queues answers without waiting. A peer that leaves even the reserve
// of the queue unread is cut off.
func (s *Session) mustRespond(p *outgoing) {
	switch first, ok, err := s.queue.push(p, true); {
	case err != nil:
	case !ok:
		p.discard()
		s.link.CloseWith(closePolicy, "answers are not being read")
	case first:
		s.link.Kick()
	}
}

// expire fails the calls whose deadline has passed.
func (s *Session) expire(now int64) (next int64, pause time.Duration) {
	next = s.table.sweep(
		func(deadline int64) bool { return deadline != 0 && deadline <= now },
		func(c *Call) {
			s.cancelRequest(s.ctx, c.id)
			s.complete(c, Reply{}, ErrTimeout)
		},
	)
	return next, time.Duration(s.table.size()) * sweepPerSlot
}

// Message takes one message of the link. Only the link calls it.
func (s *Session) Message(text bool, p []byte) {
	if !s.ready && s.greet(text, p) {
		return
	}
	if text {
		s.stats.ignoredText.Add(1)
		return
	}
	if !s.reading.Load() {
		s.forgetTime()
		s.reading.Store(true)
	}
	pkt, err := wire.Parse(p)
	switch {
	case err != nil && !(errors.Is(err, wire.ErrNoPayload) && (isRequest(pkt.Flags) || isAnswer(pkt.Flags))):
		s.stats.malformed.Add(1)
	case isRequest(pkt.Flags):
		s.serve(pkt) // without a payload too: the owner answers
	case isAnswer(pkt.Flags):
		s.answer(pkt) // without a payload too: whoever waits cannot read it, and ends
	case pkt.Flags.Type() == wire.TypePing && pkt.Flags.Impulse():
		s.pong(pkt)
	case pkt.Flags == wire.Request(wire.TypeCancel) && s.canCancel.Load() && len(pkt.Payload) == 1 && pkt.Payload[0] == nilValue:
		s.stats.cancels.Add(1)
		if s.cfg.Cancel != nil {
			s.cfg.Cancel(pkt.ID)
		}
	case s.cfg.Streams != nil && s.isStreamPacket(pkt.Flags):
		s.streamPacket(pkt)
	case pkt.Flags == wire.Request(wire.TypeEvent) && s.canEvent.Load():
		s.counts.events++
		if s.cfg.Event != nil {
			s.cfg.Event(s, pkt.Payload)
		}
	case pkt.Flags == wire.Request(wire.TypeGoAway) && s.canGoAway.Load():
		if s.cfg.GoAway != nil {
			s.cfg.GoAway(s, pkt.Payload)
		}
	default:
		s.stats.unknown.Add(1)
	}
}

// isRequest reports whether a packet asks for an answer of the owner. The error
// bit means nothing in a request (protocol section 4.5).
func isRequest(f wire.Flags) bool {
	return f.Impulse() && f.Type() >= wire.TypeGet && f.Type() <= wire.TypeTask
}

// isAnswer reports whether a packet answers a request. Its type says nothing more
// (protocol section 4.4).
func isAnswer(f wire.Flags) bool { return !f.Impulse() && f.Type() < wire.TypeStream }

// serve serves an inline request, or adds another to the batch for a worker.
func (s *Session) serve(pkt wire.Packet) {
	s.counts.requests++
	r := &s.request
	*r = Request{Type: pkt.Flags.Type(), Payload: pkt.Payload, Meta: pkt.Flags.Meta() && s.canMeta.Load(), id: pkt.ID, session: s}
	if s.cfg.Route != nil {
		s.cfg.Route(r)
	}
	dispatch := Batched
	if r.Target != nil {
		dispatch = r.Target.Dispatch()
	}
	if dispatch == Inline {
		s.serveInline(r)
		return
	}
	if !s.hasRoom(int64(len(pkt.Payload))) {
		s.refuse(r, s.cfg.Overloaded)
		s.refused(r)
		return
	}
	if dispatch == Alone {
		b := newBlock(s)
		b.add(r)
		s.submit(b)
		return
	}
	if s.block == nil {
		s.block = newBlock(s)
	}
	s.block.add(r)
	if s.block.full() {
		s.submitBlock()
	}
}

// hasRoom reports whether the limits allow one more request with n bytes of
// payload. It is asked before these are copied. A single request may be larger than
// the limits on bytes.
func (s *Session) hasRoom(n int64) bool {
	requests, bytes := int(s.inflight.Load()), int64(0)
	if s.block != nil {
		requests += len(s.block.queue)
		bytes = s.block.size()
	}
	if s.inlined {
		requests--
	}
	mine := s.inflightBytes.Load() + bytes
	all := s.cfg.Workers.bytes.Load() + bytes
	return requests < s.cfg.maxRequests() &&
		(mine == 0 || mine+n <= int64(s.cfg.maxRequestBytes())) &&
		(all == 0 || all+n <= s.cfg.Workers.maxBytes)
}

// submitBlock hands the batch so far to a worker.
func (s *Session) submitBlock() {
	b := s.block
	s.block = nil
	s.submit(b)
}

// submit hands a block to a worker, or refuses all of it.
func (s *Session) submit(b *block) {
	n, bytes := len(b.queue), b.size()
	// Counted before draining is looked at: Drain does the two the other way round.
	s.inflight.Add(int32(n))
	s.inflightBytes.Add(bytes)
	s.cfg.Workers.bytes.Add(bytes)
	refusal := s.cfg.Draining
	if !s.draining.Load() {
		if s.cfg.Workers.submit(b) == nil {
			return
		}
		refusal = s.cfg.Overloaded
	}
	for i := range b.queue {
		r := b.request(i)
		s.refuse(r, refusal)
		s.refused(r)
	}
	b.recycle()
	s.release(n, bytes)
}

// Hold counts as a request that is being served, until the function that it returns is called,
// once: for what goes on when the answer has left. It may be called while one is being served.
func (s *Session) Hold() (release func()) {
	s.inflight.Add(1)
	return func() { s.release(1, 0) }
}

// release takes requests whose handlers have ended off the counts.
func (s *Session) release(n int, bytes int64) {
	s.cfg.Workers.bytes.Add(-bytes)
	s.inflightBytes.Add(-bytes)
	if s.inflight.Add(-int32(n)) == 0 && s.draining.Load() {
		s.idleOnce.Do(func() { close(s.idlec) })
	}
}

// serveInline serves a request on the read owner.
func (s *Session) serveInline(r *Request) {
	if !s.inlined {
		// Drain waits for the answers of this read.
		s.inlined = true
		s.inflight.Add(1)
	}
	if s.draining.Load() && !r.Always {
		s.refuse(r, s.cfg.Draining)
		return
	}
	r.Inline = true
	start, payload := s.beginAnswer()
	out, isError := s.callInline(r, s.answers.B)
	s.answers.B = out
	s.endAnswer(start, payload, r.id, r.response(isError))
}

// callInline keeps a panic of Serve to its request.
func (s *Session) callInline(r *Request, dst []byte) (out []byte, isError bool) {
	defer func() {
		if v := recover(); v != nil {
			s.cfg.Workers.logPanic(v)
			out, isError = append(dst, s.cfg.Failed...), true
		}
	}()
	return s.cfg.Serve(r, dst)
}

// beginAnswer begins an answer of the read owner and returns where its frame and
// its payload begin. The payload is to be appended to answers.
func (s *Session) beginAnswer() (start, payload int) {
	if s.answers == nil {
		s.answers = buf.Get(max(s.answersSize, answerRoom))
	}
	start = len(s.answers.B)
	var room [wire.HeaderLen]byte
	s.answers.B = append(s.link.BeginFrame(s.answers.B), room[:]...)
	return start, len(s.answers.B)
}

// endAnswer completes an answer that beginAnswer began.
func (s *Session) endAnswer(start, payload int, id uint32, flags wire.Flags) {
	wire.PutHeader(s.answers.B[payload-wire.HeaderLen:], id, flags)
	s.answers.B = s.link.EndFrame(s.answers.B, start, false)
	if s.answered++; len(s.answers.B) >= flushBytes {
		s.flushAnswers()
	}
}

// flushAnswers queues the answers of the read owner.
func (s *Session) flushAnswers() {
	if s.answers == nil {
		return
	}
	s.answersSize = min(len(s.answers.B), flushBytes)
	p := newOutgoing(s.answers, s.answered)
	s.answers, s.answered = nil, 0
	s.mustRespond(p)
}

// refuse answers a request with an error.
func (s *Session) refuse(r *Request, payload []byte) {
	s.stats.refused.Add(1)
	start, at := s.beginAnswer()
	s.answers.B = append(s.answers.B, payload...)
	s.endAnswer(start, at, r.id, wire.Response(r.Type, true))
}

// refused tells of a request that has been refused.
func (s *Session) refused(r *Request) {
	if s.cfg.Refused != nil {
		s.cfg.Refused(r)
	}
}

// pong answers a PING packet. It is dropped when the queue is full: the sender
// has other ways to learn that the connection lives.
func (s *Session) pong(pkt wire.Packet) {
	if len(pkt.Payload) > maxPing || (s.cfg.ValidPing != nil && !s.cfg.ValidPing(pkt.Payload)) {
		s.stats.malformed.Add(1)
		return
	}
	if s.queue.full(s.queue.load.Load()) {
		return
	}
	start, payload := s.beginAnswer()
	s.answers.B = append(s.answers.B, pkt.Payload...)
	s.endAnswer(start, payload, pkt.ID, wire.Response(wire.TypePing, false))
}

// answer completes the call that the packet answers. Only the id counts: some
// peers answer every request with type CALL (protocol section 4.4).
func (s *Session) answer(pkt wire.Packet) {
	c := s.table.claim(pkt.ID)
	if len(pkt.Payload) > 0 && mayBeReference(pkt.Payload[0]) && s.canStream.Load() && !pkt.Flags.Error() {
		s.announced(pkt.Payload, c != nil && c.Stream)
	}
	if c == nil {
		s.stats.lateReplies.Add(1)
		return
	}
	s.counts.replies++
	s.complete(c, Reply{Payload: pkt.Payload, IsError: pkt.Flags.Error(), Meta: pkt.Flags.Meta() && s.canMeta.Load()}, nil)
}

// mayBeReference reports whether an answer with this first octet can be a reference to a stream:
// it is an extension of more than two octets. Few other answers are.
func mayBeReference(first byte) bool {
	const ext8, fixext4, fixext16 = 0xc7, 0xd6, 0xd8
	return first == ext8 || first >= fixext4 && first <= fixext16
}

// announced looks whether an answer announces a stream. Then its chunks are right behind, and
// the goroutine that the answer is for will come later than they do.
func (s *Session) announced(answer []byte, awaited bool) {
	switch id, live, ok := s.cfg.Streams.Packets.ParseReference(answer); {
	case !ok:
	case awaited:
		s.ExpectReader(id, live)
	default:
		s.RefuseReader(id)
	}
}

// ReadDone ends a batch of messages: its requests go to a worker, and the answers
// that are there leave. Only the link calls it.
func (s *Session) ReadDone() {
	if s.block != nil {
		s.submitBlock()
	}
	if s.counts.requests > 0 {
		s.stats.requests.Add(s.counts.requests)
		s.request = Request{} // it must not keep what was read alive
	}
	if s.counts.replies > 0 {
		s.stats.replies.Add(s.counts.replies)
	}
	if s.counts.events > 0 {
		s.stats.events.Add(s.counts.events)
	}
	s.counts = batchCounts{}
	if s.readAt.Load() > 0 {
		s.forgetTime()
	}
	s.flushAnswers()
	if s.inlined {
		s.inlined = false
		s.release(1, 0)
	}
	if s.reading.Load() {
		s.reading.Store(false)
		if s.kickWanted.Swap(false) {
			s.link.Kick()
		}
	}
}

// Collect appends framed packets to dst for the link to write. Only the link
// calls it, as holder of the write role.
func (s *Session) Collect(dst [][]byte) [][]byte {
	if s.lent != nil {
		s.lent.sent()
		s.lent = nil
	}
	s.releaseWritten()
	var load int64
	size := 0
	for s.lent == nil && size < collectBytes {
		p := s.queue.pop()
		if p == nil {
			break
		}
		load += p.load()
		if len(p.b) >= bulkBytes {
			if p.call != nil {
				p.call.state.Store(uint32(callLent))
			}
			s.lent = p
			break
		}
		if size == 0 {
			s.beginOut(len(p.b))
		}
		s.out.Append(p.b)
		size = len(s.out.B)
		p.sent()
	}
	if load > 0 {
		s.queue.sent(load)
	}
	// Events are taken last and written first: then no answer overtakes what was emitted
	// before it, unless more of that waits than a write has room for.
	if box := s.events.Load(); box != nil {
		dst = s.collectEvents(box, dst)
	}
	switch {
	case size > 0:
		s.outSize = min(size, collectBytes)
		dst = append(dst, s.out.B)
	case s.out != nil:
		s.out.Release()
		s.out = nil
	}
	if s.lent != nil {
		dst = append(dst, s.lent.b)
	}
	if st := s.streams.Load(); st != nil {
		dst = s.collectStreams(st, dst, size)
	}
	return dst
}

// collectStreams appends what streams send in a write of which size bytes are taken.
func (s *Session) collectStreams(st *streams, dst [][]byte, size int) [][]byte {
	limit := streamBytes - size
	if s.lent != nil || size >= collectBytes {
		if s.passed++; s.passed < maxPassed {
			return dst
		}
		limit = streamShare // they must not wait for ever
	}
	s.passed = 0
	dst, s.written = st.collect(dst, s.written, limit)
	return dst
}

// releaseWritten gives back what has been written.
func (s *Session) releaseWritten() {
	for i, b := range s.written {
		b.Release()
		s.written[i] = nil
	}
	s.written = s.written[:0]
}

// beginOut makes out ready for what will be written next, of which n bytes are known.
func (s *Session) beginOut(n int) {
	if s.out == nil {
		s.out = buf.Get(max(s.outSize, minCollect, n))
		return
	}
	s.out.B = s.out.B[:0]
}

// Closed ends the session: its context, its calls, its queue. Only the link calls
// it, once and last, when it holds the write role for good.
func (s *Session) Closed(err error) {
	if !s.ready {
		s.handshake.fail(err)
	}
	s.err = err
	lost := &LostError{Cause: err}
	if s.block != nil { // the link has failed between Message and ReadDone
		s.block.recycle()
		s.block = nil
	}
	if s.answers != nil {
		s.answers.Release()
		s.answers = nil
	}
	if s.lent != nil {
		s.lent.sent()
		s.lent = nil
	}
	if s.out != nil {
		s.out.Release()
		s.out = nil
	}
	s.queue.close(lost)
	if !s.events.CompareAndSwap(nil, endOfEvents) {
		s.events.Load().close()
	}
	s.releaseWritten()
	if s.cfg.Streams != nil {
		s.endStreams(err)
	}
	s.deadlines.stop()
	s.table.sweep(
		func(int64) bool { return true },
		func(c *Call) {
			state := callState(c.state.Load())
			s.complete(c, Reply{}, &LostError{Sent: state == callLent || state == callSent, Cause: err})
		},
	)
	s.cancel(lost)
	if s.cfg.Ended != nil {
		s.cfg.Ended(s, err)
	}
	close(s.donec)
}
