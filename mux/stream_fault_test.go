package mux

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// TestStreamsBeforeAndAfter opens streams when there is no peer yet, and none any more.
func TestStreamsBeforeAndAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Streams: &StreamConfig{Packets: testPackets{}}})
		open := map[string]func() error{
			"NewWriter": func() error { _, err := tc.session.NewWriter(false); return err },
			"WriterFor": func() error { _, err := tc.session.WriterFor(1, false); return err },
			"NewReader": func() error { _, err := tc.session.NewReader(false); return err },
			"ReaderFor": func() error { _, err := tc.session.ReaderFor(1, false); return err },
		}
		for name, f := range open {
			if err := f(); !errors.Is(err, ErrNoStreams) {
				t.Errorf("%s before the handshake: %v", name, err)
			}
		}
		tc.writeText(`{"type":"client-id","id":"x"}`)
		tc.end()
		for name, f := range open {
			if err := f(); !errors.Is(err, ErrClosed) || !errors.Is(err, errTestLost) {
				t.Errorf("%s after the end: %v", name, err)
			}
		}
	})
}

// TestStreamAfterItsAnnouncement checks that no chunk is sent before what was queued ahead of
// the first one, even while a write is being put together.
func TestStreamAfterItsAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{})
		defer c.end()
		known, _ := c.session.NewWriter(false)
		if err := sendText(t.Context(), known, "a"); err != nil {
			t.Fatal(err)
		}
		c.wants("a stream that the peer knows", "chunk 2147483649 0 a")
		c.hold()
		fresh, _ := c.session.NewWriter(false)
		for _, w := range []*StreamWriter{fresh, known} {
			if err := sendText(t.Context(), w, "b"); err != nil {
				t.Fatal(err)
			}
		}
		st := c.session.streamsOf()
		// The holder of the write role has found the queue empty; then an answer is queued.
		st.control(wire.TypePing, func(dst []byte) []byte { return append(dst, nilValue) })
		if dst, _ := st.collect(nil, nil, collectBytes); len(dst) != 1 || !strings.Contains(string(dst[0]), "b\x80\x00\x00\x01") {
			t.Errorf("beside the answer goes %q, want the chunk of the known stream", dst)
		}
		c.release()
		c.wants("the rest", "64 c0", "chunk 2147483650 0 b")
	})
}

// TestStreamEndNeedsNoCredit ends streams while another one has all the credit.
func TestStreamEndNeedsNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{}, FeatureCredit)
		defer c.end()
		var all [4]*StreamWriter
		for i := range all {
			all[i], _ = c.session.NewWriter(false)
			if err := sendText(t.Context(), all[i], strings.Repeat("x", 90)); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.heard(); len(got) != 3 {
			t.Fatalf("heard %q, want three chunks", got)
		}
		all[1].Close()
		all[2].Fail("boom", nil)
		c.wants("the ends of two", "end 2147483650 1", "error 2147483651 boom")
		<-all[1].Done()
		<-all[2].Done()
	})
}

// TestStreamJoinedChunks checks that chunks which stand together take no more credit than one
// by one.
func TestStreamJoinedChunks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{}, FeatureCredit)
		defer c.end()
		c.hold()
		var all [5]*StreamWriter
		var want []string
		for i := range all {
			all[i], _ = c.session.NewWriter(false)
			for k := range 10 {
				if err := sendText(t.Context(), all[i], fmt.Sprintf("%08d", k)); err != nil {
					t.Fatal(err)
				}
				want = append(want, fmt.Sprintf("chunk %d %d %08d", all[i].ID(), k, k))
			}
			all[i].Close()
			want = append(want, fmt.Sprintf("end %d 10", all[i].ID()))
		}
		c.release()
		got := c.heard()
		if n := len(slices.DeleteFunc(slices.Clone(got), func(s string) bool { return strings.HasPrefix(s, "end") })); n != 32 {
			t.Errorf("%d chunks for 250 bytes of credit, want 32", n)
		}
		for len(got) < len(want) {
			c.say("credit 0 9")
			more := c.heard()
			if len(more) == 0 || len(more) > 3 {
				t.Fatalf("%d packets for 9 bytes: %q", len(more), more)
			}
			got = append(got, more...)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("sent %q, want %q", got, want)
		}
	})
}

