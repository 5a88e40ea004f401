package pubsub

import (
	"context"
	"errors"
	"math"
	"runtime/debug"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Emitter emits events on a bus in a way of its own. [Bus.With] makes one. It is a
// value, for any number of goroutines; the zero value is of no use.
type Emitter struct {
	bus        *Bus
	limit      int
	rule       rule
	privileged bool // internal events too
}

// rule says what becomes of errors.
type rule uint8

const (
	ruleDefault rule = iota // that of the operation
	ruleFirst
	ruleAll
)

// EmitOption changes how an [Emitter] emits.
type EmitOption func(*Emitter)

// Concurrency limits how many handlers of a parallel emission run at a time. Below 1
// there is no limit. Handlers that are started by one emission are taken in order.
func Concurrency(n int) EmitOption {
	return func(e *Emitter) {
		if n < 1 {
			n = math.MaxInt32
		}
		e.limit = n
	}
}

// FirstError has a parallel emission return as soon as a handler fails, with the error
// of that one. The others are not stopped.
func FirstError() EmitOption { return func(e *Emitter) { e.rule = ruleFirst } }

// AllErrors has a serial emission go on after errors, and return all of them.
func AllErrors() EmitOption { return func(e *Emitter) { e.rule = ruleAll } }

// Target is where events are emitted: a [Bus], or an [Emitter] of one.
type Target interface {
	emitter() Emitter
}

func (b *Bus) emitter() Emitter    { return Emitter{bus: b, limit: b.cfg.concurrency()} }
func (e Emitter) emitter() Emitter { return e }

// With returns an emitter for the bus with other ways than the default.
func (b *Bus) With(opts ...EmitOption) Emitter { return b.emitter().With(opts...) }

// With returns the emitter with more options.
func (e Emitter) With(opts ...EmitOption) Emitter {
	for _, opt := range opts {
		opt(&e)
	}
	return e
}

// Bus returns where the emitter emits.
func (e Emitter) Bus() *Bus { return e.bus }

// EmitParallel has all handlers of the event run at the same time, and waits for them. A
// handler that blocks does not keep others from running, unless [Concurrency] says so.
//
// The results are in the order of the handlers: by priority, then by subscription. A
// handler that failed has the result nil. If all results are nil there is no slice.
//
// All handlers run, whatever others return; their errors are joined in that order. With
// [FirstError] it does not wait after one.
//
// When ctx ends EmitParallel returns at once, with the results and errors of those that
// have ended, and an error for which [errors.Is] says what ctx says. Handlers that have
// not begun never will; others are left behind.
//
// Errors of the bus are those of names, limits and [ErrClosed]; see [Error].
func (b *Bus) EmitParallel(ctx context.Context, name string, args ...any) ([]any, error) {
	return b.emitter().EmitParallel(ctx, name, args...)
}

// EmitParallel is like [Bus.EmitParallel].
func (e Emitter) EmitParallel(ctx context.Context, name string, args ...any) ([]any, error) {
	o, err := e.emit(ctx, call{op: OpParallel}, Event{name: name, args: args})
	return o.results, err
}

// EmitSerial has the handlers of the event run one after another, by priority, then by
// subscription. It stops at the first error and returns it with the results until then;
// with [AllErrors] it goes on and joins them.
//
// Results, and the end of ctx, are like those of [Bus.EmitParallel].
func (b *Bus) EmitSerial(ctx context.Context, name string, args ...any) ([]any, error) {
	return b.emitter().EmitSerial(ctx, name, args...)
}

// EmitSerial is like [Bus.EmitSerial].
func (e Emitter) EmitSerial(ctx context.Context, name string, args ...any) ([]any, error) {
	o, err := e.emit(ctx, call{op: OpSerial}, Event{name: name, args: args})
	return o.results, err
}

// Reducer folds the result of a handler into what was gathered before.
type Reducer func(acc, result any) (any, error)

// EmitReduce has the handlers of the event run one after another with the same
// arguments, and folds their results: it returns reduce(... reduce(reduce(initial,
// first), second) ..., last), and initial if there are no handlers.
//
// It stops at the first error, of a handler or of reduce, and returns nil with it. When
// ctx ends it returns at once, like [Bus.EmitParallel]; reduce may still be running then.
func (b *Bus) EmitReduce(ctx context.Context, name string, reduce Reducer, initial any, args ...any) (any, error) {
	return b.emitter().EmitReduce(ctx, name, reduce, initial, args...)
}

// EmitReduce is like [Bus.EmitReduce].
func (e Emitter) EmitReduce(ctx context.Context, name string, reduce Reducer, initial any, args ...any) (any, error) {
	o, err := e.emit(ctx, call{op: OpReduce, reduce: reduce, initial: initial}, Event{name: name, args: args})
	return o.value, err
}

// EmitReduceRight is like [Bus.EmitReduce], from the last handler to the first.
func (b *Bus) EmitReduceRight(ctx context.Context, name string, reduce Reducer, initial any, args ...any) (any, error) {
	return b.emitter().EmitReduceRight(ctx, name, reduce, initial, args...)
}

// EmitReduceRight is like [Bus.EmitReduceRight].
func (e Emitter) EmitReduceRight(ctx context.Context, name string, reduce Reducer, initial any, args ...any) (any, error) {
	o, err := e.emit(ctx, call{op: OpReduceRight, reduce: reduce, initial: initial}, Event{name: name, args: args})
	return o.value, err
}

// EmitChain has the first handler of the event run with the arguments, and each other
// one with the result of the one before: with its elements if it is a []any, else with
// the result alone. It returns the last result, and args if there are no handlers. This
// is what emitReduce of the TypeScript library does.
//
// Errors and the end of ctx are those of [Bus.EmitReduce].
func (b *Bus) EmitChain(ctx context.Context, name string, args ...any) (any, error) {
	return b.emitter().EmitChain(ctx, name, args...)
}

// EmitChain is like [Bus.EmitChain].
func (e Emitter) EmitChain(ctx context.Context, name string, args ...any) (any, error) {
	o, err := e.emit(ctx, call{op: OpChain}, Event{name: name, args: args})
	return o.value, err
}

// EmitChainRight is like [Bus.EmitChain], from the last handler to the first.
func (b *Bus) EmitChainRight(ctx context.Context, name string, args ...any) (any, error) {
	return b.emitter().EmitChainRight(ctx, name, args...)
}

// EmitChainRight is like [Bus.EmitChainRight].
func (e Emitter) EmitChainRight(ctx context.Context, name string, args ...any) (any, error) {
	o, err := e.emit(ctx, call{op: OpChainRight}, Event{name: name, args: args})
	return o.value, err
}

// EmitEvent emits an event that exists already, such as one from a peer whose arguments
// are still encoded. op is [OpParallel] or [OpSerial]. An event that is lent is cloned.
func (e Emitter) EmitEvent(ctx context.Context, op Op, event Event) ([]any, error) {
	if op > OpSerial {
		return nil, errorf(code.InvalidArgument, "emit %s: an event is emitted in parallel or serially, not %v", event.name, op)
	}
	o, err := e.emit(ctx, call{op: op}, event.Clone())
	return o.results, err
}

// LendEvent has handlers run one after another with an event that may be lent. Their
// results are dropped, and their errors joined. They are those of the event's name, as
// [Bus.Interest] has found them. Inline handlers must know that the event is lent; on a bus
// with middleware, or if others are among them, all get a clone. Readers clone it.
func (e Emitter) LendEvent(ctx context.Context, to Interest, event Event) error {
	b, r := e.bus, to.route
	if !to.Any() {
		return nil
	}
	if err := b.enter(); err != nil {
		return err
	}
	defer b.leave()
	if b.chain.Load() != nil || r.internal || r.payload || r.scratch || !r.inline {
		e.rule = ruleAll
		_, err := e.emitTo(ctx, r, call{op: OpSerial}, event.Clone()) // not all of them know
		return err
	}
	_, err := b.serial(ctx, r.handlers, &call{op: OpSerial, rule: ruleAll}, &event)
	return err
}

// call is how one emission is carried out.
type call struct {
	op      Op
	rule    rule
	limit   int
	reduce  Reducer
	initial any
}

// stops reports whether a serial emission ends with the first error.
func (c *call) stops() bool { return c.rule != ruleAll }

// isRight reports whether the last handler comes first.
func (c *call) isRight() bool { return c.op == OpReduceRight || c.op == OpChainRight }

// outcome is what an emission returns: results, or one value.
type outcome struct {
	results []any
	value   any
}

func (e Emitter) emit(ctx context.Context, c call, event Event) (outcome, error) {
	b := e.bus
	if err := b.enter(); err != nil {
		return outcome{}, err
	}
	defer b.leave()
	r, err := b.route(event.name)
	if err != nil {
		return outcome{}, err
	}
	return e.emitTo(ctx, r, c, event)
}

// emitTo has the handlers of a route run. The emission has entered the bus.
func (e Emitter) emitTo(ctx context.Context, r *route, c call, event Event) (outcome, error) {
	b := e.bus
	if r.internal && !e.privileged {
		return outcome{}, errorf(code.PermissionDenied, "emit %s: only the node emits it", event.name)
	}
	if c.reduce == nil && (c.op == OpReduce || c.op == OpReduceRight) {
		return outcome{}, errorf(code.InvalidArgument, "emit %s: there is no reducer", event.name)
	}
	c.rule, c.limit = e.rule, e.limit
	if chain := b.chain.Load(); chain != nil {
		kept := c // only what middleware sees lives on the heap
		return b.through(ctx, chain, &kept, event)
	}
	return b.deliver(ctx, r, &c, &event)
}

// deliver has the handlers run. It keeps copies of c and e if anything, and changes e.
func (b *Bus) deliver(ctx context.Context, r *route, c *call, e *Event) (outcome, error) {
	if ctx.Err() != nil {
		return outcome{}, contextError(ctx, "emit "+e.name)
	}
	e.call, e.scratch = nil, nil
	if len(r.handlers) == 0 {
		return b.deliverNobody(c, *e)
	}
	// Only goroutines of the bus can be left behind.
	direct := r.inline || ctx.Done() == nil
	serial := direct && (c.op == OpSerial || c.op == OpParallel && (r.inline || len(r.handlers) == 1))
	switch {
	case r.payload || r.scratch && !serial:
		if err := b.addPayload(e); err != nil {
			return outcome{}, err
		}
	case r.scratch:
		e.scratch, _ = pooledScratches.Get().(*Scratch)
		defer e.scratch.end()
	}
	switch {
	case serial:
		results, err := b.serial(ctx, r.handlers, c, e)
		return outcome{results: results}, err
	case direct && c.op > OpSerial:
		value, err := b.fold(ctx, r.handlers, c, *e)
		return outcome{value: value}, err
	}
	return b.begin(ctx, r.handlers, c, e.Clone()).wait(direct)
}

func (b *Bus) deliverNobody(c *call, e Event) (outcome, error) {
	switch c.op {
	case OpReduce, OpReduceRight:
		return outcome{value: c.initial}, nil
	case OpChain, OpChainRight:
		args, err := e.Args()
		if err != nil {
			return outcome{}, err
		}
		return outcome{value: args}, nil
	}
	return outcome{}, nil
}

// addPayload gives an event a payload, made for all its handlers.
func (b *Bus) addPayload(e *Event) error {
	if b.cfg.Payload == nil || e.isEncoded() {
		return nil
	}
	args, err := e.Args()
	if err != nil {
		return err
	}
	if args == nil {
		args = []any{}
	}
	e.args, e.payload = args, b.cfg.Payload(args)
	return nil
}

// serial runs handlers one after another on this goroutine.
func (b *Bus) serial(ctx context.Context, handlers []*Subscription, c *call, e *Event) (results []any, err error) {
	var failed []error
	called := 0
	defer func() { b.stats.delivered.Add(uint64(called)) }()
	for i, s := range handlers {
		if i > 0 && ctx.Err() != nil {
			failed = append(failed, contextError(ctx, "emit "+e.name))
			break
		}
		if !s.begin() {
			continue
		}
		called++
		v, err := b.handle(ctx, s, e)
		switch {
		case results != nil:
			results = append(results, v)
		case v != nil:
			results = make([]any, called, len(handlers))
			results[called-1] = v
		}
		if err != nil {
			failed = append(failed, err)
			if c.op == OpSerial && c.stops() {
				break
			}
		}
	}
	if c.rule == ruleFirst && len(failed) > 1 {
		failed = failed[:1]
	}
	return results, join(failed)
}

// fold runs handlers one after another on this goroutine, for one value.
func (b *Bus) fold(ctx context.Context, handlers []*Subscription, c *call, e Event) (any, error) {
	acc, called := c.initial, 0
	counts, isNew := false, false // there is a result, and the event does not have it yet
	defer func() { b.stats.delivered.Add(uint64(called)) }()
	for i := range handlers {
		if i > 0 && ctx.Err() != nil {
			return nil, contextError(ctx, "emit "+e.name)
		}
		s := handlers[i]
		if c.isRight() {
			s = handlers[len(handlers)-1-i]
		}
		if !s.begin() {
			continue
		}
		if called++; isNew && c.reduce == nil {
			e, isNew = e.WithArgs(spread(acc)...), false
		}
		v, err := b.handle(ctx, s, &e)
		if err == nil && s.silent {
			continue
		}
		if err == nil && c.reduce != nil {
			v, err = b.reduce(c.reduce, acc, v, e.name)
		}
		if err != nil {
			return nil, err
		}
		acc, counts, isNew = v, true, true
	}
	if !counts {
		o, err := b.deliverNobody(c, e)
		return o.value, err
	}
	return acc, nil
}

// spread returns the arguments that a result becomes.
func spread(result any) []any {
	if args, ok := result.([]any); ok {
		return args
	}
	return []any{result}
}

// handle calls a handler. A failed one has no result.
func (b *Bus) handle(ctx context.Context, s *Subscription, e *Event) (v any, err error) {
	returned := false
	defer func() {
		if !returned {
			v, err = nil, b.caught(recover(), e.name, s.pattern)
		}
	}()
	v, err = s.handler(ctx, *e)
	returned = true
	if err != nil {
		v = nil
	}
	return v, err
}

// reduce calls a reducer.
func (b *Bus) reduce(fold Reducer, acc, result any, name string) (v any, err error) {
	returned := false
	defer func() {
		if !returned {
			v, err = nil, b.caught(recover(), name, "reducer")
		}
	}()
	v, err = fold(acc, result)
	returned = true
	return v, err
}

// caught makes an error of what ended a function in place of a return, and logs it.
func (b *Bus) caught(reason any, name, where string) error {
	b.stats.panics.Add(1)
	if reason == nil {
		reason = "the goroutine was ended" // runtime.Goexit
	}
	b.log.Error("pubsub: panic in a handler", "event", name, "in", where, "panic", reason, "stack", string(debug.Stack()))
	return errorf(code.Internal, "emit %s: a handler panicked", name)
}

// join returns the errors as one, nil if there are none.
func join(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return errors.Join(errs...)
}
