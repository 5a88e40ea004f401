//go:build linux && (amd64 || arm64 || loong64)

package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloudwego/netpoll"
)

// What can go wrong with pollers that other connections depend on, beyond the
// contract, which the driver passes like any other.

// polled is the engine on the epoll driver, in one of its roles.
func polled(dials bool) role { return role{driver{name: "epoll", listen: listenEpoll}, dials} }

// onePoller checks that the tests have what they assume: connections that share
// one poller.
func onePoller(t *testing.T) {
	t.Helper()
	polls, err := pollers(0)
	if err != nil || len(polls) != 1 {
		t.Skipf("%d pollers, %v: the test wants one", len(polls), err)
	}
}

// TestEpollEndInHandler ends connections in all ways from methods of their
// handlers, where netpoll's own Close would stop the poller for good.
func TestEpollEndInHandler(t *testing.T) {
	for _, dials := range []bool{false, true} {
		r := polled(dials)
		bystander, _ := r.open(t, Config{}, echo)
		for name, end := range map[string]func(*Conn){
			"CloseWith": func(c *Conn) { c.CloseWith(CloseGoingAway, "") },
			"abort":     func(c *Conn) { c.abort(ErrClosed) },
			"fail":      func(c *Conn) { c.fail(protocolError("")) },
			"all":       func(c *Conn) { c.CloseWith(CloseGoingAway, ""); c.fail(protocolError("")); c.abort(ErrClosed) },
			"Close":     func(c *Conn) { go c.Close() },
		} {
			for _, where := range []string{"Message", "ReadDone", "Collect"} {
				rec := newRecorder()
				tc, c := r.openUnstarted(t, Config{CloseTimeout: 50 * time.Millisecond}, nil)
				var armed atomic.Bool
				f := func() {
					if armed.Swap(false) {
						end(c)
					}
				}
				switch where {
				case "Message":
					rec.onMessage = func(bool, []byte) { f() }
				case "ReadDone":
					rec.onDone = f
				case "Collect":
					rec.onDone = c.Kick
					rec.onCollect = f
				}
				c.Start(rec)
				c.Kick()
				armed.Store(true)
				tc.writeFrame(text, "end")
				tc.wantGone(name + " in " + where)
				ended(t, c)
				if len(rec.closed) != 1 {
					t.Errorf("%s in %s: Closed called %d times, want 1", name, where, len(rec.closed))
				}
				bystander.writeFrame(text, where)
				bystander.wantFrame("the poller goes on after "+name, text, where)
			}
		}
	}
}

// TestEpollAcceptMoods accepts connections and starts them now, later, or never.
func TestEpollAcceptMoods(t *testing.T) {
	early := testFrame(true, text, []byte("early"))
	for name, accept := range map[string]func(c *Conn, rec *recorder){
		"later": func(c *Conn, rec *recorder) { go c.Start(rec) },
		"closed elsewhere, then started": func(c *Conn, rec *recorder) {
			c.abort(ErrClosed)
			c.Start(rec)
		},
		"refused":     func(c *Conn, rec *recorder) { c.CloseWith(ClosePolicy, ""); go c.Start(rec) },
		"closed only": func(c *Conn, rec *recorder) { go func() { c.Close(); c.Start(rec) }() },
	} {
		for _, fin := range []bool{false, true} {
			p := listenEpoll(t)
			rec := newRecorder()
			s := NewServer(Config{Driver: p.driver, CloseTimeout: 50 * time.Millisecond}, func(c *Conn) { accept(c, rec) })
			stop := p.serve(s, p.ln)
			nc, err := p.dial()
			if err != nil {
				t.Fatal(err)
			}
			tc := newConversation(t, nc, true)
			tc.write(append([]byte(goodRequest), early...))
			if fin {
				tc.closeWrite()
			}
			tc.wantUpgrade()
			if name == "later" {
				if got := rec.wait(1); len(got) != 1 || got[0] != "t:early" {
					t.Errorf("%s, fin %v: messages = %q, want the early one", name, fin, got)
				}
				if !fin {
					tc.writeFrame(text, "more")
					rec.wait(2)
				}
			}
			if name == "later" && !fin {
				nc.Close()
			} else {
				tc.wantGone(name)
			}
			rec.mu.Lock()
			for len(rec.closed) == 0 {
				rec.cond.Wait()
			}
			rec.mu.Unlock()
			stop()
		}
	}
}

