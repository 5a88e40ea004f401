package mux

import (
	"context"
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

// testPackets encodes what packets about streams say as an id and text.
type testPackets struct{}

func (testPackets) append(dst []byte, id uint32, text string) []byte {
	return append(binary.BigEndian.AppendUint32(dst, id), text...)
}

func (testPackets) parse(p []byte) (id uint32, text string, ok bool) {
	if len(p) < 4 {
		return 0, "", false
	}
	return binary.BigEndian.Uint32(p), string(p[4:]), true
}

func (t testPackets) AppendFailure(dst []byte, id uint32, s string, _ error) []byte {
	return t.append(dst, id, s)
}

func (t testPackets) ParseFailure(p []byte) (uint32, StreamError, bool) {
	id, s, ok := t.parse(p)
	return id, StreamError{Message: s}, ok
}

// ParseReference implements [StreamPackets]: the test's references are extensions of 5 octets
// of type 107, the id and whether the stream is live.
func (testPackets) ParseReference(p []byte) (id uint32, live, ok bool) {
	if len(p) != 8 || p[0] != 0xc7 || p[2] != 107 {
		return 0, false, false
	}
	return binary.BigEndian.Uint32(p[3:]), p[7] == 1, true
}

func (t testPackets) AppendCancel(dst []byte, id uint32, s string) []byte {
	return t.append(dst, id, s)
}
func (t testPackets) ParseCancel(p []byte) (uint32, string, bool) { return t.parse(p) }

func (t testPackets) AppendCredit(dst []byte, id, n uint32) []byte {
	return t.append(dst, id, fmt.Sprint(n))
}

func (t testPackets) ParseCredit(p []byte) (id, n uint32, ok bool) {
	id, text, ok := t.parse(p)
	_, err := fmt.Sscan(text, &n)
	return id, n, ok && err == nil
}

func (testPackets) IsNothing(p []byte) bool { return len(p) == 1 && p[0] == nilValue }

// streamConn is a conversation about streams. What is said are lines such as
//
//	chunk 1 0 text        chunk 1 2 text eos     end 1 3 (EOS without a chunk)
//	error 1 why           close 1 why            cancel 1 why           credit 1 1000
type streamConn struct{ *testConn }

// newStreamConn returns a listener whose peer negotiates some features.
func newStreamConn(t *testing.T, cfg StreamConfig, features ...string) streamConn {
	t.Helper()
	cfg.Packets = testPackets{}
	tc := newTestConn(t, Config{Features: features, Streams: &cfg})
	tc.next("the id")
	quoted := ""
	for i, f := range features {
		quoted += fmt.Sprintf("%s%q", strings.Repeat(",", min(i, 1)), f)
	}
	tc.writeText(fmt.Sprintf(`{"type":"client-id","id":"x","ext":{"v":1,"f":[%s],"win":100,"cwin":250}}`, quoted))
	synctest.Wait()
	return streamConn{tc}
}

// say sends packets to the session, as one read.
func (c streamConn) say(lines ...string) {
	c.t.Helper()
	for _, line := range lines {
		c.session.Message(false, streamPacketOf(c.t, line))
	}
	c.session.ReadDone()
}

// streamPacketOf returns the packet that a line describes.
func streamPacketOf(t *testing.T, line string) []byte {
	t.Helper()
	f := append(strings.SplitN(line, " ", 4), "", "")
	var id, index uint32
	fmt.Sscan(f[1], &id)
	fmt.Sscan(f[2], &index)
	text := strings.TrimPrefix(line, f[0]+" "+f[1]+" ")
	header := func(typ wire.Type, flags wire.Flags) []byte {
		return wire.AppendHeader(nil, 99, wire.Request(typ)|flags)
	}
	switch f[0] {
	case "chunk":
		flags := wire.Flags(0)
		for name, flag := range map[string]wire.Flags{" eos": wire.FlagEOS, " live": wire.FlagLive} {
			if s, ok := strings.CutSuffix(f[3], name); ok {
				f[3], flags = s, flags|flag
			}
		}
		return wire.AppendTrailer(append(header(wire.TypeStream, flags), strings.ReplaceAll(f[3], "null", "\xc0")...), id, index)
	case "end":
		return wire.AppendTrailer(append(header(wire.TypeStream, wire.FlagEOS), nilValue), id, index)
	case "error":
		return testPackets{}.append(header(wire.TypeStreamError, 0), id, text)
	case "close":
		return testPackets{}.append(header(wire.TypeStreamClose, 0), id, text)
	case "cancel":
		return testPackets{}.append(header(wire.TypeCancel, 0), id, text)
	case "credit":
		return testPackets{}.append(header(wire.TypeCredit, 0), id, text)
	}
	t.Fatalf("no packet %q", line)
	return nil
}

// heard returns what the session has sent since.
func (c streamConn) heard() []string {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	var lines []string
	for _, m := range c.sent {
		pkt, err := wire.Parse(m.p)
		if err != nil {
			c.t.Fatal(err)
		}
		text := string(pkt.Payload)
		id, rest, _ := testPackets{}.parse(pkt.Payload)
		switch pkt.Flags.Type() {
		case wire.TypeStream:
			line := fmt.Sprintf("chunk %d %d %s", pkt.StreamID, pkt.StreamIndex, text)
			if pkt.Flags.EOS() {
				line = fmt.Sprintf("end %d %d", pkt.StreamID, pkt.StreamIndex)
			}
			if pkt.Flags.Live() {
				line += " live"
			}
			lines = append(lines, line)
		case wire.TypeStreamError:
			lines = append(lines, fmt.Sprintf("error %d %s", id, rest))
		case wire.TypeCancel:
			lines = append(lines, fmt.Sprintf("cancel %d %s", id, rest))
		case wire.TypeCredit:
			lines = append(lines, fmt.Sprintf("credit %d %s", id, rest))
		default:
			lines = append(lines, fmt.Sprintf("%v %x", pkt.Flags, pkt.Payload))
		}
	}
	c.sent = nil
	return lines
}

// wants checks what the session has sent since.
func (c streamConn) wants(why string, want ...string) {
	c.t.Helper()
	if got := c.heard(); fmt.Sprint(got) != fmt.Sprint(want) {
		c.t.Fatalf("%s: heard %q, want %q", why, got, want)
	}
}

// wantOpenStreams checks how many streams there are.
func (c streamConn) wantOpenStreams(why string, writing, reading, early int) {
	c.t.Helper()
	if w, r, e := c.session.Streams(); w != writing || r != reading || e != early {
		c.t.Errorf("%s: %d streams are written, %d read, %d early, want %d, %d, %d", why, w, r, e, writing, reading, early)
	}
}

// sendText sends text as a chunk.
func sendText(ctx context.Context, w *StreamWriter, text string) error {
	b := w.Begin(len(text))
	b.B = append(b.B, text...)
	return w.Send(ctx, b)
}

// readAll returns the chunks of a stream that are there, or come until it ends, and its
// error.
func readAll(ctx context.Context, r *StreamReader) (chunks []string, err error) {
	for {
		p, err := r.Next(ctx)
		if err != nil {
			return chunks, err
		}
		chunks = append(chunks, string(p))
	}
}

// readNow is readAll for what is there.
func readNow(s *Session, r *StreamReader) (chunks []string, err error) { return readAll(s.ownerCtx, r) }

func TestStreamWriterPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{})
		defer c.end()
		w, err := c.session.NewWriter(false)
		if err != nil || w.ID() != 1<<31+1 {
			t.Fatalf("NewWriter = id %#x, %v", w.ID(), err)
		}
		live, err := c.session.WriterFor(7, true)
		if err != nil || live.ID() != 7 {
			t.Fatal(err)
		}
		if _, err := c.session.WriterFor(7, true); !errors.Is(err, ErrStreamID) {
			t.Errorf("a second writer of id 7: %v", err)
		}
		for _, text := range []string{"a", "bc"} {
			if err := sendText(t.Context(), w, text); err != nil {
				t.Fatal(err)
			}
		}
		w.Discard(w.Begin(10))
		w.Close()
		w.Close()
		c.wants("a stream that ends", "chunk 2147483649 0 a", "chunk 2147483649 1 bc", "end 2147483649 2")
		if err := sendText(t.Context(), live, "x"); err != nil {
			t.Fatal(err)
		}
		live.Fail("boom", nil)
		live.Fail("again", nil)
		live.Close()
		c.wants("a live one that fails", "chunk 7 0 x live", "error 7 boom")
		for _, w := range []*StreamWriter{w, live} {
			<-w.Done()
			if err := sendText(t.Context(), w, "late"); !errors.Is(err, ErrClosed) || w.Err() != nil {
				t.Errorf("Send after the end = %v, Err = %v", err, w.Err())
			}
		}
		c.wantOpenStreams("at the end", 0, 0, 0)
		c.wantOpen("at the end")
	})
}

