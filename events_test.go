package netron_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/pubsub"
)

// eventTally is what a subscription has got: of each name the numbers, and how many events
// it was told are missing.
type eventTally struct {
	mu   sync.Mutex
	got  map[string][]int // guarded by mu
	lost uint64           // guarded by mu
	end  error            // the last error of the iteration; guarded by mu
}

// follow iterates over the events of a peer until ctx ends.
func follow(ctx context.Context, p *netron.Peer, pattern string, opts ...netron.SubscribeOption) *eventTally {
	y := &eventTally{}
	go func() {
		for e, err := range p.Events(ctx, pattern, opts...) {
			y.note(e, err)
		}
	}()
	return y
}

func (y *eventTally) note(e pubsub.Event, err error) {
	y.mu.Lock()
	defer y.mu.Unlock()
	n := 0
	lost, isLost := errors.AsType[*pubsub.LostError](err)
	switch {
	case isLost:
		y.lost += lost.Count
	case err != nil:
		y.end = err
	case e.Decode(&n) != nil:
		y.end = errors.New("an event without a number")
	default:
		if y.got == nil {
			y.got = make(map[string][]int)
		}
		y.got[e.Name()] = append(y.got[e.Name()], n)
	}
}

// handle is a handler that notes events.
func (y *eventTally) handle(_ context.Context, e pubsub.Event) (any, error) {
	y.note(e, nil)
	return nil, nil
}

func (y *eventTally) of(name string) []int {
	y.mu.Lock()
	defer y.mu.Unlock()
	return slices.Clone(y.got[name])
}

func (y *eventTally) missing() uint64 {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.lost
}

// emit emits an event with a number on the bus of a node.
func emit(t netrontest.TB, n *netrontest.Node, name string, number int) {
	t.Helper()
	if _, err := n.Bus().EmitParallel(context.Background(), name, number); err != nil {
		t.Errorf("emit %s on %s: %v", name, n.Name(), err)
	}
}

// isRising reports whether each number is greater than the one before.
func isRising(numbers []int) bool {
	for i := 1; i < len(numbers); i++ {
		if numbers[i] <= numbers[i-1] {
			return false
		}
	}
	return true
}

// fromTo returns the numbers from one up to another, without that.
func fromTo(from, to int) []int {
	var all []int
	for i := from; i < to; i++ {
		all = append(all, i)
	}
	return all
}

// TestEventsAfterReconnect checks that subscriptions are restored when the peer counts as
// connected again, however it lost its connection, and that no event comes twice.
func TestEventsAfterReconnect(t *testing.T) {
	for name, disturb := range map[string]func(*world){
		"cut":     (*world).cut,
		"restart": func(w *world) { w.down(); w.up() },
		"half-open": func(w *world) {
			w.link.Stall()
			w.pass(4 * time.Second)
			w.link.Resume()
		},
		"sent away":           func(w *world) { w.sendAway(0) },
		"sent away by and by": func(w *world) { w.sendAway(10 * time.Second) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, setup{client: keepalive})
				ctx, cancel := context.WithCancel(t.Context())
				all, some := follow(ctx, w.peer, "tick:*"), &eventTally{}
				if _, err := w.peer.Subscribe(ctx, "tick:a", some.handle, netron.SubscribeInline()); err != nil {
					t.Fatal(err)
				}
				w.settle()
				again := make(chan struct{})
				w.peer.OnState(func(e netron.StateEvent) {
					if e.State == netron.StateConnected {
						close(again)
					}
				})
				emit(t, w.server, "tick:a", 0)
				emit(t, w.server, "tick:b", 0)
				w.settle()
				n := 1
				disturb(w)
				for connected := false; !connected; n++ {
					select {
					case <-again:
						connected = true
					case <-time.After(10 * time.Millisecond):
					}
					emit(t, w.server, "tick:a", n)
				}
				first := n - 1
				for ; n < first+500; n++ { // while there is an old connection, too
					time.Sleep(10 * time.Millisecond)
					emit(t, w.server, "tick:a", n)
				}
				emit(t, w.server, "tick:b", n)
				w.settle()
				for who, y := range map[string]*eventTally{"the iteration": all, "the handler": some} {
					got := y.of("tick:a")
					if want := fromTo(first, n); !isRising(got) || got[0] != 0 || !slices.Equal(got[max(0, len(got)-len(want)):], want) {
						t.Errorf("%s has %v; want 0, and all from %d to %d, once and in their order", who, got, first, n)
					}
				}
				if got := all.of("tick:b"); !slices.Equal(got, []int{0, n}) {
					t.Errorf("tick:b came with %v", got)
				}
				cancel()
				w.pass(time.Minute)
				if got := w.server.Bus().Patterns(); !slices.Equal(got, []string{"tick:a"}) {
					t.Errorf("the server has %q when the iteration has ended", got)
				}
				w.finish()
				if got := w.server.Bus().Patterns(); len(got) != 0 {
					t.Errorf("the server has %q when the client has gone", got)
				}
			})
		})
	}
}

