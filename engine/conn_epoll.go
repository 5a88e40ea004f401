//go:build linux && (amd64 || arm64 || loong64)

package engine

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// A connection on the epoll driver. The poller owns the read side: OnRead makes
// one read, or a few large ones, so that connections take turns, and runs the handler.
//
// Everything that ends the connection shuts the socket down. The poller then
// reports a hang-up, and from there one goroutine owns the read side: it reads
// what is left, waits for the close frame to be written if there is one, and
// runs finish, as the reader of the std driver does.
//
// The write role is parked when the socket takes no more, and OnWrite takes it
// up again on the poller. Once the poller has left the socket, the role passes to
// a goroutine as it does on the std driver.

// useSocket makes the epoll driver carry the connection if nc is a socket of it.
func (c *Conn) useSocket(nc net.Conn) {
	if s, ok := nc.(*socket); ok {
		c.sock, c.writer = s, s
	}
}

// startPolledLocked begins reading. During the accept function the socket is
// attached: then acceptReturned goes on with it.
func (c *Conn) startPolledLocked() {
	switch {
	case c.sock.attached:
	case len(c.early) == 0:
		if err := c.attachLocked(); err != nil {
			c.wg.Go(func() { c.attachFailed(err) })
		}
	default:
		c.wg.Go(c.readEarlyAndAttach)
	}
}

func (c *Conn) attachLocked() error {
	if err := c.sock.attach(c.onReadable, c.onWritable, c.onHangup); err != nil {
		return err
	}
	if c.sock.parked {
		c.askWriteLocked()
	}
	return nil
}

// readEarlyAndAttach delivers what came with the handshake before the poller
// reads more.
func (c *Conn) readEarlyAndAttach() {
	c.readEarlyPolled()
	c.mu.Lock()
	err := c.attachLocked()
	c.mu.Unlock()
	if err != nil {
		c.attachFailed(err)
	}
}

func (c *Conn) attachFailed(err error) {
	c.abort(errors.Join(ErrLost, err))
	c.readRest()
}

func (c *Conn) readEarlyPolled() {
	defer c.recoverRead()
	c.readEarly()
}

// acceptReturned goes on with a connection whose handshake was on the poller,
// and is called there. If the accept function has not started it, the poller must
// not watch it until Start.
func (c *Conn) acceptReturned() {
	s := c.sock
	c.mu.Lock()
	if !c.started {
		s.attached = false
		s.op.OnHup = nil // a hang-up that comes with this event is found again by Start
		_ = s.op.Control(pollDetach)
		c.mu.Unlock()
		return
	}
	alive := !c.dead.Load()
	c.mu.Unlock()
	if alive {
		c.readEarlyPolled()
	}
}

// readTurn is how much is read from a connection with large frames before the others of its
// poller have a turn.
const readTurn = 256 << 10

// onReadable reads once, or some large frames. It runs on the poller, as onWritable does.
func (c *Conn) onReadable(poller) error {
	defer c.recoverRead()
	switch {
	case c.dead.Load():
		return nil // ended by the accept function: finish owns the read side
	case c.paused.Load():
		c.leavePoller()
		return nil
	}
	s := c.sock
	n, err := s.readNow(c.inBuf.space())
	for turn := n; n > 0; turn += n {
		more := n == c.inBuf.asked && n >= largeFrame && turn < readTurn
		c.arrived(n)
		if !more || c.dead.Load() || c.paused.Load() {
			return nil
		}
		n, err = s.readNow(c.inBuf.space())
	}
	c.inBuf.idle()
	// At the end of the stream, and after an abort, a hang-up follows, if it is not
	// part of this event.
	switch err {
	case errNotNow, io.EOF, net.ErrClosed: //nolint:errorlint // they are never wrapped
	default:
		s.failed = err // a socket says it once only
		_ = s.Close()  // makes the hang-up certain
	}
	return nil
}

// onWritable goes on with the flush that has parked the write role.
func (c *Conn) onWritable(poller) error {
	c.mu.Lock()
	ours := c.sock.parked && !c.sock.ended
	if ours {
		c.sock.parked = false
	}
	c.mu.Unlock()
	if ours {
		c.flush()
	}
	return nil
}

// leavePoller moves the read side of a paused connection to a goroutine, which
// waits for the end of the pause and then reads as on the std driver. It runs on
// the poller.
func (c *Conn) leavePoller() {
	s := c.sock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead.Load() {
		return
	}
	s.op.OnHup = nil // a hang-up that comes with this event is found by the goroutine
	_ = s.op.Control(pollDetach)
	c.wg.Go(c.readRest)
}

// onHangup takes the connection over from the poller. It runs on a goroutine of
// netpoll that has other connections waiting.
func (c *Conn) onHangup(poller) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead.Load() { // else it was never started, and finish is at work
		c.wg.Go(c.readRest)
	}
	return nil
}

// readRest is the reader of a connection that the poller has left.
func (c *Conn) readRest() {
	defer c.finish()
	defer c.recoverRead()
	s := c.sock
	c.mu.Lock()
	s.ended = true
	parked := s.parked
	s.parked = false
	c.mu.Unlock()
	if parked {
		c.flush() // the role is ours now
	}
	c.readFrom(&lastReads{c: c})
}

// parkWrite makes the poller go on with the flush when the socket takes bytes
// again: then the role is not the caller's any more. It returns false if the
// connection is dead.
func (c *Conn) parkWrite() bool {
	s := c.sock
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead.Load() {
		return false
	}
	if s.ended {
		c.waiting.Store(0) // the goroutine has a deadline
		c.wg.Go(c.flushBlocking)
		return true
	}
	now := c.now()
	if out := c.stats.bytesOut.Load(); c.waiting.Load() == 0 || out != s.outBefore {
		s.outBefore = out
		c.waiting.Store(max(int64(now), 1))
	}
	s.parked = true
	if !s.wantWrite {
		if s.attached {
			c.askWriteLocked()
		}
		c.armLocked(c.nextTick(now))
	}
	return true
}

func (c *Conn) askWriteLocked() {
	c.sock.wantWrite = true
	// ENOENT means that the poller has seen the end: the goroutine of the end takes
	// the role. Any other failure must lead there too.
	if err := c.sock.op.Control(pollAddWrite); err != nil && !errors.Is(err, syscall.ENOENT) {
		if c.cause == nil {
			c.cause = errors.Join(ErrLost, os.NewSyscallError("epoll_ctl", err))
		}
		_ = c.sock.Close()
	}
}

// unparkWrite is called by the holder of the role when everything is written.
func (c *Conn) unparkWrite() {
	s := c.sock
	if !s.wantWrite {
		return
	}
	s.wantWrite = false
	c.waiting.Store(0)
	// The operator is there until finish has taken the role. A failure means that
	// it is detached.
	_ = s.op.Control(pollNoWrite)
}
