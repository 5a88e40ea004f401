package mux

import (
	"context"
	"errors"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// Reply is the answer to a request.
type Reply struct {
	// Payload is the encoded answer, or the encoded error if IsError is set. It
	// lends until [Call.Release], or until the function given to [Call.Start]
	// returns.
	Payload []byte
	IsError bool

	// Meta reports that a second value follows the first one of Payload (protocol
	// section 12.3).
	Meta bool
}

// Call is one request to the peer. Get it with [Session.NewCall], append the
// payload to B, then use [Call.Do] or [Call.Start] once. It is used by one
// goroutine at a time.
type Call struct {
	// B is the packet being built. Append the payload; leave what is there.
	B []byte

	// Meta says that B ends with a second value behind the payload. The peer must have
	// negotiated [FeatureMeta].
	Meta bool

	// Stream says that who gets the answer opens the stream that it may announce. Others are
	// given up at once.
	Stream bool

	session *Session
	payload int // where the payload begins in B
	id      uint32
	fn      func(context.Context, Reply, error)

	// donec has capacity 1, is never closed, and receives when reply and err are set.
	donec chan struct{}
	reply Reply
	err   error
	in    []byte   // memory of small answers
	inBuf *buf.Buf // memory of a large one

	out   outgoing
	state atomic.Uint32 // a callState
}

// callState says where the packet of a call is.
type callState uint32

const (
	callUnsent callState = iota // not in the queue, and has never left it for the link
	callQueued                  // in the queue
	callLent                    // being written by the link
	callSent                    // written, and no longer needed
)

// keptBytes is the largest memory that a call keeps for the next one.
const keptBytes = 4 << 10

// NewCall returns a call whose payload is to be appended to B. The caller owns it
// until Start takes it or Release gives it back.
func (s *Session) NewCall() *Call {
	c, _ := s.calls.Get().(*Call)
	if c == nil {
		c = &Call{session: s, donec: make(chan struct{}, 1)}
		c.out.call = c
	}
	var room [wire.HeaderLen]byte
	c.B = append(s.link.BeginFrame(c.B[:0]), room[:]...)
	c.payload = len(c.B)
	return c
}

// Session returns the session that the call belongs to.
func (c *Call) Session() *Session { return c.session }

// Len returns the size of the packet so far, in bytes.
func (c *Call) Len() int { return len(c.B) - c.payload + wire.HeaderLen }

// Release ends the use of the call and of its answer. Call it once, after Do or
// instead of it, and not after Start has returned nil.
func (c *Call) Release() {
	// The queue may still name a call that was given up before it was sent: then the
	// collector gets it.
	switch callState(c.state.Load()) {
	case callQueued, callLent:
		if c.inBuf != nil {
			c.inBuf.Release()
			c.inBuf = nil
		}
		return
	}
	c.recycle()
}

func (c *Call) recycle() {
	if c.inBuf != nil {
		c.inBuf.Release()
		c.inBuf = nil
	}
	if cap(c.B) > keptBytes {
		c.B = nil
	}
	c.out.b = nil
	c.Meta, c.Stream = false, false
	c.fn, c.reply, c.err = nil, Reply{}, nil
	c.state.Store(uint32(callUnsent))
	c.session.calls.Put(c)
}

// Do sends the request as one of type t and waits for the answer. The call must be
// released afterwards, also after an error.
//
// It returns ctx.Err() when ctx ends first, [ErrTimeout] when timeout (0: none)
// passes, a [*LostError] when the connection ends, [ErrTooManyCalls], and
// [ErrWouldBlock] under the context of a read owner. An answer that is there
// already beats a ctx that has ended. It waits for room while the outgoing queue
// is full.
func (c *Call) Do(ctx context.Context, t wire.Type, timeout time.Duration) (Reply, error) {
	if ownerOf(ctx) != nil {
		return Reply{}, ErrWouldBlock
	}
	id, err := c.begin(ctx, t, timeout)
	if err != nil {
		return Reply{}, err
	}
	if done := ctx.Done(); done == nil {
		<-c.donec
	} else {
		select {
		case <-c.donec:
		case <-done:
			if c.session.Abandon(id) {
				return Reply{}, ctx.Err()
			}
			<-c.donec
		}
	}
	return c.reply, c.err
}

// Start sends the request as one of type t and has fn called with the outcome,
// exactly once, unless it returns an error or the call is abandoned: then fn is
// not called. If Start returns nil it has taken c. The id is for
// [Session.Abandon].
//
// fn runs on the goroutine that reads the connection, or on a timer's after
// timeout; it must not block, and must not panic. Its ctx says so to whatever it calls: what would
// block returns [ErrWouldBlock] there. ctx limits only the wait for room in the
// outgoing queue; if it is that of a read owner, Start does not wait but returns
// ErrWouldBlock.
func (c *Call) Start(ctx context.Context, t wire.Type, timeout time.Duration, fn func(context.Context, Reply, error)) (id uint32, err error) {
	c.fn = fn
	return c.begin(ctx, t, timeout)
}

// Abandon gives up a call that [Call.Start] started, by its id, which means nothing
// once the call has ended. It reports whether the call
// was still under way; then its function will not be called, and a late answer is
// dropped. A peer that can be told is told that nobody waits any more.
func (s *Session) Abandon(id uint32) bool {
	if s.table.claim(id) == nil {
		return false
	}
	s.cancelRequest(s.ctx, id)
	return true
}

// cancelRequest tells the peer that a request has been given up, if it understands
// that and the queue has room. Otherwise its answer will find nobody.
//
// Protocol section 12.1.
func (s *Session) cancelRequest(ctx context.Context, id uint32) {
	if !s.canCancel.Load() {
		return
	}
	b := buf.Get(cancelRoom)
	start := len(b.B)
	b.B = wire.AppendHeader(s.link.BeginFrame(b.B), id, wire.Request(wire.TypeCancel))
	b.B = s.link.EndFrame(append(b.B, nilValue), start, false)
	p := newOutgoing(b, 1)
	switch first, ok, err := s.queue.push(p, false); {
	case err != nil:
	case !ok:
		p.discard()
	case first:
		s.wake(ctx)
	}
}

const (
	nilValue   = 0xc0
	cancelRoom = 32 // bytes of a CANCEL with its frame
)

// begin registers c and queues its packet. On an error c has left the table and
// will not be completed. After success c may have been completed, and, if Start
// began it, be used anew already.
func (c *Call) begin(ctx context.Context, t wire.Type, timeout time.Duration) (id uint32, err error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	s := c.session
	var deadline int64
	if timeout > 0 {
		deadline = s.now(ctx) + int64(timeout)
	}
	c.state.Store(uint32(callQueued))
	id, err = s.table.insert(c, deadline)
	if err != nil {
		c.state.Store(uint32(callUnsent))
		return 0, err
	}
	if deadline != 0 {
		s.deadlines.watch(deadline)
	}
	wire.PutHeader(c.B[c.payload-wire.HeaderLen:], id, c.flags(t))
	c.B = s.link.EndFrame(c.B, 0, false)
	c.out.b, c.out.count = c.B, 1
	if err := s.sendRequest(ctx, &c.out, timeout); err != nil && s.table.claim(id) != nil {
		return 0, err
	}
	// Else it is on its way, or was completed by the end of the session or its limit.
	return id, nil
}

// flags returns the flags of the request.
func (c *Call) flags(t wire.Type) wire.Flags {
	f := wire.Request(t)
	if c.Meta {
		f |= wire.FlagMeta
	}
	return f
}

// sendRequest queues a request. While the queue is full it waits, no longer than
// timeout (0: no limit of its own). On an error the request has been discarded.
func (s *Session) sendRequest(ctx context.Context, p *outgoing, timeout time.Duration) error {
	first, ok, err := s.queue.push(p, false)
	if err == nil && !ok {
		if ownerOf(ctx) != nil {
			p.discard()
			return ErrWouldBlock
		}
		wait := ctx
		if timeout > 0 {
			var cancel context.CancelFunc
			wait, cancel = context.WithTimeoutCause(ctx, timeout, ErrTimeout)
			defer cancel()
		}
		if first, err = s.queue.pushWait(wait, p); err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = ErrTimeout
		}
	}
	if err == nil && first {
		s.wake(ctx)
	}
	return err
}

// wake has the link send what a caller has queued first. When several calls are
// under way other goroutines run before: they add theirs, and one write for many
// packets is the largest single gain of all.
func (s *Session) wake(ctx context.Context) {
	switch owner := ownerOf(ctx); {
	case owner == s:
		s.kickLater()
	case owner == nil && s.table.live.Load() > 1:
		runtime.Gosched()
		s.link.Kick()
	default:
		s.link.Kick()
	}
}

// complete hands the outcome to whoever waits for c. The caller has claimed c, and
// is a read owner if r has a payload, which is lent to it.
func (s *Session) complete(c *Call, r Reply, err error) {
	if fn := c.fn; fn != nil {
		if state := callState(c.state.Load()); state == callSent || state == callUnsent {
			c.recycle()
		}
		fn(s.ownerCtx, r, err)
		return
	}
	switch n := len(r.Payload); {
	case n > keptBytes:
		c.inBuf = buf.Copy(r.Payload)
		r.Payload = c.inBuf.B
	case n > 0:
		c.in = append(c.in[:0], r.Payload...)
		r.Payload = c.in
	}
	c.reply, c.err = r, err
	c.donec <- struct{}{}
}
