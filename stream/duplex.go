package stream

import (
	"context"
	"fmt"
	"io"
	"iter"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
)

// Duplex is a stream in each direction at once: this side receives items of type R and sends
// those of type W. A method takes a *Duplex as its last parameter and returns an error or
// nothing; what it sends ends when it returns. Its caller has a function with the same parameters
// without the Duplex, that returns one with the types exchanged, and an error:
//
//	func (c *Chat) Talk(ctx context.Context, room string, d *stream.Duplex[Line, Line]) error
//	Talk func(ctx context.Context, room string) (*stream.Duplex[Line, Line], error)
//
// One goroutine at a time may receive, and one may send meanwhile. Either direction may end before
// the other. The caller must close it, or receive to the end and close what it sends, or end the
// context of the call.
type Duplex[R, W any] struct {
	in       *In
	recv     *decoder[R]
	received bool         // the other side has ended what it sends; owned by the receiving goroutine
	ended    atomic.Int32 // directions that have ended

	sendMu sync.Mutex
	out    *Out
	send   *encoder[W]
	closed bool                    // guarded by sendMu
	stop   context.CancelCauseFunc // ends a Send that waits
}

// duplex is a [Duplex] of whatever types.
type duplex interface {
	check() error
	bind(in *In, o *Out)
	finish(err error) error
}

func (d *Duplex[R, W]) check() error {
	for _, t := range []reflect.Type{reflect.TypeFor[R](), reflect.TypeFor[W]()} {
		if err := codec.Check(t); err != nil {
			return fmt.Errorf("items: %w", err)
		}
	}
	return nil
}

func (d *Duplex[R, W]) bind(in *In, o *Out) {
	d.in, d.recv = in, newDecoder[R](in)
	d.out, d.send = o, newEncoder[W](o)
	o.ctx, d.stop = context.WithCancelCause(o.ctx)
}

// finish ends what is sent, and gives up what is received.
func (d *Duplex[R, W]) finish(err error) error {
	d.in.Close()
	d.lockSend()
	defer d.sendMu.Unlock()
	d.closed = true
	if err != nil {
		return d.out.fail(err)
	}
	return d.out.finish()
}

// lockSend locks sendMu. A Send that has it, and may wait for the other side, fails.
func (d *Duplex[R, W]) lockSend() {
	if !d.sendMu.TryLock() {
		d.stop(io.ErrClosedPipe)
		d.sendMu.Lock()
	}
}

// Recv returns the next item. At the end of what the other side sends the error is [io.EOF].
func (d *Duplex[R, W]) Recv() (R, error) {
	v, err := d.recv.next()
	switch err {
	case nil:
	case io.EOF: //nolint:errorlint // it is never wrapped
		if !d.received { // this side may still send
			d.received = true
			d.halfEnded()
		}
	default:
		d.in.end(true)
	}
	return v, err
}

// halfEnded notes that one of the directions has ended, which ends the call if it is the second.
func (d *Duplex[R, W]) halfEnded() {
	if d.ended.Add(1) == 2 {
		d.in.ended()
	}
}

// All returns the items that are still to come.
func (d *Duplex[R, W]) All() iter.Seq2[R, error] {
	return func(yield func(R, error) bool) {
		for {
			v, err := d.Recv()
			if err == io.EOF || !yield(v, err) || err != nil { //nolint:errorlint // it is never wrapped
				return
			}
		}
	}
}

// Send sends an item. It waits while the other side is behind, and fails when that wants no
// more, when the call has ended, and after [Duplex.CloseSend] and [Duplex.Close] with
// [io.ErrClosedPipe].
func (d *Duplex[R, W]) Send(v W) error {
	d.sendMu.Lock()
	defer d.sendMu.Unlock()
	if d.closed {
		return io.ErrClosedPipe
	}
	return d.send.send(&v)
}

// CloseSend ends what this side sends, behind a Send that is under way. It may be called twice.
func (d *Duplex[R, W]) CloseSend() {
	d.sendMu.Lock()
	defer d.sendMu.Unlock()
	d.closeSend()
}

func (d *Duplex[R, W]) closeSend() {
	if !d.closed {
		d.closed = true
		_ = d.out.finish()
		d.halfEnded()
	}
}

// Close ends what this side sends and gives up what it receives. Any goroutine may call it: a
// Send and a Recv that wait return [io.ErrClosedPipe]. The context of a method ends with it. It
// returns nil.
func (d *Duplex[R, W]) Close() error {
	d.lockSend()
	d.closeSend()
	d.sendMu.Unlock()
	d.in.Close()
	if d.out.Closed != nil {
		d.out.Closed()
	}
	return nil
}
