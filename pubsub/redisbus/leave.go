package redisbus

import (
	"context"
	"fmt"
	"slices"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/pubsub"
)

// arrival is an event that came in through a bridge, in the context of its emission.
type arrival struct {
	bus  *pubsub.Bus
	node string
	hops int
}

type (
	// arrivalKey has the *arrival in the context of the emission, and so in those of
	// emissions that its handlers begin.
	arrivalKey struct{}

	// passedKey has the *arrival whose own emission has come past the bridge: what comes
	// past it under that context is another emission, begun by a handler.
	passedKey struct{ bridge *Bridge }
)

// Node returns the id of the node where the event was emitted whose handler has the
// context, and false if that is this node.
func Node(ctx context.Context) (id string, ok bool) {
	if a, ok := ctx.Value(arrivalKey{}).(*arrival); ok {
		return a.node, true
	}
	return "", false
}

// middleware sees all emissions of the bus, before their handlers. A subscription would
// not do: its result would be one of the results, a fold would call it, and an error
// before it would keep the event from leaving.
func (b *Bridge) middleware(next pubsub.Handler) pubsub.Handler {
	return func(ctx context.Context, e pubsub.Event) (any, error) {
		return next(b.leave(ctx, e), e)
	}
}

// leave sends the event away unless it stays, and returns the context to go on with.
func (b *Bridge) leave(ctx context.Context, e pubsub.Event) context.Context {
	hops := 0
	if a, _ := ctx.Value(arrivalKey{}).(*arrival); a != nil {
		passed, _ := ctx.Value(passedKey{b}).(*arrival)
		if a.bus == b.bus && passed != a {
			return context.WithValue(ctx, passedKey{b}, a) // this is what came in
		}
		hops = a.hops + 1
	}
	_, cameIn := e.Payload().(*payload)
	if cameIn || ctx.Err() != nil || b.isInternal(e.Name()) || !b.wants(e.Name()) {
		return ctx
	}
	if hops > b.cfg.maxHops() {
		b.stats.looped.Add(1)
		b.complain("an event is an answer to an answer to an answer, and stays here", "event", e.Name(), "hops", hops)
	} else if b.out.passes() {
		b.out.add(b.encode(e, hops))
	}
	return ctx
}

// encode returns the message for an event, without its number, nil if there is none.
func (b *Bridge) encode(e pubsub.Event, hops int) message {
	m, err := b.tryEncode(e, hops)
	switch {
	case err != nil:
		b.stats.unencodable.Add(1)
		b.complain("an event has no form on the wire, and stays here", "event", e.Name(), "error", err)
		return nil
	case len(m)+seqBytes > b.cfg.maxMessageBytes():
		b.stats.tooLarge.Add(1)
		b.complain("an event is too large, and stays here", "event", e.Name(), "bytes", len(m))
		return nil
	}
	return m
}

func (b *Bridge) tryEncode(e pubsub.Event, hops int) (m message, err error) {
	defer func() {
		if r := recover(); r != nil { // of a type that encodes itself
			m, err = nil, errorf(code.Internal, "a panic: %v", fmt.Sprint(r))
		}
	}()
	args, err := e.Args()
	if err != nil {
		return nil, err
	}
	m = make(message, 0, len(b.head)+len(e.Name())+64)
	m = append(m, b.head...)
	m, err = appendEvent(m, e.Name(), hops, args)
	return slices.Grow(m, seqBytes), err
}
