package netron_test

import (
	"context"
	"errors"
	"flag"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/internal/memlink"
	"github.com/d-e-v-grid/netron/mux"
)

// memoryPair joins two nodes inside a synctest bubble and returns both ends of
// their link.
func memoryPair(t *testing.T, server netron.Config) (p *netron.Peer, near, far *memlink.Conn) {
	t.Helper()
	ln := &capture{Listener: memlink.Listen("server"), c: make(chan *memlink.Conn, 1)}
	sn, cn := newNode(t, server), newNode(t, netron.Config{})
	if err := demo.Expose(sn); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := sn.ServeListener(ctx, ln); err != nil && !errors.Is(err, netron.ErrClosed) {
			t.Errorf("ServeListener = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	p, err := cn.Dial(t.Context(), "server:1", netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := ln.Dial(ctx, network, addr)
		near, _ = c.(*memlink.Conn)
		return c, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	return p, near, <-ln.c
}

// capture keeps the first connection that its listener accepts.
type capture struct {
	*memlink.Listener
	c chan *memlink.Conn
}

func (l *capture) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if m, ok := c.(*memlink.Conn); ok {
		select {
		case l.c <- m:
		default:
		}
	}
	return c, err
}

// TestSilentPeerIsNoticed checks that a half-open connection ends in bounded
// time, and its calls with it.
func TestSilentPeerIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// The server does not look for itself: on this link its end would tell ours.
		p, near, far := memoryPair(t, netron.Config{PingInterval: -1, PingTimeout: -1})
		stub, err := p.Service(t.Context(), "calculator")
		if err != nil {
			t.Fatal(err)
		}
		near.Stall()
		far.Stall()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err = stub.Call(ctx, "add", nil, 1, 2)
		if netron.CodeOf(err) != netron.Unavailable || !errors.Is(err, engine.ErrPeerDead) {
			t.Errorf("Call = %v, want unavailable because the peer is silent", err)
		}
		if d := time.Since(start); d > 85*time.Second {
			t.Errorf("noticed after %v, want at most a ping interval and a ping timeout", d)
		}
	})
}

// TestQuietConnectionLives checks that a connection without calls is kept alive
// by pings.
func TestQuietConnectionLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, _, _ := memoryPair(t, netron.Config{})
		time.Sleep(24 * time.Hour)
		var sum float64
		if err := p.RunTask(t.Context(), "sum", &sum, 1, 2); err != nil || sum != 3 {
			t.Errorf("sum after a day = %v, %v, want 3", sum, err)
		}
	})
}

// TestCutFailsCallsAtOnce checks that no call waits for its time limit when the
// connection breaks.
func TestCutFailsCallsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, near, _ := memoryPair(t, netron.Config{})
		stub, err := p.Service(t.Context(), "calculator")
		if err != nil {
			t.Fatal(err)
		}
		futures := make([]*netron.Future, 100)
		for i := range futures {
			futures[i] = stub.Go(t.Context(), "sleep", nil, 60_000)
		}
		synctest.Wait()
		start := time.Now()
		near.Cut()
		for _, f := range futures {
			err := f.Wait(t.Context())
			if lost, ok := errors.AsType[*mux.LostError](err); netron.CodeOf(err) != netron.Unavailable || !ok || !lost.Sent {
				t.Fatalf("Wait = %v, want unavailable with a request that was sent", err)
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("failed after %v, want at once", d)
		}
	})
}

// TestHandlersEndWithTheirConnection checks that the context of a handler ends
// when its caller has gone.
func TestHandlersEndWithTheirConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, near, _ := memoryPair(t, netron.Config{})
		stub, err := p.Service(t.Context(), "calculator")
		if err != nil {
			t.Fatal(err)
		}
		f := stub.Go(t.Context(), "sleep", nil, 3_600_000)
		synctest.Wait()
		near.Cut()
		if err := f.Wait(t.Context()); netron.CodeOf(err) != netron.Unavailable {
			t.Errorf("Wait = %v, want unavailable", err)
		}
		// The bubble ends only when the sleeping handler has, which its own timer
		// would not allow for an hour.
	})
}

// TestSilentListener checks that dialling a listener that never says its id ends.
func TestSilentListener(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memlink.Listen("server")
		silent := engine.NewServer(engine.Config{}, func(c *engine.Conn) { c.Start(engine.NewEcho(c)) })
		var wg sync.WaitGroup
		wg.Go(func() { _ = silent.Serve(ln) })
		defer wg.Wait()
		defer silent.Close()
		n := newNode(t, netron.Config{ConnectTimeout: 3 * time.Second})
		start := time.Now()
		_, err := n.Dial(t.Context(), "server:1", netron.DialNet(ln.Dial))
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("Dial = %v after %v, want the time limit after 3s", err, time.Since(start))
		}
	})
}

