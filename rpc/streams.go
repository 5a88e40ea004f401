package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/stream"
)

// servedStreams is what a request has whose method takes or returns streams.
//
//	decoding --the method returns a result--> ended
//	decoding --it returns a stream--> answering --the answer is queued--> sending --the stream has ended--> ended
//
// At its end the streams that are still open are given up, and the context of the method ends.
type servedStreams struct {
	conn   *conn
	method string
	ctx    context.Context //nolint:containedctx // what the method runs under, and the loop of its result
	cancel context.CancelCauseFunc
	stop   []func() bool // what else would end ctx
	ins    []*stream.In  // the arguments

	// The result, if it is a stream.
	value  reflect.Value
	writer *mux.StreamWriter
	ref    []byte                    // encoded
	run    func(o *stream.Out) error // sends it

	mu     sync.Mutex
	over   bool   // the streams have ended; guarded by mu
	hidden error  // why a stream failed before whose form could not say so; guarded by mu
	after  func() // called when the streams have ended, nil for nothing; guarded by mu
}

// beginStreams makes the streams of a request ready. The caller ends them.
func beginStreams(ctx context.Context, m *method, returnsStream bool) (*servedStreams, context.Context, error) {
	c := connFrom(ctx)
	request, _ := ctx.Value(requestKey{}).(*requestContext)
	if c == nil || request == nil {
		return nil, nil, Errorf(Internal, "rpc: method %s has streams, and can be called by a peer only", m.name)
	}
	s := &servedStreams{conn: c, method: m.name}
	if !returnsStream {
		s.ctx, s.cancel = context.WithCancelCause(ctx)
		return s, s.ctx, nil
	}
	// The context outlives the request: it has what that carries, and ends with the
	// connection, at the deadline of the caller, and until the method has returned with the
	// request. The limits of middleware are for the request.
	s.ctx, s.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.stop = []func() bool{
		context.AfterFunc(ctx, func() { s.cancel(context.Cause(ctx)) }),
		context.AfterFunc(c.ctx, func() { s.cancel(context.Cause(c.ctx)) }),
	}
	if at, ok := request.Deadline(); ok {
		timer := time.AfterFunc(time.Until(at), func() { s.cancel(context.DeadlineExceeded) })
		s.stop = append(s.stop, timer.Stop)
	}
	return s, s.ctx, nil
}

// end gives up what is open.
func (s *servedStreams) end(cause error) {
	s.mu.Lock()
	after := s.after
	s.over, s.after = true, nil
	s.mu.Unlock()
	s.cancel(cause)
	for _, stop := range s.stop {
		stop()
	}
	for _, in := range s.ins {
		in.Close()
	}
	if after != nil {
		after()
	}
}

// afterEnd has fn called when the streams have ended, which they may have.
func (s *servedStreams) afterEnd(fn func()) {
	s.mu.Lock()
	over := s.over
	if !over {
		s.after = fn
	}
	s.mu.Unlock()
	if over {
		fn()
	}
}

// returned is called when the method has returned without a stream. It returns the error of a stream that
// failed unseen.
func (s *servedStreams) returned() error {
	s.end(context.Canceled)
	return s.failure()
}

// failure returns the error of an argument that has failed unseen.
func (s *servedStreams) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hidden
}

// argument decodes a reference to a stream that the peer writes.
func (s *servedStreams) argument(d *codec.Decoder) (*stream.In, error) {
	if k := d.PeekKind(); k != codec.KindStreamReference {
		return nil, fmt.Errorf("it is %v, not a stream", k)
	}
	var ref codec.StreamReference
	if err := d.Decode(&ref); err != nil {
		return nil, err
	}
	if !ref.Writable {
		return nil, errors.New("it is a stream that the caller wants to read")
	}
	r, err := s.conn.session.ReaderFor(ref.StreamID, ref.Live)
	if err != nil {
		return nil, streamOpenError(err)
	}
	in := stream.NewIn(s.ctx, r, s.conn.incoming(s.method, nil, s.failedUnseen))
	s.ins = append(s.ins, in)
	return in, nil
}

// failedUnseen ends the method if its argument has failed and cannot say so.
func (s *servedStreams) failedUnseen(err error) {
	s.mu.Lock()
	if s.hidden == nil && !s.over {
		s.hidden = err
	}
	s.mu.Unlock()
	s.cancel(err)
}

// result appends the reference to a stream that is the result, and keeps run for later: the
// answer must be on its way before the first chunk.
func (s *servedStreams) result(dst []byte, value reflect.Value, run func(*stream.Out) error) ([]byte, error) {
	w, err := s.conn.session.NewWriter(true)
	if err != nil {
		return dst, streamOpenError(err)
	}
	ref := codec.StreamReference{StreamID: w.ID(), Writable: true, Live: true, PeerID: s.conn.peer.localID()}
	out, err := codec.Append(dst, ref)
	if err != nil {
		w.Drop()
		return dst, err
	}
	s.value, s.writer, s.run, s.ref = value, w, run, slices.Clone(out[len(dst):])
	request, _ := s.ctx.Value(requestKey{}).(*requestContext)
	request.needExtra().streams = s
	s.stop[0]() // from now on the request may end
	w.OnEnd(func(err error) {
		if err != nil { // else what is sent has been sent, and a duplex may go on receiving
			s.cancel(context.Canceled)
		}
	})
	return out, nil
}

