package engine

import "sync/atomic"

// Stats counts what has passed over a connection, or all connections of a
// server. Bytes are those on the socket, WebSocket headers included.
type Stats struct {
	BytesIn, BytesOut int64
	MessagesIn        int64
	PingsIn, PingsOut int64
	PongsIn           int64
}

type connCounters struct {
	bytesIn, bytesOut atomic.Int64
	messagesIn        atomic.Int64
	pingsIn, pingsOut atomic.Int64
	pongsIn           atomic.Int64
}

// batchCounts collects the counts of one read, to pay for the atomics once.
type batchCounts struct {
	bytes, messages, pings, pongs int64
}

func (s *connCounters) add(b *batchCounts) {
	s.bytesIn.Add(b.bytes)
	if b.messages > 0 {
		s.messagesIn.Add(b.messages)
	}
	if b.pings > 0 {
		s.pingsIn.Add(b.pings)
	}
	if b.pongs > 0 {
		s.pongsIn.Add(b.pongs)
	}
	*b = batchCounts{}
}

// Stats returns the counts of the connection so far.
func (c *Conn) Stats() Stats {
	s := &c.stats
	return Stats{
		BytesIn: s.bytesIn.Load(), BytesOut: s.bytesOut.Load(),
		MessagesIn: s.messagesIn.Load(),
		PingsIn:    s.pingsIn.Load(), PingsOut: s.pingsOut.Load(),
		PongsIn: s.pongsIn.Load(),
	}
}
