package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/d-e-v-grid/netron/stream"
)

// price is an item that nobody registered.
type price struct {
	Symbol string
	Value  float64
}

// streamer has a method for each form of stream.
type streamer struct {
	released chan string   // who was released
	gate     chan struct{} // lets some methods go on
}

func newStreamer() *streamer {
	return &streamer{released: make(chan string, 8), gate: make(chan struct{})}
}

func (s *streamer) Count(_ context.Context, n int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		defer func() { s.released <- "count" }()
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func (s *streamer) Prices(_ context.Context, symbols []string) (iter.Seq[price], error) {
	if len(symbols) == 0 {
		return nil, Errorf(InvalidArgument, "no symbols")
	}
	return func(yield func(price) bool) {
		for i, symbol := range symbols {
			if !yield(price{symbol, float64(i)}) {
				return
			}
		}
	}, nil
}

func (s *streamer) Ticks(ctx context.Context, n int) (<-chan int, error) {
	c := make(chan int)
	go func() {
		defer close(c)
		for i := range n {
			select {
			case c <- i:
			case <-ctx.Done():
				s.released <- "ticks"
				return
			}
		}
	}()
	return c, nil
}

type closer struct {
	io.Reader
	closed func()
}

func (c closer) Close() error { c.closed(); return nil }

func (s *streamer) Download(_ context.Context, n int) (io.ReadCloser, error) {
	return closer{io.LimitReader(counting{}, int64(n)), func() { s.released <- "download" }}, nil
}

// counting reads octets that never end.
type counting struct{}

func (counting) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

func (s *streamer) Produce(_ context.Context, n int) (io.Reader, error) {
	return stream.Bytes(func(_ context.Context, w *stream.Writer) error {
		for i := range n {
			p, err := w.Reserve(10)
			if err != nil {
				return err
			}
			if err := w.Commit(copy(p, fmt.Sprint(i, " "))); err != nil {
				return err
			}
		}
		return nil
	}), nil
}

func (s *streamer) Upload(_ context.Context, _ string, body io.Reader) (int64, error) {
	return io.Copy(io.Discard, body)
}

func (s *streamer) Sum(_ context.Context, numbers iter.Seq2[float64, error]) (float64, error) {
	sum := 0.0
	for v, err := range numbers {
		if err != nil {
			return 0, err
		}
		sum += v
	}
	return sum, nil
}

func (s *streamer) SumPrices(_ context.Context, prices iter.Seq[price]) float64 {
	sum := 0.0
	for p := range prices {
		sum += p.Value
	}
	return sum
}

func (s *streamer) SumChan(_ context.Context, numbers <-chan int) (int, error) {
	sum := 0
	for v := range numbers {
		sum += v
	}
	return sum, nil
}

func (s *streamer) Double(_ context.Context, numbers iter.Seq2[int, error]) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for v, err := range numbers {
			if !yield(2*v, err) || err != nil {
				return
			}
		}
	}
}

func (s *streamer) Talk(_ context.Context, prefix string, d *stream.Duplex[string, string]) error {
	for line, err := range d.All() {
		if err != nil {
			return err
		}
		if line == "bye" {
			return Errorf(Aborted, "good bye")
		}
		if err := d.Send(prefix + line); err != nil {
			return err
		}
	}
	return d.Send("end")
}

// Half sends, and goes on receiving.
func (s *streamer) Half(ctx context.Context, d *stream.Duplex[int, int]) error {
	if err := d.Send(1); err != nil {
		return err
	}
	d.CloseSend()
	sum := 0
	for v, err := range d.All() {
		if err != nil {
			return err
		}
		sum += v
	}
	s.released <- fmt.Sprint("half ", sum, ctx.Err())
	return nil
}

func (s *streamer) Fails(_ context.Context, after int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range after {
			if !yield(i, nil) {
				return
			}
		}
		yield(0, &Error{Code: NotFound, Message: "no more", Details: "details", Fields: map[string]any{"n": 7.0}})
	}
}

func (s *streamer) Panics(_ context.Context) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		yield(1, nil)
		panic("a secret")
	}
}

// Waits produces until its context ends.
func (s *streamer) Waits(ctx context.Context) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		if yield(1, nil) {
			<-ctx.Done()
			s.released <- "waits: " + context.Cause(ctx).Error()
		}
	}
}

// Stops reads one number and returns.
func (s *streamer) Stops(_ context.Context, numbers iter.Seq2[int, error]) (int, error) {
	for v, err := range numbers {
		return v, err
	}
	return 0, nil
}

