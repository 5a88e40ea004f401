package mux

import (
	"encoding/binary"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// tiredTarget takes its time when it is told of the first stall, as if the machine
// had stopped the goroutine that tells it.
type tiredTarget struct {
	testTarget
	told atomic.Bool
}

func (t *tiredTarget) Stalled() {
	if !t.told.Swap(true) {
		time.Sleep(5 * watchTick)
	}
	t.testTarget.Stalled()
}

// TestNoRescueBeforeTheWorker checks that a block which waits to be given to a
// worker, while the read owner is held up, is not served by a rescue as well: when
// the read owner then finds no worker, it refuses the block and gives it back.
func TestNoRescueBeforeTheWorker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &tiredTarget{}
		tc := newTestConn(t, Config{
			Connector: true,
			Route:     func(r *Request) { r.Target = target },
			Serve: func(r *Request, dst []byte) ([]byte, bool) {
				time.Sleep(time.Second)
				return echo(r, dst)
			},
		})
		defer tc.end()
		small, err := NewWorkers(3, 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer small.Close(time.Second)
		tc.session.cfg.Workers = small
		tc.asConnector()
		tc.writeHex(packed(0, 0x43, "\x01"), packed(1, 0x43, "\x01"))
		time.Sleep(watchTick + 2*stalledAfter) // the timer has seen it
		tc.writeHex(packed(2, 0x43, "\x01"), packed(3, 0x43, "\x01"))
		time.Sleep(10 * time.Second)
		var answers [4]int
		for range answers {
			answers[binary.BigEndian.Uint32(tc.next("an answer for each request").p)]++
		}
		tc.wantIdle("no more answers than requests")
		if answers != [4]int{1, 1, 1, 1} {
			t.Errorf("answers by request: %v, want one each", answers)
		}
		if n, bytes := tc.session.Inflight(), small.bytes.Load(); n != 0 || bytes != 0 {
			t.Errorf("%d requests of %d bytes are still counted, want none", n, bytes)
		}
	})
}

// TestFinishedAnswersOutlastAFullQueue checks that the answers which a rescue cannot
// send, because the queue is full, leave when there is room again, however long the
// last handler of their block takes; and that no target is blamed meanwhile.
func TestFinishedAnswersOutlastAFullQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &testTarget{}
		tc := newTestConn(t, Config{
			Connector: true,
			Route:     func(r *Request) { r.Target = target },
			Serve: func(r *Request, dst []byte) ([]byte, bool) {
				time.Sleep(time.Duration(r.Payload[0]) * time.Second)
				return echo(r, dst)
			},
		})
		defer tc.end()
		tc.asConnector()
		tc.hold()
		tc.session.queue.maxMessages = 1
		tc.call(t.Context(), "\xc0", 0)
		synctest.Wait()
		tc.writeHex(packed(1, 0x43, "\x00"), packed(2, 0x43, "\x02"))
		time.Sleep(5 * watchTick)
		if n := target.stalls.Load(); n != 0 {
			t.Errorf("%d stalls while the queue is full, want none", n)
		}
		tc.release()
		time.Sleep(2 * watchTick)
		tc.wantHex("the call", packed(1, 0x43, "\xc0"))
		tc.wantHex("the answer that was finished", packed(1, 0x03, "\x00"))
		tc.wantIdle("the other sleeps")
		time.Sleep(2 * time.Second)
		tc.wantHex("the slow one", packed(2, 0x03, "\x02"))
		if n := len(tc.workers.running); n != 0 {
			t.Errorf("%d blocks are watched, want none", n)
		}
	})
}

// TestAnswersTakeNoMoreRoomThanTheyFill checks the memory of a block's answers, which
// the limit of the outgoing queue does not see.
func TestAnswersTakeNoMoreRoomThanTheyFill(t *testing.T) {
	b := &block{queue: make([]queued, blockRequests)}
	b.finish(make([]byte, flushBytes-1), &b.queue[0])
	if room := cap(b.out.B); room > 2*flushBytes {
		t.Errorf("%d bytes of room for answers that are sent from %d bytes on", room, flushBytes)
	}
	b.out.Release()
}

// stuckTarget holds up who tells it of the first stall.
type stuckTarget struct {
	testTarget
	told atomic.Bool
}

func (t *stuckTarget) Stalled() {
	if !t.told.Swap(true) {
		time.Sleep(time.Second)
	}
}

// TestOneRescueHoldsUpNoOther checks that blocks are rescued while another rescue
// takes long, as one over a pipe may, which delivers what it sends.
func TestOneRescueHoldsUpNoOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		target := &stuckTarget{}
		tc := newTestConn(t, Config{Connector: true, Route: func(r *Request) { r.Target = target }, Serve: sleepy})
		defer tc.end()
		tc.asConnector()
		tc.writeHex(packed(1, 0x43, "\x00\x00"), packed(2, 0x43, "\x00\xff"))
		time.Sleep(5 * watchTick)
		tc.wantHex("the rescue that takes long has sent it", packed(1, 0x03, "\x00\x00"))
		tc.writeHex(packed(3, 0x43, "\x00\xff"), packed(4, 0x43, "\x00\x00"), packed(5, 0x43, "\x00\x00"))
		time.Sleep(5 * watchTick)
		tc.wantHex("one of the others", packed(4, 0x03, "\x00\x00"))
		time.Sleep(2 * time.Second)
		for range 3 {
			tc.next("the rest")
		}
	})
}

// TestTimeOfAnEarlierRead checks that a read does not go by a time which somebody
// with the context of the read owner, who was late, left behind.
func TestTimeOfAnEarlierRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		s := tc.session
		s.readAt.Store(s.deadlines.now())
		time.Sleep(time.Minute)
		s.Message(false, unhex(t, packed(1, 0x43, "\x00")))
		if now := s.now(s.ownerCtx); now < int64(time.Minute) {
			t.Errorf("the read goes by the time %v, a minute ago", time.Duration(now))
		}
		s.ReadDone()
		tc.next("the answer")
	})
}
