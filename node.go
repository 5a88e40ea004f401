package netron

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

// ErrClosed is returned for work with a node that has been shut down.
var ErrClosed = errors.New("netron: node closed")

var errServing = errors.New("netron: the node is serving already")

// Headers of an upgrade request (protocol section 2.2).
const (
	headerID      = "X-Netron-Id"
	headerVersion = "X-Netron-Version"
	queryID       = "id"

	protocolVersion = "1"
)

// Node exposes services, accepts connections and dials others. It is made by
// [New], which opens no connection. All methods are safe for concurrent use.
type Node struct {
	cfg       Config
	endpoint  *rpc.Endpoint
	server    *engine.Server
	guard     *auth.Guard     // nil without Config.Auth
	discovery *discovery      // nil without Config.Discovery
	ctx       context.Context //nolint:containedctx // the documented lifetime of the node, which all handlers run under
	cancel    context.CancelCauseFunc

	mu       sync.Mutex
	listener net.Listener                  // of Config.Addr; guarded by mu
	serving  bool                          // Serve was called; guarded by mu
	dialled  map[*engine.Conn]struct{}     // guarded by mu
	closing  bool                          // guarded by mu
	ending   bool                          // somebody is in Close; guarded by mu
	atEnd    []func(context.Context) error // of OnShutdown; guarded by mu
	wg       sync.WaitGroup                // dials under way, and what Start started
	ended    chan struct{}                 // closed when the node has ended
}

// New returns a node without services or connections. It checks the
// configuration and opens nothing, but begins to follow Config.Discovery. Shut the node
// down when it is no longer needed: [Node.Serve] does so when its context ends.
func New(cfg Config) (*Node, error) {
	if cfg.ID == "" {
		cfg.ID = uuid.NewString()
	}
	if len(cfg.ID) > maxIDBytes {
		return nil, fmt.Errorf("netron: id of %d bytes, limit %d", len(cfg.ID), maxIDBytes)
	}
	if cfg.Path != "" && !strings.HasPrefix(cfg.Path, "/") {
		return nil, fmt.Errorf("netron: path %q does not begin with a slash", cfg.Path)
	}
	n := &Node{cfg: cfg, dialled: make(map[*engine.Conn]struct{}), ended: make(chan struct{})}
	ctx, cancel := context.WithCancelCause(context.WithValue(context.Background(), nodeKey{}, n))
	rpcConfig := cfg.rpc(ctx)
	if cfg.Auth != nil {
		authConfig := *cfg.Auth
		if authConfig.Logger == nil {
			authConfig.Logger = cfg.logger()
		}
		guard, err := auth.New(authConfig)
		if err != nil {
			cancel(err)
			return nil, fmt.Errorf("netron: %w", err)
		}
		guard.Install(&rpcConfig)
		n.guard = guard
	}
	n.ctx, n.cancel = ctx, cancel
	if cfg.Discovery.isOn() {
		rpcConfig.ServicesChanged = func() { n.discovery.changed() }
	}
	var err error
	if n.endpoint, err = rpc.NewEndpoint(rpcConfig); err != nil {
		cancel(err)
		return nil, fmt.Errorf("netron: %w", err)
	}
	if n.discovery, err = newDiscovery(n); err != nil {
		cancel(err)
		_ = n.endpoint.Close() // it has done nothing yet
		return nil, fmt.Errorf("netron: %w", err)
	}
	n.server = engine.NewServer(cfg.engine(), n.accept)
	return n, nil
}

// ID returns the id that peers see.
func (n *Node) ID() string { return n.cfg.ID }

// Expose makes the exported methods of a Go value whose first parameter is a
// context callable by all peers, under "name@version" or a name alone. Add of the
// value is add for its callers, URLFor is urlFor. Every signature is checked now;
// see [rpc.NewServiceOf].
func (n *Node) Expose(qualified string, value any, opts ...ExposeOption) error {
	return n.endpoint.Expose(qualified, value, opts...)
}

// ExposeService makes a service built with [NewService] callable by all peers.
func (n *Node) ExposeService(s *Service) error { return n.endpoint.ExposeService(s) }

