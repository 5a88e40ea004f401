package redistest

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is between clients and a server. It passes on what both say, answers as late as
// it is told, until it is cut or stalled. Its methods may be called at any time.
type Proxy struct {
	target string
	l      net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	links map[*link]struct{} // nil when the proxy has ended; guarded by mu
	delay time.Duration      // guarded by mu
	isCut bool               // guarded by mu
	flow  chan struct{}      // closed unless the proxy is stalled; guarded by mu
}

// link is a client that is connected.
type link struct {
	client, server net.Conn
	over           chan struct{} // closed by end
	once           sync.Once
}

func (k *link) end() {
	k.once.Do(func() {
		close(k.over)
		k.client.Close()
		k.server.Close()
	})
}

// StartProxy starts a proxy of the server with that address, and ends it with the test.
func StartProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{target: target, l: l, links: make(map[*link]struct{}), flow: make(chan struct{})}
	close(p.flow)
	p.wg.Go(p.accept)
	t.Cleanup(func() {
		l.Close()
		p.mu.Lock()
		for k := range p.links {
			k.end()
		}
		p.links = nil
		p.mu.Unlock()
		p.wg.Wait()
	})
	return p
}

// Addr returns host and port.
func (p *Proxy) Addr() string { return p.l.Addr().String() }

// URL returns the address as a URL.
func (p *Proxy) URL() string { return "redis://" + p.Addr() }

// Delay has what the server says from now on come so late.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut closes all connections, and new ones as soon as they are made.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = true
	for k := range p.links {
		k.end()
	}
}

// Stall holds back what both sides say. Connections stay, and may be made.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flows() {
		p.flow = make(chan struct{})
	}
}

// Mend ends what Cut and Stall began. What was held back is passed on.
func (p *Proxy) Mend() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isCut = false
	if !p.flows() {
		close(p.flow)
	}
}

// flows is called with the lock held.
func (p *Proxy) flows() bool {
	select {
	case <-p.flow:
		return true
	default:
		return false
	}
}

// accept takes connections until the listener is closed.
func (p *Proxy) accept() {
	for {
		client, err := p.l.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() { p.serve(client) })
	}
}

// serve connects a client with the server until one of them ends.
func (p *Proxy) serve(client net.Conn) {
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		client.Close()
		return
	}
	k := &link{client: client, server: server, over: make(chan struct{})}
	defer k.end()
	p.mu.Lock()
	mayBe := p.links != nil && !p.isCut
	if mayBe {
		p.links[k] = struct{}{}
	}
	p.mu.Unlock()
	if !mayBe {
		return
	}
	var wg sync.WaitGroup
	wg.Go(func() { p.pass(k, server, client, false) })
	wg.Go(func() { p.pass(k, client, server, true) })
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, k)
}

// parcel is what was read at once, and when to pass it on.
type parcel struct {
	data []byte
	at   time.Time
}

// pass copies from one side to the other until one of them has no more to say, which ends
// the link when the other has it.
func (p *Proxy) pass(k *link, to, from net.Conn, isLate bool) {
	parcels := make(chan parcel, 1024) // when it is full, the reader waits
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		defer k.end()
		for x := range parcels {
			if !p.wait(x.at, k.over) {
				return
			}
			if _, err := to.Write(x.data); err != nil {
				return
			}
		}
	})
	defer close(parcels)
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		at := time.Now()
		if isLate {
			p.mu.Lock()
			at = at.Add(p.delay)
			p.mu.Unlock()
		}
		select {
		case parcels <- parcel{buf[:n], at}:
		case <-k.over:
			return
		}
	}
}

// wait waits until a time has come and the proxy is not stalled. It returns false if the
// connection is over first.
func (p *Proxy) wait(at time.Time, over <-chan struct{}) bool {
	t := time.NewTimer(time.Until(at))
	defer t.Stop()
	select {
	case <-t.C:
	case <-over:
		return false
	}
	for {
		p.mu.Lock()
		flow, flows := p.flow, p.flows()
		p.mu.Unlock()
		if flows {
			return true
		}
		select {
		case <-flow:
		case <-over:
			return false
		}
	}
}
