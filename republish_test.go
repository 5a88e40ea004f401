package netron_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
)

// publisher is a peer of a station at which it has published a service.
type publisher struct {
	*station
	peer  *netron.Peer
	log   *stateLog
	calls atomic.Int64 // that the service has served
}

func newPublisher(t *testing.T, hub, owner netron.Config) *publisher {
	t.Helper()
	hub.MaxExposedServices = -1
	pub := &publisher{station: newStation(t, hub)}
	pub.peer, pub.log = pub.connect(owner)
	s, err := netron.NewServiceOf("published@1.0.0", &counter{&pub.calls})
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.peer.Publish(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return pub
}

// want checks that a user of the station can call the service, or cannot.
func (pub *publisher) want(why string, there bool) {
	pub.t.Helper()
	synctest.Wait()
	before := pub.calls.Load()
	stub, err := pub.server.Local().Service(pub.t.Context(), "published")
	if err == nil {
		err = stub.Call(pub.t.Context(), "add", nil, 1, 2)
	}
	if (err == nil) != there || (there && pub.calls.Load() != before+1) {
		pub.t.Errorf("%s: the published service answers %v, want it there %t", why, err, there)
	}
}

// wantPublishing checks what was told of publishing again.
func (pub *publisher) wantPublishing(why, want string) {
	pub.t.Helper()
	pub.log.mu.Lock()
	defer pub.log.mu.Unlock()
	var got []string
	for _, e := range pub.log.events {
		if e.Reason == rpc.ReasonPublished || e.Reason == rpc.ReasonPublishFailed {
			text := fmt.Sprintf("%v:%s:%s", e.State, e.Reason, e.Message)
			if e.Err != nil {
				text += ":" + netron.CodeOf(e.Err).String()
			}
			got = append(got, text)
		}
	}
	if all := strings.Join(got, " "); all != want {
		pub.t.Errorf("%s: told %q, want %q", why, all, want)
	}
}

// TestPublishAgain checks that published services follow a peer from one connection to
// the next, until they are taken back.
func TestPublishAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newPublisher(t, netron.Config{}, netron.Config{})
		pub.want("first", true)
		for range 3 {
			pub.cut()
			time.Sleep(15 * time.Second)
			pub.want("after a cut", true)
		}
		pub.down()
		pub.up()
		time.Sleep(15 * time.Second)
		pub.want("after a restart", true)
		pub.wantPublishing("all went well", "")
		if err := pub.peer.Unpublish(t.Context(), "published@1.0.0"); err != nil {
			t.Errorf("Unpublish = %v", err)
		}
		pub.cut()
		time.Sleep(15 * time.Second)
		pub.want("after it was taken back", false)
		if err := pub.peer.Unpublish(t.Context(), "published@1.0.0"); netron.CodeOf(err) != netron.NotFound {
			t.Errorf("second Unpublish = %v, want not found", err)
		}
	})
}

// TestPublishedBeforeConnected checks that nobody sees the peer connected while its
// services are missing.
func TestPublishedBeforeConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newPublisher(t, netron.Config{}, netron.Config{})
		missing := false
		pub.peer.OnState(func(e netron.StateEvent) {
			if e.State == netron.StateConnected && !slices.Contains(pub.server.Services(), "published@1.0.0") {
				missing = true
			}
		})
		for range 10 {
			pub.cut()
			time.Sleep(15 * time.Second)
		}
		synctest.Wait()
		if missing {
			t.Error("the peer was connected before its service was published")
		}
	})
}

// TestPublishAgainAtHalfOpen checks a peer that has not noticed the loss of the connection
// which holds the publication: that connection ends for the new one.
func TestPublishAgainAtHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newPublisher(t, netron.Config{PingInterval: 30 * time.Second, PingTimeout: time.Minute}, netron.Config{PingInterval: time.Second, PingTimeout: 3 * time.Second})
		first := pub.near
		first.Stall()
		time.Sleep(10 * time.Second)
		pub.want("over the new connection", true)
		pub.wantPublishing("all went well", "")
		first.Resume()
	})
}

