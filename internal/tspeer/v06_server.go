package tspeer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/gobwas/ws"
)

// AllowServiceEvents makes a played 0.6 server offer its service events, to which a 0.6 connector then subscribes.
func AllowServiceEvents() Option { return func(o *options) { o.serviceEvents = true } }

// Serve06 plays a 0.6 server with the reference service to a dialler under test, on one connection, until the dialler closes it. The server
// has the members add, multiply, divide, fail, echo, echoAll, nothing, count, upload, sumStream, child, fire, version and counter, and
// the tasks abilities, subscribe, unsubscribe, emit, unref_service and sum. Report.Requests lists what the dialler asked for.
//
// The error is nil or wraps a *Violation: something that a 0.6 peer would not have understood.
func Serve06(ctx context.Context, nc net.Conn, opts ...Option) (*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := newInbox()
	s := &server06{
		o: newOptions(opts), ctx: ctx, in: in, link: newLink(ctx, nc, false, 1, in), id: newUUID(), defID: newUUID(),
		nested: map[string]float64{}, subscribed: map[string]bool{}, asked: map[uint32]bool{}, uploads: map[uint32]*upload06{}, report: &Report{Allowed: map[string]int{}},
	}
	s.link.tamper = s.o.tamper
	defer s.link.close()
	if err := s.run(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return s.report, fmt.Errorf("0.6 server: %w", err)
	}
	return s.report, nil
}

// server06 is one run of a played 0.6 server; one goroutine does everything.
type server06 struct {
	o          options
	ctx        context.Context //nolint:containedctx // lifetime of the run
	in         *inbox
	link       *link
	id, defID  string
	client     string
	ids        uint32 // the last packet id
	streams    uint32 // the last stream id
	counter    any
	nested     map[string]float64 // definition id -> value
	subscribed map[string]bool
	asked      map[uint32]bool // events without an answer
	uploads    map[uint32]*upload06
	report     *Report
}

// upload06 is a stream that a call reads.
type upload06 struct {
	call       *Packet
	live, sum  bool
	next       uint32
	total      float64
	unreadable bool
}

func (s *server06) run() error {
	req, err := s.link.acceptUpgrade()
	if err != nil {
		return err
	}
	s.link.start()
	if s.client = req.URL.Query().Get("id"); s.client == "" {
		s.link.sendClose(ws.StatusNoStatusRcvd, "")
		s.link.flush(s.ctx, s.o.patience)
		return violation(RuleUpgrade, "no id in the query of %s: a 0.6 server closes such a connection", req.RequestURI)
	}
	s.link.send(true, []byte(`{"type":"id","id":"`+s.id+`"}`))
	for {
		a, err := s.in.next(s.ctx, s.o.patience)
		switch {
		case err != nil:
			return err
		case a.closed:
			s.link.sendClose(a.code, a.reason)
			s.link.flush(s.ctx, s.o.patience)
			return nil
		case errors.Is(a.err, io.EOF):
			return nil
		case a.err != nil:
			return a.err
		case a.text:
			continue // a 0.6 peer logs and forgets it
		}
		if err := s.handle(a.data); err != nil {
			return err
		}
	}
}

func (s *server06) handle(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		return violation(RuleHello, "%.80q in a binary frame: a 0.6 server takes it for a packet", data)
	}
	p, err := Decode(V06, data)
	if err == nil {
		err = Check(p)
	}
	if err != nil {
		return err
	}
	s.report.Matched++
	switch {
	case p.isResponse():
		if !s.asked[p.ID] {
			return violation(RuleUnexpected, "%v answers no request", p)
		}
		delete(s.asked, p.ID)
		return (&judge{allowed: s.report.Allowed}).eventAnswer(p)
	case p.Type == TypeStream:
		return s.chunk(p)
	case p.isRequest():
		return s.request(p)
	}
	return violation(RuleUnexpected, "%v", p)
}

func (s *server06) send(p *Packet) { s.link.send(false, p.AppendTo(nil, V06)) }

func (s *server06) nextID() uint32 {
	s.ids++
	return s.ids
}

// answer answers a request: with an error if v is one that was thrown.
func (s *server06) answer(req *Packet, v any) {
	_, thrown := v.(*Error)
	if req.word(1) == "echo" || req.word(1) == "echoAll" {
		thrown = false
	}
	s.send(&Packet{ID: req.ID, Type: req.Type, Error: thrown, Payload: v})
}

func (s *server06) request(p *Packet) error {
	name := p.word(1)
	if p.Type == TypeTask {
		name = p.word(0)
	}
	s.report.Requests = append(s.report.Requests, typeNames[p.Type]+" "+name)
	switch p.Type {
	case TypeTask:
		return s.task(p)
	case TypeCall:
		return s.call(p)
	}
	switch {
	case p.word(0) != s.defID:
		s.answer(p, thrown06("Error", "Unknown definition: "+p.word(0)+"."))
	case p.Type == TypeSet:
		s.counter = p.args()[2]
		s.answer(p, Undefined{})
	case name == "version":
		s.answer(p, "1.0.0")
	case name == "counter":
		s.answer(p, s.counter)
	default:
		s.answer(p, Undefined{})
	}
	return nil
}