// TestCloseEndsDials checks that a dial under way when its node is closed says so,
// whether the socket or the greeting was being waited for.
func TestCloseEndsDials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memlink.Listen("server")
		silent := engine.NewServer(engine.Config{}, func(c *engine.Conn) { c.Start(engine.NewEcho(c)) })
		var wg sync.WaitGroup
		wg.Go(func() { _ = silent.Serve(ln) })
		defer wg.Wait()
		defer silent.Close()
		never := func(ctx context.Context, _, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		for name, dial := range map[string]func(context.Context, string, string) (net.Conn, error){"no socket": never, "no greeting": ln.Dial} {
			n := newNode(t, netron.Config{})
			failed := make(chan error, 1)
			go func() {
				_, err := n.Dial(t.Context(), "server:1", netron.DialNet(dial))
				failed <- err
			}()
			synctest.Wait()
			if err := n.Close(); err != nil {
				t.Errorf("%s: Close = %v", name, err)
			}
			if err := <-failed; !errors.Is(err, netron.ErrClosed) || errors.Is(err, context.Canceled) {
				t.Errorf("%s: Dial = %v, want ErrClosed", name, err)
			}
		}
	})
}

// TestConnectorThatMakesNoSense checks how a listener ends a connection whose
// first message is text and no client-id.
func TestConnectorThatMakesNoSense(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := memlink.Listen("server")
		n := newNode(t, netron.Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = n.ServeListener(ctx, ln) })
		defer wg.Wait()
		defer cancel()
		c, err := engine.Dial(t.Context(), "server:1", &engine.DialConfig{NetDial: ln.Dial})
		if err != nil {
			t.Fatal(err)
		}
		c.Start(engine.NewEcho(c)) // which sends the id frame back
		<-c.Done()
		if closed, ok := errors.AsType[*engine.CloseError](c.Err()); !ok || closed.Code != engine.CloseProtocolError {
			t.Errorf("the connection ended with %v, want close code 1002", c.Err())
		}
	})
}

var endings = flag.Int("endings", 100, "connections of each kind of ending in TestEndingsLeaveNothing")

// TestEndingsLeaveNothing ends many connections in every way and looks for what
// is left: goroutines, descriptors, peers.
func TestEndingsLeaveNothing(t *testing.T) {
	server, url := serve(t, netron.Config{})
	if err := server.AddTask("panic", func(context.Context) { panic("on purpose") }); err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(url, "ws://")
	client := newNode(t, netron.Config{CallTimeout: 20 * time.Millisecond})
	kinds := map[string]func(p *netron.Peer, nc net.Conn){
		"close":       func(p *netron.Peer, _ net.Conn) { _ = p.Close() },
		"server ends": func(p *netron.Peer, _ net.Conn) { _ = p.RunTask(t.Context(), "hangUp", nil) },
		"FIN":         func(_ *netron.Peer, nc net.Conn) { _ = nc.(*net.TCPConn).CloseWrite() },
		"RST": func(_ *netron.Peer, nc net.Conn) {
			_ = nc.(*net.TCPConn).SetLinger(0)
			_ = nc.Close()
		},
		"timeout and close": func(p *netron.Peer, _ net.Conn) {
			if stub, err := p.Service(t.Context(), "calculator"); err == nil {
				_ = stub.Call(context.Background(), "sleep", nil, 50)
			}
			_ = p.Close()
		},
		"panic in a handler": func(p *netron.Peer, _ net.Conn) {
			_ = p.RunTask(t.Context(), "panic", nil)
			_ = p.Close()
		},
		"garbage": func(_ *netron.Peer, nc net.Conn) { _, _ = nc.Write([]byte("\xff\xff\xff\xff\xff\xff\xff\xff")) },
	}
	if err := server.AddTask("hangUp", func(ctx context.Context) { netron.PeerFrom(ctx).CloseWith(1000, "bye") }); err != nil {
		t.Fatal(err)
	}
	end := func(kind func(*netron.Peer, net.Conn)) {
		var nc net.Conn
		p, err := client.Dial(t.Context(), addr, netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
			var err error
			nc, err = new(net.Dialer).DialContext(ctx, network, addr)
			return nc, err
		}))
		if err != nil {
			t.Fatal(err)
		}
		kind(p, nc)
		<-p.Done()
	}
	end(kinds["close"]) // what is made once
	goroutines, fds := runtime.NumGoroutine(), descriptors()
	for name, kind := range kinds {
		for range *endings {
			end(kind)
		}
		if n := server.Peers(); len(n) > 3 {
			waitFor(t, name+": peers of the server", func() bool { return len(server.Peers()) == 0 })
		}
	}
	waitFor(t, "peers of the server", func() bool { return len(server.Peers()) == 0 })
	waitFor(t, "peers of the client", func() bool { return len(client.Peers()) == 0 })
	waitFor(t, "descriptors", func() bool { return descriptors() <= fds+3 })
	// The pool of workers keeps idle goroutines for a while; those of connections
	// are gone.
	waitFor(t, "goroutines", func() bool { return runtime.NumGoroutine() <= goroutines+20 })
}

// waitFor polls a condition that other goroutines bring about soon.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(15 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Errorf("%s: something is left (%d goroutines, %d descriptors)", what, runtime.NumGoroutine(), descriptors())
			return
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
}

// descriptors returns how many file descriptors the process has, 0 where that
// cannot be told.
func descriptors() int {
	entries, err := os.ReadDir("/proc/" + strconv.Itoa(os.Getpid()) + "/fd")
	if err != nil {
		return 0
	}
	return len(entries)
}
