package netron_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/internal/memlink"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/rpc"
)

// counter counts how often it was called, over all servers.
type counter struct {
	calls *atomic.Int64
}

func (c *counter) Add(_ context.Context, a, b float64) (float64, error) {
	c.calls.Add(1)
	return a + b, nil
}

func (c *counter) Slow(ctx context.Context, ms int) (bool, error) {
	c.calls.Add(1)
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// station is a place where servers come and go, in memory.
type station struct {
	t     *testing.T
	cfg   netron.Config
	calls atomic.Int64

	mu     sync.Mutex
	ln     *memlink.Listener
	near   *memlink.Conn // of the last connection
	dials  int
	server *netron.Node
	stop   func()
}

func newStation(t *testing.T, cfg netron.Config) *station {
	s := &station{t: t, cfg: cfg}
	s.up()
	t.Cleanup(s.down)
	return s
}

// up starts a server.
func (s *station) up() {
	n := newNode(s.t, s.cfg)
	if err := n.Expose("counter@1.0.0", &counter{&s.calls}); err != nil {
		s.t.Fatal(err)
	}
	ln := memlink.Listen("server")
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = n.ServeListener(ctx, ln) })
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ln, s.server = ln, n
	s.stop = func() {
		_ = n.Close()
		cancel()
		wg.Wait()
	}
}

// down ends the server and its connections, without a word.
func (s *station) down() {
	s.mu.Lock()
	stop := s.stop
	s.stop = nil
	s.mu.Unlock()
	if stop != nil {
		stop()
	}
}

func (s *station) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dials++
	if s.stop == nil {
		return nil, syscall.ECONNREFUSED
	}
	c, err := s.ln.Dial(ctx, network, addr)
	s.near, _ = c.(*memlink.Conn)
	return c, err
}

// cut breaks the last connection.
func (s *station) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.near.Cut()
}

func (s *station) dialled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dials
}

// connect returns a peer that reconnects, and a log of its states.
func (s *station) connect(cfg netron.Config, opts ...netron.DialOption) (*netron.Peer, *stateLog) {
	s.t.Helper()
	p, err := newNode(s.t, cfg).Dial(s.t.Context(), "server:1", append(opts, netron.DialNet(s.dial))...)
	if err != nil {
		s.t.Fatal(err)
	}
	log := &stateLog{}
	p.OnState(log.add)
	return p, log
}

type stateLog struct {
	mu     sync.Mutex
	events []netron.StateEvent
}

func (l *stateLog) add(e netron.StateEvent) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, e)
}

// String returns states and reasons, repeated ones once.
func (l *stateLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, e := range l.events {
		all = append(all, fmt.Sprintf("%v:%v", e.State, e.Reason))
	}
	return strings.Join(slices.Compact(all), " ")
}

type counterClient struct {
	Add  func(ctx context.Context, a, b float64) (float64, error)
	Slow func(ctx context.Context, ms int) (bool, error)
}

type addPair struct{ A, B float64 }

func TestReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, log := s.connect(netron.Config{})
		stub, err := p.Service(t.Context(), "counter")
		if err != nil {
			t.Fatal(err)
		}
		funcs, err := netron.Query[counterClient](t.Context(), p, "counter@1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		typed := rpc.Method[addPair, float64](stub, "add")
		later := rpc.MethodFunc[addPair, float64](stub, "add")
		check := func(when string) {
			t.Helper()
			var sum float64
			if err := stub.Call(t.Context(), "add", &sum, 1, 2); err != nil || sum != 3 {
				t.Errorf("%s: Call = %v, %v", when, sum, err)
			}
			if sum, err := funcs.Add(t.Context(), 1, 2); err != nil || sum != 3 {
				t.Errorf("%s: Add = %v, %v", when, sum, err)
			}
			if sum, err := typed(t.Context(), addPair{1, 2}); err != nil || sum != 3 {
				t.Errorf("%s: Method = %v, %v", when, sum, err)
			}
			c := make(chan error, 1)
			if err := later(t.Context(), addPair{1, 2}, func(_ context.Context, _ float64, err error) { c <- err }); err != nil {
				t.Errorf("%s: MethodFunc = %v", when, err)
			} else if err := <-c; err != nil {
				t.Errorf("%s: MethodFunc = %v", when, err)
			}
		}
		check("first")
		s.cut()
		time.Sleep(time.Second)
		check("after a cut")
		s.down()
		synctest.Wait()
		if p.State() != netron.StateReconnecting {
			t.Errorf("State = %v", p.State())
		}
		start := time.Now()
		err = stub.Call(t.Context(), "add", nil, 1, 2)
		if sent, known := netron.WasSent(err); netron.CodeOf(err) != netron.Unavailable || sent || !known || time.Since(start) != 0 || !strings.Contains(err.Error(), "reconnecting") {
			t.Errorf("Call without a connection = %v, sent %v", err, sent)
		}
		time.Sleep(20 * time.Second)
		s.up()
		p.Reconnect()
		time.Sleep(time.Second)
		check("after a restart") // definitions have other ids
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		const want = "reconnecting:lost connected:ready reconnecting:lost reconnecting:dial_failed connected:ready closed:closed"
		if got := log.String(); got != want {
			t.Errorf("states %s\nwant   %s", got, want)
		}
		select {
		case <-p.Done():
		default:
			t.Error("Done is open after Close")
		}
	})
}

