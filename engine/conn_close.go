package engine

import (
	"fmt"
	"time"
)

// CloseWith starts the close handshake: what Collect offers now is sent first,
// at most a few megabytes of it, then a close frame with code and reason (cut to
// 123 bytes; code 0 sends none). Messages of the peer are delivered until its own
// close frame comes. Then the socket is closed in order. All of it takes at most
// Config.CloseTimeout. CloseWith does not block; calls after the first do
// nothing.
//
// RFC 6455 section 7.1.2.
func (c *Conn) CloseWith(code uint16, reason string) {
	reason = cutReason(reason)
	err := &CloseError{Code: code, Reason: reason}
	if code == 0 {
		err.Code, err.Reason = CloseNoStatus, ""
	}
	c.mu.Lock()
	if c.beginCloseLocked(code, reason, err) && !c.started {
		c.startLocked(discard{})
	}
	c.mu.Unlock()
	c.Kick()
}

// Close ends the connection now, without a close frame. It returns after the
// connection's goroutines have, so a Handler's methods must not call it. It is
// idempotent and always returns nil.
func (c *Conn) Close() error {
	c.abort(ErrClosed)
	<-c.donec
	c.wg.Wait()
	return nil
}

// fail closes the connection for something the peer or the handler did: the
// close frame goes out behind what is queued, and nothing more is read.
func (c *Conn) fail(err *CloseError) {
	c.mu.Lock()
	if c.dead.Load() {
		c.mu.Unlock()
		return
	}
	c.beginCloseLocked(err.Code, err.Reason, err)
	c.closeFailed = true
	c.deaf.Store(true)
	c.mu.Unlock()
	c.shutWriteIfDone()
	c.Kick()
}

// peerClosed answers the peer's close frame (RFC 6455 section 5.5.1).
func (c *Conn) peerClosed(code uint16, reason string) {
	c.mu.Lock()
	c.closeReceived = true
	c.deaf.Store(true)
	echo := code
	if code == CloseNoStatus {
		echo = 0
	}
	c.beginCloseLocked(echo, "", &CloseError{Code: code, Reason: reason, Remote: true})
	c.mu.Unlock()
	c.shutWriteIfDone()
	c.Kick()
}

// beginCloseLocked sets what the close frame says, and the limit of the closing.
// It returns false if the connection is closing already.
func (c *Conn) beginCloseLocked(code uint16, reason string, cause error) bool {
	if c.closing || c.aborted || c.dead.Load() {
		return false
	}
	c.closing = true
	c.resumeLocked() // the peer's close frame must be read
	c.closeCode, c.closeReason = code, reason
	if c.cause == nil {
		c.cause = cause
	}
	c.flushedc = make(chan struct{})
	c.urgent.Store(true)
	if d := c.lim.closeTimeout; d > 0 {
		c.closeAt = c.now() + d
		c.armLocked(c.nextTick(c.now()))
	}
	return true
}

// closeFrameSent is called by the holder of the write role when the close frame
// has been written.
func (c *Conn) closeFrameSent() {
	c.mu.Lock()
	c.closeSent = true
	c.mu.Unlock()
	c.shutWriteIfDone()
	c.markFlushed()
}

// shutWriteIfDone ends our direction of the socket once nothing more is to be
// said: after a failure, and by the server when both close frames are through
// (RFC 6455 section 7.1.1: the server closes first).
func (c *Conn) shutWriteIfDone() {
	c.mu.Lock()
	do := !c.halfClosed && c.closeSent && (c.closeFailed || c.closeReceived && !c.client)
	if do {
		c.halfClosed = true
	}
	c.mu.Unlock()
	if !do {
		return
	}
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = h.CloseWrite() // the peer may be gone: the reader finds out
	}
}

// markFlushed tells a reader that has seen the end of the stream that the writer
// has nothing left to do.
func (c *Conn) markFlushed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.flushedc != nil && !c.flushed {
		c.flushed = true
		close(c.flushedc)
	}
}

// awaitFlush blocks until the close frame is written, the connection is aborted,
// or it was not closing at all.
func (c *Conn) awaitFlush() {
	c.mu.Lock()
	wait := c.closing && !c.closeSent && !c.aborted
	flushedc := c.flushedc
	c.mu.Unlock()
	if wait {
		<-flushedc
	}
}

// abort ends the connection without a close frame. It does not wait.
func (c *Conn) abort(err error) {
	c.mu.Lock()
	if c.aborted || c.dead.Load() {
		c.mu.Unlock()
		return
	}
	c.aborted = true
	c.deaf.Store(true)
	c.resumeLocked()
	if c.cause == nil {
		c.cause = err
	}
	started := c.started
	if !started {
		// No reader will do it; Start finds the connection dead.
		c.started = true
		c.dead.Store(true)
		if c.sock != nil {
			c.wg.Go(c.finish) // it waits for the poller, which may be our caller
		}
	}
	c.mu.Unlock()
	c.markFlushed()
	c.nc.Close()
	if !started && c.sock == nil {
		c.finish()
	}
}

// armLocked makes the timer run tick after d.
func (c *Conn) armLocked(d time.Duration) {
	switch {
	case d <= 0 || c.dead.Load():
	case c.timer == nil:
		c.timer = time.AfterFunc(d, c.onTimer)
	default:
		c.timer.Reset(d)
	}
}

func (c *Conn) onTimer() {
	c.mu.Lock()
	if c.dead.Load() {
		c.mu.Unlock()
		return
	}
	c.wg.Add(1)
	c.mu.Unlock()
	defer c.wg.Done()
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(v)
			c.abort(fmt.Errorf("%w: %v", ErrPanic, v))
		}
	}()
	c.tick()
}
