package netron_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/pubsub"
)

// proxy passes connections on, in writes of its own: each is a segment, unless the kernel
// joins it with others. Loss, duplicates and reordering are what TCP itself mends.
type proxy struct {
	t    *testing.T
	to   string
	next func() (size int, delay time.Duration) // of a write, and before it
	ln   net.Listener
	wg   sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn // guarded by mu
	closed bool       // guarded by mu
}

func newProxy(t *testing.T, to string, next func() (int, time.Duration)) *proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, to: to, next: next, ln: ln}
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) accept() {
	for {
		near, err := p.ln.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", p.to)
		if err != nil {
			p.t.Error(err)
			near.Close()
			continue
		}
		if !p.keep(near, far) {
			return
		}
		p.wg.Go(func() { p.forward(near, far) })
		p.wg.Go(func() { p.forward(far, near) })
	}
}

// keep remembers connections for the end, or closes them if that has come.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
	if p.closed {
		for _, c := range conns {
			c.Close()
		}
	}
	return !p.closed
}

// forward passes on what it reads in pieces until one side closes.
func (p *proxy) forward(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	b := make([]byte, 64<<10)
	for {
		n, err := from.Read(b)
		for piece := b[:n]; len(piece) > 0; {
			size, delay := p.next()
			if delay > 0 {
				time.Sleep(delay)
			}
			size = min(size, len(piece))
			if _, err := to.Write(piece[:size]); err != nil {
				return
			}
			piece = piece[size:]
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) close() {
	p.ln.Close()
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// TestSegments checks that it makes no difference how TCP cuts the bytes up: calls of
// sizes around the limits of WebSocket lengths, several at a time, and events in order.
func TestSegments(t *testing.T) {
	small := []int{0, 1, 125, 126, 127, 1000}
	large := slices.Concat(small, []int{65_535, 65_536, 200 << 10})
	for _, tt := range []struct {
		name  string
		sizes []int
		next  func() (int, time.Duration)
	}{
		{"of one byte", small, func() (int, time.Duration) { return 1, 0 }},
		{"of few bytes", small, func() (int, time.Duration) { return 1 + rand.N(20), 0 }},
		{"of any size with pauses", large, func() (size int, delay time.Duration) {
			if rand.N(10) == 0 {
				delay = rand.N(500 * time.Microsecond)
			}
			return 1 + rand.N(16<<10), delay
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			forEachDriver(t, func(t *testing.T, listener netron.Config, dialDriver netron.DialOption) {
				node, url := serve(t, listener)
				p := newProxy(t, strings.TrimPrefix(url, "ws://"), tt.next)
				peer := dial(t, p.ln.Addr().String(), dialDriver)
				echoAll(t, peer, tt.sizes)
				eventsInOrder(t, node, peer, tt.sizes)
			})
		})
	}
}

// echoAll has several goroutines at once send each size and get it back.
func echoAll(t *testing.T, peer *netron.Peer, sizes []int) {
	t.Helper()
	client, err := netron.Query[demo.Client](t.Context(), peer, "calculator@1.0.0")
	if err != nil {
		t.Error(err)
		return
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for _, size := range sizes {
				want := filled(size, g)
				got, err := client.Echo(t.Context(), want)
				if b, isBytes := got.([]byte); err != nil || !isBytes || !bytes.Equal(b, want) {
					t.Errorf("goroutine %d: Echo of %d bytes = %T, %v, want the same", g, size, got, err)
				}
			}
		})
	}
	wg.Wait()
}

// eventsInOrder emits events of all sizes, while calls are answered as well.
func eventsInOrder(t *testing.T, node *netron.Node, peer *netron.Peer, sizes []int) {
	t.Helper()
	n := 5 * len(sizes)
	var got []int // written by the handler until it has closed all
	all := make(chan struct{})
	_, err := peer.Subscribe(t.Context(), "sized", func(_ context.Context, e pubsub.Event) (any, error) {
		var number int
		var b []byte
		if err := e.Decode(&number, &b); err != nil || !bytes.Equal(b, filled(sizes[len(got)%len(sizes)], number)) {
			t.Errorf("event %d is number %d with %d bytes, %v", len(got), number, len(b), err)
		}
		if got = append(got, number); len(got) == n {
			close(all)
		}
		return nil, nil
	}, netron.SubscribeInline())
	if err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	calls.Go(func() { echoAll(t, peer, sizes) })
	defer calls.Wait()
	for i := range n {
		if _, err := node.Bus().EmitParallel(t.Context(), "sized", i, filled(sizes[i%len(sizes)], i)); err != nil {
			t.Errorf("emit %d: %v", i, err)
		}
	}
	select {
	case <-all:
		if !slices.Equal(got, fromTo(0, n)) {
			t.Errorf("events %v, want them in their order", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("not all events have come")
	}
}

// filled returns bytes that depend on a number.
func filled(size, number int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(i*7 + number)
	}
	return b
}
