package mux

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

// earlyAfter is sleepy, and answers early after 100 ms.
func earlyAfter(r *Request, dst []byte) ([]byte, bool) {
	var early EarlyAnswer
	r.MayAnswerEarly(&early)
	timer := time.AfterFunc(100*time.Millisecond, func() { early.Answer([]byte("\xa4late"), true) })
	defer timer.Stop()
	dst, isError := sleepy(r, dst)
	switch r.Payload[0] {
	case 1:
		panic("boom")
	case 2:
		runtime.Goexit()
	}
	return dst, isError
}

// TestEarlyAnswer checks that a request is answered once, by whoever is first, and
// counts as being served until its handler has ended.
func TestEarlyAnswer(t *testing.T) {
	for _, ending := range []string{"\x00", "\x01", "\x02"} {
		synctest.Test(t, func(t *testing.T) {
			tc := newTestConn(t, Config{Connector: true, Serve: earlyAfter})
			defer tc.end()
			tc.asConnector()
			tc.writeHex(packed(1, 0x44, "\x00\x0a"), packed(2, 0x44, ending+"\xc8"), packed(3, 0x44, "\x00\x0a"))
			time.Sleep(90 * time.Millisecond)
			tc.wantHex("in time", packed(1, 0x04, "\x00\x0a"))
			tc.wantHex("in time, behind the slow one", packed(3, 0x04, "\x00\x0a"))
			tc.wantIdle("the slow one runs")
			time.Sleep(20 * time.Millisecond)
			tc.wantHex("the early answer", packed(2, 0x84, "\xa4late"))
			if n := tc.session.Inflight(); n != 1 {
				t.Errorf("%q: Inflight = %d while the handler runs, want 1", ending, n)
			}
			drained := make(chan error, 1)
			go func() { drained <- tc.session.Drain(context.Background()) }()
			synctest.Wait()
			select {
			case err := <-drained:
				t.Errorf("%q: Drain = %v while the handler runs, want it to wait", ending, err)
			default:
			}
			time.Sleep(200 * time.Millisecond)
			tc.wantIdle("a request has one answer")
			if err := <-drained; err != nil {
				t.Errorf("%q: Drain = %v, want nil", ending, err)
			}
			if n, bytes := tc.session.Inflight(), tc.workers.bytes.Load(); n != 0 || bytes != 0 {
				t.Errorf("%q: Inflight = %d, %d bytes at the end, want none", ending, n, bytes)
			}
		})
	}
}

// TestEarlyAnswerAtTheSameTime has handler and limit end together: there is one
// answer, and a drained session has sent it.
func TestEarlyAnswerAtTheSameTime(t *testing.T) {
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			tc := newTestConn(t, Config{Connector: true, Serve: earlyAfter})
			defer tc.end()
			tc.asConnector()
			tc.writeHex(packed(1, 0x44, "\x00\x64"))
			if err := tc.session.Drain(context.Background()); err != nil {
				t.Fatal(err)
			}
			tc.mu.Lock()
			n := len(tc.sent)
			tc.mu.Unlock()
			if n != 1 {
				t.Fatalf("%d answers when the session is drained, want 1", n)
			}
			tc.next("the answer")
			tc.wantIdle("there is one answer")
		})
	}
}

// TestEarlyAnswerToAFullQueue checks that an early answer waits for room, and not
// beyond the end of the session.
func TestEarlyAnswerToAFullQueue(t *testing.T) {
	for _, ends := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			tc := newTestConn(t, Config{Connector: true, MaxQueuePackets: 1, Serve: earlyAfter})
			defer tc.end()
			tc.asConnector()
			tc.hold()
			tc.writeHex(packed(1, 0x44, "\x00\x0a"))
			time.Sleep(50 * time.Millisecond) // its answer fills the queue
			tc.writeHex(packed(2, 0x44, "\x00\xc8"))
			time.Sleep(time.Second)
			tc.wantIdle("the link takes nothing")
			if n := tc.session.Inflight(); n != 1 {
				t.Errorf("Inflight = %d while the early answer waits, want 1", n)
			}
			if ends {
				return // end, and the bubble, wait for the goroutine
			}
			tc.release()
			tc.wantHex("the first", packed(1, 0x04, "\x00\x0a"))
			tc.wantHex("the early answer", packed(2, 0x84, "\xa4late"))
			if n := tc.session.Inflight(); n != 0 {
				t.Errorf("Inflight = %d at the end, want 0", n)
			}
		})
	}
}
