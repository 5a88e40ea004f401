package netron_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

// withAuth is a server that knows one token.
func withAuth(known *string) netron.Config {
	return netron.Config{Auth: &auth.Config{
		Required: true,
		Authenticator: auth.Bearer(func(_ context.Context, token string) (*auth.Identity, error) {
			if token != *known {
				return nil, errors.New("no such token")
			}
			return &auth.Identity{UserID: "ann"}, nil
		}),
	}}
}

// What the servers of the first two scenarios accept; the second changes its own.
var goodToken, revokedToken = "good", "good"

var identityScenarios = []scenario{
	{"a token is shown again", setup{server: withAuth(&goodToken), dial: []netron.DialOption{netron.DialToken("good")}}, lostAndBack, func(w *world) {
		w.works()
		w.cut()
		w.until(netron.StateConnected)
		w.works()
		if u, ok := w.accepted().User().(*auth.Identity); !ok || u.UserID != "ann" {
			w.t.Errorf("the client is %v, want ann", w.accepted().User())
		}
	}},
	{"a token that is not good any more", setup{
		server: withAuth(&revokedToken), client: netron.Config{MaxReconnectAttempts: 2},
		dial: []netron.DialOption{netron.DialToken("good")},
	}, "reconnecting:lost reconnecting:dial_failed closed:attempts_exhausted", func(w *world) {
		revokedToken = "another"
		defer func() { revokedToken = "good" }()
		w.cut()
		<-w.peer.Done()
		if !strings.Contains(w.peer.Err().Error(), "1008") {
			w.t.Errorf("Err = %v, want close code 1008", w.peer.Err())
		}
	}},
	{"who dialled each other come back on both sides", setup{}, lostAndBack, func(w *world) {
		back, err := w.server.Dial(context.Background(), clientAddr)
		if err != nil {
			w.t.Fatalf("Dial = %v", err)
		}
		w.peers(2, 2)
		w.cut()
		w.peers(0, 0)
		w.pass(time.Second)
		w.peers(2, 2)
		w.works()
		w.good(w.begin(call{form: byServer}), 1)
		if err := back.RunTask(context.Background(), "do", nil, 0, 0, nil); err != nil {
			w.t.Errorf("do = %v", err)
		}
		back.Close()
	}},
	{"peers that are closed leave nothing", setup{}, "closed:closed", func(w *world) {
		all := []*netron.Peer{w.peer}
		for range 9 {
			p, err := w.client.Dial(context.Background(), serverAddr)
			if err != nil {
				w.t.Fatalf("Dial = %v", err)
			}
			all = append(all, p)
		}
		w.peers(10, 10)
		for _, p := range all {
			p.Close()
		}
		w.settle()
		if n := heldBy(w.client.Node)[".dialled"]; n != 0 {
			w.t.Errorf("the client holds %d connections that have ended", n)
		}
	}},
	{"two peers of a client at one server", setup{}, lostAndBack, func(w *world) {
		second, err := w.client.Dial(context.Background(), serverAddr)
		if err != nil {
			w.t.Fatalf("Dial = %v", err)
		}
		w.cut()
		w.until(netron.StateConnected)
		w.pass(time.Second)
		w.peers(2, 2)
		second.Close()
		w.peers(1, 1)
		w.works()
	}},
	{"what a callback for states is told", setup{}, "-", func(w *world) {
		var told, late stateLog
		remove := w.peer.OnState(told.add)
		w.cut()
		w.until(netron.StateConnected)
		remove()
		w.pass(time.Minute) // the connection lasts
		w.peer.OnState(late.add)
		w.link.Refuse()
		w.accepted().CloseWith(4000, "enough")
		w.pass(time.Minute)
		w.peer.Close()
		w.settle()
		if got := told.String(); got != lostAndBack {
			w.t.Errorf("one who left has seen %s", got)
		}
		if got := late.String(); got != "reconnecting:closed_by_peer reconnecting:dial_failed closed:closed" {
			w.t.Errorf("one who came late has seen %s", got)
		}
		for i, e := range late.events[1 : len(late.events)-1] {
			if e.Attempt != i+1 || !errors.Is(e.Err, syscall.ECONNREFUSED) {
				w.t.Errorf("event %d is of attempt %d, with %v", i, e.Attempt, e.Err)
			}
		}
	}},
	{"a callback for states that panics", setup{client: netron.Config{Logger: quiet}}, lostAndBack, func(w *world) {
		w.peer.OnState(func(netron.StateEvent) { panic("on purpose") })
		w.cut()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"all reasons", setup{client: netron.Config{MaxReconnectAttempts: 1}}, "reconnecting:closed_by_peer connected:ready draining:going_away connected:ready " + lostAndBack + " reconnecting:lost reconnecting:dial_failed closed:attempts_exhausted", func(w *world) {
		w.accepted().CloseWith(4000, "enough")
		w.settle()
		w.until(netron.StateConnected)
		w.pass(time.Minute)
		w.sendAway(time.Second)
		w.until(netron.StateConnected)
		w.pass(time.Minute)
		w.cut()
		w.until(netron.StateConnected)
		w.pass(time.Minute)
		w.link.Refuse()
		w.cut()
		<-w.peer.Done()
		if w.peer.State() != netron.StateClosed || rpc.ReasonExhausted != "attempts_exhausted" {
			w.t.Errorf("the peer is %v", w.peer.State())
		}
	}},
}
