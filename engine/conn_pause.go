package engine

// PauseReading makes the connection take nothing more from its peer until
// [Conn.ResumeReading], so that the peer's writes wait in turn. Messages of the
// present read, and of one more that may be under way, are still delivered. Calls
// after the first do nothing.
//
// On the epoll driver, which cannot stop watching one of its sockets for a while,
// the connection moves to a goroutine of its own for good: it is meant for peers
// that send more than is taken, not for every connection.
//
// A paused connection is written to as ever. It is not taken for dead however
// silent it is; that its peer has gone shows when it reads again, when a write
// fails, or when it is closed, which ends the pause. It may be called from a
// Handler's methods.
func (c *Conn) PauseReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resumec == nil && !c.closing && !c.aborted && !c.dead.Load() {
		c.resumec = make(chan struct{})
		c.paused.Store(true)
	}
}

// ResumeReading ends the pause. It does nothing on a connection that reads.
func (c *Conn) ResumeReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.resumeLocked()
}

func (c *Conn) resumeLocked() {
	if c.resumec == nil {
		return
	}
	close(c.resumec)
	c.resumec = nil
	c.paused.Store(false)
	c.lastRead.Store(int64(c.now())) // the silence was ours
}

// awaitResume blocks while the connection is paused. It is called by a read owner
// that is a goroutine.
func (c *Conn) awaitResume() {
	for c.paused.Load() {
		c.mu.Lock()
		resumec := c.resumec
		c.mu.Unlock()
		if resumec != nil {
			<-resumec
		}
	}
}