// TestStreamReaderPackets tells readers of all that can come, early and announced.
func TestStreamReaderPackets(t *testing.T) {
	sixty := strings.Repeat("x", 60)
	for name, tt := range map[string]struct {
		say  []string
		want string // what is read of stream 1: chunks and the error
		tell string // what the writer is told

		early, earlyTell string // the same if it comes before it was announced, "" if it is
	}{
		"end":                  {say: []string{"chunk 1 0 a", "chunk 1 1 b", "end 1 2"}, want: "a b EOF", tell: ""},
		"empty":                {say: []string{"end 1 0"}, want: "EOF", tell: ""},
		"end with a chunk":     {say: []string{"chunk 1 0 a", "chunk 1 1 b eos"}, want: "a b EOF", tell: ""},
		"error":                {say: []string{"chunk 1 0 a", "error 1 boom"}, want: "a mux: stream ended by the peer: boom", tell: ""},
		"close":                {say: []string{"chunk 1 0 a", "close 1 gone"}, want: "a mux: stream ended by the peer: gone", tell: ""},
		"error after the end":  {say: []string{"end 1 0", "error 1 boom"}, want: "EOF", tell: ""},
		"end twice":            {say: []string{"chunk 1 0 a", "end 1 1", "end 1 2", "end 1 1"}, want: "a EOF", tell: ""},
		"chunk after the end":  {say: []string{"end 1 0", "chunk 1 1 a"}, want: "EOF", tell: ""},
		"chunk after an error": {say: []string{"chunk 1 0 a", "error 1 boom", "chunk 1 1 b"}, want: "a mux: stream ended by the peer: boom", tell: ""},
		"gap":                  {say: []string{"chunk 1 0 a", "chunk 1 2 c"}, want: "a mux: stream failed: chunk 2 came in place of 1", tell: "cancel 1 chunk 2 came in place of 1"},
		"twice":                {say: []string{"chunk 1 0 a", "chunk 1 0 a"}, want: "a mux: stream failed: chunk 0 came in place of 1", tell: "cancel 1 chunk 0 came in place of 1"},
		"null":                 {say: []string{"chunk 1 0 null"}, want: "mux: stream failed: chunk 0 is null", tell: "cancel 1 chunk 0 is null"},
		"null in the middle":   {say: []string{"chunk 1 0 a", "chunk 1 1 null", "chunk 1 2 b"}, want: "a mux: stream failed: chunk 1 is null", tell: "cancel 1 chunk 1 is null"},
		"other streams":        {say: []string{"chunk 1 0 a", "chunk 0 0 x", "cancel 1 x", "credit 9 5", "end 1 1"}, want: "a EOF", tell: ""},
		"error before a chunk": {say: []string{"error 1 boom", "chunk 1 0 a"}, want: "mux: stream ended by the peer: boom"},
		"much": {
			say:  []string{"chunk 1 0 " + sixty, "chunk 1 1 " + sixty, "end 1 2"},
			want: sixty + " " + sixty + " EOF",

			early:     sixty + " mux: stream failed: 120 bytes before the stream was announced, limit 100",
			earlyTell: "cancel 1 120 bytes before the stream was announced, limit 100",
		},
	} {
		for _, early := range []bool{false, true} {
			t.Run(fmt.Sprint(name, "/early ", early), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := newStreamConn(t, StreamConfig{MaxEarlyBytes: 100}, FeatureCancel)
					defer c.end()
					if early {
						c.say(tt.say...)
					}
					r, err := c.session.ReaderFor(1, false)
					if !early {
						c.say(tt.say...)
					}
					if err != nil {
						t.Fatal(err)
					}
					want, tell := tt.want, tt.tell
					if early && tt.early != "" {
						want, tell = tt.early, tt.earlyTell
					}
					if told := strings.Join(c.heard(), "; "); told != tell {
						t.Errorf("told %q, want %q", told, tell)
					}
					chunks, err := readNow(c.session, r)
					if got := strings.Join(append(chunks, err.Error()), " "); got != want {
						t.Errorf("read %q, want %q", got, want)
					}
					c.wantOpenStreams("at the end", 0, 0, 0)
					c.wantOpen("at the end")
				})
			})
		}
	}
}