// TestPublisherForgets checks that a lost connection leaves nothing on the bus.
func TestPublisherForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, setup{})
		for i := range 10 {
			if _, err := w.peer.Subscribe(t.Context(), fmt.Sprintf("a%d:**", i), new(eventTally).handle); err != nil {
				t.Fatal(err)
			}
		}
		wants := func(why string, n int) {
			t.Helper()
			if got := w.server.Bus().Patterns(); len(got) != n {
				t.Errorf("%s: the server has %q, want %d", why, got, n)
			}
		}
		wants("before", 10)
		w.link.Refuse()
		w.cut()
		wants("without a connection", 0)
		emit(t, w.server, "a1:x", 1)
		w.link.Allow()
		w.until(netron.StateConnected)
		wants("after the reconnect", 10)
		w.finish()
		wants("at the end", 0)
	})
}

// TestSubscribeWithoutConnection checks what becomes of a wish that comes while the peer is
// dialled again.
func TestSubscribeWithoutConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, setup{})
		sub, err := w.peer.Subscribe(t.Context(), "kept", new(eventTally).handle)
		if err != nil {
			t.Fatal(err)
		}
		w.link.Refuse()
		w.cut()
		if _, err := w.peer.Subscribe(t.Context(), "a", new(eventTally).handle); netron.CodeOf(err) != netron.Unavailable {
			t.Errorf("Subscribe = %v, want unavailable", err)
		}
		if err := w.peer.Emit(t.Context(), "a"); netron.CodeOf(err) != netron.Unavailable {
			t.Errorf("Emit = %v, want unavailable", err)
		}
		waited, late := make(chan error, 1), &eventTally{}
		go func() {
			_, err := w.peer.Subscribe(netron.Idempotent(t.Context()), "late", late.handle)
			waited <- err
		}()
		if err := sub.Unsubscribe(t.Context()); err != nil {
			t.Errorf("Unsubscribe = %v", err)
		}
		w.pass(time.Second)
		w.link.Allow()
		w.peer.Reconnect()
		if err := <-waited; err != nil {
			t.Errorf("Subscribe that waits = %v", err)
		}
		if got := w.server.Bus().Patterns(); !slices.Equal(got, []string{"late"}) {
			t.Errorf("the server has %q, want late", got)
		}
		emit(t, w.server, "late", 1)
		w.settle()
		if got := late.of("late"); !slices.Equal(got, []int{1}) {
			t.Errorf("events %v, want one", got)
		}
		w.finish()
	})
}

// TestSubscriptionRefusedLater checks that a node which no longer allows a subscription
// does not lose the connection for it, and is asked again the next time.
func TestSubscriptionRefusedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		refuse := false
		w := newWorld(t, setup{
			client: netron.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))},
			server: netron.Config{Events: netron.EventConfig{Allow: func(context.Context, string) error {
				if refuse {
					return netron.Errorf(netron.PermissionDenied, "no more")
				}
				return nil
			}}},
		})
		y := follow(t.Context(), w.peer, "a")
		w.settle()
		refuse = true
		w.cut()
		w.until(netron.StateConnected)
		w.works()
		if text := log.String(); strings.Count(text, "refuses a subscription") != 1 || !strings.Contains(text, "no more") {
			t.Errorf("logged %s, want one refusal", text)
		}
		if _, err := w.peer.Subscribe(t.Context(), "a", y.handle); netron.CodeOf(err) != netron.PermissionDenied {
			t.Errorf("one more Subscribe = %v, want permission denied", err)
		}
		emit(t, w.server, "a", 1)
		refuse = false
		w.cut()
		w.until(netron.StateConnected)
		emit(t, w.server, "a", 2)
		w.settle()
		if got := y.of("a"); !slices.Equal(got, []int{2}) {
			t.Errorf("events %v, want 2 alone", got)
		}
		w.finish()
	})
}

// TestOneHop checks that a node does not pass on what it has received.
func TestOneHop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := netrontest.NewCluster(t, 3)
		var hops [2]*eventTally
		for i := range hops {
			p, err := c.Nodes[i+1].Dial(t.Context(), c.Nodes[i].Addr())
			if err != nil {
				t.Fatal(err)
			}
			hops[i] = follow(t.Context(), p, "*")
		}
		local := &eventTally{}
		if _, err := c.Nodes[1].Bus().Subscribe("*", local.handle); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		emit(t, c.Nodes[0], "a", 1)
		synctest.Wait()
		if got := fmt.Sprint(hops[0].of("a"), local.of("a"), hops[1].of("a")); got != "[1] [] []" {
			t.Errorf("the first hop, the bus there, the second hop: %s, want [1] [] []", got)
		}
	})
}

