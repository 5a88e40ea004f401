package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// The write role. Bytes go to the socket by the one goroutine that holds the
// role. Kick adds 1 to kicks; the caller that finds 0 holds the role now. The
// holder reads the count, writes until there is nothing more, and gives the role
// up by swapping the count it has read for 0. If a Kick came in between, the
// swap fails and the holder looks again: so what was queued before a Kick is
// always seen either by the caller or by a look that begins after the Kick.
//
// When the socket would block, the holder passes the role to a goroutine of the
// connection, or parks it: on the epoll driver the poller takes it up again. At
// the end of the connection finish takes the role for good.

const (
	// pieceBytes is the size of one write. On loopback one of more than 65,483 bytes
	// takes two segments and is slower, and so are much smaller ones. A piece is also the
	// step of progress for the write stall limit.
	pieceBytes = 60 << 10
	// gatherBytes is up to where slices are copied together for sockets that
	// have no vectored write; it is the size of a TLS record.
	gatherBytes = 16 << 10
	// kickRounds is how often Kick looks for more before it leaves the rest to a
	// goroutine, so that a caller does not write for all the others forever.
	kickRounds = 64
	// closeBytes is what Collect may still offer after the closing began.
	closeBytes = 4 << 20
	// maxPongs is how many bytes of pongs wait at most; past it only the answer
	// to the latest ping is kept (RFC 6455 section 5.5.3).
	maxPongs = 4 << 10
	// turnBytes is what a flush writes on the epoll driver before it lets the other
	// connections of the poller have a turn.
	turnBytes = 1 << 20
)

// drained is the result of a look for something to write.
type drained uint8

const (
	allWritten  drained = iota
	wouldBlock          // bytes are left in out, or the turn is over
	writeFailed         // the connection has been aborted
)

// Kick says that there is something to send. It takes the write role if that is
// free and writes what Collect offers, or makes the holder of the role look
// again. It never blocks: what the socket does not take at once is written by a
// goroutine of the connection or by its poller. The connection is dropped when
// the peer takes nothing for Config.WriteTimeout.
func (c *Conn) Kick() {
	if c.kicks.Add(1) == 1 {
		c.flush()
	}
}

// flush runs in the holder of the write role and does not block.
func (c *Conn) flush() {
	defer c.recoverRole()
	for {
		seen := c.kicks.Load()
		if c.drain(false) == wouldBlock && c.passRole() {
			return
		}
		if c.sock != nil {
			c.unparkWrite()
		}
		if c.releaseRole(seen) {
			return
		}
	}
}

// passRole leaves the write role to somebody who waits for the socket. It
// returns false if the connection is dead.
func (c *Conn) passRole() bool {
	if c.sock != nil {
		return c.parkWrite()
	}
	return c.spawn(c.flushBlocking)
}

// flushBlocking is flush on a goroutine of its own, where writes may block.
func (c *Conn) flushBlocking() {
	defer c.recoverRole()
	for {
		seen := c.kicks.Load()
		c.drain(true)
		if c.releaseRole(seen) {
			return
		}
	}
}

// releaseRole gives the role up, unless a Kick came after seen was read.
func (c *Conn) releaseRole(seen int64) bool {
	if c.dead.Load() {
		// finish has set dead before it asked for the role, or is about to ask:
		// then it must not find the count at 0 twice. Handing over through
		// roleEnd keeps the count above 0, so nobody else gets the role.
		close(c.roleEnd())
		return true
	}
	return c.kicks.CompareAndSwap(seen, 0)
}

// roleEnd returns the channel that the last holder of the write role closes if
// the connection is dead by then. Few connections need it, so it is made late.
func (c *Conn) roleEnd() chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.roleDone == nil {
		c.roleDone = make(chan struct{})
	}
	return c.roleDone
}

// recoverRole keeps a panic of our own from stopping the process or the end of
// this connection.
func (c *Conn) recoverRole() {
	if v := recover(); v != nil {
		c.logPanic(v)
		c.abort(fmt.Errorf("%w: %v", ErrPanic, v))
		close(c.roleEnd()) // the role is never free again
	}
}

// drain writes until there is nothing more.
func (c *Conn) drain(mayBlock bool) drained {
	limit := math.MaxInt
	if c.sock != nil && !mayBlock {
		limit = turnBytes
	}
	for round := 0; ; round++ {
		if len(c.out) == 0 && !c.fill() {
			return allWritten
		}
		if !mayBlock && round >= kickRounds {
			return wouldBlock
		}
		for len(c.out) > 0 {
			if c.dead.Load() {
				c.out = nil
				return writeFailed
			}
			n, again, err := c.write(mayBlock)
			c.stats.bytesOut.Add(int64(n))
			limit -= n
			c.consume(n)
			if err != nil {
				c.out, c.broken = nil, true
				c.writeFailed(err)
				return writeFailed
			}
			if !mayBlock && (again || limit <= 0) {
				return wouldBlock
			}
		}
		if c.framed {
			c.closeFrameSent()
		}
	}
}

