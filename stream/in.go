package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// Incoming describes a stream that the peer writes, for [NewIn].
type Incoming struct {
	// Limits bounds what decoding one item may cost.
	Limits codec.Limits

	// Error makes of what ended the stream what its user sees. Nil leaves it as it is. It
	// does not get [io.EOF].
	Error func(error) error

	// Ended is called once, when the stream has ended or was given up. Nil means nothing to do.
	Ended func()

	// Go runs a function that passes items on to a channel, on a goroutine that somebody waits
	// for, and reports false if it is too late for that. Required.
	Go func(func()) bool

	// Panicked is told of a panic of a decoder on such a goroutine. Nil means nothing to do.
	Panicked func(v any)

	// Unseen is called, before its user sees the end, if the stream has failed and its form
	// has no place for an error. Nil means nothing to do.
	Unseen func(error)
}

// In is a stream that the peer writes, as those below [Shape.Receive] read it. Its Close may
// be called by any goroutine, the rest by one at a time.
type In struct {
	Incoming
	ctx    context.Context //nolint:containedctx // of the call that the stream belongs to
	r      *mux.StreamReader
	stop   func() bool // ends the watch of ctx
	once   sync.Once
	closed atomic.Bool // by Close
	err    error       // what next returned at the end
}

// NewIn returns the stream that r reads. It is given up when ctx ends.
func NewIn(ctx context.Context, r *mux.StreamReader, in Incoming) *In {
	s := &In{Incoming: in, ctx: ctx, r: r}
	s.stop = context.AfterFunc(ctx, s.finish)
	return s
}

// ErrUsed reports that a sequence is used a second time.
var ErrUsed = errors.New("stream: a sequence can be used only once")

func (s *In) open() (*In, error) { return s, nil }

// next returns the encoded value of the next chunk, lent until it is called again. After an
// error it returns the same again.
func (s *In) next() ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	p, err := s.r.Next(s.ctx)
	if err == nil {
		return p, nil
	}
	if err != io.EOF { //nolint:errorlint // it is never wrapped
		switch cause := context.Cause(s.ctx); {
		case s.closed.Load():
			err = io.ErrClosedPipe
		case cause != nil && !isLost(err):
			err = cause
		}
		s.abort(err.Error())
		if s.Error != nil && err != io.ErrClosedPipe { //nolint:errorlint // it is never wrapped
			err = s.Error(err)
		}
	}
	s.err = err
	return nil, err
}

func isLost(err error) bool {
	_, ok := errors.AsType[*mux.LostError](err)
	return ok
}

// refuse gives the stream up because of a chunk, and returns the error for that.
func (s *In) refuse(format string, args ...any) error {
	err := error(&mux.StreamError{Message: fmt.Sprintf(format, args...)})
	s.abort(err.Error())
	if s.Error != nil {
		err = s.Error(err)
	}
	s.err = err
	return err
}

// abort gives the stream up.
func (s *In) abort(reason string) { s.r.Abort(reason) }

// giveUp ends the stream because its context has ended.
func (s *In) giveUp() {
	s.finish()
	if s.err == nil {
		if s.err = context.Cause(s.ctx); s.Error != nil {
			s.err = s.Error(s.err)
		}
	}
}

// end notes that the user is done with the stream, and gives it up if it has not ended. seen is
// false if the form of the stream has no place for an error.
func (s *In) end(seen bool) {
	if s.err != nil && s.err != io.EOF && !seen && s.Unseen != nil { //nolint:errorlint // it is never wrapped
		s.Unseen(s.err)
	}
	s.ended()
}

// feed runs pass, which passes all items on to a channel, and then calls closed. What panics in it,
// in a method of an item, ends the stream.
func (s *In) feed(pass, closed func()) {
	run := func() {
		defer closed()
		defer s.end(false)
		defer func() {
			if v := recover(); v != nil {
				_ = s.refuse("an item cannot be decoded")
				if s.Panicked != nil {
					s.Panicked(v)
				}
			}
		}()
		pass()
	}
	if !s.Go(run) {
		_ = s.refuse("this side has shut down")
		s.end(false)
		closed()
	}
}

func (s *In) ended() {
	s.stop()
	s.finish()
}

func (s *In) finish() {
	s.once.Do(func() {
		s.abort("the reader wants no more")
		if s.Ended != nil {
			s.Ended()
		}
	})
}

// Close gives the stream up. Any goroutine may call it, any number of times.
func (s *In) Close() {
	s.closed.Store(true)
	s.ended()
}
