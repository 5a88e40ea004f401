package mux

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// outcome is what a call in the background came to.
type outcome struct {
	payload string
	isError bool
	err     error
}

// call calls in the background.
func (tc *testConn) call(ctx context.Context, payload string, timeout time.Duration) <-chan outcome {
	c := make(chan outcome, 1)
	p := tc.session.NewCall()
	p.B = append(p.B, payload...)
	go func() {
		r, err := p.Do(ctx, wire.TypeCall, timeout)
		c <- outcome{string(r.Payload), r.IsError, err}
		p.Release()
	}()
	return c
}

func TestCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()

		c := tc.call(t.Context(), "\xa1x", 0)
		tc.wantHex("ids count from 1", packed(1, 0x43, "\xa1x"))
		tc.writeHex(packed(1, 0x03, "\xa1y"))
		if got := <-c; got.payload != "\xa1y" || got.isError || got.err != nil {
			t.Errorf("Call = %+v, want the answer", got)
		}

		c = tc.call(t.Context(), "\xa1x", 0)
		tc.wantHex("the second call", packed(2, 0x43, "\xa1x"))
		tc.writeHex(packed(2, 0x83, "\xa1e"))
		if got := <-c; got.payload != "\xa1e" || !got.isError || got.err != nil {
			t.Errorf("Call = %+v, want an error answer", got)
		}
	})
}

// TestAnswerMatching checks that only an answer with exactly the id of a waiting
// call completes it, whatever its type.
func TestAnswerMatching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		c := tc.call(t.Context(), "\xc0", 0)
		tc.wantHex("the call", packed(1, 0x43, "\xc0"))

		tc.writeHex(packed(0, 0x03, "\xc0"))                // id 0 is never used
		tc.writeHex(packed(2, 0x03, "\xc0"))                // not asked yet
		tc.writeHex(packed(1+firstTableSize, 0x03, "\xc0")) // same slot, other id
		tc.writeHex(packed(0xffffffff, 0x83, "\xc0"))
		if got := tc.session.Stats().LateReplies; got != 4 {
			t.Errorf("LateReplies = %d, want 4", got)
		}
		select {
		case got := <-c:
			t.Fatalf("Call = %+v after foreign answers, want it to wait", got)
		default:
		}
		tc.writeHex(packed(1, 0x04, "\x07")) // the type of an answer does not count
		if got := <-c; got.payload != "\x07" || got.err != nil {
			t.Errorf("Call = %+v, want 07", got)
		}
		tc.writeHex(packed(1, 0x03, "\x08")) // a duplicate
		if got := tc.session.Stats().LateReplies; got != 5 {
			t.Errorf("LateReplies = %d after a duplicate, want 5", got)
		}
	})
}

func TestCallTimeLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		start := time.Now()
		long := tc.call(t.Context(), "\x01", 7*time.Second)
		short := tc.call(t.Context(), "\x02", 2*time.Second)
		equal := tc.call(t.Context(), "\x03", 2*time.Second)
		forever := tc.call(t.Context(), "\x04", 0)
		for _, want := range []struct {
			c  <-chan outcome
			at time.Duration
		}{{short, 2 * time.Second}, {equal, 2 * time.Second}, {long, 7 * time.Second}} {
			got := <-want.c
			if !errors.Is(got.err, ErrTimeout) {
				t.Errorf("Call = %+v, want ErrTimeout", got)
			}
			if d := time.Since(start).Round(time.Millisecond); d != want.at {
				t.Errorf("Call timed out after %v, want %v", d, want.at)
			}
		}
		if n := tc.session.Pending(); n != 1 {
			t.Errorf("Pending = %d, want the call without a limit", n)
		}
		time.Sleep(time.Hour)
		select {
		case got := <-forever:
			t.Errorf("Call without limit = %+v, want it to wait", got)
		default:
		}
		// Later calls still have their limits.
		if got := <-tc.call(t.Context(), "\x05", time.Second); !errors.Is(got.err, ErrTimeout) {
			t.Errorf("Call = %+v, want ErrTimeout", got)
		}
	})
}

func TestCallCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		ctx, cancel := context.WithCancel(t.Context())
		c := tc.call(ctx, "\x01", 0)
		tc.wantHex("the call", packed(1, 0x43, "\x01"))
		cancel()
		if got := <-c; !errors.Is(got.err, context.Canceled) {
			t.Errorf("Call = %+v, want context.Canceled", got)
		}
		tc.writeHex(packed(1, 0x03, "\xc0"))
		if got := tc.session.Stats().LateReplies; got != 1 {
			t.Errorf("LateReplies = %d, want the answer to the canceled call", got)
		}
		if got := <-tc.call(ctx, "\x01", 0); !errors.Is(got.err, context.Canceled) {
			t.Errorf("Call with an ended ctx = %+v, want context.Canceled", got)
		}
		tc.wantIdle("nothing is sent for a ctx that has ended")
	})
}

func TestLostConnectionFailsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		tc.asConnector()
		sent := tc.call(t.Context(), "\x01", time.Minute)
		synctest.Wait()
		tc.hold()
		queued := tc.call(t.Context(), "\x02", time.Minute)
		called := make(chan error, 1)
		p := tc.session.NewCall()
		p.B = append(p.B, 3)
		if _, err := p.Start(t.Context(), wire.TypeCall, 0, func(_ context.Context, _ Reply, err error) { called <- err }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		tc.end()
		for _, tt := range []struct {
			name string
			err  error
			sent bool
		}{{"sent", (<-sent).err, true}, {"queued", (<-queued).err, false}, {"callback", <-called, false}} {
			lost, ok := errors.AsType[*LostError](tt.err)
			if !ok || lost.Sent != tt.sent || !errors.Is(tt.err, ErrClosed) || !errors.Is(tt.err, errTestLost) {
				t.Errorf("%s: err = %v, want a LostError with Sent %v", tt.name, tt.err, tt.sent)
			}
		}
		if lost, ok := errors.AsType[*LostError]((<-tc.call(t.Context(), "\x04", 0)).err); !ok || lost.Sent {
			t.Errorf("Call after the end = %v, want a LostError that was not sent", lost)
		}
		if err := context.Cause(tc.session.Context()); !errors.Is(err, errTestLost) {
			t.Errorf("cause of the session's context = %v, want the reason", err)
		}
		if !errors.Is(tc.session.Err(), errTestLost) || tc.session.Pending() != 0 {
			t.Errorf("Err = %v, Pending = %d, want the reason and 0", tc.session.Err(), tc.session.Pending())
		}
	})
}

func TestRequestsAreServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		for _, typ := range []wire.Flags{0x41, 0x42, 0x43, 0x44} {
			tc.writeHex(packed(0, typ, "\xa1x"))
			tc.wantHex("id 0 works", packed(0, typ&^0x40, "\xa1x"))
		}
		tc.writeHex(packed(0xffffffff, 0xc3, "\xa1x"))
		tc.wantHex("the error bit of a request means nothing", packed(0xffffffff, 0x03, "\xa1x"))
		tc.writeHex("0000000943")
		tc.wantHex("a request without payload reaches the owner, who answers", "0000000903")
	})
}

func TestPacketsThatAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		for _, h := range []string{"", "00", "00000001", "0000000145c0", "00000001450000000100000002", "0000000140"} {
			tc.writeHex(h)
		}
		if got := tc.session.Stats().Malformed; got != 6 {
			t.Errorf("Malformed = %d, want 6", got)
		}
		for _, h := range []string{"0000000148c0", "000000014fc0", "0000000108c0", "000000010fc0", "0000000145c00000000900000000", "0000000146c0", "0000000147c0", "0000000105c00000000000000000"} {
			tc.writeHex(h)
		}
		if got := tc.session.Stats().Unknown; got != 8 {
			t.Errorf("Unknown = %d, want 8", got)
		}
		tc.wantIdle("none of them is answered")
		tc.wantOpen("none of them ends the connection")
		tc.writeHex("0000000140c0")
		tc.wantHex("the connection lives on", "0000000100c0")
	})
}

// TestAnswerWithoutPayload checks that whoever waits gets what came (protocol
// section 4.5), rather than nothing until its time limit.
func TestAnswerWithoutPayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		for i, answer := range []string{"0000000103", "0000000283"} {
			id := uint32(i + 1)
			c := tc.call(t.Context(), "\xc0", time.Second)
			tc.wantHex("the call", packed(id, 0x43, "\xc0"))
			tc.writeHex(answer)
			if got := <-c; got.payload != "" || got.isError != (id == 2) || got.err != nil {
				t.Errorf("Call = %+v, want an answer without a payload", got)
			}
		}
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, ValidPing: func(p []byte) bool { return len(p) == 1 }})
		defer tc.end()
		tc.asConnector()
		tc.writeHex("0000000740c0")
		tc.wantHex("a PING is answered with its payload", "0000000700c0")
		tc.writeHex("0000000840c0c0")
		tc.wantIdle("a PING with more than a value is dropped")
		tc.session.cfg.ValidPing = nil
		tc.writeHex("0000000940" + strings.Repeat("c0", maxPing+1))
		tc.wantIdle("a large PING is dropped")
		if got := tc.session.Stats().Malformed; got != 2 {
			t.Errorf("Malformed = %d, want 2", got)
		}
	})
}

func TestSlowHandlerDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, Serve: func(r *Request, dst []byte) ([]byte, bool) {
			if r.Payload[0] == 1 {
				time.Sleep(time.Minute)
			}
			return echo(r, dst)
		}})
		defer tc.end()
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x01"))
		tc.writeHex(packed(2, 0x43, "\x02"))
		tc.wantHex("the fast one first", packed(2, 0x03, "\x02"))
		tc.wantIdle("the slow one sleeps")
		time.Sleep(time.Minute)
		tc.wantHex("the slow one at last", packed(1, 0x03, "\x01"))
	})
}

func TestTooManyRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		tc := newTestConn(t, Config{Connector: true, MaxRequests: 2, Serve: gated(gate)})
		defer tc.end()
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x01"))
		tc.writeHex(packed(2, 0x43, "\x02"))
		tc.writeHex(packed(3, 0x44, "\x03"))
		tc.wantHex("the third is refused at once", packed(3, 0x84, "\xa4over"))
		close(gate)
		synctest.Wait()
		tc.next("the first")
		tc.next("the second")
		tc.writeHex(packed(4, 0x43, "\x04"))
		tc.wantHex("there is room again", packed(4, 0x03, "\x04"))
		if got := tc.session.Stats().Refused; got != 1 {
			t.Errorf("Refused = %d, want 1", got)
		}
	})
}

// TestTooManyBytes checks the limits on the bytes of unfinished requests, of one
// connection and of all together.
func TestTooManyBytes(t *testing.T) {
	for _, all := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			cfg := Config{Connector: true, MaxRequestBytes: 10, Serve: gated(gate)}
			if all {
				cfg.MaxRequestBytes = -1
			}
			tc := newTestConn(t, cfg)
			defer tc.end()
			if all {
				tc.workers.maxBytes = 10
			}
			tc.asConnector()
			tc.writeHex(packed(1, 0x43, "sixteen bytes..."))
			tc.wantIdle("a single request may be larger")
			tc.writeHex(packed(2, 0x43, "\x02"))
			tc.wantHex("a byte more is refused", packed(2, 0x83, "\xa4over"))
			close(gate)
			tc.wantHex("the large one is served", packed(1, 0x03, "sixteen bytes..."))
			tc.writeHex(packed(3, 0x43, "\x03\x03\x03"))
			tc.wantHex("there is room again", packed(3, 0x03, "\x03\x03\x03"))
			if n := tc.workers.bytes.Load(); n != 0 {
				t.Errorf("%d bytes are still counted, want 0", n)
			}
		})
	}
}

func TestFullWorkerPool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		tc := newTestConn(t, Config{Connector: true, Serve: gated(gate)})
		defer tc.end()
		small, err := NewWorkers(1, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer small.Close(time.Second)
		tc.session.cfg.Workers = small
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x01"))
		tc.writeHex(packed(2, 0x43, "\x02"))
		tc.wantHex("no worker is free", packed(2, 0x83, "\xa4over"))
		close(gate)
		tc.wantHex("the first is served", packed(1, 0x03, "\x01"))
	})
}

func TestPanicEndsOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, Serve: func(r *Request, dst []byte) ([]byte, bool) {
			switch r.Payload[0] {
			case 1:
				panic("boom")
			case 2:
				runtime.Goexit()
			}
			return echo(r, dst)
		}})
		defer tc.end()
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x01"), packed(2, 0x43, "\x02"), packed(3, 0x43, "\x03"))
		tc.wantHex("the request that panicked is answered", packed(1, 0x83, "\xa4fail"))
		tc.wantHex("so is the one that ended its goroutine", packed(2, 0x83, "\xa4fail"))
		tc.wantHex("the other request", packed(3, 0x03, "\x03"))
		if n := tc.session.Inflight(); n != 0 {
			t.Errorf("Inflight = %d, want 0", n)
		}
	})
}

func TestFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, MaxQueueBytes: 20})
		defer tc.end()
		tc.asConnector()
		tc.hold()
		first := tc.call(t.Context(), string(make([]byte, 30)), 0) // one packet may overshoot
		synctest.Wait()
		start := time.Now()
		second := tc.call(t.Context(), "\x02", time.Second)
		if got := <-second; !errors.Is(got.err, ErrTimeout) || time.Since(start) != time.Second {
			t.Errorf("Call on a full queue = %+v after %v, want ErrTimeout after 1s", got, time.Since(start))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		if got := <-tc.call(ctx, "\x03", 0); !errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("Call on a full queue = %+v, want context.DeadlineExceeded", got)
		}
		if n := tc.session.Pending(); n != 1 {
			t.Errorf("Pending = %d, want 1", n)
		}
		fourth := tc.call(t.Context(), "\x04", 0)
		synctest.Wait()
		tc.release()
		tc.next("the first call")
		tc.wantHex("the waiting call goes out when there is room", packed(4, 0x43, "\x04"))
		tc.writeHex(packed(1, 0x03, "\xc0"))
		tc.writeHex(packed(4, 0x03, "\xc0"))
		<-first
		<-fourth
	})
}

// TestUnreadAnswers checks what a peer costs that sends requests and reads
// nothing: answers wait within the bound, refusals within twice the bound, then
// the connection is cut off.
func TestUnreadAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true, MaxQueuePackets: 4, MaxRequests: 6})
		defer tc.end()
		tc.asConnector()
		tc.hold()
		for id := uint32(1); id <= 12; id++ {
			tc.writeHex(packed(id, 0x43, "\xc0"))
			tc.wantOpen("within the bound")
			tc.writeHex(packed(id, 0x40, "\xc0")) // PINGs never add to a full queue
		}
		for id := uint32(13); id <= 20; id++ {
			tc.writeHex(packed(id, 0x43, "\xc0"))
		}
		tc.wantClose("nothing is read", closePolicy, "answers are not being read")
		if n := tc.session.queue.load.Load() >> loadShift; n > 8 {
			t.Errorf("%d packets queued, want at most 8", n)
		}
	})
}

func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		tc := newTestConn(t, Config{Connector: true, Serve: gated(gate)})
		defer tc.end()
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x01"))
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := tc.session.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Drain with a busy handler = %v, want context.DeadlineExceeded", err)
		}
		tc.writeHex(packed(2, 0x43, "\x02"))
		tc.wantHex("new requests are refused", packed(2, 0x83, "\xa5drain"))
		drained := make(chan error)
		go func() { drained <- tc.session.Drain(t.Context()) }()
		synctest.Wait()
		close(gate)
		if err := <-drained; err != nil {
			t.Errorf("Drain = %v, want nil", err)
		}
		tc.wantHex("the running request is answered", packed(1, 0x03, "\x01"))
		if err := tc.session.Drain(t.Context()); err != nil {
			t.Errorf("second Drain = %v, want nil", err)
		}
	})
}

func TestCallTableGrows(t *testing.T) {
	var table callTable
	ids := map[uint32]*Call{}
	for range 5000 {
		c := new(Call)
		id, err := table.insert(c, 0)
		if err != nil {
			t.Fatal(err)
		}
		if id == 0 || ids[id] != nil {
			t.Fatalf("insert gave id %d, want a fresh one", id)
		}
		ids[id] = c
	}
	if got := table.live.Load(); got != 5000 {
		t.Errorf("live = %d, want 5000", got)
	}
	for id, c := range ids {
		if got := table.claim(id); got != c {
			t.Fatalf("claim(%d) = %p, want %p", id, got, c)
		}
		if got := table.claim(id); got != nil {
			t.Fatalf("second claim(%d) = %p, want nil", id, got)
		}
	}
}

func TestCallTableIsBounded(t *testing.T) {
	var table callTable
	n := 0
	for ; ; n++ {
		if _, err := table.insert(new(Call), 0); err != nil {
			if !errors.Is(err, ErrTooManyCalls) {
				t.Errorf("insert = %v, want ErrTooManyCalls", err)
			}
			break
		}
	}
	if n < maxTableSize || n > 2*maxTableSize {
		t.Errorf("%d calls fit, want %d to %d", n, maxTableSize, 2*maxTableSize)
	}
}

