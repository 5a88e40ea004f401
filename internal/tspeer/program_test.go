package tspeer

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// program is a small dialler that makes the calls of a conversation as an ordinary program would. It shows how Calls is meant to be used, and that
// ServeRecorded is content with such a program.
type program struct {
	t       *testing.T
	ctx     context.Context //nolint:containedctx // a program lives for one test
	link    *link
	in      *inbox
	id      string
	last    uint32
	answers map[uint32]*Packet
	chunks  map[uint32][]*Packet
	events  []Event
	defs    map[string]*Definition
}

// dialProgram makes the handshake with a played server.
func dialProgram(ctx context.Context, t *testing.T, conn int, dial Endpoints) (*program, error) {
	nc, err := dial(ctx)
	if err != nil {
		return nil, err
	}
	in := newInbox()
	p := &program{t: t, ctx: ctx, in: in, id: fmt.Sprintf("go-%d", conn), answers: map[uint32]*Packet{}, chunks: map[uint32][]*Packet{}, defs: map[string]*Definition{}, last: 1 << 20}
	p.link = newLink(ctx, nc, true, conn, in)
	headers := `{"host":"h","connection":"Upgrade","upgrade":"websocket","sec-websocket-version":"13","sec-websocket-key":"dGhlIHNhbXBsZSBub25jZQ==","x-netron-id":"` + p.id + `"}`
	u := upgrade{RequestLine: "GET /?id=" + p.id + " HTTP/1.1", RequestHeaders: []byte(headers)}
	if err := p.link.requestUpgrade(u, func(s string) string { return s }); err != nil {
		p.link.close()
		return nil, err
	}
	p.link.start()
	if _, err := in.next(ctx, time.Minute); err != nil {
		p.link.close()
		return nil, err
	}
	p.link.send(true, []byte(`{"type":"client-id","id":"`+p.id+`","ext":{"v":1,"f":[]}}`))
	return p, nil
}

