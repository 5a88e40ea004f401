package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
)

// TestSubscribeTask checks what the task subscribe makes of its argument, for all kinds of
// peer, and in which form events come.
func TestSubscribeTask(t *testing.T) {
	long := strings.Repeat("x", 300)
	for kind, greeting := range greetings {
		patterns := greeting == greetNetron
		form := "task [emit %s]"
		if patterns {
			form = "event [%s]"
		}
		for name, tt := range map[string]struct {
			arg  any
			want bool // events named order:created come
		}{
			"name":          {"order:created", true},
			"other name":    {"order:gone", false},
			"pattern":       {"order:*", patterns},
			"all":           {"*", patterns},
			"all segments":  {"**", patterns},
			"empty":         {"", false},
			"number":        {7, false},
			"nil":           {nil, false},
			"no pattern":    {"a**", false},
			"too long":      {long, false},
			"much too long": {strings.Repeat("x", maxEventName+1), false},
		} {
			t.Run(kind+"/"+name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWirePeer(t, Config{}, greeting)
					w.task(5, taskSubscribe, tt.arg)
					w.wants("subscribe", "answer 5 undefined")
					w.task(6, taskSubscribe, tt.arg)
					w.wants("subscribe again", "answer 6 undefined")
					w.emit("order:created", 7)
					if tt.want {
						w.wants("the event", fmt.Sprintf(form, "order:created 7"))
					} else {
						w.wants("no event")
					}
					w.task(7, taskUnsubscribe, tt.arg)
					w.task(8, taskUnsubscribe, tt.arg)
					w.wants("unsubscribe", "answer 7 undefined", "answer 8 undefined")
					w.emit("order:created", 7)
					w.wants("after unsubscribe")
					w.wantOpen("at the end")
					if left := w.e.Bus().Patterns(); len(left) != 0 {
						t.Errorf("the bus still has subscriptions to %q", left)
					}
				})
			})
		}
	}
}

// TestSubscribeLimits checks what a publisher refuses, and that what is refused, or was
// there before, leaves nothing behind.
func TestSubscribeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{Events: EventConfig{
			MaxSubscriptions: 2,
			Allow: func(ctx context.Context, pattern string) error {
				if PeerFrom(ctx).ID() != "far" || strings.HasPrefix(pattern, "secret") {
					return Errorf(PermissionDenied, "not for you")
				}
				return nil
			},
		}}, greetNetron)
		w.task(1, taskSubscribe, "secret:*")
		w.wants("what is not allowed", `error 1 permission_denied: not for you`)
		w.task(2, taskSubscribe, "a")
		w.task(3, taskSubscribe, "a")
		w.task(4, taskSubscribe, "") // nothing can match, but it counts
		w.wants("as many as may be", "answer 2 undefined", "answer 3 undefined", "answer 4 undefined")
		w.task(5, taskSubscribe, "b")
		w.wants("one more", "error 5 resource_exhausted: 2 subscriptions, limit 2")
		w.task(6, taskUnsubscribe, "")
		w.wants("unsubscribe", "answer 6 undefined")
		w.task(7, taskSubscribe, "b")
		w.wants("one fewer", "answer 7 undefined")
		w.task(8, taskSubscribe)
		w.task(9, taskUnsubscribe)
		w.wants("no argument", "error 8 invalid_argument: missing argument 1 of subscribe", "error 9 invalid_argument: missing argument 1 of unsubscribe")
		w.end()
		if left := w.e.Bus().Patterns(); len(left) != 0 {
			t.Errorf("after the end the bus has subscriptions to %q", left)
		}
	})
}

// TestEmitTaskAnswers checks that the answers to events which travel as tasks mean nothing.
func TestEmitTaskAnswers(t *testing.T) {
	for kind, greeting := range greetings {
		if greeting == greetNetron {
			continue
		}
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWirePeer(t, Config{}, greeting)
				w.task(5, taskSubscribe, "a")
				w.wants("subscribe", "answer 5 undefined")
				for i := range 300 {
					w.emit("a", i, nil)
					w.wants("the event", fmt.Sprintf("task [emit a %d <nil>]", i))
					id := w.lastID
					switch i % 4 {
					case 0:
						w.answer(id, codec.Undefined{})
					case 1:
						w.answer(id, Errorf(NotFound, "Task with id emit not found"))
					case 2:
						w.answer(id, nil)
						w.answer(id, nil)
					}
					if w.session.Pending() != 0 {
						t.Fatalf("%d calls wait for an answer", w.session.Pending())
					}
				}
				if w.ids != 300 {
					t.Errorf("300 events had %d ids", w.ids)
				}
				w.wantOpen("at the end")
			})
		})
	}
}

