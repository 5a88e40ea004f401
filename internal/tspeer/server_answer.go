package tspeer

import (
	"context"
	"errors"
	"time"
)

// response passes an answer of the client to the script that waits for it.
func (s *server) response(conn *serverConn, p *Packet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := place{conn.conn, p.ID}
	e := s.answers[key]
	if e == nil || e.came {
		if s.o.asRecorded {
			return s.unsolicited(conn, p)
		}
		return violation(RuleUnexpected, "%v answers no request", p)
	}
	e.came = true
	s.report.Matched++
	e.c <- p
	// What nobody waits for in the recording is judged here: an event that the recorded client left unanswered.
	if i := s.recordedRequest(conn, p.ID); i >= 0 && s.msgs[i].Packet.isTask("emit") && !s.o.asRecorded {
		return conn.judge.eventAnswer(p)
	}
	return nil
}

// unsolicited accepts an answer that the recorded client sent without a request.
func (s *server) unsolicited(conn *serverConn, p *Packet) error {
	for i := range s.msgs {
		if m := &s.msgs[i]; m.Client && m.Conn == conn.conn && m.Packet != nil && m.Packet.isResponse() && m.Packet.ID == p.ID && Diff(p.Payload, m.Packet.Payload) == nil {
			return nil
		}
	}
	return violation(RuleUnexpected, "%v answers no request", p)
}

// recordedRequest returns the index of the recorded server's request with that id, -1 if there is none.
func (s *server) recordedRequest(conn *serverConn, id uint32) int {
	for i := range s.msgs {
		if m := &s.msgs[i]; !m.Client && m.Conn == conn.conn && m.Packet != nil && m.Packet.isRequest() && m.Packet.ID == id {
			return i
		}
	}
	return -1
}

// eventAnswer judges the answer to an event. An error ends the original's server process.
func (j *judge) eventAnswer(p *Packet) error {
	switch p.Payload.(type) {
	case nil:
		j.allow("event-answer")
	case Undefined:
	default:
		return violation(RuleMismatch, "%v answers an event, want undefined", p)
	}
	if p.Error {
		return violation(RuleEventAnswer, "%v", p)
	}
	return nil
}

// awaitAnswer waits for the client's answer to the server's request m and compares it with the recorded one.
func (s *server) awaitAnswer(m *Message) error {
	key := place{m.Conn, m.Packet.ID}
	s.mu.Lock()
	conn, e := s.conns[m.Conn], s.answers[key]
	s.mu.Unlock()
	timer := time.NewTimer(s.o.patience)
	defer timer.Stop()
	var p *Packet
	select {
	case p = <-e.c:
	case <-s.ctx.Done():
		select {
		case p = <-e.c:
		default:
			return context.Cause(s.ctx)
		}
	case <-timer.C:
		return violation(RuleMissing, "no answer to %v within %v", m, s.o.patience)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.compareAnswer(conn, p, m)
}

func (s *server) compareAnswer(conn *serverConn, p *Packet, m *Message) error {
	if m.Packet.isTask("emit") && !s.o.asRecorded {
		return nil // judged on arrival
	}
	var want *Packet
	for i := range s.msgs {
		if r := &s.msgs[i]; r.Client && r.Conn == m.Conn && r.Packet != nil && r.Packet.isResponse() && r.Packet.ID == m.Packet.ID {
			want = r.Packet
			break
		}
	}
	t, err := conn.judge.try(p.Payload, want.Payload)
	if err == nil && p.Error != want.Error {
		err = errors.New("the error bit differs")
	}
	if err != nil {
		return violation(RuleMismatch, "%v: %v; recorded %v", p, err, want)
	}
	t.commit()
	return nil
}
