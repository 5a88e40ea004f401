package netron

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// DiscoveryConfig says how a node finds others, and is found by them. The zero value is no
// discovery.
//
// A node is found when it serves: [Node.Serve], [Node.ServeListener] and [Node.Start] make it
// known with the services that it exposes, whenever these change, until it stops listening.
// Redis need not be there: what is known stays known, and the node is made known when it is.
type DiscoveryConfig struct {
	// Redis says where the nodes are registered. Its zero value is the Redis of this
	// machine. Nil means no discovery, unless there is a Registry.
	Redis *discover.Config

	// Registry is used in place of Redis: one of [discover.NewMemory] for nodes of one
	// process and for tests, of [discover.NewStatic], or of [discover.New]. It is for this
	// node alone, which registers with it, and closes it in the end.
	Registry *discover.Registry

	// Advertise is the address under which others reach the node: "host:port" or "host",
	// which has the port of the listener, with wss:// before it if a proxy has the
	// certificate. Default is the address of the listener, and if that is of all interfaces
	// the first suitable one of this machine. A listener without host and port, as a Unix
	// socket, needs one that has a port.
	Advertise string

	// Hidden keeps the node from being found. One that does not listen is not found anyway.
	Hidden bool

	// Zone says where the node is, as it likes: clients of [Node.Find] ask nodes of their own
	// zone while one of them can be asked.
	Zone string

	// Weight is the share of the calls that the node gets, compared with that of others.
	// 0 counts as 1. At most 1,000,000.
	Weight int

	// Metadata is for whoever wants it. Names that begin with "netron." are taken.
	Metadata map[string]string

	// Dial is how the nodes are dialled that [Node.Find] has found: [DialToken], [DialTLS] and
	// so on.
	Dial []DialOption
}

func (c *DiscoveryConfig) isOn() bool { return c.Redis != nil || c.Registry != nil }

// FindOption changes how a [Client] calls its service.
type FindOption = func(*balance.Config)

// FindPolicy says how an instance is picked: [balance.LeastLoaded], which is the default,
// [balance.LowLatency], [balance.RoundRobin], [balance.Random] or [balance.ByKey].
func FindPolicy(p balance.Policy) FindOption {
	return func(c *balance.Config) { c.Policy = p }
}

// metadataPath is the URL path of a node that has one.
const metadataPath = "netron.path"

// Times for what the end of a node waits for.
const (
	leavePatience = 250 * time.Millisecond // before others are turned away
	closePatience = time.Second            // for Redis, at the end
)

// discovery is the part of a node that finds others.
type discovery struct {
	node *Node
	cfg  DiscoveryConfig
	reg  *discover.Registry

	mu      sync.Mutex
	known   bool                        // the node has been made known; guarded by mu
	self    string                      // the URL under which; guarded by mu
	listens []string                    // where it listens, the first is made known; guarded by mu
	left    chan struct{}               // closed when it is known no more, nil before it leaves; guarded by mu
	closed  bool                        // guarded by mu
	clients map[*finder]*balance.Client // guarded by mu
	conns   map[string]*sharedConn      // by URL; guarded by mu
	users   map[*Peer]*sharedConn       // of those that are connected; guarded by mu
}

// newDiscovery returns nil if the configuration wants none.
func newDiscovery(n *Node) (*discovery, error) {
	cfg := n.cfg.Discovery
	d := &discovery{
		node: n, cfg: cfg, reg: cfg.Registry,
		clients: make(map[*finder]*balance.Client), conns: make(map[string]*sharedConn), users: make(map[*Peer]*sharedConn),
	}
	switch {
	case !cfg.isOn():
		return nil, nil
	case cfg.Redis != nil && cfg.Registry != nil:
		return nil, Errorf(InvalidArgument, "Config.Discovery has both Redis and a Registry")
	case slices.ContainsFunc(cfg.Dial, func(o DialOption) bool { return o == nil }):
		return nil, Errorf(InvalidArgument, "an option of Config.Discovery.Dial is nil")
	case cfg.Registry != nil && isEnded(cfg.Registry):
		return nil, discover.ErrClosed
	case cfg.Redis != nil:
		redis := *cfg.Redis
		if redis.Logger == nil {
			redis.Logger = n.cfg.logger()
		}
		var err error
		if d.reg, err = discover.New(redis); err != nil {
			return nil, err
		}
	}
	err := d.check()
	if err != nil && cfg.Registry == nil {
		_ = d.reg.Close(n.ctx) // has no node
	}
	return d, err
}

