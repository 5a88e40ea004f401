package stream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/mux"
)

// Out is a stream to the peer, as those below [Shape.Send] write it. One goroutine uses it.
type Out struct {
	Options

	// MaxBytes limits one chunk. 0 means no limit.
	MaxBytes int

	// Failed is told of an error of the source, before the reader is. Nil means nothing to do.
	Failed func(error)

	// Closed is called when a [Duplex] has been closed. Nil means nothing to do.
	Closed func()

	// Error makes of why the stream cannot go on what its source sees. Nil leaves it as it is.
	Error func(error) error

	// Check is asked at the end of the source: an error is that of the stream. Nil means none.
	Check func() error

	ctx context.Context //nolint:containedctx // of the call that the stream belongs to
	w   *mux.StreamWriter
}

// NewOut returns the stream that w writes. Sending ends when ctx does.
func NewOut(ctx context.Context, w *mux.StreamWriter) *Out {
	return &Out{Options: OptionsFrom(ctx), ctx: ctx, w: w}
}

// ErrNothing reports an item that is encoded as null or undefined, which no item can be.
var ErrNothing = errors.New("an item of a stream cannot be nil")

// fail ends the stream because of its source.
func (o *Out) fail(err error) error {
	if o.Failed != nil {
		o.Failed(err)
	}
	o.w.Fail(err.Error(), err)
	return err
}

// stop ends the stream because it cannot go on: its reader has gone, or its context.
func (o *Out) stop(err error) error {
	if cause := context.Cause(o.ctx); cause != nil && o.ctx.Err() == err { //nolint:errorlint // it is that very value
		err = cause
	}
	if err == io.ErrClosedPipe { //nolint:errorlint // it is that very value
		return err // what has been sent ends as it is: see Duplex
	}
	o.w.Fail(err.Error(), err) // nothing, unless it is this side that gives up
	if o.Error != nil {
		err = o.Error(err)
	}
	return err
}

// begin returns the memory of a chunk.
func (o *Out) begin(n int) *buf.Buf { return o.w.Begin(n) }

// send sends one that begin returned, whose payload begins at start.
func (o *Out) send(b *buf.Buf, start int) error {
	p := b.B[start:]
	switch kind := codec.Raw(p).Kind(); {
	case kind == codec.KindNil || kind == codec.KindUndefined:
		o.w.Discard(b)
		return o.fail(ErrNothing)
	case o.MaxBytes > 0 && len(p) > o.MaxBytes:
		err := fmt.Errorf("item of %d bytes, limit %d", len(p), o.MaxBytes)
		o.w.Discard(b)
		return o.fail(err)
	}
	if err := o.w.Send(o.ctx, b); err != nil {
		return o.stop(err)
	}
	return nil
}

// finish ends a stream that was sent whole.
func (o *Out) finish() error {
	if o.Check != nil {
		if err := o.Check(); err != nil {
			return o.fail(err)
		}
	}
	o.w.Close()
	return nil
}

// sendBytes sends what a reader has, until its end.
func (o *Out) sendBytes(r io.Reader) error {
	w := newWriter(o)
	var err error
	if p, ok := r.(*producer); ok {
		err = p.produce(o.ctx, w)
	} else {
		_, err = w.ReadFrom(r)
	}
	w.discard()
	switch {
	case w.err != nil:
		return w.err
	case err != nil:
		return o.fail(err)
	}
	return o.finish()
}
