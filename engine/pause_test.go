package engine

import (
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// pauser counts messages, which are numbered, and pauses when it gets the first.
type pauser struct {
	Echo
	t    *testing.T
	conn *Conn
	got  atomic.Int64
	allc chan struct{} // closed when want messages have come
	want int64

	pausec chan struct{} // closed when reading has been paused; nil if nobody waits
}

func (p *pauser) Message(_ bool, b []byte) {
	n := p.got.Add(1)
	if i := binary.BigEndian.Uint64(b); i != uint64(n) {
		p.t.Errorf("message %d came when %d was due", i, n)
	}
	switch n {
	case 1:
		p.conn.PauseReading()
		p.conn.PauseReading() // does no more
		if p.pausec != nil {
			close(p.pausec)
		}
	case p.want:
		close(p.allc)
	}
}

func (p *pauser) ReadDone() {}

// TestPauseReading pauses a connection in the middle of a flood: the peer has to
// wait, what it has sent is delivered after the pause, and writing goes on all the
// time.
func TestPauseReading(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		const messages, size = 512, 64 << 10
		h := &pauser{t: t, allc: make(chan struct{}), want: messages}
		tc, c := r.open(t, Config{}, func(c *Conn) Handler {
			h.conn, h.Echo = c, Echo{conn: c, max: maxEcho}
			return h
		})
		var written atomic.Int64
		var wg sync.WaitGroup
		wg.Go(func() {
			payload := make([]byte, size)
			for i := range uint64(messages) {
				binary.BigEndian.PutUint64(payload, i+1)
				if _, err := tc.nc.Write(tc.frame(asBinary, string(payload))); err != nil {
					t.Errorf("write %d: %v", i, err)
					return
				}
				written.Add(1)
			}
		})
		// Until the writer is stuck. That it is not merely slow cannot be told, but what
		// follows holds then, too.
		for before := int64(-1); written.Load() != before || written.Load() == 0; time.Sleep(20 * time.Millisecond) {
			before = written.Load()
		}
		if got := h.got.Load(); got > 8 || written.Load() == messages {
			t.Errorf("%d messages were delivered and %d written in the pause, want a few, and not all", got, written.Load())
		}
		h.Echo.Message(true, []byte("still here"))
		h.Echo.ReadDone()
		tc.wantFrame("a paused connection writes", text, "still here")
		c.ResumeReading()
		c.ResumeReading()
		<-h.allc
		wg.Wait()
		tc.writeFrame(closing, code(CloseNormal, ""))
		tc.wantClose(CloseNormal, "the connection works on")
	})
}

// TestPauseEndsWithTheConnection closes and aborts paused connections, from either
// side.
func TestPauseEndsWithTheConnection(t *testing.T) {
	forEachRole(t, func(t *testing.T, r role) {
		paused := func() (*conversation, *Conn) {
			h := &pauser{t: t, want: -1, pausec: make(chan struct{})}
			tc, c := r.open(t, Config{}, func(c *Conn) Handler {
				h.conn, h.Echo = c, Echo{conn: c, max: maxEcho}
				return h
			})
			tc.writeFrame(asBinary, string(binary.BigEndian.AppendUint64(nil, 1)))
			<-h.pausec
			return tc, c
		}
		tc, c := paused()
		c.CloseWith(CloseGoingAway, "enough")
		tc.wantClose(CloseGoingAway, "closing ends the pause")
		tc.writeFrame(closing, code(CloseGoingAway, ""))
		tc.closeWrite()
		if ce, ok := errors.AsType[*CloseError](ended(t, c)); !ok || !ce.Clean {
			t.Errorf("closed while paused: %v, want a clean end", c.Err())
		}

		_, c = paused()
		c.Close()
		if err := ended(t, c); !errors.Is(err, ErrClosed) {
			t.Errorf("Close while paused: %v, want ErrClosed", err)
		}
		c.PauseReading() // an ended connection does not mind
		c.ResumeReading()

		tc, c = paused()
		tc.nc.Close()
		c.ResumeReading()
		if err := ended(t, c); !errors.Is(err, ErrLost) {
			t.Errorf("the peer went while we paused: %v, want ErrLost", err)
		}
	})
}

// TestKeepaliveWhilePaused checks that a peer is not taken for dead because we do
// not listen, and that it hears from us.
func TestKeepaliveWhilePaused(t *testing.T) {
	virtual(t, func(t *testing.T, r role) {
		tc, c := r.open(t, Config{}, func(*Conn) Handler { return discard{} })
		tc.nc.SetDeadline(time.Time{})
		c.PauseReading()
		start := time.Now()
		for range 20 {
			tc.wantFrame("a ping of a paused connection", ping, "")
			wantElapsed(t, "ping", start, 25*time.Second)
			start = time.Now()
		}
		c.ResumeReading()
		start = time.Now()
		go func() { _, _ = io.Copy(io.Discard, tc.nc) }()
		if err := ended(t, c); !errors.Is(err, ErrPeerDead) {
			t.Errorf("Err() = %v, want ErrPeerDead", err)
		}
		wantElapsed(t, "end after the pause", start, 60*time.Second)
		synctest.Wait()
	})
}
