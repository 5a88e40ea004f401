package pubsub

import (
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync/atomic"
)

// route is what the bus found out about a name. It does not change.
type route struct {
	generation uint64          // of the patterns with wildcards
	handlers   []*Subscription // in the order in which they run
	internal   bool            // the name is reserved
	inline     bool            // all handlers are
	payload    bool            // a handler wants the event with a payload
	scratch    bool            // a handler shares something with others
}

// cache remembers the routes of names that were emitted. It is a table of four-way
// buckets of pointers, read and written without a lock.
//
// A route is never found after what it says has changed, for this order holds: a reader
// puts the entry of a name into its bucket before it looks at the trie, and a writer
// changes the trie before it takes the entry out of its bucket. So the reader sees the
// change in the trie, or the writer sees the entry. Whoever has got hold of the entry
// before that has begun to emit before the change was done. Patterns with wildcards
// change the generation in place of taking out entries, and readers read it before they
// look at the trie.
type cache struct {
	seed    maphash.Seed
	buckets [][cacheWays]atomic.Pointer[cacheEntry]
}

const cacheWays = 4

type cacheEntry struct {
	hash  uint64
	name  string
	route atomic.Pointer[route] // nil until found
}

func newCache(names int) *cache {
	return &cache{seed: maphash.MakeSeed(), buckets: make([][cacheWays]atomic.Pointer[cacheEntry], names/cacheWays)}
}

// entry returns the entry of a name. A new one takes the place of another when its
// bucket is full.
func (c *cache) entry(name string) *cacheEntry {
	hash := maphash.String(c.seed, name)
	bucket := c.bucket(hash)
	free := -1
	for i := range bucket {
		e := bucket[i].Load()
		if e == nil {
			free = i
		} else if e.hash == hash && e.name == name {
			return e
		}
	}
	if free < 0 {
		free = rand.IntN(cacheWays)
	}
	e := &cacheEntry{hash: hash, name: strings.Clone(name)}
	bucket[free].Store(e)
	return e
}

// get returns the entry of a name, nil if there is none.
func (c *cache) get(name string) *cacheEntry {
	hash := maphash.String(c.seed, name)
	bucket := c.bucket(hash)
	for i := range bucket {
		if e := bucket[i].Load(); e != nil && e.hash == hash && e.name == name {
			return e
		}
	}
	return nil
}

// forget takes out a name. Racing readers may have put it in twice.
func (c *cache) forget(name string) {
	hash := maphash.String(c.seed, name)
	bucket := c.bucket(hash)
	for i := range bucket {
		if e := bucket[i].Load(); e != nil && e.hash == hash && e.name == name {
			bucket[i].CompareAndSwap(e, nil)
		}
	}
}

func (c *cache) bucket(hash uint64) *[cacheWays]atomic.Pointer[cacheEntry] {
	return &c.buckets[hash&uint64(len(c.buckets)-1)]
}