// turn takes one arrival.
func (p *program) turn() error {
	a, err := p.in.next(p.ctx, time.Minute)
	if err != nil || a.err != nil {
		return fmt.Errorf("program: %w", firstOf(err, a.err))
	}
	q, err := Decode(Current, a.data)
	if err != nil {
		return err
	}
	switch {
	case q.isResponse():
		p.answers[q.ID] = q
	case q.Type == TypeStream:
		p.chunks[q.StreamID] = append(p.chunks[q.StreamID], q)
	case q.isTask("emit"):
		p.events = append(p.events, Event{Conn: p.link.conn, Name: q.word(1), Args: q.args()[2:]})
		p.send(&Packet{ID: q.ID, Type: TypeTask, Payload: Undefined{}})
	}
	return nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

func (p *program) send(q *Packet) { p.link.send(false, q.AppendTo(nil, Current)) }

func (p *program) request(typ int, payload ...any) uint32 {
	p.last++
	p.send(&Packet{ID: p.last, Type: typ, Impulse: true, Payload: payload})
	return p.last
}

func (p *program) answer(id uint32) (*Packet, error) {
	for p.answers[id] == nil {
		if err := p.turn(); err != nil {
			return nil, err
		}
	}
	return p.answers[id], nil
}

// task runs a core task whose result does not matter.
func (p *program) task(payload ...any) error {
	_, err := p.answer(p.request(TypeTask, payload...))
	return err
}

// do makes one call and returns what came of it.
func (p *program) do(c Call, target string) (any, *Failure, error) {
	args := make([]any, len(c.Args))
	upload, uploadID := Stream{}, uint32(0)
	for i, arg := range c.Args {
		args[i] = arg
		if s, ok := arg.(Stream); ok {
			upload, uploadID = s, 0x40000001
			args[i] = StreamRef{StreamID: uploadID, Writable: true, Live: s.Live, PeerID: p.id}
		}
	}
	var id uint32
	switch c.Op {
	case OpQuery:
		id = p.request(TypeTask, "query_interface", c.Service)
	case OpCall:
		id = p.request(TypeCall, append([]any{target, c.Name}, args...)...)
	case OpGet:
		id = p.request(TypeGet, target, c.Name)
	case OpSet:
		id = p.request(TypeSet, target, c.Name, args[0])
	case OpTask:
		id = p.request(TypeTask, append([]any{c.Name}, args...)...)
	case OpSubscribe, OpUnsubscribe, OpEmit:
		id = p.request(TypeTask, append([]any{string(c.Op), c.Name}, args...)...)
	default:
		return nil, nil, fmt.Errorf("program: no %s", c.Op)
	}
	if uploadID != 0 {
		if err := p.upload(uploadID, upload); err != nil {
			return nil, nil, err
		}
	}
	q, err := p.answer(id)
	if err != nil {
		return nil, nil, err
	}
	if q.Error {
		return nil, failureOf(q.Payload), nil
	}
	result, err := p.received(q.Payload)
	return result, nil, err
}

// upload sends a stream once the server must have seen its announcement.
func (p *program) upload(id uint32, s Stream) error {
	if err := p.task("unsubscribe", "nothing"); err != nil {
		return err
	}
	for i, item := range append(s.Items, nil) {
		p.last++
		p.send(&Packet{ID: p.last, Type: TypeStream, Impulse: true, EOS: i == len(s.Items), Live: s.Live, Payload: item, StreamID: id, Index: uint32(i)})
	}
	return nil
}

// received collects the stream that a result refers to.
func (p *program) received(v any) (any, error) {
	ref, ok := v.(StreamRef)
	if !ok {
		return v, nil
	}
	s := Stream{Live: ref.Live}
	for i := 0; ; i++ {
		for len(p.chunks[ref.StreamID]) <= i {
			if err := p.turn(); err != nil {
				return nil, err
			}
		}
		if chunk := p.chunks[ref.StreamID][i]; chunk.EOS {
			return s, nil
		}
		s.Items = append(s.Items, p.chunks[ref.StreamID][i].Payload)
	}
}

// runProgram makes all calls of c against a played server, and compares what comes of them.
func runProgram(ctx context.Context, t *testing.T, c *Conversation, dial Endpoints) error {
	calls, err := c.Calls()
	if err != nil {
		return err
	}
	conns := map[int]*program{}
	for n := 1; n <= len(c.upgrades); n++ {
		if conns[n], err = dialProgram(ctx, t, n, dial); err != nil {
			return err
		}
		defer conns[n].link.close()
	}
	results := make([]any, len(calls))
	for i, call := range calls {
		p := conns[call.Conn]
		target := ""
		if call.Of >= 0 {
			target = results[call.Of].(*Definition).ID
		} else if def := p.defs[call.Service]; def != nil {
			target = def.ID
		}
		got, failure, err := p.do(call, target)
		if err != nil {
			return fmt.Errorf("call %d %s %s: %w", i, call.Op, call.Name, err)
		}
		results[i] = got
		if def, ok := got.(*Definition); ok && call.Op == OpQuery {
			p.defs[call.Service] = def
		}
		if diff := compareOutcome(call, got, failure); diff != "" {
			t.Errorf("call %d %s %s: %s", i, call.Op, call.Name, diff)
		}
		for _, e := range call.Events {
			for len(conns[e.Conn].events) == 0 {
				if err := conns[e.Conn].turn(); err != nil {
					return err
				}
			}
			if diff := same(conns[e.Conn].events[0], e); diff != "" {
				t.Errorf("call %d: event (-want +got):\n%s", i, diff)
			}
			conns[e.Conn].events = conns[e.Conn].events[1:]
		}
	}
	for _, p := range conns {
		p.link.sendClose(ws.StatusNormalClosure, "")
		p.link.flush(ctx, time.Minute)
		if a, err := p.in.next(ctx, time.Minute); err != nil || !a.closed {
			t.Errorf("at the end: %+v, %v, want a close frame", a, err)
		}
	}
	return nil
}

func compareOutcome(call Call, got any, failure *Failure) string {
	switch {
	case (failure != nil) != (call.Failure != nil):
		return fmt.Sprintf("failure %+v, want %+v", failure, call.Failure)
	case failure != nil:
		return same(failure, call.Failure)
	}
	if def, ok := got.(*Definition); ok {
		want := call.Result.(*Definition)
		return same(serviceKey(def.Meta), serviceKey(want.Meta))
	}
	if s, ok := got.(StreamRef); ok {
		return fmt.Sprintf("unread stream %v", s)
	}
	want := call.Result
	if s, ok := want.(Stream); ok {
		g, _ := got.(Stream)
		got, want = append(g.Items, g.Live), append(s.Items, s.Live)
	}
	if err := Diff(got, want); err != nil { // same is too slow for megabytes
		return err.Error()
	}
	return ""
}

func TestProgramAgainstRecordedServer(t *testing.T) {
	for _, c := range loadAll(t) {
		needs, err := c.Needs()
		if err != nil {
			t.Fatal(err)
		}
		if c.Client == Raw || needs.Has(HostTasks) {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				dial, accept := pipes()
				done := make(chan error)
				go func() {
					_, err := c.ServeRecorded(ctx, accept)
					if err != nil {
						cancel()
					}
					done <- err
				}()
				err := runProgram(ctx, t, c, dial)
				// The original fails some of its own clients; its server is what it is.
				if c.Failed() {
					t.Logf("the original failed too: %v", c.Outcome)
					cancel()
					<-done
					return
				}
				if served := <-done; served != nil || err != nil {
					t.Errorf("ServeRecorded() = %v, runProgram() = %v, want nil", served, err)
				}
			})
		})
	}
}

