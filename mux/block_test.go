package mux

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// testTarget is what a request asks for, by the first byte of its payload.
type testTarget struct {
	mean     time.Duration
	dispatch atomic.Uint32
	stalls   atomic.Int32
}

func (t *testTarget) Dispatch() Dispatch  { return Dispatch(t.dispatch.Load()) }
func (t *testTarget) Mean() time.Duration { return t.mean }
func (t *testTarget) Stalled()            { t.stalls.Add(1) }

// sleepy echoes a request after as many milliseconds as its second byte says.
func sleepy(r *Request, dst []byte) ([]byte, bool) {
	time.Sleep(time.Duration(r.Payload[1]) * time.Millisecond)
	return echo(r, dst)
}

// TestBatchLeavesTogether checks that the answers of one read leave in one piece,
// in the order of the requests.
func TestBatchLeavesTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		tc.hold()
		var batch []string
		for id := uint32(1); id <= 50; id++ {
			batch = append(batch, packed(id, 0x43, "\x01"))
		}
		tc.writeHex(batch...)
		synctest.Wait()
		if load := tc.session.queue.load.Load(); load>>loadShift != 50 {
			t.Errorf("%d answers are queued, want 50", load>>loadShift)
		}
		if p := tc.session.queue.pop(); p == nil || p.count != 50 {
			t.Errorf("the first piece is %+v, want one with all 50 answers", p)
		} else {
			tc.session.queue.small.ready = p // put back
		}
		tc.release()
		for id := uint32(1); id <= 50; id++ {
			tc.wantHex("in their order", packed(id, 0x03, "\x01"))
		}
	})
}

// TestSlowHandlerInABatch puts a handler that takes a second first, in the middle
// and last: the other answers of its batch leave at once.
func TestSlowHandlerInABatch(t *testing.T) {
	for _, slow := range []int{0, 1, 10, 18, 19} {
		synctest.Test(t, func(t *testing.T) {
			targets := map[byte]*testTarget{0: {}, 1: {}}
			tc := newTestConn(t, Config{
				Connector: true,
				Route:     func(r *Request) { r.Target = targets[r.Payload[0]] },
				Serve: func(r *Request, dst []byte) ([]byte, bool) {
					if r.Payload[0] == 1 {
						time.Sleep(time.Second)
					}
					return echo(r, dst)
				},
			})
			defer tc.end()
			tc.asConnector()
			var batch []string
			for i := range 20 {
				kind := "\x00"
				if i == slow {
					kind = "\x01"
				}
				batch = append(batch, packed(uint32(i), 0x43, kind))
			}
			tc.writeHex(batch...)
			time.Sleep(2 * watchTick)
			synctest.Wait()
			for i := range 20 {
				if i != slow {
					tc.wantHex(fmt.Sprintf("with the slow one at %d", slow), packed(uint32(i), 0x03, "\x00"))
				}
			}
			tc.wantIdle("the slow one sleeps")
			if n := tc.session.Inflight(); n != 1 {
				t.Errorf("slow at %d: Inflight = %d, want the slow one", slow, n)
			}
			if targets[1].stalls.Load() == 0 || targets[0].stalls.Load() != 0 {
				t.Errorf("slow at %d: %d stalls of the slow target, %d of the other, want some and none", slow, targets[1].stalls.Load(), targets[0].stalls.Load())
			}
			time.Sleep(time.Second)
			tc.wantHex("the slow one at last", packed(uint32(slow), 0x03, "\x01"))
			if n := tc.session.Inflight(); n != 0 {
				t.Errorf("Inflight = %d at the end, want 0", n)
			}
			time.Sleep(2 * watchTick)
			tc.workers.mu.Lock()
			defer tc.workers.mu.Unlock()
			if len(tc.workers.running) != 0 || tc.workers.ticking || tc.session.oldest != nil {
				t.Errorf("%d blocks are watched, ticking %v, want none and no timer", len(tc.workers.running), tc.workers.ticking)
			}
		})
	}
}

