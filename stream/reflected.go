package stream

import (
	"io"
	"reflect"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
)

// reflected returns how to stream items of a type that nobody has registered: through package
// reflect, which costs two calls of it for each item.
func reflected(item reflect.Type) *items {
	ops := &items{}
	ops.send[formSeq2] = sendReflected
	ops.send[formSeq] = sendReflected
	ops.send[formChan] = sendReflectedChan
	ops.lazy = func(open func() (*In, error), t reflect.Type) reflect.Value { return recvReflected(open, t, item) }
	ops.recv[formSeq2] = func(in *In, t reflect.Type) reflect.Value { return recvReflected(in.open, t, item) }
	ops.recv[formSeq] = func(in *In, t reflect.Type) reflect.Value { return recvReflected(in.open, t, item) }
	ops.recv[formChan] = func(in *In, t reflect.Type) reflect.Value { return recvReflectedChan(in, t, item) }
	return ops
}

func (o *Out) sendValue(v reflect.Value) error {
	b := o.begin(itemRoom)
	start := len(b.B)
	p, err := codec.AppendValue(b.B, v)
	if err != nil {
		o.w.Discard(b)
		return o.fail(err)
	}
	b.B = p
	return o.send(b, start)
}

// sendReflected sends a sequence with errors, or without.
func sendReflected(o *Out, seq reflect.Value) (err error) {
	yield := reflect.MakeFunc(seq.Type().In(0), func(in []reflect.Value) []reflect.Value {
		if len(in) == 2 && !in[1].IsNil() {
			source, _ := reflect.TypeAssert[error](in[1])
			err = o.fail(source)
		} else {
			err = o.sendValue(in[0])
		}
		return []reflect.Value{reflect.ValueOf(err == nil)}
	})
	seq.Call([]reflect.Value{yield})
	if err != nil {
		return err
	}
	return o.finish()
}

func sendReflectedChan(o *Out, c reflect.Value) error {
	cases := []reflect.SelectCase{
		{Dir: reflect.SelectRecv, Chan: c},
		{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(o.w.Done())},
		{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(o.ctx.Done())},
	}
	for {
		switch chosen, v, ok := reflect.Select(cases); {
		case chosen == 1:
			return o.stop(o.w.Err())
		case chosen == 2:
			return o.stop(o.ctx.Err())
		case !ok:
			return o.finish()
		default:
			if err := o.sendValue(v); err != nil {
				return err
			}
		}
	}
}

// nextValue returns the next item; at the end the error is [io.EOF].
func (s *In) nextValue(item reflect.Type) (reflect.Value, error) {
	v := reflect.New(item).Elem()
	p, err := s.next()
	if err != nil {
		return v, err
	}
	d := codec.NewDecoder(p, s.Limits)
	if err = d.DecodeValue(v); err == nil {
		err = d.End()
	}
	if err != nil {
		return reflect.Zero(item), s.refuse("an item does not fit: %v", err)
	}
	return v, nil
}

// recvReflected returns a sequence of type t, with errors or without.
func recvReflected(open func() (*In, error), t, item reflect.Type) reflect.Value {
	var used atomic.Bool
	withError := t.In(0).NumIn() == 2
	return reflect.MakeFunc(t, func(args []reflect.Value) []reflect.Value {
		yield := func(v reflect.Value, err error) bool {
			if !withError {
				return err == nil && args[0].Call([]reflect.Value{v})[0].Bool()
			}
			e := reflect.New(errorType).Elem()
			if err != nil {
				e.Set(reflect.ValueOf(err))
			}
			return args[0].Call([]reflect.Value{v, e})[0].Bool() && err == nil
		}
		in, err := openOnce(&used, open)
		if err != nil {
			yield(reflect.Zero(item), err)
			return nil
		}
		defer in.end(withError)
		for {
			v, err := in.nextValue(item)
			if err == io.EOF || !yield(v, err) { //nolint:errorlint // it is never wrapped
				return nil
			}
		}
	})
}

// recvReflectedChan returns a channel of type t.
func recvReflectedChan(in *In, t, item reflect.Type) reflect.Value {
	c := reflect.MakeChan(reflect.ChanOf(reflect.BothDir, item), 0)
	in.feed(func() {
		for {
			v, err := in.nextValue(item)
			if err != nil {
				return
			}
			chosen, _, _ := reflect.Select([]reflect.SelectCase{
				{Dir: reflect.SelectSend, Chan: c, Send: v},
				{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(in.ctx.Done())},
			})
			if chosen == 1 {
				in.giveUp()
				return
			}
		}
	}, c.Close)
	return c.Convert(t)
}
