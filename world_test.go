package netron_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc"
)

// world is a client and a server on a network in memory, what the client asks of the
// server, and what came of it. Its methods are the verbs of the scenarios and of the
// random schedules. They are for the main goroutine of a bubble; those that begin
// something return when nothing moves any more.
type world struct {
	t     netrontest.TB
	setup setup
	book  book

	net            *netrontest.Network
	link           *netrontest.Link // between client and server
	client, server *netrontest.Node
	other          *netrontest.Node // nil unless setup asks for it
	offers         []string         // what a server exposes when it starts; of the type desk

	peer    *netron.Peer                // the server, as the client sees it
	desk    *netron.Stub                // of the peer
	inner   atomic.Pointer[netron.Stub] // that a call opened last
	states  *stateLog                   // what a callback was told
	watched chan string                 // what an iterator was told, when it has ended

	calls []*record
	wg    sync.WaitGroup     // of the calls
	nodes []*netrontest.Node // all that there were
}

// setup is what is special about a world. The zero value is a client that has dialled
// the server.
type setup struct {
	client, server netron.Config // but for the id
	dial           []netron.DialOption
	also           bool // there is another server, whose address the client has as well
	apart          bool // the client has not dialled
}

const (
	serverAddr = "server:80"
	otherAddr  = "other:80"
	clientAddr = "client:80"
)

func newWorld(t netrontest.TB, s setup) *world {
	w := &world{
		t: t, setup: s, offers: []string{"desk@1.0.0"}, states: &stateLog{},
		net: new(netrontest.Network),
	}
	w.link = w.net.Link(clientAddr, serverAddr)
	if s.also {
		w.other = w.start(otherAddr)
		w.setup.dial = append([]netron.DialOption{netron.DialAlso(otherAddr)}, s.dial...)
	}
	w.server, w.client = w.start(serverAddr), w.start(clientAddr)
	if s.apart {
		return w
	}
	if err := w.dial(); err != nil {
		t.Fatalf("Dial = %v", err)
	}
	w.pass(time.Second) // so that a request to go away is not followed with a delay
	return w
}

// start starts a node that offers what the world does.
func (w *world) start(addr string) *netrontest.Node {
	w.t.Helper()
	n := w.net.Start(w.t, addr,
		netrontest.Configure(func(cfg *netron.Config) {
			id := cfg.ID
			if *cfg = w.setup.server; id == "client" {
				*cfg = w.setup.client
			}
			if cfg.ID = id; cfg.DrainWindow == 0 {
				cfg.DrainWindow = -1 // scenarios of it say so
			}
		}),
		netrontest.Prepare(w.expose))
	w.settle()
	w.nodes = append(w.nodes, n)
	return n
}

// expose gives a node its services and tasks.
func (w *world) expose(n *netron.Node) error {
	d := newDesk(&w.book, n.ID())
	err := n.AddTask("do", d.Do)
	for _, name := range w.offers {
		err = errors.Join(err, n.Expose(name, newDesk(&w.book, n.ID())))
	}
	return err
}

// dial has the client dial the server, and asks for the service.
func (w *world) dial() error {
	p, err := w.client.Dial(context.Background(), serverAddr, w.setup.dial...)
	if err != nil {
		return err
	}
	w.peer, w.watched = p, make(chan string, 1)
	p.OnState(w.states.add)
	go func() {
		var all stateLog
		for e := range p.States(context.Background()) {
			all.add(e)
		}
		w.watched <- all.String()
	}()
	w.settle()
	if w.desk, err = p.Service(context.Background(), "desk"); err != nil {
		return err
	}
	w.settle()
	return nil
}

// settle returns when nothing moves any more until time passes.
func (w *world) settle() { synctest.Wait() }

// pass lets time pass.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	w.settle()
}

// until waits for a state of the peer.
func (w *world) until(want netron.State) {
	w.t.Helper()
	w.settle()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for e := range w.peer.States(ctx) {
		if e.State == want {
			w.settle()
			return
		}
	}
	w.t.Fatalf("the peer is %v, and does not become %v", w.peer.State(), want)
}

// dials waits for the next dial of the client to the server, to the millisecond.
func (w *world) dials() {
	w.t.Helper()
	for before, tries := w.link.Dials(), 0; w.link.Dials() == before; tries++ {
		if tries > 60_000 {
			w.t.Fatalf("the peer is %v, and is not dialled within a minute", w.peer.State())
		}
		w.pass(time.Millisecond)
	}
}

// cut breaks the connections between client and server.
func (w *world) cut() {
	w.link.Cut()
	w.settle()
}

// down ends the server without a word, and up starts it again.
func (w *world) down() {
	w.link.Cut() // else handlers that are cut off might still answer
	w.close(w.server)
	w.settle()
}

func (w *world) close(n *netrontest.Node) {
	if err := n.Close(); err != nil {
		w.t.Errorf("Close of %s = %v", n.Name(), err)
	}
}

func (w *world) up() { w.server = w.start(serverAddr) }

// leave begins to shut a node down, for no longer than a limit, and returns where the
// result of Shutdown will be.
func (w *world) leave(n *netrontest.Node, limit time.Duration) <-chan error {
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		defer cancel()
		ended <- n.Shutdown(ctx)
	}()
	w.settle()
	return ended
}

// accepted returns the client as the server sees it.
func (w *world) accepted() *netron.Peer {
	w.t.Helper()
	w.settle()
	p := w.server.Peer("client")
	if p == nil {
		w.t.Fatalf("the server does not know the client")
	}
	return p
}

