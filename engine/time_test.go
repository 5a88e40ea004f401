package engine

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/memlink"
)

// Everything that depends on time, in virtual time on the memory link.

// virtual runs f in a bubble with the engine in both roles.
func virtual(t *testing.T, f func(t *testing.T, r role)) {
	for _, dials := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f(t, role{driver{name: "memory", listen: listenMemory, virtual: true}, dials})
		})
	}
}

func wantElapsed(t *testing.T, what string, start time.Time, want time.Duration) {
	t.Helper()
	if d := time.Since(start); d != want {
		t.Errorf("%s after %v, want %v", what, d, want)
	}
}

// TestKeepaliveIdle follows a connection on which nobody says anything.
func TestKeepaliveIdle(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		tc.nc.SetDeadline(time.Time{})
		start := time.Now()
		for i := 1; i <= 5; i++ {
			tc.wantFrame("ping on an idle connection", ping, "")
			wantElapsed(t, "ping", start, 25*time.Second)
			tc.writeFrame(pong, "")
			start = time.Now()
		}
		synctest.Wait()
		if got := c.Stats(); got.PingsOut != 5 || got.PongsIn != 5 {
			t.Errorf("Stats() = %+v, want 5 pings and pongs", got)
		}
	})
}

func TestKeepaliveDeadPeer(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		start := time.Now()
		tc.nc.(*memlink.Conn).Stall()
		go tc.nc.Write(tc.frame(pong, "")) // never arrives
		if err := ended(t, c); !errors.Is(err, ErrPeerDead) {
			t.Errorf("Err() = %v, want ErrPeerDead", err)
		}
		wantElapsed(t, "end", start, 60*time.Second)
		if got := c.Stats().PingsOut; got != 2 {
			t.Errorf("%d pings were sent in 60s, want 2", got)
		}
	})
}

// TestKeepaliveTraffic checks that a busy connection is not pinged, and that any
// bytes are a sign of life.
func TestKeepaliveTraffic(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		tc.nc.SetDeadline(time.Time{})
		for range 20 {
			time.Sleep(20 * time.Second)
			tc.writeFrame(text, "x")
			tc.wantFrame("no ping on a busy connection", text, "x")
		}
		if got := c.Stats().PingsOut; got != 0 {
			t.Errorf("%d pings, want none", got)
		}
	})
}

func TestKeepaliveOff(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		_, c := r.open(t, Config{PingInterval: -1, PingTimeout: -1}, echo)
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if c.Err() != nil || c.Stats().PingsOut != 0 {
			t.Errorf("Err() = %v, %d pings, want a connection left in peace", c.Err(), c.Stats().PingsOut)
		}
	})
}

func TestFrameTimeout(t *testing.T) {
	for _, half := range []struct {
		name string
		send func(tc *conversation) []byte
	}{
		{"half a header", func(tc *conversation) []byte { return tc.frame(asBinary, "x")[:1] }},
		{"half a frame", func(tc *conversation) []byte { return tc.frame(asBinary, strings.Repeat("x", 10_000))[:5000] }},
		{"half a message", func(tc *conversation) []byte { return tc.frame(textPart, "x") }},
	} {
		virtual(t, func(t *testing.T, r role) {
			tc, c := r.open(t, Config{}, echo)
			tc.nc.SetDeadline(time.Time{})
			time.Sleep(7 * time.Second) // out of step with the timer
			tc.write(half.send(tc))
			start := time.Now()
			for {
				first, p, err := tc.readFrame()
				if err != nil {
					t.Fatal(err)
				}
				if first == ping {
					continue
				}
				if first != closing || string(p[:2]) != code(1008, "") {
					t.Fatalf("%s: got frame %#02x %q, want close 1008", half.name, first, p)
				}
				break
			}
			wantElapsed(t, half.name, start, 30*time.Second)
			tc.wantEOF(half.name)
			tc.nc.Close()
			if err := ended(t, c); !errors.Is(err, ErrFrameTimeout) {
				t.Errorf("%s: Err() = %v, want ErrFrameTimeout", half.name, err)
			}
		})
	}
}

