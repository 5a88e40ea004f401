package engine

import (
	"runtime"
	"sync/atomic"
	"testing"
)

// pingPong is a handler that sends its frames again for each message received.
type pingPong struct {
	c      *Conn
	frame  []byte
	ready  atomic.Int64 // frames to send
	got    atomic.Int64
	bursts chan struct{}
	burst  int64
}

func (h *pingPong) Message(bool, []byte) {
	if h.got.Add(1)%h.burst == 0 {
		h.bursts <- struct{}{}
	}
}
func (h *pingPong) ReadDone() {}
func (h *pingPong) Collect(dst [][]byte) [][]byte {
	for range h.ready.Swap(0) {
		dst = append(dst, h.frame)
	}
	return dst
}
func (h *pingPong) Closed(error) {}

// BenchmarkEcho sends bursts of messages to an echo server over loopback and
// waits for all the answers.
func BenchmarkEcho(b *testing.B) {
	for _, bm := range []struct {
		name        string
		size, burst int
	}{{"16B/1", 16, 1}, {"16B/64", 16, 64}, {"4KiB/16", 4 << 10, 16}, {"64KiB/16", 64 << 10, 16}} {
		b.Run(bm.name, func(b *testing.B) {
			p := listenTCP(b)
			s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
			b.Cleanup(p.serve(s, p.ln))
			c, err := Dial(b.Context(), p.url, nil)
			if err != nil {
				b.Fatal(err)
			}
			h := &pingPong{c: c, bursts: make(chan struct{}, 1), burst: int64(bm.burst)}
			h.frame = c.AppendFrame(nil, false, make([]byte, bm.size))
			c.Start(h)
			b.SetBytes(int64(bm.size * bm.burst))
			b.ReportAllocs()
			for b.Loop() {
				h.ready.Add(int64(bm.burst))
				c.Kick()
				<-h.bursts
			}
			b.ReportMetric(float64(b.N*bm.burst)/b.Elapsed().Seconds(), "msg/s")
			c.Close()
		})
	}
}

// TestIdleConnection checks what an idle connection holds: one goroutine, and
// no read buffer.
func TestIdleConnection(t *testing.T) {
	before := runtime.NumGoroutine()
	tc, c := role{driver{name: "tcp", listen: listenTCP}, false}.open(t, Config{}, echo)
	tc.writeFrame(text, "x")
	tc.wantFrame("echo", text, "x")
	// Its listener has one, too.
	for runtime.NumGoroutine() > before+2 {
		runtime.Gosched()
	}
	tc.nc.Close()
	ended(t, c)
}

// TestSteadyStateAllocs checks that receiving and sending allocate nothing.
func TestSteadyStateAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	tc, c := role{driver{name: "tcp", listen: listenTCP}, false}.open(t, Config{}, echo)
	frame := tc.frame(asBinary, "0123456789abcdef")
	answer := make([]byte, 18)
	run := func() {
		tc.write(frame)
		if _, err := tc.nc.Read(answer); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if got := testing.AllocsPerRun(500, run); got > 0.5 {
		t.Errorf("an echo costs %v allocations, want 0", got)
	}
	c.Close()
}
