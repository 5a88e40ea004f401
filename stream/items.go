package stream

import (
	"io"
	"iter"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
)

// items sends and receives streams of items of one type: they take and return values of the
// three forms that have items.
type items struct {
	send [formChan + 1]func(o *Out, v reflect.Value) error
	recv [formChan + 1]func(in *In, t reflect.Type) reflect.Value // t is the type of the result
	lazy func(open func() (*In, error), t reflect.Type) reflect.Value
}

// plain returns v as an S, which has the same underlying type.
func plain[S any](v reflect.Value) S {
	s, _ := reflect.TypeAssert[S](v.Convert(reflect.TypeFor[S]()))
	return s
}

// known holds the items of types that are known at compile time: *items by reflect.Type.
var known sync.Map

// Register makes streams of T in signatures as fast as they are for numbers, strings and
// bytes: without it each item of another type costs some calls through package reflect. It may be
// called at any time, best before the first use, and any number of times.
func Register[T any]() {
	ops := &items{}
	ops.send[formSeq2] = func(o *Out, v reflect.Value) error { return sendSeq2(o, plain[iter.Seq2[T, error]](v)) }
	ops.send[formSeq] = func(o *Out, v reflect.Value) error { return sendSeq(o, plain[iter.Seq[T]](v)) }
	ops.send[formChan] = func(o *Out, v reflect.Value) error { return sendChan(o, plain[<-chan T](v)) }
	ops.lazy = func(open func() (*In, error), t reflect.Type) reflect.Value {
		return reflect.ValueOf(recvSeq2[T](open)).Convert(t)
	}
	ops.recv[formSeq2] = func(in *In, t reflect.Type) reflect.Value { return ops.lazy(in.open, t) }
	ops.recv[formSeq] = func(in *In, t reflect.Type) reflect.Value { return reflect.ValueOf(recvSeq[T](in)).Convert(t) }
	ops.recv[formChan] = func(in *In, t reflect.Type) reflect.Value { return reflect.ValueOf(recvChan[T](in)).Convert(t) }
	known.Store(reflect.TypeFor[T](), ops)
}

var registerCommon = sync.OnceFunc(func() {
	Register[bool]()
	Register[int]()
	Register[int32]()
	Register[int64]()
	Register[uint32]()
	Register[uint64]()
	Register[float32]()
	Register[float64]()
	Register[string]()
	Register[[]byte]()
	Register[codec.Raw]()
	Register[any]()
	Register[map[string]any]()
})

// itemsOf returns how to stream items of a type.
func itemsOf(t reflect.Type) *items {
	registerCommon()
	if found, ok := known.Load(t); ok {
		return found.(*items) //nolint:forcetypeassert // nothing else is in it
	}
	ops, _ := known.LoadOrStore(t, reflected(t))
	return ops.(*items) //nolint:forcetypeassert // nothing else is in it
}

// itemRoom is what the memory of an item begins with.
const itemRoom = 128

// encoder sends items of one type.
type encoder[T any] struct {
	out   *Out
	typed *codec.Typed[T]
}

func newEncoder[T any](o *Out) *encoder[T] { return &encoder[T]{o, codec.TypedOf[T]()} }

func (e *encoder[T]) send(v *T) error {
	b := e.out.begin(itemRoom)
	start := len(b.B)
	p, err := e.typed.Append(b.B, v)
	if err != nil {
		e.out.w.Discard(b)
		return e.out.fail(err)
	}
	b.B = p
	return e.out.send(b, start)
}

func sendSeq2[T any](o *Out, seq iter.Seq2[T, error]) error {
	if seq == nil {
		return o.fail(errNilSource)
	}
	e := newEncoder[T](o)
	for v, err := range seq {
		if err != nil {
			return o.fail(err)
		}
		if err := e.send(&v); err != nil {
			return err
		}
	}
	return o.finish()
}

func sendSeq[T any](o *Out, seq iter.Seq[T]) error {
	if seq == nil {
		return o.fail(errNilSource)
	}
	e := newEncoder[T](o)
	for v := range seq {
		if err := e.send(&v); err != nil {
			return err
		}
	}
	return o.finish()
}

func sendChan[T any](o *Out, c <-chan T) error {
	if c == nil {
		return o.fail(errNilSource)
	}
	e := newEncoder[T](o)
	for {
		select {
		case v, ok := <-c:
			if !ok {
				return o.finish()
			}
			if err := e.send(&v); err != nil {
				return err
			}
		case <-o.w.Done():
			return o.stop(o.w.Err())
		case <-o.ctx.Done():
			return o.stop(o.ctx.Err())
		}
	}
}

// decoder receives items of one type.
type decoder[T any] struct {
	in    *In
	typed *codec.Typed[T]
}

func newDecoder[T any](in *In) *decoder[T] { return &decoder[T]{in, codec.TypedOf[T]()} }

// next returns the next item; at the end the error is [io.EOF].
func (d *decoder[T]) next() (v T, err error) {
	p, err := d.in.next()
	if err != nil {
		return v, err
	}
	var dec codec.Decoder
	dec.Reset(p, d.in.Limits)
	if err = d.typed.Decode(&dec, &v); err == nil {
		err = dec.End()
	}
	if err != nil {
		return *new(T), d.in.refuse("an item does not fit: %v", err)
	}
	return v, nil
}

// recvSeq2 returns the sequence of a stream that is opened when it is used.
func recvSeq2[T any](open func() (*In, error)) iter.Seq2[T, error] {
	var used atomic.Bool
	return func(yield func(T, error) bool) {
		in, err := openOnce(&used, open)
		if err != nil {
			yield(*new(T), err)
			return
		}
		defer in.end(true)
		d := newDecoder[T](in)
		for {
			v, err := d.next()
			if err == io.EOF { //nolint:errorlint // it is never wrapped
				return
			}
			if !yield(v, err) || err != nil {
				return
			}
		}
	}
}

func openOnce(used *atomic.Bool, open func() (*In, error)) (*In, error) {
	if used.Swap(true) {
		return nil, ErrUsed
	}
	return open()
}

func recvSeq[T any](in *In) iter.Seq[T] {
	var used atomic.Bool
	return func(yield func(T) bool) {
		if used.Swap(true) {
			return
		}
		defer in.end(false)
		d := newDecoder[T](in)
		for {
			if v, err := d.next(); err != nil || !yield(v) {
				return
			}
		}
	}
}

func recvChan[T any](in *In) <-chan T {
	c := make(chan T)
	in.feed(func() {
		d := newDecoder[T](in)
		for {
			v, err := d.next()
			if err != nil {
				return
			}
			select {
			case c <- v:
			case <-in.ctx.Done():
				in.giveUp()
				return
			}
		}
	}, func() { close(c) })
	return c
}
