package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// Header is text that travels with a request or its answer, beside the arguments and
// the result. Names are compared without regard to case, and are in lower case here.
type Header map[string]string

// Get returns the value under a name, whatever its case, or "".
func (h Header) Get(name string) string { return h[strings.ToLower(name)] }

// TraceParent is the name of the header for the W3C trace context. It has a place of
// its own on the wire.
const TraceParent = "traceparent"

const (
	// maxHeaderBytes limits names and values of the headers of one request or answer
	// together, and maxHeaders their number.
	maxHeaderBytes = 16 << 10
	maxHeaders     = 128
)

// The members of a request's second value (protocol section 12.3).
const (
	metaHeaders = "h"
	metaTrace   = "t"
	metaLeft    = "d"
)

// requestMeta is what a request carries besides its arguments, and what its answer
// will carry besides the result.
type requestMeta struct {
	header   Header
	deadline time.Time // zero if there is none

	mu      sync.Mutex
	trailer Header // guarded by mu
	closed  bool   // the answer has been made; guarded by mu
}

func (m *requestMeta) deadlineAt() time.Time {
	if m == nil {
		return time.Time{}
	}
	return m.deadline
}

type outgoingKey struct{}

// WithHeader returns a context whose calls carry a header, in addition to those that
// ctx has already. The peer's handlers read it by [HeaderFrom]. Peers that do not
// know headers, which are all TypeScript ones, do not get it.
func WithHeader(ctx context.Context, name, value string) context.Context {
	old := outgoing(ctx)
	h := make(Header, len(old)+1)
	maps.Copy(h, old)
	h[strings.ToLower(name)] = value
	return context.WithValue(ctx, outgoingKey{}, h)
}

// outgoing returns the headers for the calls under ctx.
func outgoing(ctx context.Context) Header {
	h, _ := ctx.Value(outgoingKey{}).(Header)
	return h
}

// HeaderFrom returns the headers that came with the request which is being served
// under ctx. They must not be changed.
func HeaderFrom(ctx context.Context) Header {
	if r, ok := ctx.Value(requestKey{}).(*requestContext); ok {
		if m := r.meta(); m != nil {
			return m.header
		}
	}
	return nil
}

// SetHeader adds a header to the answer of the request that is being served under
// ctx; if both together are too large for a message it gets lost. It returns an error of code [Unimplemented] if the caller cannot read headers,
// of [FailedPrecondition] if ctx is not that of a request, or of one that is served inline, or was answered already, and of
// [ResourceExhausted] if the headers become too large.
func SetHeader(ctx context.Context, name, value string) error {
	r, ok := ctx.Value(requestKey{}).(*requestContext)
	switch {
	case !ok:
		return Errorf(FailedPrecondition, "rpc: set header: no request is being served under this context")
	case !r.conn().session.CanMeta():
		return &Error{Code: Unimplemented, Message: "rpc: set header: the caller cannot read headers", cause: errors.ErrUnsupported}
	}
	x := r.needExtra()
	x.meta.CompareAndSwap(nil, new(requestMeta))
	m := x.meta.Load()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return Errorf(FailedPrecondition, "rpc: set header: the request has been answered")
	}
	name = strings.ToLower(name)
	if m.trailer == nil {
		m.trailer = make(Header)
	}
	old, had := m.trailer[name]
	m.trailer[name] = value
	if err := m.trailer.check(); err != nil {
		if had {
			m.trailer[name] = old
		} else {
			delete(m.trailer, name)
		}
		return err
	}
	return nil
}

type trailerKey struct{}

// WithAnswerHeader returns a context whose next call stores the headers of the answer
// in h. It is for one call at a time.
func WithAnswerHeader(ctx context.Context, h *Header) context.Context {
	return context.WithValue(ctx, trailerKey{}, h)
}

// check returns an error if the headers are too many or too large.
func (h Header) check() error {
	n := 0
	for name, value := range h {
		n += len(name) + len(value)
	}
	if n > maxHeaderBytes || len(h) > maxHeaders {
		return Errorf(ResourceExhausted, "rpc: %d headers of %d bytes, limits %d and %d", len(h), n, maxHeaders, maxHeaderBytes)
	}
	return nil
}

// append appends the headers as members of a second value. n is how many further
// members the caller appends.
func (h Header) append(dst []byte, n int) []byte {
	plain := len(h)
	trace, traced := h[TraceParent]
	if traced {
		plain--
		n++
	}
	if plain > 0 {
		n++
	}
	dst, err := codec.AppendMapHeader(dst, n)
	if err != nil {
		panic("BUG: map of a few members: " + err.Error())
	}
	if traced {
		dst = codec.AppendString(codec.AppendString(dst, metaTrace), trace)
	}
	if plain > 0 {
		dst, err = codec.AppendMapHeader(codec.AppendString(dst, metaHeaders), plain)
		if err != nil {
			panic("BUG: checked headers: " + err.Error())
		}
		for name, value := range h {
			if name != TraceParent {
				dst = codec.AppendString(codec.AppendString(dst, name), value)
			}
		}
	}
	return dst
}