// TestStreamTurns checks that streams send as much as each other, whatever their chunks.
func TestStreamTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{})
		defer c.end()
		c.hold()
		sizes := []int{100, 3000, 8 << 10, 60 << 10, 300 << 10}
		var all []*StreamWriter
		for range sizes {
			w, _ := c.session.NewWriter(false)
			all = append(all, w)
		}
		sent := make([]int, len(sizes))
		for range 4000 {
			for i, w := range all { // each has always something to send
				for w.hasRoom() {
					if err := sendText(t.Context(), w, strings.Repeat("x", sizes[i])); err != nil {
						t.Fatal(err)
					}
				}
			}
			before := make([]int, len(all))
			for i, w := range all {
				before[i] = w.queued
			}
			dst, written := c.session.streamsOf().collect(nil, nil, collectBytes)
			if len(dst) == 0 {
				t.Fatal("nothing to send")
			}
			for _, b := range written {
				b.Release()
			}
			for i, w := range all {
				sent[i] += before[i] - w.queued
			}
		}
		least, most := slices.Min(sent), slices.Max(sent)
		if float64(most) > 1.1*float64(least) {
			t.Errorf("streams have sent %d bytes, want about the same", sent)
		}
	})
}

// TestStreamCancelBeforeAnnouncement lets the reader give a stream up before this side knows
// it.
func TestStreamCancelBeforeAnnouncement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{}, FeatureCancel)
		defer c.end()
		c.say("cancel 5 changed my mind")
		w, err := c.session.WriterFor(5, false)
		if err != nil {
			t.Fatal(err)
		}
		if se, ok := errors.AsType[*StreamError](sendText(t.Context(), w, "x")); !ok || !se.Remote {
			t.Errorf("Send = %v, want that the reader has given up", se)
		}
		c.wants("nothing is sent")
		c.wantOpenStreams("at the end", 0, 0, 0)
	})
}

// TestStreamFaultsLeaveNothing repeats what may go wrong with early streams, and checks that
// windows and limits are what they were.
func TestStreamFaultsLeaveNothing(t *testing.T) {
	for name, say := range map[string][]string{
		"second chunk out of turn": {"chunk %d 0 aaaa", "chunk %[1]d 2 bbbbbbbb"},
		"first chunk out of turn":  {"chunk %d 1 bbbbbbbb"},
		"null":                     {"chunk %d 0 aaaa live", "chunk %[1]d 1 null live"},
		"null at first":            {"chunk %d 0 null live"},
		"too much at once":         {"chunk %d 0 " + strings.Repeat("x", 120)},
		"never announced":          {"chunk %d 0 aaaa", "end %[1]d 1"},
		"an error alone":           {"error %d boom"},
		"an error behind":          {"chunk %d 0 aaaa", "error %[1]d boom", "chunk %[1]d 1 bb"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newStreamConn(t, StreamConfig{Window: 150, SessionWindow: 1000, MaxEarlyBytes: 100, MaxStreams: 10}, FeatureCancel, FeatureCredit)
				defer c.end()
				for i := range 300 {
					for _, line := range say {
						if strings.Contains(line, "%") {
							line = fmt.Sprintf(line, i+1)
						}
						c.say(line)
					}
					if i%5 == 4 {
						time.Sleep(2 * defaultIdleLimit)
					}
				}
				time.Sleep(2 * defaultIdleLimit)
				c.heard()
				c.wantOpen("afterwards")
				c.wantOpenStreams("afterwards", 0, 0, 0)
				st := c.session.streamsOf()
				if st.waiting != 0 || st.buffered != 0 || st.window+int64(st.owed) != 1000 {
					t.Errorf("%d bytes wait, %d are buffered, window %d, owed %d", st.waiting, st.buffered, st.window, st.owed)
				}
				if n := len(st.gone.ids); n > maxGone {
					t.Errorf("%d ids are remembered", n)
				}
			})
		})
	}
}