// TestFrameProgress checks that a slow frame which moves on is not cut off.
func TestFrameProgress(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, _ := r.open(t, Config{PingInterval: -1}, echo)
		tc.nc.SetDeadline(time.Time{})
		for _, b := range tc.frame(text, "slow") {
			time.Sleep(29 * time.Second)
			tc.write([]byte{b})
		}
		tc.wantFrame("a slow frame", text, "slow")
	})
}

func TestCloseLimit(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		// The peer ignores our close frame.
		tc, c := r.open(t, Config{}, echo)
		start := time.Now()
		c.CloseWith(CloseNormal, "")
		tc.wantClose(1000, "our close")
		tc.writeFrame(text, "chatty")
		wantCloseError(t, c, 1000, false, false)
		wantElapsed(t, "end", start, 5*time.Second)

		// The peer does not end the connection after a failure.
		tc, c = r.open(t, Config{}, echo)
		tc.writeFrame(3, "")
		start = time.Now()
		tc.wantClose(1002, "reserved opcode")
		tc.wantEOF("half-close")
		wantCloseError(t, c, 1002, false, false)
		wantElapsed(t, "end", start, 5*time.Second)

		// Nor after a clean exchange.
		tc, c = r.open(t, Config{}, echo)
		tc.writeFrame(closing, code(1000, ""))
		start = time.Now()
		wantCloseError(t, c, 1000, true, true)
		wantElapsed(t, "end", start, 5*time.Second)

		// Our close frame cannot be written.
		tc, c = r.open(t, Config{}, echo)
		rec := c.handler.(*Echo)
		rec.Message(false, make([]byte, 1<<20))
		c.Kick()
		start = time.Now()
		c.CloseWith(CloseNormal, "")
		wantCloseError(t, c, 1000, false, false)
		wantElapsed(t, "end", start, 5*time.Second)
		_ = tc
	})
}

// TestCloseFlood checks that a peer which goes on sending after a failure is
// listened to no longer than the limit.
func TestCloseFlood(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		tc.writeFrame(3, "")
		start := time.Now()
		tc.nc.(*memlink.Conn).Throttle(1 << 20)
		go func() {
			for {
				if _, err := tc.nc.Write(make([]byte, 1000)); err != nil {
					return
				}
			}
		}()
		wantCloseError(t, c, 1002, false, false)
		wantElapsed(t, "end", start, 5*time.Second)
	})
}

func TestWriteStall(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		_, c := r.open(t, Config{}, echo)
		h := c.handler.(*Echo)
		start := time.Now()
		h.Message(false, make([]byte, 1<<20)) // far over the link's buffer
		c.Kick()                              // does not block
		wantElapsed(t, "Kick", start, 0)
		if err := ended(t, c); !errors.Is(err, ErrWriteStall) {
			t.Errorf("Err() = %v, want ErrWriteStall", err)
		}
		wantElapsed(t, "end", start, 10*time.Second)
	})
}

// TestWriteSlow checks that a peer which reads slowly, but reads, is kept.
func TestWriteSlow(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{PingTimeout: -1, PingInterval: -1}, echo)
		tc.nc.SetDeadline(time.Time{})
		h := c.handler.(*Echo)
		h.Message(false, make([]byte, 200<<10))
		c.Kick()
		for left := 200<<10 + 10; left > 0; {
			time.Sleep(9 * time.Second)
			n, err := tc.nc.Read(make([]byte, 20_000))
			if err != nil {
				t.Fatalf("Read with %d bytes to go: %v", left, err)
			}
			left -= n
		}
		if err := c.Err(); err != nil {
			t.Errorf("Err() = %v, want a connection that lives", err)
		}
	})
}

