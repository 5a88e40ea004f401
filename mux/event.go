package mux

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// Event is an event in its encoded form, made once for all sessions that send it. It is
// never changed, and belongs to the garbage collector.
type Event struct {
	name    string
	payload []byte   // of an EVENT: the array of name and arguments
	task    [12]byte // what stands in place of the array's header in the task emit
	taskLen uint8
	head    uint8 // bytes of the header
}

// MakeEvent returns an event with a payload, the encoded array of name and arguments,
// which it takes. The first head bytes of it are the header; with task, of at most 12 bytes,
// in their place it is the payload of the task emit.
func MakeEvent(name string, payload []byte, head int, task []byte) Event {
	e := Event{name: name, payload: payload, head: uint8(head)}
	e.taskLen = uint8(copy(e.task[:], task))
	return e
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

	// eventShare is about how much of a write events get, so that much is left for calls.
	eventShare = 32 << 10

	// eventRoom is more than frame, header and the name of the task add to an event.
	eventRoom = 48

	// keptEvents is for how many events a session keeps the memory of its queue.
	keptEvents = 1024

	// maxLosses is how many names of lost events are kept apart in one place. Others
	// are counted under [OtherEvents].
	maxLosses = 16
)

// OtherEvents stands for the names of lost events that are too many to be told apart.
const OtherEvents = "*"

// outbox is the events that a session has to send. Those who emit append, and the holder
// of the write role takes many at once; what waits here can still be dropped. A session
// gets one with its first event.
type outbox struct {
	mu      sync.Mutex
	queue   []outEvent    // those from head on; guarded by mu
	head    int           // guarded by mu
	count   int           // of the events in queue, which has losses as well; guarded by mu
	bytes   int           // of the events; guarded by mu
	active  bool          // the link is to look, or does; guarded by mu
	stalled bool          // somebody has waited for room in vain; guarded by mu
	closed  bool          // guarded by mu
	roomc   chan struct{} // closed when something was taken, nil while nobody waits; guarded by mu

	sent, dropped atomic.Uint64

	taken []outEvent // owned by the holder of the write role
}

// endOfEvents is the outbox of a session that ended without having had one.
var endOfEvents = &outbox{closed: true}

