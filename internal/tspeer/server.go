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
		report: &Report{Allowed: map[string]int{}}, services: map[string]string{}, answers: map[[2]uint32]*expected{}, bad: map[int]bool{},
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
	ctx     context.Context
	cancel  context.CancelCauseFunc
	msgs    []Message
	scripts []*script
	running sync.WaitGroup // scripts

	mu       sync.Mutex
	conns    map[int]*serverConn
	services map[string]string       // definition id -> key of the named service
	answers  map[[2]uint32]*expected // connection and id -> a request of the server
	bad      map[int]bool            // malformed recorded messages that have come
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
		return s.awaitStream(conn, st)
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
		s.answers[[2]uint32{uint32(m.Conn), p.ID}] = &expected{c: make(chan *Packet, 1)}
	}
	s.sendPacket(to, p)
	return nil
}

// response passes an answer of the client to the script that waits for it.
func (s *server) response(conn *serverConn, p *Packet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := [2]uint32{uint32(conn.conn), p.ID}
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
	key := [2]uint32{uint32(m.Conn), m.Packet.ID}
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