// isEnded reports whether a registry is closed.
func isEnded(r *discover.Registry) bool {
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

// check returns what is wrong with the node that others are to find.
func (d *discovery) check() error {
	sample, err := d.describe("localhost:1")
	if err != nil {
		return err
	}
	return d.reg.Check(sample)
}

// describe returns the node as others are to find it.
func (d *discovery) describe(listen string) (n discover.Node, err error) {
	n = discover.Node{ID: d.node.cfg.ID, Zone: d.cfg.Zone, Weight: d.cfg.Weight, Metadata: maps.Clone(d.cfg.Metadata)}
	if d.node.cfg.TLS != nil {
		n.Scheme = "wss" // unless Advertise has another one
	}
	if path := d.node.cfg.Path; path != "" && path != "/" {
		if n.Metadata == nil {
			n.Metadata = make(map[string]string)
		}
		n.Metadata[metadataPath] = path
	}
	n.Address, err = discover.AdvertisedAddress(listen, d.cfg.Advertise)
	return n, err
}

// services returns what the node offers.
func (d *discovery) services() []discover.Service {
	names := d.node.endpoint.Services()
	services := make([]discover.Service, len(names))
	for i, name := range names {
		services[i] = discover.ParseService(name)
	}
	return services
}

// join makes the node known, which listens at an address, unless it is already, or leaves.
func (d *discovery) join(listen string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left != nil || d.cfg.Hidden {
		return nil
	}
	if !d.known {
		if err := d.register(listen); err != nil {
			return err
		}
	}
	d.listens = append(d.listens, listen) // for part
	return nil
}

// announce is join for an address at which the node does not listen itself.
func (d *discovery) announce(listen string) error {
	d.mu.Lock()
	isDone := d.known || d.left != nil
	d.mu.Unlock()
	if isDone {
		return nil
	}
	return d.join(listen)
}

// part is told that the node does not listen at an address any more, though it goes on. If it
// was known there it is known at another one, or no more.
func (d *discovery) part(listen string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.Index(d.listens, listen)
	if i < 0 || d.left != nil {
		return
	}
	d.listens = slices.Delete(d.listens, i, i+1)
	if i > 0 {
		return
	}
	for len(d.listens) > 0 {
		err := d.register(d.listens[0])
		if err == nil {
			return
		}
		d.node.cfg.logger().Error("netron: others do not find the node at a listener", "address", d.listens[0], "err", err)
		d.listens = d.listens[1:]
	}
	d.known = false
	// With the lock, so that whoever joins comes after it. This is rare, and short.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(d.node.ctx), leavePatience)
	defer cancel()
	d.deregister(ctx)
}

// register is join with the lock held.
func (d *discovery) register(listen string) error {
	self, err := d.describe(listen)
	if err != nil {
		return err
	}
	address := self.Address
	if !strings.Contains(address, "://") {
		address = cmp.Or(self.Scheme, "ws") + "://" + address
	}
	self.Services = d.services()
	if err := d.reg.RegisterLater(self); err != nil {
		return err
	}
	d.known, d.self = true, address+escaped(self.Metadata[metadataPath])
	return nil
}

// deregister takes the node out of the registry.
func (d *discovery) deregister(ctx context.Context) {
	if err := d.reg.Deregister(ctx); err != nil {
		d.node.cfg.logger().Warn("netron: the node could not be taken out of the registry, where it expires", "err", err)
	}
}

// changed is told when the services of the node have changed.
func (d *discovery) changed() {
	d.mu.Lock()
	known := d.known
	d.mu.Unlock()
	if !known {
		return // join will read them
	}
	err := d.reg.UpdateLater(func(n *discover.Node) { n.Services = d.services() })
	if CodeOf(err) == InvalidArgument {
		d.node.cfg.logger().Error("netron: others do not hear of a change of services", "err", err)
	}
}

// leave makes the node unknown, and returns what is closed then.
func (d *discovery) leave() <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.left != nil {
		return d.left
	}
	d.left = make(chan struct{})
	if !d.known {
		close(d.left)
		return d.left
	}
	go func() { // ends with the registry
		defer close(d.left)
		d.deregister(context.WithoutCancel(d.node.ctx))
	}()
	return d.left
}

// close ends the clients of [Node.Find] and the registry. It may be called again.
func (d *discovery) close() {
	left := d.leave()
	d.closeClients()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	select {
	case <-left:
	case <-ctx.Done():
	}
	if err := d.reg.Close(ctx); err != nil {
		d.node.cfg.logger().Warn("netron: the node could not be taken out of the registry, where it expires", "err", err)
	}
	<-left
}

