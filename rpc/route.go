package rpc

import (
	"bytes"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// router finds the method that a request names, on the read owner, so that it is
// known how to dispatch the request before it is copied. What it cannot find, or
// read, is left to [conn.serve], which says why. It belongs to one session.
type router struct {
	endpoint *Endpoint

	// The method that the last CALL named, and the bytes that named it: most requests
	// of a connection are like the one before. Owned by the read owner.
	view   *registryView
	prefix []byte // definition id and member name, encoded
	method *method
}

// route implements the Route of [mux.Config].
func (t *router) route(r *mux.Request) {
	var d codec.Decoder
	d.Reset(r.Payload, t.endpoint.cfg.Limits)
	n, err := d.ArrayHeader()
	if err != nil {
		return
	}
	switch r.Type {
	case wire.TypeCall:
		t.routeCall(r, &d, n)
	case wire.TypeTask:
		name, err := d.StringBytes()
		if err != nil || n < 1 {
			return
		}
		if m := (*t.endpoint.tasks.view.Load())[string(name)]; m != nil {
			r.Target, r.Offset, r.Count = m, len(r.Payload)-d.Len(), n-1
			r.Always = m == t.endpoint.tasks.emit
		}
	}
}

// routeCall finds the method of a CALL whose array of n values d is in.
func (t *router) routeCall(r *mux.Request, d *codec.Decoder, n int) {
	if n < 2 {
		return
	}
	named := d.Rest()
	view := t.endpoint.services.view.Load()
	if t.view == view && bytes.HasPrefix(named, t.prefix) {
		r.Target, r.Offset, r.Count = t.method, len(r.Payload)-len(named)+len(t.prefix), n-2
		if t.method.takesStreams {
			t.expectStreams(r)
		}
		return
	}
	id, err := d.StringBytes()
	if err != nil {
		return
	}
	name, err := d.StringBytes()
	if err != nil {
		return
	}
	var m *method
	if e := view.find(id); e != nil {
		m = e.service.methods[string(name)]
	}
	if m == nil {
		// It may be one of a service that this peer alone sees.
		if bytes.IndexByte(d.Rest(), referenceType) >= 0 {
			r.Offset, r.Count = len(r.Payload)-d.Len(), n-2
			t.expectStreams(r)
		}
		return
	}
	t.view, t.method = view, m
	t.prefix = append(t.prefix[:0], named[:len(named)-d.Len()]...)
	r.Target, r.Offset, r.Count = m, len(r.Payload)-d.Len(), n-2
	if m.takesStreams {
		t.expectStreams(r)
	}
}

// referenceType is in each reference to a stream: the type of the extension.
const referenceType = 107

// announces reports whether there may be streams among the arguments of a request.
func announces(r *mux.Request) bool {
	if m, ok := r.Target.(*method); ok {
		return m.takesStreams
	}
	return r.Count > 0
}

// expectStreams looks for the streams that a request announces: their chunks are right behind,
// and its handler will come later than they do.
func (t *router) expectStreams(r *mux.Request) {
	t.announced(r, func(ref codec.StreamReference) { r.Session().ExpectReader(ref.StreamID, ref.Live) })
}

// refuseStreams gives up the streams that a request announces and that nobody has opened.
func (t *router) refuseStreams(r *mux.Request) {
	if !announces(r) {
		return
	}
	t.announced(r, func(ref codec.StreamReference) { r.Session().RefuseReader(ref.StreamID) })
}

// announced calls fn for each argument of a request that is a stream which the peer writes.
func (t *router) announced(r *mux.Request, fn func(codec.StreamReference)) {
	var d codec.Decoder
	d.Reset(r.Payload[r.Offset:], t.endpoint.cfg.Limits)
	for range r.Count {
		if d.PeekKind() != codec.KindStreamReference {
			if d.Skip() != nil {
				return
			}
			continue
		}
		var ref codec.StreamReference
		if d.Decode(&ref) != nil {
			return
		}
		if ref.Writable {
			fn(ref)
		}
	}
}
