package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

// Redial says how a dialled peer gets its connections.
type Redial struct {
	// Dial makes one connection: it opens a link, binds it by [Endpoint.Bind], starts it,
	// and calls [Peer.Adopt]. attempt counts the calls over the life of the peer, from 0.
	// There is one call at a time. ctx ends with the peer. Required.
	Dial func(ctx context.Context, attempt int) error

	// ID is the id that the other side sees. Default Config.ID.
	ID string

	// Delay is the longest time before the first attempt to reconnect. It doubles with
	// each attempt up to MaxDelay; the time itself is random. Defaults 250 ms and 30 s.
	Delay    time.Duration
	MaxDelay time.Duration

	// MaxAttempts is after how many attempts in a row the peer is given up of which none
	// led to a connection that lasted 10 s, or 1 s if the other side then asked to connect
	// anew. 0 is no limit; a negative number means that the peer does not reconnect at all.
	MaxAttempts int

	// Addresses is how many addresses Dial goes through, one with each attempt. There is
	// a delay only when all of them have failed. Default 1.
	Addresses int
}

const (
	defaultReconnectDelay    = 250 * time.Millisecond
	defaultMaxReconnectDelay = 30 * time.Second

	// steadyTime is how long a connection must have lasted for the next loss to count
	// as the first: a peer that accepts connections only to end them is not to be
	// dialled all the time.
	steadyTime = 10 * time.Second

	// retireTime is how long a connection that was replaced is kept at least, for calls
	// that have just begun on it, and retirePause how often it is looked at.
	retireTime  = time.Second
	retirePause = 250 * time.Millisecond
)

// wait returns a random time before an attempt to reconnect, after so many others.
func (r *Redial) wait(tries int) time.Duration {
	tries /= max(r.Addresses, 1)
	delay, most := r.Delay, r.MaxDelay
	if delay <= 0 {
		delay = defaultReconnectDelay
	}
	if most <= 0 {
		most = defaultMaxReconnectDelay
	}
	for ; tries > 0 && delay < most; tries-- {
		delay *= 2
	}
	return jitter(min(delay, most))
}

// waitAfter is wait after an attempt that has failed: there is none before the next
// address.
func (r *Redial) waitAfter(tries int) time.Duration {
	if tries%max(r.Addresses, 1) != 0 {
		return 0
	}
	return r.wait(tries)
}

// isExhausted reports whether there are to be no more attempts after so many.
func (r *Redial) isExhausted(tries int) bool { return r.MaxAttempts > 0 && tries >= r.MaxAttempts }

// jitter returns a random time in (0, d].
func jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return 1 + rand.N(d)
}

// redialling is a goroutine that makes a new connection.
type redialling struct {
	cancel context.CancelFunc
	wakec  chan time.Duration // of capacity 1, never closed: wait no longer than that
}

// errPeerClosed is why a peer ended that this side closed while it had no connection.
var errPeerClosed = fmt.Errorf("rpc: peer closed: %w", mux.ErrClosed)

// NewDialled returns a peer that keeps itself connected. Give it its first connection
// by [Peer.Connect].
func (e *Endpoint) NewDialled(r Redial) *Peer { return newPeer(e, true, &r) }

// StopReconnecting ends all attempts to reconnect. Peers without a connection are
// closed; the others are when they lose it.
func (e *Endpoint) StopReconnecting() { e.stopRedial() }