// TestStreamCredit checks the windows of a writer.
func TestStreamCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{}, FeatureCancel, FeatureCredit)
		defer c.end()
		a, _ := c.session.NewWriter(false)
		b, _ := c.session.NewWriter(false)
		long := strings.Repeat("x", 90)
		send := func(w *StreamWriter, want error) {
			t.Helper()
			if err := sendText(c.session.ownerCtx, w, long); !errors.Is(err, want) {
				t.Errorf("Send = %v, want %v", err, want)
			}
		}
		send(a, nil)           // 90 of 100
		send(a, nil)           // a chunk may overdraw
		send(a, ErrWouldBlock) // -80
		send(b, nil)           // 270 of 250 for the connection
		c.wants("as much as the windows take", "chunk 2147483649 0 "+long, "chunk 2147483649 1 "+long, "chunk 2147483650 0 "+long)
		send(b, nil) // there is credit for the stream, not for the connection
		b.Close()
		c.wants("no credit for the connection")
		c.say("credit 0 20")
		c.wants("still none")
		c.say("credit 0 1")
		c.wants("a little", "chunk 2147483650 1 "+long, "end 2147483650 2")
		done := make(chan error, 1)
		go func() { done <- sendText(t.Context(), a, "y") }()
		c.say("credit 2147483649 80")
		c.wants("no credit for the stream")
		c.say("credit 0 500", "credit 2147483649 1")
		c.wants("credit for both", "chunk 2147483649 2 y")
		if err := <-done; err != nil {
			t.Error(err)
		}
		c.say(fmt.Sprintf("credit 2147483649 %d", maxCredit), fmt.Sprintf("credit 2147483649 %d", maxCredit))
		c.wants("too much for a stream", fmt.Sprintf("error 2147483649 credit of more than %d bytes", maxCredit))
		if se, ok := errors.AsType[*StreamError](a.Err()); !ok || se.Remote {
			t.Errorf("the error of that stream is %v", a.Err())
		}
		c.wantOpenStreams("then", 0, 0, 0)
		c.wantOpen("then")
		c.say(fmt.Sprintf("credit 0 %d", maxCredit))
		c.wantClose("too much for the connection", closeProtocol, "too much credit")
	})
}

