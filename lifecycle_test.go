package netron_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
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
	sn, cn := newNode(t, server), newNode(t, netron.Config{MaxReconnectAttempts: -1})
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

// endingKind ends a connection. A nil socket means that the dialler's driver has
// taken it over.
type endingKind func(ctx context.Context, p *netron.Peer, nc net.Conn)

// endingKinds are the ways in which a connection ends.
var endingKinds = map[string]endingKind{
	"close":       func(_ context.Context, p *netron.Peer, _ net.Conn) { _ = p.Close() },
	"server ends": func(ctx context.Context, p *netron.Peer, _ net.Conn) { _ = p.RunTask(ctx, "hangUp", nil) },
	"FIN":         func(_ context.Context, _ *netron.Peer, nc net.Conn) { _ = nc.(*net.TCPConn).CloseWrite() },
	"RST": func(_ context.Context, _ *netron.Peer, nc net.Conn) {
		_ = nc.(*net.TCPConn).SetLinger(0)
		_ = nc.Close()
	},
	"timeout and close": func(ctx context.Context, p *netron.Peer, _ net.Conn) {
		if stub, err := p.Service(ctx, "calculator"); err == nil {
			_ = stub.Call(ctx, "sleep", nil, 50)
		}
		_ = p.Close()
	},
	"panic in a handler": func(ctx context.Context, p *netron.Peer, _ net.Conn) {
		_ = p.RunTask(ctx, "panic", nil)
		_ = p.Close()
	},
	"garbage": func(_ context.Context, _ *netron.Peer, nc net.Conn) {
		_, _ = nc.Write([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"))
	},
}

// needsSocket says for which endings the test must have the socket for itself.
var needsSocket = map[string]bool{"FIN": true, "RST": true, "garbage": true}

// exposeEndings adds the tasks that the endings run.
func exposeEndings(t *testing.T, n *netron.Node) {
	t.Helper()
	for name, fn := range map[string]any{
		"panic":  func(context.Context) { panic("on purpose") },
		"hangUp": func(ctx context.Context) { netron.PeerFrom(ctx).CloseWith(1000, "bye") },
	} {
		if err := n.AddTask(name, fn); err != nil {
			t.Fatal(err)
		}
	}
}

// dialSocket dials and returns the socket as well.
func dialSocket(ctx context.Context, n *netron.Node, addr string) (p *netron.Peer, nc net.Conn, err error) {
	p, err = n.Dial(ctx, addr, netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
		var err error
		nc, err = new(net.Dialer).DialContext(ctx, network, addr)
		return nc, err
	}))
	return p, nc, err
}

// TestEndingsLeaveNothing ends many connections in every way and looks for what
// is left: goroutines, descriptors, peers.
func TestEndingsLeaveNothing(t *testing.T) {
	for _, driver := range []netron.Driver{netron.DriverStd, netron.DriverEpoll} {
		t.Run(driver.String(), func(t *testing.T) {
			server, url := serve(t, netron.Config{Driver: driver})
			exposeEndings(t, server)
			addr := strings.TrimPrefix(url, "ws://")
			client := newNode(t, netron.Config{CallTimeout: 20 * time.Millisecond, MaxReconnectAttempts: -1})
			end := func(kind endingKind) {
				p, nc, err := dialSocket(t.Context(), client, addr)
				if err != nil {
					t.Fatal(err)
				}
				kind(context.Background(), p, nc)
				<-p.Done()
			}
			end(endingKinds["close"]) // what is made once
			goroutines, fds := runtime.NumGoroutine(), descriptors()
			for name, kind := range endingKinds {
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
		})
	}
}

var soak = flag.Duration("soak", 2*time.Second, "how long TestSoak runs")

// TestSoak connects, calls and ends abruptly, on the epoll driver on both sides
// where the ending allows it, and looks at what the process holds on the way. Run it
// with -soak=10m -v.
func TestSoak(t *testing.T) {
	server, url := serve(t, netron.Config{Driver: netron.DriverEpoll})
	exposeEndings(t, server)
	addr := strings.TrimPrefix(url, "ws://")
	client := newNode(t, netron.Config{CallTimeout: 2 * time.Second, MaxReconnectAttempts: -1})
	names := slices.Sorted(maps.Keys(endingKinds))
	var ended, called atomic.Int64
	session := func(ctx context.Context, rng *rand.Rand) error {
		name := names[rng.IntN(len(names))]
		var p *netron.Peer
		var nc net.Conn
		var err error
		if needsSocket[name] {
			p, nc, err = dialSocket(ctx, client, addr)
		} else {
			p, err = client.Dial(ctx, addr, netron.DialDriver(netron.DriverEpoll))
		}
		if err != nil {
			return err
		}
		calc, err := netron.Query[demo.Client](ctx, p, demo.ServiceName)
		if err != nil {
			return err
		}
		for range rng.IntN(50) {
			if sum, err := calc.Add(ctx, 2, 3); sum != 5 || err != nil {
				return fmt.Errorf("Add(2, 3) = %v, %w", sum, err)
			}
			called.Add(1)
		}
		if size := rng.IntN(1 << 16); rng.IntN(4) == 0 {
			if b, err := calc.Echo(ctx, make([]byte, size)); err != nil || len(b.([]byte)) != size {
				return fmt.Errorf("echo of %d bytes: %w", size, err)
			}
		}
		for range rng.IntN(20) { // which the ending cuts off
			if stub, err := p.Service(ctx, "calculator"); err == nil {
				stub.Go(ctx, "add", nil, 1, 2)
			}
		}
		endingKinds[name](ctx, p, nc)
		<-p.Done()
		ended.Add(1)
		return nil
	}
	run := func(d time.Duration) {
		end := time.Now().Add(d)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				rng := rand.New(rand.NewPCG(rand.Uint64(), 0))
				for time.Now().Before(end) && !t.Failed() {
					if err := session(context.Background(), rng); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		waitFor(t, "peers", func() bool { return len(server.Peers()) == 0 && len(client.Peers()) == 0 })
	}
	look := func() (heap uint64, goroutines, fds int) {
		var mem runtime.MemStats
		runtime.GC()
		runtime.GC() // what pools held during the first
		runtime.ReadMemStats(&mem)
		goroutines, fds = runtime.NumGoroutine(), descriptors()
		t.Logf("%7d endings, %8d calls: heap %5.2f MB, from the system %5.1f MB, %d goroutines, %d descriptors",
			ended.Load(), called.Load(), float64(mem.HeapAlloc)/1e6, float64(mem.Sys-mem.HeapReleased)/1e6, goroutines, fds)
		return mem.HeapAlloc, goroutines, fds
	}
	run(*soak / 5)
	heap, goroutines, fds := look()
	for range 8 {
		run(*soak / 10)
		nowHeap, nowGoroutines, nowFDs := look()
		if nowHeap > heap+4<<20 || nowGoroutines > goroutines+100 || nowFDs > fds+3 {
			t.Errorf("heap %d, %d goroutines, %d descriptors; after the first fifth they were %d, %d, %d", nowHeap, nowGoroutines, nowFDs, heap, goroutines, fds)
		}
	}
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
