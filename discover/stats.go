package discover

import "sync/atomic"

// Stats are counters of a registry since it was made, and what it has now.
type Stats struct {
	Nodes   int    // in the view, now
	Suspect int    // of those
	Views   uint64 // how often the view has changed

	// The own node.
	Beats     uint64 // signs of life that Redis has confirmed
	Announced uint64 // changes that were announced
	Conflicts uint64 // how often another process took the id: see ErrTaken
	Takeovers uint64 // how often this one took the id of a process that was alive a moment before

	// Redis.
	Failures uint64 // times that it did not do what it was asked
	Fences   uint64 // times that it was asked whether the view is current
	Fresh    uint64 // calls of Fresh that it has answered
	Heard    uint64 // announcements of others
	Own      uint64 // announcements of this node, which Redis sends back

	// What makes no sense.
	Malformed uint64 // announcements
	Refused   uint64 // readings of records that are not in the view for that, and ids
	Odd       uint64 // parts of records that were left out: services, metadata, zone, weight, scheme
	Crowded   uint64 // readings of nodes beyond MaxNodes

	// Besides.
	LostEvents uint64 // events for which there was no room in the queue of a watcher
	Tidied     uint64 // remains of nodes that were removed from the index
}

// counters are what Stats reads.
type counters struct {
	views, beats, announced, conflicts, takeovers atomic.Uint64
	failures, fences, fresh, heard, own           atomic.Uint64
	malformed, refused, odd, crowded, tidied      atomic.Uint64
}

// Stats returns the counters. They are read one after another, while others count.
func (r *Registry) Stats() Stats {
	c, v := &r.stats, r.view.Load()
	r.watchers.mu.Lock()
	lost := r.watchers.missed
	r.watchers.mu.Unlock()
	return Stats{
		Nodes:      len(v.nodes),
		Suspect:    len(v.nodes) - v.trusted,
		Views:      c.views.Load(),
		Beats:      c.beats.Load(),
		Announced:  c.announced.Load(),
		Conflicts:  c.conflicts.Load(),
		Takeovers:  c.takeovers.Load(),
		Failures:   c.failures.Load(),
		Fences:     c.fences.Load(),
		Fresh:      c.fresh.Load(),
		Heard:      c.heard.Load(),
		Own:        c.own.Load(),
		Malformed:  c.malformed.Load(),
		Refused:    c.refused.Load(),
		Odd:        c.odd.Load(),
		Crowded:    c.crowded.Load(),
		LostEvents: lost,
		Tidied:     c.tidied.Load(),
	}
}
