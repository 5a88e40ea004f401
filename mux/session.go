package mux

import (
	"context"
	"errors"
	"runtime"
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

	handshake handshake
	ready     bool // owned by the read owner

	table     callTable
	deadlines deadlines
	calls     sync.Pool // of *call; of this session, as they hold channels

	queue outQueue
	// The four below are owned by the holder of the link's write role.
	batch []outgoing
	next  int
	out   *buf.Buf

	inflight      atomic.Int32 // requests being served
	inflightBytes atomic.Int64 // of their payloads
	draining      atomic.Bool
	idlec         chan struct{} // closed when draining and no request is being served
	idleOnce      sync.Once
	requests      sync.Pool // of *Request

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
	// keptBatch is the longest batch slice that is kept for the next round.
	keptBatch = 4096
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
		queue: outQueue{maxBytes: cfg.maxQueueBytes(), maxPackets: cfg.maxQueuePackets()},
		idlec: make(chan struct{}),
		donec: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancelCause(parent)
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
	case <-s.idlec:
		return nil
	case <-s.donec:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Inflight returns how many requests of the peer are being served.
func (s *Session) Inflight() int { return int(s.inflight.Load()) }

// Pending returns how many calls wait for an answer of the peer.
func (s *Session) Pending() int { return int(s.table.live.Load()) }

// NewRequest returns a buffer that begins with room for the packet header, for a
// payload of about n bytes to be appended. Pass it to [Session.Call] or
// [Session.Start], or release it.
func (s *Session) NewRequest(n int) *buf.Buf { return newPacket(n) }

// Call sends a request of type t and waits for the answer. It takes packet, which
// comes from [Session.NewRequest].
//
// It returns ctx.Err() when ctx ends first, [ErrTimeout] when timeout (0: none)
// passes, a [*LostError] when the connection ends, and [ErrTooManyCalls]. An
// answer that is there already beats a ctx that has ended. It waits for room
// while the outgoing queue is full.
func (s *Session) Call(ctx context.Context, t wire.Type, packet *buf.Buf, timeout time.Duration) (Reply, error) {
	c := s.newCall(nil)
	id, err := s.begin(ctx, c, t, packet, timeout)
	if err != nil {
		return Reply{}, err
	}
	if done := ctx.Done(); done == nil {
		<-c.donec
	} else {
		select {
		case <-c.donec:
		case <-done:
			if s.table.claim(id) != nil {
				return Reply{}, ctx.Err()
			}
			<-c.donec
		}
	}
	reply, err := c.reply, c.err
	s.recycle(c)
	return reply, err
}

// Start sends a request of type t and calls fn with the outcome, exactly once,
// unless it returns an error or the call is abandoned: then fn is not called. It
// takes packet. The id is for [Session.Abandon].
//
// fn runs on the goroutine that reads the connection (or on a timer's, after
// timeout); it must not block, and owns the Reply. ctx limits only the wait for
// room in the outgoing queue.
func (s *Session) Start(ctx context.Context, t wire.Type, packet *buf.Buf, timeout time.Duration, fn func(Reply, error)) (id uint32, err error) {
	return s.begin(ctx, s.newCall(fn), t, packet, timeout)
}

// Abandon gives up a call that [Session.Start] started. It reports whether the
// call was still under way; then its function will not be called, and a late
// answer is dropped.
func (s *Session) Abandon(id uint32) bool { return s.table.claim(id) != nil }

// begin registers c and queues its request. On an error c has left the table and
// will not be completed.
func (s *Session) begin(ctx context.Context, c *call, t wire.Type, packet *buf.Buf, timeout time.Duration) (uint32, error) {
	if err := ctx.Err(); err != nil {
		packet.Release()
		return 0, err
	}
	var deadline int64
	if timeout > 0 {
		deadline = s.deadlines.now() + int64(timeout)
	}
	id, err := s.table.insert(c, deadline)
	if err != nil {
		packet.Release()
		return 0, err
	}
	if deadline != 0 {
		s.deadlines.watch(deadline)
	}
	wire.PutHeader(packet.B, id, wire.Request(t))
	if err := s.sendRequest(ctx, outgoing{buf: packet, call: c}, timeout); err != nil {
		if s.table.claim(id) == nil {
			return id, nil // completed by the end of the session or its time limit
		}
		return 0, err
	}
	return id, nil
}

// sendRequest queues a request. While the queue is full it waits, no longer than
// timeout (0: no limit of its own).
func (s *Session) sendRequest(ctx context.Context, p outgoing, timeout time.Duration) error {
	ok, err := s.queue.push(p, false)
	if err == nil && !ok {
		wait := ctx
		if timeout > 0 {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeoutCause(ctx, timeout, ErrTimeout)
			defer cancel()
		}
		if err = s.queue.pushWait(wait, p); err != nil && ctx.Err() == nil && wait.Err() != nil {
			err = ErrTimeout
		}
	}
	if err != nil {
		return err
	}
	s.link.Kick()
	return nil
}

// respond queues the answer to a request and waits for room. An answer to a
// session that has ended is dropped.
func (s *Session) respond(id uint32, t wire.Type, packet *buf.Buf, isError bool) {
	wire.PutHeader(packet.B, id, wire.Response(t, isError))
	if s.queue.pushWait(s.ctx, outgoing{buf: packet}) == nil {
		s.link.Kick()
	}
}

// refuse answers a request from the read owner, without waiting. A peer that
// leaves even the reserve of the queue unread is cut off.
func (s *Session) refuse(id uint32, t wire.Type, payload []byte) {
	packet := newPacket(len(payload))
	packet.B = append(packet.B, payload...)
	wire.PutHeader(packet.B, id, wire.Response(t, true))
	ok, err := s.queue.push(outgoing{buf: packet}, true)
	if err != nil {
		return
	}
	if !ok {
		packet.Release()
		s.link.CloseWith(closePolicy, "answers are not being read")
		return
	}
	s.link.Kick()
}

// newCall returns a call object; fn nil means that somebody waits on its donec.
func (s *Session) newCall(fn func(Reply, error)) *call {
	c, _ := s.calls.Get().(*call)
	if c == nil {
		c = &call{donec: make(chan struct{}, 1)}
	}
	c.fn = fn
	return c
}

// recycle keeps a completed call for the next one. A call whose packet was never
// framed may still be named by the queue, so it is left to the collector.
func (s *Session) recycle(c *call) {
	if !c.sent.Load() {
		return
	}
	c.sent.Store(false)
	c.fn, c.reply, c.err = nil, Reply{}, nil
	s.calls.Put(c)
}

// complete hands the outcome to whoever waits for c. The caller has claimed c.
func (s *Session) complete(c *call, r Reply, err error) {
	if fn := c.fn; fn != nil {
		s.recycle(c)
		fn(r, err)
		return
	}
	c.reply, c.err = r, err
	c.donec <- struct{}{}
}

// expire fails the calls whose deadline has passed.
func (s *Session) expire(now int64) (next int64, pause time.Duration) {
	next = s.table.sweep(
		func(deadline int64) bool { return deadline != 0 && deadline <= now },
		func(c *call) { s.complete(c, Reply{}, ErrTimeout) },
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
	pkt, err := wire.Parse(p)
	switch {
	case err != nil && !(errors.Is(err, wire.ErrNoPayload) && (isRequest(pkt.Flags) || isAnswer(pkt.Flags))):
		s.stats.malformed.Add(1)
	case isRequest(pkt.Flags):
		s.request(pkt) // without a payload too: the owner answers
	case isAnswer(pkt.Flags):
		s.answer(pkt) // without a payload too: whoever waits cannot read it, and ends
	case pkt.Flags.Type() == wire.TypePing && pkt.Flags.Impulse():
		s.pong(pkt)
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

// request hands a request to a worker, or refuses it.
func (s *Session) request(pkt wire.Packet) {
	s.stats.requests.Add(1)
	n := int64(len(pkt.Payload))
	refusal := s.cfg.Overloaded
	if s.admit(n) {
		if !s.draining.Load() && s.dispatch(pkt) {
			return
		}
		if s.draining.Load() {
			refusal = s.cfg.Draining
		}
		s.release(n)
	}
	s.stats.refused.Add(1)
	s.refuse(pkt.ID, pkt.Flags.Type(), refusal)
}

// admit counts a request of n bytes as being served and reports whether the
// limits allow it. They are looked at before its bytes are copied. A single
// request may be larger than the limits on bytes.
func (s *Session) admit(n int64) bool {
	requests := int(s.inflight.Add(1))
	mine := s.inflightBytes.Add(n)
	all := s.cfg.Workers.bytes.Add(n)
	if requests > s.cfg.maxRequests() ||
		(mine > int64(s.cfg.maxRequestBytes()) && mine > n) ||
		(all > s.cfg.Workers.maxBytes && all > n) {
		s.release(n)
		return false
	}
	return true
}

// release undoes admit.
func (s *Session) release(n int64) {
	s.cfg.Workers.bytes.Add(-n)
	s.inflightBytes.Add(-n)
	if s.inflight.Add(-1) == 0 && s.draining.Load() {
		s.idleOnce.Do(func() { close(s.idlec) })
	}
}

// dispatch starts an admitted request on a worker and reports whether one was
// free.
func (s *Session) dispatch(pkt wire.Packet) bool {
	r, _ := s.requests.Get().(*Request)
	if r == nil {
		r = new(Request)
	}
	b := buf.Copy(pkt.Payload)
	*r = Request{Type: pkt.Flags.Type(), Payload: b.B, id: pkt.ID, session: s, buf: b}
	if err := s.cfg.Workers.submit(r); err != nil {
		r.recycle()
		return false
	}
	return true
}

// pong answers a PING packet. It is dropped when the queue is full: the sender
// has other ways to learn that the connection lives.
func (s *Session) pong(pkt wire.Packet) {
	if len(pkt.Payload) > maxPing || (s.cfg.ValidPing != nil && !s.cfg.ValidPing(pkt.Payload)) {
		s.stats.malformed.Add(1)
		return
	}
	packet := newPacket(len(pkt.Payload))
	packet.B = append(packet.B, pkt.Payload...)
	wire.PutHeader(packet.B, pkt.ID, wire.Response(wire.TypePing, false))
	switch ok, err := s.queue.push(outgoing{buf: packet}, false); {
	case err != nil:
	case ok:
		s.link.Kick()
	default:
		packet.Release()
	}
}

// answer completes the call that the packet answers. Only the id counts: some
// peers answer every request with type CALL (protocol section 4.4).
func (s *Session) answer(pkt wire.Packet) {
	c := s.table.claim(pkt.ID)
	if c == nil {
		s.stats.lateReplies.Add(1)
		return
	}
	s.stats.replies.Add(1)
	b := buf.Copy(pkt.Payload)
	s.complete(c, Reply{Payload: b.B, IsError: pkt.Flags.Error(), buf: b}, nil)
}

// ReadDone ends a batch of messages. Only the link calls it.
func (s *Session) ReadDone() {}

// Collect appends framed packets to dst for the link to write. Only the link
// calls it, as holder of the write role.
func (s *Session) Collect(dst [][]byte) [][]byte {
	if s.next == len(s.batch) && !s.refill() {
		if s.out != nil {
			s.out.Release()
			s.out = nil
		}
		return dst
	}
	if s.out == nil {
		s.out = buf.Get(minCollect)
	}
	out := s.out.B[:0]
	packets, bytes := 0, 0
	for s.next < len(s.batch) && len(out) < collectBytes {
		p := s.batch[s.next]
		s.batch[s.next] = outgoing{}
		s.next++
		if p.call != nil {
			p.call.sent.Store(true)
		}
		out = s.link.AppendFrame(out, p.text, p.buf.B)
		packets++
		bytes += len(p.buf.B)
		p.buf.Release()
	}
	s.queue.sent(packets, bytes)
	s.out.B = out
	return append(dst, out)
}

// refill takes what is queued. When several calls or requests are under way it
// first lets other goroutines run, which then add theirs: one write for many
// packets is the largest single gain of all.
func (s *Session) refill() bool {
	if s.queue.empty() {
		return false
	}
	if s.table.live.Load() > 1 || s.inflight.Load() > 1 {
		runtime.Gosched()
	}
	if cap(s.batch) > keptBatch {
		s.batch = nil
	}
	s.batch = s.queue.take(s.batch)
	s.next = 0
	return len(s.batch) > 0
}

// Closed ends the session: its context, its calls, its queue. Only the link calls
// it, once and last.
func (s *Session) Closed(err error) {
	if !s.ready {
		s.handshake.fail(err)
	}
	s.err = err
	lost := &LostError{Cause: err}
	s.queue.close(lost)
	s.deadlines.stop()
	s.table.sweep(
		func(int64) bool { return true },
		func(c *call) { s.complete(c, Reply{}, &LostError{Sent: c.sent.Load(), Cause: err}) },
	)
	s.cancel(lost)
	if s.cfg.Ended != nil {
		s.cfg.Ended(s, err)
	}
	close(s.donec)
}