func (d *discovery) closeClients() {
	d.mu.Lock()
	d.closed = true
	clients := slices.Collect(maps.Values(d.clients))
	d.mu.Unlock()
	for _, c := range clients {
		_ = c.Close() // always nil
	}
}

// Discovery returns the view of all nodes that Config.Discovery asks for, nil without it. It
// belongs to the node, which registers with it and closes it: ask it, change the own node by
// [discover.Registry.Update], and leave its other methods that write alone.
func (n *Node) Discovery() *discover.Registry {
	if n.discovery == nil {
		return nil
	}
	return n.discovery.reg
}

// Announce makes the node known under an address of Config.Discovery, as [Node.Serve] does by
// itself: for a node that is served by [Node.Handler] alone. Advertise must have a port, or
// listen is "host:port" of the HTTP server. A node is made known once. It does not wait for
// Redis: [discover.Registry.WaitReady] does.
//
// An error is of code [FailedPrecondition] without Config.Discovery, [InvalidArgument] for an
// address, or for services, that others could not use, or [ErrClosed].
func (n *Node) Announce(listen string) error {
	if n.discovery == nil {
		return errNoDiscovery("announce")
	}
	select {
	case <-n.ended:
		return ErrClosed
	default:
	}
	if err := n.discovery.announce(listen); err != nil {
		return fmt.Errorf("netron: announce: %w", err)
	}
	return nil
}

func errNoDiscovery(what string) error {
	return Errorf(FailedPrecondition, "netron: %s: Config.Discovery has neither Redis nor a Registry", what)
}

// Find returns a client of a service, wherever it is: "name", "name@1.2.3" or
// "name@range". Each of its calls goes to one of the nodes that offer the service, as
// Config.Discovery has them; one that nobody has served goes to another. It follows the nodes
// that come and go. Make one client for each service, and keep it; [QueryClient] returns the
// service as a struct of funcs.
//
//	client, err := node.Find("calculator@^1")
//	calculator, err := netron.QueryClient[Calculator](ctx, client)
//	sum, err := calculator.Add(ctx, 5, 3)
//
// Find connects to nothing, and need not wait for Redis: the first call does, within its
// time limit. Clients of a node share their connections. If the node is found with the
// service itself, it is one of the instances, and is called without a connection. The client
// ends with the node, or by [Client.Close].
//
// An option is a function that changes the configuration of the client, whose ID, zone and
// times are those of the node. Which nodes there are and how they are dialled it cannot
// change: [balance.New] makes clients of other kinds.
//
// An error is of code [FailedPrecondition] without Config.Discovery, [InvalidArgument] for a
// name or a configuration that makes no sense, or [ErrClosed].
func (n *Node) Find(service string, opts ...FindOption) (*Client, error) {
	if n.discovery == nil {
		return nil, errNoDiscovery("find " + service)
	}
	if err := discover.CheckQuery(service); err != nil {
		return nil, fmt.Errorf("netron: find: %w", err)
	}
	return n.discovery.find(service, opts)
}

func (d *discovery) find(service string, opts []FindOption) (*Client, error) {
	f := &finder{discovery: d}
	cfg := balance.Config{
		ID: d.node.cfg.ID, Zone: d.cfg.Zone, Logger: d.node.cfg.logger(),
		DialDelay: max(d.node.cfg.ReconnectDelay, 0), MaxDialDelay: max(d.node.cfg.MaxReconnectDelay, 0),
		MaxWait: timeout(d.node.cfg.CallTimeout, defaultCallTimeout),
	}
	for _, opt := range opts {
		opt(&cfg)
	}
	cfg.Dial, cfg.Release, cfg.Resolver = d.acquire, d.release, f // which belong together
	client, err := balance.New(service, cfg)
	if err != nil {
		return nil, fmt.Errorf("netron: find %s: %w", service, err)
	}
	d.mu.Lock()
	closed := d.closed
	if !closed {
		d.clients[f] = client
	}
	d.mu.Unlock()
	if closed {
		_ = client.Close() // always nil
		return nil, ErrClosed
	}
	return client, nil
}

// finder tells one client which nodes there are: a [balance.Learner].
type finder struct {
	discovery *discovery
}

// Ready implements [balance.Learner]. A registry that was closed learns nothing more.
func (f *finder) Ready() bool {
	select {
	case <-f.discovery.reg.Ready():
		return true
	default:
		return isEnded(f.discovery.reg)
	}
}

