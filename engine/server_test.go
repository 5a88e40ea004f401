package engine

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestServerMaxConns(t *testing.T) {
	for _, d := range append(socketDrivers(), driver{name: "http", listen: listenHTTP}) {
		for name, cfg := range map[string]Config{"in all": {MaxConns: 2}, "per address": {MaxConnsPerAddr: 2}} {
			t.Run(d.name+"/"+name, func(t *testing.T) {
				p := d.listen(t)
				cfg.Driver = p.driver
				s := NewServer(cfg, func(c *Conn) { c.Start(NewEcho(c)) })
				t.Cleanup(p.serve(s, p.ln))
				dial := func(status int) *conversation {
					nc, err := p.dial()
					if err != nil {
						t.Fatal(err)
					}
					tc := newConversation(t, nc, true)
					tc.write([]byte(goodRequest))
					tc.wantStatus("within or past the limit", status)
					return tc
				}
				first := dial(101)
				dial(101)
				dial(503).nc.Close()
				dial(503).nc.Close()
				for s.ConnCount() < 2 { // the answer goes out before it counts
					runtime.Gosched()
				}
				if got := s.ConnCount(); got != 2 {
					t.Errorf("ConnCount() = %d, want 2", got)
				}
				// What is closed makes room.
				open := s.Conns()
				first.nc.Close()
				for range 2 {
					select {
					case <-open[0].Done():
					case <-open[1].Done():
					}
				}
				for s.ConnCount() == 2 {
					runtime.Gosched()
				}
				dial(101)
			})
		}
	}
}

// flakyListener fails a number of times before it accepts.
type flakyListener struct {
	net.Listener
	fails atomic.Int64
	err   error
}

func (l *flakyListener) Accept() (net.Conn, error) {
	if l.fails.Add(-1) >= 0 {
		return nil, l.err
	}
	return l.Listener.Accept()
}

func TestServeRetriesTemporaryErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		ln := &flakyListener{Listener: p.ln, err: &net.OpError{Op: "accept", Err: syscall.EMFILE}}
		ln.fails.Store(10)
		s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
		t.Cleanup(p.serve(s, ln))
		start := time.Now()
		nc, _ := p.dial()
		tc := newConversation(t, nc, true)
		tc.write([]byte(goodRequest))
		tc.wantUpgrade()
		// 5, 10, 20 ... 640 ms, then twice 1 s.
		wantElapsed(t, "accepted", start, 1275*time.Millisecond+2*time.Second)
	})
}

// TestServerStopsHandshakes checks that a client whose request is on its way when the
// server stops is told so, and can go elsewhere at once.
func TestServerStopsHandshakes(t *testing.T) {
	for _, d := range append(socketDrivers(), driver{name: "http", listen: listenHTTP}) {
		t.Run(d.name, func(t *testing.T) {
			p := d.listen(t)
			s := NewServer(Config{Driver: p.driver}, func(c *Conn) { c.Start(NewEcho(c)) })
			t.Cleanup(p.serve(s, p.ln))
			nc, err := p.dial()
			if err != nil {
				t.Fatal(err)
			}
			tc := newConversation(t, nc, true)
			tc.write([]byte(goodRequest[:20]))
			taken := func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return len(s.sockets) == 1
			}
			for d.name != "http" && !taken() {
				runtime.Gosched()
			}
			s.StopAccepting()
			tc.write([]byte(goodRequest[20:]))
			tc.wantStatus("after the server has stopped", 503)
		})
	}
}

func TestServeFails(t *testing.T) {
	broken := errors.New("broken")
	p := listenTCP(t)
	ln := &flakyListener{Listener: p.ln, err: broken}
	ln.fails.Store(1)
	s := NewServer(Config{}, func(*Conn) {})
	if err := s.Serve(ln); !errors.Is(err, broken) {
		t.Errorf("Serve = %v, want the error of Accept", err)
	}
	if _, err := net.Dial("tcp", p.ln.Addr().String()); err == nil {
		t.Error("listener still open after Serve has failed")
	}
	s.Close()
	if err := s.Serve(listenTCP(t).ln); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Close = %v, want ErrServerClosed", err)
	}
}

func TestServerStopAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
		served := make(chan error, 1)
		go func() { served <- s.Serve(p.ln) }()
		nc, _ := p.dial()
		tc := newConversation(t, nc, true)
		tc.write([]byte(goodRequest))
		tc.wantUpgrade()
		s.StopAccepting()
		s.StopAccepting()
		if err := <-served; !errors.Is(err, ErrServerClosed) {
			t.Errorf("Serve = %v, want ErrServerClosed", err)
		}
		if _, err := p.dial(); err == nil {
			t.Error("dial succeeded after StopAccepting")
		}
		waited := make(chan struct{})
		go func() { s.Wait(); close(waited) }()
		tc.writeFrame(text, "still served")
		tc.wantFrame("open connections go on", text, "still served")
		synctest.Wait()
		select {
		case <-waited:
			t.Error("Wait returned with a connection open")
		default:
		}
		for _, c := range s.Conns() {
			c.CloseWith(CloseGoingAway, "")
		}
		tc.wantClose(1001, "drain")
		tc.writeFrame(closing, code(1001, ""))
		tc.wantEOF("drain")
		nc.Close()
		<-waited
	})
}

