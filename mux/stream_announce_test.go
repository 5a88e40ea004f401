package mux

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// TestExpectedStreams announces streams before anybody opens them.
func TestExpectedStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{Window: 1000, MaxEarlyBytes: 10}, FeatureCancel, FeatureCredit)
		defer c.end()
		for id := uint32(1); id <= 5; id++ {
			c.session.ExpectReader(id, true)
		}
		c.session.ExpectReader(1, true) // twice
		c.session.ExpectReader(0, true)
		big := strings.Repeat("x", 50)
		c.say("chunk 1 0 "+big, "chunk 1 1 b", "chunk 2 0 a", "end 2 1", "chunk 3 0 a", "error 3 why", "end 2 2", "chunk 4 0 a")
		c.wantOpenStreams("expected ones are open", 0, 5, 0)

		r, err := c.session.ReaderFor(1, true)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readNow(c.session, r); fmt.Sprint(got) != fmt.Sprint([]string{big, "b"}) || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("stream 1 = %q, %v, want two chunks: its own window holds, not that for early ones", got, err)
		}
		if _, err := c.session.ReaderFor(1, true); !errors.Is(err, ErrStreamID) {
			t.Errorf("opened twice: %v, want ErrStreamID", err)
		}
		r.Cancel("enough")
		r, err = c.session.ReaderFor(2, true)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := readNow(c.session, r); fmt.Sprint(got) != "[a]" || !errors.Is(err, io.EOF) {
			t.Errorf("stream 2, which had ended before = %q, %v, want its chunk and the end", got, err)
		}
		if r, err = c.session.ReaderFor(3, true); err != nil {
			t.Fatal(err)
		}
		var failed *StreamError
		if got, err := readNow(c.session, r); fmt.Sprint(got) != "[a]" || !errors.As(err, &failed) || failed.Message != "why" {
			t.Errorf("stream 3, which had failed before = %q, %v, want its chunk and why", got, err)
		}
		c.wants("stream 1 is given up", "cancel 1 enough")
		c.session.RefuseReader(4)
		c.session.RefuseReader(4)
		c.session.RefuseReader(6) // of which nothing has come
		c.session.RefuseReader(2) // that was read
		c.wants("refused", "cancel 4 nobody asked for the stream", "cancel 6 nobody asked for the stream")
		c.wantOpenStreams("one is expected", 0, 1, 0)
		time.Sleep(61 * time.Second)
		c.wants("nobody came", "cancel 5 nobody asked for the stream")
		c.wantOpenStreams("at the end", 0, 0, 0)
		for _, id := range []uint32{4, 5, 6} {
			if _, err := c.session.ReaderFor(id, true); !errors.Is(err, ErrStreamID) {
				t.Errorf("stream %d opened too late: %v, want ErrStreamID", id, err)
			}
		}
		c.wantOpen("at the end")
	})
}

// reference returns the answer to a request that is a stream.
func reference(id uint32, live byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0xc7, 5, 107}, id), live)
}

// TestAnnouncedByAnswer has answers announce streams whose chunks are right behind.
func TestAnnouncedByAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{MaxEarlyBytes: 1}, FeatureCancel)
		defer c.end()
		got := make(chan string)
		go func() {
			call := c.session.NewCall()
			call.B = append(call.B, nilValue)
			call.Stream = true
			defer call.Release()
			reply, err := call.Do(t.Context(), wire.TypeCall, 0)
			if err != nil {
				got <- err.Error()
				return
			}
			time.Sleep(time.Second) // the chunks come
			id, live, _ := testPackets{}.ParseReference(reply.Payload)
			r, err := c.session.ReaderFor(id, live)
			if err != nil {
				got <- err.Error()
				return
			}
			chunks, err := readAll(t.Context(), r)
			got <- fmt.Sprint(chunks, err)
		}()
		synctest.Wait()
		c.mu.Lock()
		pkt, err := wire.Parse(c.sent[0].p)
		c.sent = nil
		c.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		answer := func(id, streamID uint32) {
			c.session.Message(false, append(wire.AppendHeader(nil, id, wire.Response(wire.TypeCall, false)), reference(streamID, 1)...))
		}
		answer(pkt.ID, 9)
		c.say("chunk 9 0 abc live", "chunk 9 1 def live", "end 9 2")
		if got := <-got; got != "[abc def] EOF" {
			t.Errorf("the stream of the answer = %s, want both chunks, more than may come early", got)
		}
		answer(12345, 10)
		c.say()
		c.wants("an answer that nobody waits for", "cancel 10 nobody asked for the stream")
		c.wantOpenStreams("at the end", 0, 0, 0)
	})
}

