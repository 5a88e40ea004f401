package engine

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// takeSizes are sizes of messages around what the read buffer makes a difference of.
var takeSizes = []int{
	1, 100, minRead, largeFrame - 1, largeFrame, 20_000, 32 << 10, 33 << 10, 60 << 10, maxRead - 30,
	maxRead, maxRead + 5, 100_000, 128 << 10, 256 << 10, maxLarge - behindLarge, maxLarge, 300_000, 1 << 20,
}

// numbered returns a message of n bytes whose content is another for each number.
func numbered(number, n int) []byte {
	p := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(number), uint64(n)))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], r.Uint64())
	}
	return p
}

// taker takes every message that it can, every third excepted, and writes over all memory that
// is its own as soon as it has looked at it: over what was taken from another goroutine, while
// the connection goes on.
type taker struct {
	recorder *recorder
	conn     *Conn
	takenc   chan *buf.Buf
	count    int // messages
	taken    int
}

func (h *taker) Message(text bool, p []byte) {
	var b *buf.Buf
	if h.count++; h.count%3 != 0 {
		b = h.conn.TakeMessage()
	}
	if b == nil {
		h.recorder.Message(text, p)
		fill(p)
		return
	}
	h.taken++
	if !bytes.Equal(b.B, p) {
		panic("what was taken is not the message")
	}
	if h.conn.TakeMessage() != nil {
		panic("taken twice")
	}
	h.recorder.Message(text, b.B)
	h.takenc <- b
}

func (h *taker) ReadDone()                     { h.recorder.ReadDone() }
func (h *taker) Collect(dst [][]byte) [][]byte { return h.recorder.Collect(dst) }
func (h *taker) Closed(err error) {
	close(h.takenc)
	h.recorder.Closed(err)
}

// scribble writes over what was taken and releases it.
func (h *taker) scribble() {
	for b := range h.takenc {
		fill(b.B)
		b.Release()
	}
}

func fill(p []byte) {
	for i := range p {
		p[i] = 0xdb
	}
}

// TestContractTakeMessage checks that messages whose memory the handler takes, or writes over,
// leave the others alone, whatever they are made of and wherever reads cut them.
func TestContractTakeMessage(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		var wg sync.WaitGroup
		defer wg.Wait()
		h := &taker{recorder: newRecorder(), takenc: make(chan *buf.Buf, 4)}
		wg.Go(h.scribble)
		tc, c := r.open(t, Config{}, func(c *Conn) Handler {
			h.conn = c
			return h
		})
		rnd := rand.New(rand.NewPCG(1, 2))
		var want [][]byte
		var stream []byte
		for round := range 3 {
			for _, n := range takeSizes {
				p := numbered(len(want), n)
				want = append(want, p)
				switch round {
				case 0: // the same size twice: the second time there is a buffer for it
					stream = append(stream, tc.frame(asBinary, string(p))...)
					p = numbered(len(want), n)
					want = append(want, p)
					stream = append(stream, tc.frame(asBinary, string(p))...)
				case 1: // between small ones
					stream = append(stream, tc.frame(asBinary, string(p))...)
					for range 1 + rnd.IntN(3) {
						p = numbered(len(want), 1+rnd.IntN(200))
						want = append(want, p)
						stream = append(stream, tc.frame(asBinary, string(p))...)
					}
				default: // in fragments, with a ping between
					cut := rnd.IntN(n + 1)
					stream = append(stream, tc.frame(binPart, string(p[:cut]))...)
					stream = append(stream, tc.frame(contPart, "")...)
					stream = append(stream, tc.frame(contLast, string(p[cut:]))...)
				}
			}
		}
		for len(stream) > 0 {
			n := min(1+rnd.IntN(1<<(4+rnd.IntN(15))), len(stream))
			tc.write(stream[:n])
			stream = stream[n:]
		}
		got := h.recorder.wait(len(want))
		if len(got) < len(want) {
			t.Fatalf("%d messages came, want %d", len(got), len(want))
		}
		for i := range want {
			if got[i] != "b:"+string(want[i]) {
				t.Fatalf("message %d of %d bytes is another one, of %d", i, len(want[i]), len(got[i])-2)
			}
		}
		c.CloseWith(CloseNormal, "")
		tc.nc.Close()
		<-c.Done()
		if h.taken < len(takeSizes) {
			t.Errorf("%d of %d messages were taken, want more than the large ones of one round", h.taken, h.count)
		}
	})
}

