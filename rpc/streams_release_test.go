package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/stream"
)

// wantReleased checks that the method count was told that nobody wants its stream, at once.
func (w *streamWorld) wantReleased(t *testing.T, why string) {
	t.Helper()
	synctest.Wait()
	select {
	case got := <-w.service.released:
		if got != "count" {
			t.Errorf("%s: released %q, want count", why, got)
		}
	default:
		t.Errorf("%s: it was not released", why)
	}
	w.wantNothing(t)
}

// before returns middleware that asks first whether to answer in place of the rest.
func before(fn func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error)) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (codec.Raw, error) {
			if r.Op() != OpCall {
				return next(ctx, r)
			}
			return fn(ctx, func(ctx context.Context) (codec.Raw, error) { return next(ctx, r) })
		}
	}
}

// TestStreamsThatNobodyTakes has methods return streams to callers who want none, or whose
// middleware keeps them.
func TestStreamsThatNobodyTakes(t *testing.T) {
	pass := before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
		return next(ctx)
	})
	fails := before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
		_, err := next(ctx)
		return nil, errors.Join(err, Errorf(Aborted, "no"))
	})
	replaces := before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
		_, err := next(ctx)
		return codec.AppendInt(nil, 7), err
	})
	const many = 1 << 30
	takes := map[string]func(ctx context.Context, w *streamWorld) error{
		"nothing": func(ctx context.Context, w *streamWorld) error { return w.stub.Call(ctx, "count", nil, many) },
		"a number": func(ctx context.Context, w *streamWorld) error {
			var n int
			return w.stub.Call(ctx, "count", &n, many)
		},
		"a func": func(ctx context.Context, w *streamWorld) error {
			done := make(chan error)
			if err := w.stub.CallFunc(ctx, "count", func(_ context.Context, _ *Reply, err error) { go func() { done <- err }() }, many); err != nil {
				return err
			}
			return <-done
		},
		"a future": func(ctx context.Context, w *streamWorld) error { return w.stub.Go(ctx, "count", nil, many).Wait(ctx) },
		"a typed method": func(ctx context.Context, w *streamWorld) error {
			_, err := Method[struct{ N int }, struct{}](w.stub, "count")(ctx, struct{ N int }{many})
			return err
		},
		"a stream": func(ctx context.Context, w *streamWorld) error {
			var seq iter.Seq2[int, error]
			return w.stub.Call(ctx, "count", &seq, many)
		},
	}
	for _, tt := range []struct {
		name         string
		client, serv Middleware
		of           string // who takes it, "" for all but a stream
	}{
		{name: "no middleware"},
		{name: "middleware", client: pass},
		{name: "middleware that fails", client: fails, of: "a stream"},
		{name: "middleware that replaces the result", client: replaces, of: "a stream"},
		{name: "middleware of the service that fails", serv: fails, of: "a stream"},
		{name: "middleware of the service that replaces the result", serv: replaces, of: "a stream"},
		{name: "middleware of the service", serv: replaces},
	} {
		for name, take := range takes {
			if tt.of != name && (tt.of != "" || name == "a stream") {
				continue
			}
			t.Run(tt.name+"/"+name, func(t *testing.T) {
				inStreamWorld(t, func(t *testing.T, w *streamWorld) {
					if tt.client != nil {
						w.near.UseOutgoing(tt.client)
					}
					if tt.serv != nil {
						w.far.Use(tt.serv)
					}
					err := take(t.Context(), w)
					if tt.serv == nil {
						w.wantReleased(t, fmt.Sprint("the caller got ", err))
					}
					w.wantNothing(t)
				})
			})
		}
	}
	t.Run("one of two", func(t *testing.T) {
		inStreamWorld(t, func(t *testing.T, w *streamWorld) {
			w.near.UseOutgoing(before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
				if _, err := next(ctx); err != nil {
					return nil, err
				}
				return next(ctx)
			}))
			n := 0
			for v, err := range w.client.Count(t.Context(), many) {
				if n++; err != nil || v != n-1 {
					t.Fatalf("item %d = %d, %v", n-1, v, err)
				}
				if n == 1000 {
					synctest.Wait()
					if len(w.service.released) != 1 {
						t.Errorf("%d streams were released, want that of the first answer", len(w.service.released))
					}
					break
				}
			}
			<-w.service.released
			w.wantReleased(t, "the second")
		})
	})
}

