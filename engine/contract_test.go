package engine

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// The contract of a connection, over every driver and in both roles: the
// groups of cases that public WebSocket suites have, and what a Handler may rely
// on.

// exchange is bytes to send and what the echo handler answers.
type exchange struct {
	name string
	send []testPart
	want []testPart // before the close frame, if any
	// code is the close code wanted; 0 means that the connection stays open, and
	// closes normally when asked to.
	code uint16
}

// testPart is a frame, or raw bytes if raw is set.
type testPart struct {
	first   byte
	payload string
	raw     string
}

const (
	text     = bitFin | opText
	asBinary = bitFin | opBinary
	ping     = bitFin | opPing
	pong     = bitFin | opPong
	closing  = bitFin | opClose
	textPart = opText
	binPart  = opBinary
	contPart = opContinuation
	contLast = bitFin | opContinuation
)

func f(first byte, payload string) testPart { return testPart{first: first, payload: payload} }

func code(n uint16, reason string) string { return string([]byte{byte(n >> 8), byte(n)}) + reason }

// play runs the exchanges: each as one write, and, when it is short, cut into
// single bytes.
func play(t *testing.T, exchanges []exchange) {
	forEachRole(t, func(t *testing.T, r role) {
		for _, x := range exchanges {
			playOne(t, r, x, false)
			if size := x.size(); size < 300 {
				playOne(t, r, x, true)
			}
		}
	})
}

func (x *exchange) size() (n int) {
	for _, p := range x.send {
		n += len(p.payload) + len(p.raw) + 2
	}
	return n
}

func playOne(t *testing.T, r role, x exchange, chop bool) {
	t.Helper()
	tc, c := r.open(t, Config{CloseTimeout: patience}, echo)
	var out []byte
	for _, p := range x.send {
		if p.raw != "" {
			out = append(out, p.raw...)
			continue
		}
		out = append(out, tc.frame(p.first, p.payload)...)
	}
	why := x.name
	sent := make(chan struct{})
	go func() { // both sides may be writing more than the sockets hold
		defer close(sent)
		step := len(out)
		if chop {
			step = 1
		}
		for len(out) > 0 {
			// A failed connection is read from to its end, so writes do not fail early;
			// if they do, the wants below say more.
			if _, err := tc.nc.Write(out[:step]); err != nil {
				return
			}
			out = out[step:]
		}
	}()
	if chop {
		why += " (byte by byte)"
	}
	for _, w := range x.want {
		tc.wantFrame(why, w.first, w.payload)
	}
	if x.code == 0 {
		tc.writeAfter(sent, closing, code(CloseNormal, "bye"))
		tc.wantClose(CloseNormal, why+": our close is echoed")
	} else {
		tc.wantClose(x.code, why)
		if c.IsClient() || x.code == CloseProtocolError {
			<-sent
		}
	}
	<-sent
	if !r.dials || x.code != 0 && x.code != CloseNormal {
		tc.wantEOF(why + ": after the close frame")
	}
	tc.nc.Close()
	if err := ended(t, c); err == nil {
		t.Errorf("%s: Err() = nil at the end", why)
	}
	c.Close()
}

// writeAfter writes a frame once the earlier writes are through.
func (tc *conversation) writeAfter(sent chan struct{}, first byte, payload string) {
	tc.t.Helper()
	<-sent
	tc.writeFrame(first, payload)
}

func TestContractFraming(t *testing.T) {
	var xs []exchange
	for _, n := range []int{0, 1, 125, 126, 127, 128, 4095, 4096, 65535, 65536, 65537, 1 << 20} {
		p := strings.Repeat("*", n)
		xs = append(xs,
			exchange{name: fmt.Sprintf("text of %d", n), send: []testPart{f(text, p)}, want: []testPart{f(text, p)}},
			exchange{name: fmt.Sprintf("binary of %d", n), send: []testPart{f(asBinary, p)}, want: []testPart{f(asBinary, p)}})
	}
	many := exchange{name: "many messages at once"}
	for i := range 500 {
		m := f(asBinary, strings.Repeat(string(rune('a'+i%26)), i))
		many.send, many.want = append(many.send, m), append(many.want, m)
	}
	play(t, append(xs, many))
}