// Conceal ends the exposure of a service. See [rpc.Endpoint.Conceal].
func (n *Node) Conceal(qualified string) error { return n.endpoint.Conceal(qualified) }

// AddTask offers a function, whose first parameter is a context, to all peers
// under a name. The options [Overwrite] and [TaskLimit] say what happens when the name
// is taken and how long the task may take; see [rpc.Endpoint.AddTask].
func (n *Node) AddTask(name string, fn any, opts ...TaskOption) error {
	return n.endpoint.AddTask(name, fn, opts...)
}

// RemoveTask takes a task back; see [rpc.Endpoint.RemoveTask].
func (n *Node) RemoveTask(name string) error { return n.endpoint.RemoveTask(name) }

// Use adds middleware for all requests of peers. See [rpc.Endpoint.Use].
func (n *Node) Use(m ...Middleware) { n.endpoint.Use(m...) }

// UseOutgoing adds middleware for all that the node asks of peers. See
// [rpc.Endpoint.UseOutgoing].
func (n *Node) UseOutgoing(m ...Middleware) { n.endpoint.UseOutgoing(m...) }

// Bus returns the node's bus: events that are emitted there reach its handlers, and the
// peers that have subscribed to them. It is closed with the node.
func (n *Node) Bus() *pubsub.Bus { return n.endpoint.Bus() }

// Broadcast sends an event to all connected peers, whether they have subscribed to it or
// not. See [rpc.Endpoint.Broadcast].
func (n *Node) Broadcast(ctx context.Context, name string, args ...any) error {
	return n.endpoint.Broadcast(ctx, name, args...)
}

// Services returns the qualified names of the exposed services, sorted.
func (n *Node) Services() []string { return n.endpoint.Services() }

// Local returns a peer that stands for the node itself: calls to it take the same
// path as any other, without a socket.
func (n *Node) Local() *Peer { return n.endpoint.Local() }

// Peers returns the connected peers, accepted and dialled, in no order.
func (n *Node) Peers() []*Peer { return n.endpoint.Peers() }

// Peer returns the connected peer that claims an id, or nil. Of several the one
// that has claimed it for the longest time has it. Ids are not authenticated.
func (n *Node) Peer(id string) *Peer { return n.endpoint.Peer(id) }

// Listen binds Config.Addr, so that [Node.Addr] is known before [Node.Serve]
// runs. Serve calls it by itself.
func (n *Node) Listen() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closing:
		return ErrClosed
	case n.listener != nil:
		return nil
	case n.cfg.Addr == "":
		return errors.New("netron: listen: Config.Addr is empty")
	}
	ln, err := net.Listen("tcp", n.cfg.Addr)
	if err != nil {
		return fmt.Errorf("netron: listen: %w", err)
	}
	n.listener = ln
	return nil
}

// Addr returns the address that [Node.Listen] or [Node.Serve] bound, as
// "host:port", or "" while there is none.
func (n *Node) Addr() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listener == nil {
		return ""
	}
	return n.listener.Addr().String()
}

// Serve listens on Config.Addr and serves until ctx ends. Then it stops
// accepting, sends peers elsewhere, lets running requests finish within
// Config.DrainTimeout, ends all connections of the node, dialled ones included, and
// returns nil. If the node is shut down by other means it returns [ErrClosed]. It may be
// called once, and not after [Node.Start];
// [Node.ServeListener] may be called for further listeners.
func (n *Node) Serve(ctx context.Context) error {
	if err := n.Listen(); err != nil {
		return err
	}
	n.mu.Lock()
	ln, again := n.listener, n.serving
	n.serving = true
	n.mu.Unlock()
	if again {
		return errServing
	}
	err := n.ServeListener(ctx, ln)
	if err != nil && !errors.Is(err, ErrClosed) {
		n.mu.Lock()
		n.listener, n.serving = nil, false // the listener is broken; another may be tried
		n.mu.Unlock()
	}
	return err
}