// TestStreamOutlivesItsCall checks that the limits of middleware and of attempts hold for the
// call, and not for the stream that it returns.
func TestStreamOutlivesItsCall(t *testing.T) {
	limit := before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return next(ctx)
	})
	slow := func(t *testing.T, seq iter.Seq2[int, error]) {
		t.Helper()
		n := 0
		for v, err := range seq {
			if err != nil || v != n {
				t.Fatalf("item %d = %d, %v", n, v, err)
			}
			if time.Sleep(time.Minute); n == 2 {
				break
			}
			n++
		}
	}
	for name, where := range map[string]func(w *streamWorld){
		"caller":  func(w *streamWorld) { w.near.UseOutgoing(limit) },
		"service": func(w *streamWorld) { w.far.Use(limit) },
	} {
		t.Run(name, func(t *testing.T) {
			inStreamWorld(t, func(t *testing.T, w *streamWorld) {
				where(w)
				if err := w.far.Expose("slow@1.0.0", slowly{}); err != nil {
					t.Fatal(err)
				}
				stub, err := w.peer.Service(t.Context(), "slow")
				if err != nil {
					t.Fatal(err)
				}
				var seq iter.Seq2[int, error]
				if err := stub.Call(t.Context(), "count", &seq); err != nil {
					t.Fatal(err)
				}
				slow(t, seq)
				// The limit of the caller holds for both.
				ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
				defer cancel()
				if err := stub.Call(ctx, "count", &seq); err != nil {
					t.Fatal(err)
				}
				if all, err := collect(seq); len(all) != 2 || CodeOf(err) != DeadlineExceeded {
					t.Errorf("a stream with 90 s = %v, %v, want two items and deadline_exceeded", all, err)
				}
				w.wantNothing(t)
			})
		})
	}
	t.Run("second attempt", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			w := newDialledWorld(t)
			var tries atomic.Int32
			w.near.UseOutgoing(before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
				if tries.Add(1) == 1 {
					return nil, callError(&mux.LostError{})
				}
				return next(ctx)
			}))
			var seq iter.Seq2[int, error]
			if err := w.stub.Call(Idempotent(t.Context()), "count", &seq); err != nil {
				t.Fatal(err)
			}
			slow(t, seq)
		})
	})
}

// slowly has streams with pauses.
type slowly struct{}

func (slowly) Count(ctx context.Context) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := 0; yield(i, nil); i++ {
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
				yield(0, context.Cause(ctx))
				return
			}
		}
	}
}

// Lose ends the connection when it has read an item.
func (slowly) Lose(ctx context.Context, items iter.Seq2[int, error]) error {
	for range items {
		PeerFrom(ctx).link().Close(closeNormal, "")
	}
	return nil
}

// dialledWorld is a peer that reconnects, and the service at its other side.
type dialledWorld struct {
	near, far *Endpoint
	peer      *Peer
	stub      *Stub
}

func newDialledWorld(t *testing.T) *dialledWorld {
	t.Helper()
	w := &dialledWorld{near: newEndpoint(t, Config{ID: "near"}), far: newEndpoint(t, Config{ID: "far"})}
	if err := w.far.Expose("slow@1.0.0", slowly{}); err != nil {
		t.Fatal(err)
	}
	w.peer = w.near.NewDialled(Redial{Dial: func(ctx context.Context, _ int) error {
		meet(w.peer, w.far)
		return w.peer.Adopt(ctx)
	}})
	t.Cleanup(func() { _ = w.peer.Close() })
	if err := w.peer.Connect(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	var err error
	if w.stub, err = w.peer.Service(t.Context(), "slow"); err != nil {
		t.Fatal(err)
	}
	return w
}

// TestUsedStreamsAreNotSentAgain loses a call with a stream in its second attempt.
func TestUsedStreamsAreNotSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newDialledWorld(t)
		var tries atomic.Int32
		w.near.UseOutgoing(before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
			if tries.Add(1) == 1 {
				return nil, callError(&mux.LostError{})
			}
			return next(ctx)
		}))
		err := w.stub.Call(Idempotent(t.Context()), "lose", nil, numbers(1))
		if CodeOf(err) != Unavailable || tries.Load() != 2 {
			t.Errorf("call = %v after %d attempts, want it lost in the second", err, tries.Load())
		}
		if sent, known := WasSent(err); !sent || !known {
			t.Errorf("WasSent = %t, %t, want true and known", sent, known)
		}
	})
}