// TestServiceGone checks that a stub says what it stands for is not there, and finds it
// when it is again.
func TestServiceGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{})
		funcs, err := netron.Query[counterClient](t.Context(), p, "counter")
		if err != nil {
			t.Fatal(err)
		}
		s.down()
		n := newNode(t, netron.Config{})
		ln := memlink.Listen("server")
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = n.ServeListener(ctx, ln) })
		defer wg.Wait()
		defer cancel()
		s.mu.Lock()
		s.ln, s.stop = ln, func() {}
		s.mu.Unlock()
		time.Sleep(10 * time.Second)
		_, err = funcs.Add(t.Context(), 1, 2)
		if sent, known := netron.WasSent(err); netron.CodeOf(err) != netron.NotFound || sent || !known {
			t.Errorf("Add = %v, sent %t, want not found without being sent", err, sent)
		}
		synctest.Wait() // it has been asked for again, in vain
		if err := n.Expose("counter", &counter{&s.calls}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		if _, err := funcs.Add(t.Context(), 1, 2); netron.CodeOf(err) != netron.NotFound {
			t.Errorf("Add = %v, want not found while it is being asked for", err)
		}
		synctest.Wait()
		if sum, err := funcs.Add(t.Context(), 1, 2); err != nil || sum != 3 {
			t.Errorf("Add = %v, %v", sum, err)
		}
	})
}

func TestReconnectFlapping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{})
		stub, err := p.Service(t.Context(), "counter")
		if err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(10 * time.Minute)
		for time.Now().Before(end) {
			if p.State() == netron.StateConnected {
				s.cut()
			}
			time.Sleep(time.Millisecond)
		}
		if n := s.dialled(); n > 120 {
			t.Errorf("%d dials within ten minutes, want the delay to grow", n)
		}
		time.Sleep(time.Minute)
		if err := stub.Call(t.Context(), "add", nil, 1, 2); err != nil {
			t.Errorf("Call = %v", err)
		}
	})
}

func TestReconnectHalfOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{PingInterval: -1, PingTimeout: -1})
		p, log := s.connect(netron.Config{PingInterval: time.Second, PingTimeout: 3 * time.Second})
		stub, err := p.Service(t.Context(), "counter")
		if err != nil {
			t.Fatal(err)
		}
		s.near.Stall()
		err = stub.Call(t.Context(), "add", nil, 1, 2)
		if sent, _ := netron.WasSent(err); !errors.Is(err, engine.ErrPeerDead) || !sent {
			t.Errorf("Call = %v", err)
		}
		time.Sleep(time.Second)
		if err := stub.Call(t.Context(), "add", nil, 1, 2); err != nil {
			t.Errorf("Call = %v", err)
		}
		if got := log.String(); got != "reconnecting:lost connected:ready" {
			t.Errorf("states %s", got)
		}
		s.near.Resume()
	})
}

func TestReconnectAttemptsExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, log := s.connect(netron.Config{MaxReconnectAttempts: 3})
		s.down()
		<-p.Done()
		if n := s.dialled(); n != 4 || !errors.Is(p.Err(), syscall.ECONNREFUSED) {
			t.Errorf("%d dials, Err %v, want one and three, and why the last failed", n, p.Err())
		}
		synctest.Wait()
		const want = "reconnecting:lost reconnecting:dial_failed closed:attempts_exhausted"
		if got := log.String(); got != want {
			t.Errorf("states %s\nwant   %s", got, want)
		}
		start := time.Now()
		if err := p.RunTask(netron.Idempotent(t.Context()), "x", nil); netron.CodeOf(err) != netron.Unavailable || time.Since(start) != 0 {
			t.Errorf("RunTask = %v", err)
		}
		_ = p.Close()
	})
}

// TestReconnectFlappingExhausted checks that connections which do not last use up the
// attempts, and that those which do give them back.
func TestReconnectFlappingExhausted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, log := s.connect(netron.Config{MaxReconnectAttempts: 3, MaxReconnectDelay: time.Second})
		lose := func(after time.Duration) {
			time.Sleep(after)
			s.cut()
			time.Sleep(time.Second)
			synctest.Wait()
		}
		for range 10 {
			lose(10 * time.Second)
		}
		for i := range 3 {
			if p.State() != netron.StateConnected {
				t.Fatalf("state %v after %d connections that did not last", p.State(), i)
			}
			lose(time.Second)
		}
		if n := s.dialled(); n != 13 || p.State() != netron.StateClosed {
			t.Errorf("%d dials, state %v, want the peer to be given up after 13", n, p.State())
		}
		if got := log.String(); !strings.HasSuffix(got, "connected:ready closed:attempts_exhausted") {
			t.Errorf("states %s", got)
		}
	})
}

// TestEndedConnectionsAreForgotten checks that a node does not keep the connections that
// it has dialled and that have ended.
func TestEndedConnectionsAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		n := newNode(t, netron.Config{})
		var peers []*netron.Peer
		for range 10 {
			p, err := n.Dial(t.Context(), "server:1", netron.DialNet(s.dial))
			if err != nil {
				t.Fatal(err)
			}
			peers = append(peers, p)
		}
		for _, p := range peers {
			_ = p.Close()
		}
		synctest.Wait()
		if n := reflect.ValueOf(n).Elem().FieldByName("dialled").Len(); n != 0 {
			t.Errorf("the node keeps %d connections that have ended", n)
		}
	})
}

func TestNoReconnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, log := s.connect(netron.Config{}, netron.DialReconnect(0, -1))
		s.cut()
		<-p.Done()
		synctest.Wait()
		if got := log.String(); got != "closed:lost" {
			t.Errorf("states %s", got)
		}
	})
}

func TestCloseWhileReconnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		for name, end := range map[string]func(*netron.Node, *netron.Peer){
			"peer":     func(_ *netron.Node, p *netron.Peer) { _ = p.Close() },
			"node":     func(n *netron.Node, _ *netron.Peer) { _ = n.Close() },
			"shutdown": func(n *netron.Node, _ *netron.Peer) { _ = n.Shutdown(context.Background()) },
		} {
			for _, hangs := range []bool{false, true} {
				if s.stop == nil {
					s.up()
				}
				var hang atomic.Bool
				n := newNode(t, netron.Config{})
				p, err := n.Dial(t.Context(), "server:1", netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
					if hang.Load() {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return s.dial(ctx, network, addr)
				}))
				if err != nil {
					t.Fatal(err)
				}
				hang.Store(hangs)
				s.down()
				time.Sleep(time.Second)
				synctest.Wait()
				if p.State() != netron.StateReconnecting {
					t.Fatalf("%s: State = %v", name, p.State())
				}
				start := time.Now()
				end(n, p)
				<-p.Done()
				if d := time.Since(start); d != 0 || p.State() != netron.StateClosed || !errors.Is(p.Err(), mux.ErrClosed) {
					t.Errorf("%s, hangs %v: closed after %v, %v, %v", name, hangs, d, p.State(), p.Err())
				}
			}
		}
	})
}