// TestNextBatchNoticesASlowHandler checks that the read owner does not need the
// timer to see that the last batch stands still.
func TestNextBatchNoticesASlowHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, Serve: sleepy})
		defer tc.end()
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x00\x00"), packed(2, 0x43, "\x00\xff"), packed(3, 0x43, "\x00\x00"))
		synctest.Wait()
		tc.writeHex(packed(4, 0x43, "\x00\xff"), packed(5, 0x43, "\x00\xff"))
		time.Sleep(stalledAfter)
		tc.writeHex(packed(6, 0x43, "\x00\xff"), packed(7, 0x43, "\x00\xff")) // looks at the second batch for the first time
		tc.wantHex("the first batch was rescued by the reads after it", packed(1, 0x03, "\x00\x00"))
		tc.wantHex("all of it", packed(3, 0x03, "\x00\x00"))
		tc.wantIdle("the others sleep")
	})
}

// TestLearnedRequestsLeaveTheirBatch checks that requests for a target that turned
// out to be slow while they waited in a block hold up nobody.
func TestLearnedRequestsLeaveTheirBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &testTarget{}
		tc := newTestConn(t, Config{
			Connector: true,
			Route: func(r *Request) {
				if r.Payload[1] > 0 {
					r.Target = slow
				}
			},
			Serve: sleepy,
		})
		defer tc.end()
		tc.asConnector()
		var batch []string
		for i := range uint32(100) {
			batch = append(batch, packed(i, 0x43, "\x00\x64")) // 100 ms each
		}
		batch = append(batch, packed(200, 0x43, "\x00\x00"))
		for _, h := range batch {
			b := unhex(t, h)
			tc.session.Message(false, b)
		}
		slow.dispatch.Store(uint32(Alone)) // between the routing and the serving
		tc.session.ReadDone()
		tc.wantHex("the fast one does not wait", packed(200, 0x03, "\x00\x00"))
		time.Sleep(100 * time.Millisecond)
		for range 100 {
			tc.next("the slow ones all at a time")
		}
	})
}

// TestCostlyRequestsShareWorkers checks that requests which are known to take some
// time, though not long enough for workers of their own, do not all wait for one.
func TestCostlyRequestsShareWorkers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &testTarget{mean: blockCost / 4}
		tc := newTestConn(t, Config{
			Connector: true,
			Route:     func(r *Request) { r.Target = target },
			Serve: func(r *Request, dst []byte) ([]byte, bool) {
				time.Sleep(target.mean)
				return echo(r, dst)
			},
		})
		defer tc.end()
		tc.asConnector()
		var batch []string
		for id := range uint32(40) {
			batch = append(batch, packed(id, 0x43, "\x01"))
		}
		tc.writeHex(batch...)
		time.Sleep(blockCost)
		for range 40 {
			tc.next("ten workers with four requests each")
		}
	})
}

func TestAloneAndFullPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		alone := &testTarget{}
		alone.dispatch.Store(uint32(Alone))
		gate := make(chan struct{})
		tc := newTestConn(t, Config{Connector: true, Route: func(r *Request) { r.Target = alone }, Serve: gated(gate)})
		defer tc.end()
		small, err := NewWorkers(2, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer small.Close(time.Second)
		tc.session.cfg.Workers = small
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x01"), packed(2, 0x43, "\x02"), packed(3, 0x43, "\x03"))
		tc.wantHex("two workers are all there is", packed(3, 0x83, "\xa4over"))
		close(gate)
		synctest.Wait()
		tc.next("the first")
		tc.next("the second")
		if n := tc.session.Inflight(); n != 0 {
			t.Errorf("Inflight = %d, want 0", n)
		}
	})
}