// TestStreamWindow checks what a reader gives, and what it takes.
func TestStreamWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{Window: 100, MaxWindow: 200, SessionWindow: 500}, FeatureCancel, FeatureCredit)
		defer c.end()
		long := strings.Repeat("x", 90)
		a, err := c.session.ReaderFor(1, false)
		if err != nil {
			t.Fatal(err)
		}
		c.say("chunk 1 0 "+long, "chunk 1 1 "+long)
		c.wants("nothing is read")
		if got, err := readNow(c.session, a); len(got) != 2 || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("read %q, %v", got, err)
		}
		c.wants("all is read", "credit 1 180")
		time.Sleep(2 * time.Millisecond)
		c.say("chunk 1 2 " + long)
		if got, err := readNow(c.session, a); len(got) != 1 || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("read %q, %v", got, err)
		}
		c.wants("half of the window was used up in one round trip", "credit 1 190", "credit 0 270")
		c.say("chunk 1 3 "+long, "chunk 1 4 "+long, "chunk 1 5 "+long)
		c.wants("nothing is read")
		c.say("chunk 1 6 z")
		c.wants("more than the window", "cancel 1 chunk 6 is beyond the credit of the stream")
		c.say("chunk 1 7 z")
		if got, err := readNow(c.session, a); len(got) != 3 || err == nil || !strings.Contains(err.Error(), "beyond") {
			t.Errorf("read %q, %v", got, err)
		}
		c.wantOpenStreams("then", 0, 0, 0)
		c.wantOpen("then")
		c.heard()
		c.say("chunk 2 0 " + strings.Repeat("x", 500))
		c.say("chunk 3 0 z")
		c.wantClose("more than the window of the connection", closeProtocol, "more than the credit of the connection")
	})
}