// TestServerCloseDuringHandshake checks that Close waits for nobody.
func TestServerCloseDuringHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := listenMemory(t)
		s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
		stop := p.serve(s, p.ln)
		nc, _ := p.dial()
		nc.Write([]byte("GET / HT"))
		refused, _ := p.dial()
		refused.Write([]byte("POST / HTTP/1.1\r\n\r\n"))
		synctest.Wait()
		start := time.Now()
		stop()
		wantElapsed(t, "Close", start, 0)
	})
}

func TestAcceptPanics(t *testing.T) {
	for _, d := range socketDrivers() {
		p := d.listen(t)
		var calls atomic.Int64
		s := NewServer(Config{Driver: p.driver}, func(c *Conn) {
			if calls.Add(1) == 1 {
				panic("boom")
			}
			c.Start(NewEcho(c))
		})
		t.Cleanup(p.serve(s, p.ln))
		nc, _ := p.dial()
		tc := newConversation(t, nc, true)
		tc.write([]byte(goodRequest))
		tc.wantUpgrade()
		tc.wantGone("accept panicked")
		nc, _ = p.dial()
		tc = newConversation(t, nc, true)
		tc.write([]byte(goodRequest))
		tc.wantUpgrade()
		tc.writeFrame(text, "x")
		tc.wantFrame("the next connection", text, "x")
	}
}

// TestHTTPMount checks that other handlers and the engine share a listener.
func TestHTTPMount(t *testing.T) {
	p := listenTCP(t)
	s := NewServer(Config{}, func(c *Conn) { c.Start(NewEcho(c)) })
	mux := http.NewServeMux()
	mux.Handle("/ws", s)
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	hs := &http.Server{Handler: mux, ReadTimeout: 50 * time.Millisecond, WriteTimeout: 50 * time.Millisecond}
	var wg sync.WaitGroup
	wg.Go(func() { hs.Serve(p.ln) })
	t.Cleanup(func() { hs.Close(); s.Close(); wg.Wait() })
	resp, err := http.Get("http://" + p.ln.Addr().String() + "/hello")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if string(body) != "hello" {
		t.Errorf("GET /hello = %q, want hello", body)
	}
	c, err := Dial(t.Context(), p.url+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	rec := newRecorder()
	c.Start(rec)
	for i := range 3 {
		rec.send(c.AppendFrame(nil, true, []byte("x")))
		c.Kick()
		rec.wait(i + 1)
		<-time.After(40 * time.Millisecond) // past the deadlines that net/http had set
	}
	if err := c.Err(); err != nil {
		t.Errorf("Err() = %v, want deadlines of the http.Server lifted", err)
	}
	c.Close()
}

// TestUndeliveredLengths opens many connections that announce much and send
// little: memory must follow what has arrived.
func TestUndeliveredLengths(t *testing.T) {
	const conns, limit = 1000, 32 << 20
	for _, d := range socketDrivers() {
		t.Run(d.name, func(t *testing.T) { testUndeliveredLengths(t, d, conns, limit) })
	}
}

func testUndeliveredLengths(t *testing.T, d driver, conns, limit int) {
	p := d.listen(t)
	var ready sync.WaitGroup
	ready.Add(conns)
	s := NewServer(Config{Driver: p.driver}, func(c *Conn) { c.Start(NewEcho(c)); ready.Done() })
	t.Cleanup(p.serve(s, p.ln))
	announce := testFrame(true, asBinary, make([]byte, 16<<20))[:14+10]
	before := heap()
	for range conns {
		nc, err := p.dial()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { nc.Close() })
		if _, err := nc.Write(append([]byte(goodRequest), announce...)); err != nil {
			t.Fatal(err)
		}
	}
	ready.Wait()
	for _, c := range s.Conns() {
		for !c.partial.Load() {
			runtime.Gosched()
		}
	}
	if used := int64(heap()) - int64(before); used > int64(limit) {
		t.Errorf("%d connections that announce 16 MiB use %d bytes, want at most %d", conns, used, limit)
	}
}

