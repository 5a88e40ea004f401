package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
)

// ignore is a handler that does nothing.
func ignore(context.Context, pubsub.Event) (any, error) { return nil, nil }

// wantForgotten checks that nothing is left of the subscriptions to the events of a peer.
func wantForgotten(t *testing.T, p *Peer) {
	t.Helper()
	synctest.Wait()
	in := p.inbox.Load()
	if in == nil {
		return
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.wanted)+len(in.inline)+len(in.bus.Patterns()) != 0 {
		t.Errorf("%d patterns are wanted, %d handlers are inline, the bus has %q; want nothing", len(in.wanted), len(in.inline), in.bus.Patterns())
	}
}

// TestOneTaskForAll checks that the peer is asked once, however many subscriptions there
// are, and told when the last one has gone.
func TestOneTaskForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNode)
		var wg sync.WaitGroup
		var subs []*PeerSubscription
		var mu sync.Mutex
		for i := range 5 {
			wg.Go(func() {
				opts := []SubscribeOption{SubscribeInline()}
				s, err := w.peer.Subscribe(t.Context(), "a", ignore, opts[:i%2]...)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				subs = append(subs, s)
			})
		}
		w.agree(taskSubscribe, "a")
		wg.Wait()
		w.wants("the others")
		for i, s := range subs {
			if i == len(subs)-1 {
				go func() { _ = s.Unsubscribe(t.Context()) }()
				w.agree(taskUnsubscribe, "a")
			} else if err := s.Unsubscribe(t.Context()); err != nil {
				t.Error(err)
			}
			if err := s.Unsubscribe(t.Context()); err != nil {
				t.Errorf("a second Unsubscribe = %v", err)
			}
		}
		w.wants("at the end")
		wantForgotten(t, w.peer)
	})
}

// TestSubscribeRefused checks what the caller learns, and that nothing stays behind.
func TestSubscribeRefused(t *testing.T) {
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	for name, tt := range map[string]struct {
		greeting string
		ctx      context.Context //nolint:containedctx // of the call
		pattern  string
		handler  pubsub.Handler
		opts     []SubscribeOption
		says     []string // of the endpoint
		answer   any      // to the first of these; nil for none
		want     Code
	}{
		"by the peer":      {greetNetron, nil, "a", ignore, nil, []string{"task 1 [subscribe a]"}, Errorf(PermissionDenied, "no"), PermissionDenied},
		"by Node":          {greetNode, nil, "a", ignore, nil, []string{"task 1 [subscribe a]"}, Errorf(ResourceExhausted, "no"), ResourceExhausted},
		"no patterns":      {greetNode, nil, "a:*", ignore, nil, nil, nil, Unimplemented},
		"no pattern":       {greetNetron, nil, "a**", ignore, nil, nil, nil, InvalidArgument},
		"empty":            {greetNetron, nil, "", ignore, nil, nil, nil, InvalidArgument},
		"too long":         {greetNetron, nil, strings.Repeat("x", 300), ignore, nil, nil, nil, InvalidArgument},
		"no handler":       {greetNetron, nil, "a", nil, nil, nil, nil, InvalidArgument},
		"blocking":         {greetNetron, nil, "a", ignore, []SubscribeOption{SubscribeBuffer(1, pubsub.Block)}, nil, nil, InvalidArgument},
		"too late":         {greetNetron, canceled, "a", ignore, nil, nil, nil, Canceled},
		"without a answer": {greetNode, nil, "a", ignore, nil, []string{"task 1 [subscribe a]"}, nil, DeadlineExceeded},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWirePeer(t, Config{}, tt.greeting)
				ctx := tt.ctx
				if ctx == nil {
					ctx = t.Context()
				}
				for _, iterate := range []bool{false, true} {
					if tt.handler == nil && iterate {
						continue
					}
					errc := make(chan error, 1)
					go func() {
						if !iterate {
							_, err := w.peer.Subscribe(ctx, tt.pattern, tt.handler, tt.opts...)
							errc <- err
							return
						}
						for _, err := range w.peer.Events(ctx, tt.pattern, tt.opts...) {
							errc <- err
						}
					}()
					synctest.Wait()
					w.mu.Lock()
					id := w.lastID
					w.mu.Unlock()
					says := slices.Clone(tt.says)
					for i := range says {
						says[i] = strings.Replace(says[i], "task 1", fmt.Sprint("task ", id), 1)
					}
					w.wants("Subscribe", says...)
					if tt.answer != nil {
						w.answer(id, tt.answer)
					}
					if err := <-errc; CodeOf(err) != tt.want {
						t.Errorf("Subscribe = %v, want %v", err, tt.want)
					}
					if tt.want == DeadlineExceeded { // the peer may have heard it
						w.agree(taskUnsubscribe, tt.pattern)
					}
				}
				w.wants("at the end")
				wantForgotten(t, w.peer)
			})
		})
	}
}