// TestLinkFaults checks how a connection ends when the link fails.
func TestLinkFaults(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		tc.nc.(*memlink.Conn).Cut()
		if err := ended(t, c); !errors.Is(err, ErrLost) || !isReset(err) {
			t.Errorf("Err() after a cut = %v, want ErrLost and a reset", err)
		}
		// A cut is noticed while writing is blocked too.
		tc, c = r.open(t, Config{}, echo)
		c.handler.(*Echo).Message(false, make([]byte, 1<<20))
		c.Kick()
		synctest.Wait()
		tc.nc.(*memlink.Conn).Cut()
		if err := ended(t, c); !errors.Is(err, ErrLost) {
			t.Errorf("Err() after a cut = %v, want ErrLost", err)
		}
	})
}

// TestPongFlood checks that a flood of pings from a peer that does not read
// costs a bounded queue, and that the latest ping is answered in the end.
func TestPongFlood(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{WriteTimeout: -1}, echo)
		one := tc.frame(ping, strings.Repeat("p", 125))
		for range 5000 {
			tc.write(one)
		}
		tc.write(tc.frame(ping, "last"))
		synctest.Wait()
		c.mu.Lock()
		if got := cap(c.ctl) + cap(c.ctlOut); got > 4*maxPongs {
			t.Errorf("%d bytes of pongs are kept, want a bounded queue", got)
		}
		c.mu.Unlock()
		for {
			first, p, err := tc.readFrame()
			if first != pong || err != nil {
				t.Fatalf("got frame %#02x, %v, want pongs", first, err)
			}
			if string(p) == "last" {
				break
			}
		}
	})
}

// TestFragmentFlood checks that empty fragments cost nothing.
func TestFragmentFlood(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, echo)
		tc.writeFrame(binPart, "")
		one := tc.frame(contPart, "")
		for range 50_000 {
			tc.write(one)
		}
		synctest.Wait()
		if c.in.message != nil || cap(c.inBuf.b.B) > maxRead {
			t.Errorf("empty fragments hold memory: message %v, %d bytes read buffer", c.in.message, cap(c.inBuf.b.B))
		}
		tc.writeFrame(contLast, "x")
		tc.wantFrame("after the flood", asBinary, "x")
	})
}

// TestEchoBound checks that the echo handler cuts off a peer that sends and does
// not read.
func TestEchoBound(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, func(c *Conn) Handler {
			e := NewEcho(c)
			e.max = 1 << 20
			return e
		})
		tc.nc.(*memlink.Conn).Throttle(10 << 20) // time must go on
		go func() {
			m := tc.frame(asBinary, strings.Repeat("x", 10_000))
			for {
				if _, err := tc.nc.Write(m); err != nil {
					return
				}
			}
		}()
		wantCloseError(t, c, 1008, false, false)
	})
}

// TestProbe checks that a probe ends the connection if nothing comes in time, and
// leaves it alone if anything does.
func TestProbe(t *testing.T) {
	for _, answers := range []bool{true, false} {
		virtual(t, func(t *testing.T, r role) {
			tc, c := r.open(t, Config{PingInterval: -1, PingTimeout: -1}, echo)
			tc.nc.SetDeadline(time.Time{})
			time.Sleep(time.Minute)
			start := time.Now()
			c.Probe(2 * time.Second)
			c.Probe(time.Millisecond) // one is under way
			tc.wantFrame("ping of a probe", ping, "")
			if answers {
				time.Sleep(2*time.Second - 1)
				tc.writeFrame(pong, "")
				time.Sleep(time.Hour)
				synctest.Wait()
				if err := c.Err(); err != nil {
					t.Errorf("a peer that answered: Err() = %v", err)
				}
				c.Probe(2 * time.Second) // another one
				start = time.Now()
			}
			if err := ended(t, c); !errors.Is(err, ErrPeerDead) {
				t.Errorf("Err() = %v, want ErrPeerDead", err)
			}
			wantElapsed(t, "end", start, 2*time.Second)
		})
	}
}