func TestContractPings(t *testing.T) {
	ten := exchange{name: "ten pings, ten pongs"}
	for i := range 10 {
		p := fmt.Sprintf("payload-%d", i)
		ten.send, ten.want = append(ten.send, f(ping, p)), append(ten.want, f(pong, p))
	}
	play(t, []exchange{
		{name: "ping without payload", send: []testPart{f(ping, "")}, want: []testPart{f(pong, "")}},
		{name: "ping with payload", send: []testPart{f(ping, "Hello")}, want: []testPart{f(pong, "Hello")}},
		{name: "ping with binary payload", send: []testPart{f(ping, "\x00\xff\xfe\xfd")}, want: []testPart{f(pong, "\x00\xff\xfe\xfd")}},
		{name: "ping of 125", send: []testPart{f(ping, strings.Repeat("x", 125))}, want: []testPart{f(pong, strings.Repeat("x", 125))}},
		{name: "ping of 126", send: []testPart{f(ping, strings.Repeat("x", 126))}, code: 1002},
		{name: "unsolicited pong", send: []testPart{f(pong, ""), f(pong, "x"), f(ping, "y")}, want: []testPart{f(pong, "y")}},
		ten,
	})
}

func TestContractReservedBits(t *testing.T) {
	var xs []exchange
	for rsv := byte(1); rsv <= 7; rsv++ {
		for _, first := range []byte{text, asBinary, ping, pong, closing} {
			xs = append(xs, exchange{
				name: fmt.Sprintf("first byte %#02x", first|rsv<<4),
				send: []testPart{f(text, "before"), f(first|rsv<<4, "xx"), f(ping, "")}, want: []testPart{f(text, "before")}, code: 1002,
			})
		}
	}
	play(t, xs)
}

func TestContractOpcodes(t *testing.T) {
	var xs []exchange
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		xs = append(xs, exchange{
			name: fmt.Sprintf("opcode %d", op),
			send: []testPart{f(text, "before"), f(bitFin|op, "xx"), f(ping, "")}, want: []testPart{f(text, "before")}, code: 1002,
		})
	}
	play(t, xs)
}

func TestContractFragmentation(t *testing.T) {
	manyFragments := exchange{name: "1000 fragments", want: []testPart{f(text, strings.Repeat("ab", 1000))}}
	manyFragments.send = append(manyFragments.send, f(textPart, ""))
	for range 1000 {
		manyFragments.send = append(manyFragments.send, f(contPart, "ab"))
	}
	manyFragments.send = append(manyFragments.send, f(contLast, ""))
	play(t, []exchange{
		{name: "two fragments", send: []testPart{f(textPart, "frag"), f(contLast, "ment")}, want: []testPart{f(text, "fragment")}},
		{name: "binary fragments", send: []testPart{f(binPart, "\xff"), f(contPart, "\xfe"), f(contLast, "\xfd")}, want: []testPart{f(asBinary, "\xff\xfe\xfd")}},
		{name: "empty fragments", send: []testPart{f(textPart, ""), f(contPart, ""), f(contLast, "")}, want: []testPart{f(text, "")}},
		{name: "one empty, one full", send: []testPart{f(binPart, ""), f(contPart, "x"), f(contLast, "")}, want: []testPart{f(asBinary, "x")}},
		{name: "ping between fragments", send: []testPart{f(textPart, "frag"), f(ping, "p"), f(contLast, "ment")}, want: []testPart{f(pong, "p"), f(text, "fragment")}},
		{name: "messages after a fragmented one", send: []testPart{f(textPart, "a"), f(contLast, "b"), f(asBinary, "c"), f(textPart, "d"), f(contLast, "")}, want: []testPart{f(text, "ab"), f(asBinary, "c"), f(text, "d")}},
		{name: "fragmented ping", send: []testPart{f(opPing, "x"), f(contLast, "y")}, code: 1002},
		{name: "fragmented pong", send: []testPart{f(opPong, "x"), f(contLast, "y")}, code: 1002},
		{name: "fragmented close", send: []testPart{f(opClose, code(1000, ""))}, code: 1002},
		{name: "continuation first", send: []testPart{f(contLast, "x")}, code: 1002},
		{name: "unfinished continuation first", send: []testPart{f(contPart, "x"), f(contLast, "y")}, code: 1002},
		{name: "continuation after a message", send: []testPart{f(text, "a"), f(contLast, "b")}, want: []testPart{f(text, "a")}, code: 1002},
		{name: "text inside a message", send: []testPart{f(textPart, "a"), f(text, "b")}, code: 1002},
		{name: "binary inside a message", send: []testPart{f(textPart, "a"), f(binPart, "b")}, code: 1002},
		manyFragments,
	})
}

