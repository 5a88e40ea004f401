package netron_test

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
)

var drainScenarios = []scenario{
	{"a request to go away", setup{}, "draining:going_away connected:ready", func(w *world) {
		old := w.sendAway(0)
		w.is(netron.StateConnected)
		w.works()
		w.peers(2, 1)
		<-old.Done() // the client closes what it has left
		w.peers(1, 1)
	}},
	{"a request to go away within a minute", setup{}, "draining:going_away connected:ready", func(w *world) {
		start := time.Now()
		w.sendAway(time.Minute)
		w.is(netron.StateDraining)
		w.works() // the old connection does meanwhile
		w.until(netron.StateConnected)
		if d := time.Since(start); d > time.Minute {
			w.t.Errorf("connected anew after %v", d)
		}
		w.works()
	}},
	{"a request to go away, and Reconnect", setup{}, "draining:going_away connected:ready", func(w *world) {
		w.sendAway(time.Hour)
		w.peer.Reconnect()
		w.is(netron.StateConnected)
	}},
	{"two requests to go away", setup{}, "draining:going_away connected:ready", func(w *world) {
		w.sendAway(time.Minute)
		old := w.sendAway(time.Minute)
		w.until(netron.StateConnected)
		old.GoAway("balance", 0) // nobody listens any more
		w.works()
	}},
	{"requests to go away without end", setup{}, "-", func(w *world) {
		before := w.link.Dials()
		for range 600 {
			if p := w.server.Peer("client"); p != nil {
				p.GoAway("balance", 0)
			}
			w.pass(time.Second / 2)
		}
		if n := w.link.Dials() - before; n > 300 {
			w.t.Errorf("%d dials within five minutes, want one a second at most", n)
		}
		w.until(netron.StateConnected)
		w.works()
	}},
	{"a call under way while the peer goes elsewhere", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		c := w.begin(call{takes: 4 * time.Second})
		w.sendAway(0)
		w.servedBy("other")
		w.good(c, 1)
		w.took(c, 4*time.Second)
		w.pass(10 * time.Second)
		w.peers(0, 1)
	}},
	{"a server that shuts down while a call runs", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		c := w.begin(call{takes: 4 * time.Second})
		ended := w.leave(w.server, time.Minute)
		w.servedBy("other")
		w.good(c, 1)
		if err := <-ended; err != nil {
			w.t.Errorf("Shutdown = %v", err)
		}
		w.works()
	}},
	{"a server that shuts down before a call is done", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		c := w.begin(call{takes: time.Minute, within: 2 * time.Minute})
		ended := w.leave(w.server, 3*time.Second)
		<-c.donec
		w.took(c, 3*time.Second)
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			w.t.Errorf("Shutdown = %v, want it to say that its time was up", err)
		}
		w.works()
	}},
	{"a server that shuts down before an idempotent call is done", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: 10 * time.Second, within: time.Minute})
		w.leave(w.server, 3*time.Second)
		<-c.donec
		if n := len(w.book.of(c.id)); n > 2 {
			w.t.Errorf("served %d times", n)
		}
	}},
	{"a call that comes to a server that shuts down", setup{}, "-", func(w *world) {
		w.begin(call{takes: 3 * time.Second})
		w.leave(w.server, time.Minute)
		c := w.begin(call{})
		w.bad(c, netron.Unavailable, wasSent, 0)
		if e, _ := errors.AsType[*netron.Error](c.err); e.Fields["unserved"] != true {
			w.t.Errorf("the refusal %v does not say that the call was not served", c.err)
		}
	}},
	{"a call to repeat that comes to a server that shuts down", setup{}, "-", func(w *world) {
		w.begin(call{takes: 3 * time.Second})
		w.leave(w.server, time.Minute)
		c := w.begin(call{policy: retryUnsent})
		w.waits(c)
		w.up()
		w.good(c, 1)
	}},
	{"a call on its way to a server that shuts down", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		w.begin(call{takes: 3 * time.Second})
		w.link.Delay(latency)
		plain, again := w.begin(call{}), w.begin(call{policy: retryUnsent})
		w.leave(w.server, time.Minute)
		w.bad(plain, netron.Unavailable, wasSent, 0)
		w.good(again, 1)
	}},
	{"a server that dies while it shuts down", setup{}, "draining:going_away draining:dial_failed reconnecting:lost reconnecting:dial_failed connected:ready", func(w *world) {
		c := w.begin(call{takes: 10 * time.Second, within: time.Minute})
		w.leave(w.server, time.Minute)
		w.pass(time.Second)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
		w.pass(time.Minute)
		w.up()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"a server that shuts down, and nobody is there instead", setup{}, "draining:going_away draining:dial_failed reconnecting:going_away reconnecting:dial_failed connected:ready", func(w *world) {
		c := w.begin(call{takes: 4 * time.Second})
		ended := w.leave(w.server, time.Minute)
		w.good(c, 1)
		<-ended
		w.pass(time.Minute)
		w.up()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"a server that is left breaks", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		c := w.begin(call{takes: 4 * time.Second})
		w.sendAway(0)
		w.is(netron.StateConnected)
		w.cut()
		w.bad(c, netron.Unavailable, wasSent, 1)
		w.servedBy("other")
	}},
	{"a server that is left breaks under an idempotent call", setup{also: true}, "draining:going_away connected:ready", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: 3 * time.Second, within: time.Minute})
		w.sendAway(0)
		w.cut()
		w.good(c, 2)
		if by := w.book.of(c.id); !slices.Equal(by, []string{"server", "other"}) {
			w.t.Errorf("served by %v", by)
		}
	}},
	{"loss while a peer waits to leave a server", setup{}, "draining:going_away reconnecting:lost connected:ready", func(w *world) {
		w.sendAway(time.Minute)
		w.cut()
		w.is(netron.StateReconnecting)
		c := w.begin(call{policy: retryUnsent, within: time.Hour})
		w.good(c, 1)
	}},
	{"attempts that are used up while a server is being left", setup{client: netron.Config{MaxReconnectAttempts: 2}}, "-", func(w *world) {
		c := w.begin(call{takes: 4 * time.Second})
		w.link.Refuse()
		w.sendAway(0)
		w.pass(3 * time.Second)
		w.is(netron.StateDraining) // what is under way goes on
		w.good(c, 1)
		w.good(w.begin(call{}), 1)
		w.pass(10 * time.Minute)
		w.link.Allow()
		w.until(netron.StateConnected) // it is not left without anybody who dials
	}},
	{"a call of a server that shuts down", setup{}, "-", func(w *world) {
		c := w.begin(call{form: byServer, takes: 2 * time.Second})
		w.leave(w.server, time.Minute)
		<-c.donec
	}},
	{"goodbyes of OnShutdown", setup{}, "-", func(w *world) {
		c := w.begin(call{takes: time.Second})
		var said []string
		w.server.OnShutdown(func(ctx context.Context) error {
			for _, p := range w.server.Peers() {
				if err := p.RunTask(ctx, "do", nil, -1, 0, nil); err != nil {
					return err
				}
				said = append(said, p.ID())
			}
			return nil
		})
		ended := w.leave(w.server, time.Minute)
		w.good(c, 1)
		if err := <-ended; err != nil || !slices.Equal(said, []string{"client"}) || len(w.book.of(-1)) != 1 {
			w.t.Errorf("Shutdown = %v, goodbye to %v", err, said)
		}
	}},
	{"a server that stops listening", setup{}, "reconnecting:lost reconnecting:dial_failed", func(w *world) {
		c := w.begin(call{takes: time.Second})
		w.server.StopListening()
		w.good(c, 1)
		w.works()
		w.cut()
		w.pass(10 * time.Second)
		w.atOnce(w.begin(call{}))
	}},
	{"two servers that are restarted in turn", setup{also: true}, "-", func(w *world) {
		for range 5 {
			for _, n := range []**netrontest.Node{&w.server, &w.other} {
				slow := w.begin(call{takes: 2 * time.Second, policy: retryUnsent, within: time.Minute})
				ended := w.leave(*n, time.Minute)
				var all []*record
				for range 20 {
					all = append(all, w.begin(call{policy: retryUnsent}))
				}
				if err := <-ended; err != nil {
					w.t.Errorf("Shutdown = %v", err)
				}
				for _, c := range append(all, slow) {
					w.good(c, 1)
				}
				*n = w.start((*n).Addr())
				w.pass(time.Minute)
			}
		}
	}},
}
