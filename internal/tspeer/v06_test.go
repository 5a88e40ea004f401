package tspeer

import (
	"context"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// play06 runs the 0.6 client against the 0.6 server.
func play06(t *testing.T, uses Features, client, server []Option) (report *Report, clientErr, serverErr error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		report, serverErr = Serve06(ctx, far, server...)
	}()
	_, clientErr = Replay06(ctx, near, uses, client...)
	<-done
	return report, clientErr, serverErr
}

func TestReplay06AgainstItself(t *testing.T) {
	for _, uses := range []Features{0, Properties | Nested | Events | Streams | UserTasks} {
		for _, server := range [][]Option{nil, {AllowServiceEvents()}} {
			synctest.Test(t, func(t *testing.T) {
				report, client, served := play06(t, uses, nil, server)
				if client != nil || served != nil {
					t.Errorf("uses %v: Replay06() = %v, Serve06() = %v, want nil", uses, client, served)
				}
				if report.Requests[0] != "TASK abilities" || !slices.Contains(report.Requests, "CALL divide") {
					t.Errorf("requests %v, want TASK abilities first and CALL divide among them", report.Requests)
				}
				if subscribed := report.Requests[1] == "TASK subscribe"; subscribed != (server != nil) {
					t.Errorf("requests %v, want a subscription to service events: %v", report.Requests[:3], server != nil)
				}
			})
		}
	}
}

// rewrite06 passes every packet of a 0.6 peer through f; a packet of more than 0.6 can say is written in full.
func rewrite06(f func(p *Packet) []*Packet) Option {
	return frames(func(in frame) []frame {
		if in.text {
			return []frame{in}
		}
		p, err := Decode(V06, in.data)
		if err != nil {
			return []frame{in}
		}
		var out []frame
		for _, q := range f(p) {
			out = append(out, frame{data: q.AppendTo(nil, Current)})
		}
		return out
	})
}

func TestClient06NoticesBadServer(t *testing.T) {
	edit := func(f func(p *Packet)) Option {
		return rewrite06(func(p *Packet) []*Packet { f(p); return []*Packet{p} })
	}
	abilities := func(f func(o Object) any) Option {
		return edit(func(p *Packet) {
			if o, ok := p.Payload.(Object); ok && p.ID == 1 {
				p.Payload = f(o)
			}
		})
	}
	for _, tt := range []struct {
		name   string
		server Option
		want   Rule
	}{
		{"binary id frame", frames(func(in frame) []frame { in.text = false; return []frame{in} }), RuleHello},
		{"no id", frames(func(in frame) []frame {
			if in.text {
				in.data = []byte(`{"type":"id"}`)
			}
			return []frame{in}
		}), RuleHello},
		{"text later", frames(func(in frame) []frame { return []frame{in, {true, []byte("{}")}} }), RuleText},
		{"titan error", edit(func(p *Packet) {
			if p.Error {
				p.Payload = notFound("x")
			}
		}), RuleTitan06},
		{"ping", rewrite06(func(p *Packet) []*Packet { return []*Packet{{ID: 1, Impulse: true}, p} }), RulePing06},
		{"stream close", rewrite06(func(p *Packet) []*Packet {
			return []*Packet{{ID: 1, Type: TypeStreamClose, Impulse: true, Payload: Object{{"streamId", 1.0}, {"reason", ""}}}, p}
		}), RuleClose06},
		{"services as a plain map", abilities(func(Object) any { return Object{{"services", Object{}}, {"allowServiceEvents", false}} }), RuleMismatch},
		{"no services", abilities(func(Object) any { return Object{{"services", Map{}}, {"allowServiceEvents", false}} }), RuleMismatch},
		{"no allowServiceEvents", abilities(func(o Object) any { return o[:1] }), RuleMismatch},
		{"null result of a void method", edit(func(p *Packet) {
			if p.Payload == (Undefined{}) {
				p.Payload = nil
			}
		}), RuleMismatch},
		{"wrong sum", edit(func(p *Packet) {
			if p.Payload == 5.0 {
				p.Payload = 6.0
			}
		}), RuleMismatch},
		{"two answers", rewrite06(func(p *Packet) []*Packet { return []*Packet{p, p} }), RuleUnexpected},
		{"no answer", rewrite06(func(*Packet) []*Packet { return nil }), RuleMissing},
		{"another message", edit(func(p *Packet) {
			if e, ok := p.Payload.(*Error); ok {
				e.Message = "x"
			}
		}), RuleMismatch},
		{"error as text", edit(func(p *Packet) {
			if p.Error {
				p.Payload = "x"
			}
		}), RuleMismatch},
		{"chunks first", delayed(func(p *Packet) bool { _, ok := p.Payload.(StreamRef); return ok }), RuleOrder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, client, _ := play06(t, Streams, nil, []Option{tt.server, Patience(30 * time.Second)})
				wantRule(t, client, tt.want)
			})
		})
	}
}