// Start is [Node.Serve] in the background: it returns when connections are accepted, and
// serves until [Node.Shutdown] or [Node.Close], one of which the caller calls in the end. A
// listener that breaks later is logged.
func (n *Node) Start() error {
	if err := n.Listen(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closing:
		return ErrClosed
	case n.serving:
		return errServing
	}
	ln := n.listener
	if n.discovery != nil {
		if err := n.discovery.join(ln.Addr().String()); err != nil {
			return fmt.Errorf("netron: start: %w", err)
		}
	}
	n.serving = true
	n.wg.Go(func() {
		if err := n.serve(ln); !errors.Is(err, engine.ErrServerClosed) {
			n.cfg.logger().Error("netron: the listener has failed", "err", err)
		}
	})
	return nil
}

// ServeListener is [Node.Serve] with a listener of the caller's choice, which it
// takes. With Config.TLS it speaks TLS over it.
func (n *Node) ServeListener(ctx context.Context, ln net.Listener) error {
	if n.discovery != nil {
		if err := n.discovery.join(ln.Addr().String()); err != nil {
			_ = ln.Close() // it was taken
			return fmt.Errorf("netron: serve: %w", err)
		}
	}
	failed := make(chan error, 1)
	go func() { failed <- n.serve(ln) }()
	select {
	case err := <-failed:
		if !errors.Is(err, engine.ErrServerClosed) {
			return fmt.Errorf("netron: serve: %w", err)
		}
		select {
		case <-n.ended: // so that a main which returns now cuts nothing off
			return ErrClosed
		case <-ctx.Done(): // after StopListening
			failed <- err
		}
	case <-ctx.Done():
	}
	drain := context.WithoutCancel(ctx)
	if d := n.cfg.drainTimeout(); d > 0 {
		var cancel context.CancelFunc
		drain, cancel = context.WithTimeout(drain, d)
		defer cancel()
	}
	if err := n.Shutdown(drain); err != nil {
		// Requests that outlast the time to drain are no failure of serving.
		n.cfg.logger().Warn("netron: requests were cut off at the end of Serve", "err", err)
	}
	if err := <-failed; !errors.Is(err, engine.ErrServerClosed) {
		return fmt.Errorf("netron: serve: %w", err)
	}
	return nil
}

// serve accepts connections, which is why others may find the node, until the listener fails or
// the node stops.
func (n *Node) serve(ln net.Listener) error {
	err := n.server.Serve(ln)
	if n.discovery != nil && !errors.Is(err, engine.ErrServerClosed) {
		n.discovery.part(ln.Addr().String())
	}
	return err
}

// Handler returns an [http.Handler] that upgrades requests of an existing HTTP
// server to connections of the node. The server should not limit the time of its
// handlers; [Node.Shutdown] ends the connections.
func (n *Node) Handler() http.Handler { return n.server }

// accept takes an upgraded connection. It must not block.
func (n *Node) accept(c *engine.Conn) {
	r := c.Request()
	hint := mux.Hint{QueryID: r.Query.Get(queryID), HeaderID: r.Header.Get(headerID), Netron: r.Header.Get(headerVersion) != ""}
	if hint.QueryID == "" {
		// TypeScript connectors append ?id= even to a URL that has a query.
		_, hint.QueryID, _ = strings.Cut(r.RawQuery, "?"+queryID+"=")
	}
	if n.guard != nil {
		if token, shown := auth.TokenOf(r.Header, r.Query); shown {
			n.acceptToken(c, hint, token)
			return
		}
	}
	n.begin(c, hint, nil)
}

// acceptToken asks who shows a token before anything is read from the connection, on
// a goroutine of its own, since accept must not block. Close waits for it.
func (n *Node) acceptToken(c *engine.Conn, hint mux.Hint, token string) {
	if n.beginDial() != nil {
		c.CloseWith(engine.CloseGoingAway, "shutting down")
		return
	}
	go func() {
		defer n.wg.Done()
		answered := false
		defer func() {
			if v := recover(); v != nil {
				n.cfg.logger().Error("netron: panic of an authenticator", "panic", v, "stack", string(debug.Stack()))
			}
			if !answered { // it has panicked, or ended its goroutine
				c.CloseWith(engine.CloseInternal, "internal error")
			}
		}()
		identity, code, reason := n.guard.Check(n.ctx, token)
		answered = true
		if identity == nil {
			c.CloseWith(code, reason)
			return
		}
		n.begin(c, hint, identity)
	}()
}