// TestRacingSubscriptions checks that the peer knows in the end what is wanted, whoever
// subscribes and unsubscribes meanwhile, and whatever gets lost.
func TestRacingSubscriptions(t *testing.T) {
	for round := range 20 {
		synctest.Test(t, func(t *testing.T) {
			publisher, subscriber := newEndpoint(t, Config{ID: "publisher"}), newEndpoint(t, Config{ID: "subscriber"})
			p := subscriber.NewPeer(true)
			meet(p, publisher)
			defer p.Close()
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					for j := range 20 {
						ctx, cancel := context.WithCancel(t.Context())
						if (i+j)%5 == 0 {
							go cancel() // perhaps at once, perhaps too late
						}
						if s, err := p.Subscribe(ctx, "a", ignore, SubscribeInline()); err == nil {
							_ = s.Unsubscribe(ctx) // another one sees to it
						}
						cancel()
						runtime.Gosched()
					}
				})
			}
			wg.Wait()
			wantForgotten(t, p)
			if got := publisher.Bus().Patterns(); len(got) != 0 {
				t.Errorf("at the end the publisher has %q", got)
			}
			s, err := p.Subscribe(t.Context(), "a", ignore)
			if got := publisher.Bus().Patterns(); err != nil || !slices.Equal(got, []string{"a"}) {
				t.Errorf("round %d: Subscribe = %v, the publisher has %q", round, err, got)
			}
			_ = s.Unsubscribe(t.Context())
		})
	}
}

// TestUnsubscribeIsNotOvertaken checks that who subscribes while the peer is told that
// nobody does waits for its answer.
func TestUnsubscribeIsNotOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		s := subscribeAt(t, w, "a", ignore)
		go func() { _ = s.Unsubscribe(t.Context()) }()
		synctest.Wait()
		id := w.lastID
		w.wants("Unsubscribe", fmt.Sprint("task ", id, " [unsubscribe a]"))
		again := make(chan error, 1)
		go func() {
			_, err := w.peer.Subscribe(t.Context(), "a", ignore)
			again <- err
		}()
		w.wants("a Subscribe that waits")
		w.answer(id, codec.Undefined{})
		w.agree(taskSubscribe, "a")
		if err := <-again; err != nil {
			t.Error(err)
		}
	})
}

