package tspeer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"
)

// ServeRecorded plays the recorded server against a dialler under test, over connections from accept: as many as the recorded client made.
// It matches each request of the dialler by its meaning with one that the recorded client made, in any order, and does what the original's
// server did then. Beside those it answers what every server answers: definitions, unsubscribe, unref_service, PING. It returns when
// the dialler has closed all connections.
//
// The error is nil or says what a TypeScript server would not have understood, or which recorded request did not come; it wraps a *Violation
// unless ctx ended or accept failed. Core tasks and requests that the original refused need not come.
func (c *Conversation) ServeRecorded(ctx context.Context, accept Endpoints, opts ...Option) (*Report, error) {
	msgs, err := c.Messages()
	if err != nil {
		return nil, err
	}
	o := newOptions(opts)
	if o.amended {
		if msgs, err = c.amend(msgs); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s := &server{
		c: c, o: o, ctx: ctx, cancel: cancel, msgs: msgs, scripts: scripts(msgs), conns: map[int]*serverConn{},
		report: &Report{Allowed: map[string]int{}}, services: map[string]string{}, answers: map[place]*expected{}, bad: map[int]bool{},
	}
	s.learnServices()
	s.serve(accept)
	if err := s.firstError(); err != nil {
		return s.report, fmt.Errorf("%v: %w", c, err)
	}
	return s.report, nil
}

// server is one run of a played server. Each connection has a goroutine that handles arrivals, each matched request one that runs its script.
type server struct {
	c       *Conversation
	o       options
	ctx     context.Context //nolint:containedctx // lifetime of the run
	cancel  context.CancelCauseFunc
	msgs    []Message
	scripts []*script
	running sync.WaitGroup // scripts

	mu       sync.Mutex
	conns    map[int]*serverConn
	services map[string]string   // definition id -> key of the named service
	answers  map[place]*expected // connection and id -> a request of the server
	bad      map[int]bool        // malformed recorded messages that have come
	report   *Report
	err      error
}

// serverConn is one connection of a played server.
type serverConn struct {
	*link
	judge   *judge
	req     *http.Request
	peer    string // the client's id, once it is known
	peerID  string // the same in the recording
	streams map[uint32]*upload
	answers int // answers sent since the connection began
}

// expected is an answer that the client owes.
type expected struct {
	c    chan *Packet // holds the answer once it came
	came bool
}

// upload is a stream that the client writes.
type upload struct {
	recorded uint32
	live     bool
	next     uint32
	barrier  int // answers sent when the call came
	items    []any
	ended    chan struct{}
	over     bool
}

// fail records the first error and ends the run.
func (s *server) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	s.cancel(err)
}

func (s *server) firstError() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// learnServices notes the definition ids of named services.
func (s *server) learnServices() {
	s.services[s.c.calculator.ID] = serviceKey(s.c.calculator.Meta)
	for i := range s.msgs {
		if def := s.msgs[i].definition(); def != nil && def.ParentID == "" && !s.msgs[i].Client {
			s.services[def.ID] = serviceKey(def.Meta)
		}
	}
}

func (s *server) serve(accept Endpoints) {
	var handlers sync.WaitGroup
	for _, u := range s.c.upgrades {
		nc, err := accept(s.ctx)
		if err != nil {
			if s.ctx.Err() != nil {
				err = context.Cause(s.ctx)
			}
			s.fail(fmt.Errorf("tspeer: connection %d: %w", u.Conn, err))
			break
		}
		conn := &serverConn{
			link: newLink(s.ctx, nc, false, u.Conn, newInbox()), judge: newJudge(s.msgs, s.report.Allowed), streams: map[uint32]*upload{},
		}
		conn.tamper = s.o.tamper
		handlers.Go(func() {
			defer conn.close()
			if err := s.converse(conn); err != nil {
				if s.ctx.Err() != nil {
					err = context.Cause(s.ctx)
				}
				s.fail(err)
			}
		})
	}
	handlers.Wait()
	s.cancel(errLeft)
	s.running.Wait()
	s.checkComplete()
}

var errLeft = violation(RuleMissing, "the dialler left before the server was done")

// checkComplete fails the run if a recorded request has not come.
func (s *server) checkComplete() {
	if s.firstError() != nil {
		return
	}
	for _, sc := range s.scripts {
		p := s.msgs[sc.i].Packet
		if !sc.matched && (s.o.asRecorded || !isCoreTask(p) && p.Type != TypePing && !s.refused(sc)) {
			s.fail(violation(RuleMissing, "%v", &s.msgs[sc.i]))
			return
		}
	}
}

// refused reports whether the original's server refused the request. A dialler that knows the definition need not make such a one.
func (s *server) refused(sc *script) bool {
	for _, st := range sc.steps {
		p := s.msgs[st.i].Packet
		if _, ok := p.Payload.(*TitanError); ok && st.kind == stepSend && p.isResponse() {
			return true
		}
	}
	return false
}

// hello returns the recorded handshake message of one side of a connection.
func (s *server) hello(conn int, client bool) *Message {
	for i := range s.msgs {
		if m := &s.msgs[i]; m.Hello != nil && m.Client == client && m.Conn == conn {
			return m
		}
	}
	panic("BUG: a recording without a handshake")
}