// Err implements [balance.Learner]. Who has the id of this node says nothing of the others.
func (f *finder) Err() error {
	if err := f.discovery.reg.Err(); !errors.Is(err, discover.ErrTaken) {
		return err
	}
	return nil
}

// Resolve implements [balance.Resolver].
func (f *finder) Resolve(service string) []balance.Instance {
	nodes := f.discovery.reg.Lookup(service)
	instances := make([]balance.Instance, len(nodes))
	for i, n := range nodes {
		instances[i] = balance.Instance{
			ID: n.ID, Address: urlOf(n), Zone: n.Zone, Weight: n.Weight, Suspect: n.Suspect, Metadata: n.Metadata,
		}
	}
	return instances
}

// urlOf returns what to dial.
func urlOf(n *discover.Node) string {
	address := n.URL()
	if path := n.Metadata[metadataPath]; strings.HasPrefix(path, "/") {
		address += escaped(path)
	}
	return address
}

// escaped returns a path as it stands in a URL.
func escaped(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// Watch implements [balance.Resolver]. The client calls stop when it is closed.
func (f *finder) Watch(service string, changed func()) (stop func()) {
	reg := f.discovery.reg
	last := reg.Lookup(service)
	stopEvents := reg.On(func(discover.Event) {
		if now := reg.Lookup(service); !slices.Equal(now, last) {
			last = now
			changed()
		}
	})
	stopped := make(chan struct{})
	var wg sync.WaitGroup
	if !f.Ready() {
		wg.Go(func() {
			select {
			case <-reg.Ready():
				changed()
			case <-reg.Done():
				changed()
			case <-stopped:
			}
		})
	}
	return func() {
		stopEvents()
		close(stopped)
		wg.Wait() // changed does not block
		f.discovery.forget(f)
	}
}

func (d *discovery) forget(f *finder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.clients, f)
}

// sharedConn is a connection to a node that clients of several services share, or the attempt
// to make one.
type sharedConn struct {
	url    string
	dialed chan struct{} // closed after the attempt
	peer   *Peer         // nil before, and if it has failed; guarded by discovery.mu
	err    error         // why it has failed; guarded by discovery.mu
	users  int           // guarded by discovery.mu
}

// acquire returns a connection to a node, to be given back by release.
func (d *discovery) acquire(ctx context.Context, url string) (*Peer, error) {
	for {
		peer, attempt := d.take(url)
		switch {
		case peer != nil:
			return peer, nil
		case attempt.isMine:
			return d.connect(ctx, attempt.conn)
		}
		select {
		case <-attempt.conn.dialed:
			if err := d.failure(attempt.conn); err != nil && !errors.Is(err, context.Canceled) {
				return nil, err // who gave up is no reason for others
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// attempt is one to connect, which whoever has begun it carries out.
type attempt struct {
	conn   *sharedConn
	isMine bool
}

// take returns the connection to a node, or the attempt to make one.
func (d *discovery) take(url string) (*Peer, attempt) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.known && url == d.self {
		return d.node.Local(), attempt{}
	}
	c := d.conns[url]
	switch {
	case c == nil || c.peer != nil && c.peer.Err() != nil: // those who have an ended one give it back
		c = &sharedConn{url: url, dialed: make(chan struct{})}
		d.conns[url] = c
		return nil, attempt{c, true}
	case c.peer == nil:
		return nil, attempt{c, false}
	}
	c.users++
	return c.peer, attempt{}
}

// connect makes the attempt. Whatever becomes of it, also if an option of Discovery.Dial panics,
// those who wait for it are told.
func (d *discovery) connect(ctx context.Context, c *sharedConn) (peer *Peer, err error) {
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if peer == nil {
			c.err = err
			delete(d.conns, c.url)
		} else {
			c.peer, c.users = peer, 1
			d.users[peer] = c
		}
		close(c.dialed)
	}()
	return d.node.Dial(ctx, c.url, d.cfg.Dial...)
}

func (d *discovery) failure(c *sharedConn) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return c.err
}

// release gives a connection back. The last one who does closes it.
func (d *discovery) release(peer *Peer) {
	d.mu.Lock()
	c := d.users[peer] // none for the node itself
	isLast := false
	if c != nil {
		c.users--
		isLast = c.users == 0
	}
	if isLast {
		delete(d.users, peer)
		if d.conns[c.url] == c {
			delete(d.conns, c.url)
		}
	}
	d.mu.Unlock()
	if isLast {
		peer.CloseWith(closeNormal, "")
	}
}

const closeNormal = 1000