// TestCallTableFindsTheFreeSlots checks that calls which last long, and stand in a
// row, are no reason to refuse others while there is room.
func TestCallTableFindsTheFreeSlots(t *testing.T) {
	var table callTable
	for {
		if _, err := table.insert(new(Call), 0); err != nil {
			break
		}
	}
	table.sweep(func(int64) bool { return true }, func(*Call) {})
	for range 100 * probes {
		if _, err := table.insert(new(Call), 0); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 * maxTableSize {
		id, err := table.insert(new(Call), 0)
		if err != nil {
			t.Fatalf("insert = %v with %d calls under way", err, table.live.Load())
		}
		table.claim(id)
	}
}

// TestManyDeadlines checks that calls with different time limits do not cost a
// sweep each.
func TestManyDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		sweeps := 0
		expire := tc.session.deadlines.expire
		tc.session.deadlines.expire = func(now int64) (int64, time.Duration) {
			sweeps++
			return expire(now)
		}
		const calls = 20_000
		timedOut := 0
		for i := range calls {
			p := tc.session.NewCall()
			p.B = append(p.B, 0xc0)
			_, err := p.Start(t.Context(), wire.TypeCall, time.Second+time.Duration(i)*time.Microsecond, func(_ context.Context, _ Reply, err error) {
				if errors.Is(err, ErrTimeout) {
					timedOut++
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if timedOut != calls || sweeps > 50 {
			t.Errorf("%d of %d calls timed out in %d sweeps, want all in a few", timedOut, calls, sweeps)
		}
	})
}

// TestCallTableKeepsIDsApart checks that no id is used anew while its call waits
// (protocol section 4.4), not even one that stands in an older table.
func TestCallTableKeepsIDsApart(t *testing.T) {
	var table callTable
	long := map[uint32]bool{}
	for range 2 * firstTableSize { // into two tables
		id, err := table.insert(new(Call), 0)
		if err != nil {
			t.Fatal(err)
		}
		long[id] = true
	}
	table.lastID.Store(0xffffffff) // 4,294,967,295 ids later
	for range 4 * firstTableSize {
		id, err := table.insert(new(Call), 0)
		if err != nil {
			t.Fatal(err)
		}
		if long[id] {
			t.Fatalf("insert gave id %d, whose call still waits", id)
		}
		table.claim(id)
	}
}

// TestFullCallTableUsesNoIDs checks that refused calls do not run through the ids.
func TestFullCallTableUsesNoIDs(t *testing.T) {
	var table callTable
	for {
		if _, err := table.insert(new(Call), 0); err != nil {
			break
		}
	}
	before := table.lastID.Load()
	for range 1000 {
		if _, err := table.insert(new(Call), 0); !errors.Is(err, ErrTooManyCalls) {
			t.Fatalf("insert = %v, want ErrTooManyCalls", err)
		}
	}
	if used := table.lastID.Load() - before; used != 0 {
		t.Errorf("1000 refused calls used %d ids, want none", used)
	}
}

func TestCallTableSkipsZeroAndWraps(t *testing.T) {
	var table callTable
	table.lastID.Store(0xfffffffe)
	var got []uint32
	for range 3 {
		id, err := table.insert(new(Call), 0)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, id)
	}
	if want := []uint32{0xffffffff, 1, 2}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("ids around the wrap = %v, want %v", got, want)
	}
}

