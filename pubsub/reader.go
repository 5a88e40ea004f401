package pubsub

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Reader reads events from a buffer, where a [Handler] is called with them. The buffer
// is bounded: see [Policy] for what happens to a reader that is slow.
//
// One goroutine at a time reads; Close and Lost are for any.
type Reader[T any] struct {
	queue *queue[T]
	sub   *Subscription
}

// ReaderOption changes a reader.
type ReaderOption func(*readerConfig)

type readerConfig struct {
	buffer int
	policy Policy
	bound  time.Duration
}

const (
	defaultBuffer = 256
	defaultBound  = time.Second
)

// Buffer sets how many events wait for the reader. Default 256. The memory is taken when
// it is needed, and kept. Below 1 counts as 1.
func Buffer(n int) ReaderOption { return func(c *readerConfig) { c.buffer = max(n, 1) } }

// WhenFull sets the policy. Default [DropOldest].
func WhenFull(p Policy) ReaderOption { return func(c *readerConfig) { c.policy = p } }

// BlockFor sets the policy [Block], and how long an emission waits for room in the
// buffer, if its context does not end first. Without it the bound of Block is 1 s.
func BlockFor(d time.Duration) ReaderOption {
	return func(c *readerConfig) { c.policy, c.bound = Block, d }
}

// errReaderClosed ends a reader that was closed by its owner.
var errReaderClosed = errorf(code.Canceled, "the reader is closed")

// Reader subscribes a reader. [Reader.Close] it in the end. Errors are those of
// [Bus.Subscribe].
func (b *Bus) Reader(pattern string, opts ...ReaderOption) (*Reader[Event], error) {
	return newReader(b, pattern, opts, func(e Event) (Event, error) { return e.Clone(), nil })
}

// Events subscribes when the iteration begins, and unsubscribes when it ends. It yields
// events, and a [*LostError] where events are missing; it goes on after that one. Any
// other error is the last: what ended ctx, [ErrClosed], [ErrSlowReader], or the error of
// subscribing. The sequence is for one goroutine.
//
// Events emitted before the iteration begins are not seen; use [Bus.Reader] to subscribe
// before.
func (b *Bus) Events(ctx context.Context, pattern string, opts ...ReaderOption) iter.Seq2[Event, error] {
	return readAll(ctx, func() (*Reader[Event], error) { return b.Reader(pattern, opts...) })
}

func newReader[T any](b *Bus, pattern string, opts []ReaderOption, decode func(Event) (T, error)) (*Reader[T], error) {
	cfg := readerConfig{buffer: defaultBuffer, bound: defaultBound}
	for _, opt := range opts {
		opt(&cfg)
	}
	r := &Reader[T]{queue: newQueue[T](&cfg, &b.stats)}
	sub := &Subscription{bus: b, pattern: pattern, weight: newWeight(), inline: cfg.policy != Block, silent: true}
	sub.lost = r.queue.lose
	sub.closed = func(err error) { r.queue.end(err, false) }
	sub.handler = func(ctx context.Context, e Event) (any, error) {
		v, err := decode(e)
		if err != nil {
			b.stats.undecodable.Add(1)
			r.queue.lose(1)
			return nil, err
		}
		err = r.queue.push(ctx, v)
		if err == ErrSlowReader { //nolint:errorlint // it is never wrapped
			sub.Unsubscribe()
			err = nil // the reader's business, not the emitter's
		}
		return nil, err
	}
	r.sub = sub
	if err := b.add(sub); err != nil {
		return nil, err
	}
	return r, nil
}

// Next returns the next event, and waits for it. It returns a [*LostError] where events
// are missing; the next call goes on behind them. Other errors are what ended ctx, which
// ends only this call, and the end of the reader: [ErrClosed], [ErrSlowReader], or an
// error of code canceled after Close.
func (r *Reader[T]) Next(ctx context.Context) (T, error) { return r.queue.pop(ctx) }

// All returns the events to come, like [Bus.Events]. It does not close the reader. It ends
// without an error when the reader is closed by Close.
func (r *Reader[T]) All(ctx context.Context) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for {
			v, err := r.Next(ctx)
			if err == errReaderClosed { //nolint:errorlint // it is never wrapped
				return
			}
			_, goesOn := errors.AsType[*LostError](err)
			if !yield(v, err) || err != nil && !goesOn {
				return
			}
		}
	}
}

// Lost returns how many events the reader has lost since it was made, also those that
// it has not been told of.
func (r *Reader[T]) Lost() uint64 { return r.queue.lost.Load() }

// Close ends the subscription and discards what was not read. Emissions that wait for
// room go on, and so does who waits in Next. It may be called again.
func (r *Reader[T]) Close() {
	r.sub.Unsubscribe()
	r.queue.end(errReaderClosed, true)
}

// readAll yields what a reader gets that lives as long as the iteration.
func readAll[T any](ctx context.Context, open func() (*Reader[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		r, err := open()
		if err != nil {
			var zero T
			yield(zero, err)
			return
		}
		defer r.Close()
		r.All(ctx)(yield)
	}
}
