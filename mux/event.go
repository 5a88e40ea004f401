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

// Event is an event in its encoded form, made once for all sessions that send it. It is
// not changed while they need it, and a large one, see [CopiedEvent], never.
type Event struct {
	name    string
	payload []byte // of an EVENT: the array of name and arguments
	task    []byte // what stands in place of the array's header in the task emit
	head    int    // bytes of the header
}

// MakeEvent returns an event with a payload, the encoded array of name and arguments,
// which it takes. The first head bytes of it are the header; with task
// in their place it is the payload of the task emit.
func MakeEvent(name string, payload []byte, head int, task []byte) Event {
	return Event{name: name, payload: payload, head: head, task: task}
}

// Name returns the name.
func (e *Event) Name() string { return e.name }

// Overflow says what becomes of an event when a session has no room for it, since the
// peer does not read fast enough.
type Overflow uint8

// The ways to treat a slow peer. A peer that negotiated events is told how many it has
// lost, and where.
const (
	// DropOldest gives up the events that have waited for the longest time.
	DropOldest Overflow = iota

	// DropNewest gives up the event.
	DropNewest

	// Block waits for room, for a bounded time, and then gives up the event. A peer that
	// has used up this time gets none until it has read something.
	Block

	// Disconnect closes the connection with 1008.
	Disconnect
)

// ErrDropped is returned for an event that was given up.
var ErrDropped = errors.New("mux: event dropped, the peer reads too slowly")

const (
	defaultMaxEvents     = 8192
	defaultMaxEventBytes = 8 << 20

	// eventShare is about how much of a write events get, so that much is left for calls,
	// and how many bytes of events stand in one piece.
	eventShare = 32 << 10

	// eventRoom is more than frame, header and the name of the task add to an event.
	eventRoom = 48

	// CopiedEvent is the largest payload of an event that is copied when it is queued.
	// Larger ones are shared by all sessions that they wait in.
	CopiedEvent = 2 << 10

	// keptPieces is for how many pieces a session keeps the memory of its queue.
	keptPieces = 64

	// maxLosses is how many names of lost events are kept apart in one place. Others
	// are counted under [OtherEvents].
	maxLosses = 16
)

// OtherEvents stands for the names of lost events that are too many to be told apart.
const OtherEvents = "*"

// outbox is the events that a session has to send, framed as they will be written. Those
// who emit append, and the holder of the write role takes many at once; what waits here can
// still be dropped. A session gets one with its first event.
type outbox struct {
	mu      sync.Mutex
	pieces  []*piece      // those from head on; guarded by mu
	head    int           // guarded by mu
	count   int           // of the events; guarded by mu
	bytes   int           // of the events; guarded by mu
	last    int           // bytes of the piece that was taken last; guarded by mu
	active  bool          // the link is to look, or does; guarded by mu
	stalled bool          // somebody has waited for room in vain; guarded by mu
	closed  bool          // guarded by mu
	roomc   chan struct{} // closed when something was taken, nil while nobody waits; guarded by mu

	sent, dropped atomic.Uint64

	// Owned by the holder of the write role.
	taken []*piece
}

// endOfEvents is the outbox of a session that ended without having had one.
var endOfEvents = &outbox{closed: true}

// piece is events that stand behind one another, and those that were lost before them.
type piece struct {
	lost  []loss
	large *Event // a single one that is framed when it is taken; else

	buf   *buf.Buf // the frames, nil if there are none
	first int      // those before were dropped
	ends  []int    // of the frames in buf
	names []names  // of the frames from first on
	at    int      // names before are used up
}

// names is how many events in a row have the same name.
type names struct {
	name  string
	count int
}

var pooledPieces = sync.Pool{New: func() any { return new(piece) }}

// events returns how many there are.
func (p *piece) events() int {
	if p.large != nil {
		return 1
	}
	return len(p.ends) - p.first
}

// bytes returns how many the events take.
func (p *piece) bytes() int {
	switch {
	case p.large != nil:
		return len(p.large.payload)
	case p.buf != nil:
		return len(p.frames())
	}
	return 0
}

// frames returns what is to be written of buf.
func (p *piece) frames() []byte {
	if p.first == 0 {
		return p.buf.B
	}
	return p.buf.B[p.ends[p.first-1]:]
}

