package balance

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
)

// member is an address that the client knows, with its connection.
//
//	idle --demand--> dialling --> connected --the peer ended for good--> dialling
//
// The peer reconnects by itself. When the instance has left, the connection is kept until no
// call is under way; it is the same member again if the instance comes back before.
type member struct {
	address  string
	instance atomic.Pointer[placed]

	stub   atomic.Pointer[rpc.Stub] // nil while there is no connection, or the service is asked for anew
	gone   atomic.Bool              // the instance has left; changed with Client.mu held
	coming atomic.Bool              // nobody knows yet whether it can be connected to, or has the service still

	inflight     atomic.Int64 // calls under way and streams open; less than 0 when it has been retired
	picks        atomic.Uint64
	failures     atomic.Uint64
	fails        atomic.Int32 // failures in a row
	failedAt     atomic.Int64 // when the last of them was noted
	ejections    atomic.Int32
	ejectedUntil atomic.Int64

	// The latency when it was measured last. Two calls that end at the same time may both take the
	// one before for theirs: one measurement is lost.
	latency    atomic.Uint64 // bits of a float64, nanoseconds
	measuredAt atomic.Int64

	// All guarded by Client.mu.
	peer      *rpc.Peer
	forget    func() // of the callback for the states of peer
	dialling  bool
	retiring  bool // a goroutine waits for the end of its calls
	dialFails int  // in a row, also of the peer itself
	lastErr   error
}

// placed is an instance with the hash of its id.
type placed struct {
	Instance
	hash  uint64
	order uint64 // of those that a client prefers
}

// isRetired is the number of calls under way of a member that takes none any more.
const isRetired = -1 << 40

// latencyTime is how fast the average of latencies forgets.
const latencyTime = 10 * time.Second

// usable reports whether a pick may take the member.
func (m *member) usable(now int64, l level) bool {
	stub := m.stub.Load()
	if stub == nil || m.gone.Load() {
		return false
	}
	if l < levelEjected && (m.ejectedUntil.Load() > now || stub.Gone()) {
		return false
	}
	switch stub.Peer().State() {
	case rpc.StateConnected:
		return true
	case rpc.StateDraining:
		return l >= levelDraining
	}
	return false
}

// acquire counts a call, and returns where it goes; nil if the member takes none any more.
func (m *member) acquire() *rpc.Stub {
	if m.inflight.Add(1) > 0 {
		if stub := m.stub.Load(); stub != nil {
			m.picks.Add(1)
			return stub
		}
	}
	m.inflight.Add(-1)
	return nil
}

// measure notes how long a call took. A longer time than the average counts at once.
func (m *member) measure(now int64, took float64) {
	before := math.Float64frombits(m.latency.Load())
	since := now - m.measuredAt.Swap(now)
	if took < before {
		past := float64(max(since, 0)) / float64(latencyTime)
		part := 1 - past // as good for what is short
		if past > 1e-3 {
			part = math.Exp(-past)
		}
		took = before*part + took*(1-part)
	}
	m.latency.Store(math.Float64bits(took))
}

// expected returns the latency to expect, 0 if it was never measured. It falls while there
// are no calls that would tell.
func (m *member) expected(now, inflight int64) float64 {
	latency := math.Float64frombits(m.latency.Load())
	if since := now - m.measuredAt.Load(); inflight == 0 && since > 0 {
		latency *= math.Exp(-float64(since) / float64(latencyTime))
	}
	return latency
}

// unknownLatency is what a member costs whose first call has not been answered: it gets
// no second one while there are others.
const unknownLatency = float64(time.Hour)

// prefers reports whether a policy that compares two members takes m and not other, which was
// drawn first.
func (c *Client) prefers(m, other *member, now int64) bool {
	if c.cfg.Policy != LowLatency && m.inflight.Load() == 0 && other.inflight.Load() == 0 {
		return false // weights count in the draw
	}
	return c.costOf(m, now) < c.costOf(other, now)
}

// costOf is what a policy that compares two members compares.
func (c *Client) costOf(m *member, now int64) float64 {
	calls := m.inflight.Load()
	cost := float64(calls + 1)
	if c.cfg.Policy == LowLatency {
		switch latency := m.expected(now, calls); {
		case latency > 0:
			cost *= latency
		case calls > 0:
			cost *= unknownLatency
		default:
			return 0
		}
	}
	return cost / float64(m.instance.Load().weight())
}

// demand has a member dialled that has no connection. mu is held.
func (c *Client) demand(m *member) {
	if m.dialling || m.peer != nil || m.gone.Load() || c.closed {
		return
	}
	m.dialling = true
	c.wg.Go(func() { c.connect(m) })
}

