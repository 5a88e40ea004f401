package pubsub

import (
	"context"
	"slices"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Middleware wraps the [Handler] that carries out an emission. What it returns is
// called once for each emission, however many handlers there are, by many goroutines
// at a time: it may look at the event, replace ctx, change the arguments by
// [Event.WithArgs], answer in place of next, call next again, and look at the outcome.
//
// The outcome is what the emission returns: a []any of the results for [OpParallel] and
// [OpSerial], nil if there are none, else one value.
//
// It runs on the goroutine of the emitter, and is not left behind when ctx ends. It is
// called again when middleware was added: what emissions share belongs outside of it.
type Middleware func(next Handler) Handler

// chain is the middleware of a bus, put together.
type chain struct {
	use     []Middleware
	handler Handler
}

// Use adds middleware for all emissions that begin later, also those of internal events.
// The first one is the outermost.
func (b *Bus) Use(m ...Middleware) {
	if len(m) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &chain{handler: b.deliverAny}
	if old := b.chain.Load(); old != nil {
		c.use = slices.Clone(old.use)
	}
	c.use = append(c.use, m...)
	for i := len(c.use) - 1; i >= 0; i-- {
		c.handler = c.use[i](c.handler)
	}
	b.chain.Store(c)
}

// through carries out an emission with middleware.
func (b *Bus) through(ctx context.Context, c *chain, call *call, e Event) (o outcome, err error) {
	e.call = call
	returned := false
	defer func() {
		if !returned {
			o, err = outcome{}, b.caught(recover(), e.name, "middleware")
		}
	}()
	v, err := c.handler(ctx, e)
	returned = true
	if call.op > OpSerial {
		return outcome{value: v}, err
	}
	switch v := v.(type) {
	case nil:
	case []any:
		o.results = v
	default:
		o.results = []any{v}
	}
	return o, err
}

// deliverAny is the innermost handler of the middleware.
func (b *Bus) deliverAny(ctx context.Context, e Event) (any, error) {
	call := e.call
	if call == nil {
		return nil, errorf(code.InvalidArgument, "emit %s: middleware passed on another event than it got", e.name)
	}
	r, err := b.route(e.name)
	if err != nil {
		return nil, err
	}
	o, err := b.deliver(ctx, r, call, &e)
	switch {
	case call.op > OpSerial:
		return o.value, err
	case o.results == nil:
		return nil, err
	}
	return o.results, err
}
