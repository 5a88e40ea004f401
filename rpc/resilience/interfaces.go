package resilience

import (
	"context"
	"sync"
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
	ttl time.Duration

	mu      sync.Mutex
	lru     *simplelru.LRU[interfaceKey, *client[T]] // guarded by mu
	flights map[interfaceKey]*query[T]               // guarded by mu
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

// query is one under way that others wait for.
type query[T any] struct {
	donec  chan struct{} // closed by the one who asks
	client *T            // valid once donec is closed, as are those below
	err    error
	valid  bool // the outcome is also that of those who wait
}

// NewInterfaces returns an empty cache.
func NewInterfaces[T any](cfg InterfacesConfig) *Interfaces[T] {
	c := &Interfaces[T]{ttl: orDefault(cfg.TTL, time.Minute), flights: make(map[interfaceKey]*query[T])}
	var err error
	if c.lru, err = simplelru.NewLRU[interfaceKey, *client[T]](orDefault(cfg.MaxEntries, 4096), nil); err != nil {
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
	for {
		kept, f, isMine := c.begin(k)
		switch {
		case kept != nil:
			return kept, nil
		case isMine:
			return c.ask(ctx, k, f)
		}
		select {
		case <-f.donec:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if f.valid {
			return f.client, f.err
		}
	}
}

// Forget drops what is kept of a peer and a name.
func (c *Interfaces[T]) Forget(p *rpc.Peer, qualified string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lru.Remove(interfaceKey{p, qualified})
}

// begin returns a client that is kept, or else a query, and whether the caller has to carry
// it out.
func (c *Interfaces[T]) begin(k interfaceKey) (*T, *query[T], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept, ok := c.lru.Get(k); ok {
		if time.Now().Before(kept.expires) && k.peer.Err() == nil {
			return kept.client, nil, false
		}
		c.lru.Remove(k)
	}
	if f := c.flights[k]; f != nil {
		return nil, f, false
	}
	f := &query[T]{donec: make(chan struct{})}
	c.flights[k] = f
	return nil, f, true
}

func (c *Interfaces[T]) ask(ctx context.Context, k interfaceKey, f *query[T]) (*T, error) {
	defer func() { // also after a panic
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.flights, k)
		if f.client != nil && k.peer.Err() == nil {
			c.lru.Add(k, &client[T]{f.client, time.Now().Add(c.ttl)})
		}
		close(f.donec)
	}()
	f.client, f.err = rpc.Query[T](ctx, k.peer, k.qualified)
	f.valid = f.err == nil || ctx.Err() == nil
	return f.client, f.err
}