// TestRefusedStreams refuses calls with streams before a handler has seen them.
func TestRefusedStreams(t *testing.T) {
	const window = 1000
	for name, prepare := range map[string]func(w *streamWorld) (undo func()){
		"overloaded": func(w *streamWorld) func() {
			busy := make(chan struct{})
			go func() {
				defer close(busy)
				_ = w.stub.Call(context.Background(), "blocks", nil)
			}()
			synctest.Wait()
			return func() {
				close(w.service.gate)
				<-busy
			}
		},
		"draining": func(w *streamWorld) func() { w.back.link().Refuse(); return func() {} },
		"no admittance": func(w *streamWorld) func() {
			w.far.Use(before(func(context.Context, func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
				return nil, Errorf(PermissionDenied, "no")
			}))
			return func() {}
		},
		"concealed": func(w *streamWorld) func() { _ = w.far.Conceal("streamer@1.0.0"); return func() {} },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newStreamWorld(t, Config{MaxRequests: 1, Streams: StreamConfig{Window: window, MaxStreams: 10}})
				undo := prepare(w)
				for range 100 { // more than may be open at a time
					if n, err := w.client.Upload(t.Context(), "x", io.LimitReader(counting{}, 1<<20)); err == nil {
						t.Fatalf("Upload = %d, want an error", n)
					}
					synctest.Wait()
				}
				undo()
				w.wantNothing(t)
			})
		})
	}
}

func (s *streamer) Blocks(context.Context) error {
	<-s.gate
	return nil
}

// Uploads returns a service with streams.
func (s *streamer) Uploads(context.Context) (*Service, error) {
	return NewServiceOf("uploads", &uploads{})
}

type uploads struct{}

func (*uploads) Upload(_ context.Context, body io.Reader) (int64, error) {
	time.Sleep(time.Second) // the chunks come
	return io.Copy(io.Discard, body)
}

func (*uploads) Misfit(context.Context, int, io.Reader) {}

