package netron_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/engine"
)

var handshakeScenarios = []scenario{
	{"a dial that is refused", setup{apart: true}, "", func(w *world) {
		w.link.Refuse()
		if err := w.dial(); !errors.Is(err, syscall.ECONNREFUSED) {
			w.t.Errorf("Dial = %v, want connection refused", err)
		}
		w.peers(0, 0)
	}},
	{"a dial to a listener that hangs up", setup{apart: true}, "", func(w *world) {
		w.down()
		defer w.hangUp()()
		start := time.Now()
		if err := w.dial(); err == nil || time.Since(start) != 0 {
			w.t.Errorf("Dial = %v after %v, want an error at once", err, time.Since(start))
		}
	}},
	{"a dial to a listener that is silent", setup{apart: true, client: netron.Config{ConnectTimeout: 3 * time.Second}}, "", func(w *world) {
		w.down()
		defer w.silence()()
		start := time.Now()
		if err := w.dial(); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			w.t.Errorf("Dial = %v after %v, want its time limit", err, time.Since(start))
		}
	}},
	{"loss in the first handshake", setup{apart: true}, "", func(w *world) {
		w.link.Delay(latency)
		for step := range 2 { // the upgrade, there and back
			failed := make(chan error)
			go func() {
				_, err := w.client.Dial(context.Background(), serverAddr)
				failed <- err
			}()
			w.pass(latency/2 + time.Duration(step)*latency)
			w.cut()
			select {
			case err := <-failed:
				if err == nil {
					w.t.Errorf("Dial succeeded although step %d was lost", step)
				}
			case <-time.After(time.Minute):
				w.t.Fatalf("Dial goes on although step %d was lost", step)
			}
			w.peers(0, 0)
		}
	}},
	{"the server ends in the first handshake", setup{apart: true}, "", func(w *world) {
		w.link.Delay(latency)
		failed := make(chan error)
		go func() { failed <- w.dial() }()
		w.pass(latency / 2)
		w.down()
		if err := <-failed; err == nil {
			w.t.Errorf("Dial succeeded")
		}
	}},
	{"a dial that is given up", setup{apart: true}, "", func(w *world) {
		w.link.Stall()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := w.client.Dial(ctx, serverAddr); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			w.t.Errorf("Dial = %v after %v", err, time.Since(start))
		}
	}},
	{"a slow handshake", setup{apart: true}, "", func(w *world) {
		w.link.Delay(time.Second)
		if err := w.dial(); err != nil {
			w.t.Errorf("Dial = %v", err)
		}
		w.good(w.begin(call{}), 1)
	}},
	{"a first handshake that is too slow", setup{apart: true}, "", func(w *world) {
		w.link.Delay(3 * time.Second)
		start := time.Now()
		if err := w.dial(); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 5*time.Second {
			w.t.Errorf("Dial = %v after %v", err, time.Since(start))
		}
	}},
	{"loss in the upgrade of a new connection", setup{}, refusedAWhile, lossAfter(latency / 2)},
	{"loss of the answer to the upgrade of a new connection", setup{}, refusedAWhile, lossAfter(latency * 3 / 2)},
	{"loss while services are being asked for anew", setup{}, refusedAWhile, lossAfter(latency * 5 / 2)},
	{"loss while services are being found anew", setup{}, refusedAWhile, lossAfter(latency * 7 / 2)},
	{"a new connection that is too slow", setup{}, refusedAWhile, func(w *world) {
		w.link.Delay(3 * time.Second)
		w.cut()
		c := w.begin(call{policy: retryUnsent, within: time.Minute})
		w.pass(6 * time.Second)
		w.is(netron.StateReconnecting)
		w.link.Delay(0)
		w.good(c, 1)
	}},
	{"a new connection that is silent", setup{}, refusedAWhile, func(w *world) {
		w.link.Stall()
		w.cut()
		w.pass(10 * time.Second)
		w.is(netron.StateReconnecting)
		w.link.Resume()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"a new connection that falls silent while stubs are being restored", setup{}, refusedAWhile, func(w *world) {
		w.link.Delay(latency)
		w.cut()
		w.dials()
		w.pass(latency * 7 / 2)
		w.link.Stall()
		w.pass(10 * time.Second)
		w.is(netron.StateReconnecting)
		w.link.Resume()
		w.until(netron.StateConnected)
		w.works()
		w.pass(time.Minute)
		w.peers(1, 1)
	}},
	{"a listener that hangs up for a while", setup{}, refusedAWhile, func(w *world) {
		w.down()
		end := w.hangUp()
		before := w.link.Dials()
		w.pass(5 * time.Minute)
		if n := w.link.Dials() - before; n < 10 || n > 60 {
			w.t.Errorf("%d dials within five minutes, want the delay to grow", n)
		}
		end()
		w.up()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"a listener that is silent for a while", setup{}, refusedAWhile, func(w *world) {
		w.down()
		end := w.silence()
		w.pass(time.Minute)
		w.is(netron.StateReconnecting)
		end()
		w.up()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"the server ends while it is being dialled", setup{}, refusedAWhile, func(w *world) {
		w.link.Delay(latency)
		w.cut()
		w.dials()
		w.pass(latency * 3 / 2)
		w.down()
		w.up()
		w.until(netron.StateConnected)
		w.works()
	}},
}

// lossAfter returns a story whose first new connection breaks after some time.
func lossAfter(d time.Duration) func(*world) {
	return func(w *world) {
		more, err := w.peer.Service(context.Background(), "desk@^1")
		if err != nil {
			w.t.Fatalf("Service = %v", err)
		}
		w.link.Delay(latency)
		w.cut()
		c := w.begin(call{policy: retryUnsent})
		w.dials()
		w.pass(d)
		w.cut()
		w.is(netron.StateReconnecting)
		w.peers(0, 0)
		w.until(netron.StateConnected)
		w.good(c, 1)
		if err := more.Call(context.Background(), "do", nil, 0, 0, nil); err != nil {
			w.t.Errorf("the other stub: %v", err)
		}
	}
}

var silenceScenarios = []scenario{
	{"silence that keepalive notices", setup{client: keepalive}, lostAndBack, func(w *world) {
		w.link.Stall()
		start := time.Now()
		w.until(netron.StateReconnecting)
		if d := time.Since(start); d > 4*time.Second {
			w.t.Errorf("silence was noticed after %v", d)
		}
		w.link.Resume()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"silence during a call", setup{client: keepalive}, "reconnecting:lost", func(w *world) {
		c := w.begin(call{takes: time.Second, within: time.Minute})
		w.link.Stall()
		w.bad(c, netron.Unavailable, wasSent, 1)
		if !errors.Is(c.err, engine.ErrPeerDead) {
			w.t.Errorf("the call failed with %v, want it to say that the peer is dead", c.err)
		}
	}},
	{"silence that ends in time", setup{client: keepalive, server: keepalive}, "", func(w *world) {
		c := w.begin(call{takes: time.Second})
		w.link.Stall()
		w.pass(2 * time.Second)
		w.link.Resume()
		w.good(c, 1)
		w.took(c, 2*time.Second)
	}},
	{"silence longer than a call may take", setup{}, "", func(w *world) {
		w.link.Stall()
		c := w.begin(call{within: time.Second})
		w.bad(c, netron.DeadlineExceeded, unknown, 0)
		w.link.Resume() // the request arrives, and is given up at once
		w.works()
	}},
	{"an idempotent call over silence", setup{client: keepalive}, lostAndBack, func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second, within: time.Minute})
		w.link.Stall()
		w.until(netron.StateReconnecting)
		w.link.Resume()
		w.good(c, 2)
		w.pass(time.Minute)
		w.peers(1, 1) // the server has forgotten the old connection
	}},
	{"silence that only the server notices", setup{client: netron.Config{PingInterval: -1, PingTimeout: -1}, server: keepalive}, lostAndBack, func(w *world) {
		w.link.Stall()
		w.pass(5 * time.Second)
		w.peers(0, 1)
		w.link.Resume()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"silence while the client answers", setup{server: keepalive}, "-", func(w *world) {
		c := w.begin(call{form: byServer, takes: time.Second, within: time.Minute})
		w.link.Stall()
		w.bad(c, netron.Unavailable, wasSent, 1)
	}},
	{"silence on the new connection as well", setup{client: keepalive}, "-", func(w *world) {
		c := w.begin(call{policy: idempotent, takes: time.Second, within: 10 * time.Minute})
		for range 3 {
			w.link.Stall()
			w.until(netron.StateReconnecting)
			w.link.Resume()
			w.until(netron.StateConnected)
		}
		w.good(c, 4)
	}},
}

var addressScenarios = []scenario{
	{"a first address that is dead", setup{also: true, apart: true}, "", func(w *world) {
		w.down()
		if err := w.dial(); err != nil {
			w.t.Errorf("Dial = %v, want the second address to do", err)
		}
		w.servedBy("other")
	}},
	{"addresses that are all dead", setup{also: true, apart: true}, "", func(w *world) {
		w.net.Refuse()
		err := w.dial()
		for _, addr := range []string{serverAddr, otherAddr} {
			if err == nil || !strings.Contains(err.Error(), "dial "+addr) {
				w.t.Errorf("Dial = %v, want the error of %s", err, addr)
			}
		}
	}},
	{"the server dies and the other is there", setup{also: true}, lostAndBack, func(w *world) {
		w.servedBy("server")
		c := w.begin(call{policy: idempotent, takes: time.Second})
		w.down()
		w.good(c, 2)
		w.servedBy("other")
	}},
	{"the server dies and the other is dead", setup{also: true}, refusedAWhile, func(w *world) {
		w.close(w.other)
		w.cut()
		w.until(netron.StateConnected)
		w.servedBy("server")
	}},
	{"both servers die and one comes back", setup{also: true}, refusedAWhile, func(w *world) {
		w.close(w.other)
		w.down()
		w.pass(time.Minute)
		w.up()
		w.until(netron.StateConnected)
		w.works()
	}},
	{"the other server has another version", setup{also: true}, lostAndBack, func(w *world) {
		w.close(w.other)
		w.offers = []string{"desk@1.5.0"}
		w.other = w.start(otherAddr)
		w.down()
		w.until(netron.StateConnected)
		w.works()
		w.servedBy("other")
	}},
}

// servedBy makes a call and looks at who serves it.
func (w *world) servedBy(want string) {
	w.t.Helper()
	c := w.begin(call{})
	w.good(c, 1)
	if got := w.book.of(c.id); !slices.Equal(got, []string{want}) {
		w.t.Errorf("call %d was served by %v, want %s", c.id, got, want)
	}
}
