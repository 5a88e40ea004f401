package memlink

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipe is one direction of a link. The writer fills it, the reader empties it.
type pipe struct {
	mu   sync.Mutex
	cond *sync.Cond // broadcast on every change

	queue []segment
	size  int // bytes in queue
	limit int

	finished   bool // the writer has ended the direction
	readClosed bool // the reader's end was closed
	wrClosed   bool // the writer's end was closed
	reset      bool

	stalled   bool
	resetHeld bool // the writer's end has answered with a reset that was not let through
	delay     time.Duration
	rate      int       // bytes per second; 0 is no limit
	lineFree  time.Time // when a throttled line has carried all of queue

	readDeadline  time.Time
	writeDeadline time.Time
}

// segment is bytes on their way. They can be read from at on.
type segment struct {
	data []byte
	at   time.Time
}

func newPipe(limit int) *pipe {
	p := &pipe{limit: limit}
	p.cond = sync.NewCond(&p.mu)
	return p
}

// errNoReader reports a write to an end that was closed.
var errNoReader = errors.New("memlink: the other end is closed")

// change runs f with the pipe locked and wakes everybody.
func (p *pipe) change(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.cond.Broadcast()
}

// wait waits for a change or, unless it is zero, the time until.
func (p *pipe) wait(until time.Time) {
	if until.IsZero() {
		p.cond.Wait()
		return
	}
	t := time.AfterFunc(time.Until(until), func() { p.change(func() {}) })
	p.cond.Wait()
	t.Stop()
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		now := time.Now()
		until := p.readDeadline
		switch {
		case p.readClosed:
			return 0, net.ErrClosed
		case p.reset:
			return 0, syscall.ECONNRESET
		case !until.IsZero() && !now.Before(until):
			return 0, os.ErrDeadlineExceeded
		case len(b) == 0:
			return 0, nil
		case p.stalled:
		case len(p.queue) > 0:
			if at := p.queue[0].at; now.Before(at) {
				until = earlier(until, at)
				break
			}
			return p.take(b, now), nil
		case p.finished:
			return 0, io.EOF
		}
		p.wait(until)
	}
}

// take moves what has arrived into b.
func (p *pipe) take(b []byte, now time.Time) (n int) {
	for n < len(b) && len(p.queue) > 0 && !now.Before(p.queue[0].at) {
		s := &p.queue[0]
		k := copy(b[n:], s.data)
		n += k
		if s.data = s.data[k:]; len(s.data) == 0 {
			p.queue[0] = segment{}
			p.queue = p.queue[1:]
		}
	}
	p.size -= n
	p.cond.Broadcast()
	return n
}

func (p *pipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		now := time.Now()
		switch {
		case p.wrClosed:
			return n, net.ErrClosed
		case p.reset:
			return n, syscall.ECONNRESET
		case p.finished:
			return n, syscall.EPIPE
		case p.readClosed && !p.stalled:
			return n, errNoReader
		case !p.writeDeadline.IsZero() && !now.Before(p.writeDeadline):
			return n, os.ErrDeadlineExceeded
		case n == len(b):
			return n, nil
		}
		// Like a TCP sender, wait for room that is worth a segment: else a reader
		// that takes a few bytes at a time would leave the line full of crumbs.
		room := p.limit - p.size
		if k := min(len(b)-n, room, p.step()); k == min(len(b)-n, p.step()) || k >= p.limit/4 {
			p.put(b[n:n+k], now)
			n += k
			continue
		}
		p.wait(p.writeDeadline)
	}
}

// step is the size of one segment: on a throttled line a hundredth of a second.
func (p *pipe) step() int {
	if p.rate == 0 {
		return p.limit
	}
	return max(p.rate/100, 1)
}

// put copies b into the queue.
func (p *pipe) put(b []byte, now time.Time) {
	at := now
	if p.rate > 0 {
		if p.lineFree.After(at) {
			at = p.lineFree
		}
		at = at.Add(time.Duration(len(b)) * time.Second / time.Duration(p.rate))
		p.lineFree = at
	}
	at = at.Add(p.delay)
	if k := len(p.queue); k > 0 && at.Before(p.queue[k-1].at) {
		at = p.queue[k-1].at // bytes do not overtake
	}
	p.queue = append(p.queue, segment{append([]byte(nil), b...), at})
	p.size += len(b)
	p.cond.Broadcast()
}

// look runs f with the pipe locked.
func (p *pipe) look(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// cut drops what is on its way and fails both ends.
func (p *pipe) cut() {
	p.change(func() {
		p.reset = true
		p.queue, p.size = nil, 0
	})
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || b.Before(a) {
		return b
	}
	return a
}