// TestAbort gives a stream up while it is read, with a chunk on loan.
func TestAbort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{Window: 100, SessionWindow: 100}, FeatureCancel, FeatureCredit)
		defer c.end()
		r, err := c.session.ReaderFor(1, false)
		if err != nil {
			t.Fatal(err)
		}
		c.say("chunk 1 0 "+strings.Repeat("x", 40), "chunk 1 1 "+strings.Repeat("y", 40))
		p, err := r.Next(t.Context())
		if err != nil || p[0] != 'x' {
			t.Fatalf("Next = %q, %v", p, err)
		}
		r.Abort("enough")
		r.Abort("more than enough")
		if p[0] != 'x' {
			t.Error("what was lent has changed")
		}
		c.wants("the credit of both is given back", "credit 0 80", "cancel 1 enough")
		var failed *StreamError
		if _, err := r.Next(t.Context()); !errors.As(err, &failed) || failed.Message != "enough" {
			t.Errorf("Next = %v, want enough", err)
		}
		r.Cancel("again")
		c.wants("nothing is given back twice")
		blocked := make(chan error)
		if r, err = c.session.ReaderFor(2, false); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := r.Next(t.Context())
			blocked <- err
		}()
		synctest.Wait()
		r.Abort("enough")
		if err := <-blocked; !errors.As(err, &failed) {
			t.Errorf("Next that waited = %v, want a *StreamError", err)
		}
		c.wantOpenStreams("at the end", 0, 0, 0)
	})
}

// TestDropAndOnEnd ends writers in each way.
func TestDropAndOnEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{}, FeatureCancel)
		defer c.end()
		ended := 0
		open := func() *StreamWriter {
			w, err := c.session.NewWriter(false)
			if err != nil {
				t.Fatal(err)
			}
			w.OnEnd(func(error) { ended++ })
			return w
		}
		w := open()
		w.Drop()
		w.Drop()
		w.Close()
		w.Fail("no", nil)
		if err := sendText(t.Context(), w, "x"); !errors.Is(err, ErrClosed) {
			t.Errorf("Send after Drop = %v, want ErrClosed", err)
		}
		c.wants("dropped: the peer hears nothing")
		w.OnEnd(func(error) { ended += 10 })
		if ended != 11 {
			t.Errorf("OnEnd was called for %d, want 11: once, and once for what comes late", ended)
		}
		w = open()
		c.say(fmt.Sprintf("cancel %d enough", w.ID()))
		if ended != 12 {
			t.Errorf("OnEnd was called for %d, want 12", ended)
		}
		w = open()
		w.Close()
		synctest.Wait()
		if ended != 13 {
			t.Errorf("OnEnd was called for %d, want 13", ended)
		}
		c.heard()
		c.wantOpenStreams("at the end", 0, 0, 0)
	})
}

// TestAfterAnswer checks that what a handler wants done comes after its answer, although the
// answers of its batch wait for one another.
func TestAfterAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tc *testConn
		queued := make(chan int64, 3)
		tc = newTestConn(t, Config{Connector: true, Serve: func(r *Request, dst []byte) ([]byte, bool) {
			release := r.Session().Hold()
			r.AfterAnswer = func() {
				queued <- tc.session.queue.load.Load() >> loadShift
				time.AfterFunc(time.Second, release)
			}
			return append(dst, r.Payload...), false
		}})
		defer tc.end()
		tc.asConnector()
		tc.hold()
		tc.writeHex(packed(1, 0x43, "\x01"), packed(2, 0x43, "\x01"), packed(3, 0x43, "\x01"))
		for range 3 {
			if n := <-queued; n != 3 {
				t.Errorf("AfterAnswer with %d answers queued, want 3", n)
			}
		}
		synctest.Wait()
		if n := tc.session.Inflight(); n != 3 {
			t.Errorf("%d requests are served, want the 3 that hold", n)
		}
		tc.release()
		time.Sleep(2 * time.Second)
		if n := tc.session.Inflight(); n != 0 {
			t.Errorf("%d requests are served, want none", n)
		}
	})
}
