package tspeer

import (
	"errors"
	"fmt"
	"slices"
)

// packet judges one packet of the server.
func (r *replay) packet(conn *clientConn, p *Packet) error {
	switch {
	case p.isResponse():
		return r.response(conn, p)
	case p.isRequest():
		return r.request(conn, p)
	default:
		return r.chunk(conn, p)
	}
}

// candidates calls f with the recorded server messages on that connection which have not come yet, until it returns true.
func (r *replay) candidates(conn *clientConn, f func(i int, m *Message) bool) {
	for i := range r.msgs {
		if m := &r.msgs[i]; !m.Client && m.Conn == conn.conn && m.Packet != nil && !r.done[i] && f(i, m) {
			return
		}
	}
}

func (r *replay) response(conn *clientConn, p *Packet) error {
	var problem error
	r.candidates(conn, func(i int, m *Message) bool {
		if !m.Packet.isResponse() || m.Packet.ID != p.ID {
			return false
		}
		t, err := r.compareResponse(conn, p, m)
		if err != nil {
			problem = violation(RuleMismatch, "%v: %v; recorded %v", p, err, m)
			return false
		}
		t.commit()
		problem = errMatched
		r.arrived(i)
		return true
	})
	switch {
	case errors.Is(problem, errMatched):
		return nil
	case problem != nil:
		return problem
	case conn.bad[p.ID] && anyRefusal(p):
		conn.judge.allow("bad-request-answer")
		return nil
	}
	return violation(RuleUnexpected, "%v answers no request", p)
}

var errMatched = errors.New("matched")

// compareResponse compares an answer with a recorded one, then with the alternatives to it.
func (r *replay) compareResponse(conn *clientConn, p *Packet, m *Message) (*trial, error) {
	want := m.Packet
	t, err := conn.judge.try(p.Payload, want.Payload)
	switch {
	case p.Type != want.Type:
		err = fmt.Errorf("type %d, want %d", p.Type, want.Type)
	case p.Error != want.Error:
		err = fmt.Errorf("error bit %v, want %v", p.Error, want.Error)
	case m.only:
		err = errors.New("the original's answer is wrong")
	}
	if err != nil && p.Type == want.Type && slices.ContainsFunc(m.also, func(alt alternative) bool { return alt(p) }) {
		r.report.Allowed["amendment"]++
		return &trial{judge: conn.judge}, nil
	}
	return t, err
}

// request matches a request of the server, and answers it as the recorded client did.
func (r *replay) request(conn *clientConn, p *Packet) error {
	var problem error
	var first *Message
	match := -1
	r.candidates(conn, func(i int, m *Message) bool {
		if m.Packet.Type != p.Type || !m.Packet.isRequest() {
			return false
		}
		t, err := conn.judge.try(p.Payload, m.Packet.Payload)
		if err == nil {
			t.commit()
			match = i
			return true
		}
		if first == nil && p.isTask("emit") && m.Packet.word(1) == p.word(1) {
			first = m
		}
		problem = err
		return false
	})
	switch {
	case match < 0 && problem != nil:
		return violation(RuleMismatch, "%v: %v", p, problem)
	case match < 0:
		return violation(RuleUnexpected, "%v", p)
	case first != nil:
		return violation(RuleOrder, "%v came before %v", p, first)
	}
	r.arrived(match)
	if i := r.answerTo(match); i >= 0 {
		r.send(i, &p.ID)
	}
	return nil
}

// chunk matches a stream packet of the server with the next recorded one of that stream.
func (r *replay) chunk(conn *clientConn, p *Packet) error {
	if p.Type != TypeStream {
		return violation(RuleUnexpected, "%v", p)
	}
	stream, known := uint32(0), false
	for rec, act := range conn.judge.streams {
		if act == p.StreamID {
			stream, known = rec, true
		}
	}
	if !known {
		if !r.o.asRecorded {
			return violation(RuleOrder, "%v before the answer that announces it: the reader would start again and wait for index 0", p)
		}
		stream = p.StreamID
	}
	if p.Index != conn.indexes[stream] {
		return violation(RuleOrder, "%v, want index %d", p, conn.indexes[stream])
	}
	conn.indexes[stream]++
	problem := error(violation(RuleUnexpected, "%v", p))
	r.candidates(conn, func(i int, m *Message) bool {
		if m.Packet.Type != TypeStream || m.Packet.StreamID != stream {
			return false
		}
		t, err := conn.judge.try(p.Payload, m.Packet.Payload)
		if err == nil && p.flags() != m.Packet.flags() {
			err = fmt.Errorf("flags %02x, want %02x", p.flags(), m.Packet.flags())
		}
		if problem = nil; err != nil {
			problem = violation(RuleMismatch, "%v: %v; recorded %v", p, err, m)
			return true
		}
		t.commit()
		r.arrived(i)
		return true
	})
	return problem
}

// arrived marks message i as matched; an answer out of the recorded order is a difference worth counting.
func (r *replay) arrived(i int) {
	r.done[i] = true
	r.report.Matched++
	for j := range i {
		if m := &r.msgs[j]; !m.Client && !r.done[j] && m.Packet != nil && !m.optional {
			r.report.Allowed["order"]++
			return
		}
	}
}