// TestPanicsInABatch checks that every request of a block is answered whatever
// handlers do, also when there is no further worker for the rest.
func TestPanicsInABatch(t *testing.T) {
	for _, size := range []int{1, 100} {
		synctest.Test(t, func(t *testing.T) {
			tc := newTestConn(t, Config{Connector: true, Serve: func(r *Request, dst []byte) ([]byte, bool) {
				if r.Payload[0] == 1 {
					panic("boom")
				}
				return echo(r, dst)
			}})
			defer tc.end()
			small, err := NewWorkers(size, 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer small.Close(time.Second)
			tc.session.cfg.Workers = small
			tc.asConnector()
			tc.writeHex(packed(1, 0x43, "\x00"), packed(2, 0x43, "\x01"), packed(3, 0x43, "\x00"))
			tc.wantHex("before the panic", packed(1, 0x03, "\x00"))
			tc.wantHex("the panic", packed(2, 0x83, "\xa4fail"))
			want := packed(3, 0x03, "\x00")
			if size == 1 {
				want = packed(3, 0x83, "\xa4over")
			}
			tc.wantHex("the rest", want)
			if n := tc.session.Inflight(); n != 0 {
				t.Errorf("Inflight = %d, want 0", n)
			}
		})
	}
}

// TestInline checks that inline requests are answered when the read is done, in one
// piece and without a worker, that their panics stay theirs, and that they must not
// block.
func TestInline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inline := &testTarget{}
		inline.dispatch.Store(uint32(Inline))
		var tc *testConn
		tc = newTestConn(t, Config{
			Connector: true,
			Route:     func(r *Request) { r.Target = inline },
			Serve: func(r *Request, dst []byte) ([]byte, bool) {
				if !r.Inline {
					t.Error("Inline is not set")
				}
				if r.Payload[0] == 1 {
					panic("boom")
				}
				if r.Payload[0] == 2 {
					ctx := tc.session.OwnerContext(context.Background())
					c := tc.session.NewCall()
					c.B = append(c.B, 0xc0)
					if _, err := c.Do(ctx, wire.TypeCall, time.Second); !errors.Is(err, ErrWouldBlock) {
						t.Errorf("Do on the read owner = %v, want ErrWouldBlock", err)
					}
					c.Release()
				}
				return echo(r, dst)
			},
		})
		defer tc.end()
		tc.asConnector()
		tc.session.Message(false, unhex(t, packed(1, 0x43, "\x00")))
		tc.wantIdle("answers wait for the end of the read")
		tc.writeHex(packed(2, 0x43, "\x01"), packed(3, 0x43, "\x02"))
		tc.wantHex("the first", packed(1, 0x03, "\x00"))
		tc.wantHex("the panic", packed(2, 0x83, "\xa4fail"))
		tc.wantHex("the third", packed(3, 0x03, "\x02"))
		tc.session.Refuse()
		tc.writeHex(packed(4, 0x43, "\x00"))
		tc.wantHex("refused while draining", packed(4, 0x83, "\xa5drain"))
	})
}

// TestCallbackCallsOn checks that calls made by a callback leave when the read is
// done, and that code which took the context of a callback to another goroutine
// loses nothing.
func TestCallbackCallsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		var kept context.Context
		start := func(ctx context.Context, payload byte, fn func(context.Context, Reply, error)) {
			c := tc.session.NewCall()
			c.B = append(c.B, payload)
			if _, err := c.Start(ctx, wire.TypeCall, 0, fn); err != nil {
				t.Error(err)
			}
		}
		nothing := func(context.Context, Reply, error) {}
		start(t.Context(), 1, func(ctx context.Context, _ Reply, _ error) {
			kept = ctx //nolint:fatcontext // what code must not do, and may
			if err := WouldBlock(ctx); !errors.Is(err, ErrWouldBlock) || !tc.session.Owns(ctx) {
				t.Errorf("WouldBlock in a callback = %v, want ErrWouldBlock", err)
			}
			start(ctx, 2, nothing)
			start(ctx, 3, nothing)
		})
		tc.wantHex("the call", packed(1, 0x43, "\x01"))
		tc.session.Message(false, unhex(t, packed(1, 0x03, "\xc0")))
		tc.wantIdle("calls of callbacks wait for the end of the read")
		tc.session.ReadDone()
		tc.wantHex("then they leave", packed(2, 0x43, "\x02"))
		tc.wantHex("together", packed(3, 0x43, "\x03"))
		start(kept, 4, nothing)
		tc.wantHex("outside a read there is nothing to wait for", packed(4, 0x43, "\x04"))

		tc.hold()
		tc.session.queue.maxMessages = 1
		start(kept, 5, nothing)
		c := tc.session.NewCall()
		c.B = append(c.B, 6)
		if _, err := c.Start(kept, wire.TypeCall, 0, nothing); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("Start with a full queue on the read owner = %v, want ErrWouldBlock", err)
		}
		c.Release()
	})
}

