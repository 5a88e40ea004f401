package mux

import (
	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// GoAway asks the peer to make no new requests and to connect anew. payload is the
// encoded array of reason and window in milliseconds, which GoAway copies. It does not
// wait, and reports false if the peer does not know the request. It refuses nothing; see
// [Session.Refuse].
//
// Protocol section 12.5.
func (s *Session) GoAway(payload []byte) bool {
	if !s.canGoAway.Load() {
		return false
	}
	b := buf.Get(len(payload) + cancelRoom)
	start := len(b.B)
	b.B = wire.AppendHeader(s.link.BeginFrame(b.B), s.table.nextID(), wire.Request(wire.TypeGoAway))
	b.B = s.link.EndFrame(append(b.B, payload...), start, false)
	s.mustRespond(newOutgoing(b, 1))
	return true
}