func TestContractUTF8(t *testing.T) {
	const greek = "Hello-\u00b5@\u00df\u00f6\u00e4\u00fc\u00e0\u00e1-UTF-8!!\u03ba\u03cc\u03c3\u03bc\u03b5\U0001F600"
	xs := []exchange{
		{name: "valid", send: []testPart{f(text, greek)}, want: []testPart{f(text, greek)}},
		{name: "largest code point", send: []testPart{f(text, "\U0010FFFF\uFFFD")}, want: []testPart{f(text, "\U0010FFFF\uFFFD")}},
		{name: "binary is not checked", send: []testPart{f(asBinary, "\xff\xc0\x80")}, want: []testPart{f(asBinary, "\xff\xc0\x80")}},
		{name: "invalid only in the last fragment", send: []testPart{f(textPart, "ok"), f(contLast, "\xff")}, code: 1007},
		{name: "ends inside a code point", send: []testPart{f(textPart, "\xce"), f(contLast, "")}, code: 1007},
		{name: "invalid in an unfinished frame", send: []testPart{f(textPart, greek+"\xed\xa0\x80")}, code: 1007},
	}
	for i := range len(greek) + 1 {
		xs = append(xs, exchange{
			name: fmt.Sprintf("cut at byte %d", i),
			send: []testPart{f(textPart, greek[:i]), f(contLast, greek[i:])}, want: []testPart{f(text, greek)},
		})
	}
	for _, bad := range []string{
		"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "a\xc3b", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
	} {
		xs = append(xs, exchange{name: fmt.Sprintf("invalid %q", bad), send: []testPart{f(text, bad)}, code: 1007})
	}
	play(t, xs)
}

// TestContractUTF8FailsFast checks that text is refused when the bytes that
// make it invalid are there, not when the frame or message is complete.
func TestContractUTF8FailsFast(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		for _, valid := range []string{"", "abc\u03ba", strings.Repeat("\u03ba", 3000)} {
			tc, _ := r.open(t, Config{}, echo)
			whole := tc.frame(text, valid+"\xf4\x90\x80\x80 and more")
			cut := len(whole) - len("\x80\x80 and more")
			tc.write(whole[:cut-1])
			tc.write(whole[cut-1 : cut]) // the second byte decides
			tc.wantClose(1007, "half a frame of invalid text")
		}
	})
}

func TestContractCloseFrames(t *testing.T) {
	xs := []exchange{
		{name: "no code", send: []testPart{f(closing, "")}},
		{name: "one byte", send: []testPart{f(closing, "\x03")}, code: 1002},
		{name: "longest reason", send: []testPart{f(closing, code(1000, strings.Repeat("r", 123)))}, code: 1000},
		{name: "too long", send: []testPart{f(closing, code(1000, strings.Repeat("r", 124)))}, code: 1002},
		{name: "reason not UTF-8", send: []testPart{f(closing, code(1000, "\xff"))}, code: 1007},
		{name: "nothing counts after close", send: []testPart{f(text, "a"), f(closing, code(1000, "")), f(text, "b"), f(ping, ""), f(3, "")}, want: []testPart{f(text, "a")}, code: 1000},
		{name: "close inside a message", send: []testPart{f(textPart, "a"), f(closing, code(1000, "")), f(contLast, "b")}, code: 1000},
	}
	for _, n := range []uint16{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		xs = append(xs, exchange{name: fmt.Sprintf("code %d", n), send: []testPart{f(closing, code(n, "x"))}, code: n})
	}
	for _, n := range []uint16{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		xs = append(xs, exchange{name: fmt.Sprintf("code %d", n), send: []testPart{f(closing, code(n, "x"))}, code: 1002})
	}
	forEachRole(t, func(t *testing.T, r role) {
		for _, x := range xs {
			tc, c := r.open(t, Config{CloseTimeout: patience}, echo)
			for _, p := range x.send {
				tc.writeFrame(p.first, p.payload)
			}
			for _, w := range x.want {
				tc.wantFrame(x.name, w.first, w.payload)
			}
			tc.wantClose(x.code, x.name)
			failed := x.code == 1007 || x.code == 1002 && x.send[0].payload != code(1002, "x")
			if x.send[0].payload == code(1007, "x") {
				failed = false
			}
			if failed || !r.dials {
				tc.wantEOF(x.name + ": half-close")
			}
			tc.nc.Close()
			want := x.code
			if want == 0 {
				want = CloseNoStatus
			}
			wantCloseError(t, c, want, !failed, !failed)
			c.Close()
		}
	})
}