// streamerClient is what callers have of it.
type streamerClient struct {
	Count     func(ctx context.Context, n int) iter.Seq2[int, error]
	Prices    func(ctx context.Context, symbols []string) (iter.Seq[price], error)
	Ticks     func(ctx context.Context, n int) (<-chan int, error)
	Download  func(ctx context.Context, n int) (io.ReadCloser, error)
	Produce   func(ctx context.Context, n int) (*stream.Reader, error)
	Upload    func(ctx context.Context, name string, body io.Reader) (int64, error)
	Sum       func(ctx context.Context, numbers iter.Seq2[float64, error]) (float64, error)
	SumPrices func(ctx context.Context, prices iter.Seq2[price, error]) (float64, error)
	SumChan   func(ctx context.Context, numbers <-chan int) (int, error)
	Double    func(ctx context.Context, numbers <-chan int) (iter.Seq2[int, error], error)
	Talk      func(ctx context.Context, prefix string) (*stream.Duplex[string, string], error)
	Half      func(ctx context.Context) (*stream.Duplex[int, int], error)
	Fails     func(ctx context.Context, after int) iter.Seq2[int, error]
	Panics    func(ctx context.Context) iter.Seq2[int, error]
	Waits     func(ctx context.Context) iter.Seq2[int, error]
	Stops     func(ctx context.Context, numbers iter.Seq2[int, error]) (int, error)
}

// streamWorld is a caller and a service with streams, inside a bubble.
type streamWorld struct {
	linked
	service *streamer
	client  *streamerClient
	stub    *Stub
}

func newStreamWorld(t *testing.T, cfg Config) *streamWorld {
	t.Helper()
	near, far := cfg, cfg
	near.ID, far.ID = "near", "far"
	w := &streamWorld{service: newStreamer()}
	w.linked = link(t, newEndpoint(t, near), newEndpoint(t, far))
	if err := w.far.Expose("streamer@1.0.0", w.service); err != nil {
		t.Fatal(err)
	}
	client, err := Query[streamerClient](t.Context(), w.peer, "streamer")
	if err != nil {
		t.Fatal(err)
	}
	w.client = client
	synctest.Wait() // a request counts until its worker has done with it
	if w.stub, err = w.peer.Service(t.Context(), "streamer"); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return w
}

// wantNothing checks that no stream is left at either end.
func (w *streamWorld) wantNothing(t *testing.T) {
	t.Helper()
	synctest.Wait()
	for name, p := range map[string]*Peer{"near": w.peer, "far": w.back} {
		if writing, reading, early := p.link().Streams(); writing+reading+early > 0 {
			t.Errorf("%s has %d streams that it writes, %d that it reads, %d early ones, want none", name, writing, reading, early)
		}
		if n := p.link().Inflight(); n != 0 {
			t.Errorf("%s serves %d requests, want none", name, n)
		}
	}
}

func inStreamWorld(t *testing.T, f func(t *testing.T, w *streamWorld)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newStreamWorld(t, Config{})
		f(t, w)
		w.wantNothing(t)
	})
}

func numbers(n int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
	}
}

// collect returns all items, and the error at the end.
func collect[T any](seq iter.Seq2[T, error]) (all []T, _ error) {
	for v, err := range seq {
		if err != nil {
			return all, err
		}
		all = append(all, v)
	}
	return all, nil
}

func TestStreamResults(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		all, err := collect(w.client.Count(ctx, 10_000))
		if err != nil || len(all) != 10_000 || all[9_999] != 9_999 {
			t.Errorf("Count = %d items, %v, want 10000", len(all), err)
		}
		prices, err := w.client.Prices(ctx, []string{"a", "b"})
		if err != nil {
			t.Fatal(err)
		}
		if got := slices.Collect(prices); len(got) != 2 || got[1] != (price{"b", 1}) {
			t.Errorf("Prices = %v, want two", got)
		}
		if _, err := w.client.Prices(ctx, nil); CodeOf(err) != InvalidArgument {
			t.Errorf("Prices without symbols = %v, want invalid_argument", err)
		}
		ticks, err := w.client.Ticks(ctx, 100)
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for v := range ticks {
			if v != n {
				t.Fatalf("tick %d = %d", n, v)
			}
			n++
		}
		if n != 100 {
			t.Errorf("Ticks = %d, want 100", n)
		}
		body, err := w.client.Download(ctx, 1_000_000)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, body); n != 1_000_000 || err != nil {
			t.Errorf("Download = %d bytes, %v, want 1000000", n, err)
		}
		chunks, err := w.client.Produce(ctx, 3)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			if p, err := chunks.Next(); err != nil || string(p) != fmt.Sprint(i, " ") {
				t.Errorf("chunk %d = %q, %v", i, p, err)
			}
		}
		if _, err := chunks.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("the end = %v, want EOF", err)
		}
	})
}

