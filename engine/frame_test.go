package engine

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"
	"unicode/utf8"
)

var sizes = []int{0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 63, 125, 126, 127, 128, 129, 200, 1000, 65535, 65536, 100_000}

// TestAppendFrame reads frames back with the test's own code.
func TestAppendFrame(t *testing.T) {
	for _, n := range sizes {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rand.Uint32())
		}
		for _, client := range []bool{false, true} {
			c := &Conn{client: client}
			got := c.AppendFrame([]byte("before"), false, p)
			got, ok := bytes.CutPrefix(got, []byte("before"))
			if !ok {
				t.Fatalf("AppendFrame of %d bytes overwrote dst", n)
			}
			tc := newReader(t, got, client)
			first, back, err := tc.readFrame()
			if err != nil || first != asBinary || !bytes.Equal(back, p) || tc.br.Buffered() != 0 {
				t.Errorf("AppendFrame of %d bytes, client %v: read back %#02x, %d bytes, %v", n, client, first, len(back), err)
			}
		}
	}
}

// TestMaskKeysDiffer checks that a key is not used for two frames (RFC 6455
// section 5.3).
func TestMaskKeysDiffer(t *testing.T) {
	seen := make(map[uint32]bool)
	for range 1000 {
		f := appendFrame(nil, true, asBinary, nil)
		seen[binary.LittleEndian.Uint32(f[2:])] = true
	}
	if len(seen) < 990 {
		t.Errorf("%d different keys in 1000 frames", len(seen))
	}
}

func TestUnmaskOffsets(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	for _, n := range sizes {
		for offset := range 9 {
			p := make([]byte, n)
			unmask(p, key, offset)
			for i, b := range p {
				if want := key[(offset+i)%4]; b != want {
					t.Fatalf("unmask of %d bytes at %d: byte %d = %d, want %d", n, offset, i, b, want)
				}
			}
		}
	}
}

func TestAppendFrameAllocs(t *testing.T) {
	for _, n := range []int{16, 1000, 70_000} {
		c := &Conn{client: true}
		p, dst := make([]byte, n), make([]byte, 0, n+maxHeader)
		if got := testing.AllocsPerRun(100, func() { c.AppendFrame(dst, false, p) }); got != 0 {
			t.Errorf("AppendFrame of %d bytes with room: %v allocations, want 0", n, got)
		}
	}
}

func TestCutReason(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"short", "short"},
		{strings.Repeat("r", 123), strings.Repeat("r", 123)},
		{strings.Repeat("r", 124), strings.Repeat("r", 123)},
		{strings.Repeat("\u03ba", 62), strings.Repeat("\u03ba", 61)},
		{"bad \xff", "bad \uFFFD"},
	} {
		if got := cutReason(tt.in); got != tt.want || len(got) > 123 || !utf8.ValidString(got) {
			t.Errorf("cutReason(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// TestUTF8Check compares with unicode/utf8 over random bytes in random pieces.
func TestUTF8Check(t *testing.T) {
	alphabet := []string{"a", "\u00e9", "\u20ac", "\U0001F600", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\x80", "\xed\xa0\x80", "\xff"}
	for range 20_000 {
		var s string
		for range rand.IntN(6) {
			s += alphabet[min(rand.IntN(14), 9)%len(alphabet)]
		}
		var u utf8Check
		ok := true
		for rest := s; len(rest) > 0 && ok; {
			k := 1 + rand.IntN(len(rest))
			ok = u.write([]byte(rest[:k]))
			rest = rest[k:]
		}
		ok = ok && u.complete()
		if ok != utf8.ValidString(s) {
			t.Fatalf("utf8Check(%q) = %v, want %v", s, ok, !ok)
		}
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	for _, n := range []struct {
		name string
		size int
	}{{"16B", 16}, {"52B", 52}, {"4KiB", 4 << 10}, {"64KiB", 64 << 10}} {
		for _, client := range []bool{false, true} {
			name := n.name + "/server"
			if client {
				name = n.name + "/client"
			}
			b.Run(name, func(b *testing.B) {
				c := &Conn{client: client}
				p, dst := make([]byte, n.size), make([]byte, 0, n.size+maxHeader)
				b.SetBytes(int64(n.size))
				b.ReportAllocs()
				for b.Loop() {
					c.AppendFrame(dst, false, p)
				}
			})
		}
	}
}

// TestFrameInPlace checks that a frame built around its payload is the one that is
// built from a copy of it, whatever stands before it.
func TestFrameInPlace(t *testing.T) {
	for _, client := range []bool{false, true} {
		for _, n := range []int{0, 1, 125, 126, 127, 0xffff, 0x10000, 100_000} {
			payload := bytes.Repeat([]byte("payload."), n/8+1)[:n]
			before := []byte("before")
			b := beginFrame(bytes.Clone(before), client)
			b = append(b, payload...)
			b = endFrame(b, len(before), client, bitFin|opBinary)
			if !bytes.HasPrefix(b, before) {
				t.Fatalf("client %v, %d bytes: what stood before has changed", client, n)
			}
			got := b[len(before):]
			h, ok := parseFrameHeader(got)
			if !ok || h.first != bitFin|opBinary || h.masked != client || h.length != uint64(n) || h.size+n != len(got) {
				t.Fatalf("client %v, %d bytes: header %+v of a frame of %d bytes", client, n, h, len(got))
			}
			if client {
				unmask(got[h.size:], h.mask, 0)
			}
			if !bytes.Equal(got[h.size:], payload) {
				t.Errorf("client %v, %d bytes: the payload came out different", client, n)
			}
		}
	}
}

// TestLongFrame checks that a frame begun with the longest header is the same as another one,
// at every length of header.
func TestLongFrame(t *testing.T) {
	for _, client := range []bool{false, true} {
		c := &Conn{client: client}
		for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 100_000} {
			p := make([]byte, n)
			for i := range p {
				p[i] = byte(i * 7)
			}
			b := append(c.BeginLongFrame(nil), p...)
			frame := b[c.EndLongFrame(b):]
			want := c.EndFrame(append(c.BeginFrame(nil), p...), 0, false)
			if client { // under a mask of its own
				h, _ := parseFrameHeader(frame)
				unmask(frame[h.size:], h.mask, 0)
				copy(frame[h.size-maskLen:], make([]byte, maskLen))
				h, _ = parseFrameHeader(want)
				unmask(want[h.size:], h.mask, 0)
				copy(want[h.size-maskLen:], make([]byte, maskLen))
			}
			if !bytes.Equal(frame, want) {
				t.Errorf("client %v, %d bytes: the frame begins with %x, want %x", client, n, frame[:min(16, len(frame))], want[:min(16, len(want))])
			}
		}
	}
}
