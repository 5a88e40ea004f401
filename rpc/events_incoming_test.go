package rpc

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
)

// collectInline subscribes to a pattern at the peer, and returns where the events go.
func collectInline(t *testing.T, w *wirePeer, pattern string) *[]string {
	t.Helper()
	var got []string
	subscribeAt(t, w, pattern, func(_ context.Context, e pubsub.Event) (any, error) {
		args, err := e.Args()
		got = append(got, fmt.Sprint(e.Name(), " ", args))
		return nil, err
	}, SubscribeInline())
	return &got
}

// subscribeAt subscribes at the peer, which agrees.
func subscribeAt(t *testing.T, w *wirePeer, pattern string, h pubsub.Handler, opts ...SubscribeOption) *PeerSubscription {
	t.Helper()
	done := make(chan *PeerSubscription, 1)
	go func() {
		s, err := w.peer.Subscribe(t.Context(), pattern, h, opts...)
		if err != nil {
			t.Errorf("Subscribe %s = %v", pattern, err)
		}
		done <- s
	}()
	if w.peer.Kind() == mux.KindLegacy {
		w.reply(map[string]any{"services": codec.Map{}}, taskAbilities, map[string]any{"allowServiceEvents": false})
	}
	w.agree(taskSubscribe, pattern)
	return <-done
}

var errHandler = errors.New("of a handler")

// TestIncomingEmit checks that the task emit is answered with success at once, whatever
// handlers do, and even when this side drains or middleware refuses.
func TestIncomingEmit(t *testing.T) {
	for name, handler := range map[string]pubsub.Handler{
		"none":  nil,
		"fine":  func(context.Context, pubsub.Event) (any, error) { return 7, nil },
		"error": func(context.Context, pubsub.Event) (any, error) { return nil, errHandler },
		"panic": func(context.Context, pubsub.Event) (any, error) { panic("of a handler") },
		"never": func(ctx context.Context, _ pubsub.Event) (any, error) { <-ctx.Done(); return nil, nil },
		"args":  func(_ context.Context, e pubsub.Event) (any, error) { return nil, e.Decode(new(chan int)) },
	} {
		for _, inline := range []bool{false, true} {
			if inline && name == "never" {
				continue
			}
			t.Run(fmt.Sprint(name, inline), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWirePeer(t, Config{}, greetNode)
					if handler != nil {
						var opts []SubscribeOption
						if inline {
							opts = append(opts, SubscribeInline())
						}
						subscribeAt(t, w, "a", handler, opts...)
					}
					for i := range 5 {
						w.task(uint32(10+i), taskEmit, "a", 1, map[string]any{"x": 1})
						w.wants("the answer", fmt.Sprintf("answer %d undefined", 10+i))
					}
					for i, args := range [][]any{{}, {""}, {nil}, {7}, {"*"}, {"a::b"}, {strings.Repeat("x", 5000)}, {"service:expose", 1}} {
						w.task(uint32(20+i), taskEmit, args...)
						w.wants(fmt.Sprint("emit with ", len(args), " odd arguments"), fmt.Sprintf("answer %d undefined", 20+i))
					}
					w.e.Use(func(Handler) Handler {
						return func(context.Context, *Request) (codec.Raw, error) { return nil, Errorf(ResourceExhausted, "too many") }
					})
					w.task(40, taskEmit, "a", 1)
					w.wants("refused by middleware", "answer 40 undefined")
					w.session.Refuse()
					w.task(41, taskEmit, "a", 1)
					w.wants("while this side drains", "answer 41 undefined")
					w.wantOpen("at the end")
				})
			})
		}
	}
}

// TestMalformedEvents checks that what is no event is dropped, and harms nobody.
func TestMalformedEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		got := collectInline(t, w, "*")
		for name, payload := range map[string]string{
			"nothing":                    "",
			"no array":                   "a161",
			"a map":                      "81a16101",
			"an empty array":             "90",
			"a number for a name":        "9107",
			"bytes for a name":           "91c40161",
			"half a name":                "91a561",
			"an argument missing":        "92a161",
			"half an argument":           "92a161a5",
			"a huge array":               "dd7fffffffa161",
			"bytes behind":               "91a16101",
			"a pattern for a name":       "91a12a",
			"an empty name":              "91a0",
			"a reserved byte":            "92a161c1",
			"loss of a number":           "93c00101",
			"loss without a count":       "92c0a161",
			"loss of nothing":            "93c0a16100",
			"a negative loss":            "93c0a161ff",
			"a loss that is no number":   "93c0a161cb7ff8000000000000",
			"a loss of text":             "93c0a161a161",
			"a loss with more behind it": "94c0a1610101",
		} {
			p := append(wire.AppendHeader(nil, 9, wire.Request(wire.TypeEvent)), unhex(t, payload)...)
			w.session.Message(false, p)
			w.session.ReadDone()
			w.wants(name)
			w.wantOpen(name)
			if len(*got) != 0 {
				t.Errorf("%s: the handler got %q", name, *got)
				*got = nil
			}
		}
		w.event("a", 1)
		if want := []string{"a [1]"}; !slices.Equal(*got, want) {
			t.Errorf("after all that the handler got %q, want %q", *got, want)
		}
	})
}

