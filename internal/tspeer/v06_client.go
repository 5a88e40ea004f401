package tspeer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"

	"github.com/gobwas/ws"
)

// Replay06 plays a 0.6 client against a listener under test that exposes the reference service, on one connection. The script makes the
// handshake of 0.6, calls methods with values of all types and looks at errors; uses adds Properties, Nested, Events, Streams and UserTasks
// (the task sum).
//
// The error is nil or wraps a *Violation: something that a 0.6 client would not have understood or expected.
func Replay06(ctx context.Context, nc net.Conn, uses Features, opts ...Option) (*Report, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in := newInbox()
	c := &client06{
		o: newOptions(opts), ctx: ctx, in: in, link: newLink(ctx, nc, true, 1, in), id: newUUID(), answers: map[uint32]*Packet{}, sent: map[uint32]bool{},
		chunks: map[uint32][]*Packet{}, announced: map[uint32]bool{}, report: &Report{Allowed: map[string]int{}},
	}
	c.link.tamper = c.o.tamper
	defer c.link.close()
	if err := c.run(uses); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(context.Cause(ctx), err)
		}
		return c.report, fmt.Errorf("0.6 client: %w", err)
	}
	return c.report, nil
}

// client06 is one run of a played 0.6 client; one goroutine does everything.
type client06 struct {
	o         options
	ctx       context.Context //nolint:containedctx // lifetime of the run
	in        *inbox
	link      *link
	id, peer  string
	ids       uint32
	defID     string
	answers   map[uint32]*Packet   // answers that nobody took yet
	sent      map[uint32]bool      // requests without an answer
	chunks    map[uint32][]*Packet // of the server's streams
	announced map[uint32]bool      // streams that an answer referred to
	events    []*Packet
	greeted   bool
	closing   bool
	closed    bool
	report    *Report
}

