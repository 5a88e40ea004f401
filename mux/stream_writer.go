package mux

import (
	"context"
	"math"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// StreamWriter is the writing end of a stream. Its methods are for one goroutine at a
// time, except for Done and Err.
//
//	open --Close--> closed: what is queued is sent, and the end behind it
//	open --Fail---> closed: the same with an error
//	open --CANCEL of the reader, or the end of the session--> ended: nothing is sent
type StreamWriter struct {
	streams *streams
	id      uint32
	live    bool
	payload int  // where the payload begins in the chunk being built
	long    bool // its frame is a long one

	donec chan struct{} // closed when the stream takes nothing more and all is sent, or it has ended
	roomc chan struct{} // has room for one: there may be room for a chunk

	// Guarded by streams.mu.
	index  uint32
	credit int64         // that the peer has given for the stream
	queue  []streamPiece // what waits to be sent, from head on
	head   int
	queued int           // bytes of it
	begun  bool          // something has been sent: the peer knows the stream
	share  int           // bytes that it may send in its turn
	next   *StreamWriter // in the ring of those with something to send; nil when not in it
	prev   *StreamWriter
	closed bool        // its end is queued
	err    error       // why it takes nothing more
	onEnd  func(error) // nil if nobody wants to know
}

// streamPiece is one large packet, or small ones behind one another.
type streamPiece struct {
	buf     *buf.Buf
	start   int     // what is before has been sent
	payload int     // bytes from there on that count for the credit
	frames  []frame // of several packets; nil for a single one
}

// frame is a packet in a piece.
type frame struct {
	end     int // in buf
	payload int // bytes that count for the credit
}

// split takes off the packets that the credit suffices for, of which the last may overdraw
// it, and returns a copy of them. What is left needs more. There are several.
func (p *streamPiece) split(credit int64) (first streamPiece) {
	n := 0
	for ; n < len(p.frames) && (credit > 0 || p.frames[n].payload == 0); n++ {
		credit -= int64(p.frames[n].payload)
		first.payload += p.frames[n].payload
	}
	if n == len(p.frames) {
		first, *p = *p, streamPiece{}
		return first
	}
	end := p.frames[n-1].end
	first.buf = buf.Copy(p.buf.B[p.start:end])
	p.start, p.frames = end, p.frames[n:]
	p.payload -= first.payload
	return first
}

// bytes returns what is to be sent.
func (p *streamPiece) bytes() []byte { return p.buf.B[p.start:] }

const (
	// streamShare is how many bytes a stream sends in its turn (deficit round robin) at most, and
	// about how large the pieces of small chunks are.
	streamShare = 32 << 10

	// joinedChunk is the largest packet that is copied behind another one.
	joinedChunk = 4 << 10

	// maxStreamQueue and maxStreamsQueue are how many bytes of a stream, and of all streams
	// of a session, wait to be sent before a writer waits. One packet always may.
	maxStreamQueue  = 256 << 10
	maxStreamsQueue = 4 << 20

	// ownWrite is the chunk from which a writer has the link look itself: it takes several
	// writes of the socket by itself, so nothing is gained by what gathers meanwhile.
	ownWrite = 128 << 10

	// streamBytes is about how much is sent in one write, with what streams add to it. Less takes
	// more turns and smaller writes; a call that comes meanwhile waits for some tens of
	// microseconds, which is little beside what the sockets hold.
	streamBytes = 256 << 10
)

// NewWriter opens a stream to the peer under an id of this side, which is to be announced.
// A live stream may be silent for long. It returns [ErrTooManyStreams], [ErrNoStreams], or a
// [*LostError]. It does not block, as none of those that open streams does.
func (s *Session) NewWriter(live bool) (*StreamWriter, error) {
	if !s.canStream.Load() {
		return nil, ErrNoStreams
	}
	st := s.streamsOf()
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.mayOpen(len(st.writers)); err != nil {
		return nil, err
	}
	return st.openWriter(st.newID(), live), nil
}

// WriterFor opens the stream that the peer has announced to read, under the peer's id. Errors
// are those of [Session.NewWriter], and [ErrStreamID] for an id that is in use. If the peer has
// given the stream up already the writer says so.
func (s *Session) WriterFor(id uint32, live bool) (*StreamWriter, error) {
	if !s.canStream.Load() {
		return nil, ErrNoStreams
	}
	st := s.streamsOf()
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.mayOpen(len(st.writers)); err != nil {
		return nil, err
	}
	if id == 0 || st.writers[id] != nil {
		return nil, ErrStreamID
	}
	w := st.openWriter(id, live)
	if st.unwanted.has(id) {
		w.endLocked(&StreamError{Message: "given up before it was announced", Remote: true})
	}
	return w, nil
}

// mayOpen reports why no further stream can be opened beside n others. mu is held.
func (st *streams) mayOpen(n int) error {
	switch {
	case st.err != nil:
		return st.err
	case n >= st.cfg.maxStreams():
		return ErrTooManyStreams
	}
	return nil
}

func (st *streams) openWriter(id uint32, live bool) *StreamWriter {
	w := &StreamWriter{streams: st, id: id, live: live, credit: math.MaxInt64, donec: make(chan struct{}), roomc: make(chan struct{}, 1)}
	if st.credits {
		w.credit = int64(st.session.peerWindow)
	}
	st.writers[id] = w
	return w
}

// ID returns the id of the stream, which is unique among those that this side writes.
func (w *StreamWriter) ID() uint32 { return w.id }

// Live reports whether the stream may be silent for long.
func (w *StreamWriter) Live() bool { return w.live }

// Done is closed when everything has been given to the link after Close or Fail, or when
// the stream has ended before.
func (w *StreamWriter) Done() <-chan struct{} { return w.donec }

// OnEnd has fn called when Done is closed, also if it is already, with what Err returns then. It
// must not block, nor use the stream: it is called with a lock held. Only the last fn is called.
func (w *StreamWriter) OnEnd(fn func(err error)) {
	w.streams.mu.Lock()
	defer w.streams.mu.Unlock()
	if w.onEnd = fn; w.streams.writers[w.id] != w {
		fn(w.err)
	}
}

// Err returns why the stream takes nothing more: a [*StreamError] if the reader has given
// it up, a [*LostError]; nil while it does, and after Close and Fail.
func (w *StreamWriter) Err() error {
	w.streams.mu.Lock()
	defer w.streams.mu.Unlock()
	return w.err
}

// Begin returns a buffer for a chunk of about n bytes, which may become more. Append its encoding, exactly one
// value, to B, and leave what is there; then hand it to Send or Discard.
func (w *StreamWriter) Begin(n int) *buf.Buf {
	b := buf.Get(n + eventRoom)
	st := w.streams
	if w.long = st.framer != nil && n > joinedChunk; w.long {
		b.B = st.framer.BeginLongFrame(b.B)
	} else {
		b.B = st.session.link.BeginFrame(b.B)
	}
	var room [wire.HeaderLen]byte
	b.B = append(b.B, room[:]...)
	w.payload = len(b.B)
	return b
}

// A framer is a link that can frame a long message without moving it: BeginLongFrame makes
// room in an empty slice, and EndLongFrame returns where in b the frame begins.
type framer interface {
	BeginLongFrame(dst []byte) []byte
	EndLongFrame(b []byte) (start int)
}

// Discard gives a buffer of Begin back.
func (w *StreamWriter) Discard(b *buf.Buf) { b.Release() }

// Send sends the chunk in b, and takes b whatever it returns. It waits until the reader has
// given credit and there is room for one more, but not until the chunk has left. A failed
// stream returns its error, a closed one [ErrClosed], and an ended ctx its own: then the
// chunk was not sent, and after the last of these the stream can go on. Under the context of
// a read owner it returns [ErrWouldBlock] instead of waiting.
func (w *StreamWriter) Send(ctx context.Context, b *buf.Buf) error {
	n := len(b.B) - w.payload
	w.frame(b, 0)
	st := w.streams
	st.mu.Lock()
	for w.err == nil && !w.closed && !w.hasRoom() {
		if err := w.wait(ctx); err != nil {
			b.Release()
			return err
		}
		st.mu.Lock()
	}
	if err := w.err; err != nil || w.closed {
		st.mu.Unlock()
		b.Release()
		if err == nil {
			err = ErrClosed
		}
		return err
	}
	w.index++
	w.credit -= int64(n)
	first := w.push(b, n)
	st.mu.Unlock()
	if first && n >= ownWrite && ownerOf(ctx) == nil {
		st.session.link.Kick()
		return nil
	}
	st.sendSoon(first)
	return nil
}

// sendSoon has the link look, if it must be told. It is called without mu.
func (st *streams) sendSoon(first bool) {
	if first {
		st.session.cfg.Workers.streams.soon(st.session)
	}
}

// Close ends the stream behind what was sent. It does not wait, see Done. Further calls do
// nothing.
func (w *StreamWriter) Close() {
	b := w.Begin(1)
	b.B = append(b.B, nilValue)
	w.frame(b, wire.FlagEOS)
	w.finish(b)
}

// Fail ends the stream with an error behind what was sent; the reader learns the message,
// and of cause, which may be nil, what its side understands. It does not wait. Calls after the first, or after Close, do nothing.
func (w *StreamWriter) Fail(message string, cause error) {
	s := w.streams.session
	b := buf.Get(controlRoom + len(message))
	out := wire.AppendHeader(s.link.BeginFrame(b.B), s.table.nextID(), wire.Request(wire.TypeStreamError))
	b.B = s.link.EndFrame(s.cfg.Streams.Packets.AppendFailure(out, w.id, message, cause), 0, false)
	w.finish(b)
}

// Drop ends a stream that the peer will not hear of: nothing is sent. Afterwards the writer
// returns [ErrClosed].
func (w *StreamWriter) Drop() {
	w.streams.mu.Lock()
	defer w.streams.mu.Unlock()
	w.endLocked(ErrClosed)
}

// finish queues the last packet, which needs neither credit nor room.
func (w *StreamWriter) finish(b *buf.Buf) {
	st := w.streams
	st.mu.Lock()
	if w.err != nil || w.closed {
		st.mu.Unlock()
		b.Release()
		return
	}
	w.closed = true
	first := w.push(b, 0)
	st.mu.Unlock()
	st.sendSoon(first)
}

// frame makes the packet of a chunk.
func (w *StreamWriter) frame(b *buf.Buf, flags wire.Flags) {
	s := w.streams.session
	if w.live {
		flags |= wire.FlagLive
	}
	wire.PutHeader(b.B[w.payload-wire.HeaderLen:], s.table.nextID(), wire.Request(wire.TypeStream)|flags)
	b.B = wire.AppendTrailer(b.B, w.id, w.index)
	if w.long {
		b.Cut(w.streams.framer.EndLongFrame(b.B), len(b.B))
		return
	}
	b.B = s.link.EndFrame(b.B, 0, false)
}

// hasRoom reports whether a chunk may be sent. mu is held.
func (w *StreamWriter) hasRoom() bool {
	return w.credit > 0 && (w.queued == 0 || w.queued < min(w.streams.portion(), maxStreamQueue))
}

// portion is how many bytes of each stream may wait: an equal part of what may wait in all, so
// that those that have had their turn leave room for the others. mu is held.
func (st *streams) portion() int { return max(maxStreamsQueue/max(st.turns, 1), joinedChunk) }

// wait waits for a sign that there may be room. mu is held, and released.
func (w *StreamWriter) wait(ctx context.Context) error {
	if ownerOf(ctx) != nil {
		w.streams.mu.Unlock()
		return ErrWouldBlock
	}
	w.streams.mu.Unlock()
	select {
	case <-w.roomc:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// signal wakes who waits for room. mu is held.
func (w *StreamWriter) signal() {
	select {
	case w.roomc <- struct{}{}:
	default:
	}
}

// push queues a packet, of which n bytes count for the credit, and reports whether the link
// must be told. mu is held.
func (w *StreamWriter) push(b *buf.Buf, n int) (first bool) {
	st := w.streams
	w.queued += len(b.B)
	st.queued += len(b.B)
	if last := len(w.queue) - 1; last >= w.head && len(b.B) <= joinedChunk && len(w.queue[last].buf.B) < streamShare {
		w.queue[last].join(b, n)
	} else {
		w.queue = append(compacted(w.queue, &w.head), streamPiece{buf: b, payload: n})
	}
	if w.next != nil {
		return n == 0 && st.credit <= 0
	}
	return st.join(w) || n == 0 && st.credit <= 0
}

// join adds a packet, of which n bytes count for the credit, and takes b.
func (p *streamPiece) join(b *buf.Buf, n int) {
	if p.frames == nil {
		p.frames = []frame{{len(p.buf.B), p.payload}}
	}
	p.buf.Append(b.B)
	p.frames = append(p.frames, frame{len(p.buf.B), n})
	p.payload += n
	b.Release()
}

// compacted returns the queue, with what waits at its start when most of it is behind head.
func compacted[T any](queue []T, head *int) []T {
	if *head < keptPieces || *head < len(queue)/2 {
		return queue
	}
	n := copy(queue, queue[*head:])
	clear(queue[n:])
	*head = 0
	return queue[:n]
}

// join gives a stream its turns, and reports whether there was none that had.
func (st *streams) join(w *StreamWriter) (first bool) {
	st.turns++
	if st.turn == nil {
		w.next, w.prev = w, w
		st.turn = w
		return true
	}
	w.next, w.prev = st.turn, st.turn.prev // the last turn of this round
	w.prev.next, w.next.prev = w, w
	return false
}

// leave takes a stream out of the ring.
func (st *streams) leave(w *StreamWriter) {
	switch w.next {
	case nil:
		return
	case w:
		st.turn = nil
	default:
		w.prev.next, w.next.prev = w.next, w.prev
		if st.turn == w {
			st.turn = w.next
		}
	}
	st.turns--
	w.next, w.prev, w.share = nil, nil, min(w.share, 0) // who has taken more than its share owes it
}

// collect appends what streams send in the next write to dst, about limit bytes of it, each
// stream as much as others. The holder of the write role calls it, and gives back what is
// appended to written.
func (st *streams) collect(dst [][]byte, written []*buf.Buf, limit int) ([][]byte, []*buf.Buf) {
	st.mu.Lock()
	defer st.mu.Unlock()
	// What announces a stream was queued before its first chunk, and must not come after it
	// (protocol section 8.4).
	announced := st.session.queue.isEmpty()
	for size, passed := 0, 0; size < limit && passed < st.turns; {
		w := st.turn
		if !announced && !w.begun {
			st.turn = w.next
			passed++
			continue
		}
		if w.share <= 0 {
			w.share += min(st.portion(), streamShare)
		}
		sent := size
		for size < limit && w.share > 0 && w.head < len(w.queue) {
			p, ok := w.pop()
			if !ok {
				break
			}
			n := len(p.bytes())
			w.share -= n
			w.queued -= n
			st.queued -= n
			st.credit -= int64(p.payload)
			size += n
			dst, written = append(dst, p.bytes()), append(written, p.buf)
		}
		if passed++; size > sent {
			passed, w.begun = 0, true
		} else if w.share <= 0 {
			passed = 0 // it will have its turn
		}
		switch {
		case w.head == len(w.queue):
			w.queue, w.head = w.queue[:0], 0
			st.leave(w)
			if w.closed {
				w.endLocked(nil)
				continue
			}
		case w.share <= 0 || size == sent:
			st.turn = w.next
		}
		if w.hasRoom() {
			w.signal()
		}
	}
	return dst, written
}

// pop takes out what is to be sent next, and reports false if there is no credit for it. mu is
// held.
func (w *StreamWriter) pop() (p streamPiece, ok bool) {
	st, first := w.streams, &w.queue[w.head]
	needs := first.payload
	if first.frames != nil {
		needs = first.frames[0].payload
	}
	switch {
	case !st.credits:
	case needs > 0 && st.credit <= 0:
		return streamPiece{}, false
	case first.frames != nil && int64(first.payload) > st.credit:
		if p = first.split(st.credit); first.buf != nil {
			return p, true
		}
		w.head++
		return p, true
	}
	p, *first = *first, streamPiece{}
	w.head++
	return p, true
}

// endLocked ends the stream: nothing more is sent. mu is held.
func (w *StreamWriter) endLocked(err error) {
	st := w.streams
	if st.writers[w.id] != w {
		return
	}
	delete(st.writers, w.id)
	st.leave(w)
	for ; w.head < len(w.queue); w.head++ {
		w.queue[w.head].buf.Release()
	}
	st.queued -= w.queued
	w.queue, w.head, w.queued = nil, 0, 0
	w.err = err
	w.signal()
	close(w.donec)
	if w.onEnd != nil {
		w.onEnd(err)
	}
}

// cancelled ends a stream that its reader has given up.
func (st *streams) cancelled(id uint32, reason string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	w := st.writers[id]
	switch {
	case st.err != nil:
	case w != nil:
		w.endLocked(&StreamError{Message: reason, Remote: true})
	case !st.session.owns(id):
		st.unwanted.add(id) // the CANCEL may have overtaken what announces the stream
	}
}

// credited takes credit of the peer. It is called on the read owner.
func (st *streams) credited(id uint32, n int64) {
	st.mu.Lock()
	w := st.writers[id]
	kick := false
	switch {
	case !st.credits || st.err != nil:
	case id == 0 && st.credit+n > maxCredit:
		st.broken(closeProtocol, "too much credit")
	case id == 0:
		kick = st.credit <= 0 && st.turn != nil
		st.credit += n
	case w == nil: // it has ended
	case w.credit+n > maxCredit:
		err := streamErrorf("credit of more than %d bytes", maxCredit)
		w.endLocked(err)
		kick = st.control(wire.TypeStreamError, func(dst []byte) []byte {
			return st.cfg.Packets.AppendFailure(dst, id, err.Message, nil)
		})
	default:
		w.credit += n
		if w.hasRoom() {
			w.signal()
		}
	}
	st.unlock(kick)
}