func TestStreamArguments(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		if n, err := w.client.Upload(ctx, "x", io.LimitReader(counting{}, 3_000_000)); n != 3_000_000 || err != nil {
			t.Errorf("Upload = %d, %v, want 3000000", n, err)
		}
		if n, err := w.client.Upload(ctx, "x", strings.NewReader("")); n != 0 || err != nil {
			t.Errorf("Upload of nothing = %d, %v, want 0", n, err)
		}
		sum, err := w.client.Sum(ctx, func(yield func(float64, error) bool) {
			for i := range 5000 {
				if !yield(float64(i), nil) {
					return
				}
			}
		})
		if sum != 4999*2500 || err != nil {
			t.Errorf("Sum = %v, %v, want %d", sum, err, 4999*2500)
		}
		sum, err = w.client.SumPrices(ctx, func(yield func(price, error) bool) {
			for i := range 100 {
				if !yield(price{"x", float64(i)}, nil) {
					return
				}
			}
		})
		if sum != 4950 || err != nil {
			t.Errorf("SumPrices = %v, %v, want 4950", sum, err)
		}
		c := make(chan int)
		go func() {
			for i := range 10 {
				c <- i
			}
			close(c)
		}()
		if sum, err := w.client.SumChan(ctx, c); sum != 45 || err != nil {
			t.Errorf("SumChan = %d, %v, want 45", sum, err)
		}
	})
}

func TestStreamsBothWays(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		c := make(chan int)
		doubled, err := w.client.Double(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		next, stop := iter.Pull2(doubled)
		for i := range 5 { // each answer is there before the next question
			c <- i
			if v, err, ok := next(); v != 2*i || err != nil || !ok {
				t.Fatalf("double of %d = %d, %v, %v", i, v, err, ok)
			}
		}
		close(c)
		if _, _, ok := next(); ok {
			t.Error("Double goes on, want its end")
		}
		stop()

		talk, err := w.client.Talk(ctx, "> ")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			if err := talk.Send(fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
			if line, err := talk.Recv(); line != fmt.Sprint("> ", i) || err != nil {
				t.Fatalf("Recv = %q, %v", line, err)
			}
		}
		talk.CloseSend()
		if line, err := talk.Recv(); line != "end" || err != nil {
			t.Errorf("Recv = %q, %v, want end", line, err)
		}
		if _, err := talk.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("Recv = %v, want EOF", err)
		}
		if err := talk.Send("more"); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Send after CloseSend = %v, want ErrClosedPipe", err)
		}

		talk, err = w.client.Talk(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		if err := talk.Send("bye"); err != nil {
			t.Fatal(err)
		}
		if _, err := talk.Recv(); CodeOf(err) != Aborted || !strings.Contains(err.Error(), "good bye") {
			t.Errorf("Recv = %v, want what the method returned", err)
		}
		if talk, err = w.client.Talk(ctx, ""); err != nil {
			t.Fatal(err)
		}
		half, err := w.client.Half(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if v, err := half.Recv(); v != 1 || err != nil {
			t.Errorf("Recv = %d, %v, want 1", v, err)
		}
		if _, err := half.Recv(); !errors.Is(err, io.EOF) { // the other side has closed its own
			t.Errorf("Recv = %v, want EOF", err)
		}
		for i := range 5 {
			if err := half.Send(i); err != nil {
				t.Fatal(err)
			}
		}
		half.CloseSend()
		if got := <-w.service.released; got != "half 10 <nil>" {
			t.Errorf("the method that had closed its side = %q, want half 10 <nil>", got)
		}
		half.Close()

		talk.Close()
		if _, err := talk.Recv(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Recv after Close = %v, want ErrClosedPipe", err)
		}
	})
}

