package rpc

import (
	"crypto/rand"
	"crypto/subtle"
	"io"
	"slices"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

// resumePatience is how long a peer whose id another connection claims may be silent
// before it counts as dead.
const resumePatience = 2 * time.Second

// prober is a link that ends itself if its other end stays silent.
type prober interface {
	Probe(patience time.Duration)
}

// newToken returns what a connector shows on its next connection to have this one
// ended. It says nothing about who the peer is.
func newToken() string { return rand.Text() }

// lostToken returns the token of the connection that a dialled peer has lost, and the id
// of the listener which gave it. A connection that goes on is not to be ended, so its
// token is not shown.
func (p *Peer) lostToken() (token, of string) {
	p.life.mu.Lock()
	defer p.life.mu.Unlock()
	if c := p.conn.Load(); c != nil && c.dead {
		if info := c.info.Load(); info != nil {
			return info.Token, info.ID
		}
	}
	return "", ""
}

// claim notes that an accepted connection claims an id. The connection whose token it
// shows hands the id over and is to be ended. Without a token the one that has the id
// keeps it while it lives, which is to be found out. e.mu is held.
//
// Protocol section 12.6.
func (e *Endpoint) claim(p *Peer, info mux.Peer) (superseded, doubted *conn) {
	claims := e.byID[info.ID]
	if info.Token != "" && !p.connector {
		for i, other := range claims {
			if c := other.conn.Load(); c.token != "" && subtle.ConstantTimeCompare([]byte(c.token), []byte(info.Token)) == 1 {
				claims[i] = p
				return c, nil
			}
		}
	}
	e.byID[info.ID] = append(claims, p)
	if len(claims) == 0 || p.connector {
		return nil, nil
	}
	return nil, claims[0].conn.Load()
}

// disclaim takes a claim back. If the id goes to another connection while more wait for
// it, that one is to be looked at as well. e.mu is held.
func (e *Endpoint) disclaim(p *Peer, id string) (doubted *conn) {
	claims := e.byID[id]
	i := slices.Index(claims, p)
	if i < 0 {
		return nil
	}
	claims = slices.Delete(claims, i, i+1)
	if len(claims) == 0 {
		delete(e.byID, id)
		return nil
	}
	e.byID[id] = claims
	if i > 0 || len(claims) == 1 {
		return nil
	}
	return claims[0].conn.Load()
}

// supersede ends a connection whose peer has a new one. What the peer has published
// over the old one is taken back first: it will be published anew over the other. It
// does not block.
func (e *Endpoint) supersede(c *conn) {
	c.giveBack()
	if link, ok := c.link.(io.Closer); ok {
		e.begin(func() { _ = link.Close() }) // always nil
	}
}

// doubt ends a connection if its peer is not there any more. It does not block.
func (e *Endpoint) doubt(c *conn) {
	if link, ok := c.link.(prober); ok {
		link.Probe(resumePatience)
	}
}
