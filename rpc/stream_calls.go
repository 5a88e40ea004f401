package rpc

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/stream"
)

// argument is what a call passes: a value, or a stream.
type argument struct {
	value  reflect.Value
	stream *stream.Shape // nil for a value
}

// streamCall is a call with streams among its arguments, or for a result.
//
//	made --the call is queued--> sent --the answer is no stream, or there is none--> ended
//	                              |--the answer is a stream--> open --that has ended, or ctx--> ended
//
// Arguments are sent from goroutines of their own, from when the peer can take them until the
// call has ended.
type streamCall struct {
	ctx    context.Context //nolint:containedctx // of the streams: it ends when they do
	cancel context.CancelCauseFunc
	stub   *Stub
	conn   *conn
	method string

	mayStream bool // the result may be a stream

	args []*argumentStream
	talk *argumentStream // what the caller writes through a [stream.Duplex], nil if there is none

	sent  atomic.Bool   // it cannot be made again
	donec chan struct{} // closed when all arguments have been sent

	mu     sync.Mutex
	ended  bool
	after  func()   // called when it has ended, may be nil; guarded by mu
	source error    // of the first argument that failed; guarded by mu
	offers []uint32 // streams that answers have announced; guarded by mu
	first  error    // of the attempt that has used the arguments; guarded by mu
}

// argumentStream is a stream that a call passes.
type argumentStream struct {
	argument
	place  int
	writer *mux.StreamWriter
}

// asksForStreams reports whether a call has streams, as far as that shows: result may be a
// pointer to any, which can hold whatever comes.
func asksForStreams(result any, args []any) bool {
	switch result.(type) {
	case nil, *codec.Raw, *bool, *int, *int64, *float64, *string, *[]byte, **Stub:
	case *any:
		return true
	default:
		if t := reflect.TypeOf(result); t.Kind() == reflect.Pointer && isStream(t.Elem()) {
			return true
		}
	}
	return slices.ContainsFunc(args, isStreamValue)
}

func isStreamValue(v any) bool {
	switch v.(type) {
	case nil, bool, int, int64, float64, string, []byte, codec.Raw:
		return false
	}
	s, err := stream.ShapeOfValue(v)
	return s != nil || err != nil
}

var errStreamCall = errors.New("it is a stream, which only Stub.Call and client structs can pass")

// callStreams is [Stub.Call] with streams.
func (s *Stub) callStreams(ctx context.Context, method string, result any, values []any) error {
	args := make([]argument, len(values))
	for i, v := range values {
		of, err := stream.ShapeOfValue(v)
		if err != nil {
			return argumentError(method, i, err)
		}
		args[i] = argument{reflect.ValueOf(v), of}
	}
	var want *stream.Shape
	to := reflect.ValueOf(result)
	if result != nil && to.Kind() == reflect.Pointer {
		var err error
		if want, err = stream.ShapeOf(to.Type().Elem()); err != nil {
			return &Error{Code: InvalidArgument, Message: fmt.Sprintf("result of %s: %v", method, err), cause: err}
		}
	}
	return s.callStreaming(ctx, method, args, want, to)
}

// callStreaming makes a call with streams, and again where ctx allows it. result is a pointer to where
// the result goes, invalid to drop it; want is its shape if it is a stream.
func (s *Stub) callStreaming(ctx context.Context, method string, args []argument, want *stream.Shape, result reflect.Value) error {
	if s.router != nil {
		return s.streamRouted(ctx, method, args, want, result)
	}
	c, err := s.streamOnce(ctx, method, args, want, result)
	if !s.peer.mayRetry(ctx, err) || c.used() {
		return err
	}
	r := s.peer.newRetry(ctx)
	defer r.stop()
	for !c.used() && r.again(&err) {
		// Not under the context of r: its limit is that for another attempt, and not that of a
		// stream which this one returns.
		c, err = s.streamOnce(ctx, method, args, want, result)
	}
	return r.outcome(err)
}

// used reports whether arguments of the call have begun to be sent.
func (c *streamCall) used() bool { return c != nil && len(c.args) > 0 && c.sent.Load() }

