package memlink

import "time"

// Cut resets the link: both ends fail at once and what was on its way is lost.
func (c *Conn) Cut() {
	c.in.cut()
	c.out.cut()
}

// Stall stops what this end sends from arriving, until Resume: bytes, the end of
// the direction, and the reset by which a closed end answers. Writes go on until the
// buffer is full. Cut needs no line and works all the same.
func (c *Conn) Stall() { c.out.change(func() { c.out.stalled = true }) }

// Resume ends a Stall: what was held back arrives, a reset included.
func (c *Conn) Resume() {
	reset, refused := false, false
	c.out.change(func() {
		c.out.stalled = false
		reset = c.out.resetHeld
		refused = c.out.readClosed && c.out.size > 0
	})
	switch {
	case reset:
		c.Cut()
	case refused: // as a write to a closed end is
		c.far.sendReset()
	}
}

// Delay lets bytes written from now on at this end arrive d later. They do not
// overtake earlier ones.
func (c *Conn) Delay(d time.Duration) { c.out.change(func() { c.out.delay = d }) }

// Throttle limits the bytes written from now on at this end to a rate; 0 is no
// limit.
func (c *Conn) Throttle(bytesPerSecond int) {
	c.out.change(func() { c.out.rate = max(bytesPerSecond, 0) })
}
