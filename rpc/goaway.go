package rpc

import (
	"math"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

const (
	goAwayShutdown = "shutdown"

	// maxGoAwayWindow bounds the time that a peer may ask to spread connecting over.
	maxGoAwayWindow = time.Hour

	// maxGoAwayReason bounds the bytes of the reason that are kept.
	maxGoAwayReason = 256

	// goAwayTime is how long a connection must have lasted for a goaway to cost the peer
	// nothing: in a rolling restart one may come every few seconds.
	goAwayTime = time.Second
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

// parseGoAway reads reason and window. A malformed request is to be ignored.
func parseGoAway(payload []byte, lim codec.Limits) (reason string, window time.Duration, ok bool) {
	d := codec.NewDecoder(payload, lim)
	n, err := d.ArrayHeader()
	if err != nil || n < 2 {
		return "", 0, false
	}
	text, err := d.StringBytes()
	if err != nil {
		return "", 0, false
	}
	reason = strings.ToValidUTF8(string(text[:min(len(text), maxGoAwayReason)]), "")
	var ms float64
	if err := d.Decode(&ms); err != nil || math.IsNaN(ms) || ms < 0 {
		return "", 0, false
	}
	return reason, time.Duration(min(ms, float64(maxGoAwayWindow.Milliseconds())) * float64(time.Millisecond)), true
}

// goAway is told on the read owner that the peer asks to connect anew.
func (c *conn) goAway(_ *mux.Session, payload []byte) {
	if reason, window, ok := parseGoAway(payload, c.endpoint.cfg.Limits); ok {
		c.peer.drainOff(c, reason, window)
	}
}

// errLeaving is why a connection is not adopted whose other side goes away.
var errLeaving = &Error{Code: Unavailable, Message: "the peer asks to connect elsewhere"}

// drainOff makes a new connection in place of c, at a random moment within window.
func (p *Peer) drainOff(c *conn, reason string, window time.Duration) {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	c.leaving = true // if it is not adopted yet it will not be
	if c != p.conn.Load() || c.dead || l.closing || l.event.State != StateConnected {
		return
	}
	p.setState(StateEvent{State: StateDraining, Reason: ReasonGoingAway, Message: reason})
	if p.redial == nil || p.redial.MaxAttempts < 0 || l.loop != nil {
		return
	}
	wait := jitter(window)
	if time.Since(l.connectedAt) >= goAwayTime {
		l.tries = 0
	} else { // those who go on sending each other away must not be dialled all the time
		wait = max(wait, p.redial.wait(l.tries))
	}
	c.tries = l.tries
	p.startRedialling(wait, nil)
}