// Connect gives the peer its first connection. It tries up to attempts times in a row,
// and returns what went wrong each time; then the peer is closed.
func (p *Peer) Connect(ctx context.Context, attempts int) error {
	var errs []error
	for range max(attempts, 1) {
		err := p.redial.Dial(ctx, p.nextDial())
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	p.shut(closeNormal, "")
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

func (p *Peer) nextDial() int {
	p.life.mu.Lock()
	defer p.life.mu.Unlock()
	p.life.dials++
	return p.life.dials - 1
}

// Reconnect has a peer that waits before its next attempt to reconnect make it at once.
func (p *Peer) Reconnect() {
	p.life.mu.Lock()
	defer p.life.mu.Unlock()
	if loop := p.life.loop; loop != nil {
		loop.hurry(0)
	}
}

// attached is told about a connection whose session has not begun.
func (p *Peer) attached(c *conn) {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	l.candidate = c
	if p.redial == nil || l.event.State == StateConnecting {
		p.conn.Store(c) // handlers of its first requests may want to call back
	} else {
		c.muted.Store(true) // until Adopt
	}
}

// becameReady is told that the handshake of a connection is done.
func (p *Peer) becameReady() {
	if p.redial != nil {
		return // connected is what Adopt makes it
	}
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	p.setState(StateEvent{State: StateConnected, Reason: ReasonReady})
}

// Adopt makes the connection that was bound last that of the peer, when its handshake is
// done, the services that stubs stand for have been found on it, the events that are
// wanted subscribed to, and it was tried to publish the services of this side. If it
// returns an error the caller closes the connection.
func (p *Peer) Adopt(ctx context.Context) (err error) {
	l := &p.life
	l.mu.Lock()
	c := l.candidate
	l.mu.Unlock()
	if err := c.waitReady(ctx); err != nil {
		return err
	}
	before := p.conn.Load()
	defer func() {
		if err != nil {
			c.muted.Store(true)
			before.muted.Store(false)
		}
	}()
	views, outcomes := make(map[*binding]*stubView), make(map[*publication]error)
	for {
		if err := c.findServices(ctx, views); err != nil {
			return err
		}
		c.publishAll(ctx, outcomes)
		c.takeEventsFrom(before)
		if err := c.resubscribe(ctx); err != nil {
			return err
		}
		if done, err := p.install(c, views, outcomes); done || err != nil {
			return err
		}
	}
}

// takeEventsFrom has events come over c from now on. Those of the connection before are
// dropped if it is to the same node, which may go on with it for a while: they would come
// twice.
func (c *conn) takeEventsFrom(before *conn) {
	if before != c && before.info.Load() != nil && before.info.Load().ID == c.info.Load().ID {
		before.muted.Store(true)
	}
	c.muted.Store(false)
}

// install makes c the connection of the peer, unless there are stubs without a view, or
// services were published, or events subscribed to, meanwhile.
func (p *Peer) install(c *conn, views map[*binding]*stubView, outcomes map[*publication]error) (done bool, err error) {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.closing:
		return false, errPeerClosed
	case c.dead:
		return false, &mux.LostError{Cause: c.session.Context().Err()}
	case c.leaving:
		return false, errLeaving
	}
	for _, b := range l.living() {
		if views[b] == nil {
			return false, nil
		}
	}
	if !l.publishedAll(outcomes) || !p.resubscribed(c) {
		return false, nil
	}
	for b, v := range views {
		b.view.Store(v)
	}
	before := p.conn.Swap(c)
	if before != c {
		p.user.Store(nil)
	}
	if before != nil && before != c && !before.dead {
		l.old = before
		p.endpoint.begin(func() { before.retire() })
	}
	if l.loop != nil {
		l.loop.cancel()
		l.loop = nil
	}
	l.candidate = nil
	l.connectedAt = time.Now()
	p.setState(StateEvent{State: StateConnected, Reason: ReasonReady, Attempt: l.tries})
	c.followUp(outcomes)
	return true, nil
}

// retire closes a connection that was replaced when nothing is under way on it. The
// other side may do so before. It has a goroutine of its own, which ends with the
// connection or the endpoint.
func (c *conn) retire() {
	pause := time.NewTimer(retireTime)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-c.session.Done():
			return
		case <-c.endpoint.redialCtx.Done():
			return
		}
		if c.session.Pending() == 0 && c.session.Inflight() == 0 {
			c.session.Close(closeNormal, "")
			return
		}
		pause.Reset(retirePause)
	}
}

// closeStatus returns what is known of the close frame that ended a connection.
func closeStatus(err error) (code uint16, reason string, remote bool) {
	closed, ok := errors.AsType[interface {
		error
		CloseStatus() (code uint16, reason string, remote bool)
	}](err)
	if !ok {
		return 0, "", false
	}
	return closed.CloseStatus()
}

// reasonOf says why a connection ended.
func reasonOf(err error) Reason {
	switch code, _, remote := closeStatus(err); {
	case !remote:
		return ReasonLost
	case code == closeGoingAway:
		return ReasonGoingAway
	}
	return ReasonClosedByPeer
}

// lost is told that a connection has ended.
func (p *Peer) lost(c *conn, err error) {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	c.dead = true
	switch {
	case c == l.old:
		l.old = nil
		p.finishIfOver(err)
	case c != p.conn.Load():
		// It was never adopted: Adopt says why.
	case p.redial == nil:
		p.closeWhenOver(reasonOf(err), err)
	case l.event.State == StateConnecting:
		// Connect goes on, or gives up.
		p.finishIfOver(err)
	case l.closing || p.endpoint.redialCtx.Err() != nil:
		p.closeWhenOver(ReasonClosed, err)
	case p.redial.MaxAttempts < 0:
		p.closeWhenOver(reasonOf(err), err)
	default:
		switch {
		case c.leaving: // attempts while it still worked do not count
			l.tries = c.tries
		case time.Since(l.connectedAt) >= steadyTime:
			l.tries = 0
		}
		if p.redial.isExhausted(l.tries) {
			p.closeWhenOver(ReasonExhausted, err)
			return
		}
		p.setState(StateEvent{State: StateReconnecting, Reason: reasonOf(err), Err: err})
		if wait := p.redial.wait(l.tries); l.loop != nil {
			l.loop.hurry(wait)
		} else if !p.startRedialling(wait, err) {
			p.finish(ReasonClosed, err)
		}
	}
}

