package memlink

import "time"

// Cut resets the link: both ends fail at once and what was on its way is lost.
func (c *Conn) Cut() {
	c.in.cut()
	c.out.cut()
}

// Stall stops the bytes written at this end from arriving, the end of the
// direction included, until Resume. Writes go on until the buffer is full.
func (c *Conn) Stall() { c.out.change(func() { c.out.stalled = true }) }

// Resume ends a Stall.
func (c *Conn) Resume() { c.out.change(func() { c.out.stalled = false }) }

// Delay lets bytes written from now on at this end arrive d later. They do not
// overtake earlier ones.
func (c *Conn) Delay(d time.Duration) { c.out.change(func() { c.out.delay = d }) }

// Throttle limits the bytes written from now on at this end to a rate; 0 is no
// limit.
func (c *Conn) Throttle(bytesPerSecond int) {
	c.out.change(func() { c.out.rate = max(bytesPerSecond, 0) })
}
