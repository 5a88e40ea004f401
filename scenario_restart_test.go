package netron_test

import (
	"context"
	"fmt"
	"time"

	"github.com/d-e-v-grid/netron"
)

var restartScenarios = []scenario{
	{"a restart", setup{}, refusedAWhile, func(w *world) {
		w.down()
		w.pass(time.Minute)
		w.up()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"a restart in no time", setup{}, "-", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second})
		w.down()
		w.up()
		w.good(c, 2)
	}},
	{"a restart without the service, which comes back", setup{}, "-", func(w *world) {
		w.down()
		w.offers = nil
		w.up()
		w.until(netron.StateConnected)
		w.bad(w.begin(call{}), netron.NotFound, unsent, 0)
		w.good(w.begin(call{form: byTask}), 1) // the rest of the peer is there
		w.exposeNow("desk@1.0.0")
		w.pass(2 * time.Second)
		w.bad(w.begin(call{}), netron.NotFound, unsent, 0) // has it asked for
		w.works()
	}},
	{"loss while the service is gone", setup{}, "-", func(w *world) {
		w.down()
		w.offers = nil
		w.up()
		w.until(netron.StateConnected)
		w.bad(w.begin(call{}), netron.NotFound, unsent, 0)
		w.down()
		w.atOnce(w.begin(call{})) // the next server may have it
		c := w.begin(call{policy: retryUnsent})
		w.waits(c)
		w.offers = []string{"desk@1.0.0"}
		w.up()
		w.peer.Reconnect()
		w.good(c, 1)
	}},
	{"a service that is gone is not asked for all the time", setup{}, "-", func(w *world) {
		w.down()
		w.offers = nil
		w.up()
		w.until(netron.StateConnected)
		before := w.peer.Stats().Replies
		for range 1000 {
			w.bad(w.begin(call{policy: idempotent}), netron.NotFound, unsent, 0)
			w.pass(10 * time.Millisecond)
		}
		if n := w.peer.Stats().Replies - before; n < 5 || n > 11 {
			w.t.Errorf("asked %d times within ten seconds, want once a second", n)
		}
	}},
	{"a restart without the service, and another with it", setup{}, "-", func(w *world) {
		for _, w.offers = range [][]string{nil, {"desk@1.0.0"}} {
			w.down()
			w.up()
			w.until(netron.StateConnected)
		}
		w.works()
	}},
	{"a restart with more services and another version", setup{}, "-", func(w *world) {
		exact, err := w.peer.Service(context.Background(), "desk@1.0.0")
		if err != nil {
			w.t.Fatalf("Service = %v", err)
		}
		w.down()
		w.offers = []string{"desk@2.0.0", "another@1.0.0"}
		w.up()
		w.until(netron.StateConnected)
		w.works() // who did not ask for a version takes what there is
		if err := exact.Call(context.Background(), "do", nil, 0, 0, nil); netron.CodeOf(err) != netron.NotFound {
			w.t.Errorf("the old version: %v, want not found", err)
		}
		if _, err := w.peer.Service(context.Background(), "another"); err != nil {
			w.t.Errorf("Service = %v", err)
		}
	}},
	{"loss, and meanwhile the service is concealed", setup{}, lostAndBack, func(w *world) {
		w.cut()
		if err := w.server.Conceal("desk@1.0.0"); err != nil {
			w.t.Fatalf("Conceal = %v", err)
		}
		w.until(netron.StateConnected)
		w.bad(w.begin(call{}), netron.NotFound, unsent, 0)
		w.exposeNow("desk@1.0.0")
		w.pass(2 * time.Second)
		w.begin(call{})
		w.works()
	}},
	{"a service is concealed while a call runs", setup{}, "", func(w *world) {
		c := w.begin(call{takes: time.Second})
		if err := w.server.Conceal("desk@1.0.0"); err != nil {
			w.t.Fatalf("Conceal = %v", err)
		}
		w.bad(w.begin(call{}), netron.NotFound, wasSent, 0)
		w.good(c, 1)
	}},
	{"a service that is concealed and exposed anew", setup{}, "", func(w *world) {
		if err := w.server.Conceal("desk@1.0.0"); err != nil {
			w.t.Fatalf("Conceal = %v", err)
		}
		w.exposeNow("desk@1.0.0")
		w.bad(w.begin(call{}), netron.NotFound, wasSent, 0) // it is another one for whom the stub is
		w.good(w.begin(call{form: bySearch}), 0)
		w.works() // and until somebody asks for it
	}},
	{"two hundred stubs", setup{}, lostAndBack, func(w *world) {
		var stubs []*netron.Stub
		for i := range 200 {
			w.exposeNow(fmt.Sprintf("desk%d@1.0.0", i))
			s, err := w.peer.Service(context.Background(), fmt.Sprintf("desk%d", i))
			if err != nil {
				w.t.Fatalf("Service = %v", err)
			}
			stubs = append(stubs, s)
		}
		w.link.Delay(latency)
		w.cut()
		w.until(netron.StateConnected)
		for _, w.desk = range stubs {
			w.begin(call{})
		}
		for _, c := range w.calls {
			w.good(c, 1)
		}
	}},
	{"a stub that is made while stubs are being restored", setup{}, lostAndBack, func(w *world) {
		w.link.Delay(latency)
		w.cut()
		c := w.begin(call{form: bySearch, policy: retryUnsent})
		w.dials()
		w.pass(latency * 7 / 2)
		more := w.begin(call{form: bySearch, policy: retryUnsent})
		w.good(c, 0)
		w.good(more, 0)
		w.works()
	}},
	{"a stub is made on a connection that is being left", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		w.link.Delay(latency)
		c := w.begin(call{form: bySearch}) // the answer comes over the old connection
		w.sendAway(0)
		w.good(c, 0)
		w.servedBy("other")
	}},
}