// append adds a frame, of which buf has the bytes.
func (p *piece) append(name string) {
	p.ends = append(p.ends, len(p.buf.B))
	if n := len(p.names); n > p.at && p.names[n-1].name == name {
		p.names[n-1].count++
		return
	}
	p.names = append(p.names, names{name, 1})
}

// dropFirst gives up the first event and returns its size. There is one.
func (p *piece) dropFirst() (size int) {
	if p.large != nil {
		size = len(p.large.payload)
		p.lost = add(p.lost, p.large.name, 1)
		p.large = nil
		return size
	}
	size = p.ends[p.first]
	if p.first > 0 {
		size -= p.ends[p.first-1]
	}
	p.first++
	n := &p.names[p.at]
	p.lost = add(p.lost, n.name, 1)
	if n.count--; n.count == 0 {
		p.at++
	}
	if p.first == len(p.ends) {
		p.empty()
	}
	return size
}

// empty forgets all events, which nobody must need any more.
func (p *piece) empty() {
	if p.buf != nil {
		p.buf.Release()
	}
	clear(p.names)
	*p = piece{lost: p.lost, ends: p.ends[:0], names: p.names[:0]}
}

// free gives the piece back.
func (p *piece) free() {
	p.empty()
	p.lost = nil
	pooledPieces.Put(p)
}

// loss counts lost events of one name.
type loss struct {
	name  string
	count uint64
}

// CanEvent reports whether the peer takes events that are not answered. It is false
// until the handshake is done.
func (s *Session) CanEvent() bool { return s.canEvent.Load() }

// SendEvent queues an event: as EVENT if the peer negotiated that, else as the task emit,
// whose answer nobody waits for. If there is no room o decides; [Block] waits for at most
// patience and not beyond ctx, and not at all on a read owner. The session keeps e until it
// has sent it if its payload is larger than [CopiedEvent], else until SendEvent returns. The error is [ErrDropped], that of ctx, or a [*LostError] at the end of the
// session. Any number of goroutines may send; what one sends stays in order.
//
// Protocol sections 9.2 and 12.4.
func (s *Session) SendEvent(ctx context.Context, e *Event, o Overflow, patience time.Duration) error {
	box := s.events.Load()
	if box == nil {
		s.events.CompareAndSwap(nil, &outbox{})
		box = s.events.Load()
	}
	var deadline time.Time
	for {
		box.mu.Lock()
		switch {
		case box.closed:
			box.mu.Unlock()
			return &LostError{Cause: s.err}
		case box.hasRoom(&s.cfg, e):
		case o == Disconnect:
			box.dropped.Add(1)
			box.mu.Unlock()
			s.link.CloseWith(closePolicy, "events are not being read")
			return ErrDropped
		case o == DropOldest:
			for !box.hasRoom(&s.cfg, e) && box.dropOldest() {
			}
		case o == Block && !box.stalled && patience > 0 && ownerOf(ctx) == nil:
			roomc := box.roomLocked()
			box.mu.Unlock()
			if deadline.IsZero() {
				deadline = time.Now().Add(patience)
			}
			if err := box.wait(ctx, roomc, time.Until(deadline)); err != nil {
				s.loseEvent(box, e)
				return err
			}
			continue
		default:
			box.dropNewest(e)
			box.mu.Unlock()
			return ErrDropped
		}
		s.queueEvent(box, e)
		wake := !box.active
		box.active = true
		box.mu.Unlock()
		if wake {
			s.cfg.Workers.flush.soon(s)
		}
		return nil
	}
}

// loseEvent notes that an event was not queued because nobody waits any more. Meanwhile all
// others may have been taken.
func (s *Session) loseEvent(box *outbox, e *Event) {
	box.mu.Lock()
	if box.closed {
		box.mu.Unlock()
		return
	}
	box.dropNewest(e)
	wake := !box.active
	box.active = true
	box.mu.Unlock()
	if wake {
		s.cfg.Workers.flush.soon(s)
	}
}

// hasRoom reports whether the event fits. A single one always does. mu is held.
func (o *outbox) hasRoom(c *Config, e *Event) bool {
	return o.count == 0 || o.count < c.maxEvents() && o.bytes+len(e.payload) <= c.maxEventBytes()
}