// TestStreamsOfNestedServices sends more to services without a name than may come of streams that
// were not announced.
func TestStreamsOfNestedServices(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		if err := w.far.Peers()[0].Expose("private@1.0.0", &uploads{}); err != nil {
			t.Fatal(err)
		}
		private, err := w.peer.Service(t.Context(), "private")
		if err != nil {
			t.Fatal(err)
		}
		var nested *Stub
		if err := w.stub.Call(t.Context(), "uploads", &nested); err != nil {
			t.Fatal(err)
		}
		const size = 400_000
		for name, stub := range map[string]*Stub{"nested": nested, "private": private} {
			errs := make(chan error, 8)
			for range cap(errs) {
				go func() {
					var n int64
					err := stub.Call(t.Context(), "upload", &n, io.LimitReader(counting{}, size))
					if err == nil && n != size {
						err = fmt.Errorf("%d bytes", n)
					}
					errs <- err
				}()
			}
			for range cap(errs) {
				if err := <-errs; err != nil {
					t.Errorf("upload to the %s service: %v", name, err)
				}
			}
			if err := stub.Call(t.Context(), "misfit", nil, "x", io.LimitReader(counting{}, size)); CodeOf(err) != InvalidArgument {
				t.Errorf("misfit of the %s service = %v, want invalid_argument", name, err)
			}
			w.wantNothing(t)
		}
		if err := nested.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// TestDuplexCloseWhileSending closes a duplex, or returns, while another goroutine waits for credit.
func TestDuplexCloseWhileSending(t *testing.T) {
	for _, side := range []string{"caller", "method", "method that closes"} {
		t.Run(side, func(t *testing.T) {
			inStreamWorld(t, func(t *testing.T, w *streamWorld) {
				sent := make(chan error, 1)
				full := func(d *stream.Duplex[[]byte, []byte]) {
					go func() {
						for {
							if err := d.Send(make([]byte, 10_000)); err != nil {
								sent <- err
								return
							}
						}
					}()
					synctest.Wait()
				}
				s := NewService("full", "1.0.0")
				Func(s, "run", func(ctx context.Context, d *stream.Duplex[[]byte, []byte]) error {
					switch side {
					case "method":
						full(d)
					case "method that closes":
						full(d)
						d.Close()
						<-ctx.Done()
					default:
						<-ctx.Done()
					}
					return nil
				})
				if err := w.far.ExposeService(s); err != nil {
					t.Fatal(err)
				}
				type client struct {
					Run func(context.Context) (*stream.Duplex[[]byte, []byte], error)
				}
				c, err := Query[client](t.Context(), w.peer, "full")
				if err != nil {
					t.Fatal(err)
				}
				d, err := c.Run(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if side == "caller" {
					full(d)
					d.Close()
				}
				if err := <-sent; !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("Send = %v, want ErrClosedPipe", err)
				}
				if side == "method" {
					n := 0
					for range d.All() {
						n++
					}
					if n == 0 {
						t.Error("nothing came of what the method has sent")
					}
				}
				d.Close()
				if err := d.Send(nil); !errors.Is(err, io.ErrClosedPipe) {
					t.Errorf("Send after Close = %v, want ErrClosedPipe", err)
				}
				w.wantNothing(t)
			})
		})
	}
}

// TestSourcesThatExit ends goroutines under streams.
func TestSourcesThatExit(t *testing.T) {
	exits := func(yield func(int, error) bool) {
		yield(1, nil)
		runtime.Goexit()
	}
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		s := NewService("exits", "1.0.0")
		Func(s, "run", func(context.Context) iter.Seq2[int, error] { return exits })
		Func(s, "talk", func(context.Context, *stream.Duplex[int, int]) { runtime.Goexit() })
		if err := w.far.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		type client struct {
			Run  func(context.Context) iter.Seq2[int, error]
			Talk func(context.Context) (*stream.Duplex[int, int], error)
		}
		c, err := Query[client](t.Context(), w.peer, "exits")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if all, err := collect(c.Run(ctx)); len(all) != 1 || CodeOf(err) != Internal {
			t.Errorf("a method whose sequence exits = %v, %v, want one item and internal", all, err)
		}
		d, err := c.Talk(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Recv(); CodeOf(err) != Internal {
			t.Errorf("a talk that exits = %v, want internal", err)
		}
		if _, err := w.client.Sum(ctx, func(func(float64, error) bool) { runtime.Goexit() }); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("an argument that exits = %v, want an error at once", err)
		}
	})
}

// TestStreamBesideNil passes arguments that are nil beside a stream, and results beside streams
// that fail.
func TestStreamBesideNil(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		s := NewService("mixed", "1.0.0")
		Func(s, "any", func(_ context.Context, a any, body io.Reader, b *int) (bool, error) {
			_, err := io.Copy(io.Discard, body)
			return a == nil && b == nil, err
		})
		Func(s, "endless", func(ctx context.Context, numbers iter.Seq2[int, error]) (iter.Seq2[int, error], error) {
			for _, err := range numbers {
				_ = err // it goes on whatever comes
			}
			return w.service.Count(ctx, 1<<30), nil
		})
		Func(s, "two", func(_ context.Context, a, b iter.Seq2[int, error]) error {
			_, err := collect(a)
			_, err2 := collect(b)
			return errors.Join(err, err2)
		})
		if err := w.far.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		stub, err := w.peer.Service(ctx, "mixed")
		if err != nil {
			t.Fatal(err)
		}
		var all bool
		if err := stub.Call(ctx, "any", &all, nil, strings.NewReader("x"), nil); err != nil || !all {
			t.Errorf("nil beside a stream = %t, %v", all, err)
		}
		if err := stub.Call(ctx, "any", &all, nil, strings.NewReader("x")); err != nil || !all {
			t.Errorf("nil before a stream = %t, %v", all, err)
		}
		if err := stub.Call(ctx, "any", &all, 1, nil); CodeOf(err) != InvalidArgument {
			t.Errorf("nil for a stream = %v, want invalid_argument", err)
		}
		var seq iter.Seq2[int, error]
		broken := errors.New("broken")
		fails := func(yield func(int, error) bool) { yield(0, broken) }
		if err := stub.Call(ctx, "endless", &seq, iter.Seq2[int, error](fails)); !errors.Is(err, broken) {
			t.Errorf("endless with a broken source = %v, want its error", err)
		}
		w.wantReleased(t, "the call has failed")
		waits := make(chan int)
		if err := stub.Call(ctx, "two", nil, iter.Seq2[int, error](fails), (<-chan int)(waits)); !errors.Is(err, broken) {
			t.Errorf("one of two fails = %v, want its error", err)
		}
	})
}