func TestStreamFailures(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		all, err := collect(w.client.Fails(ctx, 3))
		e, ok := errors.AsType[*Error](err)
		if len(all) != 3 || !ok || e.Code != NotFound || e.Message != "no more" || e.Details != "details" || fmt.Sprint(e.Fields["n"]) != "7" || !e.Remote() {
			t.Errorf("Fails = %v, %#v, want three and the whole error", all, err)
		}
		if all, err := collect(w.client.Panics(ctx)); len(all) != 1 || CodeOf(err) != Internal || strings.Contains(err.Error(), "secret") {
			t.Errorf("Panics = %v, %v, want one and an internal error", all, err)
		}
		broken := errors.New("broken disk")
		n, err := w.client.Upload(ctx, "x", io.MultiReader(strings.NewReader("some"), failingReader{broken}))
		if n != 0 || !errors.Is(err, broken) {
			t.Errorf("Upload from a broken source = %d, %v, want its error", n, err)
		}
		_, err = w.client.SumPrices(ctx, func(yield func(price, error) bool) {
			_ = yield(price{}, nil) && yield(price{}, broken)
		})
		if !errors.Is(err, broken) {
			t.Errorf("SumPrices of a broken sequence = %v, want its error, although the method saw none", err)
		}
		_, err = w.client.Sum(ctx, func(func(float64, error) bool) { panic("a secret") })
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("Sum of a sequence that panics = %v, want an error without its text", err)
		}
		if _, err = w.client.Sum(ctx, nil); err == nil {
			t.Error("Sum of nil = nil, want an error")
		}
		var nothing any
		err = w.stub.Call(ctx, "sum", &nothing, func(yield func(any, error) bool) { yield(nil, nil) })
		if !errors.Is(err, stream.ErrNothing) {
			t.Errorf("an item that is nil = %v, want ErrNothing", err)
		}
		// The wrong kinds of argument and result.
		if err := w.stub.Call(ctx, "sum", nil, 7); CodeOf(err) != InvalidArgument {
			t.Errorf("Call(sum, 7) = %v, want invalid_argument", err)
		}
		if err := w.stub.Call(ctx, "sum", nil); CodeOf(err) != InvalidArgument {
			t.Errorf("Call(sum) = %v, want invalid_argument", err)
		}
		if err := w.stub.Call(ctx, "sum", nil, []float64{1}); CodeOf(err) != InvalidArgument {
			t.Errorf("Call(sum, list) = %v, want invalid_argument", err)
		}
		var seq iter.Seq2[int, error]
		if err := w.stub.Call(ctx, "sum", &seq, numbers(3)); CodeOf(err) != Internal {
			t.Errorf("a number for a stream = %v, want internal", err)
		}
		if err := w.stub.Call(ctx, "upload", nil, "x", numbers(3)); CodeOf(err) != Aborted {
			t.Errorf("numbers for bytes = %v, want aborted", err)
		}
		var text iter.Seq2[string, error]
		if err := w.stub.Call(ctx, "count", &text, 5); err != nil {
			t.Fatal(err)
		}
		if _, err := collect(text); err == nil {
			t.Error("numbers as strings = nil, want an error")
		}
		<-w.service.released
		if err := w.stub.CallFunc(ctx, "sum", nil, numbers(3)); CodeOf(err) != InvalidArgument {
			t.Errorf("CallFunc with a stream = %v, want invalid_argument", err)
		}
	})
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

func TestStreamStops(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		want := func(who string) {
			t.Helper()
			synctest.Wait()
			select {
			case got := <-w.service.released:
				if got != who {
					t.Errorf("released %q, want %q", got, who)
				}
			default:
				t.Errorf("%s was not released", who)
			}
		}
		for v, err := range w.client.Count(ctx, 1<<30) {
			if err != nil {
				t.Fatal(err)
			}
			if v == 100 {
				break
			}
		}
		want("count")
		for range w.client.Waits(ctx) {
			break
		}
		want("waits: context canceled")

		body, err := w.client.Download(ctx, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(body, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		body.Close()
		want("download")
		if _, err := body.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Read after Close = %v, want ErrClosedPipe", err)
		}

		for _, method := range []string{"count", "ticks"} { // that nobody reads
			cctx, cancel := context.WithCancel(ctx)
			var c <-chan int
			if err := w.stub.Call(cctx, method, &c, 1<<30); err != nil {
				t.Fatal(err)
			}
			cancel()
			want(method)
		}
		if err := w.stub.Call(ctx, "count", nil, 1<<30); err != nil { // the result is dropped
			t.Fatal(err)
		}
		want("count")

		// The method returns before its argument ends.
		stopped := make(chan struct{})
		v, err := w.client.Stops(ctx, func(yield func(int, error) bool) {
			defer close(stopped)
			for i := 7; yield(i, nil); i++ {
			}
		})
		if v != 7 || err != nil {
			t.Errorf("Stops = %d, %v, want 7", v, err)
		}
		<-stopped

		// A caller that gives up while it sends.
		cctx, cancel := context.WithCancel(ctx)
		stopped = make(chan struct{})
		_, err = w.client.Sum(cctx, func(yield func(float64, error) bool) {
			defer close(stopped)
			for i := 0; yield(1, nil); i++ {
				if i == 1000 {
					cancel()
				}
			}
		})
		if CodeOf(err) != Canceled {
			t.Errorf("Sum that was canceled = %v, want canceled", err)
		}
		<-stopped
	})
}

