package engine

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
)

// newReader returns a conversation that only reads, from bytes in memory.
func newReader(t testing.TB, b []byte, masked bool) *conversation {
	var nc net.Conn // not used
	return &conversation{t: t, nc: nc, br: bufio.NewReader(bytes.NewReader(b)), client: !masked}
}

// feed drives a parser the way a connection does: it keeps what is unfinished
// and offers it again with the next chunk. It returns everything that came out.
func feed(p *parser, chunks [][]byte) (out []string) {
	defer p.release()
	var in inbox
	defer in.release()
	for _, chunk := range chunks {
		for len(chunk) > 0 {
			n := copy(in.space(), chunk)
			in.added(n)
			chunk = chunk[n:]
			used := 0
			for b := in.bytes(); used < len(b); {
				ev, n, err := p.next(b[used:])
				used += n
				switch {
				case err != nil:
					return append(out, fmt.Sprintf("error %d %s", err.Code, err.Reason))
				case ev.kind == eventMessage:
					out = append(out, fmt.Sprintf("message %v %x", ev.text, ev.payload))
				case ev.kind == eventPing:
					out = append(out, fmt.Sprintf("ping %x", ev.payload))
				case ev.kind == eventPong:
					out = append(out, fmt.Sprintf("pong %x", ev.payload))
				case ev.kind == eventClose:
					return append(out, fmt.Sprintf("close %d %x", ev.code, ev.payload))
				}
				if n == 0 {
					break
				}
			}
			in.consumed(used)
		}
	}
	return out
}

// cuts splits b at random places.
func cuts(b []byte, r *rand.Rand) (chunks [][]byte) {
	b = bytes.Clone(b)
	for len(b) > 0 {
		k := 1 + r.IntN(len(b))
		if r.IntN(2) == 0 {
			k = min(k, 1+r.IntN(8))
		}
		chunks = append(chunks, b[:k:k])
		b = b[k:]
	}
	return chunks
}

// FuzzFrames parses bytes as they are and in random pieces: the same must come
// out, and no more memory be held than the bytes deserve.
func FuzzFrames(f *testing.F) {
	masked := func(first byte, p string) []byte { return testFrame(true, first, []byte(p)) }
	plain := func(first byte, p string) []byte { return testFrame(false, first, []byte(p)) }
	f.Add(masked(text, "Hello"), false, uint64(1))
	f.Add(plain(text, "Hello"), true, uint64(2))
	f.Add(append(masked(textPart, "fr\xce"), masked(contLast, "\xba")...), false, uint64(3))
	f.Add(append(masked(ping, "p"), masked(closing, code(1000, "bye"))...), false, uint64(4))
	f.Add(append(plain(binPart, ""), plain(contPart, strings.Repeat("x", 300))...), true, uint64(5))
	f.Add([]byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, false, uint64(6))
	f.Add([]byte{0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0}, true, uint64(7))
	f.Add(masked(text, strings.Repeat("\u20ac", 50)), false, uint64(8))
	f.Fuzz(func(t *testing.T, b []byte, client bool, seed uint64) {
		const limit = 1 << 16
		whole := &parser{client: client, maxMessage: limit}
		want := feed(whole, [][]byte{bytes.Clone(b)})
		r := rand.New(rand.NewPCG(seed, 0))
		pieces := &parser{client: client, maxMessage: limit}
		got := feed(pieces, cuts(b, r))
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("in pieces: %q\nas one:    %q", got, want)
		}
		size := 0
		for _, s := range got {
			size += len(s)
		}
		if size > 3*len(b)+200*len(got)+200 {
			t.Fatalf("%d bytes of results from %d bytes", size, len(b))
		}
	})
}