// TestEpollNumbersReused opens and ends many connections while others write, so
// that descriptors change hands all the time: nobody must get a foreign byte.
func TestEpollNumbersReused(t *testing.T) {
	p := listenEpoll(t)
	cfg := Config{Driver: DriverEpoll}
	s := NewServer(cfg, func(c *Conn) { c.Start(NewEcho(c)) })
	stop := p.serve(s, p.ln)
	var wg sync.WaitGroup
	for worker := range 8 {
		wg.Go(func() {
			for i := range 60 {
				c, err := Dial(t.Context(), p.url, &DialConfig{Config: cfg})
				if err != nil {
					t.Error(err)
					return
				}
				mine := bytes.Repeat([]byte(fmt.Sprintf("%d/%d ", worker, i)), 50)
				rec := newRecorder()
				rec.onMessage = func(_ bool, m []byte) {
					if !bytes.Equal(m, mine) {
						t.Errorf("got %.20q, want only %.20q", m, mine)
					}
				}
				c.Start(rec)
				var busy sync.WaitGroup
				for range 2 {
					busy.Go(func() {
						for range 20 {
							rec.send(c.AppendFrame(nil, false, mine))
							c.Kick()
						}
					})
				}
				rec.wait(1 + i%5)
				c.abort(ErrClosed)
				busy.Wait()
				c.Close()
				c.Kick()
				c.CloseWith(CloseNormal, "")
			}
		})
	}
	wg.Wait()
	stop()
}

// TestEpollStall has a peer that never reads: others must not notice, memory must
// stay in bounds, and the limit must drop it.
func TestEpollStall(t *testing.T) {
	for _, dials := range []bool{false, true} {
		r := polled(dials)
		bystander, _ := r.open(t, Config{}, echo)
		var offered atomic.Int64
		rec := newRecorder()
		_, c := r.openUnstarted(t, Config{WriteTimeout: 300 * time.Millisecond}, nil)
		frame := c.AppendFrame(nil, false, make([]byte, 64<<10))
		rec.onCollect = func() { // there is always more
			offered.Add(int64(len(frame)))
			rec.send(frame)
		}
		c.Start(rec)
		for c.Err() == nil {
			c.Kick()
			bystander.writeFrame(text, "x")
			bystander.wantFrame("the poller serves others", text, "x")
		}
		if err := ended(t, c); !errors.Is(err, ErrWriteStall) {
			t.Errorf("Err() = %v, want ErrWriteStall", err)
		}
		if got := offered.Load(); got > 64<<20 {
			t.Errorf("%d bytes were collected for a peer that does not read", got)
		}
	}
}

// TestHalfCloseWhileBlocked sends a close frame and the end of the stream to a
// side that has far more to say than the socket holds: all of it must come, and the
// answer to the close.
func TestHalfCloseWhileBlocked(t *testing.T) {
	for _, d := range socketDrivers() {
		for _, dials := range []bool{false, true} {
			rec := newRecorder()
			tc, c := role{d, dials}.open(t, Config{CloseTimeout: patience}, func(*Conn) Handler { return rec })
			const messages = 300
			payload := strings.Repeat("m", 64<<10)
			for range messages {
				rec.send(c.AppendFrame(nil, false, []byte(payload)))
			}
			// More is offered after the closing began than it may be: this is all in out by then.
			c.Kick()
			tc.writeFrame(closing, code(1000, ""))
			tc.closeWrite()
			for range messages {
				tc.wantFrame("everything comes", asBinary, payload)
			}
			tc.wantClose(1000, "and the answer")
			tc.wantEOF("then the end")
			wantCloseError(t, c, 1000, true, true)
		}
	}
}