// answered is called when the handler has returned, before its answer is sent. It is not the
// stream if that has failed, or if a middleware has put something else in its place.
func (s *servedStreams) answered(r *mux.Request, answer []byte) {
	if !bytes.HasPrefix(answer, s.ref) {
		s.writer.Drop()
		s.finish()
		return
	}
	release := s.conn.session.Hold()
	r.AfterAnswer = func() {
		started := s.conn.endpoint.begin(func() {
			defer release()
			s.send()
		})
		if !started {
			s.writer.Fail(messageDraining, nil)
			s.finish()
			release()
		}
	}
}

// send sends the result, and waits until it has left.
func (s *servedStreams) send() {
	defer s.finish()
	returned := false
	defer func() {
		if returned {
			return
		}
		if v := recover(); v != nil { // else its goroutine ends
			s.conn.logStreamPanic(s.method, v)
		}
		s.writer.Fail(errInternal().Message, errInternal())
	}()
	o := stream.NewOut(s.ctx, s.writer)
	o.MaxBytes, o.Error, o.Check = s.conn.endpoint.cfg.maxChunkBytes(), asStreamError, s.failure
	err := s.run(o)
	returned = true
	if err == nil {
		select {
		case <-s.writer.Done():
		case <-s.ctx.Done():
		}
	}
}

// finish ends the streams of a request that has returned one, and releases what it was made of.
func (s *servedStreams) finish() {
	s.end(context.Canceled)
	s.closeSource(s.value)
}

// closeSource closes what a stream was made of, if it can be.
func (s *servedStreams) closeSource(v reflect.Value) {
	if !v.IsValid() {
		return
	}
	defer func() {
		if v := recover(); v != nil {
			s.conn.logStreamPanic(s.method, v)
		}
	}()
	if c, ok := reflect.TypeAssert[io.Closer](v); ok && c != nil {
		_ = c.Close()
	}
}

// incoming describes a stream of a method that the peer writes.
func (c *conn) incoming(method string, ended func(), unseen func(error)) stream.Incoming {
	return stream.Incoming{
		Limits:   c.endpoint.cfg.Limits,
		Error:    asStreamError,
		Ended:    ended,
		Go:       c.endpoint.begin,
		Panicked: func(v any) { c.logStreamPanic(method, v) },
		Unseen:   unseen,
	}
}

func (c *conn) logStreamPanic(method string, v any) {
	c.endpoint.cfg.logger().Error("netron: panic in a stream", "method", method, "peer", c.peer.ID(), "panic", v, "stack", string(debug.Stack()))
}

// maxChunkBytes is how large the value of a chunk may be.
func (c *Config) maxChunkBytes() int { return c.maxMessageBytes() - streamPacketRoom }

// streamPacketRoom is what a packet of a stream has besides the value.
const streamPacketRoom = 13

// streamOpenError returns the error for a stream that cannot be opened.
func streamOpenError(err error) *Error {
	switch {
	case errors.Is(err, mux.ErrTooManyStreams):
		return &Error{Code: ResourceExhausted, Message: "too many streams", cause: err}
	case errors.Is(err, mux.ErrStreamID):
		return &Error{Code: InvalidArgument, Message: "the stream has ended, or is in use", cause: err}
	case errors.Is(err, mux.ErrNoStreams):
		return &Error{Code: Unavailable, Message: "the connection is not ready for streams", cause: err}
	}
	return callError(err)
}

// asStreamError returns what the user of a stream sees of how it ended.
func asStreamError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if e, ok := errors.AsType[*mux.StreamError](err); ok {
		code := Aborted
		if e.Remote {
			code = Unknown
		}
		return &Error{Code: code, Message: e.Message, remote: e.Remote, cause: err}
	}
	lost := new(mux.LostError)
	switch {
	case errors.As(err, &lost), errors.Is(err, mux.ErrClosed):
		return &Error{Code: Unavailable, Message: "the connection was lost", cause: err}
	case errors.Is(err, context.DeadlineExceeded):
		return &Error{Code: DeadlineExceeded, Message: "the time for the stream is up", cause: err}
	case errors.Is(err, context.Canceled):
		return &Error{Code: Canceled, Message: "the stream was given up", cause: err}
	case errors.Is(err, mux.ErrWouldBlock):
		return callError(err)
	}
	return &Error{Code: Aborted, Message: err.Error(), cause: err}
}

// talk answers with a stream which the method itself writes, through the [stream.Duplex] that
// is its last parameter. in has all but that.
func (s *servedStreams) talk(dst []byte, f *reflectMethod, in []reflect.Value) ([]byte, error) {
	from, of := s.ins[len(s.ins)-1], f.streams[len(f.streams)-1]
	return s.result(dst, reflect.Value{}, func(o *stream.Out) error {
		o.Closed = func() { s.cancel(context.Canceled) }
		d := of.Join(from, o)
		results := f.call(append(in[:len(in)-1], d))
		var err error
		if f.hasError {
			err, _ = reflect.TypeAssert[error](results[0])
		}
		return of.Finish(d, err)
	})
}