// closeWhenOver notes that the peer ends, and ends it if nothing is under way. life.mu
// is held.
func (p *Peer) closeWhenOver(reason Reason, err error) {
	l := &p.life
	if !l.closing {
		l.closing, l.endReason = true, reason
	}
	if l.loop != nil {
		l.loop.cancel()
	}
	p.finishIfOver(err)
}

// finishIfOver ends a peer that is being closed and has neither a connection nor a
// goroutine that makes one. life.mu is held.
func (p *Peer) finishIfOver(err error) {
	l := &p.life
	if c := p.conn.Load(); l.closing && l.loop == nil && l.old == nil && (c == nil || c.dead) {
		p.finish(l.endReason, err)
	}
}

// finish ends the peer for good. life.mu is held.
func (p *Peer) finish(reason Reason, err error) {
	l := &p.life
	if l.event.State == StateClosed {
		return
	}
	if err == nil {
		err = errPeerClosed
	}
	l.err = err
	l.bindings, l.published = nil, nil // no connection will need them
	l.state.Store(uint32(StateClosed)) // before: who has waited for donec may ask for it
	close(l.donec)                     // before: who is told of the state may ask for the error
	p.setState(StateEvent{State: StateClosed, Reason: reason, Err: err, Attempt: l.tries})
	if in := p.inbox.Load(); in != nil {
		in.end()
	}
}

// shut ends the peer for good: its connections with a close code, and attempts to
// reconnect.
func (p *Peer) shut(code uint16, reason string) {
	l := &p.life
	l.mu.Lock()
	current, old := p.conn.Load(), l.old
	p.closeWhenOver(ReasonClosed, errPeerClosed)
	l.mu.Unlock()
	for _, c := range []*conn{current, old} {
		if c != nil {
			c.session.Close(code, reason)
		}
	}
}

// startRedialling starts the goroutine that makes a new connection, the first attempt
// after some time. It reports false if the endpoint has ended. life.mu is held.
func (p *Peer) startRedialling(wait time.Duration, cause error) bool {
	ctx, cancel := context.WithCancel(p.endpoint.redialCtx)
	loop := &redialling{cancel: cancel, wakec: make(chan time.Duration, 1)}
	if !p.endpoint.beginRedial(func() {
		defer cancel()
		p.redialAgain(ctx, loop, wait, cause)
	}) {
		cancel()
		return false
	}
	p.life.loop = loop
	return true
}

// redialAgain dials until there is a connection, the attempts are used up, or ctx ends.
func (p *Peer) redialAgain(ctx context.Context, loop *redialling, wait time.Duration, err error) {
	l := &p.life
	reason := ReasonClosed
	for loop.pause(ctx, wait) {
		l.mu.Lock()
		l.tries++
		n, tries := l.dials, l.tries
		l.dials++
		l.mu.Unlock()
		if err = p.redial.Dial(ctx, n); err == nil {
			return // Adopt has done the rest
		}
		if ctx.Err() != nil {
			break
		}
		l.mu.Lock()
		p.setState(StateEvent{State: l.event.State, Reason: ReasonDialFailed, Err: err, Attempt: tries})
		c := p.conn.Load()
		drains := c != nil && !c.dead // then the peer is not given up
		l.mu.Unlock()
		if p.redial.isExhausted(tries) && !drains {
			reason = ReasonExhausted
			break
		}
		wait = p.redial.waitAfter(tries)
	}
	if reason == ReasonClosed {
		err = errPeerClosed
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loop != loop {
		return
	}
	l.loop = nil
	if c := p.conn.Load(); c != nil && !c.dead {
		return // it drains, and what is under way goes on
	}
	if l.old == nil || reason == ReasonExhausted {
		p.finish(reason, err)
	}
}

// hurry has the next attempt made within d. life.mu is held.
func (r *redialling) hurry(d time.Duration) {
	select {
	case before := <-r.wakec:
		d = min(d, before)
	default:
	}
	r.wakec <- d
}

// pause waits before an attempt, and reports whether there is to be one.
func (r *redialling) pause(ctx context.Context, d time.Duration) bool {
	end := time.Now().Add(d)
	t := time.NewTimer(d)
	defer t.Stop()
	for {
		select {
		case d := <-r.wakec:
			if sooner := time.Now().Add(d); sooner.Before(end) {
				end = sooner
				t.Reset(d)
			}
			continue
		case <-t.C:
		case <-ctx.Done():
		}
		return ctx.Err() == nil
	}
}
