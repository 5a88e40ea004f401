package pubsub

import (
	"context"
	"runtime"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/internal/code"
)

// emission is one that needs goroutines: because its handlers run at the same time, or
// because it may have to leave them behind.
//
// Its workers take handlers from one counter. Whoever is about to call a handler while
// others wait makes sure that there is a spare worker, started but not yet running, who
// then does the same. So a handler that blocks holds up nobody; and there are never more
// workers than handlers that are under way and one, while quick handlers are done by
// few. Nobody looks at a clock.
//
// It is used anew when the emitter and all its workers have let go of it.
type emission struct {
	bus    *Bus
	ctx    context.Context //nolint:containedctx // that of the emitter, until the last worker ends
	call   call
	event  Event
	list   []*Subscription
	slots  []slot // one for each handler, unless it is a fold
	folded outcome
	err    error         // of the fold
	done   chan struct{} // gets one token when there is nothing to wait for any more; one place
	run    func()        // worker, made once

	next     atomic.Int64 // the handler to be taken next
	left     atomic.Int64 // handlers that have not ended
	workers  atomic.Int64 // started, the emitter too if it works
	failed   atomic.Int64 // 1 + the first handler that failed, 0 for none
	refs     atomic.Int64 // the emitter and the workers
	spare    atomic.Bool  // a worker has been started that does not run yet
	signaled atomic.Bool  // done has its token
}

// slot is what became of a handler. Its worker writes it, and then state.
type slot struct {
	value any
	err   error
	state atomic.Uint32
}

const (
	slotWaits = iota
	slotDone
	slotSkipped // the subscription had ended
)

// maxPooledSlots bounds the emissions that are kept for use.
const maxPooledSlots = 4096

// begin prepares an emission. Its one reference is the caller's.
func (b *Bus) begin(ctx context.Context, list []*Subscription, c *call, e Event) *emission {
	m, _ := b.pool.Get().(*emission)
	if m == nil {
		m = &emission{bus: b, done: make(chan struct{}, 1)}
		m.run = m.worker
	}
	m.ctx, m.call, m.event, m.list = ctx, *c, e, list
	if c.op == OpSerial {
		m.call.limit = 1
	}
	if c.op <= OpSerial {
		if cap(m.slots) < len(list) {
			m.slots = make([]slot, len(list))
		}
		m.slots = m.slots[:len(list)]
	}
	m.left.Store(int64(len(list)))
	m.workers.Store(1)
	m.refs.Store(1)
	return m
}

// wait has the handlers run and returns what came of them. If direct is true nobody is
// to be left behind, and the caller may work.
func (m *emission) wait(direct bool) (o outcome, err error) {
	defer m.release()
	abandoned := false
	if direct && m.call.rule != ruleFirst {
		m.work()
		if m.left.Load() > 0 {
			<-m.done
		}
	} else if !m.start() {
		m.bus.stats.overloaded.Add(1)
		return outcome{}, errorf(code.ResourceExhausted, "emit %s: too many handlers are running", m.event.name)
	} else {
		abandoned = !m.waitDone()
	}
	switch {
	case m.call.op <= OpSerial:
		return m.collect(abandoned)
	case abandoned:
		return outcome{}, contextError(m.ctx, "emit "+m.event.name)
	}
	return m.folded, m.err
}

// waitDone waits for the workers, and reports false if the context ended first.
func (m *emission) waitDone() bool {
	select {
	case <-m.done:
		return true
	case <-m.ctx.Done():
	}
	if m.signaled.Load() { // what is there already counts
		<-m.done
		return true
	}
	m.next.Store(int64(len(m.list)))
	m.bus.stats.abandoned.Add(1)
	return false
}

// start starts a worker, unless there are too many in the bus.
func (m *emission) start() bool {
	if !m.bus.addWorker() {
		// Those that have not run yet may find nothing to do: on a busy machine emissions
		// can be faster than the goroutines that they start.
		runtime.Gosched()
		if !m.bus.addWorker() {
			return false
		}
	}
	m.refs.Add(1)
	go m.run()
	return true
}

