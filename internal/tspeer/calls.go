package tspeer

import (
	"fmt"
	"slices"
)

// Op is the kind of a Call.
type Op string

// The operations of a client's program.
const (
	OpQuery       Op = "query"       // ask for the interface of Service
	OpCall        Op = "call"        // call method Name
	OpGet         Op = "get"         // read property Name
	OpSet         Op = "set"         // write property Name, to Args[0]
	OpTask        Op = "task"        // run task Name
	OpSubscribe   Op = "subscribe"   // subscribe to event Name
	OpUnsubscribe Op = "unsubscribe" // end the subscription
	OpRelease     Op = "release"     // release the service that call Of returned
	OpExpose      Op = "expose"      // publish a service with the metadata Args[0] at the server
	OpUnexpose    Op = "unexpose"    // withdraw service Name
	OpEmit        Op = "emit"        // send event Name to the server
)

// Call is one operation that a program must perform so that the conversation takes place, and what must come of it. Values are in the neutral
// form; a stream is a Stream instead of a StreamRef.
type Call struct {
	Conn int // the connection, 1-based
	// Batch numbers the calls that the recorded client made without waiting for one another. Making them one by one is right too.
	Batch   int
	Op      Op
	Service string // the named service, "" for one that call Of returned
	Of      int    // index of the call that returned the service; -1 for a named service
	Name    string
	Args    []any
	// Result is the value of a call that succeeds: Undefined for none, a *Definition for a service.
	Result  any
	Failure *Failure // set for a call that fails
	Events  []Event  // events that reach the client because of this call
}

// Failure is the error of a call. Code is nil, a float64 or a string; Refused says that the library refused the call, so that only Code and
// the words "not found" in Message mean something.
type Failure struct {
	Name, Message string
	Code          any
	Fields        Object
	Refused       bool
}

// Event is one event that a subscriber receives.
type Event struct {
	Conn int
	Name string
	Args []any
}

// Stream is a stream as an argument or result: the values it carries.
type Stream struct {
	Live  bool
	Items []any
}

// Calls returns what a program must do so that [Conversation.ServeRecorded] sees the recorded client's requests, in the order of the
// recording, duplicates of queries left out. Where the recorded client called a named service without asking for its definition, the
// query is added. It is an error if no ordinary program behaves like the recorded client.
func (c *Conversation) Calls() ([]Call, error) {
	if c.Client == Raw {
		return nil, fmt.Errorf("tspeer: %v: no program behaves like a raw client", c)
	}
	msgs, err := c.Messages()
	if err != nil {
		return nil, err
	}
	b := &callBuilder{calculator: c.calculator, msgs: msgs, named: map[string]string{c.calculator.ID: serviceKey(c.calculator.Meta)}, nested: map[string]int{}, queried: map[string]bool{}}
	for _, sc := range scripts(msgs) {
		if err := b.add(sc); err != nil {
			return nil, fmt.Errorf("tspeer: %v: %w", c, err)
		}
	}
	return b.calls, nil
}

// callBuilder turns requests into calls.
type callBuilder struct {
	calculator *Definition
	msgs       []Message
	calls      []Call
	named      map[string]string // definition id -> service key
	nested     map[string]int    // definition id -> the call that returned it
	queried    map[string]bool   // connection and service
	batch      int
	open       []int // message indexes of the answers to the calls of this batch
}

func (b *callBuilder) add(sc *script) error {
	m := &b.msgs[sc.i]
	p := m.Packet
	if slices.ContainsFunc(b.open, func(answer int) bool { return answer < sc.i }) {
		b.batch++
		b.open = nil
	}
	call := Call{Conn: m.Conn, Batch: b.batch, Of: -1, Result: Undefined{}}
	if p.Type == TypeTask {
		b.describeTask(&call, p)
	} else {
		b.describeMember(&call, p)
	}
	if call.Op != OpQuery && call.Service == "" && call.Of < 0 && p.Type != TypeTask {
		return fmt.Errorf("%v has a target that the client never learned", p)
	}
	if key := fmt.Sprint(call.Conn, " ", call.Service); call.Service != "" {
		known := b.queried[key]
		b.queried[key] = true
		switch {
		case known && call.Op == OpQuery:
			return nil
		case !known && call.Op != OpQuery:
			b.calls = append(b.calls, b.query(call))
		}
		if call.Op != OpQuery && !b.exists(call.Service) {
			return nil // a program gets no further than the query
		}
	}
	for i, arg := range call.Args {
		call.Args[i] = b.withStream(arg)
	}
	b.outcome(&call, sc)
	b.calls = append(b.calls, call)
	return nil
}

