package discover

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// book is what the registry knows of the nodes, besides what the view shows of them. It
// is owned by the goroutine that reads.
type book struct {
	cfg     *Config
	entries map[string]*entry
	shown   int             // entries with a node
	offers  map[Service]int // how many nodes offer it
	changes []change        // since the last publication
}

// entry is a node that is in the view, or was in the index and is not there.
type entry struct {
	id       string
	node     *Node  // nil if it is not in the view
	fields   fields // what node was made of, but for the timestamp
	deadline time.Time
	goneAt   time.Time // when a suspect node is gone
	absent   time.Time // since when there is neither heartbeat nor record
	tidied   time.Time // when its remains were asked to be removed
}

// slack is how long after its deadline a node is looked at.
const slack = 2 * time.Millisecond

func newBook(cfg *Config) *book {
	return &book{cfg: cfg, entries: make(map[string]*entry), offers: make(map[Service]int)}
}

// outcome is what came of a reading.
type outcome struct {
	refused  error // why the record is not in the view
	odd      int   // parts that were left out of it
	crowded  bool  // there are too many nodes
	isAbsent bool  // there is nothing
}

// apply enters a reading that came at that time. Somebody may have said that the node has
// left. Those who are suspect may go if their time was over at asked.
func (b *book) apply(id string, got *reading, left bool, asked, now time.Time) (o outcome) {
	e := b.entries[id]
	alive := got.ttl > 0
	o.isAbsent = !alive && !got.fields.exists()
	if alive {
		if e != nil && e.node != nil && !e.node.Suspect && e.isSame(&got.fields) {
			e.deadline = now.Add(got.ttl)
			return o
		}
		var n *Node
		if n, o.odd, o.refused = decode(id, &got.fields, b.cfg); o.refused == nil {
			o.crowded = !b.put(n, &got.fields, now.Add(got.ttl))
			return o
		}
	}
	switch { // it is not alive, or what it says makes no sense
	case e == nil:
		if o.isAbsent && len(b.entries)-b.shown < b.cfg.maxNodes() {
			b.entries[id] = &entry{id: id, absent: now}
		}
	case e.node == nil:
		if !o.isAbsent {
			delete(b.entries, id)
		} else if e.absent.IsZero() {
			e.absent = now
		}
	case left && o.isAbsent, e.node.Suspect && !asked.Before(e.goneAt):
		b.remove(e, now)
	case !e.node.Suspect:
		e.goneAt = later(e.deadline, now).Add(b.cfg.grace())
		b.replace(e, func(n *Node) { n.Suspect = true })
	}
	return o
}

// isSame reports whether a record says what the entry says.
func (e *entry) isSame(f *fields) bool {
	g := *f
	g[fieldTimestamp] = ""
	return g == e.fields
}

// put enters a node that lives, unless there are too many.
func (b *book) put(n *Node, f *fields, deadline time.Time) bool {
	e := b.entries[n.ID]
	if e == nil || e.node == nil {
		if b.shown >= b.cfg.maxNodes() {
			return false
		}
		e = &entry{id: n.ID}
		b.entries[n.ID] = e
		b.shown++
	}
	e.fields, e.deadline = *f, deadline
	e.fields[fieldTimestamp] = ""
	e.goneAt = time.Time{}
	if e.node == nil || !e.node.same(n) {
		b.changes = append(b.changes, change{before: e.node, after: n})
		e.node = n
	}
	return true
}

// replace has a changed copy of its node take its place.
func (b *book) replace(e *entry, f func(*Node)) {
	n := *e.node
	f(&n)
	b.changes = append(b.changes, change{before: e.node, after: &n})
	e.node = &n
}

func (b *book) remove(e *entry, now time.Time) {
	b.changes = append(b.changes, change{before: e.node})
	*e = entry{id: e.id, absent: now}
	b.shown--
}

// shows reports whether a node is in the view.
func (b *book) shows(id string) bool {
	e := b.entries[id]
	return e != nil && e.node != nil
}

// order sorts what is in the view before what is not, so that strangers keep nobody out.
func (b *book) order(x, y string) int {
	if sx, sy := b.shows(x), b.shows(y); sx != sy {
		if sx {
			return -1
		}
		return 1
	}
	return strings.Compare(x, y)
}

// known returns the ids of the nodes of the view.
func (b *book) known() []string {
	ids := make([]string, 0, b.shown)
	for id, e := range b.entries {
		if e.node != nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// due returns the nodes whose time has passed, and when the next one's passes.
func (b *book) due(now time.Time) (ids []string, next time.Time) {
	for id, e := range b.entries {
		if e.node == nil {
			continue
		}
		at := e.deadline.Add(slack)
		if e.node.Suspect {
			at = e.goneAt
		}
		switch {
		case !at.After(now):
			ids = append(ids, id)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return ids, next
}

// shift moves all times: while Redis is away none passes.
func (b *book) shift(by time.Duration) {
	for _, e := range b.entries {
		if e.node != nil {
			e.deadline = e.deadline.Add(by)
			e.goneAt = e.goneAt.Add(by)
		}
	}
}

// overdue reports whether the time of a suspect node is over.
func (b *book) overdue(now time.Time) bool {
	for _, e := range b.entries {
		if e.node != nil && e.node.Suspect && !now.Before(e.goneAt) {
			return true
		}
	}
	return false
}

// spare gives those who are suspect time until then.
func (b *book) spare(until time.Time) {
	for _, e := range b.entries {
		if e.node != nil && e.node.Suspect {
			e.goneAt = later(e.goneAt, until)
		}
	}
}

// remains returns ids of the index that have had neither heartbeat nor record for longer
// than age, at most so many, and forgets those that are not in the index.
func (b *book) remains(index map[string]bool, now time.Time, age time.Duration, most int) []string {
	var ids []string
	for id, e := range b.entries {
		switch {
		case e.node != nil:
		case !index[id]:
			delete(b.entries, id)
		case len(ids) < most && now.Sub(e.absent) >= age && now.Sub(e.tidied) >= age:
			e.tidied = now
			ids = append(ids, id)
		}
	}
	return ids
}

// publish returns the nodes of the view as they are now, with what has changed since the
// last time and the events of that.
func (b *book) publish() (nodes []*Node, changes []change, events []Event) {
	changes, b.changes = b.changes, nil
	if len(changes) == 0 {
		return nil, nil, nil
	}
	nodes = make([]*Node, 0, b.shown)
	for e := range maps.Values(b.entries) {
		if e.node != nil {
			nodes = append(nodes, e.node)
		}
	}
	return nodes, changes, changesOf(nil, changes, b.offers)
}

func contains(services []Service, s Service) bool { return slices.Contains(services, s) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
