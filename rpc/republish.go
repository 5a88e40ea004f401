package rpc

import (
	"context"
	"sync"
	"time"
)

// Services that this side has published at a peer which reconnects are published again on
// each connection, before it takes over.

// publication is one of them.
type publication struct {
	service *Service
}

const (
	// publishPause is the time before a service is published once more that could not be.
	// It doubles each time.
	publishPause    = time.Second
	maxPublishPause = 30 * time.Second
)

// keepPublished notes that a service was published on c. It reports false if c has been
// replaced meanwhile: then nobody has published it on the present connection.
func (p *Peer) keepPublished(c *conn, s *Service) bool {
	if p.redial == nil {
		return true
	}
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case p.conn.Load() != c:
		return false
	case l.event.State == StateClosed:
		return true
	}
	if l.published == nil {
		l.published = make(map[string]*publication)
	}
	l.published[s.QualifiedName()] = &publication{service: s}
	return true
}

// dropPublished notes that a service is not to be published again, and reports whether it
// was.
func (p *Peer) dropPublished(qualified string) bool {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	_, found := l.published[qualified]
	delete(l.published, qualified)
	return found
}

// isPublished reports whether a publication has not been taken back.
func (p *Peer) isPublished(pub *publication) bool {
	l := &p.life
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.published[pub.service.QualifiedName()] == pub
}

// publishAll publishes on a connection that is to take over what is not in outcomes yet.
func (c *conn) publishAll(ctx context.Context, outcomes map[*publication]error) {
	l := &c.peer.life
	var missing []*publication
	l.mu.Lock()
	for _, pub := range l.published {
		if _, done := outcomes[pub]; !done {
			missing = append(missing, pub)
		}
	}
	l.mu.Unlock()
	var mu sync.Mutex
	forEach(missing, func(pub *publication) {
		err := c.publishInPlace(ctx, pub.service)
		mu.Lock()
		defer mu.Unlock()
		outcomes[pub] = err
	})
}

// publishInPlace publishes a service. If the connection that c replaces still has the
// name, at the same peer, it is taken back there.
func (c *conn) publishInPlace(ctx context.Context, s *Service) error {
	err := c.publish(ctx, s)
	if CodeOf(err) != AlreadyExists {
		return err
	}
	if old := c.peer.conn.Load(); old != c && old.unpublish(ctx, s.QualifiedName()) == nil {
		return c.publish(ctx, s)
	}
	return err
}

// publishedAll reports whether it was tried to publish everything. life.mu is held.
func (l *life) publishedAll(outcomes map[*publication]error) bool {
	for _, pub := range l.published {
		if _, done := outcomes[pub]; !done {
			return false
		}
	}
	return true
}

// followUp sees to what has failed, and takes back what was taken back meanwhile. life.mu
// is held, and c has taken over.
func (c *conn) followUp(outcomes map[*publication]error) {
	p := c.peer
	for pub, err := range outcomes {
		name := pub.service.QualifiedName()
		switch {
		case p.life.published[name] != pub:
			if err == nil {
				p.endpoint.begin(func() { _ = c.unpublish(c.session.Context(), name) })
			}
		case err != nil:
			p.tellPublishing(c, ReasonPublishFailed, name, err)
			if mayPublishLater(err) {
				p.endpoint.begin(func() { c.publishLater(pub) })
			}
		}
	}
}

// mayPublishLater reports whether publishing may succeed on the same connection after it
// has failed with err: the peer may not have noticed yet that the connection has ended
// which holds the name.
func mayPublishLater(err error) bool {
	switch CodeOf(err) {
	case PermissionDenied, InvalidArgument, NotFound, Unimplemented:
		return false
	}
	return true
}

// publishLater publishes a service for which there was no room. It has a goroutine of its
// own, which ends with the connection or the endpoint.
func (c *conn) publishLater(pub *publication) {
	p, name := c.peer, pub.service.QualifiedName()
	wait := publishPause
	pause := time.NewTimer(wait)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-c.session.Done():
			return
		case <-c.endpoint.redialCtx.Done():
			return
		}
		if !p.isPublished(pub) {
			return
		}
		err := c.publish(c.session.Context(), pub.service)
		if err == nil {
			if !p.isPublished(pub) {
				_ = c.unpublish(c.session.Context(), name)
				return
			}
			p.life.mu.Lock()
			p.tellPublishing(c, ReasonPublished, name, nil)
			p.life.mu.Unlock()
			return
		}
		if !mayPublishLater(err) {
			p.life.mu.Lock()
			p.tellPublishing(c, ReasonPublishFailed, name, err)
			p.life.mu.Unlock()
			return
		}
		wait = min(2*wait, maxPublishPause)
		pause.Reset(wait)
	}
}

// tellPublishing tells whoever wants to know how publishing a service again has ended.
// life.mu is held.
func (p *Peer) tellPublishing(c *conn, reason Reason, name string, err error) {
	l := &p.life
	if p.conn.Load() != c || c.dead || l.closing {
		return // it is done again on the next connection
	}
	if err != nil {
		p.endpoint.cfg.logger().Warn("netron: a service was not published again", "service", name, "peer", c.info.Load().ID, "err", err)
	}
	p.setState(StateEvent{State: l.event.State, Reason: reason, Err: err, Message: name})
}