// TestHandlers checks under which context handlers run, and what becomes of their
// mistakes.
func TestHandlers(t *testing.T) {
	for _, opts := range [][]SubscribeOption{nil, {SubscribeInline()}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWirePeer(t, Config{}, greetNetron)
			w.peer.SetUser("ann")
			n := 0
			s := subscribeAt(t, w, "a", func(ctx context.Context, e pubsub.Event) (any, error) {
				if PeerFrom(ctx) != w.peer || UserFrom(ctx) != "ann" {
					t.Errorf("the handler of %s sees peer %v, user %v", e.Name(), PeerFrom(ctx), UserFrom(ctx))
				}
				switch n++; n {
				case 1:
					panic("of a handler")
				case 2:
					return 7, errHandler
				}
				return 7, nil
			}, opts...)
			for range 3 {
				w.event("a", 1)
				w.wants("nothing is answered")
			}
			if log := w.log.String(); n != 3 || strings.Count(log, "level=ERROR") != 2 || !strings.Contains(log, "of a handler") {
				t.Errorf("%d events, want 3; logged:\n%s", n, log)
			}
			go func() { _ = s.Unsubscribe(t.Context()) }()
			w.agree(taskUnsubscribe, "a")
			w.event("a", 1)
			w.wants("after Unsubscribe")
			if n != 3 {
				t.Errorf("%d events, want 3", n)
			}
			wantForgotten(t, w.peer)
		})
	}
}

// TestHandlerUnsubscribes checks that a handler may end its own subscription, under its
// own context.
func TestHandlerUnsubscribes(t *testing.T) {
	for _, opts := range [][]SubscribeOption{nil, {SubscribeInline()}} {
		synctest.Test(t, func(t *testing.T) {
			w := newWirePeer(t, Config{}, greetNetron)
			var s *PeerSubscription
			n := 0
			s = subscribeAt(t, w, "a", func(ctx context.Context, _ pubsub.Event) (any, error) {
				n++
				if err := s.Unsubscribe(ctx); err != nil {
					t.Errorf("Unsubscribe = %v", err)
				}
				return nil, nil
			}, opts...)
			w.event("a")
			w.event("a")
			w.agree(taskUnsubscribe, "a")
			w.event("a")
			if synctest.Wait(); n != 1 {
				t.Errorf("%d events, want 1", n)
			}
			wantForgotten(t, w.peer)
		})
	}
}

// TestInlineHandlerMustNotBlock checks that what could block is refused.
func TestInlineHandlerMustNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		var errs []error
		subscribeAt(t, w, "a", func(ctx context.Context, _ pubsub.Event) (any, error) {
			_, err := w.peer.Subscribe(ctx, "b", ignore)
			errs = append(errs, err, w.peer.RunTask(ctx, "x", nil))
			return nil, nil
		}, SubscribeInline())
		w.event("a")
		w.wants("no task")
		for _, err := range errs {
			if !errors.Is(err, mux.ErrWouldBlock) {
				t.Errorf("got %v, want ErrWouldBlock", err)
			}
		}
	})
}

// TestLosses checks what subscriptions learn of events that they have not got.
func TestLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		a, b := subscribeAt(t, w, "a", ignore, SubscribeInline()), subscribeAt(t, w, "b:*", ignore)
		var got []string
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			for e, err := range w.peer.Events(ctx, "a", SubscribeBuffer(2, pubsub.DropNewest)) {
				lost, isLost := errors.AsType[*pubsub.LostError](err)
				switch {
				case isLost:
					got = append(got, fmt.Sprint("-", lost.Count))
				case err != nil:
					done <- err
				default:
					args, _ := e.Args()
					got = append(got, fmt.Sprint(args...))
					time.Sleep(time.Second)
				}
			}
		}()
		synctest.Wait()
		w.event("a", 1)
		synctest.Wait()
		for i := range 4 {
			w.event("a", 2+i)
		}
		w.event(nil, "a", 3)
		w.event("a", 9)
		w.event(nil, "b:x", 5)
		w.event(nil, "unknown", 7)
		time.Sleep(10 * time.Second)
		w.event(nil, mux.OtherEvents, 100)
		w.event("a", 10)
		time.Sleep(10 * time.Second)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the iteration ended with %v", err)
		}
		if want := []string{"1", "2", "3", "-6", "-100", "10"}; !slices.Equal(got, want) {
			t.Errorf("the iteration had %q, want %q", got, want)
		}
		if a.Lost() != 103 || b.Lost() != 105 {
			t.Errorf("lost %d and %d, want 103 and 105", a.Lost(), b.Lost())
		}
		w.wants("a still has a subscription")
	})
}