func (o *outbox) roomLocked() chan struct{} {
	if o.roomc == nil {
		o.roomc = make(chan struct{})
	}
	return o.roomc
}

// wait waits for a sign that there may be room. When the time is up the peer counts as
// stalled, and the caller looks once more.
func (o *outbox) wait(ctx context.Context, roomc chan struct{}, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-roomc:
	case <-t.C:
		o.mu.Lock()
		if o.roomc == roomc { // nothing was taken meanwhile
			o.stalled = true
		}
		o.mu.Unlock()
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// queueEvent appends an event. The mu of the outbox is held.
func (s *Session) queueEvent(o *outbox, e *Event) {
	o.count++
	need := len(e.payload) + eventRoom
	if len(e.payload) > CopiedEvent {
		o.piece(eventShare).large = e
		o.bytes += len(e.payload)
		return
	}
	p := o.piece(need)
	if p.buf == nil {
		p.buf = buf.Get(o.room(need))
	}
	start := len(p.buf.B)
	s.frameEvent(p.buf, e)
	p.append(e.name)
	o.bytes += len(p.buf.B) - start
}

// piece returns the last piece if it has room for need bytes, else a new one. mu is held.
func (o *outbox) piece(need int) *piece {
	if n := len(o.pieces); n > o.head {
		p := o.pieces[n-1]
		if p.large == nil && (p.buf == nil || len(p.buf.B)+need <= eventShare) {
			return p
		}
	}
	p, _ := pooledPieces.Get().(*piece)
	o.pieces = append(o.pieces, p)
	return p
}

// room returns how much room the last piece, which is empty, should begin with, at least need
// bytes: as much as the last one had if it is the only one, or behind one that is full. Others
// stay small, between large events or losses. mu is held.
func (o *outbox) room(need int) int {
	if n := len(o.pieces); n-o.head > 1 {
		before := o.pieces[n-2]
		if before.buf == nil || len(before.buf.B)+need <= eventShare {
			return need
		}
	}
	return max(o.last, need)
}

// frameEvent appends the packet of an event to b.
func (s *Session) frameEvent(b *buf.Buf, e *Event) {
	b.Reserve(len(e.payload) + eventRoom)
	start := len(b.B)
	out, payload := s.link.BeginFrame(b.B), e.payload
	if s.canEvent.Load() {
		out = wire.AppendHeader(out, s.table.nextID(), wire.Request(wire.TypeEvent))
	} else {
		out = wire.AppendHeader(out, s.table.freshID(), wire.Request(wire.TypeTask))
		out = append(out, e.task...)
		payload = payload[e.head:]
	}
	b.B = s.link.EndFrame(append(out, payload...), start, false)
}

// frameLoss appends the notice that events were lost.
//
// Protocol section 12.4.
func (s *Session) frameLoss(b *buf.Buf, l loss) {
	b.Reserve(len(l.name) + 2*eventRoom)
	start := len(b.B)
	out := wire.AppendHeader(s.link.BeginFrame(b.B), s.table.nextID(), wire.Request(wire.TypeEvent))
	b.B = s.link.EndFrame(s.cfg.EventLoss(out, l.name, l.count), start, false)
}

// dropOldest gives up the oldest event, and reports false if there is none. mu is held.
func (o *outbox) dropOldest() bool {
	for o.head < len(o.pieces) {
		p := o.pieces[o.head]
		if p.events() > 0 {
			o.count--
			o.bytes -= p.dropFirst()
			o.dropped.Add(1)
			return true
		}
		if o.head+1 == len(o.pieces) {
			return false
		}
		next := o.pieces[o.head+1]
		next.lost = merge(p.lost, next.lost)
		o.pop().free()
	}
	return false
}

// pop takes out the first piece. mu is held.
func (o *outbox) pop() *piece {
	p := o.pieces[o.head]
	o.pieces[o.head] = nil
	o.head++
	switch {
	case o.head < len(o.pieces):
		if o.head >= keptPieces && o.head >= len(o.pieces)/2 {
			n := copy(o.pieces, o.pieces[o.head:])
			clear(o.pieces[n:])
			o.pieces, o.head = o.pieces[:n], 0
		}
	case cap(o.pieces) > keptPieces: // one burst must not pin memory
		o.pieces, o.head = nil, 0
	default:
		o.pieces, o.head = o.pieces[:0], 0
	}
	return p
}

// dropNewest notes that an event was not queued. mu is held.
func (o *outbox) dropNewest(e *Event) {
	o.dropped.Add(1)
	n := len(o.pieces)
	if n == o.head || o.pieces[n-1].events() > 0 {
		p, _ := pooledPieces.Get().(*piece)
		o.pieces = append(o.pieces, p)
		n++
	}
	p := o.pieces[n-1]
	p.lost = add(p.lost, e.name, 1)
}

func add(to []loss, name string, count uint64) []loss {
	for i := range to {
		if to[i].name == name {
			to[i].count += count
			return to
		}
	}
	if len(to) >= maxLosses {
		if to[0].name == OtherEvents {
			to[0].count += count
			return to
		}
		to[0] = loss{OtherEvents, to[0].count + count}
		return to
	}
	return append(to, loss{name, count})
}

func merge(to, from []loss) []loss {
	if to == nil {
		return from
	}
	for _, l := range from {
		to = add(to, l.name, l.count)
	}
	return to
}

// take moves events of about limit bytes to taken. If there are none the next one has
// to wake the link.
func (o *outbox) take(limit int) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for size := 0; o.head < len(o.pieces); {
		p := o.pieces[o.head]
		bytes := p.bytes()
		size += bytes
		for _, l := range p.lost {
			size += len(l.name) + eventRoom
		}
		if len(o.taken) > 0 && size > limit {
			break
		}
		if p.buf != nil {
			o.last = bytes
		}
		o.taken = append(o.taken, o.pop())
		o.count -= p.events()
		o.bytes -= bytes
	}
	if len(o.taken) == 0 {
		o.active = false
		return
	}
	o.stalled = false
	if o.roomc != nil {
		close(o.roomc)
		o.roomc = nil
	}
}

