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
func (p *Peer) serve(r *mux.Request, dst []byte) (out []byte, isError bool) {
	defer func() {
		if v := recover(); v != nil {
			p.logPanic(r, v)
			out, isError = p.appendFailure(r, dst, errInternal()), true
		}
	}()
	out, err := p.handle(r, dst)
	if n, limit := len(out)-len(dst)+wire.HeaderLen, p.endpoint.cfg.maxMessageBytes(); err == nil && n > limit {
		err = &Error{Code: ResourceExhausted, Message: fmt.Sprintf("result of %d bytes, limit %d", n-wire.HeaderLen, limit)}
	}
	if err == nil {
		return out, false
	}
	if p.ctx.Load().Err() != nil && errors.Is(err, context.Canceled) {
		// Not the caller has given up, but this side.
		err = &Error{Code: Unavailable, Message: "shutting down", cause: err}
	}
	return p.appendFailure(r, dst, err), true
}

// appendFailure appends an error of a handler as it travels, or a shorter one if
// that is too large for a message. The methods of the error are the
// application's, and may panic too.
func (p *Peer) appendFailure(r *mux.Request, dst []byte, err error) (out []byte) {
	defer func() {
		if v := recover(); v != nil {
			p.logPanic(r, v)
			out = appendError(dst, errInternal())
		}
	}()
	e := asError(err)
	out = appendError(dst, e)
	if n, limit := len(out)-len(dst)+wire.HeaderLen, p.endpoint.cfg.maxMessageBytes(); n > limit {
		out = appendError(dst, &Error{Code: e.Code, Message: fmt.Sprintf("error of %d bytes, limit %d: %s", n-wire.HeaderLen, limit, shown(e.Message))})
	}
	return out
}

func (p *Peer) logPanic(r *mux.Request, v any) {
	p.endpoint.cfg.logger().Error("netron: panic in a handler", "request", r.Type.String(), "peer", p.ID(), "panic", v, "stack", string(debug.Stack()))
}

// handle runs what the request asks for and appends the result to dst.
func (p *Peer) handle(r *mux.Request, dst []byte) ([]byte, error) {
	lim := p.endpoint.cfg.Limits
	var ctx context.Context = p.ctx.Load()
	if r.Inline {
		ctx = p.ownerCtx.Load()
	}
	if m, ok := r.Target.(*method); ok { // found by route
		args := r.Payload[r.Offset:]
		if m.limit > 0 {
			return p.runLimited(ctx, r, m, args, r.Count, dst)
		}
		if !m.isSampled(r.ID()) {
			return m.invoke(ctx, args, r.Count, lim, dst)
		}
		start := time.Now()
		defer func() { m.observe(time.Since(start)) }()
		return m.invoke(ctx, args, r.Count, lim, dst)
	}
	d := codec.NewDecoder(r.Payload, lim)
	if r.Type == wire.TypeTask {
		return p.handleTask(ctx, r, &d, dst)
	}
	return p.handleMember(ctx, r.Type, &d, dst)
}

// handleMember serves GET, SET and CALL: an array of definition id, member name
// and arguments (protocol sections 6.1 to 6.3), or the map that the oldest
// browser clients send.
func (p *Peer) handleMember(ctx context.Context, t wire.Type, d *codec.Decoder, dst []byte) ([]byte, error) {
	if d.PeekKind() == codec.KindMap {
		return p.handleMemberMap(ctx, t, d, dst)
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
	return p.invoke(ctx, t, id, name, d, n-2, dst)
}

// memberMap is a request of the oldest browser clients.
type memberMap struct {
	DefID  string    `msgpack:"defId"`
	Name   string    `msgpack:"name"`
	Method string    `msgpack:"method"`
	Value  codec.Raw `msgpack:"value"`
	Args   codec.Raw `msgpack:"args"`
}

func (p *Peer) handleMemberMap(ctx context.Context, t wire.Type, d *codec.Decoder, dst []byte) ([]byte, error) {
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
		args := codec.NewDecoder(m.Args, p.endpoint.cfg.Limits)
		n, err := args.ArrayHeader()
		if err != nil {
			return dst, malformedRequest("the arguments", err)
		}
		return p.invoke(ctx, t, []byte(m.DefID), []byte(m.Method), &args, n, dst)
	case wire.TypeSet:
		value := codec.NewDecoder(m.Value, p.endpoint.cfg.Limits)
		return p.invoke(ctx, t, []byte(m.DefID), []byte(m.Name), &value, 1, dst)
	}
	empty := codec.NewDecoder(nil, p.endpoint.cfg.Limits)
	return p.invoke(ctx, t, []byte(m.DefID), []byte(m.Name), &empty, 0, dst)
}

// invoke finds the member and uses it. n values follow at d.
func (p *Peer) invoke(ctx context.Context, t wire.Type, id, name []byte, d *codec.Decoder, n int, dst []byte) ([]byte, error) {
	e := p.endpoint.services.byDefinition(id)
	if e == nil {
		return dst, definitionNotFound(id)
	}
	if t != wire.TypeCall {
		return dst, &Error{Code: NotFound, Message: fmt.Sprintf("Property '%s.%s' not found", e.service.name, shown(name))}
	}
	m := e.service.methods[string(name)]
	if m == nil {
		return dst, &Error{Code: NotFound, Message: fmt.Sprintf("Method '%s.%s' not found", e.service.name, shown(name))}
	}
	return m.invoke(ctx, d.Rest(), n, p.endpoint.cfg.Limits, dst)
}

// definitionNotFound is what a peer gets that names a service by an id which leads
// nowhere. Browser clients read the wording, and ask for the service anew.
func definitionNotFound(id []byte) error {
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
