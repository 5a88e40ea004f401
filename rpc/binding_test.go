package rpc

import (
	"testing"

	"github.com/d-e-v-grid/netron/codec"
)

// TestClosedPeerRemembersNothing checks that what is still under way when a peer is given
// up leaves nothing for a next connection.
func TestClosedPeerRemembersNothing(t *testing.T) {
	e := newEndpoint(t, Config{})
	p := e.NewDialled(Redial{})
	c := newConn(e, p)
	p.conn.Store(c)
	l := &p.life
	l.mu.Lock()
	p.finish(ReasonClosed, nil)
	l.mu.Unlock()
	if b := p.keep(c, &codec.Definition{}, "late"); b == nil || b.view.Load() == nil {
		t.Error("a stub of a closed peer has no service to fail with")
	}
	if !p.keepPublished(c, NewService("late", "1.0.0")) {
		t.Error("publishing goes on for a closed peer")
	}
	if len(l.bindings) != 0 || len(l.published) != 0 {
		t.Errorf("the peer remembers %d services that it uses and %d that it published", len(l.bindings), len(l.published))
	}
}