// collectEvents appends events of about [eventShare] bytes to dst. It appends nothing only
// when there is nothing left: losses of which a peer cannot be told are passed over.
func (s *Session) collectEvents(o *outbox, dst [][]byte) [][]byte {
	for n := len(dst); len(dst) == n; {
		o.take(eventShare)
		if len(o.taken) == 0 {
			break
		}
		dst = s.collectTaken(o, dst)
	}
	return dst
}

// collectTaken appends what was taken.
func (s *Session) collectTaken(o *outbox, dst [][]byte) [][]byte {
	for i, p := range o.taken {
		o.taken[i] = nil
		sent := p.events()
		if p.large != nil || len(p.lost) > 0 {
			b := buf.Get(CopiedEvent)
			if s.canEvent.Load() && s.cfg.EventLoss != nil {
				for _, l := range p.lost {
					s.frameLoss(b, l)
				}
				sent += len(p.lost)
			}
			if p.large != nil {
				s.frameEvent(b, p.large)
			}
			dst = s.write(dst, b, b.B)
		}
		if p.buf != nil {
			dst = s.write(dst, p.buf, p.frames())
			p.buf = nil
		}
		p.free()
		o.sent.Add(uint64(sent))
	}
	o.taken = o.taken[:0]
	return dst
}

// write appends frames, which are part of b, to dst and takes b.
func (s *Session) write(dst [][]byte, b *buf.Buf, frames []byte) [][]byte {
	s.written = append(s.written, b)
	if len(frames) > 0 {
		dst = append(dst, frames)
	}
	return dst
}

// close drops all events and refuses further ones.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.dropped.Add(uint64(o.count))
	for o.head < len(o.pieces) {
		o.pop().free()
	}
	o.count, o.bytes = 0, 0
	if o.roomc != nil {
		close(o.roomc)
		o.roomc = nil
	}
}

// EventStats is a snapshot of the counters of a session's outgoing events.
type EventStats struct {
	Sent    uint64 // handed to the link, notices of losses included
	Dropped uint64 // given up, since the peer read too slowly or the session ended
	Waiting int    // queued now
}

// EventStats returns what became of the events of the session.
func (s *Session) EventStats() EventStats {
	box := s.events.Load()
	if box == nil {
		return EventStats{}
	}
	box.mu.Lock()
	defer box.mu.Unlock()
	return EventStats{Sent: box.sent.Load(), Dropped: box.dropped.Load(), Waiting: box.count}
}