// TestEventOrder checks that events come in their order with what is answered and called
// around them.
func TestEventOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		got := collectInline(t, w, "*") // events may come before the answer to subscribe
		*got = nil
		go func() {
			if _, err := w.peer.Subscribe(t.Context(), "b", func(_ context.Context, e pubsub.Event) (any, error) {
				*got = append(*got, "second "+e.Name())
				return nil, nil
			}, SubscribeInline()); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		w.event("a")
		w.event("b")
		w.agree("subscribe", "b")
		w.task(70, taskEmit, "c")
		w.event("b")
		w.wants("the answer", "answer 70 undefined")
		if want := []string{"a []", "b []", "second b", "c []", "b []", "second b"}; !slices.Equal(*got, want) {
			t.Errorf("events %q, want %q", *got, want)
		}
		w.task(71, taskSubscribe, "x")
		w.wants("subscribe", "answer 71 undefined")
		w.hold()
		for i := range 1000 {
			w.emit("x", i)
		}
		w.task(72, "no such task")
		synctest.Wait()
		w.release()
		var want []string
		for i := range 1000 {
			want = append(want, fmt.Sprintf("event [x %d]", i))
		}
		synctest.Wait()
		w.mu.Lock()
		heard := make([]string, 0, len(w.heard))
		for _, s := range w.heard {
			if strings.HasPrefix(s, "event") {
				heard = append(heard, s)
			}
		}
		w.mu.Unlock()
		if !slices.Equal(heard, want) {
			t.Errorf("heard %d events, want %d in their order", len(heard), len(want))
		}
	})
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestHub checks the handler of all events, and that what it passes on has the name under
// which it does.
func TestHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hub *Endpoint
		w := newWirePeer(t, Config{Events: EventConfig{Receive: func(ctx context.Context, e pubsub.Event) (any, error) {
			if PeerFrom(ctx) == nil {
				t.Error("the handler does not know the peer")
			}
			if _, err := hub.Bus().With().EmitEvent(ctx, pubsub.OpParallel, e); err != nil {
				return nil, err
			}
			return hub.Bus().With().EmitEvent(ctx, pubsub.OpParallel, pubsub.NewEvent("from:"+e.Name(), e.Payload()))
		}}}, greetNetron)
		hub = w.e
		w.task(1, taskSubscribe, "**")
		w.wants("subscribe", "answer 1 undefined")
		w.event("a", 1)
		w.event("b", 2)
		w.wants("what the hub passes on", "event [a 1]", "event [from:a 1]", "event [b 2]", "event [from:b 2]")
		w.event("*", 1)
		w.event("service:expose", 1)
		w.wants("what it does not")
	})
}

// TestLentEvent checks that an inline handler gets an event where it was read, and what
// becomes of those who keep it.
func TestLentEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		var kept, cloned []pubsub.Event
		subscribeAt(t, w, "a", func(_ context.Context, e pubsub.Event) (any, error) {
			kept, cloned = append(kept, e), append(cloned, e.Clone())
			return nil, nil
		}, SubscribeInline())
		for i := range 3 {
			w.event("a", i)
		}
		synctest.Wait()
		for i := range 3 {
			var got int
			if err := cloned[i].Decode(&got); err != nil || got != i {
				t.Errorf("clone %d has %d, %v", i, got, err)
			}
			if args, err := kept[i].Args(); err != nil || len(args) != 0 {
				t.Errorf("event %d has the arguments %v, %v after its handler", i, args, err)
			}
			if p, ok := cloned[i].Payload().(EncodedArgs); !ok {
				t.Errorf("clone %d has a payload of type %T", i, cloned[i].Payload())
			} else if raw, n := p.Encoded(); n != 1 || len(raw) != 1 || raw[0] != byte(i) {
				t.Errorf("clone %d has the bytes %x of %d arguments", i, raw, n)
			}
		}
		w.wantOpen("at the end")
	})
}
