package netrontest

import (
	"slices"
	"time"

	"github.com/d-e-v-grid/netron/internal/memlink"
)

// Link is all there is between two hosts of a [Network]: the connections that they
// have now, whichever of them dialled, and the faults that these and later ones
// have. All methods are safe for concurrent use.
type Link struct {
	network *Network

	// All guarded by network.mu.
	faults faults
	dials  int
	conns  []*memlink.Conn // the ends that dialled; some may have ended
}

// faults is what a new connection has from its beginning.
type faults struct {
	stalled, refused bool
	delay            time.Duration
	rate             int // bytes per second; 0 is no limit
}

// Cut resets the connections of the link at once, as if both ends had received a
// TCP reset. What was on its way is lost. New dials succeed.
func (l *Link) Cut() { l.change(nil, (*memlink.Conn).Cut) }

// Stall makes the link silent: nothing that is sent arrives any more, not even that
// a connection was closed, and no end is told. Sending blocks when 64 KiB are on
// their way. Dials get a connection, on which nothing arrives. [Link.Cut] works all
// the same.
func (l *Link) Stall() { l.change(stall, (*memlink.Conn).Stall) }

// Resume ends a [Link.Stall]. What was sent meanwhile arrives now, as if TCP had sent
// it again. A connection that only one end has given up is reset.
func (l *Link) Resume() { l.change(resume, (*memlink.Conn).Resume) }

// Delay makes what is sent from now on arrive d later, in its order, in each
// direction: a call takes twice d. Zero ends it.
func (l *Link) Delay(d time.Duration) { l.change(delay(d)) }

// Throttle limits what is sent from now on to a rate, for each connection and each
// direction. Zero ends it.
func (l *Link) Throttle(bytesPerSecond int) { l.change(throttle(bytesPerSecond)) }

// Refuse makes dials over the link fail with ECONNREFUSED. Connections go on.
func (l *Link) Refuse() { l.change(refuse, nil) }

// Allow ends a [Link.Refuse].
func (l *Link) Allow() { l.change(allow, nil) }

// Dials returns how many dials there were from either host to the other, including
// those that failed.
func (l *Link) Dials() int {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	return l.dials
}

// Conns returns how many connections the link has. One that was closed by a single
// end counts until the other has closed it as well.
func (l *Link) Conns() int {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	return l.connsLocked()
}

func (l *Link) connsLocked() int {
	l.conns = slices.DeleteFunc(l.conns, (*memlink.Conn).Ended)
	return len(l.conns)
}

func (l *Link) change(set func(*faults), apply func(*memlink.Conn)) {
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	l.changeLocked(set, apply)
}

// changeLocked changes what holds for new connections, and both ends of those that
// there are.
func (l *Link) changeLocked(set func(*faults), apply func(*memlink.Conn)) {
	if set != nil {
		set(&l.faults)
	}
	if apply == nil || l.connsLocked() == 0 {
		return
	}
	for _, c := range l.conns {
		apply(c)
		apply(c.Far())
	}
}

// addLocked gives a new connection its faults.
func (l *Link) addLocked(c *memlink.Conn) {
	l.connsLocked() // so that the list does not grow with every dial
	l.conns = append(l.conns, c)
	for _, end := range []*memlink.Conn{c, c.Far()} {
		end.Delay(l.faults.delay)
		end.Throttle(l.faults.rate)
		if l.faults.stalled {
			end.Stall()
		}
	}
}

func stall(f *faults)  { f.stalled = true }
func resume(f *faults) { f.stalled = false }
func refuse(f *faults) { f.refused = true }
func allow(f *faults)  { f.refused = false }

func delay(d time.Duration) (set func(*faults), apply func(*memlink.Conn)) {
	return func(f *faults) { f.delay = d }, func(c *memlink.Conn) { c.Delay(d) }
}

func throttle(bytesPerSecond int) (set func(*faults), apply func(*memlink.Conn)) {
	return func(f *faults) { f.rate = bytesPerSecond }, func(c *memlink.Conn) { c.Throttle(bytesPerSecond) }
}
