package rpc

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
)

// Pool is several connections to one peer, each of them a [Peer] of its own, for more
// calls than one connection carries: it has one goroutine that reads on each side. All
// methods may be called by any number of goroutines.
type Pool struct {
	peers []*Peer
}

// scannedPeers is up to how many peers a pool looks at all of them for the one with the
// fewest calls. Of more it looks at two, chosen at random, which spreads calls nearly as
// well.
const scannedPeers = 4

// NewPool returns a pool of peers, which it takes. There must be at least one.
func NewPool(peers ...*Peer) (*Pool, error) {
	if len(peers) == 0 {
		return nil, Errorf(InvalidArgument, "rpc: a pool needs at least one peer")
	}
	return &Pool{peers: slices.Clone(peers)}, nil
}

// Peer returns the peer with the fewest calls under way of those that are connected; for
// more than four peers, the better one of two chosen at random. If none is connected it is
// any of them, whose calls fail or wait as those of every peer without a connection do.
// Ask for each call anew.
func (p *Pool) Peer() *Peer { return p.peers[p.pick()] }

// Peers returns all peers, also those that have no connection at the moment.
func (p *Pool) Peers() []*Peer { return slices.Clone(p.peers) }

// Close closes all peers, for good, and waits for their end.
func (p *Pool) Close() error {
	for _, peer := range p.peers {
		peer.CloseWith(closeNormal, "")
	}
	var errs []error
	for _, peer := range p.peers {
		errs = append(errs, peer.Close())
	}
	return errors.Join(errs...)
}

// pick returns the index of the peer for the next call.
func (p *Pool) pick() int {
	n := len(p.peers)
	if n <= scannedPeers {
		return p.best(rand.IntN(n))
	}
	a, b := rand.IntN(n), rand.IntN(n-1)
	if b >= a {
		b++
	}
	switch first, second := p.peers[a].load(), p.peers[b].load(); {
	case first >= away && second >= away:
		return p.best(a)
	case second < first:
		return b
	}
	return a
}

// best returns the index of the peer with the least load, the first one from start on.
func (p *Pool) best(start int) int {
	n := len(p.peers)
	best, least := start, p.peers[start].load()
	for i := 1; i < n && least > 0; i++ {
		at := (start + i) % n
		if load := p.peers[at].load(); load < least {
			best, least = at, load
		}
	}
	return best
}

// Loads of peers that should not be called: one that drains still serves calls, or refuses
// them in words.
const (
	away = 1 << 40
	gone = 1 << 50
)

// load returns how many calls the peer has not answered, and more if it is not connected.
func (p *Peer) load() int64 {
	c := p.conn.Load()
	if c == nil {
		return gone
	}
	n := int64(c.session.Pending())
	switch {
	case c.session.Err() != nil:
		return gone + n
	case State(p.life.state.Load()) != StateConnected:
		return away + n
	}
	return n
}

// PoolClient is a service as the peers of a [Pool] have it. Get one by [QueryPool].
type PoolClient[T any] struct {
	pool    *Pool
	clients []*T
}

// Pick returns the service at the peer that [Pool.Peer] returns, for the next call:
//
//	sum, err := calculator.Pick().Add(ctx, 2, 3)
func (c *PoolClient[T]) Pick() *T { return c.clients[c.pool.pick()] }

// QueryPool asks all peers of a pool for a service, as [Query] does. All of them must have
// it, and be connected, or come back in time if ctx is one of [RetryUnsent]. What it
// returns stays good when they reconnect.
func QueryPool[T any](ctx context.Context, p *Pool, qualified string) (*PoolClient[T], error) {
	c := &PoolClient[T]{pool: p, clients: make([]*T, len(p.peers))}
	errs := make([]error, len(p.peers))
	var wg sync.WaitGroup
	for i, peer := range p.peers {
		wg.Go(func() { c.clients[i], errs[i] = Query[T](ctx, peer, qualified) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err // the others will hardly say anything else
		}
	}
	return c, nil
}