// TestStreamCancel gives up each end.
func TestStreamCancel(t *testing.T) {
	for _, features := range [][]string{nil, {FeatureCancel}} {
		t.Run(fmt.Sprint(features), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newStreamConn(t, StreamConfig{}, features...)
				defer c.end()
				w, _ := c.session.NewWriter(false)
				c.hold()
				if err := sendText(t.Context(), w, "never sent"); err != nil {
					t.Fatal(err)
				}
				c.say(fmt.Sprintf("cancel %d enough", w.ID()))
				c.release()
				if features == nil {
					c.wants("who did not negotiate it cannot cancel", fmt.Sprintf("chunk %d 0 never sent", w.ID()))
					w.Close()
					c.wants("the end", fmt.Sprintf("end %d 1", w.ID()))
				} else {
					c.wants("the reader has given up")
					se, ok := errors.AsType[*StreamError](sendText(t.Context(), w, "x"))
					if <-w.Done(); !ok || !se.Remote || se.Message != "enough" {
						t.Errorf("Send = %v", se)
					}
				}
				r, err := c.session.ReaderFor(1, false)
				if err != nil {
					t.Fatal(err)
				}
				c.say("chunk 1 0 a", "chunk 1 1 b")
				if p, err := r.Next(t.Context()); err != nil || string(p) != "a" {
					t.Fatalf("%q, %v", p, err)
				}
				r.Cancel("seen enough")
				r.Cancel("again")
				if len(features) > 0 {
					c.wants("the writer is told", "cancel 1 seen enough")
				} else {
					c.wants("the writer cannot be told")
				}
				if _, err := r.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "seen enough") {
					t.Errorf("Next = %v", err)
				}
				c.say("chunk 1 2 c")
				c.wantOpenStreams("a late chunk is no stream", 0, 0, 0)
				if _, err := c.session.ReaderFor(1, false); !errors.Is(err, ErrStreamID) {
					t.Errorf("the id can be used again: %v", err)
				}
				c.say("end 1 3")
				c.wantOpenStreams("nor is its end", 0, 0, 0)
				c.wantOpen("at the end")
			})
		})
	}
}

