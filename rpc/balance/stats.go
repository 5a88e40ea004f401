package balance

import (
	"math"
	"slices"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
)

// State says what a [Client] does with an instance.
type State uint8

// The states of an instance.
const (
	StateIdle         State = iota // it has not been dialled, or an attempt has failed and the next is to come
	StateReady                     // gets calls
	StateDraining                  // asked to connect elsewhere; gets calls only if no other can be asked
	StateEjected                   // gets no calls for a while
	StateReconnecting              // its connection was lost
	StateLeaving                   // is no longer among the instances; some calls are under way
)

// String returns the name in lower case.
func (s State) String() string {
	switch s {
	case StateIdle:
		return "idle"
	case StateReady:
		return "ready"
	case StateDraining:
		return "draining"
	case StateEjected:
		return "ejected"
	case StateReconnecting:
		return "reconnecting"
	case StateLeaving:
		return "leaving"
	}
	return "unknown"
}

// InstanceStats is what a [Client] knows of an instance.
type InstanceStats struct {
	Instance Instance
	State    State

	InFlight     int           // calls under way, and streams open
	Latency      time.Duration // moving average, see [LowLatency]; 0 if none was measured
	EjectedUntil time.Time     // zero if it is not ejected
	Picks        uint64        // calls that were sent there, also again
	Failures     uint64        // connections lost, errors of code rpc.Unavailable, calls that took too long
	Err          error         // why it has no connection, nil if it has, or none was tried
}

// Stats returns what is known of the instances: those of the subset, and those that have
// left while calls are under way, sorted by address.
func (c *Client) Stats() []InstanceStats {
	now := c.now()
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]InstanceStats, 0, len(c.members)+len(c.leaving))
	for _, members := range []map[string]*member{c.members, c.leaving} {
		for _, m := range members {
			all = append(all, c.statsOf(m, now))
		}
	}
	slices.SortFunc(all, func(a, b InstanceStats) int { return strings.Compare(a.Instance.Address, b.Instance.Address) })
	return all
}

// statsOf returns what is known of a member. mu is held.
func (c *Client) statsOf(m *member, now int64) InstanceStats {
	s := InstanceStats{
		Instance: m.instance.Load().Instance,
		InFlight: int(max(m.inflight.Load(), 0)),
		Latency:  time.Duration(math.Float64frombits(m.latency.Load())),
		Picks:    m.picks.Load(),
		Failures: m.failures.Load(),
		Err:      m.lastErr,
	}
	if until := m.ejectedUntil.Load(); until > now {
		s.EjectedUntil = c.epoch.Add(time.Duration(until))
	}
	switch stub := m.stub.Load(); {
	case m.gone.Load():
		s.State = StateLeaving
	case stub == nil:
		s.State = StateIdle
	case !s.EjectedUntil.IsZero():
		s.State = StateEjected
	default:
		switch stub.Peer().State() {
		case rpc.StateConnected:
			s.State, s.Err = StateReady, nil
		case rpc.StateDraining:
			s.State = StateDraining
		default:
			s.State = StateReconnecting
		}
	}
	return s
}