// TestOneCopy checks that an event comes once to a peer, however many of its patterns
// match, and until the last of these is gone.
func TestOneCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		patterns := []string{"*", "**", "a:**", "a:*", "a:b", "*:b"}
		for i, p := range patterns {
			w.task(uint32(10+i), taskSubscribe, p)
		}
		w.wants("subscribe", "answer 10 undefined", "answer 11 undefined", "answer 12 undefined", "answer 13 undefined", "answer 14 undefined", "answer 15 undefined")
		for i, p := range patterns {
			w.emit("a:b", i)
			w.wants("the event", fmt.Sprintf("event [a:b %d]", i))
			w.task(20, taskUnsubscribe, p)
			w.wants("unsubscribe "+p, "answer 20 undefined")
		}
		w.emit("a:b")
		w.wants("without a subscription")
	})
}

// TestEmissionForPeers checks what peers get of emissions on the bus, and what who emits
// learns.
func TestEmissionForPeers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{MaxMessageBytes: 1000}, greetNetron)
		w.task(1, taskSubscribe, "*")
		w.wants("subscribe", "answer 1 undefined")
		bus := w.e.Bus()
		bus.Use(func(next pubsub.Handler) pubsub.Handler {
			return func(ctx context.Context, e pubsub.Event) (any, error) {
				switch e.Name() {
				case "changed":
					return next(ctx, e.WithArgs("other", 2))
				case "none":
					return next(ctx, e.WithArgs())
				case "stopped":
					return nil, nil
				}
				return next(ctx, e)
			}
		})
		w.emit("plain", 1, "x", []int{2})
		w.wants("plain", "event [plain 1 x [2]]")
		w.emit("changed", 1)
		w.wants("changed by middleware", "event [changed other 2]")
		w.emit("none", 1)
		w.wants("arguments taken away by middleware", "event [none]")
		w.emit("stopped", 1)
		w.wants("stopped by middleware")
		if err := pubsub.NewTopic[point]("topic").Emit(t.Context(), bus, point{X: 1}); err != nil {
			t.Error(err)
		}
		w.wants("of a topic", "event [topic map[x:1 y:0]]")
		for name, emit := range map[string]func(context.Context, string, ...any) ([]any, error){
			"parallel": bus.EmitParallel, "serial": bus.EmitSerial,
		} {
			if _, err := emit(t.Context(), "big", strings.Repeat("x", 1000)); CodeOf(err) != ResourceExhausted {
				t.Errorf("%s: an event over the limit: %v", name, err)
			}
			if _, err := emit(t.Context(), "odd", make(chan int)); CodeOf(err) != InvalidArgument || !strings.Contains(err.Error(), "argument 1 of event odd") {
				t.Errorf("%s: an argument that has no encoding: %v", name, err)
			}
		}
		w.wants("events with errors")
		w.wantOpen("at the end")
	})
}

// TestEventsShareEncoding checks that an event is encoded once for all peers, and does not
// change while it waits, whatever its size.
func TestEventsShareEncoding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		e := newEndpoint(t, Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
		var peers []*wirePeer
		for range 3 {
			w := joinWire(t, e, greetNetron, log)
			w.task(1, taskSubscribe, "a")
			w.wants("subscribe", "answer 1 undefined")
			peers = append(peers, w)
		}
		for _, size := range []int{1, mux.CopiedEvent - 20, mux.CopiedEvent, 10 * mux.CopiedEvent} {
			encoded := 0
			var want []string
			for i := range 3 {
				text := strings.Repeat(fmt.Sprint(i), size)
				arg := countedText{text, &encoded}
				for _, emit := range []func() error{
					func() error { _, err := e.Bus().EmitParallel(t.Context(), "a", arg); return err },
					func() error { return pubsub.NewTopic[countedText]("a").Emit(t.Context(), e.Bus(), arg) },
				} {
					if err := emit(); err != nil {
						t.Fatal(err)
					}
					want = append(want, "event [a "+text+"]")
				}
			}
			for _, w := range peers {
				w.wants("events", want...)
			}
			if encoded != 6 {
				t.Errorf("6 events of %d bytes were encoded %d times", size, encoded)
			}
		}
	})
}

// foreignPayload is an encoding that is none of this package.
type foreignPayload struct{ arg countedText }

func (p foreignPayload) Args() ([]any, error) { return []any{p.arg}, nil }
func (p foreignPayload) Decode(...any) error  { return errors.ErrUnsupported }

