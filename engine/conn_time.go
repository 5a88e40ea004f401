package engine

import "time"

// tick looks after everything that depends on time: the limit of the closing,
// a write that waits for the poller, half a message, silence, and pings. One timer runs it, armed for the earliest
// moment at which something could be due; reading only stores the time.
func (c *Conn) tick() {
	now := c.now()
	c.mu.Lock()
	closing, closeAt := c.closing, c.closeAt
	c.probeAnsweredLocked()
	probeEnd := c.probeEnd
	c.mu.Unlock()

	silence, quiet := now-time.Duration(c.lastRead.Load()), now-time.Duration(c.lastPing.Load())
	if c.paused.Load() {
		silence = 0 // nobody listens
	} else {
		quiet = min(quiet, silence)
	}
	waiting := time.Duration(c.waiting.Load())
	switch {
	case waiting > 0 && due(c.lim.writeTimeout, now-waiting):
		c.abort(ErrWriteStall)
		return
	case closing:
		if closeAt > 0 && now >= closeAt {
			c.abort(ErrLost) // the reason of the closing stays
			return
		}
	case due(c.lim.pingTimeout, silence), probeEnd > 0 && now >= probeEnd:
		c.abort(ErrPeerDead)
		return
	case c.partial.Load() && due(c.lim.frameTimeout, silence):
		c.fail(&CloseError{Code: ClosePolicy, Reason: "unfinished message timed out", Err: ErrFrameTimeout})
		return // beginning to close has armed the timer
	case due(c.lim.pingInterval, quiet): // while paused, too: the peer takes our silence for death
		c.lastPing.Store(int64(now))
		c.stats.pingsOut.Add(1)
		c.queueControl(opPing, nil)
		c.Kick()
	}
	c.mu.Lock()
	c.armLocked(c.nextTick(now))
	c.mu.Unlock()
}

// Probe pings the peer and ends the connection, as Config.PingTimeout does, if nothing
// comes from it within d. It does not block. While another probe is under way, or
// reading is paused, it does nothing.
func (c *Conn) Probe(d time.Duration) {
	c.mu.Lock()
	if c.closing || c.probeEnd > 0 || c.paused.Load() {
		c.mu.Unlock()
		return
	}
	now := c.now()
	c.probed, c.probeEnd = now, now+max(d, 1)
	c.lastPing.Store(int64(now))
	c.lastRead.Store(int64(now) - 1) // what came at this very moment is no answer
	c.armLocked(c.nextTick(now))
	c.mu.Unlock()
	c.stats.pingsOut.Add(1)
	c.queueControl(opPing, nil)
	c.Kick()
}

// probeAnsweredLocked ends a probe if something has come since, or nobody listens. It
// is called with mu held.
func (c *Conn) probeAnsweredLocked() {
	if c.paused.Load() || time.Duration(c.lastRead.Load()) >= c.probed {
		c.probeEnd = 0
	}
}

func due(limit, elapsed time.Duration) bool { return limit > 0 && elapsed >= limit }

// nextTick returns how long the timer may sleep from now on; 0 if nothing
// depends on time. It is called with mu held.
func (c *Conn) nextTick(now time.Duration) time.Duration {
	next := time.Duration(0)
	at := func(t time.Duration) {
		if d := max(t-now, 1); next == 0 || d < next {
			next = d
		}
	}
	if w := time.Duration(c.waiting.Load()); w > 0 && c.lim.writeTimeout > 0 {
		at(w + c.lim.writeTimeout)
	}
	if c.closing {
		if c.closeAt > 0 {
			at(c.closeAt)
		}
		return next
	}
	read, ping := time.Duration(c.lastRead.Load()), time.Duration(c.lastPing.Load())
	if c.paused.Load() {
		read = now
	} else {
		ping = max(ping, read)
	}
	if c.probeEnd > 0 {
		at(c.probeEnd)
	}
	if d := c.lim.pingInterval; d > 0 {
		at(ping + d)
	}
	if d := c.lim.pingTimeout; d > 0 {
		at(read + d)
	}
	if d := c.lim.frameTimeout; d > 0 {
		if c.partial.Load() {
			at(read + d)
		} else {
			at(now + d) // a message that begins meanwhile is then seen in time
		}
	}
	return next
}