// TestPublishAgainTaken checks that a service whose name somebody else has meanwhile is
// published when the name is free, unless it was taken back.
func TestPublishAgainTaken(t *testing.T) {
	const failed, later = "connected:publish_failed:published@1.0.0:already_exists", " connected:published:published@1.0.0"
	for _, takenBack := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			pub := newPublisher(t, netron.Config{}, netron.Config{})
			pub.down()
			pub.up()
			if err := pub.server.Expose("published@1.0.0", &counter{&atomic.Int64{}}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Second)
			if pub.peer.State() != netron.StateConnected {
				t.Fatalf("state %v", pub.peer.State())
			}
			pub.wantPublishing("the name is taken", failed)
			if takenBack {
				if err := pub.peer.Unpublish(t.Context(), "published@1.0.0"); err != nil {
					t.Errorf("Unpublish of what is not there = %v, want nil: it is not published later", err)
				}
			}
			if err := pub.server.Conceal("published@1.0.0"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute)
			pub.want("when the name was free", !takenBack)
			want := failed + later
			if takenBack {
				want = failed
			}
			pub.wantPublishing("when the name was free", want)
		})
	}
}

// TestPublishAgainAfterGoAway checks a peer that sends this side away, and takes it back
// while the old connection still holds the name.
func TestPublishAgainAfterGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newPublisher(t, netron.Config{}, netron.Config{})
		time.Sleep(10 * time.Second)
		pub.server.Peers()[0].GoAway("balance", 0)
		synctest.Wait()
		if n := pub.dialled(); n != 2 || pub.peer.State() != netron.StateConnected {
			t.Fatalf("%d dials, state %v", n, pub.peer.State())
		}
		pub.want("after the change", true)
		time.Sleep(10 * time.Second)
		pub.want("after the end of the old connection", true)
		pub.wantPublishing("all went well", "")
	})
}

// TestPublishAgainNotAllowed checks that a peer which does not allow it any more stays
// connected.
func TestPublishAgainNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newPublisher(t, netron.Config{}, netron.Config{})
		pub.down()
		pub.cfg.MaxExposedServices = 0
		pub.up()
		time.Sleep(10 * time.Minute)
		pub.want("it is not allowed", false)
		pub.wantPublishing("it is not tried again", "connected:publish_failed:published@1.0.0:permission_denied")
		if pub.peer.State() != netron.StateConnected {
			t.Errorf("state %v", pub.peer.State())
		}
		pub.down()
		pub.cfg.MaxExposedServices = -1
		pub.up()
		time.Sleep(time.Minute)
		pub.want("it is allowed again", true)
	})
}

// TestExposedAgain checks that what a dialled peer alone may call stays there.
func TestExposedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{ID: "client"})
		var calls atomic.Int64
		if err := p.Expose("back", &counter{&calls}); err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			synctest.Wait()
			back, err := netron.Query[counterClient](t.Context(), s.server.Peer("client"), "back")
			if err != nil {
				t.Fatal(err)
			}
			if sum, err := back.Add(t.Context(), 1, 2); sum != 3 || err != nil || calls.Load() != int64(i+1) {
				t.Errorf("Add = %v, %v", sum, err)
			}
			s.cut()
			time.Sleep(15 * time.Second)
		}
	})
}

// TestPublishWhileReconnecting publishes and takes back while connections come and go.
func TestPublishWhileReconnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pub := newPublisher(t, netron.Config{}, netron.Config{ReconnectDelay: time.Millisecond, MaxReconnectDelay: 5 * time.Millisecond})
		var names []string
		for i := range 200 {
			name := fmt.Sprintf("s%d", i)
			s, err := netron.NewServiceOf(name, &counter{&pub.calls})
			if err != nil {
				t.Fatal(err)
			}
			if i%5 == 0 {
				pub.cut()
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			for err = errors.New("not yet"); err != nil && ctx.Err() == nil; time.Sleep(time.Millisecond) {
				if err = pub.peer.Publish(ctx, s); netron.CodeOf(err) == netron.AlreadyExists {
					err = nil // an attempt whose answer was lost
				}
			}
			cancel()
			if i%3 != 0 {
				names = append(names, name)
			} else if err := pub.peer.Unpublish(t.Context(), name); err != nil && netron.CodeOf(err) != netron.Unavailable {
				t.Errorf("Unpublish(%s) = %v", name, err)
			}
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := append([]string{"counter@1.0.0", "published@1.0.0"}, names...)
		slices.Sort(want)
		if got := pub.server.Services(); !slices.Equal(got, want) {
			t.Errorf("published are %v\nwant %v", got, want)
		}
	})
}
