package rpc

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/google/uuid"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// errInternal is all that a peer learns of a failure that nobody foresaw.
func errInternal() *Error { return &Error{Code: Internal, Message: "internal error"} }

// serve answers one request of the peer: it appends the payload of the answer to
// dst. It runs on a worker, or on the read owner, and answers whatever happens in
// the handler.
func (c *conn) serve(r *mux.Request, dst []byte) (out []byte, isError bool) {
	var ctx *requestContext
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(r, v)
			r.Trailer = false
			out, isError = c.fail(r, dst, errInternal())
		}
		if ctx != nil {
			var answer []byte
			if !isError && out != nil {
				answer = out[len(dst):]
			}
			ctx.end(r, answer)
		}
	}()
	if r.Inline && !r.Meta {
		out, err := c.handle(c.ownerCtx, r, r.Payload, dst)
		return c.finish(r, dst, out, err)
	}
	ctx = c.newContext(r)
	if announces(r) { // a request without streams should not pay for more
		defer c.router.refuseStreams(r) // those that the handler has not taken
	}
	payload := r.Payload
	if r.Meta {
		value, err := c.readMeta(ctx, payload)
		if err != nil {
			return c.fail(r, dst, err)
		}
		payload = value
	}
	if c.marks.Load() != 0 && c.takeMark(r.ID()) {
		return c.fail(r, dst, &Error{Code: Canceled, Message: "the caller has given up"})
	}
	var handlerCtx context.Context = ctx
	if r.Inline {
		handlerCtx = c.session.OwnerContext(ctx)
	}
	out, err := c.handle(handlerCtx, r, payload, dst)
	out, isError = c.finish(r, dst, out, err)
	if m := ctx.meta(); m != nil {
		if answer, ok := m.appendTrailer(out); ok && len(answer)-len(dst)+wire.HeaderLen <= c.endpoint.cfg.maxMessageBytes() {
			out, r.Trailer = answer, true
		}
	}
	return out, isError
}

// readMeta takes what a request carries besides its payload into ctx, and returns the
// payload.
func (c *conn) readMeta(ctx *requestContext, b []byte) (payload []byte, err error) {
	payload, meta, err := split(b, c.endpoint.cfg.Limits)
	if err != nil {
		return nil, malformedRequest("the payload", err)
	}
	m, err := readMeta(meta, c.endpoint.cfg.Limits)
	if err != nil {
		return nil, err
	}
	ctx.needExtra().meta.Store(m)
	return payload, nil
}

// finish returns the payload of an answer: out is dst with the result behind it.
func (c *conn) finish(r *mux.Request, dst, out []byte, err error) ([]byte, bool) {
	if err != nil {
		return c.fail(r, dst, err)
	}
	if n, limit := len(out)-len(dst)+wire.HeaderLen, c.endpoint.cfg.maxMessageBytes(); n > limit {
		return c.fail(r, dst, errLargeResult(n-wire.HeaderLen, limit))
	}
	return out, false
}

func errLargeResult(n, limit int) error {
	return &Error{Code: ResourceExhausted, Message: fmt.Sprintf("result of %d bytes, limit %d", n, limit)}
}

// fail is finish for a request that failed.
//
// An event is answered with success even if it was not let through: an error ends the
// process of a current TypeScript peer (protocol section 9.2).
func (c *conn) fail(r *mux.Request, dst []byte, err error) (out []byte, isError bool) {
	if r.Always {
		return codec.AppendUndefined(dst), false
	}
	if c.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		// Not the caller has given up, but this side.
		err = &Error{Code: Unavailable, Message: messageDraining, cause: err}
	}
	return c.appendFailure(r, dst, err), true
}

// appendFailure appends an error of a handler as it travels, or a shorter one if
// that is too large for a message. The methods of the error are the
// application's, and may panic too.
func (c *conn) appendFailure(r *mux.Request, dst []byte, err error) (out []byte) {
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(r, v)
			out = appendError(dst, errInternal())
		}
	}()
	e := asError(err)
	if _, ok := err.(*refusal); !ok {
		e = ofHandler(e)
	}
	out = appendError(dst, e)
	if n, limit := len(out)-len(dst)+wire.HeaderLen, c.endpoint.cfg.maxMessageBytes(); n > limit {
		out = appendError(dst, &Error{Code: e.Code, Message: fmt.Sprintf("error of %d bytes, limit %d: %s", n-wire.HeaderLen, limit, shown(e.Message))})
	}
	return out
}

func (c *conn) logPanic(r *mux.Request, v any) {
	c.endpoint.cfg.logger().Error("netron: panic in a handler", "request", r.Type.String(), "peer", c.peer.ID(), "panic", v, "stack", string(debug.Stack()))
}

// handle runs what the request asks for and appends the result to dst.
func (c *conn) handle(ctx context.Context, r *mux.Request, payload, dst []byte) ([]byte, error) {
	if c.endpoint.cfg.Admit != nil {
		if err := c.admit(r); err != nil {
			return dst, err
		}
	}
	m, routed := r.Target.(*method)
	switch {
	case !routed:
		return c.handleUnrouted(ctx, r, payload, dst)
	case m.limit > 0:
		return c.runLimited(ctx, r, m, payload[r.Offset:], r.Count, dst)
	case m.isSampled(r.ID()):
		start := time.Now()
		defer func() { m.observe(time.Since(start)) }()
	}
	return c.run(ctx, m, payload[r.Offset:], r.Count, dst)
}