func TestServer06NoticesBadClient(t *testing.T) {
	calls := func(f func(p *Packet)) Option {
		return rewrite06(func(p *Packet) []*Packet {
			if p.isRequest() {
				f(p)
			}
			return []*Packet{p}
		})
	}
	chunks := func(f func(p *Packet)) Option {
		return rewrite06(func(p *Packet) []*Packet {
			if p.Type == TypeStream {
				f(p)
			}
			return []*Packet{p}
		})
	}
	for _, tt := range []struct {
		name   string
		client Option
		want   Rule
	}{
		{"binary client-id", frames(func(in frame) []frame { return []frame{{data: []byte(`{"type":"client-id","id":"x"}`)}, in} }), RuleHello},
		{"ping", rewrite06(func(p *Packet) []*Packet { return []*Packet{{ID: 1, Impulse: true}, p} }), RulePing06},
		{"titan error as an argument", calls(func(p *Packet) { p.Payload = append(p.args(), notFound("x")) }), RuleTitan06},
		{"map as payload", calls(func(p *Packet) { p.Payload = Object{} }), RulePayload},
		{"abilities with a number", calls(func(p *Packet) { p.Payload = []any{"abilities", 1.0} }), RulePayload},
		{"subscription to nothing", calls(func(p *Packet) { p.Payload = []any{"subscribe"} }), RulePayload},
		{"answer to nothing", rewrite06(func(p *Packet) []*Packet { return []*Packet{{ID: 99, Type: TypeTask, Payload: Undefined{}}, p} }), RuleUnexpected},
		{"event answered with an error", rewrite06(func(p *Packet) []*Packet {
			if p.isResponse() {
				p.Error, p.Payload = true, Undefined{}
			}
			return []*Packet{p}
		}), RuleEventAnswer},
		{"stream of another peer", calls(func(p *Packet) {
			for i, arg := range p.args() {
				if ref, ok := arg.(StreamRef); ok {
					ref.PeerID = "x"
					p.args()[i] = ref
				}
			}
		}), RuleUnexpected},
		{"chunk of no stream", chunks(func(p *Packet) { p.StreamID = 9 }), RuleOrder},
		{"chunk out of order", chunks(func(p *Packet) { p.Index++ }), RuleOrder},
		{"chunk of another kind", chunks(func(p *Packet) { p.Live = true }), RuleMismatch},
		{"stream error", rewrite06(func(p *Packet) []*Packet {
			return []*Packet{{ID: 1, Type: TypeStreamError, Impulse: true, Payload: Object{{"streamId", 1.0}, {"message", ""}}}, p}
		}), RuleUnexpected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, _, served := play06(t, Events|Streams, []Option{tt.client}, nil)
				wantRule(t, served, tt.want)
			})
		})
	}
}

// A 0.6 server closes a connection whose request has no id; a text client-id it ignores, and it knows services by their ids only.
func TestServer06Manners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		done := make(chan error)
		go func() {
			_, err := Serve06(t.Context(), far)
			done <- err
		}()
		in := newInbox()
		l := newLink(t.Context(), near, true, 1, in)
		defer l.close()
		headers := []byte(`{"host":"h","connection":"Upgrade","upgrade":"websocket","sec-websocket-version":"13","sec-websocket-key":"dGhlIHNhbXBsZSBub25jZQ=="}`)
		if err := l.requestUpgrade(upgrade{RequestLine: "GET / HTTP/1.1", RequestHeaders: headers}, func(s string) string { return s }); err != nil {
			t.Fatal(err)
		}
		l.start()
		if a, err := in.next(t.Context(), time.Minute); err != nil || !a.closed || a.code != ws.StatusNoStatusRcvd {
			t.Errorf("first message %+v, %v, want a close frame without a code", a, err)
		}
		wantRule(t, <-done, RuleUpgrade)
	})
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		done := make(chan error)
		go func() {
			_, err := Serve06(t.Context(), far)
			done <- err
		}()
		p, err := dialProgram(t.Context(), t, 1, Conns(near)) // sends a text client-id
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			typ     int
			payload []any
			want    string
		}{
			{TypeTask, []any{"query_interface", "calculator"}, "Task not found: query_interface"},
			{TypeCall, []any{"calculator@1.0.0", "add", 1.0, 2.0}, "Unknown definition: calculator@1.0.0."},
			{TypeGet, []any{"calculator@1.0.0", "version"}, "Unknown definition: calculator@1.0.0."},
		} {
			q, err := p.answer(p.request(tt.typ, tt.payload...))
			if err != nil {
				t.Fatal(err)
			}
			if e, ok := q.Payload.(*Error); !ok || !q.Error || e.Message != tt.want {
				t.Errorf("%v = %v, want the error %q", tt.payload, q, tt.want)
			}
		}
		q, err := p.answer(p.request(TypeTask, "abilities"))
		if err != nil {
			t.Fatal(err)
		}
		services, _ := q.Payload.(Object).Get("services")
		id := services.(Map)[0].Value.(*Definition).ID
		if q, err := p.answer(p.request(TypeCall, id, "nosuch")); err != nil || !q.Error {
			t.Errorf("nosuch = %v, %v, want an error", q, err)
		}
		if q, err := p.answer(p.request(TypeCall, id, "upload", "x")); err != nil || !q.Error {
			t.Errorf("upload of a string = %v, %v, want an error", q, err)
		}
		p.link.close()
		if err := <-done; err != nil {
			t.Errorf("Serve06() = %v, want nil", err)
		}
	})
}

func TestContextEnds06(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		near, far := net.Pipe()
		defer func() { _ = far.Close() }()
		if _, err := Replay06(ctx, near, 0); err == nil || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("Replay06(silent peer) = %v, want the deadline", err)
		}
		near, far2 := net.Pipe()
		defer func() { _ = far2.Close() }()
		if _, err := Serve06(ctx, near); err == nil || !strings.Contains(err.Error(), "deadline") {
			t.Errorf("Serve06(silent peer) = %v, want the deadline", err)
		}
	})
}
