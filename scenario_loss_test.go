package netron_test

import (
	"time"

	"github.com/d-e-v-grid/netron"
)

var lossScenarios = []scenario{
	{"loss of an idle connection", setup{}, lostAndBack, func(w *world) {
		w.cut()
		w.peers(0, 0)
		w.until(netron.StateConnected)
		w.works()
		w.peers(1, 1)
	}},
	{"loss while a handler runs", setup{}, "reconnecting:lost", func(w *world) {
		c := w.begin(call{takes: time.Second})
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
		w.took(c, 0)
	}},
	{"loss of a request on its way", setup{}, "reconnecting:lost", func(w *world) {
		w.link.Delay(latency)
		c := w.begin(call{})
		w.pass(latency / 2)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 0)
	}},
	{"loss of an answer on its way", setup{}, "reconnecting:lost", func(w *world) {
		w.link.Delay(latency)
		c := w.begin(call{})
		w.pass(latency * 3 / 2)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
	}},
	{"a call that begins with the loss", setup{}, lostAndBack, func(w *world) {
		w.link.Cut()
		c := w.begin(call{})
		<-c.donec
		w.until(netron.StateConnected)
	}},
	{"a call between two connections", setup{}, "reconnecting:lost", func(w *world) {
		w.cut()
		for _, f := range []form{byStub, byMethod, byFuture, byCallback, byTask, bySet, bySearch} {
			w.atOnce(w.begin(call{form: f}))
		}
	}},
	{"loss of calls of all forms", setup{}, "reconnecting:lost", func(w *world) {
		var all []*record
		for _, f := range []form{byStub, byMethod, byFuture, byCallback, byTask, byOpening, byServer} {
			all = append(all, w.begin(call{form: f, takes: time.Second}))
		}
		w.cut()
		for _, c := range all {
			w.bad(c, netron.Unavailable, wasSent, 1)
		}
	}},
	{"loss of a thousand calls", setup{}, "reconnecting:lost", func(w *world) {
		for i := range 1000 {
			w.begin(call{form: form(i % 4), takes: time.Second})
		}
		w.cut()
		for _, c := range w.calls {
			w.bad(c, netron.Unavailable, wasSent, 1)
		}
	}},
	{"loss while a property is being set", setup{}, lostAndBack, func(w *world) {
		w.link.Delay(latency)
		c := w.begin(call{form: bySet})
		w.pass(latency * 3 / 2)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
		w.until(netron.StateConnected)
		w.good(w.begin(call{form: bySet}), 1)
	}},
	{"loss while a property is being set that may be set twice", setup{}, lostAndBack, func(w *world) {
		w.link.Delay(latency)
		c := w.begin(call{form: bySet, policy: idempotent})
		w.pass(latency * 3 / 2)
		w.cut()
		w.good(c, 2)
	}},
	{"loss while a service that came as a result works", setup{}, lostAndBack, func(w *world) {
		w.good(w.begin(call{form: byOpening}), 1)
		c := w.begin(call{form: byInner, takes: time.Second})
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
		w.until(netron.StateConnected)
		w.bad(w.begin(call{form: byInner}), netron.Unavailable, unknown, 0) // it ended with its connection
		w.good(w.begin(call{form: byOpening}), 1)
		w.good(w.begin(call{form: byInner}), 1)
	}},
	{"loss while a service is being asked for", setup{}, lostAndBack, func(w *world) {
		w.link.Delay(latency)
		lost, again := w.begin(call{form: bySearch}), w.begin(call{form: bySearch, policy: idempotent})
		w.pass(latency / 2)
		w.cut()
		w.bad(lost, netron.Unavailable, wasSent, 0)
		w.good(again, 0)
	}},
	{"loss of a call of the server", setup{}, lostAndBack, func(w *world) {
		c := w.begin(call{form: byServer, policy: idempotent, takes: time.Second})
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1) // accepted peers do not come back
		w.until(netron.StateConnected)
		w.good(w.begin(call{form: byServer}), 1)
	}},
	{"loss of half a request", setup{}, "reconnecting:lost", func(w *world) {
		w.link.Throttle(100 << 10)
		c := w.begin(call{bytes: 1 << 20, within: time.Minute})
		w.pass(3 * time.Second)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 0)
	}},
	{"loss of a request behind half another one", setup{}, lostAndBack, func(w *world) {
		w.link.Throttle(100 << 10)
		w.begin(call{bytes: 1 << 20, within: time.Minute})
		behind, again := w.begin(call{}), w.begin(call{policy: retryUnsent})
		w.pass(3 * time.Second)
		w.cut()
		w.bad(behind, netron.Unavailable, unsent, 0)
		w.link.Throttle(0)
		w.good(again, 1)
	}},
	{"an idempotent call that a handler had", setup{}, lostAndBack, func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second})
		w.cut()
		w.good(c, 2)
	}},
	{"an idempotent call that did not arrive", setup{}, lostAndBack, func(w *world) {
		w.link.Delay(latency)
		c := w.begin(call{policy: idempotent})
		w.pass(latency / 2)
		w.cut()
		w.good(c, 1)
	}},
	{"an idempotent call whose answer was lost", setup{}, lostAndBack, func(w *world) {
		w.link.Delay(latency)
		c := w.begin(call{policy: idempotent})
		w.pass(latency * 3 / 2)
		w.cut()
		w.good(c, 2)
	}},
	{"an idempotent task", setup{}, lostAndBack, func(w *world) {
		c := w.begin(call{form: byTask, policy: idempotent, takes: time.Second})
		w.cut()
		w.good(c, 2)
	}},
	{"an idempotent call that opens a service", setup{}, lostAndBack, func(w *world) {
		c := w.begin(call{form: byOpening, policy: idempotent, takes: time.Second})
		w.cut()
		w.good(c, 2)
		w.good(w.begin(call{form: byInner}), 1)
	}},
	{"an idempotent call over five losses", setup{}, "-", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second, within: time.Hour})
		for range 5 {
			w.cut()
			w.until(netron.StateConnected)
			w.pass(time.Second / 2)
		}
		w.good(c, 6)
	}},
	{"an idempotent call without an answer in time", setup{}, "reconnecting:lost reconnecting:dial_failed", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second, within: 3 * time.Second})
		w.link.Refuse()
		w.cut()
		w.bad(c, netron.DeadlineExceeded, wasSent, 1)
		w.took(c, 3*time.Second)
	}},
	{"an idempotent call without a limit of its own", setup{}, "reconnecting:lost reconnecting:dial_failed", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Minute})
		w.pass(time.Second)
		w.link.Refuse()
		w.cut()
		w.bad(c, netron.DeadlineExceeded, wasSent, 1)
		w.took(c, 6*time.Second)
	}},
	{"an idempotent call that is sent once and not a second time", setup{}, "-", func(w *world) {
		for i := range 20 { // most have others before them when they are sent again
			w.begin(call{policy: idempotent, takes: time.Second, within: 10 * time.Second, bytes: i % 2 << 20})
		}
		w.cut()
		w.link.Throttle(10 << 10)
		w.until(netron.StateConnected)
		w.link.Refuse()
		w.cut()
		for _, c := range w.calls {
			w.bad(c, netron.DeadlineExceeded, wasSent, 1)
		}
	}},
	{"an idempotent call that is given up", setup{}, "reconnecting:lost", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second})
		w.link.Refuse()
		w.cut()
		w.waits(c)
		c.cancel()
		w.bad(c, netron.Canceled, wasSent, 1)
		w.took(c, 0)
	}},
	{"an idempotent call without a connection", setup{}, refusedAWhile, func(w *world) {
		w.link.Refuse()
		w.cut()
		c := w.begin(call{policy: idempotent})
		w.pass(2 * time.Second)
		w.link.Allow()
		w.peer.Reconnect()
		w.good(c, 1)
		w.took(c, 2*time.Second)
	}},
	{"futures and callbacks are not repeated", setup{}, "reconnecting:lost", func(w *world) {
		future := w.begin(call{form: byFuture, policy: idempotent, takes: time.Second})
		callback := w.begin(call{form: byCallback, policy: idempotent, takes: time.Second})
		w.cut()
		w.bad(future, netron.Unavailable, wasSent, 1)
		w.bad(callback, netron.Unavailable, wasSent, 1)
	}},
	{"a call to repeat if unsent, which was sent", setup{}, "reconnecting:lost", func(w *world) {
		c := w.begin(call{policy: retryUnsent, takes: time.Second})
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
	}},
	{"a call to repeat if unsent, without a connection", setup{}, lostAndBack, func(w *world) {
		w.cut()
		c := w.begin(call{policy: retryUnsent})
		w.waits(c)
		w.good(c, 1)
	}},
	{"a call to repeat if unsent, without a connection in time", setup{}, "reconnecting:lost reconnecting:dial_failed", func(w *world) {
		w.link.Refuse()
		w.cut()
		c := w.begin(call{policy: retryUnsent, within: 3 * time.Second})
		w.bad(c, netron.DeadlineExceeded, unsent, 0)
		w.took(c, 3*time.Second)
	}},
	{"a call to repeat if unsent, which is lost when it is sent", setup{}, "-", func(w *world) {
		w.cut()
		c := w.begin(call{policy: retryUnsent, takes: time.Second})
		w.until(netron.StateConnected)
		w.pass(100 * time.Millisecond)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
	}},
	{"a call whose time ends before the connection does", setup{}, "", func(w *world) {
		c := w.begin(call{takes: 10 * time.Second, within: time.Second})
		w.bad(c, netron.DeadlineExceeded, either, 1) // the limit travels, and either side may be first
		w.took(c, time.Second)
		w.works()
	}},
	{"flapping", setup{}, "-", func(w *world) {
		long := w.begin(call{policy: idempotent, takes: 5 * time.Second, within: time.Hour})
		start := w.link.Dials()
		for range 1200 {
			w.cut()
			w.pass(500 * time.Millisecond)
		}
		if n := w.link.Dials() - start; n > 120 {
			w.t.Errorf("%d dials within ten minutes, want the delay to grow", n)
		}
		<-long.donec
		w.until(netron.StateConnected)
		w.works()
	}},
}