// exposeNow has the running server expose a service.
func (w *world) exposeNow(name string) {
	w.t.Helper()
	if err := w.server.Expose(name, newDesk(&w.book, w.server.ID())); err != nil {
		w.t.Fatalf("Expose = %v", err)
	}
}

var patient = setup{client: netron.Config{OfflineCalls: 3}}

var offlineScenarios = []scenario{
	{"calls that wait for the connection", patient, lostAndBack, func(w *world) {
		w.cut()
		all := []*record{w.begin(call{}), w.begin(call{form: byTask}), w.begin(call{form: bySet})}
		for _, c := range all {
			w.waits(c)
		}
		w.atOnce(w.begin(call{})) // there is no room
		for _, c := range all {
			w.good(c, 1)
		}
		w.works()
	}},
	{"calls that wait, and others that waited before", patient, "-", func(w *world) {
		for range 5 {
			w.cut()
			all := []*record{w.begin(call{}), w.begin(call{}), w.begin(call{})}
			for _, c := range all {
				w.good(c, 1)
			}
		}
	}},
	{"calls that wait for too long", patient, "reconnecting:lost reconnecting:dial_failed", func(w *world) {
		w.link.Refuse()
		w.cut()
		short, usual := w.begin(call{within: time.Second}), w.begin(call{})
		w.bad(short, netron.DeadlineExceeded, unsent, 0)
		w.took(short, time.Second)
		w.bad(usual, netron.DeadlineExceeded, unsent, 0)
		w.took(usual, 5*time.Second)
	}},
	{"a call that waits is given up and leaves its place", patient, "-", func(w *world) {
		w.link.Refuse()
		w.cut()
		all := []*record{w.begin(call{}), w.begin(call{}), w.begin(call{})}
		all[1].cancel()
		w.bad(all[1], netron.Canceled, unsent, 0)
		w.waits(w.begin(call{}))
		w.link.Allow()
		w.peer.Reconnect()
		w.good(all[0], 1)
		w.good(all[2], 1)
	}},
	{"a call that waits is lost when it is sent", patient, "-", func(w *world) {
		w.cut()
		c := w.begin(call{takes: time.Second})
		w.until(netron.StateConnected)
		w.pass(100 * time.Millisecond)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
	}},
	{"a call that waits when the peer is closed", patient, "reconnecting:lost closed:closed", func(w *world) {
		w.link.Refuse()
		w.cut()
		c := w.begin(call{})
		w.peer.Close()
		w.bad(c, netron.Unavailable, unsent, 0)
	}},
	{"a call that waits, for a service that has gone", patient, "-", func(w *world) {
		w.down()
		c := w.begin(call{})
		w.offers = nil
		w.up()
		w.bad(c, netron.NotFound, unsent, 0)
	}},
	{"calls that are repeated need no place", setup{client: netron.Config{OfflineCalls: 1}}, lostAndBack, func(w *world) {
		w.cut()
		var all []*record
		for _, p := range []policy{idempotent, retryUnsent, idempotent, retryUnsent, plain} {
			all = append(all, w.begin(call{policy: p}))
		}
		for _, c := range all {
			w.good(c, 1)
		}
	}},
}