// outEvent is an event, or in its place those that were lost there.
type outEvent struct {
	event *Event
	lost  []loss
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
// has sent it. The error is [ErrDropped], that of ctx, or a [*LostError] at the end of the
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
		box.queue = append(box.queue, outEvent{event: e})
		box.count++
		box.bytes += len(e.payload)
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

// dropOldest gives up the oldest event, and reports false if there is none. mu is held.
func (o *outbox) dropOldest() bool {
	lost := []loss(nil)
	at := o.head
	for ; at < len(o.queue) && o.queue[at].event == nil; at++ {
		lost = merge(lost, o.queue[at].lost)
	}
	if at == len(o.queue) {
		return false
	}
	e := o.queue[at].event
	lost = add(lost, e.name, 1)
	o.count--
	o.bytes -= len(e.payload)
	o.dropped.Add(1)
	clear(o.queue[o.head:at])
	o.queue[at] = outEvent{lost: lost}
	o.head = at
	o.compact()
	return true
}

// compact moves what waits to the start of the memory when most of it is behind. mu is
// held.
func (o *outbox) compact() {
	if o.head > 64 && o.head >= len(o.queue)/2 {
		n := copy(o.queue, o.queue[o.head:])
		clear(o.queue[n:])
		o.queue, o.head = o.queue[:n], 0
	}
}

// dropNewest notes that an event was not queued. mu is held.
func (o *outbox) dropNewest(e *Event) {
	o.dropped.Add(1)
	if n := len(o.queue); n > o.head && o.queue[n-1].event == nil {
		o.queue[n-1].lost = add(o.queue[n-1].lost, e.name, 1)
		return
	}
	o.queue = append(o.queue, outEvent{lost: add(nil, e.name, 1)})
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
	size := 0
	for size < limit && o.head < len(o.queue) {
		e := o.queue[o.head]
		o.queue[o.head] = outEvent{}
		o.head++
		o.taken = append(o.taken, e)
		if e.event != nil {
			size += len(e.event.payload) + eventRoom
			o.count--
			o.bytes -= len(e.event.payload)
		}
		for _, l := range e.lost {
			size += len(l.name) + eventRoom
		}
	}
	switch {
	case o.head < len(o.queue):
		o.compact()
	case cap(o.queue) > keptEvents: // one burst must not pin memory
		o.queue, o.head = nil, 0
	default:
		o.queue, o.head = o.queue[:0], 0
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

// collectEvents begins what is written next with events of about limit bytes, and returns
// how many bytes there are.
func (s *Session) collectEvents(o *outbox, limit int) (size int) {
	o.take(limit)
	oneWay := s.canEvent.Load()
	for i, e := range o.taken {
		o.taken[i] = outEvent{}
		if e.event == nil {
			if oneWay {
				for _, l := range e.lost {
					size = s.collectLoss(size, l)
				}
			}
			continue
		}
		b := e.event.payload
		out := s.room(size, len(b)+eventRoom)
		start := len(out.B)
		out.B = s.link.BeginFrame(out.B)
		if oneWay {
			out.B = wire.AppendHeader(out.B, s.table.nextID(), wire.Request(wire.TypeEvent))
		} else {
			out.B = wire.AppendHeader(out.B, s.table.freshID(), wire.Request(wire.TypeTask))
			out.B = append(out.B, e.event.task[:e.event.taskLen]...)
			b = b[e.event.head:]
		}
		out.B = s.link.EndFrame(append(out.B, b...), start, false)
		size = len(out.B)
	}
	o.sent.Add(uint64(len(o.taken)))
	o.taken = o.taken[:0]
	return size
}

// collectLoss appends the notice that events were lost.
//
// Protocol section 12.4.
func (s *Session) collectLoss(size int, l loss) int {
	if s.cfg.EventLoss == nil {
		return size
	}
	out := s.room(size, len(l.name)+2*eventRoom)
	start := len(out.B)
	out.B = wire.AppendHeader(s.link.BeginFrame(out.B), s.table.nextID(), wire.Request(wire.TypeEvent))
	out.B = s.link.EndFrame(s.cfg.EventLoss(out.B, l.name, l.count), start, false)
	return len(out.B)
}

// close drops all events and refuses further ones.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	for _, e := range o.queue[o.head:] {
		if e.event != nil {
			o.dropped.Add(1)
		}
	}
	o.queue, o.head, o.count, o.bytes = nil, 0, 0, 0
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

// flusher has links look that events were queued for. Whoever emits leaves that to it:
// while it writes for one connection the events for others, and further ones for the
// same, gather. Its goroutines exist only while there is something to do.
type flusher struct {
	mu      sync.Mutex
	dirty   []*Session // those from head on; guarded by mu
	head    int        // guarded by mu
	running int        // goroutines; guarded by mu
	closed  bool       // guarded by mu
	wg      sync.WaitGroup
}

// flushAhead is how many sessions may wait for each goroutine before there is another.
const flushAhead = 4

// soon has the link of a session look. A session is not to be there twice.
func (f *flusher) soon(s *Session) {
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		s.link.Kick()
		return
	}
	f.dirty = append(f.dirty, s)
	if f.running == 0 || len(f.dirty)-f.head > flushAhead*f.running && f.running < runtime.GOMAXPROCS(0) {
		f.running++
		f.wg.Go(f.run)
	}
	f.mu.Unlock()
}

func (f *flusher) run() {
	for {
		f.mu.Lock()
		if f.head == len(f.dirty) {
			f.dirty, f.head = f.dirty[:0], 0
			f.running--
			f.mu.Unlock()
			return
		}
		s := f.dirty[f.head]
		f.dirty[f.head] = nil
		f.head++
		if f.head > 256 && f.head > len(f.dirty)/2 {
			n := copy(f.dirty, f.dirty[f.head:])
			clear(f.dirty[n:])
			f.dirty, f.head = f.dirty[:n], 0
		}
		f.mu.Unlock()
		s.link.Kick()
	}
}

// close waits for the goroutines. Nothing is left to them afterwards.
func (f *flusher) close() {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	f.wg.Wait()
}