// TestStreamQueuesShrink checks that a queue which is never empty does not grow.
func TestStreamQueuesShrink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{})
		defer c.end()
		r, err := c.session.ReaderFor(1, false)
		if err != nil {
			t.Fatal(err)
		}
		w, _ := c.session.NewWriter(false)
		c.hold()
		long := strings.Repeat("x", joinedChunk+1)
		c.say("chunk 1 0 " + long)
		for i := range 5000 {
			c.say(fmt.Sprintf("chunk 1 %d %s", i+1, long))
			if _, err := r.Next(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := sendText(t.Context(), w, long); err != nil {
				t.Fatal(err)
			}
			if i > 0 {
				_, written := c.session.streamsOf().collect(nil, nil, 1)
				for _, b := range written {
					b.Release()
				}
			}
		}
		if cap(r.queue) > 4*keptPieces || cap(w.queue) > 4*keptPieces {
			t.Errorf("room for %d pieces to read and %d to write, of which one waits", cap(r.queue), cap(w.queue))
		}
	})
}

// TestStreamWindowGrowth carries chunks of several sizes over a line with a round trip of
// 100 ms, and checks that the window becomes what the line needs.
func TestStreamWindowGrowth(t *testing.T) {
	for _, size := range []int{4000, 16 << 10, 40000, 48 << 10, 300 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newStreamConn(t, StreamConfig{}, FeatureCancel, FeatureCredit)
				defer c.end()
				r, err := c.session.ReaderFor(1, false)
				if err != nil {
					t.Fatal(err)
				}
				credit, chunk := int64(defaultWindow), strings.Repeat("x", size)
				for i := 0; r.size < defaultMaxWindow && i < 20000; {
					for ; credit > 0; i++ {
						c.say(fmt.Sprintf("chunk 1 %d %s", i, chunk))
						credit -= int64(size)
						if _, err := readNow(c.session, r); !errors.Is(err, ErrWouldBlock) {
							t.Fatal(err)
						}
						time.Sleep(20 * time.Microsecond)
					}
					time.Sleep(100 * time.Millisecond)
					for _, line := range c.heard() {
						var id uint32
						var n int64
						if _, err := fmt.Sscanf(line, "credit %d %d", &id, &n); err != nil {
							t.Fatalf("heard %q", line)
						}
						if id == 1 {
							credit += n
						}
					}
				}
				if r.size != defaultMaxWindow {
					t.Errorf("the window is %d, the round trip %v", r.size, time.Duration(r.trip))
				}
			})
		})
	}
}

// pausingConn is a link that can stop reading.
type pausingConn struct {
	*testConn
	pauses, resumes atomic.Int32
}

func (c *pausingConn) PauseReading()  { c.pauses.Add(1) }
func (c *pausingConn) ResumeReading() { c.resumes.Add(1) }

// TestStreamWithoutCredit checks what becomes of a peer that sends more than is read, and cannot
// be told.
func TestStreamWithoutCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{MaxBuffered: 1000}, FeatureCancel)
		defer c.end()
		link := &pausingConn{testConn: c.testConn}
		c.session.link = link
		wantPauses := func(why string, pauses, resumes int32) {
			t.Helper()
			if p, r := link.pauses.Load(), link.resumes.Load(); p != pauses || r != resumes {
				t.Errorf("%s: %d pauses, %d ends of them, want %d, %d", why, p, r, pauses, resumes)
			}
		}
		long := strings.Repeat("x", 600)
		slow, _ := c.session.ReaderFor(1, false)
		never, _ := c.session.ReaderFor(2, true)
		c.say("chunk 1 0 "+long, "chunk 2 0 "+long)
		wantPauses("before", 0, 0)
		c.say("chunk 1 1 "+long, "chunk 2 1 "+long)
		wantPauses("two have too much", 1, 0)
		time.Sleep(9 * time.Second)
		if got, err := readNow(c.session, slow); len(got) != 2 || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("read %d chunks, %v", len(got), err)
		}
		wantPauses("one has caught up", 1, 0)
		time.Sleep(2 * time.Second)
		wantPauses("the other has failed", 1, 1)
		c.wants("its writer is told", "cancel 2 the reader was 10s behind")
		if got, err := readNow(c.session, never); len(got) != 2 || err == nil || !strings.Contains(err.Error(), "behind") {
			t.Errorf("read %d chunks, %v", len(got), err)
		}
		c.say("chunk 1 2 "+long, "chunk 1 3 "+long, "end 1 4")
		wantPauses("an end ends it", 2, 2)
		if got, err := readNow(c.session, slow); len(got) != 2 || !errors.Is(err, io.EOF) {
			t.Errorf("read %d chunks, %v", len(got), err)
		}
		// On a link that goes on the stream fails in the end.
		flood, _ := c.session.ReaderFor(3, false)
		for i := range 20 {
			c.say(fmt.Sprintf("chunk 3 %d %s", i, long))
		}
		if got, err := readNow(c.session, flood); len(got) == 20 || errors.Is(err, ErrWouldBlock) {
			t.Errorf("read %d chunks, %v", len(got), err)
		}
		c.wantOpen("at the end")
		c.wantOpenStreams("at the end", 0, 0, 0)
	})
}

