package resilience

import (
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// minSweep is the least number of entries that are looked through for those that are
// no longer needed.
const minSweep = 64

// table holds a bounded number of values by key and drops those not used for the
// longest time. Those that are no longer needed go when the table has doubled since
// they were last looked for, so that adding one costs the same on average.
type table[K comparable, V any] struct {
	isDead func(K) bool

	mu      sync.Mutex
	lru     *simplelru.LRU[K, V] // guarded by mu
	sweepAt int                  // length at which to look for dead ones; guarded by mu
}

func newTable[K comparable, V any](limit int, isDead func(K) bool) *table[K, V] {
	lru, err := simplelru.NewLRU[K, V](limit, nil)
	if err != nil {
		panic("BUG: table of no entries: " + err.Error())
	}
	return &table[K, V]{isDead: isDead, lru: lru, sweepAt: minSweep}
}

// get returns the value of a key, which create makes if there is none. create must not
// block.
func (t *table[K, V]) get(key K, create func() V) V {
	t.mu.Lock()
	defer t.mu.Unlock()
	if v, ok := t.lru.Get(key); ok {
		return v
	}
	if t.lru.Len() >= t.sweepAt {
		for _, k := range t.lru.Keys() {
			if t.isDead(k) {
				t.lru.Remove(k)
			}
		}
		t.sweepAt = max(minSweep, 2*t.lru.Len())
	}
	v := create()
	t.lru.Add(key, v)
	return v
}

func (t *table[K, V]) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lru.Len()
}
