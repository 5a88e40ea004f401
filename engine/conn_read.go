package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
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
	used := c.input()
	if rest := c.inBuf.bytes()[used:]; used > 0 || c.inBuf.frame == 0 {
		c.inBuf.begins(frameSize(rest))
	}
	c.inBuf.consumed(used)
	if half := c.inBuf.b != nil || c.in.partial(); half != c.partial.Load() {
		c.partial.Store(half)
	}
	if c.urgent.Load() {
		c.Kick()
	}
}

// input handles the frames at the start of the inbox, in place, and returns how many
// bytes they have: all that are left once the connection listens no more. The rest is
// part of a frame, to be offered again with more behind it.
func (c *Conn) input() (used int) {
	used, end, err := c.dispatch()
	switch {
	case err != nil:
		c.fail(err)
	case end.kind == eventClose:
		c.peerClosed(end.code, string(end.payload))
	case !c.deaf.Load():
		return used
	}
	return len(c.inBuf.bytes())
}

// dispatch hands the messages at the start of the inbox to the handler. It stops at a
// close frame or an error.
func (c *Conn) dispatch() (used int, end event, err *CloseError) {
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(v)
			err = &CloseError{Code: CloseInternal, Reason: "internal error", Err: ErrPanic}
		}
	}()
	delivered := false
	b := c.inBuf.bytes()
	for err == nil && end.kind != eventClose && used < len(b) && !c.deaf.Load() {
		ev, n, e := c.in.next(b[used:])
		used += n
		switch {
		case e != nil:
			err = e
		case ev.kind == eventMessage:
			delivered = true
			c.counts.messages++
			c.message = lentMessage{size: len(ev.payload), end: used}
			c.handler.Message(ev.text, ev.payload)
			if c.message.taken {
				b, used = c.inBuf.bytes(), 0
			}
			c.message = lentMessage{}
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

// lentMessage is the message that the handler is looking at.
type lentMessage struct {
	size  int
	end   int  // where it ends, counted from what is unfinished in the inbox
	taken bool // the inbox begins behind it now
}

// TakeMessage gives the memory of a message away, so that it need not be copied to be kept:
// B is the message. Only Handler.Message may call it, once for a message, and may go on using
// what it was lent until it releases the buffer or passes it on. It returns nil if there is no
// such memory, or much more of it than the message needs.
func (c *Conn) TakeMessage() *buf.Buf {
	m := &c.message
	switch {
	case m.size == 0:
		return nil
	case c.in.done:
		m.size = 0
		return c.in.take()
	}
	b := c.inBuf.take(m.end-m.size, m.end)
	m.size, m.taken = 0, b != nil
	return b
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
	in.size = min(in.size, maxRead)
	for {
		n, err := s.nc.Read(in.space())
		if n > 0 || err != nil {
			return n, err
		}
		time.Sleep(time.Millisecond) // a Read that returns nothing must not spin
	}
}
