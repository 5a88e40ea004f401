package balance

import (
	"cmp"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
)

// view is the members of a client as picks see them. It does not change.
type view struct {
	all    []*member
	groups []*group // those to be asked first come first
	uneven bool     // their weights differ
}

// group is members among which the policy picks.
type group struct {
	members []*member
	turns   []uint16 // indexes of members, each as often as its weight says, evenly spread
	turn    atomic.Uint64
}

const (
	// maxTurns bounds the turns of a group; weights that need more are rounded.
	maxTurns = 1024

	// maxMembers is how many instances a client looks at.
	maxMembers = 4096
)

// newView returns the view of members. Those of the zone come first.
func newView(members []*member, zone string) *view {
	v := &view{all: members}
	var ranks [4][]*member
	for _, m := range members {
		rank, i := 0, m.instance.Load()
		if zone != "" && i.Zone != zone {
			rank++
		}
		if i.isLast() {
			rank += 2
		}
		ranks[rank] = append(ranks[rank], m)
		v.uneven = v.uneven || i.weight() != members[0].instance.Load().weight()
	}
	for _, members := range ranks {
		if len(members) > 0 {
			g := &group{members: members, turns: turnsOf(members)}
			g.turn.Store(rand.Uint64() >> 1)
			v.groups = append(v.groups, g)
		}
	}
	return v
}

// turnsOf spreads the turns of each member evenly.
func turnsOf(members []*member) []uint16 {
	weights, sum, divisor := make([]int64, len(members)), int64(0), int64(0)
	for i, m := range members {
		weights[i] = int64(m.instance.Load().weight())
		sum += weights[i]
		divisor = gcd(weights[i], divisor)
	}
	sum /= divisor
	most := int64(max(maxTurns, len(members)))
	type turn struct {
		at float64 // of the whole round
		of uint16
	}
	var round []turn
	for i, w := range weights {
		w /= divisor
		if sum > most {
			w = max(w*most/sum, 1)
		}
		for k := range w {
			round = append(round, turn{(float64(k) + 0.5) / float64(w), uint16(i)})
		}
	}
	slices.SortStableFunc(round, func(a, b turn) int { return cmp.Compare(a.at, b.at) })
	turns := make([]uint16, len(round))
	for i, t := range round {
		turns[i] = t.of
	}
	return turns
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// level is whom a pick is content with.
type level uint8

const (
	levelReady    level = iota
	levelDraining       // asks to connect elsewhere, and serves on for a while
	levelEjected
	numLevels
)

// choice is what one pick looks for.
type choice struct {
	client *Client
	now    int64
	level  level
	past   []*member // tried already
}

func (c *choice) admits(m *member) bool {
	return m.usable(c.now, c.level) && (len(c.past) == 0 || !slices.Contains(c.past, m))
}

// pick returns a member by the policy of the client, nil if there is none. The closest group
// that has any is asked.
func (v *view) pick(c *choice) *member {
	for c.level = levelReady; c.level < numLevels; c.level++ {
		for _, g := range v.groups {
			if m := g.pick(c); m != nil {
				return m
			}
		}
	}
	return nil
}

func (g *group) pick(c *choice) *member {
	switch c.client.cfg.Policy {
	case RoundRobin:
		return g.pickInTurn(c)
	case Random:
		return g.pickAny(c)
	}
	if len(g.members) == 1 {
		if m := g.members[0]; c.admits(m) {
			return m
		}
		return nil
	}
	a, b := g.random(), g.random()
	for range 3 {
		if a != b {
			break
		}
		b = g.random()
	}
	if a == b || !c.admits(a) || !c.admits(b) {
		if a, b = g.twoOf(c); b == nil {
			return a
		}
	}
	if c.client.prefers(b, a, c.now) {
		return b
	}
	return a
}

func (g *group) random() *member { return g.members[g.turns[rand.IntN(len(g.turns))]] }

// pickInTurn returns the next member that can be asked. The turns of the others are left out, so
// that no one has more than its part for being behind them.
func (g *group) pickInTurn(c *choice) *member {
	n := uint64(len(g.turns))
	for range n {
		if m := g.members[g.turns[g.turn.Add(1)%n]]; c.admits(m) {
			return m
		}
	}
	m, _ := g.twoOf(c) // others may have taken the turns that were left
	return m
}

// pickAny returns any member that can be asked.
func (g *group) pickAny(c *choice) *member {
	for range 3 {
		if m := g.random(); c.admits(m) {
			return m
		}
	}
	m, _ := g.twoOf(c)
	return m
}

// twoOf returns two members that can be asked, drawn by their weights, or as many as there are.
func (g *group) twoOf(c *choice) (a, b *member) {
	var room [64]*member
	usable := room[:0]
	for _, m := range g.members {
		if c.admits(m) {
			usable = append(usable, m)
		}
	}
	a, usable = draw(usable)
	b, _ = draw(usable)
	return a, b
}

// draw takes one of the members out, by their weights; nil if there is none.
func draw(all []*member) (m *member, others []*member) {
	sum := int64(0)
	for _, m := range all {
		sum += int64(m.instance.Load().weight())
	}
	if sum == 0 {
		return nil, nil
	}
	left := rand.Int64N(sum)
	for i, m := range all {
		if left -= int64(m.instance.Load().weight()); left < 0 {
			all[i] = all[len(all)-1]
			return m, all[:len(all)-1]
		}
	}
	return all[0], all[1:] // weights have changed meanwhile
}

// pickByKey returns the member that a key belongs to: one that is there, or whose first
// connection is still to be made.
func (v *view) pickByKey(c *choice, key uint64) *member {
	most := int64(math.MaxInt64)
	if load := c.client.cfg.KeyLoad; load > 0 {
		calls, n := int64(0), 0
		for _, m := range v.all {
			if !m.instance.Load().isLast() && (m.usable(c.now, levelReady) || m.coming.Load()) {
				calls += m.inflight.Load()
				n++
			}
		}
		if n > 0 {
			most = int64(math.Ceil(load * float64(calls+1) / float64(n)))
		}
	}
	for c.level = levelReady; c.level < numLevels; c.level++ {
		for _, last := range [2]bool{false, true} {
			var best, over *member
			var bestClaim, overClaim float64
			for _, m := range v.all {
				i := m.instance.Load()
				if i.isLast() != last || !c.admits(m) && (!m.coming.Load() || slices.Contains(c.past, m)) {
					continue
				}
				s := float64(mix(key ^ i.hash)) // in the order of claims with equal weights
				if v.uneven {
					s = claim(key, i.hash, float64(i.weight()))
				}
				if m.inflight.Load() >= most {
					if over == nil || s > overClaim {
						over, overClaim = m, s
					}
				} else if best == nil || s > bestClaim {
					best, bestClaim = m, s
				}
			}
			if best != nil {
				return best
			}
			if over != nil {
				return over
			}
		}
	}
	return nil
}
