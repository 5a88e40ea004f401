package balance

import (
	"context"
	"math"
	"sync"
)

// affinity is what the context of a call says about who is to serve it.
type affinity struct {
	key    uint64 // hash
	keyed  bool
	sticky *sticky // nil if it is not
}

type affinityKey struct{}

func affinityOf(ctx context.Context) *affinity {
	a, _ := ctx.Value(affinityKey{}).(*affinity)
	return a
}

// WithKey returns a context whose calls go to the instance that the key belongs to, whatever the
// policy: the same one for all clients that know the same instances, have no subset, and can reach
// it. When an instance leaves its keys alone are spread over the others.
func WithKey(ctx context.Context, key string) context.Context {
	return context.WithValue(ctx, affinityKey{}, &affinity{key: hashOf(key), keyed: true})
}

// Sticky returns a context whose calls of a client all go to the instance that the first of them went
// to, by the policy or by its key, as long as that can be asked; then they move to another one.
// Calls that begin at the same time before any was answered may go to different ones.
func Sticky(ctx context.Context) context.Context {
	a := &affinity{sticky: &sticky{}}
	if outer := affinityOf(ctx); outer != nil {
		a.key, a.keyed = outer.key, outer.keyed
	}
	return context.WithValue(ctx, affinityKey{}, a)
}

// sticky remembers where calls went.
type sticky struct {
	mu sync.Mutex
	at map[*Client]*member // guarded by mu
}

func (s *sticky) get(c *Client) *member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at[c]
}

func (s *sticky) set(c *Client, m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == nil {
		s.at = make(map[*Client]*member)
	}
	s.at[c] = m
}

// hashOf is FNV-1a with its bits mixed: it is the same in all processes.
func hashOf(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

// mix is the finalizer of splitmix64.
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return h ^ h>>31
}

// claim is how strongly an instance claims a key by rendezvous hashing: the highest one
// has it.
func claim(key, instance uint64, weight float64) float64 {
	u := (float64(mix(key^instance)>>11) + 0.5) / (1 << 53) // in (0, 1)
	return -weight / math.Log(u)
}
