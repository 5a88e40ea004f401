package netron_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/mux"
)

var attemptScenarios = []scenario{
	{"attempts that are used up", setup{client: netron.Config{MaxReconnectAttempts: 3}}, "reconnecting:lost reconnecting:dial_failed closed:attempts_exhausted", func(w *world) {
		w.link.Refuse()
		w.cut()
		<-w.peer.Done()
		if n := w.link.Dials(); n != 4 || !errors.Is(w.peer.Err(), syscall.ECONNREFUSED) {
			w.t.Errorf("%d dials, Err %v, want one and three, and why the last failed", n, w.peer.Err())
		}
		for _, p := range []policy{plain, idempotent, retryUnsent} {
			w.atOnce(w.begin(call{policy: p}))
		}
	}},
	{"attempts that are used up while calls wait", setup{client: netron.Config{MaxReconnectAttempts: 2, OfflineCalls: 1}}, "-", func(w *world) {
		lost := w.begin(call{policy: idempotent, takes: time.Second, within: time.Hour})
		w.link.Refuse()
		w.cut()
		waiting, offline := w.begin(call{policy: retryUnsent, within: time.Hour}), w.begin(call{within: time.Hour})
		w.waits(offline)
		<-w.peer.Done()
		w.bad(lost, netron.Unavailable, wasSent, 1)
		w.bad(waiting, netron.Unavailable, unsent, 0)
		w.bad(offline, netron.Unavailable, unsent, 0)
	}},
	{"the last attempt succeeds", setup{client: netron.Config{MaxReconnectAttempts: 3}}, refusedAWhile, func(w *world) {
		w.peer.OnState(func(e netron.StateEvent) {
			if e.Attempt == 2 {
				w.link.Allow()
			}
		})
		w.link.Refuse()
		w.cut()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"attempts before a connection that lasted do not count", setup{client: netron.Config{MaxReconnectAttempts: 2}}, "-", func(w *world) {
		for range 5 {
			w.pass(10 * time.Second)
			w.cut()
			w.until(netron.StateConnected)
		}
		w.pass(10 * time.Second)
		before := w.link.Dials()
		w.link.Refuse()
		w.cut()
		<-w.peer.Done()
		if n := w.link.Dials() - before; n != 2 {
			w.t.Errorf("given up after %d failures, want two", n)
		}
	}},
	{"no attempts at all", setup{dial: []netron.DialOption{netron.DialReconnect(0, -1)}}, "closed:lost", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second})
		w.cut()
		<-w.peer.Done()
		w.bad(c, netron.Unavailable, wasSent, 1)
		if n := w.link.Dials(); n != 1 {
			w.t.Errorf("%d dials, want one", n)
		}
	}},
	{"no attempts, and the server closes", setup{dial: []netron.DialOption{netron.DialReconnect(0, -1)}}, "closed:closed_by_peer", func(w *world) {
		w.accepted().CloseWith(4000, "enough")
		<-w.peer.Done()
	}},
	{"no attempts, and the server shuts down", setup{dial: []netron.DialOption{netron.DialReconnect(0, -1)}}, "draining:going_away closed:going_away", func(w *world) {
		c := w.begin(call{takes: time.Second})
		ended := w.leave(w.server, time.Minute)
		w.good(c, 1)
		if err := <-ended; err != nil {
			w.t.Errorf("Shutdown = %v", err)
		}
		<-w.peer.Done()
	}},
	{"Reconnect wakes a peer that waits", setup{}, "reconnecting:lost reconnecting:dial_failed connected:ready", func(w *world) {
		w.link.Refuse()
		w.cut()
		w.pass(10 * time.Minute)
		w.link.Allow()
		w.peer.Reconnect()
		start := time.Now()
		w.until(netron.StateConnected)
		if d := time.Since(start); d != 0 {
			w.t.Errorf("connected after %v, want at once", d)
		}
	}},
	{"Reconnect of a peer that is connected", setup{}, "", func(w *world) {
		w.peer.Reconnect()
		w.works()
		if n := w.link.Dials(); n != 1 {
			w.t.Errorf("%d dials, want one", n)
		}
	}},
	{"Reconnect of a peer that is closed", setup{}, "closed:closed", func(w *world) {
		w.peer.Close()
		w.peer.Reconnect()
		w.pass(time.Minute)
	}},
	{"the server closes and the client comes back", setup{}, "reconnecting:closed_by_peer connected:ready", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second})
		w.accepted().CloseWith(4000, "enough")
		w.good(c, 2)
		w.works()
	}},
}

