package rpc

import (
	"math"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

const (
	goAwayShutdown = "shutdown"

	// maxGoAwayWindow bounds the time that a peer may ask to spread connecting over.
	maxGoAwayWindow = time.Hour
)

// GoAway asks the peer to make no new requests and to connect anew, elsewhere if it can,
// at a random moment within window. What is under way goes on. The caller closes the
// connection in the end. It reports false if the peer does not know the request, as
// TypeScript ones do not.
//
// Protocol section 12.5.
func (p *Peer) GoAway(reason string, window time.Duration) bool {
	return p.link().GoAway(appendGoAway(reason, window))
}

func appendGoAway(reason string, window time.Duration) []byte {
	b := codec.AppendString(codec.AppendArrayHeader(nil, 2), reason)
	return codec.AppendInt(b, max(window.Milliseconds(), 0))
}

// parseGoAway reads the window. A malformed request is to be ignored.
func parseGoAway(payload []byte, lim codec.Limits) (window time.Duration, ok bool) {
	d := codec.NewDecoder(payload, lim)
	n, err := d.ArrayHeader()
	if err != nil || n < 2 {
		return 0, false
	}
	if _, err := d.StringBytes(); err != nil {
		return 0, false
	}
	var ms float64
	if err := d.Decode(&ms); err != nil || math.IsNaN(ms) || ms < 0 {
		return 0, false
	}
	return time.Duration(min(ms, float64(maxGoAwayWindow.Milliseconds())) * float64(time.Millisecond)), true
}

// goAway is told on the read owner that the peer asks to connect anew.
func (c *conn) goAway(_ *mux.Session, payload []byte) {
	if window, ok := parseGoAway(payload, c.endpoint.cfg.Limits); ok {
		c.peer.drainOff(c, window)
	}
}

// drainOff makes a new connection in place of c, at a random moment within window.
func (p *Peer) drainOff(c *conn, window time.Duration) {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if c != p.conn.Load() || c.dead || l.closing || l.event.State != StateConnected {
		return
	}
	p.setState(StateEvent{State: StateDraining, Reason: ReasonGoingAway})
	if p.redial == nil || p.redial.MaxAttempts < 0 || l.loop != nil {
		return
	}
	if time.Since(l.connectedAt) >= steadyTime {
		l.tries = 0
	}
	wait := jitter(window)
	if l.tries > 0 { // those who go on sending each other away must not be dialled all the time
		wait = max(wait, p.redial.wait(l.tries))
	}
	p.startRedialling(wait, nil)
}
