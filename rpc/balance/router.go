package balance

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
)

// router is a [Client] as the stubs of it see it.
type router Client

// past is what is known of a call that is made again.
type past struct {
	tried []*member
	paid  int // attempts that count
	waits int
}

// Pick implements [rpc.Router].
func (r *router) Pick(ctx context.Context, _ string) (rpc.Pick, error) {
	c := (*Client)(r)
	a := c.affinity(ctx)
	if p, ok := c.tryPick(a, nil); ok {
		return p, nil
	}
	return c.await(ctx, a, nil)
}

// Done implements [rpc.Router].
func (r *router) Done(ctx context.Context, p rpc.Pick, err error) (again bool) {
	c := (*Client)(r)
	m, _ := p.At.(*member)
	m.inflight.Add(-1)
	now := c.now()
	if err != nil {
		return c.failed(ctx, p, m, err, now)
	}
	if p.Streams {
		// Nor is it known how they have ended, but they had begun.
		if m.fails.Load() != 0 && m.failedAt.Load() < p.Start && p.Stub.Peer().State() == rpc.StateConnected {
			c.forgive(m, now)
		}
		return false
	}
	m.measure(now, float64(now-p.Start))
	if m.fails.Load() != 0 || m.ejections.Load() != 0 {
		c.forgive(m, now)
	}
	return false
}

// failed notes a failure, and reports whether the call may be made again.
func (c *Client) failed(ctx context.Context, p rpc.Pick, m *member, err error, now int64) bool {
	code, unserved, took := rpc.CodeOf(err), rpc.Unserved(err), float64(now-p.Start)
	remote := isOf(err)
	switch {
	case remote && !unserved && code != rpc.Unavailable:
		m.measure(now, took)
		if m.fails.Load() != 0 || m.ejections.Load() != 0 {
			c.forgive(m, now)
		}
	case remote && !unserved: // what it lost shows in its state, see changed
		m.failures.Add(1)
		c.punish(m, now)
	case isGone(err):
		c.replaced(m, p.Stub)
	case code == rpc.DeadlineExceeded:
		m.failures.Add(1)
		m.measure(now, took)
	case code == rpc.ResourceExhausted && remote:
		m.measure(now, max(took, 2*m.expected(now, 1))) // a refusal is fast, and no reason for more calls
	}
	if ctx.Err() != nil || c.ctx.Err() != nil {
		return false
	}
	return unserved || code == rpc.Unavailable && rpc.IsIdempotent(ctx)
}

const (
	againPause    = 10 * time.Millisecond
	maxAgainPause = time.Second
)