// TestForeignPayloads checks that events which came encoded by others are encoded once for all
// peers, too, and that other users of the scratch do no harm.
func TestForeignPayloads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		e := newEndpoint(t, Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
		var peers []*wirePeer
		for range 3 {
			w := joinWire(t, e, greetNetron, log)
			w.task(1, taskSubscribe, "a")
			w.wants("subscribe", "answer 1 undefined")
			peers = append(peers, w)
		}
		encoded := 0
		emit := func() {
			t.Helper()
			event := pubsub.NewEvent("a", foreignPayload{countedText{"x", &encoded}})
			if _, err := e.Bus().With().EmitEvent(t.Context(), pubsub.OpParallel, event); err != nil {
				t.Fatal(err)
			}
			for _, w := range peers {
				w.wants("the event", "event [a x]")
			}
		}
		if emit(); encoded != 1 {
			t.Errorf("the event was encoded %d times", encoded)
		}
		if _, err := e.Bus().Subscribe("a", func(_ context.Context, e pubsub.Event) (any, error) {
			if s := e.Scratch(); s != nil {
				s.Value, s.Filled = "mine", true
			}
			return nil, nil
		}, pubsub.Inline(), pubsub.WithScratch(), pubsub.Priority(1)); err != nil {
			t.Fatal(err)
		}
		emit()
	})
}

// TestLargeEventsStandAlone checks that a large event shares no memory with small ones, which
// would keep it.
func TestLargeEventsStandAlone(t *testing.T) {
	var pool eventPool
	var arrived arrivals
	for _, size := range []int{10, sharedEvent + 100} {
		if err := pool.encode("a", []any{strings.Repeat("x", size)}); err != nil {
			t.Fatal(err)
		}
		if e, err := pool.end("a", 1, 1<<20); err != nil || e.Name() != "a" {
			t.Fatalf("%v, %v", e, err)
		}
		arrived.keep(make([]byte, size), 1, &codec.Limits{})
		if len(pool.events) != 1 || len(arrived.payloads) != 1 {
			t.Errorf("after one of %d bytes %d events and %d payloads share memory, want the small one", size, len(pool.events), len(arrived.payloads))
		}
	}
}

// TestOwnEventsOfTwoKinds checks that a handler which hangs holds up no events of another kind,
// and that events which are given up are logged.
func TestOwnEventsOfTwoKinds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &logBuffer{}
		e := newEndpoint(t, Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
		if _, err := e.Bus().Subscribe(eventConnect, func(ctx context.Context, _ pubsub.Event) (any, error) {
			<-ctx.Done()
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
		exposed := 0
		if _, err := e.Bus().Subscribe(eventExpose, func(context.Context, pubsub.Event) (any, error) { exposed++; return nil, nil }); err != nil {
			t.Fatal(err)
		}
		for range maxOwnEvents + 10 {
			e.tell(eventConnect, PeerEvent{})
		}
		if err := e.Expose("sample", &sample{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if exposed != 1 {
			t.Errorf("the service was told of %d times, want once, and at once", exposed)
		}
		if n := strings.Count(log.String(), "too slow for the node's own events"); n != 1 {
			t.Errorf("dropped events were logged %d times, want once", n)
		}
	})
}

// countedText counts how often it is encoded.
type countedText struct {
	text  string
	count *int
}

func (c countedText) AppendNetron(b []byte) ([]byte, error) {
	*c.count++
	return codec.AppendString(b, c.text), nil
}

// TestPeersAreNoReducers checks that who reduces or chains does not notice peers that
// have subscribed, nor readers.
func TestPeersAreNoReducers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		bus := w.e.Bus()
		double := func(_ context.Context, e pubsub.Event) (any, error) {
			n := 0
			err := e.Decode(&n)
			return 2 * n, err
		}
		if _, err := bus.Subscribe("n", double); err != nil {
			t.Fatal(err)
		}
		w.task(1, taskSubscribe, "n")
		w.wants("subscribe", "answer 1 undefined")
		if _, err := bus.Reader("n"); err != nil {
			t.Fatal(err)
		}
		if _, err := bus.Subscribe("n", double); err != nil {
			t.Fatal(err)
		}
		if v, err := bus.EmitChain(t.Context(), "n", 1); v != 4 || err != nil {
			t.Errorf("EmitChain = %v, %v, want 4", v, err)
		}
		w.wants("the peer has its place in the chain", "event [n 2]")
		sum := func(acc, v any) (any, error) { return acc.(int) + v.(int), nil }
		if v, err := bus.EmitReduce(t.Context(), "n", sum, 0, 5); v != 20 || err != nil {
			t.Errorf("EmitReduce = %v, %v, want 20", v, err)
		}
		w.wants("reduce", "event [n 5]")
	})
}