// TestStreamWithoutLimits checks that limits which are off are none.
func TestStreamWithoutLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{MaxBuffered: -1, SessionWindow: 1000, StallLimit: -1, IdleLimit: -1})
		defer c.end()
		link := &pausingConn{testConn: c.testConn}
		c.session.link = link
		r, err := c.session.ReaderFor(1, false)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 { // the limit of all streams together pauses the connection
			c.say(fmt.Sprintf("chunk 1 %d %s", i, strings.Repeat("x", 600)))
		}
		time.Sleep(time.Hour)
		if p, r := link.pauses.Load(), link.resumes.Load(); p != 1 || r != 0 {
			t.Errorf("%d pauses, %d ends of them, want one that lasts", p, r)
		}
		if got, err := readNow(c.session, r); len(got) != 3 || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("read %d chunks, %v", len(got), err)
		}
		if link.resumes.Load() != 1 {
			t.Error("the pause goes on although all was read")
		}
	})
}

// TestStreamReaderThatStops checks how much a reader holds that reads no more.
func TestStreamReaderThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newStreamModel(t, 1, []string{FeatureCancel, FeatureCredit})
		w, err := m.sessions[0].NewWriter(true)
		if err != nil {
			t.Fatal(err)
		}
		r, err := m.sessions[1].ReaderFor(w.ID(), true)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sent := 0
		for {
			if err := sendText(ctx, w, strings.Repeat("x", 100)); err != nil {
				break
			}
			sent += 100
		}
		r.streams.mu.Lock()
		waiting := r.bytes
		r.streams.mu.Unlock()
		if waiting < 1000 || waiting > 1100 || sent > waiting {
			t.Errorf("after a minute %d bytes wait of %d sent, want the window of 1000", waiting, sent)
		}
		w.Fail("enough", nil)
		chunks, err := readAll(t.Context(), r)
		if len(chunks) != sent/100 || err == nil {
			t.Errorf("read %d chunks, %v", len(chunks), err)
		}
		m.check()
		m.sessions[0].Close(closeNormal, "")
		<-m.sessions[1].Done()
	})
}

// TestCreditBesideStoppedReaders checks that streams go on beside ones whose readers have stopped
// with most of the connection's window: what they have read is given back although it is little.
func TestCreditBesideStoppedReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newStreamModel(t, 0, []string{FeatureCancel, FeatureCredit})
		near, far := m.sessions[0], m.sessions[1]
		defer near.Close(closeNormal, "")
		open := func() (*StreamWriter, *StreamReader) {
			w, err := near.NewWriter(false)
			if err != nil {
				t.Fatal(err)
			}
			r, err := far.ReaderFor(w.ID(), false)
			if err != nil {
				t.Fatal(err)
			}
			return w, r
		}
		for range 2 { // of the window of 3,000 bytes 2,000 are taken
			stopped, reader := open()
			if err := sendText(t.Context(), stopped, strings.Repeat("x", 999)); err != nil {
				t.Fatal(err)
			}
			defer reader.Cancel("enough")
		}
		w, r := open()
		go func() {
			defer w.Close()
			for range 100 {
				if err := sendText(t.Context(), w, strings.Repeat("y", 99)); err != nil {
					t.Error(err)
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if got, err := readAll(ctx, r); len(got) != 100 || !errors.Is(err, io.EOF) {
			t.Errorf("beside a reader that has stopped came %d chunks, %v, want 100", len(got), err)
		}
	})
}