func (c *client06) run(uses Features) error {
	headers, err := json.Marshal(map[string]string{
		"host": "127.0.0.1", "connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
		"sec-websocket-extensions": "permessage-deflate; client_max_window_bits",
	})
	if err != nil {
		return fmt.Errorf("tspeer: headers: %w", err)
	}
	u := upgrade{RequestLine: "GET /?id=" + c.id + " HTTP/1.1", RequestHeaders: headers}
	if err := c.link.requestUpgrade(u, func(s string) string { return s }); err != nil {
		return err
	}
	c.link.start()
	for !c.greeted {
		if err := c.turn(); err != nil {
			return err
		}
	}
	steps := []func() error{c.abilities, c.values, c.errors, c.concurrent}
	for _, s := range []struct {
		f    Features
		step func() error
	}{{Properties, c.properties}, {Nested, c.nested}, {Events, c.eventsOnce}, {Streams, c.streams}, {UserTasks, c.sum}} {
		if uses.Has(s.f) {
			steps = append(steps, s.step)
		}
	}
	for _, step := range append(steps, c.hangUp) {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// turn takes one arrival.
func (c *client06) turn() error {
	a, err := c.in.next(c.ctx, c.o.patience)
	if broken, ok := errors.AsType[*Violation](a.err); ok {
		return broken
	}
	switch {
	case err != nil:
		return err
	case a.closed && c.closing:
		c.closed = true
		return nil
	case a.closed:
		return violation(RuleCloseFrame, "close frame %d %q", a.code, a.reason)
	case a.err != nil:
		return violation(RuleCloseFrame, "the connection ended: %v", a.err)
	case !c.greeted:
		return c.greet(a)
	case a.text:
		return violation(RuleText, "%.80q", a.data)
	}
	p, err := Decode(V06, a.data)
	if err == nil {
		err = Check(p)
	}
	if err != nil {
		return err
	}
	c.report.Matched++
	return c.packet(p)
}

func (c *client06) greet(a arrival) error {
	if !a.text {
		return violation(RuleHello, "%.80q in a binary frame, which a 0.6 client rejects", a.data)
	}
	hello, err := parseHello(a.data, helloID)
	if err != nil {
		return err
	}
	c.peer, c.greeted = hello.ID, true
	return nil
}

func (c *client06) packet(p *Packet) error {
	switch {
	case p.isResponse():
		if !c.sent[p.ID] {
			return violation(RuleUnexpected, "%v answers no request", p)
		}
		delete(c.sent, p.ID)
		c.answers[p.ID] = p
		if ref, ok := p.Payload.(StreamRef); ok {
			c.announced[ref.StreamID] = true
		}
		return nil
	case p.Type == TypeStream:
		if !c.announced[p.StreamID] {
			return violation(RuleOrder, "%v before the answer that announces it", p)
		}
		c.chunks[p.StreamID] = append(c.chunks[p.StreamID], p)
		return nil
	case p.isTask("emit"):
		c.events = append(c.events, p)
		c.send(&Packet{ID: p.ID, Type: TypeTask, Payload: Undefined{}})
		return nil
	}
	return violation(RuleUnexpected, "%v", p)
}

func (c *client06) send(p *Packet) { c.link.send(false, p.AppendTo(nil, V06)) }

// ask sends a request and returns its id.
func (c *client06) ask(typ int, payload ...any) uint32 {
	c.ids++
	c.sent[c.ids] = true
	c.send(&Packet{ID: c.ids, Type: typ, Impulse: true, Payload: payload})
	return c.ids
}

// answer waits for the answer to a request.
func (c *client06) answer(id uint32, typ int) (*Packet, error) {
	for c.answers[id] == nil {
		if err := c.turn(); err != nil {
			return nil, fmt.Errorf("waiting for the answer %d: %w", id, err)
		}
	}
	p := c.answers[id]
	delete(c.answers, id)
	if p.Type != typ {
		return nil, violation(RuleMismatch, "%v, want type %d", p, typ)
	}
	return p, nil
}

// want makes a request whose result must be want.
func (c *client06) want(want any, typ int, payload ...any) error {
	p, err := c.answer(c.ask(typ, payload...), typ)
	if err != nil {
		return err
	}
	if err := Diff(p.Payload, want); err != nil || p.Error {
		return violation(RuleMismatch, "%s %s = %v, want %s (%v)", typeNames[typ], show(payload), p, show(want), err)
	}
	return nil
}

// wantError makes a request that must fail, and returns the error.
func (c *client06) wantError(typ int, payload ...any) (*Error, error) {
	p, err := c.answer(c.ask(typ, payload...), typ)
	if err != nil {
		return nil, err
	}
	e, ok := p.Payload.(*Error)
	if !ok || !p.Error || e.Message == "" {
		return nil, violation(RuleMismatch, "%s %s = %v, want an error with a message", typeNames[typ], show(payload), p)
	}
	return e, nil
}

// abilities fetches the table of services, as 0.6 does before anything else.
func (c *client06) abilities() error {
	p, err := c.answer(c.ask(TypeTask, "abilities", Object{{"allowServiceEvents", false}}), TypeTask)
	if err != nil {
		return err
	}
	if !isAbilities(p) {
		return violation(RuleMismatch, "%v, want {services: Map of definitions, allowServiceEvents: bool}", p)
	}
	o, _ := p.Payload.(Object)
	services, _ := o.Get("services")
	for _, s := range services.(Map) {
		def := s.Value.(*Definition)
		if s.Key != serviceKey(def.Meta) && s.Key != def.Meta.text("name") {
			return violation(RuleMismatch, "service %s under the key %s", serviceKey(def.Meta), show(s.Key))
		}
		if def.PeerID != c.peer {
			return violation(RuleMismatch, "service %s with peer id %s, want %s", serviceKey(def.Meta), def.PeerID, c.peer)
		}
		if s.Key == "calculator@1.0.0" {
			c.defID = def.ID
		}
	}
	if !uuid.MatchString(c.defID) {
		return violation(RuleMismatch, "%v, want a calculator@1.0.0 with a UUID", p)
	}
	if allow, _ := o.Get("allowServiceEvents"); allow == true {
		for _, event := range []string{"service:expose", "service:unexpose"} {
			if err := c.want(Undefined{}, TypeTask, "subscribe", event); err != nil {
				return err
			}
		}
	}
	return nil
}

// values calls methods with values of every type, and numbers in the forms that only 0.6 writes.
func (c *client06) values() error {
	if err := c.want(5.0, TypeCall, c.defID, "add", 2.0, 3.0); err != nil {
		return err
	}
	if err := c.want(Undefined{}, TypeCall, c.defID, "nothing"); err != nil {
		return err
	}
	if err := c.want([]any{1.0, "two", nil}, TypeCall, c.defID, "echoAll", 1.0, "two", nil); err != nil {
		return err
	}
	for _, v := range []any{
		nil, true, false, 0.0, -1.0, -33.0, -129.0, -32769.0, -214748364.0, -214748365.0, -300000000.0, math.MinInt32 - 1.0, 128.0, 65536.0,
		float64(math.MaxInt32), 1.0 * (1 << 31), 1.0*(1<<32) - 1, 1.0 * (1 << 32), 1.0*(1<<53) - 1, -1.0 * (1 << 53), 1.5, math.NaN(), math.Inf(1), 1e300,
		"", "a", "привет", "\U0001f600",
		[]byte{},
		[]byte{1, 2, 3},
		[]any{},
		[]any{1.0, []any{"x", nil}},
		Object{},
		Object{{"a", 1.0}, {"b", Object{{"c", []any{true}}}}},
		Date(1_700_000_000_000), Date(0),
		BigInt("123456789012345678901234567890"), BigInt("-1"),
		Map{},
		Map{{"one", 1.0}, {2.0, "two"}},
		Set{},
		Set{"first", 2.0},
		RegExp{"a+", "gi"},
	} {
		if err := c.want(v, TypeCall, c.defID, "echo", v); err != nil {
			return err
		}
	}
	return nil
}

// errors looks at errors of the service and of the library.
func (c *client06) errors() error {
	e, err := c.wantError(TypeCall, c.defID, "divide", 1.0, 0.0)
	if err != nil {
		return err
	}
	if e.Message != "Division by zero" {
		return violation(RuleMismatch, "message %q, want %q", e.Message, "Division by zero")
	}
	if e, err = c.wantError(TypeCall, c.defID, "fail", "E_CUSTOM"); err != nil {
		return err
	}
	wantDetails := Object{{"code", "E_CUSTOM"}, {"list", []any{1.0, 2.0, 3.0}}}
	if e.Name != "TypeError" || e.Message != "custom failure" || e.Fields.text("code") != "E_CUSTOM" || Diff(e.Fields.object("details"), wantDetails) != nil {
		return violation(RuleMismatch, "%s, want TypeError(custom failure, code E_CUSTOM, details %s)", show(e), show(wantDetails))
	}
	for _, req := range []struct {
		typ     int
		payload []any
	}{
		{TypeCall, []any{newUUID(), "add", 1.0, 2.0}},
		{TypeCall, []any{c.defID, "nosuch"}},
		{TypeTask, []any{"nosuch_task", 1.0}},
	} {
		if _, err := c.wantError(req.typ, req.payload...); err != nil {
			return err
		}
	}
	return nil
}

// concurrent has two requests open at once.
func (c *client06) concurrent() error {
	slow := c.ask(TypeCall, c.defID, "echo", "one")
	fast := c.ask(TypeCall, c.defID, "echo", "two")
	for id, want := range map[uint32]string{slow: "one", fast: "two"} {
		p, err := c.answer(id, TypeCall)
		if err != nil {
			return err
		}
		if Diff(p.Payload, want) != nil {
			return violation(RuleMismatch, "%v, want %q", p, want)
		}
	}
	return nil
}

func (c *client06) properties() error {
	if err := c.want("1.0.0", TypeGet, c.defID, "version"); err != nil {
		return err
	}
	for _, v := range []any{42.0, Object{{"any", []any{"value"}}}} {
		if err := c.want(Undefined{}, TypeSet, c.defID, "counter", v); err != nil {
			return err
		}
		if err := c.want(v, TypeGet, c.defID, "counter"); err != nil {
			return err
		}
	}
	return nil
}

func (c *client06) nested() error {
	p, err := c.answer(c.ask(TypeCall, c.defID, "child", 7.0), TypeCall)
	if err != nil {
		return err
	}
	def, ok := p.Payload.(*Definition)
	if !ok || serviceKey(def.Meta) != "inner@1.0.0" || def.ParentID != c.defID || def.PeerID != c.peer {
		return violation(RuleMismatch, "%v, want a definition of inner@1.0.0 under %s", p, c.defID)
	}
	if err := c.want(7.0, TypeCall, def.ID, "value"); err != nil {
		return err
	}
	if err := c.want(Undefined{}, TypeTask, "unref_service", def.ID); err != nil {
		return err
	}
	_, err = c.wantError(TypeCall, def.ID, "value")
	return err
}

func (c *client06) eventsOnce() error {
	if err := c.want(Undefined{}, TypeTask, "subscribe", "tick"); err != nil {
		return err
	}
	if err := c.want(true, TypeCall, c.defID, "fire", "tick", 1.0, Object{{"two", []any{2.0}}}); err != nil {
		return err
	}
	for len(c.events) == 0 {
		if err := c.turn(); err != nil {
			return fmt.Errorf("waiting for an event: %w", err)
		}
	}
	if err := c.want(Undefined{}, TypeTask, "unsubscribe", "tick"); err != nil {
		return err
	}
	if err := c.want(true, TypeCall, c.defID, "fire", "tick", 2.0); err != nil {
		return err
	}
	if want := []any{"emit", "tick", 1.0, Object{{"two", []any{2.0}}}}; len(c.events) != 1 || Diff(c.events[0].Payload, want) != nil {
		return violation(RuleMismatch, "events %v, want one with %s", c.events, show(want))
	}
	return nil
}

func (c *client06) streams() error {
	const n, stream = 5, 1
	p, err := c.answer(c.ask(TypeCall, c.defID, "count", float64(n)), TypeCall)
	if err != nil {
		return err
	}
	ref, ok := p.Payload.(StreamRef)
	if !ok || !ref.Writable {
		return violation(RuleMismatch, "%v, want a stream that the server writes", p)
	}
	for i := range n + 1 {
		for len(c.chunks[ref.StreamID]) <= i {
			if err := c.turn(); err != nil {
				return fmt.Errorf("waiting for chunk %d: %w", i, err)
			}
		}
		chunk := c.chunks[ref.StreamID][i]
		var want any = float64(i)
		if i == n {
			want = nil
		}
		if chunk.Index != uint32(i) || chunk.EOS != (i == n) || chunk.Live != ref.Live || Diff(chunk.Payload, want) != nil {
			return violation(RuleMismatch, "%v, want index %d of a stream of %d numbers, live: %v", chunk, i, n, ref.Live)
		}
	}
	id := c.ask(TypeCall, c.defID, "sumStream", StreamRef{StreamID: stream, Writable: true, PeerID: c.id})
	for i := range n {
		c.ids++
		c.send(&Packet{ID: c.ids, Type: TypeStream, Impulse: true, Payload: float64(i + 1), StreamID: stream, Index: uint32(i)})
	}
	c.ids++
	c.send(&Packet{ID: c.ids, Type: TypeStream, Impulse: true, EOS: true, StreamID: stream, Index: n})
	if p, err = c.answer(id, TypeCall); err == nil && (p.Error || Diff(p.Payload, 15.0) != nil) {
		err = violation(RuleMismatch, "%v, want 15", p)
	}
	return err
}

func (c *client06) sum() error { return c.want(6.0, TypeTask, "sum", 1.0, 2.0, 3.0) }

// hangUp closes without a code, as 0.6 does.
func (c *client06) hangUp() error {
	c.closing = true
	c.link.sendClose(ws.StatusNoStatusRcvd, "")
	for !c.closed {
		if err := c.turn(); err != nil {
			return err
		}
	}
	return nil
}
