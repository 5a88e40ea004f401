package resilience

import (
	"context"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/d-e-v-grid/netron/rpc"
)

// InterfacesConfig describes [Interfaces].
type InterfacesConfig struct {
	// TTL is how long a client is used before the peer is asked again. Default 1 min.
	TTL time.Duration

	// MaxEntries limits the clients kept. Those not used for the longest time go first.
	// Default 4,096.
	MaxEntries int
}

// Interfaces keeps the clients that [rpc.Query] returns, for those who ask again and again.
// A client that somebody has stays good after it has left: see [rpc.Query]. All methods may
// be called by many goroutines at a time.
type Interfaces[T any] struct {
	ttl     time.Duration
	flights flights[interfaceKey, *T]
	lru     *simplelru.LRU[interfaceKey, client[T]] // guarded by flights.mu
}

// interfaceKey is what a client depends on.
type interfaceKey struct {
	peer      *rpc.Peer
	qualified string
}

type client[T any] struct {
	client  *T
	expires time.Time
}

// NewInterfaces returns an empty cache.
func NewInterfaces[T any](cfg InterfacesConfig) *Interfaces[T] {
	c := &Interfaces[T]{ttl: orDefault(cfg.TTL, time.Minute)}
	var err error
	if c.lru, err = simplelru.NewLRU[interfaceKey, client[T]](orDefault(cfg.MaxEntries, 4096), nil); err != nil {
		panic("BUG: cache of no entries: " + err.Error())
	}
	return c
}

// Query is [rpc.Query], unless the peer was asked for the same name within the TTL. Of those
// who ask at a time one sends the question, and all get its outcome; if the context of that
// one ends first, another asks. Errors are not kept, nor anything of a peer that has been
// given up.
func (c *Interfaces[T]) Query(ctx context.Context, p *rpc.Peer, qualified string) (*T, error) {
	k := interfaceKey{p, qualified}
	return c.flights.do(ctx, k,
		func() (*T, bool) { return c.kept(k) },
		func(v *T) {
			if p.Err() == nil {
				c.lru.Add(k, client[T]{v, time.Now().Add(c.ttl)})
			}
		},
		func() (*T, error) { return rpc.Query[T](ctx, p, qualified) })
}

// kept returns a client that is kept. flights.mu is held.
func (c *Interfaces[T]) kept(k interfaceKey) (*T, bool) {
	v, ok := c.lru.Get(k)
	if ok && (!time.Now().Before(v.expires) || k.peer.Err() != nil) {
		c.lru.Remove(k)
		return nil, false
	}
	return v.client, ok
}

// Forget drops what is kept of a peer and a name.
func (c *Interfaces[T]) Forget(p *rpc.Peer, qualified string) {
	c.flights.mu.Lock()
	defer c.flights.mu.Unlock()
	c.lru.Remove(interfaceKey{p, qualified})
}
