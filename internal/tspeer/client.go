package tspeer

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gobwas/ws"
)

// ReplayClient plays the recorded client against a listener under test, over connections from dial. It sends every recorded client message,
// each not before the server messages recorded ahead of it have come, and compares all that the server sends with the recording, as
// amended (see [Amendments] and [Tolerances]). It ends with a close handshake, so that a message too many is noticed.
//
// The error is nil or says what a TypeScript client would not have understood or expected; it wraps a *Violation unless ctx ended or dial failed.
func (c *Conversation) ReplayClient(ctx context.Context, dial Endpoints, opts ...Option) (*Report, error) {
	o := newOptions(opts)
	msgs, err := c.Messages()
	if err != nil {
		return nil, err
	}
	if !o.asRecorded {
		if msgs, err = c.amend(msgs); err != nil {
			return nil, err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &replay{
		c: c, o: o, ctx: ctx, dial: dial, msgs: msgs, done: make([]bool, len(msgs)), in: newInbox(), conns: map[int]*clientConn{},
		report: &Report{Allowed: map[string]int{}},
	}
	defer r.closeAll()
	if err := r.run(); err != nil {
		return r.report, fmt.Errorf("%v: %w", c, err)
	}
	return r.report, nil
}

// replay is one run of a played client. One goroutine walks the messages.
type replay struct {
	c      *Conversation
	o      options
	ctx    context.Context //nolint:containedctx // lifetime of the run
	dial   Endpoints
	msgs   []Message
	done   []bool // per message: sent, or matched with an arrival
	in     *inbox
	conns  map[int]*clientConn
	report *Report
}

// clientConn is one connection of a played client.
type clientConn struct {
	*link
	judge   *judge
	asked   time.Time       // when the upgrade was requested
	greeted bool            // the id frame has come
	packets int             // packets that have come
	bad     map[uint32]bool // ids of messages sent that nobody can decode
	indexes map[uint32]uint32
	closing bool // a close frame was sent
	closed  bool // the connection has ended in order
}

// timeline returns the order of the walk: indexes of messages, and ^index for a close frame of the client.
func (r *replay) timeline() []int {
	type event struct {
		at time.Duration
		i  int
	}
	var events []event
	for i, m := range r.msgs {
		events = append(events, event{m.At, i})
	}
	for i, cl := range r.c.closes {
		if cl.From != "client" {
			continue
		}
		at := milliseconds(cl.T)
		k := slices.IndexFunc(events, func(e event) bool { return e.i >= 0 && e.at > at && r.msgs[e.i].Conn != cl.Conn })
		if k < 0 {
			k = len(events)
		}
		events = slices.Insert(events, k, event{at, ^i})
	}
	out := make([]int, len(events))
	for i, e := range events {
		out[i] = e.i
	}
	return out
}

func (r *replay) run() error {
	for _, i := range r.timeline() {
		if i < 0 {
			cl := r.c.closes[^i]
			if err := r.hangUp(r.conns[cl.Conn], ws.StatusCode(cl.Code), cl.Reason); err != nil {
				return err
			}
			continue
		}
		m := &r.msgs[i]
		if err := r.open(m.Conn); err != nil {
			return err
		}
		switch {
		case r.done[i] || m.optional:
		case m.Client:
			if err := r.sendInTurn(i); err != nil {
				return err
			}
		default:
			if err := r.await(i); err != nil {
				return fmt.Errorf("waiting for %v: %w", m, err)
			}
		}
	}
	for _, conn := range r.conns {
		if err := r.hangUp(conn, ws.StatusNormalClosure, ""); err != nil {
			return err
		}
	}
	return nil
}

func (r *replay) closeAll() {
	for _, conn := range r.conns {
		conn.close()
	}
}

// open makes sure that the connection of that number is there.
func (r *replay) open(n int) error {
	if r.conns[n] != nil {
		return nil
	}
	i := slices.IndexFunc(r.c.upgrades, func(u upgrade) bool { return u.Conn == n })
	nc, err := r.dial(r.ctx)
	if err != nil {
		return fmt.Errorf("tspeer: dial connection %d: %w", n, err)
	}
	conn := &clientConn{
		link: newLink(r.ctx, nc, true, n, r.in), judge: newJudge(r.msgs, r.report.Allowed), asked: time.Now(),
		bad: map[uint32]bool{}, indexes: map[uint32]uint32{},
	}
	conn.tamper = r.o.tamper
	r.conns[n] = conn
	conn.learnOwnID(r.clientID(n), r.o.freshIDs)
	if err := conn.requestUpgrade(r.c.upgrades[i], conn.judge.actual); err != nil {
		if r.ctx.Err() != nil {
			return errors.Join(context.Cause(r.ctx), err)
		}
		return err
	}
	conn.start()
	return nil
}

// clientID returns the id that the recorded client had on a connection.
func (r *replay) clientID(conn int) string {
	for _, m := range r.msgs {
		if m.Hello != nil && m.Client && m.Conn == conn {
			return m.Hello.ID
		}
	}
	return ""
}

func (c *clientConn) learnOwnID(recorded string, fresh bool) {
	c.judge.ids[recorded] = recorded
	if fresh {
		c.judge.ids[recorded] = newUUID()
	}
}

// newUUID returns a random UUID, version 4.
func newUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// sendInTurn sends message i of the client; an answer only after the server's request has come.
func (r *replay) sendInTurn(i int) error {
	m := &r.msgs[i]
	if m.Packet != nil && m.Packet.isResponse() {
		if req := r.requestOf(i); req >= 0 {
			if err := r.await(req); err != nil {
				return fmt.Errorf("waiting for %v: %w", &r.msgs[req], err)
			}
			return nil // sent with the arrival of the request
		}
	}
	r.send(i, nil)
	return nil
}

// send sends message i of the client. id, if not nil, replaces the packet's id.
func (r *replay) send(i int, id *uint32) {
	m := &r.msgs[i]
	conn := r.conns[m.Conn]
	r.done[i] = true
	switch {
	case m.Hello != nil:
		conn.link.send(m.Text, []byte(conn.judge.actual(string(m.Raw))))
	case m.Packet == nil:
		if len(m.Raw) >= headerBytes {
			conn.bad[uint32(m.Raw[0])<<24|uint32(m.Raw[1])<<16|uint32(m.Raw[2])<<8|uint32(m.Raw[3])] = true
		}
		conn.link.send(m.Text, m.Raw)
	default:
		p := conn.judge.rewritten(m.Packet)
		if id != nil {
			p.ID = *id
		}
		conn.link.send(m.Text, p.AppendTo(nil, Current))
	}
}

// requestOf returns the index of the server's request that message i of the client answers, -1 if there is none.
func (r *replay) requestOf(i int) int {
	for j := i - 1; j >= 0; j-- {
		m := &r.msgs[j]
		if !m.Client && m.Conn == r.msgs[i].Conn && m.Packet != nil && m.Packet.isRequest() && m.Packet.ID == r.msgs[i].Packet.ID {
			return j
		}
	}
	return -1
}

// answerTo returns the index of the client's answer to the server's request i, -1 if there is none.
func (r *replay) answerTo(i int) int {
	for j := i + 1; j < len(r.msgs); j++ {
		m := &r.msgs[j]
		if m.Client && m.Conn == r.msgs[i].Conn && m.Packet != nil && m.Packet.isResponse() && m.Packet.ID == r.msgs[i].Packet.ID {
			return j
		}
	}
	return -1
}

// await takes arrivals until message i is among them.
func (r *replay) await(i int) error {
	for !r.done[i] {
		a, err := r.in.next(r.ctx, r.o.patience)
		if err != nil {
			return err
		}
		if err := r.handle(a); err != nil {
			return err
		}
	}
	return nil
}

// hangUp closes a connection in order: what was on its way from the server is still judged.
func (r *replay) hangUp(conn *clientConn, code ws.StatusCode, reason string) error {
	if conn == nil || conn.closed {
		return nil
	}
	conn.closing = true
	conn.sendClose(code, reason)
	for !conn.closed {
		a, err := r.in.next(r.ctx, r.o.patience)
		if err != nil {
			return fmt.Errorf("waiting for the close frame of connection %d: %w", conn.conn, err)
		}
		if err := r.handle(a); err != nil {
			return err
		}
	}
	conn.close()
	return nil
}

func (r *replay) handle(a arrival) error {
	conn := r.conns[a.conn]
	switch {
	case conn.closed:
		return nil
	case a.err != nil || a.closed:
		return r.ended(conn, a)
	case !conn.greeted:
		return r.greet(conn, a)
	case a.text:
		return violation(RuleText, "%.80q", a.data)
	}
	if conn.packets++; conn.packets == 1 && len(a.data) > 0 && (a.data[0] == '{' || a.data[0] == '[') {
		return violation(RuleFirstByte, "%x", a.data[:min(len(a.data), 16)])
	}
	p, err := Decode(Current, a.data)
	if err == nil {
		err = Check(p)
	}
	if err != nil {
		return err
	}
	return r.packet(conn, p)
}

// ended handles a close frame or the end of a connection.
func (r *replay) ended(conn *clientConn, a arrival) error {
	conn.closed = true
	if broken, ok := errors.AsType[*Violation](a.err); ok {
		return broken
	}
	switch {
	case a.closed && conn.closing && (a.code == ws.StatusNormalClosure || a.code == ws.StatusNoStatusRcvd):
		return nil
	case a.closed:
		conn.closed = false
		return violation(RuleCloseFrame, "close frame %d %q", a.code, a.reason)
	case conn.closing && r.mayBeCutOff():
		return nil
	default:
		if r.ctx.Err() != nil {
			return context.Cause(r.ctx)
		}
		return fmt.Errorf("%w (%w)", violation(RuleCloseFrame, "connection %d ended", conn.conn), a.err)
	}
}

// mayBeCutOff reports whether the recorded client behaves so that a server may drop it.
func (r *replay) mayBeCutOff() bool {
	return slices.ContainsFunc(r.msgs, func(m Message) bool { return m.optional })
}

// greet handles the first message of the server.
func (r *replay) greet(conn *clientConn, a arrival) error {
	hello, err := parseHello(a.data, helloID)
	if err != nil {
		return err
	}
	if len(a.data) > maxHelloBytes {
		return violation(RuleHello, "%d bytes: the browser client takes a long binary one for a packet", len(a.data))
	}
	if since := a.at.Sub(conn.asked); r.c.Client == Titan && since < idFrameDelay-delayTolerance {
		return violation(RuleEarlyHello, "%v after the request: it reads nothing before %v have passed", since, idFrameDelay)
	}
	conn.greeted = true
	for i, m := range r.msgs {
		if m.Hello != nil && !m.Client && m.Conn == conn.conn {
			r.done[i] = true
			conn.judge.ids[m.Hello.ID] = hello.ID
		}
	}
	return nil
}