// appendMeta adds the second value to a request for a peer that understands it: the
// headers of ctx, and the time that is left until its deadline, if it has one.
//
// Protocol section 12.3.
func appendMeta(ctx context.Context, call *mux.Call, deadline time.Time, limited bool) error {
	h := outgoing(ctx)
	if len(h) == 0 && !limited {
		return nil
	}
	if err := h.check(); err != nil {
		return err
	}
	call.Meta = true
	if !limited {
		call.B = h.append(call.B, 0)
		return nil
	}
	call.B = h.append(call.B, 1)
	left := max(int64(math.Ceil(float64(time.Until(deadline))/float64(time.Millisecond))), 0)
	call.B = codec.AppendInt(codec.AppendString(call.B, metaLeft), left)
	return nil
}

// split cuts the payload of a message that carries a second value.
func split(payload []byte, lim codec.Limits) (value, meta []byte, err error) {
	d := codec.NewDecoder(payload, lim)
	if err := d.Skip(); err != nil {
		return nil, nil, err
	}
	at := len(payload) - d.Len()
	return payload[:at], payload[at:], nil
}

// parseMeta reads a second value. left is negative if there is none in it.
func parseMeta(b []byte, lim codec.Limits) (h Header, left time.Duration, err error) {
	if len(b) > maxHeaderBytes+1024 {
		return nil, 0, Errorf(ResourceExhausted, "headers of %d bytes, limit %d", len(b), maxHeaderBytes)
	}
	var m struct {
		Headers map[string]string `msgpack:"h"`
		Trace   string            `msgpack:"t"`
		Left    *float64          `msgpack:"d"`
	}
	if err := codec.UnmarshalLimits(b, &m, lim); err != nil {
		return nil, 0, malformedRequest("the second value", err)
	}
	for name, value := range m.Headers {
		if lower := strings.ToLower(name); lower != name {
			delete(m.Headers, name)
			m.Headers[lower] = value
		}
	}
	h = m.Headers
	if m.Trace != "" {
		if h == nil {
			h = make(Header, 1)
		}
		h[TraceParent] = m.Trace
	}
	if err := h.check(); err != nil {
		return nil, 0, err
	}
	left = -1
	if m.Left != nil {
		ms := *m.Left
		if math.IsNaN(ms) {
			return nil, 0, malformedRequest(fmt.Sprintf("the time left: %v", ms), nil)
		}
		const most = float64(math.MaxInt64 / int64(time.Millisecond) / 2)
		left = time.Duration(max(min(ms, most), 0) * float64(time.Millisecond))
	}
	return h, left, nil
}

// readMeta reads what a request carries besides its arguments.
func readMeta(b []byte, lim codec.Limits) (*requestMeta, error) {
	h, left, err := parseMeta(b, lim)
	if err != nil {
		return nil, err
	}
	m := &requestMeta{header: h}
	if left >= 0 {
		m.deadline = time.Now().Add(left)
	}
	if left == 0 {
		return m, &Error{Code: DeadlineExceeded, Message: "no time left for the request"}
	}
	return m, nil
}

// appendTrailer adds the headers of the answer behind the result, and reports whether
// there are any.
func (m *requestMeta) appendTrailer(dst []byte) ([]byte, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if len(m.trailer) == 0 {
		return dst, false
	}
	return m.trailer.append(dst, 0), true
}

// cut leaves the headers of an answer out, for those who did not ask for them.
func (p *Peer) cut(r *mux.Reply) error {
	if !r.Meta {
		return nil
	}
	value, _, err := split(r.Payload, p.endpoint.cfg.Limits)
	if err != nil {
		return answerError(err)
	}
	r.Payload, r.Meta = value, false
	return nil
}

// takeTrailer cuts the headers off an answer, and stores them where ctx says.
func (p *Peer) takeTrailer(ctx context.Context, r *mux.Reply) error {
	lim := p.endpoint.cfg.Limits
	value, meta, err := split(r.Payload, lim)
	if err != nil {
		return answerError(err)
	}
	r.Payload, r.Meta = value, false
	if target, ok := ctx.Value(trailerKey{}).(*Header); ok && target != nil {
		h, _, err := parseMeta(meta, lim)
		if err != nil {
			return answerError(err)
		}
		*target = h
	}
	return nil
}
