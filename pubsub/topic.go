package pubsub

import (
	"context"
	"iter"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Topic is the name of an event whose only argument is a T. It is a value; declare it
// once, where both sides see it:
//
//	var UserCreated = pubsub.NewTopic[User]("user:created")
//
// Events without an argument, and those whose argument is nil, have the zero value. An
// event with an argument of another type makes its handler fail with invalid_argument.
type Topic[T any] struct{ name string }

// NewTopic returns a topic. The name is checked when the topic is used. It may be a
// pattern, to subscribe to.
func NewTopic[T any](name string) Topic[T] { return Topic[T]{name} }

// Name returns the name.
func (t Topic[T]) Name() string { return t.name }

// Handler returns a handler of events which calls fn with their value, for those who
// subscribe elsewhere than on a bus, such as at a peer. It is nil if fn is.
func (t Topic[T]) Handler(fn func(ctx context.Context, v T) error) Handler {
	if fn == nil {
		return nil
	}
	return func(ctx context.Context, e Event) (any, error) {
		v, err := valueOf[T](e)
		if err != nil {
			return nil, err
		}
		return nil, fn(ctx, v)
	}
}

// Subscribe has handler called for each event of the topic. See [Bus.Subscribe].
func (t Topic[T]) Subscribe(b *Bus, handler func(ctx context.Context, v T) error, opts ...Option) (*Subscription, error) {
	return b.Subscribe(t.name, t.Handler(handler), opts...)
}

// Handle subscribes a handler with a result, for [Reduce] and for those who emit the
// topic's name on the bus.
func Handle[T, R any](b *Bus, t Topic[T], handler func(ctx context.Context, v T) (R, error), opts ...Option) (*Subscription, error) {
	if handler == nil {
		return b.Subscribe(t.name, nil, opts...)
	}
	return b.Subscribe(t.name, func(ctx context.Context, e Event) (any, error) {
		v, err := valueOf[T](e)
		if err != nil {
			return nil, err
		}
		return handler(ctx, v)
	}, opts...)
}

// Emit has all handlers run at the same time and returns their errors. See
// [Bus.EmitParallel].
func (t Topic[T]) Emit(ctx context.Context, to Target, v T) error {
	_, err := to.emitter().EmitEvent(ctx, OpParallel, t.event(v))
	return err
}

// EmitSerial has the handlers run one after another and returns the first error. See
// [Bus.EmitSerial].
func (t Topic[T]) EmitSerial(ctx context.Context, to Target, v T) error {
	_, err := to.emitter().EmitEvent(ctx, OpSerial, t.event(v))
	return err
}

// Reduce has the handlers run one after another and folds their results, beginning with
// initial. Handlers without a result are passed over; one of another type than R is an
// error of code invalid_argument. See [Bus.EmitReduce].
func Reduce[T, R, A any](ctx context.Context, to Target, t Topic[T], v T, initial A, fold func(acc A, result R) A) (A, error) {
	reduce := func(acc, result any) (any, error) {
		if result == nil {
			return acc, nil
		}
		r, ok := result.(R)
		if !ok {
			return nil, errorf(code.InvalidArgument, "emit %s: a handler returned %T", t.name, result)
		}
		a, _ := acc.(A) // not ok only for a nil interface
		return fold(a, r), nil
	}
	o, err := to.emitter().emit(ctx, call{op: OpReduce, reduce: reduce, initial: initial}, t.event(v))
	a, _ := o.value.(A)
	return a, err
}

// Reader subscribes a reader of the topic's values. See [Bus.Reader]. Values of another
// type count as lost.
func (t Topic[T]) Reader(b *Bus, opts ...ReaderOption) (*Reader[T], error) {
	return newReader(b, t.name, opts, valueOf[T])
}

// Events yields the topic's values as long as the iteration lasts. See [Bus.Events].
func (t Topic[T]) Events(ctx context.Context, b *Bus, opts ...ReaderOption) iter.Seq2[T, error] {
	return readAll(ctx, func() (*Reader[T], error) { return t.Reader(b, opts...) })
}

func (t Topic[T]) event(v T) Event { return Event{name: t.name, payload: &typed[T]{v}} }

// typed is the payload of an event that a topic emits: its value, without an interface
// and a slice around it.
type typed[T any] struct{ value T }

// local is implemented by payloads that are no encoding.
type local interface{ isLocal() }

func (*typed[T]) isLocal() {}

// Args implements [Payload].
func (p *typed[T]) Args() ([]any, error) { return []any{p.value}, nil }

// Decode implements [Payload].
func (p *typed[T]) Decode(vs ...any) error {
	if len(vs) == 0 {
		return nil
	}
	return assign(vs[0], p.value)
}

// valueOf returns the first argument of an event.
func valueOf[T any](e Event) (T, error) {
	if p, isTyped := e.payload.(*typed[T]); isTyped {
		return p.value, nil
	}
	if len(e.args) > 0 {
		if v, ok := e.args[0].(T); ok {
			return v, nil
		}
	}
	return decodeValue[T](e)
}

// decodeValue is valueOf for what is not there as it is wanted.
func decodeValue[T any](e Event) (v T, err error) {
	if err = e.Decode(&v); err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}