func TestContractLengths(t *testing.T) {
	long := func(n uint64) string {
		b := []byte{0, 0, 0, 0, 0, 0, 0, 0}
		for i := range b {
			b[7-i] = byte(n >> (8 * i))
		}
		return string(b)
	}
	forEachRole(t, func(t *testing.T, r role) {
		m := byte(0x80)
		if r.dials {
			m = 0
		}
		for _, x := range []struct {
			name, raw string
			code      uint16
		}{
			{"2^63", string([]byte{asBinary, m | 127}) + long(1<<63), 1002},
			{"2^64-1", string([]byte{asBinary, m | 127}) + long(1<<64-1), 1002},
			{"2^63-1", string([]byte{asBinary, m | 127}) + long(1<<63-1), 1009},
			{"over the limit", string([]byte{asBinary, m | 127}) + long(16<<20+1), 1009},
			{"125 in two bytes", string([]byte{asBinary, m | 126, 0, 125}), 1002},
			{"65535 in eight bytes", string([]byte{asBinary, m | 127}) + long(65535), 1002},
			{"ping of 2^63", string([]byte{ping, m | 127}) + long(1<<63), 1002},
			{"wrong mask bit", string([]byte{text, ^m & 0x80}), 1002},
		} {
			tc, c := r.open(t, Config{}, echo)
			tc.write([]byte(x.raw + "\x00\x00\x00\x00")) // a mask, or payload
			tc.wantClose(x.code, x.name)
			tc.wantEOF(x.name)
			tc.nc.Close()
			wantCloseError(t, c, x.code, false, false)
		}
	})
}

func TestContractMessageLimit(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		cfg := Config{MaxMessageBytes: 1000}
		tc, _ := r.open(t, cfg, echo)
		p := strings.Repeat("x", 1000)
		tc.writeFrame(asBinary, p)
		tc.wantFrame("a message of the limit", asBinary, p)
		tc.writeFrame(binPart, p[:600])
		tc.writeFrame(contLast, p[:400])
		tc.wantFrame("fragments of the limit", asBinary, p)
		tc.writeFrame(asBinary, p+"x")
		tc.wantClose(1009, "one byte over")
		tc.wantEOF("one byte over")

		tc, _ = r.open(t, cfg, echo)
		tc.writeFrame(binPart, p[:600])
		tc.write(tc.frame(contPart, p[:401])[:8]) // the header is enough
		tc.wantClose(1009, "one byte over in fragments")

		if r.name != "tcp" || r.dials {
			return // masking the big one takes a while
		}
		tc, _ = r.open(t, Config{MaxMessageBytes: -1}, echo)
		p = strings.Repeat("x", 17<<20)
		go tc.nc.Write(tc.frame(asBinary, p))
		tc.wantFrame("no limit", asBinary, p)
	})
}

func TestContractEarlyBytes(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		early := testFrame(!r.dials, text, []byte("early"))
		half := testFrame(!r.dials, asBinary, []byte(strings.Repeat("half", 100)))
		tc, c := r.openUnstarted(t, Config{}, append(early, half[:200]...))
		rec := newRecorder()
		c.Start(rec)
		if got := rec.wait(1); len(got) != 1 || got[0] != "t:early" {
			t.Fatalf("messages = %q, want the one that came with the handshake", got)
		}
		tc.write(half[200:])
		if got := rec.wait(2); len(got) != 2 || got[1] != "b:"+strings.Repeat("half", 100) {
			t.Fatalf("messages = %q, want the rest too", got)
		}
	})
}

// The closing from our side, with the other side in every mood.

func TestContractCloseAnswered(t *testing.T)    { forEachRole(t, testCloseAnswered) }
func TestContractCloseSilent(t *testing.T)      { forEachRole(t, testCloseSilent) }
func TestContractCloseCrossing(t *testing.T)    { forEachRole(t, testCloseCrossing) }
func TestContractCloseBeforeStart(t *testing.T) { forEachRole(t, testCloseBeforeStart) }
func TestContractCloseEOF(t *testing.T)         { forEachRole(t, testCloseEOF) }