func (s *server06) task(p *Packet) error {
	switch p.word(0) {
	case "abilities":
		if args := p.args(); len(args) > 1 {
			o, _ := args[1].(Object)
			if allow, _ := o.Get("allowServiceEvents"); !isBool(allow) {
				return violation(RulePayload, "%v wants {allowServiceEvents: bool}", p)
			}
		}
		s.answer(p, Object{{"services", Map{{"calculator@1.0.0", calculator06(s.defID, s.id)}}}, {"allowServiceEvents", s.o.serviceEvents}})
	case "subscribe", "unsubscribe":
		if p.word(1) == "" {
			return violation(RulePayload, "%v wants an event's name", p)
		}
		s.subscribed[p.word(1)] = p.word(0) == "subscribe"
		s.answer(p, Undefined{})
	case "emit":
		s.answer(p, Undefined{})
	case "unref_service":
		delete(s.nested, p.word(1))
		s.answer(p, Undefined{})
	case "sum":
		total := 0.0
		for i := range p.args()[1:] {
			total += numberAt(p.args(), i+1)
		}
		s.answer(p, total)
	default:
		s.answer(p, thrown06("Error", "Task not found: "+p.word(0)))
	}
	return nil
}

func (s *server06) call(p *Packet) error {
	args := p.args()[2:]
	if value, ok := s.nested[p.word(0)]; ok && p.word(1) == "value" {
		s.answer(p, value)
		return nil
	}
	if p.word(0) != s.defID {
		s.answer(p, thrown06("Error", "Unknown definition: "+p.word(0)+"."))
		return nil
	}
	switch p.word(1) {
	case "count":
		s.count(p, int(numberAt(args, 0)))
	case "upload", "sumStream":
		return s.beginUpload(p, firstArg(args))
	case "child":
		id := newUUID()
		s.nested[id] = numberAt(args, 0)
		s.answer(p, inner06(id, s.defID, s.id))
	case "fire":
		s.fire(p, args)
	default:
		s.answer(p, calculate06(p.word(1), args))
	}
	return nil
}

// calculate06 returns the result of a method that needs nothing but its arguments, or the error that it throws.
func calculate06(method string, args []any) any {
	a, b := numberAt(args, 0), numberAt(args, 1)
	switch method {
	case "add":
		return a + b
	case "multiply":
		return a * b
	case "divide":
		if b == 0 {
			return thrown06("Error", "Division by zero")
		}
		return a / b
	case "fail":
		code := firstArg(args)
		details := Object{{"code", code}, {"list", []any{1.0, 2.0, 3.0}}}
		return thrown06("TypeError", "custom failure", Member{"code", code}, Member{"details", details})
	case "echo":
		return firstArg(args)
	case "echoAll":
		return args
	case "nothing":
		return Undefined{}
	}
	return thrown06("TypeError", method+" is not a function")
}

// count answers with a live stream of the numbers below n and sends it.
func (s *server06) count(p *Packet, n int) {
	s.streams++
	s.answer(p, StreamRef{StreamID: s.streams, Writable: true, Live: true, PeerID: s.client})
	for i := range n + 1 {
		chunk := &Packet{ID: s.nextID(), Type: TypeStream, Impulse: true, Live: true, Payload: float64(i), StreamID: s.streams, Index: uint32(i)}
		if i == n {
			chunk.EOS, chunk.Payload = true, nil
		}
		s.send(chunk)
	}
}

// fire sends an event to the client if it subscribed, and answers true.
func (s *server06) fire(p *Packet, args []any) {
	if name, _ := firstArg(args).(string); s.subscribed[name] {
		id := s.nextID()
		s.asked[id] = true
		s.send(&Packet{ID: id, Type: TypeTask, Impulse: true, Payload: append([]any{"emit"}, args...)})
	}
	s.answer(p, true)
}

func (s *server06) beginUpload(p *Packet, arg any) error {
	ref, ok := arg.(StreamRef)
	if !ok || !ref.Writable {
		s.answer(p, thrown06("TypeError", "stream is not async iterable"))
		return nil
	}
	if ref.PeerID != s.client {
		return violation(RuleUnexpected, "%v: a 0.6 server looks the writer up by the id in the reference, want %s", p, s.client)
	}
	s.uploads[ref.StreamID] = &upload06{call: p, live: ref.Live, sum: p.word(1) == "sumStream"}
	return nil
}

func (s *server06) chunk(p *Packet) error {
	up := s.uploads[p.StreamID]
	switch {
	case up == nil:
		return violation(RuleOrder, "%v belongs to no call", p)
	case p.Index != up.next:
		return violation(RuleOrder, "%v, want index %d", p, up.next)
	case p.Live != up.live:
		return violation(RuleMismatch, "%v, but its reference said live: %v", p, up.live)
	}
	up.next++
	switch v := p.Payload.(type) {
	case []byte:
		up.total += float64(len(v))
		up.unreadable = up.unreadable || up.sum
	case float64:
		up.total += v
		up.unreadable = up.unreadable || !up.sum
	case nil:
	default:
		up.unreadable = true
	}
	if !p.EOS {
		return nil
	}
	delete(s.uploads, p.StreamID)
	if up.unreadable {
		s.answer(up.call, thrown06("TypeError", "chunk of the wrong type"))
	} else {
		s.answer(up.call, up.total)
	}
	return nil
}
