package redisbus

import (
	"context"
	"strings"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/pubsub"
)

func (e *envelope) size() int { return len(e.args) + len(e.name) + len(e.node) }

// arrive looks at a message of the channel. It runs on the goroutine of the session and
// must not block, or Redis would be taken for dead.
func (b *Bridge) arrive(m rueidis.PubSubMessage) {
	if strings.HasPrefix(m.Message, b.head) {
		b.stats.own.Add(1)
		return
	}
	if len(m.Message) > b.cfg.maxMessageBytes() {
		b.stats.refused.Add(1)
		b.complain("a message is too large", "bytes", len(m.Message))
		return
	}
	e, err := parseEnvelope([]byte(m.Message), b.cfg.Limits)
	switch {
	case err != nil:
		b.stats.malformed.Add(1)
		b.complain("a message is no event", "error", err)
	case e.node == b.self.node: // another bridge of this node
		b.stats.own.Add(1)
	case !b.inOrder(&e):
		b.stats.repeated.Add(1)
	case b.bus.CheckName(e.name) != nil || b.isInternal(e.name):
		b.stats.refused.Add(1)
		b.complain("an event has a name that does not travel", "event", e.name, "node", e.node)
	case !b.wants(e.name):
		b.stats.ignored.Add(1)
	case !b.in.put(&e):
		b.stats.overflowed.Add(1)
	}
}

// inOrder reports whether the event is behind all others of its emitter, and counts those
// that are missing between.
func (b *Bridge) inOrder(e *envelope) bool {
	last, known := b.heard[e.emitter]
	switch {
	case !known:
		for other := range b.heard {
			if len(b.heard) < b.cfg.maxNodes() {
				break
			}
			delete(b.heard, other)
		}
	case e.seq <= last:
		return false
	default:
		b.stats.missed.Add(e.seq - last - 1)
	}
	b.heard[e.emitter] = e.seq
	return true
}

// deliver emits what has arrived, one event after another.
func (b *Bridge) deliver(ctx context.Context) {
	var batch []*envelope
	for ctx.Err() == nil {
		batch = b.in.take(batch[:0], 1)
		if len(batch) == 0 {
			select {
			case <-b.in.wake:
			case <-ctx.Done():
			}
			continue
		}
		b.emit(ctx, batch[0])
	}
}

func (b *Bridge) emit(ctx context.Context, e *envelope) {
	b.stats.received.Add(1)
	ctx = context.WithValue(ctx, arrivalKey{}, &arrival{bus: b.bus, node: e.node, hops: e.hops})
	ctx, cancel := context.WithTimeout(ctx, b.cfg.handlerTimeout())
	defer cancel()
	event := pubsub.NewEvent(e.name, &payload{encoded: e.args, limits: b.cfg.Limits, bad: &b.stats.undecodable})
	if _, err := b.bus.With().EmitEvent(ctx, pubsub.OpParallel, event); err != nil {
		b.stats.failed.Add(1)
		b.log.Debug("redisbus: a handler failed", "event", e.name, "node", e.node, "error", err)
	}
}