func testCloseAnswered(t *testing.T, r role) {
	rec := newRecorder()
	tc, c := r.open(t, Config{CloseTimeout: patience}, func(*Conn) Handler { return rec })
	rec.send(c.AppendFrame(nil, false, []byte("last words")))
	c.CloseWith(CloseGoingAway, "moving")
	c.CloseWith(CloseNormal, "ignored")
	tc.wantFrame("what Collect offers goes first", asBinary, "last words")
	first, p, err := tc.readFrame()
	if first != closing || string(p) != code(1001, "moving") || err != nil {
		t.Fatalf("got frame %#x %q, %v, want close 1001 moving", first, p, err)
	}
	rec.send(c.AppendFrame(nil, false, []byte("too late")))
	c.Kick()
	tc.writeFrame(asBinary, "in flight")
	tc.writeFrame(closing, code(1001, ""))
	if !r.dials {
		tc.wantEOF("the server ends first")
	}
	tc.nc.Close()
	wantCloseError(t, c, 1001, false, true)
	if got := rec.wait(1); len(got) != 1 || got[0] != "b:in flight" {
		t.Errorf("messages = %q, want those before the peer's close", got)
	}
}

func testCloseSilent(t *testing.T, r role) {
	tc, c := r.open(t, Config{CloseTimeout: 50 * time.Millisecond}, echo)
	c.CloseWith(CloseNormal, "")
	tc.wantClose(1000, "our close")
	tc.wantGone("the close handshake has a limit")
	wantCloseError(t, c, 1000, false, false)
}

func testCloseCrossing(t *testing.T, r role) {
	tc, c := r.open(t, Config{CloseTimeout: patience}, echo)
	tc.writeFrame(closing, code(4001, ""))
	c.CloseWith(4002, "")
	first, p, err := tc.readFrame()
	if got := string(p); first != closing || err != nil || got != code(4001, "") && got != code(4002, "") {
		t.Fatalf("got frame %#x %q, %v, want one close frame", first, p, err)
	}
	if !r.dials {
		tc.wantEOF("one close frame only")
	}
	tc.nc.Close()
	var ce *CloseError
	if err := ended(t, c); !errors.As(err, &ce) || !ce.Clean {
		t.Errorf("Err() = %v, want a clean close", err)
	}
}

func testCloseBeforeStart(t *testing.T, r role) {
	tc, c := r.openUnstarted(t, Config{CloseTimeout: patience}, nil)
	c.CloseWith(ClosePolicy, "not you")
	tc.wantClose(1008, "refused by the accept function")
	tc.writeFrame(closing, code(1008, ""))
	if !r.dials {
		tc.wantEOF("in order")
	}
	rec := newRecorder()
	c.Start(rec)
	tc.nc.Close()
	wantCloseError(t, c, 1008, false, true)
	rec.wait(1)
	if len(rec.closed) != 1 || len(rec.messages) != 0 {
		t.Errorf("Closed called %d times, %d messages, want 1 and 0", len(rec.closed), len(rec.messages))
	}
}

func testCloseEOF(t *testing.T, r role) {
	tc, c := r.open(t, Config{CloseTimeout: patience}, echo)
	tc.write(append(tc.frame(text, "x"), tc.frame(closing, code(1000, ""))...))
	tc.closeWrite() // in a hurry: the answer must come all the same
	tc.wantFrame("echo", text, "x")
	tc.wantClose(1000, "answer after our end of stream")
	tc.wantEOF("close")
	wantCloseError(t, c, 1000, true, true)
}

// TestContractLost covers connections that end without a close frame.
func TestContractLost(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		tc.closeWrite()
		tc.wantEOF("half-close ends the connection")
		if err := ended(t, c); !errors.Is(err, ErrLost) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("Err() = %v, want ErrLost and ErrUnexpectedEOF", err)
		}

		tc, c = r.open(t, Config{}, echo)
		tc.write(tc.frame(text, "unfinished")[:5])
		tc.nc.Close()
		if err := ended(t, c); !errors.Is(err, ErrLost) {
			t.Errorf("Err() = %v, want ErrLost", err)
		}
	})
}

