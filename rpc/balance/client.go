package balance

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
)

// Client calls a service at the instances that offer it. It is made by [New]. All methods are
// safe for concurrent use.
//
// It has one goroutine that follows the resolver, and one for each instance that is being dialled,
// or that has left and still has calls under way. [Client.Close] waits for them.
type Client struct {
	cfg     Config
	service string
	self    uint64    // hash of the id
	epoch   time.Time // what now counts from

	ctx    context.Context //nolint:containedctx // the documented lifetime of the client, which dials run under
	cancel context.CancelFunc
	wg     sync.WaitGroup
	pokec  chan struct{} // of capacity 1, never closed: the resolver is to be asked again
	stop   func()        // of the resolver

	view atomic.Pointer[view]
	like atomic.Pointer[rpc.Stub] // the routed stub, nil before it was asked for

	mu        sync.Mutex
	members   map[string]*member // by address; guarded by mu
	leaving   map[string]*member // with a connection, or an attempt to make one; guarded by mu
	changec   chan struct{}      // closed at the next change, nil while nobody waits; guarded by mu
	active    bool               // it has been used; guarded by mu
	learns    bool               // the resolver does not know all instances yet; guarded by mu
	closed    bool               // guarded by mu
	budget    budget             // guarded by mu
	gonePicks uint64             // of members that are no more; guarded by mu
}

// New returns a client of a service: "name", "name@version" or "name@range", as rpc.Peer.Service
// takes them. It connects to nothing: its first use does.
func New(service string, cfg Config) (*Client, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	if cfg.ID == "" {
		cfg.ID = strconv.FormatUint(rand.Uint64(), 36)
	}
	c := &Client{
		cfg: cfg, service: service, self: hashOf(cfg.ID), epoch: time.Now(),
		pokec: make(chan struct{}, 1), members: make(map[string]*member), leaving: make(map[string]*member),
		budget: budget{tokens: savedRetries},
	}
	c.view.Store(newView(nil, ""))
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.stop = cfg.Resolver.Watch(service, c.poke)
	c.resolve()
	c.wg.Go(c.follow)
	return c, nil
}

// Service returns the name of the service, as New got it.
func (c *Client) Service() string { return c.service }

// Close ends the client: calls under way fail, and all connections are closed; with a
// Config.Release that leaves them open such calls go on. It returns when its goroutines have
// ended, which waits for a Config.Dial that ignores its context. It must not be called from a
// callback of a call.
func (c *Client) Close() error {
	peers, first := c.shut()
	if first && c.stop != nil {
		c.stop()
	}
	for _, p := range peers {
		c.cfg.release(p)
	}
	for _, p := range peers {
		c.waitForEnd(p)
	}
	c.wg.Wait()
	return nil
}

// shut has the client take no calls any more. The first time it returns the peers to give back.
func (c *Client) shut() (peers []*rpc.Peer, first bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, false
	}
	c.closed = true
	c.cancel() // before those who wait look for it
	c.view.Store(newView(nil, ""))
	for _, members := range []map[string]*member{c.members, c.leaving} {
		for _, m := range members {
			if m.peer != nil {
				peers = append(peers, m.part())
			}
		}
	}
	c.wake()
	return peers, true
}

// now returns the time since the client was made, in nanoseconds.
func (c *Client) now() int64 { return int64(time.Since(c.epoch)) }

// poke has the resolver asked again.
func (c *Client) poke() {
	select {
	case c.pokec <- struct{}{}:
	default:
	}
}

// follow asks the resolver whenever there is a reason.
func (c *Client) follow() {
	for {
		select {
		case <-c.pokec:
			start := time.Now()
			c.resolve()
			c.rest(time.Since(start))
		case <-c.ctx.Done():
			return
		}
	}
}

// rest waits as long as something took, if that is worth it: a resolver of many instances that
// change all the time does not get more than half of a processor.
func (c *Client) rest(d time.Duration) {
	if d < time.Millisecond {
		return
	}
	select {
	case <-time.After(d):
	case <-c.ctx.Done():
	}
}

// resolve makes the members those that the resolver knows.
func (c *Client) resolve() {
	l, ok := c.cfg.Resolver.(Learner)
	learns := ok && !l.Ready() // before Resolve, which may learn more meanwhile
	all := c.place(c.cfg.Resolver.Resolve(c.service))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.learns = learns
	if c.closed {
		return
	}
	before := c.members
	chosen := c.chosen(all)
	c.members = make(map[string]*member, len(chosen))
	order := make([]*member, 0, len(chosen))
	for _, i := range chosen {
		m := before[i.Address]
		if m == nil {
			m = c.join(i.Address)
		}
		m.instance.Store(i)
		c.members[i.Address] = m
		order = append(order, m)
	}
	for address, m := range before {
		if c.members[address] == nil {
			c.leave(m)
		}
	}
	c.view.Store(newView(order, c.cfg.Zone))
	if c.active && c.cfg.Policy != ByKey {
		c.demandAll()
	}
	c.wake()
}

