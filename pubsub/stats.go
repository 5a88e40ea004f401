package pubsub

import "sync/atomic"

// Stats are counters of a bus since it was made, and what it holds now.
type Stats struct {
	Subscriptions int    // now
	Running       int    // emissions that have not returned, now
	Workers       int    // goroutines that run handlers, now
	Emitted       uint64 // emissions begun
	Refused       uint64 // emissions refused because the bus was closed
	Overloaded    uint64 // emissions refused because no goroutine was free
	Delivered     uint64 // calls of handlers
	Abandoned     uint64 // emissions whose context ended before their handlers
	Panics        uint64 // panics of handlers, middleware and reducers

	// Of all readers.
	DroppedOldest uint64 // events lost by [DropOldest]
	DroppedNewest uint64 // events lost by [DropNewest]
	TimedOut      uint64 // events lost by [Block], whose bound had passed
	Blocked       uint64 // emissions that had to wait for a reader with [Block]
	Disconnected  uint64 // readers ended by [Disconnect]
	Undecodable   uint64 // events that were not of the type of their reader
}

type counters struct {
	refused, overloaded, delivered, abandoned, panics atomic.Uint64
	droppedOldest, droppedNewest, timedOut, blocked   atomic.Uint64
	disconnected, undecodable                         atomic.Uint64
}

// Stats returns the counters. They are read one after another, while others count.
func (b *Bus) Stats() Stats {
	b.mu.Lock()
	subscriptions := b.count
	b.mu.Unlock()
	c := &b.stats
	refused := c.refused.Load()
	return Stats{
		Subscriptions: subscriptions,
		Running:       int(b.running()),
		Workers:       int(b.workers.Load()),
		Emitted:       b.entered.Load()&^closedBit - refused,
		Refused:       refused,
		Overloaded:    c.overloaded.Load(),
		Delivered:     c.delivered.Load(),
		Abandoned:     c.abandoned.Load(),
		Panics:        c.panics.Load(),
		DroppedOldest: c.droppedOldest.Load(),
		DroppedNewest: c.droppedNewest.Load(),
		TimedOut:      c.timedOut.Load(),
		Blocked:       c.blocked.Load(),
		Disconnected:  c.disconnected.Load(),
		Undecodable:   c.undecodable.Load(),
	}
}