// TestClosedIsTold checks that the end of a node does not keep the end of its peers from
// those who want to know.
func TestClosedIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		s.down()
		for range 50 {
			s.up()
			n := newNode(t, netron.Config{})
			p, err := n.Dial(t.Context(), "server:1", netron.DialNet(s.dial))
			if err != nil {
				t.Fatal(err)
			}
			var log stateLog
			p.OnState(log.add)
			s.down()
			time.Sleep(time.Second)
			_ = n.Close()
			if got := log.String(); !strings.HasSuffix(got, " closed:closed") {
				t.Fatalf("states %s, want closed:closed at the end", got)
			}
		}
	})
}

// TestAcceptedPeersDoNotReconnect checks that the peer of a listener ends with its
// connection, and that a dialled one is known only while it has one.
func TestAcceptedPeersDoNotReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		n := newNode(t, netron.Config{ID: "client"})
		if _, err := n.Dial(t.Context(), "server:1", netron.DialNet(s.dial)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		accepted := s.server.Peer("client")
		if accepted.State() != netron.StateConnected || len(n.Peers()) != 1 {
			t.Fatalf("State = %v, %d peers", accepted.State(), len(n.Peers()))
		}
		s.cut()
		<-accepted.Done()
		synctest.Wait()
		if accepted.State() != netron.StateClosed || len(n.Peers()) != 0 {
			t.Errorf("State = %v, %d peers", accepted.State(), len(n.Peers()))
		}
		time.Sleep(time.Second)
		if again := s.server.Peer("client"); again == nil || again == accepted || len(n.Peers()) != 1 {
			t.Errorf("the client has not come back")
		}
	})
}

func TestDialAlso(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		n := newNode(t, netron.Config{})
		var asked []string
		var good atomic.Value
		good.Store("b:80")
		opts := []netron.DialOption{netron.DialAlso("b:80", "c:80"), netron.DialNet(func(ctx context.Context, network, addr string) (net.Conn, error) {
			asked = append(asked, addr)
			if addr != good.Load() {
				return nil, syscall.ECONNREFUSED
			}
			return s.dial(ctx, network, addr)
		})}
		p, err := n.Dial(t.Context(), "a:80", opts...)
		if err != nil {
			t.Fatal(err)
		}
		good.Store("a:80")
		s.cut()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := strings.Join(asked, " "); got != "a:80 b:80 c:80 a:80" || p.State() != netron.StateConnected {
			t.Errorf("asked %s, state %v", got, p.State())
		}
		good.Store("c:80")
		s.cut()
		time.Sleep(250 * time.Millisecond)
		synctest.Wait()
		if got := strings.Join(asked, " "); got != "a:80 b:80 c:80 a:80 b:80 c:80" || p.State() != netron.StateConnected {
			t.Errorf("asked %s, state %v, want no delay before the next address", got, p.State())
		}
		good.Store("none")
		_, err = n.Dial(t.Context(), "a:80", opts...)
		for _, addr := range []string{"a:80", "b:80", "c:80"} {
			if err == nil || !strings.Contains(err.Error(), "dial "+addr) {
				t.Errorf("Dial = %v, want the error of %s", err, addr)
			}
		}
	})
}

// TestIdempotentCalls checks which lost calls are made again.
func TestIdempotentCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{})
		funcs, err := netron.Query[counterClient](t.Context(), p, "counter")
		if err != nil {
			t.Fatal(err)
		}
		call := func(ctx context.Context) (bool, error) {
			var ok bool
			var err error
			done := make(chan struct{})
			go func() {
				ok, err = funcs.Slow(ctx, 1000)
				close(done)
			}()
			time.Sleep(500 * time.Millisecond)
			s.cut()
			<-done
			return ok, err
		}
		if _, err := call(t.Context()); netron.CodeOf(err) != netron.Unavailable || s.calls.Load() != 1 {
			t.Errorf("plain call = %v, served %d times, want once and lost", err, s.calls.Load())
		}
		time.Sleep(time.Minute)
		if _, err := call(netron.RetryUnsent(t.Context())); netron.CodeOf(err) != netron.Unavailable || s.calls.Load() != 2 {
			t.Errorf("call that was sent = %v, served %d times, want once more and lost", err, s.calls.Load())
		}
		time.Sleep(time.Minute)
		if ok, err := call(netron.Idempotent(t.Context())); !ok || err != nil || s.calls.Load() != 4 {
			t.Errorf("idempotent call = %v, %v, served %d times, want twice more", ok, err, s.calls.Load())
		}
		s.down()
		synctest.Wait() // a call before the loss is noticed may be sent
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		_, err = funcs.Add(netron.RetryUnsent(ctx), 1, 2)
		if sent, known := netron.WasSent(err); !errors.Is(err, context.DeadlineExceeded) || sent || !known || time.Since(start) != 3*time.Second {
			t.Errorf("Add without a server = %v, sent %v, after %v", err, sent, time.Since(start))
		}
		go func() {
			time.Sleep(time.Second)
			s.up()
			p.Reconnect()
		}()
		if sum, err := funcs.Add(netron.RetryUnsent(t.Context()), 1, 2); sum != 3 || err != nil {
			t.Errorf("Add = %v, %v, want it to wait for the server", sum, err)
		}
	})
}