// join returns a member for an address: the one that was about to leave, or a new one. mu is held.
func (c *Client) join(address string) *member {
	if m := c.leaving[address]; m != nil {
		delete(c.leaving, address)
		m.coming.Store(m.dialling && m.peer == nil && m.dialFails == 0)
		m.gone.Store(false)
		return m
	}
	m := &member{address: address}
	m.coming.Store(true)
	return m
}

// place returns the instances that the client looks at, one for each address. If it connects to
// some of them only they are in the order in which it prefers them.
func (c *Client) place(found []Instance) []*placed {
	n, self := c.cfg.subset(), c.self
	if n < 0 {
		n, self = maxMembers, 0 // all clients have the same ones, for their keys
	}
	seen := make(map[string]struct{}, len(found))
	all := make([]*placed, 0, len(found))
	for _, i := range found {
		if _, twice := seen[i.Address]; twice || i.Address == "" {
			continue
		}
		seen[i.Address] = struct{}{}
		hash := hashOf(i.id())
		all = append(all, &placed{Instance: i, hash: hash, order: mix(self ^ hash)})
	}
	if len(all) > n {
		slices.SortStableFunc(all, func(a, b *placed) int { return cmp.Compare(a.order, b.order) })
	}
	return all
}

// chosen returns the instances to know, no more than the subset and those that are in place of
// others. mu is held.
func (c *Client) chosen(all []*placed) []*placed {
	n := c.cfg.subset()
	if n < 0 {
		return all[:min(len(all), maxMembers)]
	}
	if len(all) <= n {
		return all
	}
	var subset []*placed
	take := func(from []*placed, want int) (rest []*placed) {
		for room := 2 * want; len(from) > 0 && want > 0 && room > 0; room-- {
			p := from[0]
			from = from[1:]
			subset = append(subset, p)
			if m := c.members[p.Address]; m == nil || m.dialFails < replaceAfter {
				want--
				n--
			}
		}
		return from
	}
	first, last := split(all, func(p *placed) bool { return !p.isLast() })
	for _, of := range [2][]*placed{first, last} {
		near, far := split(of, func(p *placed) bool { return c.cfg.Zone == "" || p.Zone == c.cfg.Zone })
		// Some are kept of other zones, for when the own one fails.
		near = take(near, n-min(len(far), (n+3)/4))
		take(far, n)
		take(near, n)
	}
	return subset
}

// split returns those that are, and those that are not.
func split(all []*placed, is func(*placed) bool) (those, others []*placed) {
	for _, p := range all {
		if is(p) {
			those = append(those, p)
		} else {
			others = append(others, p)
		}
	}
	return those, others
}

// demandAll has those dialled that have no connection. Of all instances, as keys need them, those who
// have no key need but some. mu is held.
func (c *Client) demandAll() {
	n := len(c.members)
	if c.cfg.Policy == ByKey {
		n = defaultSubset
	}
	for _, m := range c.view.Load().all {
		if n <= 0 {
			break
		}
		c.demand(m)
		if m.dialFails == 0 {
			n--
		}
	}
}

// wake tells those who wait that something has changed. mu is held.
func (c *Client) wake() {
	if c.changec != nil {
		close(c.changec)
		c.changec = nil
	}
}

// Stub returns the service as a stub whose calls go each to one of the instances. It waits for the
// first of them, as a call does: which methods the service has is asked there. It stays good while
// instances come and go.
func (c *Client) Stub(ctx context.Context) (*rpc.Stub, error) {
	if s := c.like.Load(); s != nil {
		return s, nil
	}
	r := (*router)(c)
	p, err := r.Pick(ctx, "")
	if err != nil {
		return nil, err
	}
	if m, ok := p.At.(*member); ok { // no call was made
		m.inflight.Add(-1)
		m.picks.Add(^uint64(0))
	}
	s := rpc.NewRouted(p.Stub, r)
	if !c.like.CompareAndSwap(nil, s) {
		if other := c.like.Load(); other != nil {
			return other, nil
		}
	}
	return s, nil
}

// Call calls a method of the service at one of the instances, as rpc.Stub.Call does.
func (c *Client) Call(ctx context.Context, method string, result any, args ...any) error {
	s, err := c.Stub(ctx)
	if err != nil {
		return err
	}
	return s.Call(ctx, method, result, args...)
}

// Query returns the service as a struct of funcs, by the rules of rpc.Query. Each call of one goes to
// one of the instances.
func Query[T any](ctx context.Context, c *Client) (*T, error) {
	s, err := c.Stub(ctx)
	if err != nil {
		return nil, err
	}
	t, err := rpc.Bind[T](s)
	if rpc.CodeOf(err) == rpc.NotFound && c.like.CompareAndSwap(s, nil) {
		// The instance that was asked may have been an old one.
		if s, err = c.Stub(ctx); err != nil {
			return nil, err
		}
		t, err = rpc.Bind[T](s)
	}
	if err != nil {
		return nil, fmt.Errorf("balance: %w", err)
	}
	return t, nil
}