// streamOnce makes a call with streams.
func (s *Stub) streamOnce(ctx context.Context, method string, args []argument, want *stream.Shape, result reflect.Value) (*streamCall, error) {
	if err := mux.WouldBlock(ctx); err != nil {
		return nil, callError(err)
	}
	view := s.view.Load()
	duplex := want != nil && want.IsDuplex()
	n := len(args)
	if duplex {
		n++
	}
	call, err := s.beginOn(view, method, n)
	if err != nil {
		return nil, err
	}
	c := &streamCall{stub: s, conn: view.conn, method: method, donec: make(chan struct{})}
	c.mayStream = want != nil || holdsAnything(result)
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	start := len(call.B)
	for i, arg := range args {
		if call.B, err = c.append(call.B, i, arg); err != nil {
			call.Release()
			c.end()
			return c, argumentError(method, i, err)
		}
	}
	if duplex {
		if call.B, c.talk, err = c.open(call.B, len(args), argument{}); err != nil {
			call.Release()
			c.end()
			return c, err
		}
	}
	reply, err := c.finish(ctx, call, start, n)
	if err == nil && reply.IsError {
		err = decodeError(reply.Payload, s.peer.endpoint.cfg.Limits)
	}
	if source := c.sourceError(); source != nil {
		err = source
	}
	open := false
	if err == nil {
		open, err = c.take(reply, want, result)
	}
	c.refuseOthers()
	if !open {
		c.end()
	}
	return c, err
}

// answered notes what stream an answer announces.
func (c *streamCall) answered(reply mux.Reply) {
	if id, _, ok := (streamPackets{c.conn}).ParseReference(reply.Payload); ok && !reply.IsError {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.offers = append(c.offers, id)
	}
}

// refuseOthers gives up the streams that answers have announced and that were not opened: the
// call has failed otherwise, or a middleware has kept them.
func (c *streamCall) refuseOthers() {
	c.mu.Lock()
	offers := c.offers
	c.offers = nil
	c.mu.Unlock()
	for _, id := range offers {
		c.conn.session.RefuseReader(id)
	}
}

// append encodes an argument.
func (c *streamCall) append(dst []byte, i int, arg argument) ([]byte, error) {
	if arg.stream == nil {
		return c.stub.peer.appendValue(dst, arg.value)
	}
	dst, a, err := c.open(dst, i, arg)
	if err == nil {
		c.args = append(c.args, a)
	}
	return dst, err
}

// open appends the reference to a stream that this side will write.
func (c *streamCall) open(dst []byte, i int, arg argument) ([]byte, *argumentStream, error) {
	if c.conn.kind() == mux.KindBrowser {
		return dst, nil, errors.New("a browser cannot take streams as arguments")
	}
	live := stream.OptionsFrom(c.ctx).Live
	w, err := c.conn.session.NewWriter(live)
	if err != nil {
		return dst, nil, streamOpenError(err)
	}
	a := &argumentStream{argument: arg, place: i, writer: w}
	dst, err = codec.Append(dst, codec.StreamReference{StreamID: w.ID(), Writable: true, Live: live, PeerID: c.conn.peer.localID()})
	if err != nil {
		w.Drop()
	}
	return dst, a, err
}

// finish sends the call, which it takes, through the middleware if there is any. Its n
// arguments begin at start.
func (c *streamCall) finish(ctx context.Context, call *mux.Call, start, n int) (mux.Reply, error) {
	chain := c.stub.peer.clientChain()
	if chain == nil {
		return c.send(ctx, call)
	}
	r := newClientRequest(c.stub.peer, OpCall, c.stub, c.method, call.B[start:], n)
	r.streams = c
	call.Release()
	raw, err := chain(ctx, r)
	if err != nil {
		return mux.Reply{}, asError(err)
	}
	return mux.Reply{Payload: orUndefined(raw)}, nil
}

// sendRequest is what the middleware calls in the end.
func (c *streamCall) sendRequest(ctx context.Context, r *Request) (codec.Raw, error) {
	view := c.stub.view.Load()
	switch {
	case view.conn == c.conn:
	case len(c.args) == 0 && c.talk == nil:
		c.conn = view.conn
	default:
		return nil, &Error{Code: Unavailable, Message: "the connection has changed since the streams of the call were made", sent: notSent}
	}
	call, err := c.stub.beginOn(view, r.member, r.count)
	if err != nil {
		return nil, err
	}
	call.B = append(call.B, r.args...)
	reply, err := c.send(ctx, call)
	if err == nil && reply.IsError {
		err = decodeError(reply.Payload, c.conn.endpoint.cfg.Limits)
	}
	if err != nil {
		return nil, c.firstOf(err)
	}
	return reply.Payload, nil
}

// firstOf returns the error of the attempt that has used the arguments, which is err if there was
// none: middleware that tries again in vain should not hide it.
func (c *streamCall) firstOf(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil && c.used() {
		c.first = err
	}
	if c.first != nil {
		return c.first
	}
	return err
}