// begin makes a peer of a connection and starts it.
func (n *Node) begin(c *engine.Conn, hint mux.Hint, identity *auth.Identity) {
	p := n.endpoint.NewPeer(false)
	if identity != nil {
		p.SetUser(identity)
	}
	s := n.endpoint.Bind(p, c, hint)
	c.Start(s)
	s.Begin()
	if n.guard != nil && identity == nil {
		n.guard.Watch(p)
	}
}

// Shutdown takes the node out of Config.Discovery, stops accepting, asks peers to connect elsewhere and serves them while they
// do, see Config.DrainWindow. Then it refuses new requests, waits until the running ones
// have been answered or ctx ends, calls the functions of [Node.OnShutdown], and ends
// all connections of the node with close code 1001. It returns an error that wraps
// ctx.Err() if requests were cut off. Of several calls the one whose ctx ends first
// decides. It must not be called from a handler, nor from a callback of [Stub.CallFunc] or of
// [discover.Registry.On].
func (n *Node) Shutdown(ctx context.Context) error {
	n.leave(ctx)
	n.stop()
	err, farewell := n.endpoint.Drain(ctx), rpc.CloseDrained
	if err != nil {
		farewell = "shutting down"
	}
	err = errors.Join(err, n.runAtEnd(ctx))
	if n.discovery != nil {
		n.discovery.closeClients() // so that none sees a peer that was lost
	}
	// One handler that does not end in time is no reason to leave all peers without
	// the close code.
	if late := n.sayGoodbye(ctx, farewell); err == nil {
		err = late
	}
	return errors.Join(err, n.Close())
}

// leave has others hear that the node goes, before it turns them away.
func (n *Node) leave(ctx context.Context) {
	if n.discovery == nil {
		return
	}
	t := time.NewTimer(leavePatience)
	defer t.Stop()
	select {
	case <-n.discovery.leave():
	case <-t.C:
	case <-ctx.Done():
	}
}

// stop refuses new connections, both ways.
func (n *Node) stop() {
	n.mu.Lock()
	n.closing = true
	n.mu.Unlock()
	n.endpoint.StopReconnecting()
	n.StopListening()
}

// sayGoodbye closes all connections in an orderly way and waits for their ends.
func (n *Node) sayGoodbye(ctx context.Context, reason string) error {
	conns := n.conns()
	for _, c := range conns {
		c.CloseWith(engine.CloseGoingAway, reason)
	}
	for _, c := range conns {
		select {
		case <-c.Done():
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// conns returns all connections.
func (n *Node) conns() []*engine.Conn {
	conns := n.server.Conns()
	n.mu.Lock()
	defer n.mu.Unlock()
	for c := range n.dialled {
		conns = append(conns, c)
	}
	return conns
}

// Close ends the node now: connections are cut off, pending calls fail, and the
// contexts of handlers end. It returns when all goroutines of the node have
// ended, waiting at most 10 seconds for handlers that ignore their context. It
// must not be called from a handler, nor from a callback of [Stub.CallFunc] or of
// [discover.Registry.On], which would wait for itself. Further calls wait for the first one
// and return nil.
func (n *Node) Close() error {
	n.stop()
	n.mu.Lock()
	isFirst := !n.ending
	n.ending = true
	n.mu.Unlock()
	if !isFirst {
		<-n.ended
		return nil
	}
	n.cancel(ErrClosed)
	if n.discovery != nil {
		n.discovery.close()
	}
	_ = n.server.Close() // always nil
	n.wg.Wait()
	for _, c := range n.conns() {
		_ = c.Close() // always nil
	}
	err := n.endpoint.Close()
	close(n.ended)
	return err
}

// Done is closed when the node has ended.
func (n *Node) Done() <-chan struct{} { return n.ended }
