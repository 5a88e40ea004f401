package redisbus

import "sync/atomic"

// Stats are counters of a bridge since it was made, and what it holds now. Each event
// emitted here whose name matches the patterns is, in the end, in one counter of the first
// group; and each message of the channel in one of the second. What still waits is not yet.
type Stats struct {
	Connected bool   // now
	Connects  uint64 // how often Redis was found
	Waiting   int    // events that wait for Redis, now
	Arrived   int    // events that wait for the handlers here, now

	// Of this node.
	Sent        uint64 // events that Redis has confirmed
	Lost        uint64 // events that Redis has not confirmed: it was away, or went away meanwhile
	Dropped     uint64 // events for which there was no room in the queue
	TooLarge    uint64 // events beyond MaxMessageBytes
	Unencodable uint64 // events with arguments that have no form on the wire
	Looped      uint64 // events beyond MaxHops

	// Of all nodes.
	Received   uint64 // events of other nodes that were emitted here
	Own        uint64 // events of this node, which Redis sends back
	Overflowed uint64 // events for which there was no room in the queue to the handlers
	Ignored    uint64 // events whose names match no pattern of this bridge
	Repeated   uint64 // events that had been counted as missed or had come before
	Refused    uint64 // events too large, of names that are none or of names that do not travel
	Malformed  uint64 // messages that are no events

	// Besides.
	Missed      uint64 // events of other nodes that did not arrive, whatever they were
	Undecodable uint64 // events received whose arguments did not decode as a handler wanted
	Failed      uint64 // events received for which a handler failed or took too long
}

// counters are what Stats reads.
type counters struct {
	connects                                           atomic.Uint64
	sent, lost, dropped, tooLarge, unencodable, looped atomic.Uint64
	received, own, overflowed, ignored, repeated       atomic.Uint64
	refused, malformed, missed, undecodable, failed    atomic.Uint64
}

// Stats returns the counters. They are read one after another, while others count.
func (b *Bridge) Stats() Stats {
	c := &b.stats
	return Stats{
		Connected:   b.out.connected(),
		Connects:    c.connects.Load(),
		Waiting:     b.out.unsettled(),
		Arrived:     b.in.len(),
		Sent:        c.sent.Load(),
		Lost:        c.lost.Load(),
		Dropped:     c.dropped.Load(),
		TooLarge:    c.tooLarge.Load(),
		Unencodable: c.unencodable.Load(),
		Looped:      c.looped.Load(),
		Received:    c.received.Load(),
		Own:         c.own.Load(),
		Overflowed:  c.overflowed.Load(),
		Ignored:     c.ignored.Load(),
		Repeated:    c.repeated.Load(),
		Refused:     c.refused.Load(),
		Malformed:   c.malformed.Load(),
		Missed:      c.missed.Load(),
		Undecodable: c.undecodable.Load(),
		Failed:      c.failed.Load(),
	}
}
