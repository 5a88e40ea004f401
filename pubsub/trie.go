package pubsub

import (
	"strings"
	"sync"
	"sync/atomic"
)

// node is a place in the trie of patterns: the segments up to here. Writers hold the
// mutex of the bus. Readers take no lock: they load pointers, and what these point to
// is immutable, or a map for many readers.
//
// A lookup goes from each place to at most two others, the literal segment and the
// wildcard, so it does not see the patterns that share nothing with the name.
type node struct {
	ends atomic.Pointer[tree]     // patterns that end here
	rest atomic.Pointer[tree]     // patterns that end here with **
	star atomic.Pointer[node]     // the segment *
	kids atomic.Pointer[sync.Map] // other segments: string to *node

	parent  *node
	segment string
	count   int // of kids; guarded by the bus's mutex
}

// find returns the set that a pattern's subscriptions are in, and its node; nil if
// there is none and create is false. The caller holds the bus's mutex if create is true.
func (n *node) find(pattern string, create bool) (*node, *atomic.Pointer[tree]) {
	if pattern == wildcard {
		return n, &n.rest
	}
	for rest, more := pattern, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, separator)
		if segment == wildRest {
			return n, &n.rest
		}
		kid := n.kid(segment)
		if kid == nil {
			if !create {
				return nil, nil
			}
			kid = n.add(segment)
		}
		n = kid
	}
	return n, &n.ends
}

func (n *node) kid(segment string) *node {
	if segment == wildcard {
		return n.star.Load()
	}
	return n.literal(segment)
}

func (n *node) literal(segment string) *node {
	if kids := n.kids.Load(); kids != nil {
		if kid, ok := kids.Load(segment); ok {
			return kid.(*node)
		}
	}
	return nil
}

// add makes the place for a segment. The caller holds the bus's mutex.
func (n *node) add(segment string) *node {
	kid := &node{parent: n, segment: segment}
	if segment == wildcard {
		n.star.Store(kid)
		return kid
	}
	kids := n.kids.Load()
	if kids == nil {
		kids = new(sync.Map)
		n.kids.Store(kids)
	}
	kids.Store(segment, kid)
	n.count++
	return kid
}

// prune removes a place without patterns, and those above that it leaves without any.
// The caller holds the bus's mutex.
func (n *node) prune() {
	for n.parent != nil && n.count == 0 && n.star.Load() == nil && n.ends.Load() == nil && n.rest.Load() == nil {
		parent := n.parent
		if n.segment == wildcard {
			parent.star.Store(nil)
		} else {
			parent.kids.Load().Delete(n.segment)
			if parent.count--; parent.count == 0 {
				parent.kids.Store(nil)
			}
		}
		n = parent
	}
}

// match appends the sets of all patterns that match a name. Wildcards do not count in
// front of an internal name.
func (n *node) match(dst []*tree, name string, internal bool) []*tree {
	segment, rest, more := strings.Cut(name, separator)
	if !internal {
		dst = appendSet(dst, &n.rest)
		dst = n.star.Load().matchRest(dst, rest, more)
	}
	return n.literal(segment).matchRest(dst, rest, more)
}

func (n *node) matchRest(dst []*tree, rest string, more bool) []*tree {
	switch {
	case n == nil:
		return dst
	case !more:
		return appendSet(dst, &n.ends)
	}
	return n.match(dst, rest, false)
}

func appendSet(dst []*tree, set *atomic.Pointer[tree]) []*tree {
	if t := set.Load(); t != nil {
		return append(dst, t)
	}
	return dst
}

// walk calls visit for each set in the trie.
func (n *node) walk(visit func(*tree)) {
	for _, set := range []*atomic.Pointer[tree]{&n.ends, &n.rest} {
		if t := set.Load(); t != nil {
			visit(t)
		}
	}
	if star := n.star.Load(); star != nil {
		star.walk(visit)
	}
	if kids := n.kids.Load(); kids != nil {
		kids.Range(func(_, kid any) bool {
			kid.(*node).walk(visit)
			return true
		})
	}
}
