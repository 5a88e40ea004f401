package rpc

import (
	"context"
	"io"
	"iter"
	"math/rand/v2"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/stream"
)

// hostileService has methods that read, stop, ignore, answer, and wait.
func hostileService() *Service {
	s := NewService("odd", "1.0.0")
	type ints = iter.Seq2[int, error]
	Func(s, "sum", func(_ context.Context, numbers ints) (int, error) {
		all, err := collect(numbers)
		return len(all), err
	})
	Func(s, "first", func(_ context.Context, numbers ints) (int, error) {
		for v, err := range numbers {
			return v, err
		}
		return 0, nil
	})
	Func(s, "ignore", func(context.Context, ints, <-chan int) {})
	Func(s, "double", func(_ context.Context, numbers ints) ints { return numbers })
	Func(s, "bytes", func(_ context.Context, body io.Reader) (int64, error) { return io.Copy(io.Discard, body) })
	Func(s, "talk", func(_ context.Context, d *stream.Duplex[int, int]) error {
		for v, err := range d.All() {
			if err != nil {
				return err
			}
			if err := d.Send(v); err != nil {
				return err
			}
		}
		return nil
	})
	Func(s, "plain", func(context.Context, any) {})
	Func(s, "wait", func(ctx context.Context, _ <-chan int) { <-ctx.Done() })
	Func(s, "endless", func(context.Context) ints { return numbers(1 << 30) })
	return s
}

// hostile is a peer that says whatever it likes about streams.
type hostile struct {
	*wirePeer
	random *rand.Rand
	calls  uint32
}

func (h *hostile) id() uint32 { return uint32(h.random.IntN(60)) }

// chunk sends a packet of a stream.
func (h *hostile) chunk() {
	f := wire.Request(wire.TypeStream)
	if h.random.IntN(6) == 0 {
		f |= wire.FlagEOS
	}
	if h.random.IntN(3) == 0 {
		f |= wire.FlagLive
	}
	id := h.id()
	switch h.random.IntN(20) {
	case 0:
		id += 1 << 30
	case 1:
		id += 1 << 31
	}
	values := []any{1, 2, 3, "text", []byte("bytes"), make([]byte, 600), nil, codec.Undefined{}, map[string]any{"a": 1}}
	p, _ := codec.Append(wire.AppendHeader(nil, h.calls, f), values[h.random.IntN(len(values))])
	if h.random.IntN(20) == 0 {
		p = append(p, 0xc1)
	}
	h.session.Message(false, wire.AppendTrailer(p, id, uint32(max(h.random.IntN(8)-4, 0))))
}

// reference returns an argument.
func (h *hostile) reference() any {
	ref := codec.StreamReference{StreamID: h.id(), Writable: h.random.IntN(8) > 0, Live: h.random.IntN(2) == 0, PeerID: "x"}
	switch h.random.IntN(10) {
	case 0:
		return map[string]any{"in": ref}
	case 1:
		return []any{ref, ref}
	case 2:
		return 7
	}
	return ref
}

func (h *hostile) event() {
	h.calls++
	say := func(t wire.Type, v any) {
		p, err := codec.Append(wire.AppendHeader(nil, h.calls, wire.Request(t)), v)
		if err != nil {
			h.t.Fatal(err)
		}
		h.session.Message(false, p)
	}
	switch h.random.IntN(12) {
	case 0, 1, 2:
		methods := []string{"sum", "first", "ignore", "double", "bytes", "talk", "plain", "wait", "endless", "nowhere"}
		call := []any{"odd@1.0.0", methods[h.random.IntN(len(methods))]}
		if h.random.IntN(30) == 0 {
			call[0] = "nobody"
		}
		for range h.random.IntN(4) {
			call = append(call, h.reference())
		}
		say(wire.TypeCall, call)
	case 3:
		say(wire.TypeStreamError, map[string]any{"streamId": h.id(), "message": "no", "error": []any{1, "x"}})
	case 4:
		say(wire.TypeStreamClose, map[string]any{"streamId": h.id(), "reason": "no"})
	case 5:
		say(wire.TypeCancel, []any{h.id() + 1<<31*uint32(h.random.IntN(2)), "no"})
	case 6:
		say(wire.TypeCredit, []any{h.id() + 1<<31 + uint32(h.random.IntN(2)), []int64{1, 1000, 1 << 31, 1<<31 - 1, -1}[h.random.IntN(5)]})
	case 7:
		h.giveUp(h.calls - uint32(h.random.IntN(60)))
	case 8:
		say(wire.TypeTask, []any{"emit", h.reference()})
	default:
		h.chunk()
	}
	if h.random.IntN(4) == 0 {
		h.session.ReadDone()
	}
	if h.random.IntN(16) == 0 {
		synctest.Wait()
	}
}

// giveUp cancels a request.
func (h *hostile) giveUp(id uint32) {
	h.session.Message(false, append(wire.AppendHeader(nil, id, wire.Request(wire.TypeCancel)), 0xc0))
}

// TestHostileStreams has a peer say 100,000 things about streams, most of them wrong.
func TestHostileStreams(t *testing.T) {
	events := 100_000
	if testing.Short() || raceEnabled {
		events = 10_000
	}
	for seed := range uint64(2) {
		synctest.Test(t, func(t *testing.T) {
			cfg := Config{MaxRequests: 50, Streams: StreamConfig{Window: 1000, MaxWindow: 2000, ConnWindow: 1<<31 - 1, MaxStreams: 40, MaxEarlyBytes: 10_000}}
			h := &hostile{
				wirePeer: newWirePeer(t, cfg, `{"type":"client-id","id":"far","ext":{"v":1,"f":["event","cancel","credit"],"win":1000,"cwin":300000}}`),
				random:   rand.New(rand.NewPCG(seed, 1)),
			}
			if err := h.e.ExposeService(hostileService()); err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for i := range events {
				h.event()
				if i%1000 == 0 {
					synctest.Wait()
					h.mu.Lock()
					h.heard = nil
					h.mu.Unlock()
					if writing, reading, early := h.session.Streams(); writing > 40 || reading > 40 || early > 40 || h.session.Inflight() > 150 {
						t.Fatalf("after %d: %d, %d and %d streams, %d requests", i, writing, reading, early, h.session.Inflight())
					}
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
				t.Errorf("%d bytes more than before, want some MB at most", grown)
			}
			for id := range h.calls + 1 { // what it has called and not heard the end of
				h.giveUp(id)
				p, _ := codec.Append(wire.AppendHeader(nil, 1, wire.Request(wire.TypeCancel)), []any{id + 1<<31, "no"})
				h.session.Message(false, p)
			}
			h.session.ReadDone()
			time.Sleep(3 * time.Minute)
			synctest.Wait()
			if writing, reading, early := h.session.Streams(); writing+reading+early+h.session.Inflight() > 0 {
				t.Errorf("left are %d, %d and %d streams, %d requests, want none", writing, reading, early, h.session.Inflight())
			}
			h.wantOpen("at the end")
		})
	}
}