// connect dials a member until it has a connection, the instance has left, or the client is
// closed.
func (c *Client) connect(m *member) {
	for c.pause(m) {
		peer, stub, err := c.dial(m.address)
		if c.connected(m, peer, stub, err) {
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tried(m)
}

// tried notes that nobody tries to connect to a member any more, or asks it for the service. mu is
// held.
func (c *Client) tried(m *member) {
	m.dialling = false
	switch {
	case m.peer != nil:
	case m.gone.Load():
		c.drop(m)
	default: // it has come back, or was lost meanwhile
		c.demand(m)
	}
	c.wake()
}

// replaced notes that an instance does not know the service of a stub any more. It may have
// another release of it now, and is asked at once; calls wait for that.
func (c *Client) replaced(m *member, stub *rpc.Stub) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || m.gone.Load() || m.dialling || !m.stub.CompareAndSwap(stub, nil) {
		return
	}
	m.dialling = true
	m.coming.Store(true)
	peer := m.peer
	c.wg.Go(func() { c.askAnew(m, peer, stub) })
}

// askAnew asks a connected member for the service. If it has none its stub stays, in doubt.
func (c *Client) askAnew(m *member, peer *rpc.Peer, before *rpc.Stub) {
	stub, err := peer.Service(c.ctx, c.service)
	if err != nil {
		before.Doubt()
		stub = before
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m.coming.Store(false)
	if m.peer == peer {
		m.stub.Store(stub)
	}
	c.tried(m)
}

// pause waits before an attempt to connect, and reports whether there is to be one.
func (c *Client) pause(m *member) bool {
	c.mu.Lock()
	fails := m.dialFails
	c.mu.Unlock()
	if fails > 0 {
		delay, most := orDefault(c.cfg.DialDelay, defaultDialDelay), orDefault(c.cfg.MaxDialDelay, defaultMaxDialDelay)
		for ; fails > 1 && delay < most; fails-- {
			delay *= 2
		}
		t := time.NewTimer(1 + rand.N(max(min(delay, most), 1)))
		defer t.Stop()
		select {
		case <-t.C:
		case <-c.ctx.Done():
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return !c.closed && !m.gone.Load()
}

// dial makes one attempt to connect, and asks for the service.
func (c *Client) dial(address string) (*rpc.Peer, *rpc.Stub, error) {
	peer, err := c.callDialler(address)
	if err == nil && peer == nil {
		err = rpc.Errorf(rpc.Internal, "balance: the dialler returned neither a peer nor an error")
	}
	if err != nil {
		return nil, nil, err
	}
	stub, err := peer.Service(c.ctx, c.service)
	if err != nil {
		c.cfg.release(peer)
		return nil, nil, err
	}
	return peer, stub, nil
}

// callDialler calls Config.Dial. Nobody else could recover from its panic.
func (c *Client) callDialler(address string) (peer *rpc.Peer, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.cfg.logger().Error("netron: panic in a dialler", "address", address, "panic", v, "stack", string(debug.Stack()))
			err = rpc.Errorf(rpc.Internal, "balance: the dialler panicked")
		}
	}()
	return c.cfg.Dial(c.ctx, address)
}

// replaceAfter is after how many failed attempts to connect another instance takes the place of
// one in a subset.
const replaceAfter = 3

// connected notes the outcome of an attempt to connect, and reports whether there is nothing more
// to do.
func (c *Client) connected(m *member, peer *rpc.Peer, stub *rpc.Stub, err error) bool {
	if err != nil {
		return c.notConnected(m, err)
	}
	forget := peer.OnState(func(e rpc.StateEvent) { c.changed(m, peer, e) })
	if !c.keep(m, peer, stub, forget) {
		forget()
		c.cfg.release(peer)
	}
	return true
}

// keep gives a member its connection, and reports whether that is wanted.
func (c *Client) keep(m *member, peer *rpc.Peer, stub *rpc.Stub, forget func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.wake()
	m.coming.Store(false)
	if c.closed || m.gone.Load() {
		return false
	}
	m.peer, m.forget = peer, forget
	c.reached(m)
	m.stub.Store(stub)
	if e := peer.Err(); e != nil { // nobody may have been told
		c.wg.Go(func() { c.changed(m, peer, rpc.StateEvent{State: rpc.StateClosed, Err: e}) })
	}
	return true
}

// notConnected notes that an attempt to connect has failed, and reports whether it was the last.
func (c *Client) notConnected(m *member, err error) bool {
	fails, over := c.noteFailure(m, err)
	if over {
		return true
	}
	level := slog.LevelDebug
	if fails == 1 {
		level = slog.LevelWarn
	}
	c.cfg.logger().Log(c.ctx, level, "netron: an instance cannot be connected to",
		"service", c.service, "address", m.address, "error", err)
	return false
}

// noteFailure is notConnected under the lock.
func (c *Client) noteFailure(m *member, err error) (fails int, over bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.wake()
	m.coming.Store(false)
	c.missed(m, err)
	return m.dialFails, c.closed || m.gone.Load()
}

// missed counts an attempt to connect that has failed. mu is held.
func (c *Client) missed(m *member, err error) {
	m.lastErr = err
	if m.dialFails++; m.dialFails == replaceAfter {
		c.poke()
	}
}

// reached notes that there is a connection. mu is held.
func (c *Client) reached(m *member) {
	if m.dialFails >= replaceAfter {
		c.poke()
	}
	m.dialFails, m.lastErr = 0, nil
}

// changed is told that a peer has come into another state.
func (c *Client) changed(m *member, peer *rpc.Peer, e rpc.StateEvent) {
	broken := e.State == rpc.StateReconnecting || e.State == rpc.StateClosed
	if broken && (e.Reason == rpc.ReasonLost || e.Reason == rpc.ReasonClosedByPeer) {
		m.failures.Add(1)
		c.punish(m, c.now())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.wake()
	switch {
	case m.peer != peer || c.closed:
	case e.State == rpc.StateConnected && e.Reason == rpc.ReasonReady:
		c.reached(m)
	case e.State == rpc.StateReconnecting && e.Reason == rpc.ReasonDialFailed:
		c.missed(m, e.Err)
	case e.State == rpc.StateReconnecting:
		m.lastErr = e.Err
	case e.State == rpc.StateClosed:
		c.lose(m, e.Err)
	}
}

// lose gives a peer back that has ended for good. mu is held.
func (c *Client) lose(m *member, err error) {
	peer := m.part()
	c.wg.Go(func() { c.cfg.release(peer) })
	m.lastErr, m.dialFails = err, max(m.dialFails, 1)
	if m.gone.Load() {
		c.drop(m)
	} else {
		c.demand(m)
	}
}

// part takes the connection of a member away. mu is held.
func (m *member) part() *rpc.Peer {
	peer := m.peer
	m.stub.Store(nil)
	m.forget()
	m.peer, m.forget = nil, nil
	return peer
}

// leave notes that an instance has left. mu is held.
func (c *Client) leave(m *member) {
	m.gone.Store(true)
	m.coming.Store(false)
	switch {
	case m.peer != nil:
		c.leaving[m.address] = m
		if !m.retiring {
			m.retiring = true
			c.wg.Go(func() { c.retire(m) })
		}
	case m.dialling:
		c.leaving[m.address] = m
	default:
		c.drop(m)
	}
}

// drop forgets a member. mu is held.
func (c *Client) drop(m *member) {
	if c.leaving[m.address] == m {
		delete(c.leaving, m.address)
	}
	c.gonePicks += m.picks.Swap(0)
}

// retirePause is how often a connection is looked at whose instance has left. It is not closed
// before: the instance may be back at once.
const retirePause = 250 * time.Millisecond

// retire closes the connection to an instance that has left when no call is under way. It is one
// goroutine for each member, however often that comes and goes.
func (c *Client) retire(m *member) {
	t := time.NewTicker(retirePause)
	defer t.Stop()
	for {
		select {
		case <-t.C:
		case <-c.ctx.Done():
			return
		}
		if c.retired(m) {
			return
		}
	}
}

// retired gives the connection of a member back if no call is under way. It reports whether there
// is nothing more to do.
func (c *Client) retired(m *member) bool {
	peer, done := c.takeIdle(m)
	if peer != nil {
		c.cfg.release(peer)
	}
	return done
}

// takeIdle is retired under the lock, and returns the peer to give back.
func (c *Client) takeIdle(m *member) (peer *rpc.Peer, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { m.retiring = !done }()
	if c.closed || c.leaving[m.address] != m || m.peer == nil {
		return nil, true // it has come back, for example
	}
	isShared := c.cfg.Release != nil // perhaps, and others call it
	if !isShared && m.peer.Pending() > 0 || !m.inflight.CompareAndSwap(0, isRetired) {
		return nil, false
	}
	peer = m.part()
	c.drop(m)
	return peer, true
}

// waitForEnd waits for the end of a peer that was closed, unless somebody else has it.
func (c *Client) waitForEnd(p *rpc.Peer) {
	if c.cfg.Release == nil {
		<-p.Done()
	}
}