// TestEpollForeignUser runs a server of netpoll's own beside ours.
func TestEpollForeignUser(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	loop, err := netpoll.NewEventLoop(func(_ context.Context, conn netpoll.Connection) error {
		b, err := conn.Reader().Next(conn.Reader().Len())
		if err == nil {
			_, err = conn.Write(b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	served.Go(func() { loop.Serve(ln) })
	t.Cleanup(func() { loop.Shutdown(context.Background()); served.Wait() })
	foreign := func() {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		nc.SetDeadline(time.Now().Add(patience))
		b := make([]byte, 5)
		if _, err := nc.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(nc, b); err != nil || string(b) != "hello" {
			t.Fatalf("foreign echo = %q, %v", b, err)
		}
	}
	foreign()
	for range 20 {
		tc, c := polled(false).open(t, Config{}, echo)
		tc.writeFrame(text, "x")
		tc.wantFrame("echo", text, "x")
		foreign()
		c.Close()
		foreign()
	}
}

// TestEpollIdle checks that a connection with nothing unfinished holds no buffer.
func TestEpollIdle(t *testing.T) {
	tc, c := polled(false).open(t, Config{}, echo)
	tc.write(tc.frame(text, "half")[:3])
	for !c.partial.Load() {
		runtime.Gosched()
	}
	tc.write(tc.frame(text, "half")[3:])
	tc.wantFrame("echo", text, "half")
	onPoller(c, func() {
		if c.inBuf.b != nil {
			t.Error("an idle connection holds a read buffer")
		}
	})
}

// onPoller runs f where the connection's methods run, and waits for it.
func onPoller(c *Conn, f func()) {
	done := make(chan struct{})
	c.mu.Lock()
	op := c.sock.op
	old := op.OnWrite
	c.mu.Unlock()
	op.OnWrite = func(poller) error { // nothing else asks for it meanwhile
		op.OnWrite = old
		_ = op.Control(pollNoWrite)
		f()
		close(done)
		return nil
	}
	_ = op.Control(pollAddWrite)
	<-done
}

// TestEpollHandshake covers what the contract does not: times, limits and halves
// on the poller.
func TestEpollHandshake(t *testing.T) {
	p := listenEpoll(t)
	s := NewServer(Config{Driver: p.driver, HandshakeTimeout: 200 * time.Millisecond, MaxHeaderBytes: 5000, MaxRequestLine: 4000, CloseTimeout: 300 * time.Millisecond},
		func(c *Conn) { c.Start(NewEcho(c)) })
	t.Cleanup(p.serve(s, p.ln))
	open := func() *conversation {
		nc, err := p.dial()
		if err != nil {
			t.Fatal(err)
		}
		return newConversation(t, nc, true)
	}
	stream := append([]byte(goodRequest), testFrame(true, text, []byte("behind"))...)
	tc := open()
	for _, b := range stream {
		tc.write([]byte{b})
	}
	tc.wantUpgrade()
	tc.wantFrame("byte by byte", text, "behind")

	tc = open()
	tc.write(stream)
	tc.closeWrite()
	tc.wantUpgrade()
	tc.wantGone("all at once with the end of the stream")

	big := request(get, "X: "+strings.Repeat("y", 3000))
	tc = open()
	tc.write([]byte(big))
	tc.wantUpgrade()
	tc = open()
	tc.write([]byte(big))
	tc.closeWrite()
	tc.wantUpgrade()
	testHandshake(t, p, "head past the limit", request(get, "X: "+strings.Repeat("y", 6000)), 431, true)
	testHandshake(t, p, "head past the limit, body behind", request(get, "X: "+strings.Repeat("y", 6000))+strings.Repeat("z", 60<<10), 431, true)
	testHandshake(t, p, "line past the limit", request("GET /"+strings.Repeat("x", 4100)+" HTTP/1.1"), 414, true)

	for _, sent := range []string{"", goodRequest[:50]} {
		tc = open()
		start := time.Now()
		tc.write([]byte(sent))
		io.Copy(io.Discard, tc.wantStatus("too slow", http.StatusRequestTimeout).Body)
		if d := time.Since(start); d < 150*time.Millisecond {
			t.Errorf("timed out after %v", d)
		}
		tc.wantEOF("half-close")
		tc.wantGone("the client ignores the answer")
	}

	tc = open() // gives up
	tc.write([]byte(goodRequest[:50]))
	tc.closeWrite()
	tc.wantEOF("half a request")
	tc = open()
	tc.write([]byte(goodRequest[:50]))
	tc.nc.(*net.TCPConn).SetLinger(0)
	tc.nc.Close()
	for {
		s.mu.Lock()
		left := len(s.sockets)
		s.mu.Unlock()
		if left == 0 {
			break
		}
		runtime.Gosched()
	}
}

// TestEpollSlowloris checks that half a handshake costs no goroutine.
func TestEpollSlowloris(t *testing.T) {
	const clients = 300
	p := listenEpoll(t)
	s := NewServer(Config{Driver: p.driver}, func(c *Conn) { c.Start(NewEcho(c)) })
	stop := p.serve(s, p.ln)
	probe, err := p.dial()
	if err != nil {
		t.Fatal(err)
	}
	tc := newConversation(t, probe, true)
	tc.write([]byte(goodRequest))
	tc.wantUpgrade()
	before := runtime.NumGoroutine()
	for range clients {
		nc, err := p.dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		nc.Write([]byte(goodRequest[:100]))
	}
	for {
		s.mu.Lock()
		n := len(s.sockets)
		s.mu.Unlock()
		if n == clients {
			break
		}
		runtime.Gosched()
	}
	tc.writeFrame(text, "x")
	tc.wantFrame("the poller has seen them", text, "x")
	if got := runtime.NumGoroutine(); got > before+clients/10 {
		t.Errorf("%d half-open handshakes cost %d goroutines", clients, got-before)
	}
	stop() // Close ends them without delay
}

func TestEpollUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	conns := make(chan *Conn, 1)
	s := NewServer(Config{Driver: DriverEpoll}, func(c *Conn) { c.Start(NewEcho(c)); conns <- c })
	t.Cleanup(serveEngine(s, ln))
	nc, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	tc := newConversation(t, nc, true)
	tc.write([]byte(goodRequest))
	tc.wantUpgrade()
	big := strings.Repeat("x", 3<<20)
	go tc.write(tc.frame(asBinary, big))
	tc.wantFrame("echo", asBinary, big)
	c := <-conns
	if c.Driver() != DriverEpoll || c.LocalAddr().String() != path || c.LocalAddr().Network() != "unix" {
		t.Errorf("Driver() = %v, LocalAddr() = %v", c.Driver(), c.LocalAddr())
	}
	tc.nc.Close()
	ended(t, c)
}

// TestDriverChoice checks who carries a connection.
func TestDriverChoice(t *testing.T) {
	for _, tt := range []struct {
		listen func(testing.TB) *place
		ask    Driver
		server Driver
		client Driver
	}{
		{listenTCP, DriverAuto, DriverEpoll, DriverStd},
		{listenTCP, DriverStd, DriverStd, DriverStd},
		{listenTCP, DriverEpoll, DriverEpoll, DriverEpoll},
		{listenTLS, DriverEpoll, DriverStd, DriverStd},
		{listenHTTP, DriverEpoll, DriverStd, DriverEpoll},
		{listenMemory, DriverEpoll, DriverStd, DriverStd},
	} {
		p := tt.listen(t)
		conns := make(chan *Conn, 1)
		s := NewServer(Config{Driver: tt.ask, TLS: p.tls}, func(c *Conn) { c.Start(NewEcho(c)); conns <- c })
		stop := p.serve(s, p.ln)
		cfg := p.cfg
		cfg.Driver = tt.ask
		c, err := Dial(t.Context(), p.url, &cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := (<-conns).Driver(); got != tt.server || c.Driver() != tt.client {
			t.Errorf("%s, %v: drivers %v and %v, want %v and %v", p.url, tt.ask, got, c.Driver(), tt.server, tt.client)
		}
		c.Close()
		stop()
	}
	for _, d := range []Driver{DriverAuto, DriverStd, DriverEpoll} {
		if got, err := ParseDriver(d.String()); got != d || err != nil {
			t.Errorf("ParseDriver(%q) = %v, %v", d, got, err)
		}
	}
	if _, err := ParseDriver("kqueue"); err == nil || Driver(9).String() != "Driver(9)" {
		t.Error("an unknown driver passes")
	}
}

// TestPollersNotFound checks that another layout of netpoll's types is an error,
// and nothing worse.
func TestPollersNotFound(t *testing.T) {
	type noField struct{}
	type otherType struct {
		operator *noField //nolint:unused // found by its name
	}
	type noPoll struct{ operator *operator }
	for _, conn := range []any{nil, 1, "", noField{}, &noField{}, (*noField)(nil), &otherType{}, &noPoll{}, &noPoll{operator: &operator{}}} {
		if p, err := pollerOf(conn); err == nil || p != nil {
			t.Errorf("pollerOf(%T) = %v, want an error", conn, p)
		}
	}
}

// TestEpollReset checks that what the socket says is reported.
func TestEpollReset(t *testing.T) {
	for _, d := range socketDrivers() {
		tc, c := role{d, false}.open(t, Config{}, echo)
		tc.nc.(*net.TCPConn).SetLinger(0)
		tc.nc.Close()
		if err := ended(t, c); !errors.Is(err, ErrLost) || !isReset(err) {
			t.Errorf("%s: Err() = %v, want ErrLost and a reset", d.name, err)
		}
	}
}

// TestEpollAbortResets checks that a peer which waits to send is told: unread
// bytes must stay unread.
func TestEpollAbortResets(t *testing.T) {
	for range 20 {
		tc, c := polled(false).open(t, Config{}, func(*Conn) Handler { return newRecorder() })
		sent := make(chan struct{})
		go func() {
			defer close(sent)
			frame := tc.frame(asBinary, strings.Repeat("x", 60<<10))
			for {
				if _, err := tc.nc.Write(frame); err != nil {
					return
				}
			}
		}()
		for c.Stats().BytesIn < 1<<20 {
			runtime.Gosched()
		}
		c.Close()
		<-sent
	}
}

// TestEpollTurns checks that a connection with endless input and one with
// endless output leave room for a third on the same poller.
func TestEpollTurns(t *testing.T) {
	onePoller(t)
	quiet, _ := polled(false).open(t, Config{}, echo)
	in, _ := polled(false).open(t, Config{}, func(*Conn) Handler { return idleHandler{} })
	rec := newRecorder()
	out, cOut := polled(false).openUnstarted(t, Config{}, nil)
	frame := cOut.AppendFrame(nil, false, make([]byte, 60<<10))
	rec.onCollect = func() { rec.send(frame, frame, frame) }
	cOut.Start(rec)
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(io.Discard, out.nc) })
	wg.Go(func() {
		f := in.frame(asBinary, strings.Repeat("x", 60<<10))
		for {
			if _, err := in.nc.Write(f); err != nil {
				return
			}
		}
	})
	for i := range 200 {
		m := binary.BigEndian.AppendUint32(nil, uint32(i))
		quiet.writeFrame(asBinary, string(m))
		quiet.wantFrame("a turn", asBinary, string(m))
	}
	in.nc.Close()
	out.nc.Close()
	wg.Wait()
}