func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// TestTCPWriteBlocks fills a TCP socket, so that the write role moves to a
// goroutine and back.
func TestTCPWriteBlocks(t *testing.T) {
	for _, r := range []role{{drivers()[0], false}, {drivers()[0], true}, {drivers()[1], false}, {drivers()[1], true}} {
		rec := newRecorder()
		tc, c := r.open(t, Config{}, func(*Conn) Handler { return rec })
		var want []string
		for range 3 {
			for range 40 { // far over what the socket holds, in all sizes
				m := strings.Repeat("m", rand.IntN(400<<10))
				want = append(want, m)
				var frames [][]byte
				frame := c.AppendFrame(nil, false, []byte(m))
				for len(frame) > 0 { // in pieces, empty ones too
					k := min(len(frame), rand.IntN(60<<10))
					frames = append(frames, frame[:k:k])
					frame = frame[k:]
				}
				rec.send(frames...)
				c.Kick()
			}
			for _, m := range want {
				tc.wantFrame("in order and whole", asBinary, m)
			}
			want = nil
		}
		c.CloseWith(CloseNormal, "")
		tc.wantClose(1000, "the write role is free again")
	}
}

// TestKickNeverLosesWork lets many goroutines queue and kick at once.
func TestKickNeverLosesWork(t *testing.T) {
	const senders, each = 8, 500
	for _, d := range drivers()[:3] {
		rec := newRecorder()
		tc, c := role{d, false}.open(t, Config{}, func(*Conn) Handler { return rec })
		var wg sync.WaitGroup
		for range senders {
			wg.Go(func() {
				for range each {
					rec.send(c.AppendFrame(nil, true, []byte("x")))
					c.Kick()
				}
			})
		}
		for range senders * each {
			tc.wantFrame("every message", text, "x")
		}
		wg.Wait()
	}
}

// TestCloseDuringEverything ends connections in all ways at all moments, and
// checks that each handler hears of it exactly once.
func TestCloseDuringEverything(t *testing.T) {
	for _, d := range socketDrivers() {
		t.Run(d.name, func(t *testing.T) { testCloseDuringEverything(t, d) })
	}
}

func testCloseDuringEverything(t *testing.T, d driver) {
	p := d.listen(t)
	cfg := DialConfig{Config: Config{Driver: p.driver}}
	var handlers []*recorder
	var mu sync.Mutex
	s := NewServer(cfg.Config, func(c *Conn) {
		rec := newRecorder()
		rec.onMessage = func(isText bool, m []byte) {
			rec.send(c.AppendFrame(nil, isText, m))
		}
		rec.onDone = c.Kick
		mu.Lock()
		handlers = append(handlers, rec)
		mu.Unlock()
		c.Start(rec)
	})
	stop := p.serve(s, p.ln)
	var wg sync.WaitGroup
	for i := range 60 {
		wg.Go(func() {
			c, err := Dial(t.Context(), p.url, &cfg)
			if err != nil {
				t.Error(err)
				return
			}
			rec := newRecorder()
			mu.Lock()
			handlers = append(handlers, rec)
			mu.Unlock()
			c.Start(rec)
			var busy sync.WaitGroup
			for range 2 {
				busy.Go(func() {
					for k := 1; c.Err() == nil; k++ {
						rec.send(c.AppendFrame(nil, false, make([]byte, rand.IntN(20_000))))
						c.Kick()
						rec.wait(k)
					}
				})
			}
			rec.wait(1 + i%10)
			switch i % 5 {
			case 0:
				c.Close()
			case 1:
				c.CloseWith(CloseNormal, "")
			case 2:
				c.abort(io.ErrClosedPipe)
			case 3:
				c.CloseWith(CloseNormal, "")
				c.Close()
			case 4:
				busy.Go(func() { c.Close() })
				busy.Go(func() { c.CloseWith(CloseGoingAway, "") })
				busy.Go(func() { c.Kick() })
			}
			ended(t, c)
			busy.Wait()
			c.Close()
		})
	}
	wg.Wait()
	stop()
	for _, rec := range handlers {
		if len(rec.closed) != 1 || rec.closed[0] == nil {
			t.Errorf("Closed got %v, want one error", rec.closed)
		}
	}
}

// TestServerCloseUnderLoad aborts a server with busy connections.
func TestServerCloseUnderLoad(t *testing.T) {
	for _, d := range drivers() {
		if d.virtual {
			continue
		}
		p := d.listen(t)
		s := NewServer(Config{TLS: p.tls, Driver: p.driver}, func(c *Conn) { c.Start(NewEcho(c)) })
		stop := p.serve(s, p.ln)
		var wg sync.WaitGroup
		frame := bytes.Repeat(testFrame(true, asBinary, make([]byte, 1000)), 100)
		for range 8 {
			nc, err := p.dial()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { nc.Close() })
			nc.Write([]byte(goodRequest))
			wg.Go(func() { io.Copy(io.Discard, nc) })
			wg.Go(func() {
				for {
					if _, err := nc.Write(frame); err != nil {
						return
					}
				}
			})
		}
		for s.ConnCount() < 8 {
			runtime.Gosched()
		}
		stop()
		wg.Wait()
		if got := s.ConnCount(); got != 0 {
			t.Errorf("ConnCount() = %d after Close, want 0", got)
		}
	}
}
