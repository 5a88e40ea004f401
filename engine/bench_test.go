package engine

import (
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
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
		for _, d := range socketDrivers() {
			b.Run(bm.name+"/"+d.name, func(b *testing.B) { benchmarkEcho(b, d, bm.size, bm.burst) })
		}
	}
}

func benchmarkEcho(b *testing.B, d driver, size, burst int) {
	p := d.listen(b)
	s := NewServer(Config{Driver: p.driver}, func(c *Conn) { c.Start(NewEcho(c)) })
	b.Cleanup(p.serve(s, p.ln))
	c, err := Dial(b.Context(), p.url, nil)
	if err != nil {
		b.Fatal(err)
	}
	h := &pingPong{c: c, bursts: make(chan struct{}, 1), burst: int64(burst)}
	h.frame = c.AppendFrame(nil, false, make([]byte, size))
	c.Start(h)
	b.SetBytes(int64(size * burst))
	b.ReportAllocs()
	for b.Loop() {
		h.ready.Add(int64(burst))
		c.Kick()
		<-h.bursts
	}
	b.ReportMetric(float64(b.N*burst)/b.Elapsed().Seconds(), "msg/s")
	c.Close()
}

// TestIdleConnection checks what an idle connection holds: no read buffer, and
// one goroutine on the std driver.
func TestIdleConnection(t *testing.T) {
	for _, d := range socketDrivers() {
		role{d, false}.open(t, Config{}, echo) // starts a poller, which stays
		before := runtime.NumGoroutine()
		tc, c := role{d, false}.open(t, Config{}, echo)
		tc.writeFrame(text, "x")
		tc.wantFrame("echo", text, "x")
		more := 2 // its listener has one, too
		if c.Driver() == DriverEpoll {
			more = 1
		}
		for runtime.NumGoroutine() > before+more {
			runtime.Gosched()
		}
		tc.nc.Close()
		ended(t, c)
	}
}

// TestSteadyStateAllocs checks that receiving and sending allocate nothing.
func TestSteadyStateAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, d := range socketDrivers() {
		tc, c := role{d, false}.open(t, Config{}, echo)
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
			t.Errorf("%s: an echo costs %v allocations, want 0", d.name, got)
		}
		c.Close()
	}
}

// idleHandler is the least that a handler can be.
type idleHandler struct{}

func (idleHandler) Message(bool, []byte)          {}
func (idleHandler) ReadDone()                     {}
func (idleHandler) Collect(dst [][]byte) [][]byte { return dst }
func (idleHandler) Closed(error)                  {}

// BenchmarkIdle reports what an idle connection holds on the side of the server:
// heap, heap with stacks, and memory of the process.
func BenchmarkIdle(b *testing.B) {
	for _, d := range socketDrivers() {
		b.Run(d.name, func(b *testing.B) {
			for b.Loop() {
				benchmarkIdle(b, d, 5000)
			}
		})
	}
}

func benchmarkIdle(b *testing.B, d driver, conns int) {
	p := d.listen(b)
	var ready sync.WaitGroup
	ready.Add(conns)
	s := NewServer(Config{Driver: p.driver}, func(c *Conn) { c.Start(idleHandler{}); ready.Done() })
	stop := p.serve(s, p.ln)
	answer := make([]byte, 1024)
	clients := make([]net.Conn, conns)
	for i := range clients {
		nc, err := p.dial()
		if err != nil {
			b.Fatal(err)
		}
		nc.Write([]byte(goodRequest))
		nc.Read(answer)
		clients[i] = nc
	}
	ready.Wait()
	with, withRSS := memory()
	stop() // what goes is the server's
	without, withoutRSS := memory()
	per := func(a, b uint64) float64 { return (float64(a) - float64(b)) / float64(conns) }
	b.ReportMetric(per(with.HeapAlloc, without.HeapAlloc), "heap-B/conn")
	b.ReportMetric(per(with.HeapAlloc+with.StackInuse, without.HeapAlloc+without.StackInuse), "heap+stack-B/conn")
	b.ReportMetric(per(withRSS, withoutRSS), "rss-B/conn")
	b.ReportMetric(per(with.HeapObjects, without.HeapObjects), "objects/conn")
	for _, nc := range clients {
		nc.Close()
	}
}

// memory returns what is in use, and the resident size of the process if the
// system tells.
func memory() (m runtime.MemStats, rss uint64) {
	runtime.GC()
	debug.FreeOSMemory()
	runtime.ReadMemStats(&m)
	statm, _ := os.ReadFile("/proc/self/statm")
	if f := strings.Fields(string(statm)); len(f) > 1 {
		rss, _ = strconv.ParseUint(f[1], 10, 64)
	}
	return m, rss * uint64(os.Getpagesize())
}