// fill gathers what to write next: control frames, then what Collect offers, and
// when the connection is closing and nothing is left, the close frame.
func (c *Conn) fill() bool {
	if c.framed || c.broken || c.dead.Load() {
		return false
	}
	c.out = c.outMem[:0]
	closing := c.urgent.Load() && c.fillControl()
	if !c.noCollect {
		before := len(c.out)
		c.collect()
		if closing {
			for _, p := range c.out[before:] {
				c.lastBytes += int64(len(p))
			}
			c.noCollect = c.noCollect || c.lastBytes >= closeBytes
		}
	}
	if len(c.out) == 0 && closing {
		c.mu.Lock()
		c.ctlOut = appendClose(c.ctlOut[:0], c.client, c.closeCode, c.closeReason)
		c.mu.Unlock()
		c.out = append(c.out, c.ctlOut)
		c.framed = true
	}
	c.outMem = c.out[:0]
	if cap(c.outMem) > 1024 {
		c.outMem = nil // one burst must not pin memory
	}
	return len(c.out) > 0
}

// fillControl takes the waiting control frames and reports whether the
// connection is closing.
func (c *Conn) fillControl() (closing bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.ctl) > 0 {
		if cap(c.ctlOut) > 256 {
			c.ctlOut = nil
		}
		c.ctl, c.ctlOut = c.ctlOut[:0], c.ctl
		c.out = append(c.out, c.ctlOut)
	}
	if !c.closing {
		c.urgent.Store(false)
	}
	return c.closing
}

// collect asks the handler. It keeps a panic there from reaching others.
func (c *Conn) collect() {
	h := c.handler
	if h == nil {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(v)
			c.noCollect = true
			c.fail(&CloseError{Code: CloseInternal, Reason: "internal error", Err: ErrPanic})
		}
	}()
	c.out = h.Collect(c.out)
}

// consume removes n written bytes from the front of out.
func (c *Conn) consume(n int) {
	for len(c.out) > 0 && n >= len(c.out[0]) {
		n -= len(c.out[0])
		c.out[0] = nil
		c.out = c.out[1:]
	}
	if n > 0 {
		c.out[0] = c.out[0][n:]
	}
}

// write writes one piece of out. Without mayBlock it takes what the socket takes
// at once; again reports that the socket takes no more.
func (c *Conn) write(mayBlock bool) (n int, again bool, err error) {
	if c.writer != nil {
		n, again, err = c.writer.tryWrite(c.out)
		if !again || !mayBlock || n > 0 || err != nil {
			return n, again, err
		}
		return c.writeWait()
	}
	if !mayBlock {
		return 0, true, nil
	}
	return c.writePlain()
}

// writeWait waits until the socket takes bytes again, at most the stall limit.
func (c *Conn) writeWait() (n int, again bool, err error) {
	if d := c.lim.writeTimeout; d > 0 {
		// The deadline must not stay: it would fail a later write that does not wait.
		_ = c.nc.SetWriteDeadline(time.Now().Add(d))
		defer func() { _ = c.nc.SetWriteDeadline(time.Time{}) }()
	}
	n, err = c.writer.waitWrite(c.out)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrWriteStall
	}
	return n, false, err
}

// writePlain writes one piece through the net.Conn and may block.
func (c *Conn) writePlain() (n int, again bool, err error) {
	p := c.out[0]
	if len(c.out) > 1 && len(p) < gatherBytes {
		b := buf.Get(gatherBytes)
		defer b.Release()
		for _, q := range c.out {
			b.B = append(b.B, q[:min(len(q), gatherBytes-len(b.B))]...)
			if len(b.B) == gatherBytes {
				break
			}
		}
		p = b.B
	}
	size := pieceBytes
	if _, ok := c.nc.(*tls.Conn); ok {
		size = gatherBytes // a record: TLS reports no smaller progress
	}
	p = p[:min(len(p), size)]
	if d := c.lim.writeTimeout; d > 0 {
		_ = c.nc.SetWriteDeadline(time.Now().Add(d))
	}
	n, err = c.nc.Write(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = ErrWriteStall
		if n > 0 {
			err = nil // slow, but not stalled
		}
	}
	return n, false, err
}

func (c *Conn) writeFailed(err error) {
	if !errors.Is(err, ErrWriteStall) && !errors.Is(err, net.ErrClosed) {
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	c.abort(err)
}

// queueControl queues a ping or pong. The caller kicks.
func (c *Conn) queueControl(op byte, p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	if len(c.ctl) > maxPongs {
		c.ctl = c.ctl[:0]
	}
	c.ctl = appendFrame(c.ctl, c.client, bitFin|op, p)
	c.urgent.Store(true)
}