// TestSmallMessagesPassLargeOnes checks the two lanes: a call does not wait behind
// large ones that were queued before it.
func TestSmallMessagesPassLargeOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, MaxQueueBytes: -1})
		defer tc.end()
		tc.asConnector()
		tc.hold()
		large := strings.Repeat("x", bulkBytes)
		for range 3 {
			tc.call(t.Context(), large, 0)
		}
		synctest.Wait()
		tc.call(t.Context(), "\x01", 0)
		synctest.Wait()
		tc.release()
		if got := tc.next("the small one first").p; len(got) > 100 {
			t.Errorf("a message of %d bytes came first, want the small one", len(got))
		}
		for range 3 {
			if got := tc.next("the large ones").p; len(got) < bulkBytes {
				t.Errorf("a message of %d bytes, want a large one", len(got))
			}
		}
	})
}

// TestLargeAnswers checks that answers of any size come whole, in batches of small
// and large ones.
func TestLargeAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, MaxQueueBytes: -1, Serve: func(r *Request, dst []byte) ([]byte, bool) {
			return append(dst, make([]byte, binary.BigEndian.Uint32(r.Payload))...), false
		}})
		defer tc.end()
		tc.asConnector()
		sizes := []uint32{1, 100, flushBytes, bulkBytes - 9, bulkBytes, 1 << 20, 3, 5000, 70_000, 2}
		var batch []string
		for id, n := range sizes {
			batch = append(batch, packed(uint32(id), 0x43, string(binary.BigEndian.AppendUint32(nil, n))))
		}
		tc.writeHex(batch...)
		synctest.Wait()
		for range sizes {
			got := tc.next("an answer").p
			if id := binary.BigEndian.Uint32(got); uint32(len(got)-wire.HeaderLen) != sizes[id] {
				t.Errorf("answer %d has %d bytes, want %d", id, len(got)-wire.HeaderLen, sizes[id])
			}
		}
	})
}

// TestRandomBatches lets batches of handlers of all kinds and lengths run, with
// rescues, while the pool is too small at times: each request gets one answer.
func TestRandomBatches(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 0))
			target := &testTarget{}
			tc := newTestConn(t, Config{
				Connector: true,
				Route:     func(r *Request) { r.Target = target },
				Serve: func(r *Request, dst []byte) ([]byte, bool) {
					switch r.Payload[0] {
					case 9:
						panic("boom")
					case 0, 1:
						time.Sleep(time.Duration(r.Payload[1]) * 20 * time.Microsecond)
					}
					return echo(r, dst)
				},
			})
			defer tc.end()
			small, err := NewWorkers(1+int(seed), 0, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer small.Close(time.Second)
			tc.session.cfg.Workers = small
			tc.asConnector()
			id := uint32(0)
			for range 20 {
				target.dispatch.Store(uint32(rng.IntN(2)))
				var batch []string
				for range rng.IntN(2 * blockRequests / 3) {
					batch = append(batch, packed(id, 0x43, string([]byte{byte(rng.IntN(10)), byte(rng.IntN(256))})))
					id++
				}
				tc.writeHex(batch...)
				time.Sleep(time.Duration(rng.IntN(1000)) * time.Microsecond)
			}
			time.Sleep(10 * time.Second)
			synctest.Wait()
			seen := make([]bool, id)
			for range id {
				got := binary.BigEndian.Uint32(tc.next("an answer for each request").p)
				if seen[got] {
					t.Errorf("seed %d: request %d was answered twice", seed, got)
				}
				seen[got] = true
			}
			tc.wantIdle("no more answers than requests")
			if n, bytes := tc.session.Inflight(), small.bytes.Load(); n != 0 || bytes != 0 {
				t.Errorf("seed %d: %d requests of %d bytes are still counted, want none", seed, n, bytes)
			}
		})
	}
}