// sendAway has the server ask the client to connect anew within a window.
func (w *world) sendAway(window time.Duration) *netron.Peer {
	w.t.Helper()
	p := w.accepted()
	if !p.GoAway("balance", window) {
		w.t.Errorf("GoAway was not negotiated")
	}
	w.settle()
	return p
}

// hangUp takes the place of the server that has gone: it accepts connections and closes
// them at once, until it is ended.
func (w *world) hangUp() (end func()) { return w.listen(func(c net.Conn) { c.Close() }) }

// silence takes its place and does not say anything.
func (w *world) silence() (end func()) { return w.listen(func(net.Conn) {}) }

func (w *world) listen(accept func(net.Conn)) (end func()) {
	w.t.Helper()
	ln, err := w.net.Listen(serverAddr)
	if err != nil {
		w.t.Fatalf("Listen = %v", err)
	}
	var wg sync.WaitGroup
	var conns []net.Conn
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
			accept(c)
		}
	})
	return func() {
		ln.Close()
		wg.Wait()
		for _, c := range conns {
			c.Close()
		}
	}
}

// peers compares how many peers two nodes have.
func (w *world) peers(server, client int) {
	w.t.Helper()
	w.settle()
	if s, c := len(w.server.Peers()), len(w.client.Peers()); s != server || c != client {
		w.t.Errorf("%d peers of the server, %d of the client, want %d and %d", s, c, server, client)
	}
}

// is compares the state of the peer.
func (w *world) is(want netron.State) {
	w.t.Helper()
	w.settle()
	if got := w.peer.State(); got != want {
		w.t.Errorf("the peer is %v, want %v", got, want)
	}
}

// restore takes all faults of the network back.
func (w *world) restore() {
	w.net.Allow()
	w.net.Resume()
	w.net.Delay(0)
	w.net.Throttle(0)
	w.settle()
}

// finish heals the network, closes the peer, waits for all calls, and looks at what is
// true of every world: see check, checkStates and heldBy.
func (w *world) finish() {
	w.t.Helper()
	w.restore()
	if inner := w.inner.Load(); inner != nil {
		_ = inner.Release(context.Background())
	}
	if w.peer != nil {
		_ = w.peer.Close() // always nil
	}
	w.wg.Wait()
	w.pass(2 * time.Minute) // marks of calls that were given up, and silent connections, have gone
	if w.peer != nil {
		w.checkStates()
		if held := heldBy(w.peer).String(); held != "" {
			w.t.Errorf("the peer still holds %s", held)
		}
	}
	for _, n := range w.nodes {
		if left := len(n.Peers()); left != 0 {
			w.t.Errorf("%s has %d peers left", n.Name(), left)
		}
		if held := heldBy(n.Node).String(); held != "" {
			w.t.Errorf("%s still holds %s", n.Name(), held)
		}
	}
	for _, r := range w.calls {
		w.check(r)
	}
}

// checkStates compares what the callback and the iterator were told, and looks for steps
// that make no sense.
func (w *world) checkStates() {
	w.t.Helper()
	got := w.states.String()
	if first, rest, _ := strings.Cut(<-w.watched, " "); first != "connected:ready" || rest != got {
		w.t.Errorf("the iterator has seen %s %s\nthe callback %s", first, rest, got)
	}
	before := netron.StateEvent{State: netron.StateConnected, Reason: rpc.ReasonReady}
	for _, e := range w.states.events {
		if complaint := illegal(before, e); complaint != "" {
			w.t.Errorf("state %v (%v) after %v (%v): %s; all: %s", e.State, e.Reason, before.State, before.Reason, complaint, got)
		}
		before = e
	}
	if before.State != netron.StateClosed {
		w.t.Errorf("the last state is %v, want closed", before.State)
	}
}

// illegal says what is wrong with an event after another, if something is.
func illegal(before, e netron.StateEvent) string {
	next := map[netron.State][]netron.State{
		netron.StateConnected:    {netron.StateReconnecting, netron.StateDraining, netron.StateClosed},
		netron.StateReconnecting: {netron.StateReconnecting, netron.StateConnected, netron.StateClosed},
		netron.StateDraining:     {netron.StateDraining, netron.StateReconnecting, netron.StateConnected, netron.StateClosed},
	}
	lost := []rpc.Reason{rpc.ReasonLost, rpc.ReasonClosedByPeer, rpc.ReasonGoingAway}
	reasons := map[netron.State][]rpc.Reason{
		netron.StateConnected:    {rpc.ReasonReady},
		netron.StateReconnecting: lost,
		netron.StateDraining:     {rpc.ReasonGoingAway},
		netron.StateClosed:       append([]rpc.Reason{rpc.ReasonClosed, rpc.ReasonExhausted}, lost...),
	}[e.State]
	if before.State == e.State {
		reasons = []rpc.Reason{rpc.ReasonDialFailed}
	}
	isWell := e.State == netron.StateConnected || e.Reason == rpc.ReasonGoingAway && e.State == netron.StateDraining
	switch {
	case !slices.Contains(next[before.State], e.State):
		return "no such step"
	case !slices.Contains(reasons, e.Reason):
		return "no reason for it"
	case (e.Err == nil) != isWell:
		return fmt.Sprintf("with the error %v", e.Err)
	case e.At.Before(before.At):
		return "earlier than that"
	}
	return ""
}