// takeEach drives a connection without a socket: reads give the parts of a stream.
func takeEach(t *testing.T, c *Conn, parts ...[]byte) {
	t.Helper()
	for _, p := range parts {
		for len(p) > 0 {
			n := copy(c.inBuf.space(), p)
			p = p[n:]
			c.arrived(n)
		}
	}
}

// newUnreadConn returns a connection that takeEach can drive.
func newUnreadConn(h Handler) *Conn {
	cfg := Config{}
	lim := cfg.limits()
	return &Conn{handler: h, lim: lim, in: parser{maxMessage: lim.maxMessage}, donec: make(chan struct{})}
}

// TestTakeCutEverywhere checks a large message between small ones that comes in two reads, cut
// at every place that could matter.
func TestTakeCutEverywhere(t *testing.T) {
	const size = 20_000
	large := numbered(1, size)
	one := testFrame(true, asBinary, []byte("one"))
	stream := append(bytes.Clone(one), testFrame(true, asBinary, large)...)
	stream = append(stream, one...)
	for cut := 0; cut <= len(stream); cut++ {
		if cut > 64 && cut < len(stream)-64 && cut%509 != 0 {
			continue
		}
		h := &taker{recorder: newRecorder(), takenc: make(chan *buf.Buf, 8)}
		c := newUnreadConn(h)
		h.conn = c
		for range 3 {
			takeEach(t, c, bytes.Clone(stream[:cut]), bytes.Clone(stream[cut:]))
		}
		if c.inBuf.b != nil || c.inBuf.frame != 0 {
			t.Fatalf("cut at %d: the inbox is not empty", cut)
		}
		got := h.recorder.wait(9)
		for i := range 9 {
			want := "b:one"
			if i%3 == 1 {
				want = "b:" + string(large)
			}
			if got[i] != want {
				t.Fatalf("cut at %d: message %d is another one", cut, i)
			}
		}
		close(h.takenc)
		h.scribble()
	}
}

// TestTakeOnlyWhatIsUsed checks that nobody gets much more memory than a message needs, nor
// what is not the message's alone.
func TestTakeOnlyWhatIsUsed(t *testing.T) {
	h := &lastTaker{}
	c := newUnreadConn(h)
	h.conn = c
	for _, n := range takeSizes {
		for range 3 {
			takeEach(t, c, testFrame(true, asBinary, numbered(0, n)))
			if h.room > 2*n+behindLarge {
				t.Errorf("%d bytes of memory for a message of %d", h.room, n)
			}
			if n >= maxRead && n < maxLarge-behindLarge && !h.ok {
				t.Errorf("a message of %d bytes could not be taken", n)
			}
		}
	}
	if c.TakeMessage() != nil {
		t.Error("a message was taken after it had been handled")
	}
}

type lastTaker struct {
	discard
	conn *Conn
	ok   bool
	room int
}

func (h *lastTaker) Message(bool, []byte) {
	have := 0
	if in := &h.conn.inBuf; in.b != nil {
		have = cap(in.b.B)
	}
	b := h.conn.TakeMessage()
	h.ok, h.room = b != nil, 0
	if h.ok {
		h.room = have
		b.Release()
	}
}

// TestAnnouncedFrameTakesNoMemory checks that the header of a large frame gets no more than what
// a frame before it has proven.
func TestAnnouncedFrameTakesNoMemory(t *testing.T) {
	c := newUnreadConn(discard{})
	frame := testFrame(true, asBinary, make([]byte, 1<<20))
	takeEach(t, c, frame[:100])
	if c.inBuf.space(); cap(c.inBuf.b.B) > maxRead {
		t.Errorf("%d bytes for 100 of a frame", cap(c.inBuf.b.B))
	}
	takeEach(t, c, frame[100:], frame[:100])
	if c.inBuf.space(); cap(c.inBuf.b.B) > 2*maxLarge {
		t.Errorf("%d bytes for 100 of a frame that is proven", cap(c.inBuf.b.B))
	}
}
