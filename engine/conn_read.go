package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// readLoop is the reader of the std driver.
func (c *Conn) readLoop() {
	defer c.finish()
	defer c.recoverRead()
	c.readEarly()
	c.readFrom(newSource(c.nc))
}

// recoverRead keeps a panic of our own to this connection.
func (c *Conn) recoverRead() {
	if v := recover(); v != nil {
		c.logPanic(v)
		c.abort(fmt.Errorf("%w: %v", ErrPanic, v))
	}
}

// readEarly handles what came with the handshake.
func (c *Conn) readEarly() {
	early := c.early
	c.early = nil
	for len(early) > 0 {
		n := copy(c.inBuf.space(), early)
		early = early[n:]
		c.arrived(n)
	}
}

// readFrom reads to the end.
func (c *Conn) readFrom(src source) {
	for {
		c.awaitResume()
		n, err := src.read(&c.inBuf)
		if n > 0 {
			c.arrived(n)
		}
		if err != nil {
			c.readEnded(err)
			return
		}
	}
}

// arrived handles n bytes read into the inbox.
func (c *Conn) arrived(n int) {
	c.lastRead.Store(int64(c.now()))
	c.inBuf.added(n)
	c.counts.bytes += int64(n)
	if c.deaf.Load() {
		c.stats.add(&c.counts)
		c.in.release()
		c.inBuf.release()
		return
	}
	used := c.input(c.inBuf.bytes())
	c.inBuf.consumed(used)
	if half := c.inBuf.b != nil || c.in.partial(); half != c.partial.Load() {
		c.partial.Store(half)
	}
	if c.urgent.Load() {
		c.Kick()
	}
}

// input handles the frames at the start of b, in place, and returns how many
// bytes they have: all of b once the connection listens no more. The rest is
// part of a frame, to be offered again with more behind it.
func (c *Conn) input(b []byte) (used int) {
	used, end, err := c.dispatch(b)
	switch {
	case err != nil:
		c.fail(err)
	case end.kind == eventClose:
		c.peerClosed(end.code, string(end.payload))
	case !c.deaf.Load():
		return used
	}
	return len(b)
}

// dispatch hands the messages at the start of b to the handler. It stops at a
// close frame or an error.
func (c *Conn) dispatch(b []byte) (used int, end event, err *CloseError) {
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(v)
			err = &CloseError{Code: CloseInternal, Reason: "internal error", Err: ErrPanic}
		}
	}()
	delivered := false
	for err == nil && end.kind != eventClose && used < len(b) && !c.deaf.Load() {
		ev, n, e := c.in.next(b[used:])
		used += n
		switch {
		case e != nil:
			err = e
		case ev.kind == eventMessage:
			delivered = true
			c.counts.messages++
			c.handler.Message(ev.text, ev.payload)
		case ev.kind == eventPing:
			c.counts.pings++
			c.queueControl(opPong, ev.payload)
		case ev.kind == eventPong:
			c.counts.pongs++
		case ev.kind == eventClose:
			end = ev
		}
		if n == 0 {
			break
		}
	}
	c.stats.add(&c.counts)
	if delivered {
		c.handler.ReadDone()
	}
	return used, end, err
}

// readEnded handles the end of what the socket gives.
func (c *Conn) readEnded(err error) {
	cause := ErrClosed
	switch {
	case errors.Is(err, io.EOF):
		cause = fmt.Errorf("%w: %w", ErrLost, io.ErrUnexpectedEOF) // no close frame came
	case !errors.Is(err, net.ErrClosed):
		cause = fmt.Errorf("%w: %w", ErrLost, err)
	}
	c.mu.Lock()
	if c.cause == nil {
		c.cause = cause
	}
	c.mu.Unlock()
	if errors.Is(err, io.EOF) {
		// The peer has ended its direction; ours may still have a close frame to carry.
		c.awaitFlush()
	}
}

// source reads from a socket into an inbox.
type source interface {
	read(in *inbox) (int, error)
}

// plainSource reads through the net.Conn; it holds a buffer while it waits.
type plainSource struct{ nc net.Conn }

func (s plainSource) read(in *inbox) (int, error) {
	for {
		n, err := s.nc.Read(in.space())
		if n > 0 || err != nil {
			return n, err
		}
		time.Sleep(time.Millisecond) // a Read that returns nothing must not spin
	}
}