// Next implements [rpc.Router].
func (r *router) Next(ctx context.Context, p rpc.Pick, err error) (rpc.Pick, error) {
	c := (*Client)(r)
	before, _ := p.Past.(*past)
	if before == nil {
		before = &past{}
	}
	m, _ := p.At.(*member)
	before.tried = append(before.tried, m)
	if code := rpc.CodeOf(err); !rpc.Unserved(err) || code == rpc.ResourceExhausted && isOf(err) {
		if !c.pay(before) {
			return rpc.Pick{}, err
		}
	}
	a := c.affinity(ctx)
	if next, ok := c.tryPick(a, before); ok {
		return next, nil
	}
	switch {
	case rpc.WouldBlock(ctx) != nil:
		return rpc.Pick{}, err
	case isGone(err): // the instances are being asked for what they have now
		if !c.pay(before) {
			return rpc.Pick{}, err
		}
		return c.awaitAgain(ctx, a, before, err)
	case !c.cfg.WaitReady && !rpc.RetriesUnsent(ctx):
		return rpc.Pick{}, err
	}
	// All have been tried, or cannot be. Now each may be tried again.
	t := time.NewTimer(1 + rand.N(min(againPause<<min(before.waits, 10), maxAgainPause)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
		return rpc.Pick{}, err
	case <-c.ctx.Done():
		return rpc.Pick{}, err
	}
	before.waits++
	return c.awaitAgain(ctx, a, before, err)
}

// awaitAgain is await for a call that has failed with err, at all instances by now.
func (c *Client) awaitAgain(ctx context.Context, a *affinity, before *past, err error) (rpc.Pick, error) {
	before.tried = before.tried[:0]
	next, failure := c.await(ctx, a, before)
	if failure != nil {
		return rpc.Pick{}, err
	}
	return next, nil
}

// pay counts an attempt, and reports whether there may be another one.
func (c *Client) pay(before *past) bool {
	before.paid++
	return before.paid < orDefault(c.cfg.MaxAttempts, defaultMaxAttempts) && c.mayRepeat(c.now())
}

// affinity returns what the call says about who is to serve it, nil if it says nothing.
func (c *Client) affinity(ctx context.Context) *affinity {
	a := affinityOf(ctx)
	if c.cfg.Policy != ByKey || c.cfg.Key == nil || a != nil && a.keyed {
		return a
	}
	key := c.cfg.Key(ctx)
	if key == "" {
		return a
	}
	keyed := &affinity{key: hashOf(key), keyed: true}
	if a != nil {
		keyed.sticky = a.sticky
	}
	return keyed
}

// tryPick picks without waiting.
func (c *Client) tryPick(a *affinity, before *past) (rpc.Pick, bool) {
	look := choice{client: c, now: c.now()}
	if before != nil {
		look.past = before.tried
	}
	for {
		m := c.find(a, &look)
		if m == nil {
			return rpc.Pick{}, false
		}
		stub := m.acquire()
		if stub == nil {
			if m.coming.Load() { // and has the key
				return rpc.Pick{}, false
			}
			continue // it has been retired, or lost, since find looked
		}
		if a != nil && a.sticky != nil {
			a.sticky.set(c, m)
		}
		p := rpc.Pick{Stub: stub, At: m, Start: look.now}
		if before != nil {
			p.Past = before
		}
		return p, true
	}
}

// find returns the member for a call, nil if there is none now. One that is coming has no
// connection yet.
func (c *Client) find(a *affinity, look *choice) *member {
	v := c.view.Load()
	if a == nil {
		return v.pick(look)
	}
	if a.sticky != nil {
		if m := a.sticky.get(c); m != nil && look.admits(m) && m.inflight.Load() >= 0 {
			return m
		}
	}
	if a.keyed {
		return v.pickByKey(look, a.key)
	}
	return v.pick(look)
}

// await picks, and waits for an instance that can be asked where it may: for the first attempts to
// connect, for all if the call or the client says so.
func (c *Client) await(ctx context.Context, a *affinity, before *past) (rpc.Pick, error) {
	var limit <-chan time.Time
	if _, ok := ctx.Deadline(); !ok {
		t := time.NewTimer(orDefault(c.cfg.MaxWait, defaultMaxWait))
		defer t.Stop()
		limit = t.C
	}
	patient := c.cfg.WaitReady || rpc.RetriesUnsent(ctx)
	for {
		changec, hopeful := c.prepare(a, before)
		if p, ok := c.tryPick(a, before); ok {
			return p, nil
		}
		if err := rpc.WouldBlock(ctx); err != nil {
			return rpc.Pick{}, err
		}
		if c.ctx.Err() != nil || !hopeful && !patient {
			return rpc.Pick{}, c.unavailable()
		}
		select {
		case <-changec:
		case <-c.ctx.Done():
		case <-ctx.Done():
			return rpc.Pick{}, rpc.Errorf(rpc.CodeOf(ctx.Err()), "balance: no instance of %s in time: %w", c.service, c.unavailable())
		case <-limit:
			return rpc.Pick{}, c.unavailable()
		}
	}
}

// prepare has instances dialled that a call could go to. It returns what is closed at the next
// change, and whether an attempt to connect is under way whose outcome nobody knows.
func (c *Client) prepare(a *affinity, before *past) (changec <-chan struct{}, hopeful bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.active = true
	if c.changec == nil {
		c.changec = make(chan struct{})
	}
	learns := c.learns && len(c.members) == 0
	if c.cfg.Policy == ByKey && a != nil && a.keyed {
		look := choice{client: c, now: c.now()}
		if before != nil {
			look.past = before.tried
		}
		m := c.view.Load().pickByKey(&look, a.key)
		if m != nil {
			c.demand(m)
		}
		return c.changec, m != nil || learns
	}
	c.demandAll()
	hopeful = learns
	for _, m := range c.members {
		hopeful = hopeful || m.dialling && m.coming.Load()
	}
	return c.changec, hopeful
}

// unavailable returns why no instance can be asked.
func (c *Client) unavailable() error {
	closed, n, cause := c.lack()
	switch {
	case closed:
		return rpc.Errorf(rpc.Unavailable, "balance: the client of %s is closed", c.service)
	case n == 0:
		if l, ok := c.cfg.Resolver.(Learner); ok {
			if err := l.Err(); err != nil {
				return rpc.Errorf(rpc.Unavailable, "balance: no instance of %s is known: %w", c.service, err)
			}
		}
		return rpc.Errorf(rpc.Unavailable, "balance: no instance of %s is known", c.service)
	case cause != nil:
		return rpc.Errorf(rpc.Unavailable, "balance: none of %d instances of %s can be asked, one of them since: %w", n, c.service, cause)
	}
	return rpc.Errorf(rpc.Unavailable, "balance: none of %d instances of %s can be asked", n, c.service)
}

// lack returns what unavailable says.
func (c *Client) lack() (closed bool, n int, cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if m.lastErr != nil {
			cause = m.lastErr
			break
		}
	}
	return c.closed, len(c.members), cause
}
