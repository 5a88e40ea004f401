package netrontest

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/memlink"
)

// Network is a network in memory. Hosts are names, addresses are "name:port", and
// between each two hosts there is a [Link], which has the faults. The zero value is
// an empty network without faults. All methods are safe for concurrent use.
//
// The methods for faults set them on every link, those included that are used later
// for the first time. A method of a single link then changes that one.
type Network struct {
	mu        sync.Mutex
	faults    faults               // of links that are made later; guarded by mu
	hosts     map[string]struct{}  // that have listened; guarded by mu
	listeners map[string]*listener // that are open, by address; guarded by mu
	links     map[[2]string]*Link  // by the sorted names of the hosts; guarded by mu
	unknown   int                  // dials to hosts that are not there; guarded by mu
	hub       *discover.Hub        // of nodes that find each other, nil without any; guarded by mu
}

// Listen returns a listener at an address, "name:port". The name becomes a host of
// the network. While another listener has the address it returns an error wrapping
// EADDRINUSE; when that is closed the address is free again.
//
// [Network.Start] listens by itself. Listen is for what is no node of this package,
// and for nodes that are served with [netron.Node.ServeListener].
func (n *Network) Listen(addr string) (net.Listener, error) { return n.listen(addr) }

func (n *Network) listen(addr string) (*listener, error) {
	name, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Err: err}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[addr] != nil {
		return nil, &net.OpError{Op: "listen", Net: "memory", Addr: n.listeners[addr].Addr(), Err: syscall.EADDRINUSE}
	}
	if n.hosts == nil {
		n.hosts, n.listeners = make(map[string]struct{}), make(map[string]*listener)
	}
	l := &listener{Listener: memlink.Listen(addr), network: n, addr: addr, accepting: make(chan struct{})}
	n.hosts[name] = struct{}{}
	n.listeners[addr] = l
	return l, nil
}

// Dialer returns a function that dials from a host to any address of the network.
// It has the form that [netron.DialNet] wants, and that of a
// DialContext. The name of the host is what [Network.Link] finds its connections by;
// nothing need listen there. [Node.Dial] has it built in.
//
// The function does not wait for the other side to accept. It returns an error
// wrapping ECONNREFUSED if nobody listens at the address or the link refuses, and a
// [net.DNSError] if no host of that name has ever listened. On a stalled link it
// succeeds, and then nothing arrives.
func (n *Network) Dialer(from string) func(ctx context.Context, network, addr string) (net.Conn, error) {
	return func(ctx context.Context, _, addr string) (net.Conn, error) { return n.dial(ctx, from, addr) }
}

func (n *Network) dial(ctx context.Context, from, addr string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	to := hostOf(addr)
	if _, known := n.hosts[to]; !known {
		n.unknown++
		return nil, &net.OpError{Op: "dial", Net: "memory", Err: &net.DNSError{Err: "no such host", Name: to, IsNotFound: true}}
	}
	link := n.linkLocked(from, to)
	link.dials++
	ln := n.listeners[addr]
	if ln == nil || link.faults.refused {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: memlink.AddrOf(addr), Err: syscall.ECONNREFUSED}
	}
	nc, err := ln.Dial(ctx, "memory", addr)
	if err != nil {
		return nil, err
	}
	link.addLocked(nc.(*memlink.Conn)) // what Dial of memlink returns
	return nc, nil
}

// Link returns the link between two hosts, in either order, which are named or given
// by an address. They need not listen yet.
func (n *Network) Link(a, b string) *Link {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.linkLocked(hostOf(a), hostOf(b))
}

// registry returns one in which the nodes of the network find each other.
func (n *Network) registry() (*discover.Registry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.hub == nil {
		n.hub = discover.NewHub()
	}
	return discover.NewMemory(n.hub, discover.Config{})
}

func (n *Network) linkLocked(a, b string) *Link {
	key := [2]string{min(a, b), max(a, b)}
	l := n.links[key]
	if l == nil {
		if n.links == nil {
			n.links = make(map[[2]string]*Link)
		}
		l = &Link{network: n, faults: n.faults}
		n.links[key] = l
	}
	return l
}

// Cut resets all connections of the network; see [Link.Cut].
func (n *Network) Cut() { n.change(nil, (*memlink.Conn).Cut) }

// Stall stalls all links; see [Link.Stall].
func (n *Network) Stall() { n.change(stall, (*memlink.Conn).Stall) }

// Resume ends the stall of all links; see [Link.Resume].
func (n *Network) Resume() { n.change(resume, (*memlink.Conn).Resume) }

// Delay delays all links; see [Link.Delay].
func (n *Network) Delay(d time.Duration) { n.change(delay(d)) }

// Throttle throttles all links; see [Link.Throttle].
func (n *Network) Throttle(bytesPerSecond int) { n.change(throttle(bytesPerSecond)) }

// Refuse makes all dials fail; see [Link.Refuse].
func (n *Network) Refuse() { n.change(refuse, nil) }

// Allow ends [Network.Refuse], and [Link.Refuse] on all links.
func (n *Network) Allow() { n.change(allow, nil) }

// Dials returns how many dials there were on the network, including those that
// failed.
func (n *Network) Dials() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	dials := n.unknown
	for _, l := range n.links {
		dials += l.dials
	}
	return dials
}

// Conns returns how many connections there are on the network; see [Link.Conns].
func (n *Network) Conns() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	conns := 0
	for _, l := range n.links {
		conns += l.connsLocked()
	}
	return conns
}

// change changes what holds for new links, and all links that there are.
func (n *Network) change(set func(*faults), apply func(*memlink.Conn)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if set != nil {
		set(&n.faults)
	}
	for _, l := range n.links {
		l.changeLocked(set, apply)
	}
}

// hostOf returns the name in an address, or all of what is no address.
func hostOf(addr string) string {
	if name, _, err := net.SplitHostPort(addr); err == nil {
		return name
	}
	return addr
}

// listener has an address of a network until it is closed.
type listener struct {
	*memlink.Listener
	network *Network
	addr    string

	once      sync.Once
	accepting chan struct{} // closed by the first Accept
}

// Accept hides nothing of a connection's faults: a dial holds mu until they are in
// place.
func (l *listener) Accept() (net.Conn, error) {
	l.once.Do(func() { close(l.accepting) })
	nc, err := l.Listener.Accept()
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	return nc, err
}

// Close frees the address.
func (l *listener) Close() error {
	l.network.mu.Lock()
	if l.network.listeners[l.addr] == l {
		delete(l.network.listeners, l.addr)
	}
	l.network.mu.Unlock()
	return l.Listener.Close()
}