// TestOfflineCalls checks how many calls wait for the connection.
func TestOfflineCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{OfflineCalls: 3, ReconnectDelay: time.Millisecond, MaxReconnectDelay: time.Second})
		funcs, err := netron.Query[counterClient](t.Context(), p, "counter")
		if err != nil {
			t.Fatal(err)
		}
		s.down()
		synctest.Wait()
		for range 2 { // the places are given back
			outcomes := make(chan error, 10)
			for range 10 {
				go func() {
					_, err := funcs.Add(t.Context(), 1, 2)
					outcomes <- err
				}()
			}
			synctest.Wait()
			if n := len(outcomes); n != 7 {
				t.Errorf("%d of 10 calls failed at once, want 7", n)
			}
			for range 7 {
				if err := <-outcomes; netron.CodeOf(err) != netron.Unavailable {
					t.Errorf("Add = %v, want unavailable", err)
				}
			}
			before := s.calls.Load()
			s.up()
			for range 3 {
				if err := <-outcomes; err != nil {
					t.Errorf("Add = %v, want it to have waited", err)
				}
			}
			if n := s.calls.Load() - before; n != 3 {
				t.Errorf("%d calls served, want 3", n)
			}
			s.down()
			synctest.Wait()
		}
	})
}

// TestStates checks the iterator, and that one who takes no events costs nothing more.
func TestStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{})
		release := make(chan struct{})
		var got []netron.StateEvent
		p.OnState(func(e netron.StateEvent) {
			<-release
			got = append(got, e)
		})
		var states []string
		var wg sync.WaitGroup
		wg.Go(func() {
			for e := range p.States(t.Context()) {
				states = append(states, e.State.String())
			}
		})
		synctest.Wait()
		for range 100 {
			s.cut()
			time.Sleep(time.Minute)
		}
		_ = p.Close()
		wg.Wait()
		if len(states) != 202 || states[0] != "connected" || states[201] != "closed" {
			t.Errorf("%d states, %v", len(states), states)
		}
		close(release)
		synctest.Wait()
		if n := len(got); n != 65 || got[n-1].State != netron.StateClosed {
			t.Errorf("%d events for one who was slow, want the first and the last 64", n)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for e := range p.States(ctx) {
			if e.State != netron.StateClosed {
				t.Errorf("state of a closed peer %v", e.State)
			}
		}
	})
}

// TestReconnectOverTheNetwork restarts a server on its port.
func TestReconnectOverTheNetwork(t *testing.T) {
	for _, driver := range []netron.Driver{netron.DriverStd, netron.DriverEpoll} {
		t.Run(driver.String(), func(t *testing.T) {
			cfg := netron.Config{Addr: "127.0.0.1:0", DrainWindow: 100 * time.Millisecond}
			first := start(t, cfg)
			p := dial(t, first.Addr(), netron.DialDriver(driver), netron.DialReconnect(20*time.Millisecond, 0))
			c := query(t, p)
			for range 3 {
				cfg.Addr = first.Addr()
				if err := first.Shutdown(t.Context()); err != nil {
					t.Fatal(err)
				}
				ln, err := net.Listen("tcp", cfg.Addr)
				if err != nil {
					t.Skip("the port was taken meanwhile:", err)
				}
				_ = ln.Close()
				first = start(t, cfg)
				if v, err := c.Add(netron.Idempotent(t.Context()), 1, 2); v != 3 || err != nil {
					t.Errorf("Add after a restart = %v, %v", v, err)
				}
			}
		})
	}
}