func TestContractClose(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		rec := newRecorder()
		tc, c := r.open(t, Config{}, func(*Conn) Handler { return rec })
		if err := c.Err(); err != nil {
			t.Errorf("Err() = %v while open, want nil", err)
		}
		c.Close()
		c.Close()
		tc.wantGone("closed")
		if err := c.Err(); !errors.Is(err, ErrClosed) {
			t.Errorf("Err() = %v, want ErrClosed", err)
		}
		if len(rec.closed) != 1 || rec.closed[0] != c.Err() { //nolint:errorlint // identity is what is promised
			t.Errorf("Closed got %v, want the one error %v", rec.closed, c.Err())
		}
		c.CloseWith(1000, "")
		c.Kick()

		// Never started.
		tc, c = r.openUnstarted(t, Config{}, nil)
		c.Close()
		tc.wantGone("closed")
		rec = newRecorder()
		c.Start(rec)
		if len(rec.closed) != 1 || !errors.Is(rec.closed[0], ErrClosed) {
			t.Errorf("Closed got %v after Start, want ErrClosed once", rec.closed)
		}
	})
}

// TestContractPanics checks that a panic in any method of a handler ends its
// connection with 1011 and no other.
func TestContractPanics(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		bystander, _ := r.open(t, Config{}, echo)
		for _, where := range []string{"Message", "ReadDone", "Collect"} {
			rec := newRecorder()
			var armed atomic.Bool
			boom := func() {
				if armed.Load() {
					panic("boom in " + where)
				}
			}
			switch where {
			case "Message":
				rec.onMessage = func(bool, []byte) { boom() }
			case "ReadDone":
				rec.onDone = boom
			case "Collect":
				rec.onCollect = boom
				rec.onDone = func() {}
			}
			tc, c := r.open(t, Config{CloseTimeout: patience}, func(*Conn) Handler { return rec })
			armed.Store(true)
			tc.writeFrame(text, "x")
			if where == "Collect" {
				c.Kick()
			}
			tc.wantClose(1011, "panic in "+where)
			tc.wantEOF("panic in " + where)
			tc.nc.Close()
			if err := ended(t, c); !errors.Is(err, ErrPanic) {
				t.Errorf("Err() = %v, want ErrPanic", err)
			}
			if len(rec.closed) != 1 {
				t.Errorf("Closed called %d times, want 1", len(rec.closed))
			}
		}
		bystander.writeFrame(text, "alive")
		bystander.wantFrame("another connection", text, "alive")
	})
}

// TestContractReadDone checks that ReadDone comes once for the messages of a read.
func TestContractReadDone(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		var open, dones atomic.Int64
		rec := newRecorder()
		rec.onMessage = func(bool, []byte) { open.Add(1) }
		rec.onDone = func() {
			if open.Swap(0) == 0 {
				t.Error("ReadDone without a message")
			}
			dones.Add(1)
		}
		tc, c := r.open(t, Config{}, func(*Conn) Handler { return rec })
		for range 3 {
			tc.write(append(tc.frame(text, "a"), tc.frame(asBinary, "b")...))
			tc.writeFrame(ping, "")
			tc.wantFrame("ping", pong, "")
		}
		rec.wait(6)
		c.Close()
		if open.Load() != 0 || dones.Load() == 0 {
			t.Errorf("%d messages were not followed by ReadDone (%d calls)", open.Load(), dones.Load())
		}
	})
}

func TestContractAccessors(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		if got := c.IsClient(); got != r.dials {
			t.Errorf("IsClient() = %v, want %v", got, r.dials)
		}
		if got := c.Request(); (got == nil) != r.dials {
			t.Errorf("Request() = %v on a connection that was dialled: %v", got, r.dials)
		}
		if r.name == "tls" && !r.dials && c.Request().TLS == nil {
			t.Error("Request().TLS = nil on a TLS connection")
		}
		if got, want := c.RemoteAddr().String(), tc.nc.LocalAddr().String(); got != want {
			t.Errorf("RemoteAddr() = %v, want %v", got, want)
		}
		if got, want := c.LocalAddr().String(), tc.nc.RemoteAddr().String(); got != want {
			t.Errorf("LocalAddr() = %v, want %v", got, want)
		}
		tc.writeFrame(ping, "p")
		tc.wantFrame("ping", pong, "p")
		tc.writeFrame(text, "hello")
		tc.wantFrame("echo", text, "hello")
		if s := c.Stats(); s.MessagesIn != 1 || s.PingsIn != 1 || s.BytesIn == 0 || s.BytesOut == 0 {
			t.Errorf("Stats() = %+v, want one message, one ping and bytes", s)
		}
	})
}
