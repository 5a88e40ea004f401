package rpc

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

// meet connects a dialled peer to an endpoint, as far as [Peer.Adopt].
func meet(p *Peer, far *Endpoint) *conn {
	near, other := newConn(p.endpoint, p), newConn(far, far.NewPeer(false))
	a, b := mux.Pipe(near.config(mux.Hint{}), other.config(mux.Hint{}))
	near.attach(a)
	other.attach(b)
	return near
}

// TestLeavingPeerIsNotAdopted checks that a dialled peer does not stay with an endpoint
// that has sent it away before it came to anything.
func TestLeavingPeerIsNotAdopted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		leaving, good, dialler := newEndpoint(t, Config{ID: "leaving"}), newEndpoint(t, Config{ID: "good"}), newEndpoint(t, Config{ID: "dialler"})
		if err := leaving.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		var p *Peer
		var failures []error
		p = dialler.NewDialled(Redial{Addresses: 2, Dial: func(ctx context.Context, attempt int) error {
			c := meet(p, []*Endpoint{leaving, good}[attempt%2])
			synctest.Wait() // all that the other side has to say has come
			err := p.Adopt(ctx)
			if err != nil {
				c.session.Close(closeNormal, "")
				failures = append(failures, err)
			}
			return err
		}})
		if err := p.Connect(t.Context(), 2); err != nil {
			t.Fatal(err)
		}
		if p.ID() != "good" || len(failures) != 1 || CodeOf(failures[0]) != Unavailable {
			t.Errorf("connected to %q after %v, want good after one that goes away", p.ID(), failures)
		}
		start := time.Now()
		p.link().Close(closeNormal, "")
		for p.ID() != "good" || p.State() != StateConnected {
			if time.Sleep(time.Millisecond); time.Since(start) > time.Second {
				t.Fatalf("connected to %q, state %v", p.ID(), p.State())
			}
		}
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestNewcomersOfADrain checks that a peer which comes during the drain is served, and
// told to go.
func TestNewcomersOfADrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, other := newEndpoint(t, Config{DrainWindow: 10 * time.Second}), newEndpoint(t, Config{ID: "other"})
		first, second := other.NewPeer(true), other.NewPeer(true)
		meet(first, e)
		synctest.Wait()
		drained := make(chan error, 1)
		go func() { drained <- e.Drain(t.Context()) }()
		synctest.Wait()
		meet(second, e)
		synctest.Wait()
		for _, p := range []*Peer{first, second, e.Local()} {
			if err := p.RunTask(t.Context(), "query_interface", nil, "x"); CodeOf(err) != NotFound {
				t.Errorf("a task within the window = %v, want it to be served", err)
			}
		}
		if event := first.stateEvent(); event.State != StateDraining || event.Message != goAwayShutdown {
			t.Errorf("state %+v, want it to drain", event)
		}
		if !second.conn.Load().leaving {
			t.Error("who came late was not told to go")
		}
		if err := <-drained; err != nil {
			t.Errorf("Drain = %v", err)
		}
		for _, p := range []*Peer{first, second, e.Local()} {
			if err := p.RunTask(t.Context(), "query_interface", nil, "x"); !wasRefused(err) {
				t.Errorf("a task after the window = %v, want it to be refused", err)
			}
		}
		for _, p := range []*Peer{first, second} {
			_ = p.Close()
		}
	})
}