// TestGoAway checks that a peer which is asked to connect anew does so, while what is
// under way goes on.
func TestGoAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, log := s.connect(netron.Config{})
		funcs, err := netron.Query[counterClient](t.Context(), p, "counter")
		if err != nil {
			t.Fatal(err)
		}
		slow := make(chan error, 1)
		go func() {
			_, err := funcs.Slow(t.Context(), 4000)
			slow <- err
		}()
		synctest.Wait()
		first := s.server
		s.mu.Lock()
		stop := s.stop
		s.mu.Unlock()
		s.up() // where the next dial goes
		ended := make(chan error, 1)
		go func() { ended <- first.Shutdown(context.Background()) }()
		synctest.Wait()
		if sum, err := funcs.Add(t.Context(), 1, 2); sum != 3 || err != nil || p.State() != netron.StateDraining {
			t.Errorf("Add = %v, %v, state %v, want it to be served where the peer still is", sum, err, p.State())
		}
		time.Sleep(500 * time.Millisecond)
		synctest.Wait()
		if len(slow) != 0 || len(first.Peers()) != 1 || len(s.server.Peers()) != 1 {
			t.Errorf("%d peers of the first server, %d of the second", len(first.Peers()), len(s.server.Peers()))
		}
		if err := <-slow; err != nil {
			t.Errorf("Slow = %v, want it to finish where it began", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Shutdown = %v", err)
		}
		time.Sleep(time.Minute)
		if got := log.String(); got != "draining:going_away connected:ready" || log.events[0].Message != "shutdown" {
			t.Errorf("states %s, reason %q", got, log.events[0].Message)
		}
		if n := s.calls.Load(); n != 2 {
			t.Errorf("%d calls served, want 2", n)
		}
		stop()
	})
}

// TestGoAwayWindow checks when a peer connects anew, and that the connection it leaves
// is closed when nothing is under way.
func TestGoAwayWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		p, _ := s.connect(netron.Config{})
		synctest.Wait()
		accepted := s.server.Peers()[0]
		if !accepted.GoAway("balance", time.Minute) {
			t.Fatal("GoAway was not negotiated")
		}
		start := time.Now()
		for p.State() != netron.StateConnected || s.dialled() < 2 {
			if time.Since(start) > time.Minute {
				t.Fatalf("state %v after a minute", p.State())
			}
			if err := p.RunTask(t.Context(), "query_interface", nil, "counter"); err != nil {
				t.Fatalf("a call meanwhile = %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(3 * time.Second)
		<-accepted.Done()
		if n := len(s.server.Peers()); n != 1 {
			t.Errorf("%d peers of the server, want the new one", n)
		}
	})
}

// brokenConn is a connection whose writes, once it is broken, wait and then fail.
type brokenConn struct {
	net.Conn
	broken  atomic.Bool
	release chan struct{} // closed when they are to fail
}

func (c *brokenConn) Write(p []byte) (int, error) {
	if c.broken.Load() {
		<-c.release
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// TestNothingIsSentAfterAFailedWrite checks that requests which wait behind a write that
// fails are known not to have been sent.
func TestNothingIsSentAfterAFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStation(t, netron.Config{})
		c := &brokenConn{release: make(chan struct{})}
		p, err := newNode(t, netron.Config{MaxReconnectAttempts: -1}).Dial(t.Context(), "server:1", netron.DialNet(func(ctx context.Context, network, addr string) (_ net.Conn, err error) {
			c.Conn, err = s.dial(ctx, network, addr)
			return c, err
		}))
		if err != nil {
			t.Fatal(err)
		}
		stub, err := p.Service(t.Context(), "counter")
		if err != nil {
			t.Fatal(err)
		}
		c.broken.Store(true)
		first := stub.Go(t.Context(), "add", nil, 1, 2)
		synctest.Wait()
		second := stub.Go(t.Context(), "add", nil, 1, 2)
		synctest.Wait()
		close(c.release)
		if sent, known := netron.WasSent(first.Wait(t.Context())); !sent || !known {
			t.Errorf("the request being written: %v, sent %t", first.Wait(t.Context()), sent)
		}
		if sent, known := netron.WasSent(second.Wait(t.Context())); sent || !known {
			t.Errorf("the request behind it: %v, sent %t", second.Wait(t.Context()), sent)
		}
	})
}