// worker is the goroutine that start starts. It ends when no handler is left to take.
func (m *emission) worker() {
	returned := false
	defer func() {
		if !returned { // a handler has ended the goroutine
			m.refs.Add(1)
			m.bus.workers.Add(1)
			go m.run()
		}
		m.bus.workerDone()
		m.release()
	}()
	m.spare.Store(false)
	if m.call.op > OpSerial {
		m.workFold()
	} else {
		m.work()
	}
	returned = true
}

// work takes handlers until none is left.
func (m *emission) work() {
	for {
		i := int(m.next.Add(1) - 1)
		if i >= len(m.list) {
			return
		}
		if i+1 < len(m.list) {
			m.ensureSpare()
		}
		m.runSlot(i)
	}
}

// ensureSpare sees to it that somebody takes the next handler if this one blocks.
func (m *emission) ensureSpare() {
	if m.call.limit == 1 || !m.spare.CompareAndSwap(false, true) {
		return
	}
	if m.workers.Add(1) > int64(m.call.limit) || !m.start() {
		m.workers.Add(-1)
		m.spare.Store(false)
	}
}

// runSlot runs one handler.
func (m *emission) runSlot(i int) {
	slot, s := &m.slots[i], m.list[i]
	if !s.begin() {
		m.finish(slot, slotSkipped)
		return
	}
	m.bus.stats.delivered.Add(1)
	slot.err = errEnded
	defer func() { // also if the handler ends the goroutine
		if slot.err != nil {
			m.fail(i)
		}
		m.finish(slot, slotDone)
	}()
	slot.value, slot.err = m.bus.handle(m.ctx, s, &m.event)
}

// errEnded is the error of a handler that called runtime.Goexit.
var errEnded = errorf(code.Internal, "a handler ended its goroutine")

func (m *emission) fail(i int) {
	m.failed.CompareAndSwap(0, int64(i)+1)
	if m.call.op == OpSerial && m.call.stops() {
		m.next.Store(int64(len(m.list)))
	}
}

func (m *emission) finish(s *slot, state uint32) {
	s.state.Store(state)
	left := m.left.Add(-1)
	stopped := m.failed.Load() != 0 && (m.call.rule == ruleFirst || m.call.op == OpSerial && m.call.stops())
	if left == 0 || stopped {
		m.signal()
	}
}

// workFold runs a fold, which is the business of one worker.
func (m *emission) workFold() {
	if m.next.Add(1) > 1 { // a handler has ended the goroutine of the worker before
		m.signal()
		return
	}
	m.err = errEnded
	value, err := m.bus.fold(m.ctx, m.list, &m.call, m.event)
	m.folded, m.err = outcome{value: value}, err
	m.signal()
}

// signal lets the emitter return.
func (m *emission) signal() {
	if m.signaled.CompareAndSwap(false, true) {
		m.done <- struct{}{}
	}
}

// collect gathers what the handlers returned that have ended.
func (m *emission) collect(abandoned bool) (o outcome, err error) {
	var failed []error
	count := 0
	for i := range m.slots {
		s := &m.slots[i]
		state := s.state.Load()
		if state == slotSkipped || state == slotWaits && m.call.op == OpSerial {
			continue
		}
		count++
		var v any
		if state == slotDone {
			v = s.value
			if s.err != nil {
				failed = append(failed, s.err)
			}
		}
		switch {
		case o.results != nil:
			o.results = append(o.results, v)
		case v != nil:
			o.results = make([]any, count, len(m.slots))
			o.results[count-1] = v
		}
	}
	if first := m.failed.Load(); first != 0 && m.call.rule == ruleFirst && m.slots[first-1].state.Load() == slotDone {
		failed = append(failed[:0], m.slots[first-1].err)
	}
	if abandoned {
		failed = append(failed, contextError(m.ctx, "emit "+m.event.name))
	}
	return o, join(failed)
}

// release lets go of the emission, and keeps it for use if nobody else holds it.
func (m *emission) release() {
	if m.refs.Add(-1) > 0 {
		return
	}
	select {
	case <-m.done:
	default:
	}
	if cap(m.slots) > maxPooledSlots {
		return
	}
	clear(m.slots)
	m.ctx, m.call, m.event, m.list, m.folded, m.err = nil, call{}, Event{}, nil, outcome{}, nil
	m.next.Store(0)
	m.failed.Store(0)
	m.spare.Store(false)
	m.signaled.Store(false)
	m.bus.pool.Put(m)
}
