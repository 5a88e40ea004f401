package tspeer

import (
	"fmt"
	"net/http"
)

// match finds the first unmatched recorded request that means the same.
func (s *server) match(conn *serverConn, p *Packet) (*script, *trial) {
	for _, sc := range s.scripts {
		want := s.msgs[sc.i]
		if sc.matched || want.Conn != conn.conn || want.Packet.Type != p.Type {
			continue
		}
		if s.o.asRecorded && want.Packet.ID != p.ID {
			continue
		}
		if t, err := s.compareRequest(conn, p, want.Packet); err == nil {
			return sc, t
		}
	}
	return nil, nil
}

// nearest explains why no recorded request matches.
func (s *server) nearest(conn *serverConn, p *Packet) string {
	for _, sc := range s.scripts {
		if want := s.msgs[sc.i]; !sc.matched && want.Conn == conn.conn && want.Packet.Type == p.Type {
			_, err := s.compareRequest(conn, p, want.Packet)
			return fmt.Sprintf("the recorded client sent %v (%v)", want.Packet, err)
		}
	}
	return "the recorded client sent nothing like it"
}

func (s *server) compareRequest(conn *serverConn, p, want *Packet) (*trial, error) {
	got, wanted := s.named(p), s.named(want)
	if !s.o.asRecorded {
		wanted = withLive(got, wanted)
	}
	return conn.judge.try(got, wanted)
}

// named returns the payload of a request with the key of a named service in place of its definition id.
func (s *server) named(p *Packet) any {
	a := p.args()
	if p.Type == TypeTask || p.Type == TypePing || len(a) == 0 || s.services[p.word(0)] == "" {
		return p.Payload
	}
	return append([]any{s.services[p.word(0)]}, a[1:]...)
}

// withLive returns want with its stream arguments as live as those of got.
func withLive(got, want any) any {
	g, _ := got.([]any)
	w, ok := want.([]any)
	if !ok || len(g) != len(w) {
		return want
	}
	out := make([]any, len(w))
	for i := range w {
		out[i] = w[i]
		ref, isRef := w[i].(StreamRef)
		if given, ok := g[i].(StreamRef); ok && isRef {
			ref.Live = given.Live
			out[i] = ref
		}
	}
	return out
}

// courtesy returns the answer of any server to a request that the recorded client did not make, or nil.
func (s *server) courtesy(conn *serverConn, p *Packet) *Packet {
	if s.o.asRecorded {
		return nil
	}
	switch {
	case p.Type == TypePing:
		return &Packet{Payload: p.Payload}
	case p.isTask("unsubscribe"), p.isTask("unref_service"):
		return &Packet{Payload: Undefined{}}
	case p.isTask("abilities"):
		return &Packet{Error: true, Payload: notFound("Task with id abilities not found")}
	case p.isTask("query_interface"):
		if def := s.definition(conn, p.word(1)); def != nil {
			return &Packet{Payload: def}
		}
		return &Packet{Error: true, Payload: notFound("Service '" + p.word(1) + "' not found")}
	}
	return nil
}

// notFound returns a refusal as the original's server makes it.
func notFound(message string) *TitanError {
	u := Undefined{}
	return &TitanError{Name: "TitanError", Code: http.StatusNotFound, Message: message, Details: Object{}, Context: Object{}, RequestID: u, CorrelationID: u, SpanID: u, TraceID: u}
}

// definition returns the definition of a named service of this server, or nil.
func (s *server) definition(conn *serverConn, name string) *Definition {
	for i := range s.msgs {
		if def := s.msgs[i].definition(); def != nil && def.ParentID == "" && !s.msgs[i].Client && s.isCalled(def, name) {
			return def
		}
	}
	if !s.isCalled(s.c.calculator, name) {
		return nil
	}
	def := *s.c.calculator
	def.PeerID = s.hello(conn.conn, false).Hello.ID
	return &def
}

func (s *server) isCalled(def *Definition, name string) bool {
	key := serviceKey(def.Meta)
	return name == key || name == bareName(key)
}