// The ways in which a client gives its peer up, and the moments at which it does.
var (
	clientEndings = []struct {
		name string
		end  func(w *world)
	}{
		{"Close of the peer", func(w *world) { w.peer.Close() }},
		{"CloseWith of the peer", func(w *world) { w.peer.CloseWith(4000, "enough") }},
		{"Close of the node", func(w *world) { w.close(w.client) }},
		{"Shutdown of the node", func(w *world) {
			if err := <-w.leave(w.client, time.Minute); err != nil {
				w.t.Errorf("Shutdown = %v", err)
			}
		}},
	}
	moments = []struct {
		name  string
		setup setup
		reach func(w *world)
	}{
		{"while calls are under way", setup{}, func(*world) {}},
		{"while it waits to be dialled", setup{}, func(w *world) {
			w.link.Refuse()
			w.cut()
			w.pass(time.Minute)
		}},
		{"while it is being dialled", setup{}, func(w *world) {
			w.link.Stall()
			w.cut()
			w.dials()
		}},
		{"while its stubs are being restored", setup{}, func(w *world) {
			w.link.Delay(latency)
			w.cut()
			w.dials()
			w.pass(latency * 7 / 2)
		}},
		{"while it waits to leave a server", setup{}, func(w *world) {
			w.sendAway(time.Hour)
			w.is(netron.StateDraining)
		}},
		{"while it has two connections", setup{also: true}, func(w *world) {
			w.sendAway(0)
			w.is(netron.StateConnected)
			if n := w.net.Conns(); n != 2 {
				w.t.Errorf("%d connections, want two", n)
			}
		}},
	}
)

var closeScenarios = slices.Concat(endingsAtMoments(), []scenario{
	{"Close twice, at the same time", setup{}, "closed:closed", func(w *world) {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { w.peer.Close() })
		}
		wg.Wait()
		w.peer.Close()
		w.atOnce(w.begin(call{policy: idempotent}))
	}},
	{"Close at the moment of a loss", setup{}, "-", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second})
		w.link.Cut()
		w.peer.Close()
		w.bad(c, netron.Unavailable, wasSent, 1)
	}},
	{"Close of the node while it dials for the first time", setup{apart: true}, "", func(w *world) {
		w.link.Stall()
		failed := make(chan error)
		go func() { failed <- w.dial() }()
		w.settle()
		w.close(w.client)
		if err := <-failed; !errors.Is(err, netron.ErrClosed) {
			w.t.Errorf("Dial = %v, want ErrClosed", err)
		}
	}},
	{"Close of the server, with calls in both directions", setup{}, "reconnecting:lost", func(w *world) {
		to, from := w.begin(call{takes: time.Second}), w.begin(call{form: byServer, takes: time.Second})
		w.close(w.server)
		w.bad(to, netron.Unavailable, wasSent, 1)
		w.bad(from, netron.Unavailable, wasSent, 1)
	}},
	{"Shutdown of the client while it serves", setup{}, "closed:closed", func(w *world) {
		c := w.begin(call{form: byServer, takes: time.Second})
		ended := w.leave(w.client, time.Minute)
		w.waits(c)
		w.good(c, 1)
		if err := <-ended; err != nil {
			w.t.Errorf("Shutdown = %v", err)
		}
	}},
	{"Close of a handler's own peer", setup{}, "reconnecting:closed_by_peer", func(w *world) {
		if err := w.server.AddTask("bye", func(ctx context.Context) { netron.PeerFrom(ctx).CloseWith(4000, "bye") }); err != nil {
			w.t.Fatalf("AddTask = %v", err)
		}
		if err := w.peer.RunTask(context.Background(), "bye", nil); netron.CodeOf(err) != netron.Unavailable {
			w.t.Errorf("bye = %v, want unavailable", err)
		}
		w.settle()
	}},
})

// endingsAtMoments has each ending at each moment. What waits ends at once, and the
// reason is that this side has closed the peer.
func endingsAtMoments() []scenario {
	var all []scenario
	for _, moment := range moments {
		for _, ending := range clientEndings {
			all = append(all, scenario{ending.name + " " + moment.name, moment.setup, "-", func(w *world) {
				running := w.begin(call{policy: idempotent, takes: time.Hour, within: 10 * time.Hour})
				moment.reach(w)
				waiting := w.begin(call{policy: retryUnsent, takes: time.Hour, within: 10 * time.Hour})
				ending.end(w)
				start := time.Now()
				<-w.peer.Done()
				<-running.donec
				<-waiting.donec
				if d := time.Since(start); d > 10*time.Second {
					w.t.Errorf("closed after %v", d)
				}
				if !errors.Is(w.peer.Err(), mux.ErrClosed) && netron.CodeOf(running.err) != netron.Unavailable {
					w.t.Errorf("Err = %v, a call %v", w.peer.Err(), running.err)
				}
				w.settle()
				if log := w.states.String(); !strings.HasSuffix(log, "closed:closed") {
					w.t.Errorf("states %s, want closed:closed at the end", log)
				}
				dials := w.net.Dials()
				w.pass(10 * time.Minute)
				if n := w.net.Dials() - dials; n != 0 {
					w.t.Errorf("%d dials after the end", n)
				}
			}})
		}
	}
	return all
}