// query returns the query that a program makes ahead of call.
func (b *callBuilder) query(call Call) Call {
	q := Call{Conn: call.Conn, Batch: call.Batch, Op: OpQuery, Service: call.Service, Of: -1, Result: b.calculator}
	if !b.exists(call.Service) {
		q.Result, q.Failure = nil, failureOf(notFound("Service '"+call.Service+"' not found"))
	}
	return q
}

// exists reports whether the played server has the service.
func (b *callBuilder) exists(service string) bool {
	for _, key := range b.named {
		if service == key || service == bareName(key) {
			return true
		}
	}
	return false
}

func (b *callBuilder) describeMember(call *Call, p *Packet) {
	call.Op = map[int]Op{TypeCall: OpCall, TypeGet: OpGet, TypeSet: OpSet}[p.Type]
	target := p.word(0)
	call.Name, call.Args = p.word(1), slices.Clone(p.args()[2:])
	if of, ok := b.nested[target]; ok {
		call.Of = of
		return
	}
	if key, ok := b.named[target]; ok {
		target = key
	}
	if !uuid.MatchString(target) {
		call.Service = target
	}
}

func (b *callBuilder) describeTask(call *Call, p *Packet) {
	args := slices.Clone(p.args()[1:])
	ops := map[string]Op{
		"query_interface": OpQuery, "subscribe": OpSubscribe, "unsubscribe": OpUnsubscribe, "unref_service": OpRelease,
		"expose_service": OpExpose, "unexpose_service": OpUnexpose, "emit": OpEmit,
	}
	op, core := ops[p.word(0)]
	switch {
	case !core:
		call.Op, call.Name, call.Args = OpTask, p.word(0), args
	case op == OpQuery:
		call.Op, call.Service = op, p.word(1)
	case op == OpRelease:
		call.Op = op
		if of, ok := b.nested[p.word(1)]; ok {
			call.Of = of
		}
	case op == OpExpose:
		call.Op, call.Args = op, args
	default:
		call.Op, call.Name, call.Args = op, p.word(1), args[1:]
	}
}

// outcome fills in what the server did because of the call.
func (b *callBuilder) outcome(call *Call, sc *script) {
	for _, st := range sc.steps {
		m := &b.msgs[st.i]
		p := m.Packet
		switch {
		case st.kind != stepSend:
		case p.isResponse() && m.Conn == call.Conn:
			b.open = append(b.open, st.i)
			b.answer(call, p)
		case p.isTask("emit"):
			call.Events = append(call.Events, Event{Conn: m.Conn, Name: p.word(1), Args: p.args()[2:]})
		}
	}
}

func (b *callBuilder) answer(call *Call, p *Packet) {
	if p.Error {
		call.Result, call.Failure = nil, failureOf(p.Payload)
		return
	}
	call.Result = b.withStream(p.Payload)
	def, ok := p.Payload.(*Definition)
	switch {
	case !ok:
	case call.Op == OpQuery:
		b.named[def.ID] = serviceKey(def.Meta)
	default:
		b.nested[def.ID] = len(b.calls)
	}
}

// withStream returns a Stream for a StreamRef, and anything else as it is.
func (b *callBuilder) withStream(v any) any {
	ref, ok := v.(StreamRef)
	if !ok {
		return v
	}
	s := Stream{Live: ref.Live}
	for _, m := range b.msgs {
		if p := m.Packet; p != nil && p.Type == TypeStream && p.StreamID == ref.StreamID && !p.EOS {
			s.Items = append(s.Items, p.Payload)
		}
	}
	return s
}

func failureOf(v any) *Failure {
	switch e := v.(type) {
	case *TitanError:
		return &Failure{Name: e.Name, Message: e.Message, Code: e.Code, Refused: true}
	case *Error:
		code, _ := e.Fields.Get("code")
		return &Failure{Name: e.Name, Message: e.Message, Code: code, Fields: e.Fields}
	case Object:
		code, _ := e.Get("code")
		return &Failure{Name: e.text("name"), Message: e.text("message"), Code: code, Fields: e}
	case string:
		return &Failure{Message: e}
	}
	return &Failure{Message: show(v)}
}
