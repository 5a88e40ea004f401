package mux

import (
	"context"
	"io"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// StreamReader is the reading end of a stream. Next is for one goroutine at a time.
//
//	early --ReaderFor--> open        chunks came before the stream was announced
//	expected --ReaderFor--> open     it was announced, and nobody has asked for it yet
//	open --EOS, STREAM_ERROR, STREAM_CLOSE, the end of the session--> ended: what came before can be read
//	open --Cancel--> cancelled: what comes is dropped
//	open --a packet out of turn, too much, nothing for too long--> failed: the same, and the writer is told
type StreamReader struct {
	streams *streams
	id      uint32
	live    bool

	// Owned by the goroutine that reads.
	piece readPiece // that is being read
	at    int       // chunks of it

	aborted atomic.Bool // what is left of the piece is not wanted

	wakec chan struct{} // has room for one: there is something to read, or nothing more will come

	// Guarded by streams.mu.
	index   uint32
	queue   []readPiece // from head on
	head    int
	bytes   int   // of what waits, the piece that is being read included
	reading int   // bytes of that piece; 0 when they have been given back
	window  int64 // credit that the peer has left
	size    int   // that the window should have
	owed    int   // credit that is to be given back
	eventAt int64 // when the last packet came, or the last chunk was read, on the session's clock

	// For the size of the window; guarded by streams.mu. Times are on the session's clock.
	received  int64  // bytes
	epoch     int64  // of these, what had come when the rate was looked at last
	epochAt   int64  // when that was; 0 before the first chunk
	calls     uint64 // requests and answers that had come by then
	mark      int64  // the first byte that needs the credit given at markAt, counted from 1; 0 for none
	markAt    int64
	trip      int64 // the shortest round trip so far; 0 for none
	full      bool  // counts in streams.full
	idle      *time.Timer
	stall     *time.Timer
	unclaimed bool  // the stream was announced, and nobody has asked for it yet
	isOver    bool  // nothing more will come
	err       error // why, when everything has been read
}

// readPiece is one large chunk, or small ones behind one another.
type readPiece struct {
	buf  *buf.Buf
	ends []int // where each of the chunks ends
}

// NewReader opens a stream that the peer is to write under an id of this side, which is to
// be announced. It returns [ErrTooManyStreams], [ErrNoStreams], or a [*LostError]. Read the
// stream to its end, or cancel it: what was not read counts against the session's window.
func (s *Session) NewReader(live bool) (*StreamReader, error) {
	if !s.canStream.Load() {
		return nil, ErrNoStreams
	}
	st := s.streamsOf()
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.mayOpen(len(st.readers)); err != nil {
		return nil, err
	}
	r := st.newReader(st.newID(), live)
	st.readers[r.id] = r
	r.touch()
	return r, nil
}

// ReaderFor opens the stream that the peer has announced to write, with what came of it
// already. Errors are those of [Session.NewReader], and [ErrStreamID] for an id that is in use,
// or was: then what comes of the stream is dropped.
func (s *Session) ReaderFor(id uint32, live bool) (*StreamReader, error) {
	if !s.canStream.Load() {
		return nil, ErrNoStreams
	}
	st := s.streamsOf()
	st.mu.Lock()
	r, first, err := st.adopt(id, live)
	st.unlock(first)
	return r, err
}

// ExpectReader says that the peer has announced a stream which [Session.ReaderFor] will open:
// until then it is like an open one, and no early one, whose chunks have stricter limits. One
// that nobody opens fails after [StreamConfig.IdleLimit]. It is called on the read owner, and
// does nothing where ReaderFor would return an error.
func (s *Session) ExpectReader(id uint32, live bool) {
	if !s.canStream.Load() {
		return
	}
	st := s.streamsOf()
	st.mu.Lock()
	first := false
	early := st.early[id]
	if id != 0 && st.readers[id] == nil && !st.gone.has(id) && st.mayOpen(len(st.readers)) == nil && (early == nil || !early.isOver) {
		var r *StreamReader
		if r, first, _ = st.adopt(id, live); r != nil {
			r.unclaimed = true
			r.touch()
		}
	}
	st.unlock(first)
}

// RefuseReader gives up a stream that the peer has announced, unless ReaderFor has opened it.
func (s *Session) RefuseReader(id uint32) {
	if !s.canStream.Load() {
		return
	}
	st := s.streamsOf()
	st.mu.Lock()
	first := false
	r, early := st.readers[id], st.early[id]
	switch {
	case st.err != nil, id == 0:
	case r != nil && r.unclaimed:
		first = r.drop()
	case r != nil, st.gone.has(id):
	case early != nil:
		first = early.expire()
	default:
		st.gone.add(id)
		first = st.tell(id, notWanted)
	}
	st.unlock(first)
}

// drop gives up a stream that was announced and that nobody has opened. mu is held.
func (r *StreamReader) drop() (first bool) {
	st := r.streams
	r.unclaimed = false
	first = st.giveBack(r.discard())
	if r.isOver {
		st.forget(r)
		return first
	}
	return r.fail(streamErrorf(notWanted)) || first
}

// notWanted is the reason for giving up a stream that nobody has asked for.
const notWanted = "nobody asked for the stream"

// adopt returns the reader of an id that was announced. mu is held.
func (st *streams) adopt(id uint32, live bool) (r *StreamReader, first bool, err error) {
	if r = st.readers[id]; r != nil && r.unclaimed {
		r.unclaimed = false
		if r.isOver {
			st.forget(r)
		}
		return r, false, nil
	}
	err = st.mayOpen(len(st.readers))
	if err == nil && (id == 0 || st.readers[id] != nil || st.gone.has(id)) {
		err = ErrStreamID
	}
	r = st.early[id]
	if r != nil {
		delete(st.early, id)
		st.waiting -= r.bytes
		r.stopTimers()
	}
	isOver := r != nil && r.isOver // it can be read, and takes no place
	switch {
	case isOver && (err == nil || err == ErrTooManyStreams): //nolint:errorlint // it is never wrapped
		st.gone.add(id)
		return r, false, nil
	case err != nil:
		if r != nil {
			first = st.giveBack(r.discard())
			r.endLocked(err)
		}
		if err == ErrTooManyStreams { //nolint:errorlint // it is never wrapped
			st.gone.add(id)
			first = st.tell(id, err.Error()) || first
		}
		return nil, first, err
	case r == nil:
		r = st.newReader(id, live)
	}
	st.readers[id] = r
	r.live, r.idle = live, nil
	r.touch()
	return r, r.bytes > st.cfg.maxBuffered() && !st.credits && r.tooFull(), nil
}

// newReader returns a reader that is in no table. mu is held.
func (st *streams) newReader(id uint32, live bool) *StreamReader {
	r := &StreamReader{streams: st, id: id, live: live, wakec: make(chan struct{}, 1), size: st.cfg.window()}
	r.window = int64(r.size)
	return r
}

// ID returns the id of the stream, which is unique among those that this side reads.
func (r *StreamReader) ID() uint32 { return r.id }

// Live reports whether the stream may be silent for long.
func (r *StreamReader) Live() bool { return r.live }

// Next returns the encoded value of the next chunk, and waits for it. It lends until the
// next call of Next, or Cancel. At the end it returns [io.EOF], a [*StreamError], or a
// [*LostError]; before, the error of ctx, after which the stream can go on. Under the context
// of a read owner it returns [ErrWouldBlock] instead of waiting.
func (r *StreamReader) Next(ctx context.Context) ([]byte, error) {
	for {
		if r.at < len(r.piece.ends) && !r.aborted.Load() {
			start := 0
			if r.at > 0 {
				start = r.piece.ends[r.at-1]
			}
			end := r.piece.ends[r.at]
			r.at++
			return r.piece.buf.B[start:end:end], nil
		}
		if ok, err := r.nextPiece(); err != nil {
			return nil, err
		} else if ok {
			continue
		}
		if ownerOf(ctx) != nil {
			return nil, ErrWouldBlock
		}
		select {
		case <-r.wakec:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// nextPiece goes on to what was received next, and gives credit for what has been read. It
// reports false if there is nothing yet.
func (r *StreamReader) nextPiece() (bool, error) {
	st := r.streams
	if r.piece.buf != nil {
		r.piece.buf.Release()
		r.piece = readPiece{ends: r.piece.ends[:0]}
	}
	r.at = 0
	st.mu.Lock()
	first := false
	if n := r.reading; n > 0 {
		r.reading = 0
		first = r.consume(n)
	}
	ok := r.head < len(r.queue)
	if ok {
		r.piece = r.queue[r.head]
		r.reading = len(r.piece.buf.B)
		r.queue[r.head] = readPiece{}
		if r.head++; r.head == len(r.queue) {
			r.queue, r.head = r.queue[:0], 0
		}
	}
	var err error
	if !ok && r.isOver {
		err = r.err
	}
	st.unlock(first)
	return ok, err
}

// consume notes that n bytes have been read, and reports whether the link must be told of
// credit. mu is held.
func (r *StreamReader) consume(n int) (first bool) {
	st := r.streams
	r.bytes -= n
	st.buffered -= n
	r.eventAt = st.session.deadlines.now()
	if r.full && r.bytes <= st.cfg.maxBuffered()/2 {
		r.notFull()
	}
	if !r.isOver && st.credits {
		if r.owed += n; r.owed >= r.size/8*3 {
			first = r.grant()
		}
	}
	return st.giveBack(n) || first
}

// grant gives the writer credit for what was read. mu is held.
func (r *StreamReader) grant() (first bool) {
	now := r.eventAt
	if got := r.received - r.epoch; got >= 2*int64(r.size) && r.bytes == 0 {
		r.resize(got, now-r.epochAt)
		r.epoch, r.epochAt = r.received, now
	}
	if r.owed <= 0 { // the window has become smaller
		return false
	}
	if r.mark == 0 {
		r.mark, r.markAt = r.received+max(r.window, 0)+1, now
	}
	n := r.owed
	r.owed = 0
	r.window += int64(n)
	return r.streams.sendCredit(r.id, n)
}

// resize looks at the window when got bytes have come, which took some nanoseconds, and this side has read everything.
// It doubles if less than three round trips of what comes fit in: then it is what holds the writer
// up. A single grant says nothing of the rate: readers read in bursts. Beside calls, which wait
// behind what is on its way, two round trips are enough, and what is more than twice that is halved,
// down to twice the first window: the rate falls with it. mu is held.
func (r *StreamReader) resize(got, took int64) {
	calls := r.streams.session.callsSeen()
	isShared := calls-r.calls > 1
	r.calls = calls
	trip := float64(got) * float64(r.trip) / float64(max(took, 1)) // bytes of a round trip
	trips := 3.0
	if isShared {
		trips = 2
	}
	switch size := float64(r.size); {
	case trip*trips > size:
		more := max(min(r.size, r.streams.cfg.maxWindow()-r.size), 0)
		r.size += more
		r.owed += more
	case isShared && trip > 0 && trip*trips*2 < size && r.size/4 >= r.streams.cfg.window():
		r.size /= 2
		r.owed -= r.size
	}
}

// measure takes the time from a grant to the first chunk that needed it, which begins now: a
// round trip if the writer waited for it, and else more. The shortest counts. mu is held.
func (r *StreamReader) measure() {
	if r.mark == 0 || r.received < r.mark-1 {
		return
	}
	if trip := r.eventAt - r.markAt; r.trip == 0 || trip < r.trip {
		r.trip = max(trip, 1)
	}
	r.mark = 0
}

// giveBack notes that n bytes of a stream need no memory any more. They are given back when the
// peer has no more left than that: half of the window, or less of it when readers that have stopped
// hold the rest. mu is held.
func (st *streams) giveBack(n int) (first bool) {
	if !st.credits {
		return false
	}
	st.owed += n
	if int64(st.owed) < st.window || st.owed == 0 {
		return false
	}
	n, st.owed = st.owed, 0
	st.window += int64(n)
	return st.sendCredit(0, n)
}

func (st *streams) sendCredit(id uint32, n int) (first bool) {
	return st.control(wire.TypeCredit, func(dst []byte) []byte {
		return st.cfg.Packets.AppendCredit(dst, id, uint32(n))
	})
}

// Cancel gives the stream up: what was received and not read, and what still comes, is
// dropped, and the writer is told the reason if it can be. Next returns a [*StreamError] then.
// It must not be called while Next runs. Calls after the first, or after the end, only drop what
// was not read.
func (r *StreamReader) Cancel(reason string) {
	if r.piece.buf != nil {
		r.piece.buf.Release()
		r.piece, r.at = readPiece{}, 0
	}
	r.Abort(reason)
}

// Abort is [StreamReader.Cancel] for any goroutine, while Next may run: the next call of it
// returns the [*StreamError], and what it has lent stays good until then.
func (r *StreamReader) Abort(reason string) {
	st := r.streams
	r.aborted.Store(true)
	st.mu.Lock()
	first := st.giveBack(r.discard())
	if !r.isOver {
		first = r.fail(&StreamError{Message: reason}) || first
	} else if r.err == io.EOF { //nolint:errorlint // it is never wrapped
		r.err = &StreamError{Message: reason}
	}
	st.unlock(first)
}

// discard drops what was received, and returns how many bytes. What Next has lent stays where
// it is, and counts no more. mu is held.
func (r *StreamReader) discard() (n int) {
	n, r.reading = r.reading, 0
	for ; r.head < len(r.queue); r.head++ {
		n += len(r.queue[r.head].buf.B)
		r.queue[r.head].buf.Release()
	}
	r.queue, r.head = nil, 0
	r.bytes -= n
	r.streams.buffered -= n
	return n
}

// fail ends the stream on this side. mu is held.
func (r *StreamReader) fail(err *StreamError) (first bool) {
	st := r.streams
	r.endLocked(err)
	return st.tell(r.id, err.Message)
}

// expire drops an early stream that nobody has asked for. mu is held.
func (r *StreamReader) expire() (first bool) {
	st := r.streams
	delete(st.early, r.id)
	st.waiting -= r.bytes
	first = st.giveBack(r.discard())
	if !r.isOver {
		first = r.fail(streamErrorf(notWanted)) || first
	}
	return first
}

// tell tells the writer of a stream that it has been given up. mu is held.
func (st *streams) tell(id uint32, reason string) (first bool) {
	if !st.session.canCancel.Load() {
		return false
	}
	return st.control(wire.TypeCancel, func(dst []byte) []byte {
		return st.cfg.Packets.AppendCancel(dst, id, reason)
	})
}

// endLocked says that nothing more will come. mu is held.
func (r *StreamReader) endLocked(err error) {
	if r.isOver {
		return
	}
	r.isOver, r.err = true, err
	st := r.streams
	if r.full {
		r.notFull()
	}
	if st.early[r.id] != r && !r.unclaimed { // else whoever asks for it learns what became of it
		st.forget(r)
	}
	r.wake()
}

// forget takes out a reader to which nothing more will come. mu is held.
func (st *streams) forget(r *StreamReader) {
	if st.readers[r.id] == r {
		delete(st.readers, r.id)
	}
	st.gone.add(r.id)
	r.stopTimers()
}

func (r *StreamReader) stopTimers() {
	if r.idle != nil {
		r.idle.Stop()
	}
	if r.stall != nil {
		r.stall.Stop()
	}
}

func (r *StreamReader) wake() {
	select {
	case r.wakec <- struct{}{}:
	default:
	}
}

// chunk takes a STREAM packet, on the read owner.
func (st *streams) chunk(pkt wire.Packet) {
	st.mu.Lock()
	first := st.chunkLocked(pkt)
	st.unlock(first)
}

func (st *streams) chunkLocked(pkt wire.Packet) (first bool) {
	s, id, n := st.session, pkt.StreamID, len(pkt.Payload)
	if st.err != nil {
		return false
	}
	eos := pkt.Flags.EOS()
	nothing := st.cfg.Packets.IsNothing(pkt.Payload)
	if nothing && eos {
		n = 0
	}
	if st.credits && n > 0 {
		if st.window <= 0 {
			st.broken(closeProtocol, "more than the credit of the connection")
			return false
		}
		st.window -= int64(n)
	}
	r := st.readers[id]
	if r == nil {
		if r = st.early[id]; r == nil {
			if st.gone.has(id) {
				return st.giveBack(n)
			}
			if pkt.StreamIndex != 0 || len(st.early) >= st.cfg.maxStreams() {
				s.stats.unknown.Add(1)
				st.gone.add(id)
				first = st.giveBack(n)
				return st.tell(id, "unknown stream") || first
			}
			r = st.newEarly(id, pkt.Flags.Live())
		}
		if !r.isOver && st.waiting+n > st.cfg.maxEarlyBytes() {
			return r.refuse(n, "%d bytes before the stream was announced, limit %d", st.waiting+n, st.cfg.maxEarlyBytes())
		}
	}
	switch {
	case r.isOver:
		s.stats.malformed.Add(1)
		return st.giveBack(n)
	case pkt.StreamIndex != r.index:
		return r.refuse(n, "chunk %d came in place of %d", pkt.StreamIndex, r.index)
	case nothing && !eos:
		return r.refuse(n, "chunk %d is null", pkt.StreamIndex)
	case st.credits && n > 0 && r.window <= 0:
		return r.refuse(n, "chunk %d is beyond the credit of the stream", pkt.StreamIndex)
	}
	r.index++
	r.touch()
	if n > 0 {
		if st.early[id] == r {
			st.waiting += n
		}
		first = r.push(pkt.Payload)
	}
	if eos {
		r.endLocked(io.EOF)
	}
	return first
}

// refuse fails the stream because of a packet with n bytes, which is dropped. mu is held.
func (r *StreamReader) refuse(n int, format string, args ...any) (first bool) {
	first = r.streams.giveBack(n)
	return r.fail(streamErrorf(format, args...)) || first
}

// push adds a chunk. mu is held.
func (r *StreamReader) push(p []byte) (first bool) {
	st := r.streams
	if last := len(r.queue) - 1; last >= r.head && len(p) <= joinedChunk && len(r.queue[last].buf.B) < streamShare {
		q := &r.queue[last]
		q.buf.Append(p)
		q.ends = append(q.ends, len(q.buf.B))
	} else {
		r.queue = append(compacted(r.queue, &r.head), readPiece{st.keep(p), []int{len(p)}})
	}
	r.bytes += len(p)
	st.buffered += len(p)
	r.wake()
	if st.credits {
		if r.epochAt == 0 {
			r.epochAt = r.eventAt
		}
		r.measure()
		r.window -= int64(len(p))
		r.received += int64(len(p))
		return false
	}
	switch {
	case st.early[r.id] == r: // it has limits of its own
		return false
	case r.full && r.bytes/hardFull > st.cfg.maxBuffered():
		return r.fail(streamErrorf("%d bytes wait for the reader", r.bytes))
	case !r.full && (r.bytes > st.cfg.maxBuffered() || st.buffered > st.cfg.sessionWindow()):
		return r.tooFull()
	}
	return false
}

// keep returns a buffer with a chunk, that of its message or a copy.
func (st *streams) keep(p []byte) *buf.Buf {
	if len(p) > joinedChunk && st.giver != nil {
		if b := st.giver.TakeMessage(); b != nil {
			b.Cut(wire.HeaderLen, wire.HeaderLen+len(p))
			return b
		}
	}
	return buf.Copy(p)
}

// hardFull is how many times [StreamConfig.MaxBuffered] a stream may have when the link does
// not stop reading, because it is closing.
const hardFull = 8

// A giver is a link that can give the memory of a message away, with nothing else in it,
// while it delivers the message.
type giver interface {
	TakeMessage() *buf.Buf
}

// A pauser is a link that can stop reading.
type pauser interface {
	PauseReading()
	ResumeReading()
}

// tooFull stops reading the connection until the reader has caught up, or has had its time.
// On a link that cannot stop the stream fails at once. mu is held.
func (r *StreamReader) tooFull() (first bool) {
	st := r.streams
	link, ok := st.session.link.(pauser)
	if !ok {
		return r.fail(streamErrorf("more than %d bytes wait for the reader", st.cfg.maxBuffered()))
	}
	r.full = true
	if st.full++; st.full == 1 {
		link.PauseReading()
	}
	if limit := st.cfg.stallLimit(); limit > 0 {
		r.stall = time.AfterFunc(limit, r.stalled)
	}
	return false
}

// stalled fails the stream if the reader has not caught up.
func (r *StreamReader) stalled() {
	st := r.streams
	st.mu.Lock()
	first := false
	if r.full {
		first = r.fail(streamErrorf("the reader was %v behind", st.cfg.stallLimit()))
	}
	st.unlock(first)
}

// notFull ends that. mu is held.
func (r *StreamReader) notFull() {
	st := r.streams
	r.full = false
	if r.stall != nil {
		r.stall.Stop()
	}
	if st.full--; st.full == 0 {
		st.session.link.(pauser).ResumeReading()
	}
}

// touch notes that something happened, and watches that something does. mu is held.
func (r *StreamReader) touch() {
	st := r.streams
	r.eventAt = st.session.now(st.session.ownerCtx)
	_, early := st.early[r.id]
	if r.live && !early && !r.unclaimed || r.idle != nil || st.cfg.idleLimit() < 0 {
		return
	}
	r.idle = time.AfterFunc(st.cfg.idleLimit(), r.checkIdle)
}

// checkIdle fails the stream if nothing came for too long, though all was read.
func (r *StreamReader) checkIdle() {
	st := r.streams
	st.mu.Lock()
	first := false
	limit := st.cfg.idleLimit()
	silent := time.Duration(st.session.deadlines.now() - r.eventAt)
	switch {
	case (r.isOver || r.live) && !r.unclaimed && st.early[r.id] != r:
	case silent < limit:
		r.idle.Reset(limit - silent)
	case st.early[r.id] == r:
		first = r.expire()
	case r.unclaimed:
		first = r.drop()
	case r.bytes > 0 || st.credits && st.window <= 0: // not the writer is silent, but held up
		r.idle.Reset(limit)
	default:
		first = r.fail(streamErrorf("nothing came for %v", limit))
	}
	st.unlock(first)
}

// failed ends a stream of which the writer says that it has failed.
func (st *streams) failed(id uint32, err *StreamError) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if r := st.readers[id]; r != nil {
		r.endLocked(err)
	} else if r := st.early[id]; r != nil {
		r.endLocked(err)
	} else if st.err == nil && !st.gone.has(id) && !st.session.owns(id) && len(st.early) < st.cfg.maxStreams() {
		st.newEarly(id, false).endLocked(err) // it has failed before its first chunk
	}
}

// newEarly returns a reader for a stream that nobody has asked for yet. mu is held.
func (st *streams) newEarly(id uint32, live bool) *StreamReader {
	r := st.newReader(id, live)
	st.early[id] = r
	r.touch()
	return r
}
