package pubsub

// tree is an immutable set of subscriptions, in the order in which handlers run: a
// treap whose nodes are copied on the way to a change. A change takes time and memory
// logarithmic in the size, and readers need no lock: a root never changes.
type tree struct {
	sub         *Subscription
	left, right *tree
}

// insert returns t with s, which must not be in it.
func (t *tree) insert(s *Subscription) *tree {
	switch {
	case t == nil:
		return &tree{sub: s}
	case s.weight > t.sub.weight:
		left, right := t.split(s)
		return &tree{s, left, right}
	case s.before(t.sub):
		return &tree{t.sub, t.left.insert(s), t.right}
	}
	return &tree{t.sub, t.left, t.right.insert(s)}
}

// remove returns t without s.
func (t *tree) remove(s *Subscription) *tree {
	switch {
	case t == nil:
		return nil
	case t.sub == s:
		return merge(t.left, t.right)
	case s.before(t.sub):
		return &tree{t.sub, t.left.remove(s), t.right}
	}
	return &tree{t.sub, t.left, t.right.remove(s)}
}

// split returns what runs before s and what runs after it.
func (t *tree) split(s *Subscription) (before, after *tree) {
	switch {
	case t == nil:
		return nil, nil
	case s.before(t.sub):
		before, after = t.left.split(s)
		return before, &tree{t.sub, after, t.right}
	}
	before, after = t.right.split(s)
	return &tree{t.sub, t.left, before}, after
}

// merge returns both trees as one. All of a runs before all of b.
func merge(a, b *tree) *tree {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.sub.weight > b.sub.weight:
		return &tree{a.sub, a.left, merge(a.right, b)}
	}
	return &tree{b.sub, merge(a, b.left), b.right}
}

// appendTo appends the subscriptions in order.
func (t *tree) appendTo(dst []*Subscription) []*Subscription {
	if t == nil {
		return dst
	}
	dst = append(t.left.appendTo(dst), t.sub)
	return t.right.appendTo(dst)
}