// send sends the call, which it takes, and its arguments, and waits for the answer.
//
// The time limit of calls, where ctx has none, begins when the last argument has been sent.
func (c *streamCall) send(ctx context.Context, call *mux.Call) (mux.Reply, error) {
	p := c.stub.peer
	call.Stream = c.mayStream
	if c.sent.Swap(true) && len(c.args) > 0 {
		call.Release()
		return mux.Reply{}, Errorf(FailedPrecondition, "rpc: the streams that %s was given have been used", c.method)
	}
	life := ctx
	if c.mayStream {
		life = c.ctx // a middleware may have limited the call, which is over before the stream
	}
	if len(c.args) == 0 {
		reply, err := p.doUntil(ctx, life, wire.TypeCall, call)
		c.answered(reply)
		reply.Payload = slices.Clone(reply.Payload)
		call.Release()
		return reply, err
	}
	timeout, err := p.completeUntil(ctx, life, call)
	if err != nil {
		call.Release()
		c.sent.Store(false)
		return mux.Reply{}, err
	}
	var (
		reply   mux.Reply
		failure error
	)
	answerc := make(chan struct{}) // closed when these are set
	id, err := call.Start(ctx, wire.TypeCall, 0, func(_ context.Context, r mux.Reply, err error) {
		c.answered(r)
		if err == nil && r.Meta {
			err = p.takeTrailer(ctx, &r)
		}
		reply, reply.Payload, failure = r, slices.Clone(r.Payload), err
		close(answerc)
	})
	if err != nil {
		call.Release()
		c.sent.Store(false)
		return mux.Reply{}, p.callError(err)
	}
	c.begin()
	if err := c.wait(ctx, answerc, timeout); err != nil && c.conn.session.Abandon(id) {
		return mux.Reply{}, p.callError(err)
	}
	<-answerc
	if failure != nil {
		return mux.Reply{}, p.callError(failure)
	}
	return reply, nil
}

// wait waits for the answer, and returns an error if it comes too late.
func (c *streamCall) wait(ctx context.Context, answerc chan struct{}, timeout time.Duration) error {
	donec := c.donec
	var late <-chan time.Time
	for {
		select {
		case <-answerc:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-late:
			return mux.ErrTimeout
		case <-donec:
			donec = nil
			if timeout > 0 {
				t := time.NewTimer(timeout)
				defer t.Stop()
				late = t.C
			}
		}
	}
}

// unusedEvent is an event that nobody emits.
const unusedEvent = "netron:stream"

// begin has the arguments sent, when the peer has seen the call.
//
// Protocol section 8.4.
func (c *streamCall) begin() {
	if c.conn.kind() != mux.KindNode {
		c.sendArguments()
		return
	}
	barrier := c.conn.session.NewCall()
	barrier.B = codec.AppendString(codec.AppendArrayHeader(barrier.B, 2), taskUnsubscribe)
	barrier.B = codec.AppendString(barrier.B, unusedEvent)
	if _, err := barrier.Start(c.ctx, wire.TypeTask, 0, func(context.Context, mux.Reply, error) { c.sendArguments() }); err != nil {
		barrier.Release() // the call will not be answered either
	}
}

func (c *streamCall) sendArguments() {
	var left atomic.Int32
	left.Store(int32(len(c.args)))
	for _, a := range c.args {
		started := c.conn.endpoint.begin(func() {
			defer func() {
				if left.Add(-1) == 0 {
					close(c.donec)
				}
			}()
			c.sendArgument(a)
		})
		if !started {
			c.cancel(&Error{Code: Unavailable, Message: "this side has shut down", cause: mux.ErrClosed})
			return
		}
	}
}

// sendArgument sends one, and waits until it has left.
func (c *streamCall) sendArgument(a *argumentStream) {
	returned := false
	defer func() {
		if returned {
			return
		}
		why := "its goroutine ended"
		if v := recover(); v != nil {
			why = "it panicked"
			c.conn.logStreamPanic(c.method, v)
		}
		c.failed(a, errors.New(why))
		a.writer.Fail(errInternal().Message, errInternal())
	}()
	o := stream.NewOut(c.ctx, a.writer)
	o.MaxBytes, o.Error = c.conn.endpoint.cfg.maxChunkBytes(), asStreamError
	o.Failed = func(err error) { c.failed(a, err) }
	err := a.stream.Send(o, a.value)
	returned = true
	if err == nil {
		select {
		case <-a.writer.Done():
		case <-c.ctx.Done():
		}
	}
}

// failed notes that an argument could not be sent whole because of its source.
func (c *streamCall) failed(a *argumentStream, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.source == nil && !c.ended {
		c.source = &Error{Code: CodeOf(err), Message: fmt.Sprintf("argument %d of %s: %v", a.place+1, c.method, err), cause: err}
	}
}

func (c *streamCall) sourceError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.source
}

