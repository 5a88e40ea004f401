package netron_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/engine"
)

// TestResume checks that a peer which comes back has its id at once, and that its old
// connection ends, which the listener still takes for good.
func TestResume(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{PingInterval: -1, PingTimeout: -1})
		p, _ := s.connect(netron.Config{ID: "client", PingInterval: time.Second, PingTimeout: 3 * time.Second})
		synctest.Wait()
		old := s.server.Peer("client")
		link := s.near
		link.Stall()
		for e := range p.States(t.Context()) {
			if e.State == netron.StateReconnecting {
				break
			}
		}
		for e := range p.States(t.Context()) {
			if e.State == netron.StateConnected {
				break
			}
		}
		synctest.Wait()
		if got := s.server.Peer("client"); got == nil || got == old {
			t.Errorf("the id leads to %v, want the new connection", got)
		}
		select {
		case <-old.Done():
		default:
			t.Error("the old connection lives on")
		}
		if got := len(s.server.Peers()); got != 1 {
			t.Errorf("%d peers, want 1", got)
		}
		link.Resume()
	})
}

// TestIDOfTheDead checks that a connection without a token gets the id of one that does
// not answer, after two seconds, and of one that does only when that ends.
func TestIDOfTheDead(t *testing.T) {
	for _, dead := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			s := newStation(t, netron.Config{PingInterval: -1, PingTimeout: -1})
			never := netron.Config{ID: "client", PingInterval: -1, PingTimeout: -1}
			first, _ := s.connect(never)
			synctest.Wait()
			old, link := s.server.Peer("client"), s.near
			if dead {
				link.Stall()
			}
			second, _ := s.connect(never)
			if _, err := second.Service(t.Context(), "counter"); err != nil {
				t.Fatalf("the second connection is not served: %v", err)
			}
			time.Sleep(2*time.Second - 1)
			synctest.Wait()
			if got := s.server.Peer("client"); got != old {
				t.Error("the id was given away too early")
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if got := s.server.Peer("client"); (got != old) != dead {
				t.Errorf("old connection dead %v: id was given away %v", dead, got != old)
			}
			if dead && !errors.Is(old.Err(), engine.ErrPeerDead) {
				t.Errorf("the old connection ended with %v", old.Err())
			}
			link.Resume()
			_ = first.Close()
			synctest.Wait()
			if got := s.server.Peer("client"); got == nil || got == old {
				t.Errorf("at the end the id leads to %v", got)
			}
		})
	}
}