func TestCalls(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"titan/call-add", "1/0 query calculator@1.0.0; 1/1 call add"},
		{"titan/call-out-of-order", "1/0 query calculator@1.0.0; 1/1 call sleep; 1/1 call sleep"},
		{"titan/nested-service", "1/0 query calculator@1.0.0; 1/1 call child; 1/2 call value of 1; 1/3 call child; 1/4 call value of 3"},
		{"browser-no-discovery/call-by-service-name", "1/0 query calculator@1.0.0; 1/0 call add; 1/1 query nosuch@1.0.0 fails"},
		{"titan/task-unknown", "1/0 task nosuch_task fails"},
		{"titan/remote-exposure", "1/0 expose; 1/1 task callExposed; 1/2 task callExposed fails; 1/3 unexpose clock"},
		{"titan/event-once", "1/0 subscribe tick; 1/1 query calculator@1.0.0; 1/2 call fire; 1/3 unsubscribe tick"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls, err := conversation(t, tt.name).Calls()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range calls {
				s := fmt.Sprintf("%d/%d %s", c.Conn, c.Batch, c.Op)
				if c.Op == OpQuery {
					s += " " + c.Service
				} else if c.Name != "" {
					s += " " + c.Name
				}
				if c.Of >= 0 {
					s += fmt.Sprintf(" of %d", c.Of)
				}
				if c.Failure != nil {
					s += " fails"
				}
				got = append(got, s)
			}
			if s := strings.Join(got, "; "); s != tt.want {
				t.Errorf("Calls() = %s, want %s", s, tt.want)
			}
		})
	}
	if _, err := conversation(t, "raw/raw-undecodable").Calls(); err == nil {
		t.Error("Calls() of a raw client = nil, want an error")
	}
}

func TestNeeds(t *testing.T) {
	plain := 0
	for _, c := range loadAll(t) {
		f, err := c.Needs()
		if err != nil {
			t.Fatal(err)
		}
		if f == 0 {
			plain++
		}
	}
	if plain < 100 {
		t.Errorf("%d conversations need nothing special, want more than 100", plain)
	}
	for name, want := range map[string]Features{
		"titan/call-add":                    0,
		"titan/property-set":                Properties,
		"titan/nested-service":              Nested,
		"titan/stream-upload-live":          Streams,
		"titan/event-once":                  Events,
		"titan/task-run":                    UserTasks,
		"titan/large-binary-8MiB":           Large,
		"titan/second-connection":           Events | Connections,
		"titan/server-task":                 HostTasks | ServerTasks,
		"titan/server-calls-client-service": HostTasks | ClientServices,
		"titan/remote-exposure":             HostTasks | RemoteExposure | ClientServices,
		"raw/raw-ping":                      Pings,
		"raw/raw-undecodable":               Malformed,
		"raw/raw-task-before-client-id":     Malformed | UserTasks,
		"raw/raw-server-task":               HostTasks | ServerTasks | Slow,
	} {
		if got, err := conversation(t, name).Needs(); err != nil || got != want {
			t.Errorf("%s: Needs() = %v, %v, want %v", name, got, err, want)
		}
	}
}