// FuzzRoundTrip checks that what appendFrame writes is what the parser reads.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("Hello"), true, true)
	f.Add([]byte(strings.Repeat("x", 70_000)), false, false)
	f.Fuzz(func(t *testing.T, p []byte, isText, client bool) {
		if isText && !bytes.Equal(p, bytes.ToValidUTF8(p, nil)) {
			isText = false
		}
		frame := (&Conn{client: client}).AppendFrame(nil, isText, p)
		got := feed(&parser{client: !client, maxMessage: 1 << 30}, [][]byte{frame})
		if want := []string{fmt.Sprintf("message %v %x", isText, p)}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("parse(append(%q)) = %q, want %q", p, got, want)
		}
	})
}

// FuzzUpgrade parses requests: never a panic, and what is accepted is an upgrade
// that net/http would have accepted.
func FuzzUpgrade(f *testing.F) {
	for _, tt := range handshakeCases {
		f.Add([]byte(tt.request))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		scan := headScanner{maxHead: 4096, maxLine: 1024}
		size, r := scan.scan(b)
		bytewise := headScanner{maxHead: 4096, maxLine: 1024}
		for i := range b {
			size2, r2 := bytewise.scan(b[:i+1])
			if size2 != 0 || r2 != nil {
				if size2 != size || (r2 == nil) != (r == nil) || r != nil && r2.status != r.status {
					t.Fatalf("byte by byte: %d, %v; as one: %d, %v", size2, r2, size, r)
				}
				break
			}
		}
		if r != nil || size == 0 {
			return
		}
		if size > 4096 || !bytes.HasSuffix(b[:size], []byte("\r\n\r\n")) {
			t.Fatalf("head of %d bytes accepted: %q", size, b[:size])
		}
		req, r := parseRequest(b[:size])
		if r != nil {
			if out := r.append(nil); !bytes.HasPrefix(out, []byte("HTTP/1.1 ")) {
				t.Fatalf("refusal %q", out)
			}
			return
		}
		checkAgainstHTTP(t, b[:size], req)
		cfg := Config{}
		cfg.checkAccess(req)
		if _, r := upgradeAnswer(req.Header.Get("Sec-Websocket-Key")); r != nil {
			t.Fatalf("key %q passed our check and not the upgrader: %v", req.Header.Get("Sec-Websocket-Key"), r)
		}
	})
}

// TestInboxGrowth checks that a read buffer grows with what arrives and goes
// when it is empty.
func TestInboxGrowth(t *testing.T) {
	var in inbox
	total := 0
	for total < 1<<20 {
		room := in.space()
		if have := cap(in.b.B); have > 2*total && have > maxRead {
			t.Fatalf("buffer of %d bytes for %d received", have, total)
		}
		in.added(len(room))
		total += len(room)
	}
	if got := len(in.bytes()); got != total {
		t.Errorf("%d bytes unfinished, want %d", got, total)
	}
	in.consumed(total - 10)
	if in.b == nil || cap(in.b.B) > maxRead || len(in.bytes()) != 10 {
		t.Errorf("a rest of 10 bytes is kept in a buffer of %d", cap(in.b.B))
	}
	in.consumed(10)
	if in.b != nil {
		t.Error("an empty inbox holds memory")
	}
	if in.size != maxRead {
		t.Errorf("reads of %d bytes after full ones, want %d", in.size, maxRead)
	}
	for range 200 {
		in.space()
		in.added(1)
		in.consumed(1)
	}
	if in.size != minRead {
		t.Errorf("reads of %d bytes after small ones, want %d", in.size, minRead)
	}
}

func BenchmarkParse(b *testing.B) {
	for _, n := range []struct {
		name string
		size int
	}{{"16B", 16}, {"52B", 52}, {"4KiB", 4 << 10}, {"64KiB", 64 << 10}} {
		b.Run(n.name, func(b *testing.B) {
			frame := testFrame(true, asBinary, make([]byte, n.size))
			p := parser{maxMessage: 1 << 20}
			b.SetBytes(int64(n.size))
			b.ReportAllocs()
			for b.Loop() {
				if _, k, err := p.next(frame); k != len(frame) || err != nil {
					b.Fatal(k, err)
				}
			}
		})
	}
}