// take stores the result. It reports whether that is a stream, which ends the call when it
// ends.
func (c *streamCall) take(reply mux.Reply, want *stream.Shape, result reflect.Value) (open bool, err error) {
	isReference := codec.Raw(reply.Payload).Kind() == codec.KindStreamReference
	if want == nil && isReference && holdsAnything(result) {
		items := anySequence()
		if result.Type() == rawPointerType {
			items = rawSequence()
		}
		to := reflect.New(items.Type())
		if open, err = c.take(reply, items, to); open {
			result.Elem().Set(to.Elem())
		}
		return open, err
	}
	switch {
	case want == nil && !result.IsValid():
		return false, c.stub.decodeReply(reply, nil)
	case want == nil && result.Type() == rawPointerType:
		result.Elem().Set(reflect.ValueOf(codec.Raw(reply.Payload)))
		return false, checkValue(reply.Payload, c.conn.endpoint.cfg.Limits)
	case want == nil:
		return false, c.stub.decodeReply(reply, result.Interface())
	case !isReference:
		return false, answerError(fmt.Errorf("it is %v, not a stream", codec.Raw(reply.Payload).Kind()))
	}
	in, err := c.receive(reply.Payload)
	if err != nil {
		return false, err
	}
	if to, ok := reflect.TypeAssert[**stream.In](result); ok { // of a sequence that has been waiting for it
		*to = in
		return true, nil
	}
	if want.IsDuplex() {
		o := stream.NewOut(c.ctx, c.talk.writer)
		o.MaxBytes, o.Error = c.conn.endpoint.cfg.maxChunkBytes(), asStreamError
		result.Elem().Set(want.Join(in, o))
		return true, nil
	}
	if want.Hides() { // whoever sends to a channel must notice
		session := c.conn.session.Context()
		stop := context.AfterFunc(session, func() { c.cancel(context.Cause(session)) })
		context.AfterFunc(c.ctx, func() { stop() })
	}
	result.Elem().Set(want.Receive(in))
	return true, nil
}

var (
	anyPointerType = reflect.TypeFor[*any]()
	rawPointerType = reflect.TypeFor[*rawResult]()

	anySequence = sync.OnceValue(shapeFor[iter.Seq2[any, error]])
	rawSequence = sync.OnceValue(shapeFor[iter.Seq2[codec.Raw, error]])
)

// holdsAnything reports whether a result may be a stream or not.
func holdsAnything(result reflect.Value) bool {
	return result.IsValid() && (result.Type() == anyPointerType || result.Type() == rawPointerType)
}

// rawResult is any result, not decoded: a [codec.Raw], or an iter.Seq2 of them.
type rawResult any

// shapeFor returns the shape of a type that is one of a stream.
func shapeFor[T any]() *stream.Shape {
	s, err := stream.ShapeOf(reflect.TypeFor[T]())
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return s
}

// receive opens the stream that an answer announces.
func (c *streamCall) receive(payload []byte) (*stream.In, error) {
	r, err := c.conn.openReader(payload)
	if err != nil {
		return nil, err
	}
	return stream.NewIn(c.ctx, r, c.conn.incoming(c.method, c.end, func(err error) {
		if c.ctx.Err() == nil {
			c.conn.endpoint.cfg.logger().Warn("netron: a stream without errors has failed", "service", c.stub.Name(), "method", c.method, "error", err)
		}
	})), nil
}

// openReader opens the stream that an answer announces.
func (c *conn) openReader(payload []byte) (*mux.StreamReader, error) {
	var ref codec.StreamReference
	if err := codec.UnmarshalLimits(payload, &ref, c.endpoint.cfg.Limits); err != nil {
		return nil, answerError(err)
	}
	if !ref.Writable {
		return nil, answerError(errors.New("it is a stream that the peer wants to read"))
	}
	r, err := c.session.ReaderFor(ref.StreamID, ref.Live)
	if err != nil {
		return nil, streamOpenError(err)
	}
	return r, nil
}

// end ends the streams of the call.
func (c *streamCall) end() {
	if after := c.endOnce(); after != nil {
		after()
	}
}

// afterEnd has fn called when the call has ended, which it may have.
func (c *streamCall) afterEnd(fn func()) {
	c.mu.Lock()
	ended := c.ended
	c.after = fn
	c.mu.Unlock()
	if ended {
		fn()
	}
}

// endOnce is end, and returns what is to be called then.
func (c *streamCall) endOnce() (after func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil
	}
	c.ended = true
	c.cancel(context.Canceled)
	all := c.args
	if c.talk != nil {
		all = append(slices.Clone(all), c.talk)
	}
	for _, a := range all {
		if c.sent.Load() {
			a.writer.Fail("the call has ended", nil)
		} else {
			a.writer.Drop()
		}
	}
	return c.after
}