// TestAnnouncedStreamsAreNotEarly has chunks come before anybody has looked at what announces
// them, whatever the length of the reference, which holds the id of the peer.
func TestAnnouncedStreamsAreNotEarly(t *testing.T) {
	for n := range 20 {
		synctest.Test(t, func(t *testing.T) {
			cfg := Config{ID: strings.Repeat("x", n+1), Streams: StreamConfig{MaxEarlyBytes: 1}}
			w := linked{near: newEndpoint(t, cfg), far: newEndpoint(t, cfg)}
			w = link(t, w.near, w.far)
			if err := w.far.Expose("streamer@1.0.0", newStreamer()); err != nil {
				t.Fatal(err)
			}
			late := before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
				defer time.Sleep(time.Second)
				return next(ctx)
			})
			w.near.UseOutgoing(late)
			client, err := Query[streamerClient](t.Context(), w.peer, "streamer")
			if err != nil {
				t.Fatal(err)
			}
			if all, err := collect(client.Count(t.Context(), 100)); len(all) != 100 || err != nil {
				t.Errorf("an id of %d bytes: %d items, %v, want 100", n+1, len(all), err)
			}
		})
	}
}

// TestUnseenEnds cuts streams short whose forms have no place for an error: the method takes that
// for their end, and its caller must not.
func TestUnseenEnds(t *testing.T) {
	limit := before(func(ctx context.Context, next func(context.Context) (codec.Raw, error)) (codec.Raw, error) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		return next(ctx)
	})
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		s := NewService("unseen", "1.0.0")
		s.Use(limit)
		type ints = iter.Seq2[int, error]
		Func(s, "chan", func(_ context.Context, c <-chan int) (n int) {
			for range c {
				n++
			}
			return n
		})
		Func(s, "seq", func(_ context.Context, seq iter.Seq[int]) (n int) {
			for range seq {
				n++
			}
			return n
		})
		Func(s, "late", func(ctx context.Context, c <-chan int) (n int) {
			<-ctx.Done() // with items that wait
			for range c {
				n++
			}
			return n
		})
		Func(s, "pass", func(_ context.Context, c <-chan int) ints {
			return func(yield func(int, error) bool) {
				for v := range c {
					if !yield(v, nil) {
						return
					}
				}
			}
		})
		if err := w.far.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		stub, err := w.peer.Service(ctx, "unseen")
		if err != nil {
			t.Fatal(err)
		}
		slow := func(yield func(int, error) bool) {
			for i := 0; i < 20 && yield(i, nil); i++ {
				time.Sleep(100 * time.Millisecond)
			}
		}
		for _, method := range []string{"chan", "seq", "late"} {
			n := 0
			if err := stub.Call(ctx, method, &n, ints(slow)); CodeOf(err) != DeadlineExceeded {
				t.Errorf("%s = %d, %v, want deadline_exceeded", method, n, err)
			}
			synctest.Wait()
		}
		broken := Errorf(NotFound, "broken")
		fails := func(yield func(int, error) bool) {
			_ = yield(1, nil)
			time.Sleep(time.Second)
			yield(0, broken)
		}
		var seq ints
		if err := stub.Call(ctx, "pass", &seq, ints(fails)); err != nil {
			t.Fatal(err)
		}
		if all, err := collect(seq); len(all) != 1 || CodeOf(err) != NotFound {
			t.Errorf("what was passed on = %v, %v, want one item and why the source has failed", all, err)
		}
	})
}

