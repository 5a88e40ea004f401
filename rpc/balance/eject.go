package balance

import (
	"math"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
)

// punish notes a failure of a member, which may be one too many.
func (c *Client) punish(m *member, now int64) {
	m.failedAt.Store(now)
	limit := orDefault(c.cfg.EjectAfter, defaultEjectAfter)
	if limit < 0 || m.fails.Add(1) < int32(limit) {
		return
	}
	if d := c.eject(m, now, limit); d > 0 {
		c.cfg.logger().Warn("netron: an instance is left out, since it only fails",
			"service", c.service, "address", m.address, "for", d)
	}
}

// eject leaves a member out, unless too many are already, and returns for how long.
func (c *Client) eject(m *member, now int64, limit int) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m.gone.Load() || m.ejectedUntil.Load() > now {
		return 0
	}
	ejected := 0
	for _, other := range c.members {
		if other.ejectedUntil.Load() > now {
			ejected++
		}
	}
	if 2*(ejected+1) > len(c.members) {
		return 0
	}
	d, most := orDefault(c.cfg.EjectTime, defaultEjectTime), orDefault(c.cfg.MaxEjectTime, defaultMaxEjectTime)
	for n := m.ejections.Add(1); n > 1 && d < most; n-- {
		d *= 2
	}
	m.fails.Store(int32(limit - 1)) // the next failure is enough
	d = min(d, most)
	m.ejectedUntil.Store(now + int64(d))
	return d
}

// forgive notes that a member has served a call. The time of ejections grows on unless it has not failed
// for as long as the last one could have taken.
func (c *Client) forgive(m *member, now int64) {
	m.fails.Store(0)
	if m.ejections.Load() > 0 && now-m.ejectedUntil.Load() > int64(orDefault(c.cfg.MaxEjectTime, defaultMaxEjectTime)) {
		m.ejections.Store(0)
	}
}

// budget bounds how many calls are repeated.
type budget struct {
	tokens float64
	most   float64 // that may be saved up: for the calls of about the last ten seconds
	picks  uint64  // when tokens were counted last
	at     int64
}

const (
	// spareRetries is how many calls may be repeated each second whatever the ratio.
	spareRetries = 1

	// savedRetries is what a budget begins with, and may save up in any case: as many calls as
	// are lost with a connection.
	savedRetries = 100

	budgetTime = 10 * time.Second
)

// mayRepeat takes one from the budget.
func (c *Client) mayRepeat(now int64) bool {
	ratio := c.cfg.retryRatio()
	if ratio == 0 {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	picks := c.gonePicks
	for _, m := range c.members {
		picks += m.picks.Load()
	}
	for _, m := range c.leaving {
		picks += m.picks.Load()
	}
	b := &c.budget
	since, earned := max(now-b.at, 1), ratio*float64(picks-min(b.picks, picks))
	b.tokens += earned + spareRetries*float64(since)/float64(time.Second)
	passed := float64(since) / float64(budgetTime)
	forgotten := -math.Expm1(-passed)
	b.most += forgotten * (earned/passed - b.most)
	b.tokens = min(b.tokens, max(savedRetries, b.most))
	b.picks, b.at = picks, now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// isOf reports whether an error came from the instance, and not from this side.
func isOf(err error) bool {
	e := asError(err)
	return e != nil && e.Remote()
}

// isGone reports whether an error says that the instance does not have the service any more
// which its stub stands for.
func isGone(err error) bool {
	return rpc.CodeOf(err) == rpc.NotFound && isOf(err) && rpc.Unserved(err)
}

func asError(err error) *rpc.Error {
	e, _ := err.(*rpc.Error)
	return e
}