// TestStreamsEndWithSession checks that nobody waits for a session that has ended.
func TestStreamsEndWithSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{}, FeatureCredit)
		w, _ := c.session.NewWriter(false)
		r, _ := c.session.NewReader(false)
		c.say("chunk 5 0 early", fmt.Sprintf("chunk %d 0 a", r.ID()))
		if err := sendText(t.Context(), w, strings.Repeat("x", 200)); err != nil {
			t.Fatal(err)
		}
		errs := make(chan error, 2)
		go func() { errs <- sendText(t.Context(), w, "waits") }()
		go func() {
			chunks, err := readAll(t.Context(), r)
			if len(chunks) != 1 {
				t.Errorf("read %q, want what had come", chunks)
			}
			errs <- err
		}()
		synctest.Wait()
		c.end()
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrClosed) || !errors.Is(err, errTestLost) {
				t.Errorf("the error is %v", err)
			}
		}
		<-w.Done()
		for name, open := range map[string]func() error{
			"NewWriter": func() error { _, err := c.session.NewWriter(false); return err },
			"WriterFor": func() error { _, err := c.session.WriterFor(1, false); return err },
			"NewReader": func() error { _, err := c.session.NewReader(false); return err },
			"ReaderFor": func() error { _, err := c.session.ReaderFor(1, false); return err },
		} {
			if err := open(); !errors.Is(err, ErrClosed) {
				t.Errorf("%s after the end: %v", name, err)
			}
		}
		c.wantOpenStreams("at the end", 0, 0, 0)
	})
}

// TestStreamLimits opens one stream too many of each kind.
func TestStreamLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{MaxStreams: 2}, FeatureCancel)
		defer c.end()
		for i := range 3 {
			want := error(nil)
			if i == 2 {
				want = ErrTooManyStreams
			}
			if _, err := c.session.NewWriter(false); !errors.Is(err, want) {
				t.Errorf("NewWriter %d = %v, want %v", i, err, want)
			}
			c.say(fmt.Sprintf("chunk %d 0 a", 10+i))
		}
		c.wantOpenStreams("then", 2, 0, 2)
		for i := range 3 {
			if _, err := c.session.ReaderFor(uint32(20+i), false); (err != nil) != (i == 2) {
				t.Errorf("ReaderFor %d = %v", i, err)
			}
		}
		c.wants("the writers of those too many are told", "cancel 12 unknown stream", "cancel 22 mux: too many streams")
		c.say("chunk 22 0 a")
		if _, err := c.session.NewReader(false); !errors.Is(err, ErrTooManyStreams) {
			t.Errorf("NewReader = %v", err)
		}
		c.wantOpenStreams("at the end", 2, 2, 2)
		if _, err := c.session.ReaderFor(0, false); err == nil {
			t.Error("there is a stream 0")
		}
		c.wantOpen("at the end")
	})
}

// TestStreamSilence lets streams be silent for too long.
func TestStreamSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newStreamConn(t, StreamConfig{}, FeatureCancel)
		defer c.end()
		quiet, _ := c.session.ReaderFor(1, false)
		live, _ := c.session.ReaderFor(2, true)
		busy, _ := c.session.ReaderFor(3, false)
		c.say("chunk 3 0 a", "chunk 4 0 early", "chunk 5 0 early live", "chunk 6 0 early", "end 6 1")
		time.Sleep(59 * time.Second)
		c.wantOpenStreams("before", 0, 3, 3)
		time.Sleep(2 * time.Second)
		c.wantOpenStreams("after", 0, 2, 0)
		if _, err := readNow(c.session, quiet); err == nil || !strings.Contains(err.Error(), "nothing came for 1m0s") {
			t.Errorf("the quiet stream: %v", err)
		}
		told := c.heard()
		if len(told) != 3 {
			t.Errorf("told %q, want three writers", told)
		}
		if _, err := readNow(c.session, live); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("the live stream: %v", err)
		}
		if got, err := readNow(c.session, busy); len(got) != 1 || !errors.Is(err, ErrWouldBlock) {
			t.Errorf("the stream that was not read: %q, %v", got, err)
		}
		time.Sleep(61 * time.Second)
		if _, err := readNow(c.session, busy); errors.Is(err, io.EOF) || errors.Is(err, ErrWouldBlock) {
			t.Errorf("the stream that was read: %v", err)
		}
		live.Cancel("")
		c.wantOpenStreams("at the end", 0, 0, 0)
		c.wantOpen("at the end")
	})
}