// converse handles one connection until the client closes it.
func (s *server) converse(conn *serverConn) error {
	var err error
	if conn.req, err = conn.acceptUpgrade(); err != nil {
		return err
	}
	s.mu.Lock()
	s.conns[conn.conn] = conn
	s.mu.Unlock()
	conn.peerID = s.hello(conn.conn, true).Hello.ID
	conn.start()
	select {
	case <-time.After(idFrameDelay):
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
	id := s.hello(conn.conn, false)
	conn.send(id.Text, id.Raw)
	for {
		a, err := conn.in.next(s.ctx, s.o.patience)
		if err != nil {
			return err
		}
		if a.closed {
			conn.sendClose(a.code, a.reason)
			conn.flush(s.ctx, s.o.patience)
			return nil
		}
		if errors.Is(a.err, io.EOF) && !s.o.asRecorded {
			s.mu.Lock()
			conn.judge.allow("abrupt-end")
			s.mu.Unlock()
			return nil
		}
		if broken, ok := errors.AsType[*Violation](a.err); ok {
			return broken
		}
		if a.err != nil {
			return violation(RuleCloseFrame, "connection %d ended: %v", conn.conn, a.err)
		}
		if err := s.handle(conn, a); err != nil {
			return err
		}
	}
}

func (s *server) handle(conn *serverConn, a arrival) error {
	if conn.peer == "" && len(a.data) > 0 && a.data[0] == '{' {
		return s.greet(conn, a.data)
	}
	if a.text {
		return violation(RuleText, "%.80q", a.data)
	}
	p, err := Decode(Current, a.data)
	if err != nil {
		if s.o.asRecorded && s.matchBad(conn, a.data) {
			return nil
		}
		return err
	}
	if conn.peer == "" && p.Type != TypePing && !s.o.asRecorded {
		return violation(RuleHello, "%v before client-id: the original never answers such a client", p)
	}
	if !s.o.asRecorded {
		if err := Check(p); err != nil {
			return err
		}
	}
	switch {
	case p.isResponse():
		return s.response(conn, p)
	case p.isRequest():
		return s.request(conn, p)
	case p.Type == TypeStream:
		return s.chunk(conn, p)
	}
	return violation(RuleUnexpected, "%v", p)
}

// greet handles the client-id.
func (s *server) greet(conn *serverConn, data []byte) error {
	hello, err := parseHello(data, helloClientID)
	if err != nil {
		return err
	}
	for _, other := range []string{conn.req.URL.Query().Get("id"), conn.req.Header.Get("X-Netron-Id")} {
		if other != "" && other != hello.ID {
			return violation(RuleHello, "client-id %s after the request said %s", hello.ID, other)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	conn.peer = hello.ID
	conn.judge.ids[conn.peerID] = hello.ID
	return nil
}

// matchBad reports whether data is a malformed message that the recorded client sent, once each.
func (s *server) matchBad(conn *serverConn, data []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.msgs {
		m := &s.msgs[i]
		if m.Client && m.Bad != nil && m.Conn == conn.conn && !s.bad[i] && bytes.Equal(m.Raw, data) {
			s.bad[i] = true
			return true
		}
	}
	return false
}

// request matches a request with a recorded one, or answers it as any server does.
func (s *server) request(conn *serverConn, p *Packet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sc, t := s.match(conn, p); sc != nil {
		t.commit()
		sc.matched = true
		s.report.Matched++
		if err := s.beginUploads(conn, p, s.msgs[sc.i].Packet); err != nil {
			return err
		}
		s.running.Go(func() { s.run(conn, sc, p) })
		return nil
	}
	answer := s.courtesy(conn, p)
	if answer == nil {
		return violation(RuleUnexpected, "%v; %s", p, s.nearest(conn, p))
	}
	s.report.Extra++
	answer.ID, answer.Type = p.ID, p.Type
	s.sendPacket(conn, answer)
	return nil
}

func (s *server) sendPacket(conn *serverConn, p *Packet) {
	if p.isResponse() {
		conn.answers++
	}
	conn.send(false, p.AppendTo(nil, Current))
}

// run does what the recorded server did because of a request.
func (s *server) run(conn *serverConn, sc *script, req *Packet) {
	for _, st := range sc.steps {
		if err := s.step(conn, st, req); err != nil {
			s.fail(err)
			return
		}
	}
}

func (s *server) step(conn *serverConn, st step, req *Packet) error {
	m := &s.msgs[st.i]
	switch st.kind {
	case stepAnswer:
		return s.awaitAnswer(m)
	case stepStream:
		return s.awaitStream(conn, m.Packet.StreamID)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.conns[m.Conn]
	if to == nil || s.ctx.Err() != nil {
		return errLeft
	}
	p := to.judge.rewritten(m.Packet)
	if p.isResponse() {
		p.ID = req.ID
	} else if p.isRequest() {
		s.answers[place{m.Conn, p.ID}] = &expected{c: make(chan *Packet, 1)}
	}
	s.sendPacket(to, p)
	return nil
}