func TestStreamUntyped(t *testing.T) {
	inStreamWorld(t, func(t *testing.T, w *streamWorld) {
		ctx := t.Context()
		var any1 any
		if err := w.stub.Call(ctx, "prices", &any1, []string{"a", "b"}); err != nil {
			t.Fatal(err)
		}
		seq, ok := any1.(iter.Seq2[any, error])
		if !ok {
			t.Fatalf("result = %T, want a sequence", any1)
		}
		if all, err := collect(seq); len(all) != 2 || err != nil {
			t.Errorf("prices = %v, %v", all, err)
		}
		if _, err := collect(seq); !errors.Is(err, stream.ErrUsed) {
			t.Errorf("used twice = %v, want ErrUsed", err)
		}
		var n int64
		if err := w.stub.Call(ctx, "upload", &n, "x", bytes.NewBufferString("hello")); n != 5 || err != nil {
			t.Errorf("upload = %d, %v, want 5", n, err)
		}
		var r io.Reader
		if err := w.stub.Call(ctx, "download", &r, 10); err != nil {
			t.Fatal(err)
		}
		if p, err := io.ReadAll(r); len(p) != 10 || err != nil {
			t.Errorf("download = %d bytes, %v, want 10", len(p), err)
		}
		var p price
		if err := w.stub.Call(ctx, "prices", &p, []string{"a"}); err == nil {
			t.Error("a stream for a struct = nil, want an error")
		}
	})
}

// TestRelayedStreams calls a service with streams that is reached through another node.
func TestRelayedStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newStreamWorld(t, Config{}) // near is the node in the middle
		if err := w.near.Expose("gate@1.0.0", &gate{w.stub}); err != nil {
			t.Fatal(err)
		}
		caller := link(t, newEndpoint(t, Config{ID: "caller"}), w.near)
		g, err := caller.peer.Service(t.Context(), "gate")
		if err != nil {
			t.Fatal(err)
		}
		ctx := t.Context()
		var far *Stub
		if err := g.Call(ctx, "open", &far); err != nil {
			t.Fatal(err)
		}
		client := new(streamerClient)
		if err := far.bind(reflect.ValueOf(client).Elem()); err != nil {
			t.Fatal(err)
		}
		if all, err := collect(client.Count(ctx, 1000)); len(all) != 1000 || err != nil {
			t.Errorf("Count = %d items, %v, want 1000", len(all), err)
		}
		<-w.service.released
		for v, err := range client.Count(ctx, 1<<30) {
			if err != nil {
				t.Fatal(err)
			}
			if v == 10 {
				break
			}
		}
		if got := <-w.service.released; got != "count" {
			t.Errorf("released %q, want count", got)
		}
		if n, err := client.Upload(ctx, "x", io.LimitReader(counting{}, 1_000_000)); n != 1_000_000 || err != nil {
			t.Errorf("Upload = %d, %v, want 1000000", n, err)
		}
		c := make(chan int)
		doubled, err := client.Double(ctx, c)
		if err != nil {
			t.Fatal(err)
		}
		next, stop := iter.Pull2(doubled)
		for i := range 5 {
			c <- i
			if v, err, ok := next(); v != 2*i || err != nil || !ok {
				t.Fatalf("double of %d = %d, %v, %v", i, v, err, ok)
			}
		}
		close(c)
		if _, _, ok := next(); ok {
			t.Error("Double goes on, want its end")
		}
		stop()
		all, err := collect(client.Fails(ctx, 3))
		if e, ok := errors.AsType[*Error](err); len(all) != 3 || !ok || e.Code != NotFound || e.Details != "details" {
			t.Errorf("Fails = %v, %#v, want three and the whole error", all, err)
		}
		broken := errors.New("broken disk")
		if _, err := client.Upload(ctx, "x", failingReader{broken}); !errors.Is(err, broken) {
			t.Errorf("Upload from a broken source = %v, want its error", err)
		}
		if _, err := client.Prices(ctx, nil); CodeOf(err) != InvalidArgument {
			t.Errorf("Prices without symbols = %v, want invalid_argument", err)
		}
		if err := far.Release(ctx); err != nil {
			t.Fatal(err)
		}
		w.wantNothing(t)
		(&streamWorld{linked: caller}).wantNothing(t)
	})
}

// gate is a service that passes another on.
type gate struct{ stub *Stub }

func (g *gate) Open(context.Context) *Stub { return g.stub }