// TestServiceEvents checks who learns of services and of peers.
func TestServiceEvents(t *testing.T) {
	for _, published := range []bool{false, true} {
		t.Run(fmt.Sprint(published), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, setup{server: netron.Config{MaxExposedServices: 2, Events: netron.EventConfig{ServiceEvents: published}}})
				local, remote := &diary{}, &diary{}
				for _, pattern := range []string{"service:*", "peer:*"} {
					if _, err := w.server.Bus().Subscribe(pattern, local.handle); err != nil {
						t.Fatal(err)
					}
				}
				for _, pattern := range []string{"*", "**", "service:*", "service:expose", "peer:*", "peer:connect"} {
					if _, err := w.peer.Subscribe(t.Context(), pattern, remote.handle); err != nil {
						t.Fatal(err)
					}
				}
				s, err := netron.NewServiceOf("theirs", newDesk(&w.book, "client"))
				err = errors.Join(err, w.server.Expose("own@1.0.0", newDesk(&w.book, "server")), w.server.Conceal("own@1.0.0"),
					w.peer.Publish(t.Context(), s), w.peer.Unpublish(t.Context(), "theirs"),
					w.server.Peer("client").Expose("hidden", newDesk(&w.book, "server"))) // for that peer alone
				if err != nil {
					t.Fatal(err)
				}
				guest, err := w.start(otherAddr).Dial(t.Context(), serverAddr)
				if err != nil {
					t.Fatal(err)
				}
				w.settle()
				_ = guest.Close() // always nil
				w.settle()
				services := []string{
					"service:expose definition name=own peerId=server qualifiedName=own@1.0.0 version=1.0.0",
					"service:unexpose defId name=own peerId=server qualifiedName=own@1.0.0 version=1.0.0",
					"service:expose definition name=theirs peerId=server qualifiedName=theirs remotePeerId=client version=",
					"service:unexpose defId name=theirs peerId=server qualifiedName=theirs remotePeerId=client version=",
				}
				local.wants(t, "in the process", append(slices.Clone(services), "peer:connect peerId=other", "peer:disconnect peerId=other"))
				var want []string
				if published { // by service:*, and by service:expose
					want = append(slices.Clone(services), services[0], services[2])
				}
				remote.wants(t, "at a peer", want)
				var abilities struct{ AllowServiceEvents bool }
				if err := w.peer.RunTask(t.Context(), "abilities", &abilities, map[string]any{}); err != nil || abilities.AllowServiceEvents != published {
					t.Errorf("abilities = %+v, %v", abilities, err)
				}
				if _, err := w.server.Bus().EmitSerial(t.Context(), "service:expose", 1); netron.CodeOf(err) != netron.PermissionDenied {
					t.Errorf("an emission of service:expose = %v, want permission denied", err)
				}
			})
		})
	}
}

// diary is what was emitted about services and peers.
type diary struct {
	mu      sync.Mutex
	entries []string // guarded by mu
}

func (d *diary) handle(_ context.Context, e pubsub.Event) (any, error) {
	args, err := e.Args()
	if err != nil {
		return nil, err
	}
	encoded, err := codec.Append(nil, args[0])
	if err != nil {
		return nil, err
	}
	var m map[string]any
	if err := codec.Unmarshal(encoded, &m); err != nil {
		return nil, err
	}
	entry := e.Name()
	for _, key := range slices.Sorted(maps.Keys(m)) {
		if entry += " " + key; key != "definition" && key != "defId" {
			entry += fmt.Sprint("=", m[key])
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, entry)
	return nil, nil
}

// wants compares the entries. Those of different subscriptions may come in any order.
func (d *diary) wants(t *testing.T, where string, want []string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	got := slices.Sorted(slices.Values(d.entries))
	if want := slices.Sorted(slices.Values(want)); !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", where, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestAnswerAfterEvents checks that who calls has the events that the handler emitted by
// the time that it has the answer.
func TestAnswerAfterEvents(t *testing.T) {
	const callers, calls = 4, 300
	pair := netrontest.NewPair(t)
	bus := pair.Server.Bus()
	if err := pair.Server.AddTask("count", func(ctx context.Context, name string, n int) error {
		_, err := bus.EmitSerial(ctx, name, n)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range callers {
		name, last := fmt.Sprint("count:", i), atomic.Int64{}
		if _, err := pair.ToServer.Subscribe(t.Context(), name, func(_ context.Context, e pubsub.Event) (any, error) {
			var n int64
			err := e.Decode(&n)
			last.Store(n)
			return nil, err
		}, netron.SubscribeInline()); err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for n := range int64(calls) {
				if err := pair.ToServer.RunTask(t.Context(), "count", nil, name, n+1); err != nil {
					t.Error(err)
					return
				}
				if got := last.Load(); got != n+1 {
					t.Errorf("%s: the answer to call %d came after event %d", name, n+1, got)
					return
				}
			}
		})
	}
	wg.Wait()
}