// handleUnrouted is handle for what route left to decode.
func (c *conn) handleUnrouted(ctx context.Context, r *mux.Request, payload, dst []byte) ([]byte, error) {
	d := codec.NewDecoder(payload, c.endpoint.cfg.Limits)
	if r.Type == wire.TypeTask {
		return c.handleTask(ctx, r, &d, dst)
	}
	return c.handleMember(ctx, r.Type, &d, dst)
}

// run calls a method with the n values of args, through the middleware if there is
// any.
func (c *conn) run(ctx context.Context, m *method, args []byte, n int, dst []byte) ([]byte, error) {
	if chain := m.serverChain(c.endpoint); chain != nil {
		return c.runThrough(ctx, chain, m, args, n, dst)
	}
	return m.invoke(ctx, args, n, c.endpoint.cfg.Limits, dst)
}

// handleMember serves GET, SET and CALL: an array of definition id, member name
// and arguments (protocol sections 6.1 to 6.3), or the map that the oldest
// browser clients send.
func (c *conn) handleMember(ctx context.Context, t wire.Type, d *codec.Decoder, dst []byte) ([]byte, error) {
	if d.PeekKind() == codec.KindMap {
		return c.handleMemberMap(ctx, t, d, dst)
	}
	n, err := d.ArrayHeader()
	if err != nil {
		return dst, malformedRequest("the payload is no array", err)
	}
	if n < 2 {
		return dst, malformedRequest("the payload lacks definition id and name", nil)
	}
	id, err := d.StringBytes()
	if err != nil {
		return dst, malformedRequest("the definition id", err)
	}
	name, err := d.StringBytes()
	if err != nil {
		return dst, malformedRequest("the member name", err)
	}
	return c.invoke(ctx, t, id, name, d, n-2, dst)
}

// memberMap is a request of the oldest browser clients.
type memberMap struct {
	DefID  string    `msgpack:"defId"`
	Name   string    `msgpack:"name"`
	Method string    `msgpack:"method"`
	Value  codec.Raw `msgpack:"value"`
	Args   codec.Raw `msgpack:"args"`
}

func (c *conn) handleMemberMap(ctx context.Context, t wire.Type, d *codec.Decoder, dst []byte) ([]byte, error) {
	var m memberMap
	if err := d.Decode(&m); err != nil {
		return dst, malformedRequest("the payload", err)
	}
	if err := d.End(); err != nil {
		return dst, malformedRequest("the payload", err)
	}
	switch t {
	case wire.TypeCall:
		if m.Args == nil {
			m.Args = codec.AppendArrayHeader(nil, 0)
		}
		args := codec.NewDecoder(m.Args, c.endpoint.cfg.Limits)
		n, err := args.ArrayHeader()
		if err != nil {
			return dst, malformedRequest("the arguments", err)
		}
		return c.invoke(ctx, t, []byte(m.DefID), []byte(m.Method), &args, n, dst)
	case wire.TypeSet:
		value := codec.NewDecoder(m.Value, c.endpoint.cfg.Limits)
		return c.invoke(ctx, t, []byte(m.DefID), []byte(m.Name), &value, 1, dst)
	}
	empty := codec.NewDecoder(nil, c.endpoint.cfg.Limits)
	return c.invoke(ctx, t, []byte(m.DefID), []byte(m.Name), &empty, 0, dst)
}

// invoke finds the member and uses it. n values follow at d.
func (c *conn) invoke(ctx context.Context, t wire.Type, id, name []byte, d *codec.Decoder, n int, dst []byte) ([]byte, error) {
	e := c.find(id)
	if e == nil {
		e = c.await(ctx, id)
	}
	if e == nil {
		return dst, &refusal{definitionNotFound(id)}
	}
	m, err := e.service.member(t, name)
	if err != nil {
		return dst, err
	}
	return c.run(ctx, m, d.Rest(), n, dst)
}

// definitionNotFound is what a peer gets that names a service by an id which leads
// nowhere. Browser clients read the wording, and ask for the service anew.
func definitionNotFound(id []byte) *Error {
	what := "Service"
	if uuid.Validate(string(id)) == nil {
		what = "Definition"
	}
	return &Error{Code: NotFound, Message: fmt.Sprintf("%s with id %s not found", what, shown(id))}
}

func malformedRequest(what string, err error) error {
	e := &Error{Code: InvalidArgument, Message: "malformed request: " + what, cause: err}
	if err != nil {
		e.Message += ": " + err.Error()
	}
	return e
}

// shown returns text of the peer for an error message, cut to a length that
// nobody minds.
func shown[T string | []byte](s T) string {
	const limit = 100
	if len(s) > limit {
		return string(s[:limit]) + "..."
	}
	return string(s)
}