// TestSourceIsClosedOnce ends downloads in each way.
func TestSourceIsClosedOnce(t *testing.T) {
	for name, end := range map[string]func(w *streamWorld, body io.ReadCloser, cancel func()){
		"read":     func(_ *streamWorld, body io.ReadCloser, _ func()) { _, _ = io.Copy(io.Discard, body) },
		"closed":   func(_ *streamWorld, body io.ReadCloser, _ func()) { body.Close(); body.Close() },
		"canceled": func(_ *streamWorld, _ io.ReadCloser, cancel func()) { cancel() },
		"caller":   func(w *streamWorld, _ io.ReadCloser, _ func()) { w.peer.Close() },
		"service":  func(w *streamWorld, _ io.ReadCloser, _ func()) { w.back.Close() },
		"closed late": func(w *streamWorld, body io.ReadCloser, _ func()) {
			time.AfterFunc(time.Minute, func() { body.Close() })
			_ = w.far.Drain(context.Background()) // waits for it
		},
		"closed while it is read": func(_ *streamWorld, body io.ReadCloser, _ func()) {
			time.AfterFunc(time.Minute, func() { body.Close() })
			if _, err := io.ReadAll(io.LimitReader(body, 1<<30)); !errors.Is(err, io.ErrClosedPipe) {
				panic(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inStreamWorld(t, func(t *testing.T, w *streamWorld) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				var closed atomic.Int32
				s := NewService("once", "1.0.0")
				Func(s, "get", func(ctx context.Context) (io.Reader, error) {
					r := io.Reader(strings.NewReader(strings.Repeat("x", 3<<20)))
					if name == "closed while it is read" {
						r = io.MultiReader(r, readerFunc(func([]byte) (int, error) { <-ctx.Done(); return 0, ctx.Err() }))
					}
					return closer{r, func() { closed.Add(1) }}, nil
				})
				if err := w.far.ExposeService(s); err != nil {
					t.Fatal(err)
				}
				stub, err := w.peer.Service(ctx, "once")
				if err != nil {
					t.Fatal(err)
				}
				var body io.ReadCloser
				if err := stub.Call(ctx, "get", &body); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				end(w, body, cancel)
				synctest.Wait()
				if n := closed.Load(); n != 1 {
					t.Errorf("the source was closed %d times, want once", n)
				}
				w.wantNothing(t)
			})
		})
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// grenade is an item that panics when it is decoded.
type grenade struct{}

func (*grenade) DecodeNetron(*codec.Decoder) error { panic("a secret") }

// TestStreamPanicsElsewhere panics in code of the application that no goroutine of its own runs:
// in a method of an item for a channel, and in Close of what a method has returned.
func TestStreamPanicsElsewhere(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		s := NewService("grenades", "1.0.0")
		Func(s, "take", func(_ context.Context, c <-chan grenade) int {
			n := 0
			for range c {
				n++
			}
			return n
		})
		Func(s, "give", func(context.Context) (io.ReadCloser, error) {
			return closer{strings.NewReader("x"), func() { panic("a secret") }}, nil
		})
		if err := w.far.ExposeService(s); err != nil {
			t.Fatal(err)
		}
		stub, err := w.peer.Service(ctx, "grenades")
		if err != nil {
			t.Fatal(err)
		}
		if err := stub.Call(ctx, "take", nil, numbers(3)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Call(take) = %v, want an error without the text of the panic", err)
		}
		var r io.Reader
		if err := stub.Call(ctx, "give", &r); err != nil {
			t.Fatal(err)
		}
		if p, err := io.ReadAll(r); string(p) != "x" || err != nil {
			t.Errorf("give = %q, %v, want x", p, err)
		}
		var c <-chan grenade
		if err := w.stub.Call(ctx, "count", &c, 3); err != nil {
			t.Fatal(err)
		}
		for range c {
			t.Error("an item that panics was passed on")
		}
		<-w.service.released
	})
}