// TestSlowHandlerIsCutOff checks that a subscription which ends because it is slow is
// taken back at the peer.
func TestSlowHandlerIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWirePeer(t, Config{}, greetNetron)
		gate := make(chan struct{})
		n := 0
		subscribeAt(t, w, "a", func(context.Context, pubsub.Event) (any, error) {
			n++
			<-gate
			return nil, nil
		}, SubscribeBuffer(2, pubsub.Disconnect))
		w.event("a")
		synctest.Wait()
		for range 3 {
			w.event("a")
		}
		close(gate)
		w.agree(taskUnsubscribe, "a")
		if log := w.log.String(); n != 3 || !strings.Contains(log, "too slow") {
			t.Errorf("%d events, want 3; logged: %s", n, log)
		}
		wantForgotten(t, w.peer)
	})
}

// TestEndOfSubscriptions checks that subscriptions end with the peer, and with the
// endpoint.
func TestEndOfSubscriptions(t *testing.T) {
	for name, end := range map[string]func(*wirePeer) error{
		"connection": func(w *wirePeer) error { w.end(); return nil },
		"endpoint":   func(w *wirePeer) error { w.end(); return w.e.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWirePeer(t, Config{}, greetNetron)
				ended := make(chan error, 1)
				go func() {
					var last error
					for _, err := range w.peer.Events(context.Background(), "a") {
						last = err
					}
					ended <- last
				}()
				w.agree(taskSubscribe, "a")
				running := false
				s := subscribeAt(t, w, "b", func(ctx context.Context, _ pubsub.Event) (any, error) {
					running = true
					defer func() { running = false }()
					time.Sleep(time.Second)
					return nil, ctx.Err()
				})
				if _, err := w.peer.Subscribe(t.Context(), "b", ignore, SubscribeInline()); err != nil {
					t.Error(err)
				}
				w.event("b")
				synctest.Wait()
				if err := end(w); err != nil {
					t.Error(err)
				}
				if err := <-ended; CodeOf(err) != Unavailable || !errors.Is(err, errWireLost) {
					t.Errorf("the iteration ended with %v, want why the peer did", err)
				}
				if name == "endpoint" && running {
					t.Error("Close has not waited for a handler")
				}
				if _, err := w.peer.Subscribe(t.Context(), "a", ignore); CodeOf(err) != Unavailable {
					t.Errorf("Subscribe at the end = %v", err)
				}
				if err := s.Unsubscribe(t.Context()); err != nil {
					t.Errorf("Unsubscribe at the end = %v", err)
				}
				time.Sleep(time.Second)
				wantForgotten(t, w.peer)
			})
		})
	}
}

// TestCloseLeavesHandlersBehind checks that a handler of events which ignores the end of
// its context holds up the end of the endpoint only for the time that all have.
func TestCloseLeavesHandlersBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ends [2]*Endpoint
		for i, id := range []string{"a", "b"} {
			e, err := NewEndpoint(Config{ID: id})
			if err != nil {
				t.Fatal(err)
			}
			ends[i] = e
		}
		near, _ := join(ends[0], ends[1])
		started, release := make(chan struct{}), make(chan struct{})
		if _, err := near.Subscribe(t.Context(), "a", func(context.Context, pubsub.Event) (any, error) {
			close(started)
			<-release
			return nil, nil
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := ends[1].Bus().EmitParallel(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}
		<-started
		_ = near.Close()
		start := time.Now()
		if err := ends[0].Close(); err == nil {
			t.Error("Close does not say that a handler was left behind")
		}
		if took := time.Since(start); took < workersGrace || took > workersGrace+time.Second {
			t.Errorf("Close took %v, want about %v", took, workersGrace)
		}
		close(release)
		if err := ends[1].Close(); err != nil {
			t.Error(err)
		}
	})
}
