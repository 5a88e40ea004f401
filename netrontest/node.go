package netrontest

import (
	"context"
	"errors"
	"net"

	"github.com/d-e-v-grid/netron"
)

// TB is what the package needs of a test: [*testing.T], [*testing.B] and
// [*testing.F] have it. Fatalf must not return.
type TB interface {
	Helper()
	Cleanup(f func())
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Node is a node that serves at an address of a [Network]. It is a
// [netron.Node] in all but [Node.Dial], [Node.DialPool] and [Node.Addr].
type Node struct {
	*netron.Node

	t       TB
	network *Network
	name    string
	addr    string
	opts    []Option
	served  chan struct{} // closed when ServeListener has returned
}

// Start returns a new node that serves at an address, "name:port". Its id is the
// name, unless an option says otherwise. What goes wrong ends the test.
//
// The node is closed when the test ends, and a handler that does not end with its
// context then fails the test. It may be closed or shut down before.
func (n *Network) Start(t TB, addr string, opts ...Option) *Node {
	t.Helper()
	node := &Node{t: t, network: n, name: hostOf(addr), addr: addr, opts: opts, served: make(chan struct{})}
	cfg := netron.Config{ID: node.name}
	o := collect(opts)
	if o.discover {
		registry, err := n.registry()
		if err != nil {
			t.Fatalf("netrontest: start %s: %v", addr, err)
		}
		cfg.Discovery.Registry = registry
		cfg.Discovery.Dial = []netron.DialOption{netron.DialNet(n.Dialer(node.name))}
	}
	own := cfg.Discovery.Registry
	for _, configure := range o.configure {
		configure(&cfg)
	}
	if own != nil && cfg.Discovery.Registry != own { // the node will not close it
		_ = own.Close(context.Background())
	}
	inner, err := netron.New(cfg)
	if err != nil {
		if r := cfg.Discovery.Registry; r != nil {
			_ = r.Close(context.Background()) // has no node
		}
		t.Fatalf("netrontest: start %s: %v", addr, err)
	}
	node.Node = inner
	for _, prepare := range o.prepare {
		if err == nil {
			err = prepare(inner)
		}
	}
	var ln *listener
	if err == nil {
		ln, err = n.listen(addr)
	}
	if err != nil {
		_ = inner.Close() // the test has its reason to fail
		t.Fatalf("netrontest: start %s: %v", addr, err)
	}
	go node.serve(ln)
	t.Cleanup(node.stop)
	<-ln.accepting // from now on Close frees the address
	return node
}

// serve runs until the node is closed; stop waits for it.
func (n *Node) serve(ln net.Listener) {
	defer close(n.served)
	if err := n.ServeListener(context.Background(), ln); !errors.Is(err, netron.ErrClosed) {
		n.t.Errorf("netrontest: %s: %v", n.addr, err)
	}
}

// stop closes the node and waits for its goroutines.
func (n *Node) stop() {
	n.t.Helper()
	if err := n.Close(); err != nil {
		n.t.Errorf("netrontest: close %s: %v", n.addr, err)
	}
	<-n.served
}

// Name returns the name of the node's host, for [Network.Link].
func (n *Node) Name() string { return n.name }

// Addr returns the address of the node in its network, also when it is closed.
func (n *Node) Addr() string { return n.addr }

// Dial is [netron.Node.Dial] over the network of the node: url is an address there,
// or a ws:// or wss:// URL with one.
func (n *Node) Dial(ctx context.Context, url string, opts ...netron.DialOption) (*netron.Peer, error) {
	return n.Node.Dial(ctx, url, append([]netron.DialOption{n.DialNet()}, opts...)...)
}

// DialPool is [netron.Node.DialPool] over the network of the node, as Dial is.
func (n *Node) DialPool(ctx context.Context, url string, conns int, opts ...netron.DialOption) (*netron.Pool, error) {
	return n.Node.DialPool(ctx, url, conns, append([]netron.DialOption{n.DialNet()}, opts...)...)
}

// DialNet returns the option by which [netron.Node.Dial] dials over the network of
// the node, for tested code that dials on its own.
func (n *Node) DialNet() netron.DialOption { return netron.DialNet(n.network.Dialer(n.name)) }

// Restart closes the node, unless it is closed already, and starts another one at
// its address, with the same options. Connections are cut off without a word, as when
// a process is killed; for an orderly end call Shutdown before. What was exposed
// other than by [Prepare] is gone, and the old node stays closed.
func (n *Node) Restart() *Node {
	n.t.Helper()
	n.stop()
	return n.network.Start(n.t, n.addr, n.opts...)
}