// TestEveryCallEndsOnce lets callers, time limits, cancellations, answers and the
// loss of the connection race for the same calls.
func TestEveryCallEndsOnce(t *testing.T) {
	workers, err := NewWorkers(0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{LocalID: "x", Workers: workers, Overloaded: []byte{0xc0}, Draining: []byte{0xc0}, Serve: func(r *Request, dst []byte) ([]byte, bool) {
		if r.Payload[0]%3 == 0 {
			time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
		}
		return echo(r, dst)
	}}
	for range 10 {
		a, b := Pipe(cfg, cfg)
		var wg sync.WaitGroup
		var answered, failed, wrong atomic.Int64
		for g := range 16 {
			wg.Go(func() {
				for i := range 200 {
					payload := []byte{byte(g + i), byte(g), byte(i)}
					p := a.NewCall()
					p.B = append(p.B, payload...)
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(3000))*time.Microsecond)
					if i%2 == 0 {
						r, err := p.Do(ctx, wire.TypeCall, time.Millisecond)
						switch {
						case err != nil:
							failed.Add(1)
						case !bytes.Equal(r.Payload, payload):
							wrong.Add(1)
						default:
							answered.Add(1)
						}
						p.Release()
					} else {
						donec := make(chan struct{}, 2)
						_, err := p.Start(ctx, wire.TypeCall, time.Millisecond, func(_ context.Context, r Reply, err error) {
							if err == nil && !bytes.Equal(r.Payload, payload) {
								wrong.Add(1)
							}
							donec <- struct{}{}
						})
						if err == nil {
							<-donec
							answered.Add(1)
						} else {
							failed.Add(1)
						}
						if len(donec) != 0 {
							wrong.Add(1)
						}
					}
					cancel()
				}
			})
		}
		if rand.IntN(2) == 0 {
			wg.Go(func() { b.Close(closeNormal, "") })
		}
		wg.Wait()
		a.Close(closeNormal, "")
		<-a.Done()
		<-b.Done()
		if wrong.Load() != 0 || answered.Load()+failed.Load() != 16*200 || a.Pending() != 0 {
			t.Errorf("answered %d, failed %d, wrong %d, pending %d; want 3200 in all, 0 wrong, 0 pending", answered.Load(), failed.Load(), wrong.Load(), a.Pending())
		}
	}
	if err := workers.Close(5 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestCallAllocations(t *testing.T) {
	if testing.Short() {
		t.Skip("allocations differ under instrumentation")
	}
	workers, err := NewWorkers(0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer workers.Close(time.Second)
	cfg := Config{LocalID: "x", Workers: workers, Overloaded: []byte{0xc0}, Draining: []byte{0xc0}, Serve: echo}
	a, _ := Pipe(cfg, cfg)
	defer func() { a.Close(closeNormal, ""); <-a.Done() }()
	allocs := testing.AllocsPerRun(2000, func() {
		p := a.NewCall()
		p.B = append(p.B, 0xc0)
		_, err := p.Do(context.Background(), wire.TypeCall, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		p.Release()
	})
	if allocs >= 1 && !raceEnabled {
		t.Errorf("%v allocations per call, want 0", allocs)
	}
}

func FuzzMessage(f *testing.F) {
	for _, h := range []string{"0000000140c0", "0000000143c0", "0000000103c0", "0000000145c00000000100000000"} {
		b, _ := hex.DecodeString(h)
		f.Add(false, b)
	}
	f.Add(true, []byte(`{"type":"client-id","id":"x"}`))
	f.Fuzz(func(t *testing.T, text bool, p []byte) {
		workers, err := NewWorkers(4, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, connector := range []bool{true, false} {
			l := &sink{}
			s := NewSession(l, Config{LocalID: "x", Connector: connector, Workers: workers, Overloaded: []byte{0xc0}, Draining: []byte{0xc0}, Serve: echo})
			l.s = s
			s.Begin()
			s.Message(text, bytes.Clone(p))
			s.Message(text, bytes.Clone(p))
			s.ReadDone()
			l.end()
		}
		if err := workers.Close(time.Second); err != nil {
			t.Error(err)
		}
	})
}

// sink is a link that throws everything away.
type sink struct {
	s     *Session
	mu    sync.Mutex // the write role
	ended bool       // guarded by mu
}

// end ends the session when nobody has the write role, for good.
func (l *sink) end() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.s.Closed(errTestLost)
}

func (l *sink) BeginFrame(dst []byte) []byte            { return dst }
func (l *sink) EndFrame(b []byte, _ int, _ bool) []byte { return b }

func (l *sink) Kick() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.ended && len(l.s.Collect(nil)) > 0 {
	}
}
func (l *sink) CloseWith(uint16, string) {}

func BenchmarkCall(b *testing.B) {
	for _, inflight := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("inflight=%d", inflight), func(b *testing.B) {
			workers, err := NewWorkers(0, 0, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer workers.Close(time.Second)
			cfg := Config{LocalID: "x", Workers: workers, Overloaded: []byte{0xc0}, Draining: []byte{0xc0}, Serve: echo}
			a, _ := Pipe(cfg, cfg)
			defer func() { a.Close(closeNormal, ""); <-a.Done() }()
			b.ReportAllocs()
			b.SetParallelism(inflight)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					p := a.NewCall()
					p.B = append(p.B, 0xc0)
					_, err := p.Do(context.Background(), wire.TypeCall, 5*time.Second)
					if err != nil {
						b.Fatal(err)
					}
					p.Release()
				}
			})
		})
	}
}
