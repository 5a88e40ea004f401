package tspeer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// tampered returns an option that passes every packet through f, which returns what to send instead.
func tampered(f func(p *Packet) []*Packet) Option {
	return func(o *options) {
		o.tamper = func(in frame) []frame {
			p, err := Decode(Current, in.data)
			if err != nil {
				return []frame{in}
			}
			var out []frame
			for _, q := range f(p) {
				out = append(out, frame{data: q.AppendTo(nil, Current)})
			}
			return out
		}
	}
}

// changed edits each packet that is picked, in place.
func changed(pick func(*Packet) bool, edit func(*Packet)) Option {
	return tampered(func(p *Packet) []*Packet {
		if pick(p) {
			edit(p)
		}
		return []*Packet{p}
	})
}

func isAnswerTo(id uint32) func(*Packet) bool {
	return func(p *Packet) bool { return p.isResponse() && p.ID == id }
}

// frames passes every message through f.
func frames(f func(in frame) []frame) Option { return func(o *options) { o.tamper = f } }

// editMeta changes the metadata of definitions.
func editMeta(f func(meta Object) Object) Option {
	return changed(func(p *Packet) bool { _, ok := p.Payload.(*Definition); return ok }, func(p *Packet) {
		def := p.Payload.(*Definition)
		def.Meta = f(def.Meta)
	})
}

// without returns o without the members named in path, the last of which is removed.
func without(o Object, path ...string) Object {
	out := Object{}
	for _, m := range o {
		switch {
		case m.Key != path[0]:
			out = append(out, m)
		case len(path) > 1:
			out = append(out, Member{m.Key, without(m.Value.(Object), path[1:]...)})
		}
	}
	return out
}

// delayed holds the first picked packet back until after the next one.
func delayed(pick func(*Packet) bool) Option {
	var held *Packet
	done := false
	return tampered(func(p *Packet) []*Packet {
		switch {
		case held != nil:
			out := []*Packet{p, held}
			held = nil
			return out
		case pick(p) && !done:
			held, done = p, true
			return nil
		}
		return []*Packet{p}
	})
}

func TestClientNoticesBadServer(t *testing.T) {
	definition := func(p *Packet) bool { _, ok := p.Payload.(*Definition); return ok }
	titan := func(p *Packet) bool { _, ok := p.Payload.(*TitanError); return ok }
	jsError := func(p *Packet) bool { _, ok := p.Payload.(*Error); return ok }
	chunk := func(p *Packet) bool { return p.Type == TypeStream }
	emit := func(p *Packet) bool { return p.isTask("emit") }
	for _, tt := range []struct {
		name, conversation string
		server             Option
		want               Rule
	}{
		{"wrong result", "titan/call-add", changed(isAnswerTo(2), func(p *Packet) { p.Payload = 9.0 }), RuleMismatch},
		{"text for a number", "titan/call-add", changed(isAnswerTo(2), func(p *Packet) { p.Payload = "8" }), RuleMismatch},
		{"null for undefined", "titan/call-void", changed(isAnswerTo(2), func(p *Packet) { p.Payload = nil }), RuleMismatch},
		{"undefined for null", "titan/echo-null-and-booleans", changed(isAnswerTo(2), func(p *Packet) { p.Payload = Undefined{} }), RuleMismatch},
		{"error bit", "titan/call-add", changed(isAnswerTo(2), func(p *Packet) { p.Error = true }), RuleMismatch},
		{"no error bit", "titan/error-message", changed(isAnswerTo(2), func(p *Packet) { p.Error = false }), RuleMismatch},
		{"type of the answer", "titan/call-add", changed(isAnswerTo(2), func(p *Packet) { p.Type = TypeTask }), RuleMismatch},
		{"answer to nothing", "titan/call-add", changed(isAnswerTo(2), func(p *Packet) { p.ID = 77 }), RuleUnexpected},
		{"two answers", "titan/call-add", tampered(func(p *Packet) []*Packet { return []*Packet{p, p} }), RuleUnexpected},
		{"no answer", "titan/call-add", tampered(func(*Packet) []*Packet { return nil }), RuleMissing},
		{"a request", "titan/call-add", tampered(func(p *Packet) []*Packet {
			return []*Packet{{ID: 9, Type: TypeTask, Impulse: true, Payload: []any{"emit", "x"}}, p}
		}), RuleUnexpected},
		{"a ping", "titan/call-add", tampered(func(p *Packet) []*Packet { return []*Packet{{ID: 9, Impulse: true}, p} }), RuleUnexpected},
		{"a request of the wrong shape", "titan/call-add", tampered(func(p *Packet) []*Packet {
			return []*Packet{{ID: 9, Type: TypeTask, Impulse: true, Payload: Object{}}, p}
		}), RulePayload},
		{"a message after the last", "titan/call-add", tampered(func(p *Packet) []*Packet {
			if p.Type == TypeCall {
				return []*Packet{p, {ID: 3, Type: TypeCall, Payload: 8.0}}
			}
			return []*Packet{p}
		}), RuleUnexpected},
		{"a text frame", "titan/call-add", frames(func(in frame) []frame {
			if in.data[0] == '{' {
				return []frame{in}
			}
			return []frame{{true, []byte("{}")}, in}
		}), RuleText},
		{"a first packet that looks like text", "titan/call-add", frames(func(in frame) []frame {
			if in.data[0] == '{' {
				return []frame{in}
			}
			return []frame{{data: (&Packet{ID: 0x7b000001, Type: TypeCall}).AppendTo(nil, Current)}, in}
		}), RuleFirstByte},
		{"type 8", "titan/call-add", frames(func(in frame) []frame { return []frame{in, {data: []byte{0, 0, 0, 1, 0x48, 0xc0}}} }), RuleType},
		{"an empty message", "titan/call-add", frames(func(in frame) []frame { return []frame{in, {}} }), RuleShort},
		{"hello of another type", "titan/call-add", hello(`{"type":"client-id","id":"x"}`), RuleHello},
		{"hello without an id", "titan/call-add", hello(`{"type":"id"}`), RuleHello},
		{"hello that is no JSON", "titan/call-add", hello(`id`), RuleHello},
		{"long hello", "titan/call-add", hello(`{"type":"id","id":"x","ext":"` + strings.Repeat("x", 480) + `"}`), RuleHello},
		{"definition id that is no UUID", "titan/call-add", changed(definition, func(p *Packet) { p.Payload.(*Definition).ID = "calc" }), RuleMismatch},
		{"definition id that changes", "titan/call-out-of-order", changed(definition, func(p *Packet) { p.Payload.(*Definition).ID = newUUID() }), RuleMismatch},
		{"one id for two definitions", "titan/nested-service", changed(definition, func(p *Packet) {
			if def := p.Payload.(*Definition); def.ParentID != "" {
				def.ID = def.ParentID
			}
		}), RuleMismatch},
		{"definition of another peer", "titan/call-add", changed(definition, func(p *Packet) { p.Payload.(*Definition).PeerID = "x" }), RuleMismatch},
		{"definition with a parent", "titan/call-add", changed(definition, func(p *Packet) { p.Payload.(*Definition).ParentID = newUUID() }), RuleMismatch},
		{"parent that is another service", "titan/nested-service", changed(definition, func(p *Packet) {
			if def := p.Payload.(*Definition); def.ParentID != "" {
				def.ParentID = newUUID()
			}
		}), RuleMismatch},
		{"definition without a used method", "titan/call-add", editMeta(func(o Object) Object { return without(o, "methods", "add") }), RuleMismatch},
		{"definition without a used property", "titan/property-get", editMeta(func(o Object) Object { return without(o, "properties", "version") }), RuleMismatch},
		{"definition without properties", "titan/call-add", editMeta(func(o Object) Object { return without(o, "properties") }), RuleDefinition},
		{"writable property", "titan/property-get", editMeta(func(o Object) Object {
			return append(without(o, "properties"), Member{"properties", Object{{"version", Object{{"readonly", false}}}}})
		}), RuleMismatch},
		{"another version", "titan/call-add", editMeta(func(o Object) Object { return append(without(o, "version"), Member{"version", "2.0.0"}) }), RuleMismatch},
		{"refusal in other words", "browser/query-interface-unknown", changed(titan, func(p *Packet) { p.Payload.(*TitanError).Message = "no such service" }), RuleMismatch},
		{"refusal with another code", "browser/query-interface-unknown", changed(titan, func(p *Packet) { p.Payload.(*TitanError).Code = 500 }), RuleMismatch},
		{"refusal without a code", "browser/query-interface-unknown", changed(titan, func(p *Packet) {
			p.Payload = &Error{Ctor: "Error", Name: "Error", Stack: Undefined{}, Message: p.Payload.(*TitanError).Message}
		}), RuleMismatch},
		{"refusal without a message", "titan/error-unknown-method", changed(titan, func(p *Packet) { p.Payload.(*TitanError).Message = "" }), RuleMismatch},
		{"refusal as text", "titan/error-unknown-method", changed(titan, func(p *Packet) { p.Payload = "not found" }), RuleMismatch},
		{"error with another message", "titan/error-message", changed(jsError, func(p *Packet) { p.Payload.(*Error).Message = "internal error" }), RuleMismatch},
		{"error with another name", "titan/error-name-and-fields", changed(jsError, func(p *Packet) { p.Payload.(*Error).Name = "Error" }), RuleMismatch},
		{"error of another class", "titan/error-name-and-fields", changed(jsError, func(p *Packet) { p.Payload.(*Error).Ctor = "RangeError" }), RuleMismatch},
		{"error without its fields", "titan/error-name-and-fields", changed(jsError, func(p *Packet) { p.Payload.(*Error).Fields = nil }), RuleMismatch},
		{"error with another field", "titan/error-name-and-fields", changed(jsError, func(p *Packet) { p.Payload.(*Error).Fields[0].Value = "E_OTHER" }), RuleMismatch},
		{"error as text", "titan/error-message", changed(jsError, func(p *Packet) { p.Payload = "Division by zero" }), RuleMismatch},
		{"a chunk ahead of its announcement", "titan/generator-count", delayed(isAnswerTo(2)), RuleOrder},
		{"chunks out of order", "titan/generator-count", delayed(func(p *Packet) bool { return chunk(p) && p.Index == 3 }), RuleOrder},
		{"a chunk too few", "titan/generator-count", tampered(func(p *Packet) []*Packet {
			if chunk(p) && p.Index == 3 {
				return nil
			}
			return []*Packet{p}
		}), RuleOrder},
		{"a chunk too many", "titan/generator-count", tampered(func(p *Packet) []*Packet {
			if p.EOS {
				more := *p
				more.Index++
				return []*Packet{p, &more}
			}
			return []*Packet{p}
		}), RuleUnexpected},
		{"another chunk", "titan/generator-count", changed(func(p *Packet) bool { return chunk(p) && p.Index == 3 }, func(p *Packet) { p.Payload = 0.0 }), RuleMismatch},
		{"chunk of another kind", "titan/generator-count", changed(chunk, func(p *Packet) { p.Live = false }), RuleMismatch},
		{"null chunk", "titan/generator-count", changed(func(p *Packet) bool { return chunk(p) && p.Index == 3 }, func(p *Packet) { p.Payload = nil }), RuleChunk},
		{"stream error", "titan/generator-count", changed(func(p *Packet) bool { return chunk(p) && p.Index == 3 }, func(p *Packet) {
			*p = Packet{ID: p.ID, Type: TypeStreamError, Impulse: true, Payload: Object{{"streamId", 1.0}, {"message", "x"}}}
		}), RuleUnexpected},
		{"stream that is not live", "titan/generator-count", changed(isAnswerTo(2), func(p *Packet) {
			ref := p.Payload.(StreamRef)
			ref.Live = false
			p.Payload = ref
		}), RuleMismatch},
		{"two streams with one id", "titan/generator-two-at-once", tampered(func(p *Packet) []*Packet {
			if _, ok := p.Payload.(StreamRef); ok {
				p.Payload = StreamRef{StreamID: 1, Writable: true, Live: true}
			}
			p.StreamID = min(p.StreamID, 1)
			return []*Packet{p}
		}), RuleMismatch},
		{"events out of order", "titan/event-order-1000", delayed(func(p *Packet) bool { return emit(p) && p.args()[2] == 5.0 }), RuleOrder},
		{"event lost", "titan/event-once", tampered(func(p *Packet) []*Packet {
			if emit(p) {
				return nil
			}
			return []*Packet{p}
		}), RuleMissing},
		{"event with other arguments", "titan/event-once", changed(emit, func(p *Packet) { p.Payload = []any{"emit", "tick", 2.0} }), RuleMismatch},
		{"an event after unsubscribe", "titan/event-unsubscribe", tampered(func(p *Packet) []*Packet {
			if p.isResponse() && p.ID == 5 {
				return []*Packet{{ID: 2, Type: TypeTask, Impulse: true, Payload: []any{"emit", "tick:off", 2.0}}, p}
			}
			return []*Packet{p}
		}), RuleUnexpected},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				p := play(t, conversation(t, tt.conversation), dial, accept, nil, []Option{AsRecorded(), Patience(30 * time.Second), tt.server})
				wantRule(t, p.client, tt.want)
			})
		})
	}
}

// hello replaces the handshake message.
func hello(s string) Option {
	return frames(func(in frame) []frame {
		if in.data[0] == '{' {
			return []frame{{data: []byte(s)}}
		}
		return []frame{in}
	})
}

func TestToleratedDifferences(t *testing.T) {
	for _, tt := range []struct {
		name, conversation string
		server             Option
		want               []string
	}{
		{"stack", "titan/error-message", changed(isAnswerTo(2), func(p *Packet) { p.Payload.(*Error).Stack = Undefined{} }), []string{"stack"}},
		{"error-class", "titan/error-name-and-fields", changed(isAnswerTo(2), func(p *Packet) { p.Payload.(*Error).Ctor = "Error" }), []string{"error-class"}},
		{"error-form", "titan/error-unknown-method", changed(isAnswerTo(2), func(p *Packet) {
			e := p.Payload.(*TitanError)
			p.Payload = &Error{Ctor: "Error", Name: "NotFound", Stack: Undefined{}, Message: e.Message, Fields: Object{{"code", 404.0}}}
		}), []string{"error-form"}},
		{"error as 110", "titan/error-message", changed(isAnswerTo(2), func(p *Packet) {
			e := notFound("Division by zero")
			e.Name, e.Code = "Error", 500
			p.Payload = e
		}), []string{"error-form", "error-fields"}},
		{"error-fields", "titan/error-message", changed(isAnswerTo(2), func(p *Packet) { p.Payload.(*Error).Fields = Object{{"code", 500.0}} }), []string{"error-fields"}},
		{"refusal-text", "titan/error-unknown-method", changed(isAnswerTo(2), func(p *Packet) { p.Payload.(*TitanError).Message = "no method nosuch" }), []string{"refusal-text"}},
		{"refusal-code", "raw/raw-unknown-method", changed(isAnswerTo(6), func(p *Packet) { p.Payload.(*TitanError).Code = 404 }), []string{"refusal-code"}},
		{"metadata", "titan/call-add", editMeta(func(o Object) Object { return without(without(o, "methods", "echo"), "contract") }), []string{"metadata"}},
		{"stream ids", "titan/generator-count", tampered(func(p *Packet) []*Packet {
			if ref, ok := p.Payload.(StreamRef); ok {
				ref.StreamID, ref.PeerID = 0x80000001, "x"
				p.Payload = ref
			}
			if p.Type == TypeStream {
				p.StreamID = 0x80000001
			}
			return []*Packet{p}
		}), []string{"stream-id", "stream-peer"}},
		{"order", "titan/call-concurrent-1000", delayed(isAnswerTo(1500)), []string{"order"}},
		{"definition-parent", "browser-no-discovery/nested-service", changed(isAnswerTo(1), func(p *Packet) { p.Payload.(*Definition).ParentID = newUUID() }), []string{"definition-parent"}},
		{"bad-request-answer", "raw/raw-undecodable", tampered(func(p *Packet) []*Packet {
			return []*Packet{{ID: 1, Type: TypeCall, Error: true, Payload: &Error{Ctor: "Error", Name: "Error", Stack: nil, Message: "malformed"}}, p}
		}), []string{"bad-request-answer"}},
		{"amendment", "raw/raw-unknown-definition", changed(isAnswerTo(5), func(p *Packet) { p.Error, p.Payload = false, 3.0 }), []string{"amendment"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				p := play(t, conversation(t, tt.conversation), dial, accept, nil, []Option{AsRecorded(), tt.server})
				p.wantNoErrors(t)
				for _, name := range tt.want {
					if p.clientReport.Allowed[name] == 0 {
						t.Errorf("allowed %v, want %s among them", p.clientReport, name)
					}
				}
			})
		})
	}
}

// A server that mints other definition ids is understood, and called by them.
func TestOtherDefinitionIDs(t *testing.T) {
	for _, name := range []string{"titan/call-add", "titan/nested-service", "raw/raw-nested-service", "browser/property-set"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := conversation(t, name)
				ids := map[string]string{}
				msgs, err := c.Messages()
				if err != nil {
					t.Fatal(err)
				}
				for i := range msgs {
					if def := msgs[i].definition(); def != nil {
						ids[def.ID] = newUUID()
					}
				}
				// The server knows its definitions by the recorded ids, the client by the others.
				rename := func(ids map[string]string) Option {
					return tampered(func(p *Packet) []*Packet {
						p.Payload = mapValue(p.Payload, func(s string) string {
							for from, to := range ids {
								s = strings.ReplaceAll(s, from, to)
							}
							return s
						})
						return []*Packet{p}
					})
				}
				back := map[string]string{}
				for from, to := range ids {
					back[to] = from
				}
				dial, accept := pipes()
				p := play(t, c, dial, accept, []Option{rename(back)}, []Option{AsRecorded(), rename(ids)})
				p.wantNoErrors(t)
				if p.clientReport.Allowed["definition-id"] == 0 {
					t.Errorf("allowed %v, want definition-id among them", p.clientReport)
				}
			})
		})
	}
}

func TestServerNoticesBadClient(t *testing.T) {
	isRequest := func(p *Packet) bool { return p.isRequest() && p.Type == TypeCall }
	for _, tt := range []struct {
		name, conversation string
		client             Option
		want               Rule
	}{
		{"another argument", "titan/call-add", changed(isRequest, func(p *Packet) { p.args()[2] = 6.0 }), RuleUnexpected},
		{"another method", "titan/call-add", changed(isRequest, func(p *Packet) { p.args()[1] = "sub" }), RuleUnexpected},
		{"an argument more", "titan/call-add", changed(isRequest, func(p *Packet) { p.Payload = append(p.args(), nil) }), RuleUnexpected},
		{"another task", "titan/task-run", changed(func(p *Packet) bool { return p.isTask("sum") }, func(p *Packet) { p.args()[0] = "total" }), RuleUnexpected},
		{"a request twice", "titan/call-add", tampered(func(p *Packet) []*Packet {
			if isRequest(p) {
				return []*Packet{p, p}
			}
			return []*Packet{p}
		}), RuleUnexpected},
		{"a map as payload", "titan/call-add", changed(isRequest, func(p *Packet) { p.Payload = Object{{"defId", "x"}} }), RulePayload},
		{"an answer to nothing", "titan/call-add", tampered(func(p *Packet) []*Packet { return []*Packet{p, {ID: 4242, Type: TypeCall}} }), RuleUnexpected},
		{"a stream error", "titan/call-add", tampered(func(*Packet) []*Packet {
			return []*Packet{{ID: 7, Type: TypeStreamError, Impulse: true, Payload: Object{{"streamId", 1.0}, {"message", "x"}}}}
		}), RuleUnexpected},
		{"a request left out", "titan/event-unsubscribe", tampered(func(p *Packet) []*Packet {
			if p.isRequest() && p.ID == 5 {
				return []*Packet{{ID: 5, Type: TypeTask, Impulse: true, Payload: []any{"unsubscribe", "x"}}}
			}
			return []*Packet{p}
		}), RuleMissing},
		{"a packet ahead of the client-id", "titan/call-add", frames(func(in frame) []frame {
			if in.data[0] == '{' {
				return []frame{{data: (&Packet{ID: 1, Type: TypeTask, Impulse: true, Payload: []any{"sum"}}).AppendTo(nil, Current)}, in}
			}
			return []frame{in}
		}), RuleHello},
		{"another id than in the query", "titan/call-add", hello(`{"type":"client-id","id":"other"}`), RuleHello},
		{"no id", "browser/call-add", hello(`{"type":"client-id","id":""}`), RuleHello},
		{"a text frame", "titan/call-add", frames(func(in frame) []frame { return []frame{in, {true, []byte("{}")}} }), RuleText},
		{"trailing bytes", "titan/call-add", frames(func(in frame) []frame {
			if in.data[0] != '{' {
				in.data = append(in.data, 0)
			}
			return []frame{in}
		}), RuleTrailing},
		{"an event answered with an error", "titan/event-once", changed(isAnswerTo(1), func(p *Packet) { p.Error, p.Payload = true, nil }), RuleEventAnswer},
		{"an event answered with a value", "titan/event-once", changed(isAnswerTo(1), func(p *Packet) { p.Payload = true }), RuleMismatch},
		{"an event without an answer", "titan/event-once", tampered(func(p *Packet) []*Packet {
			if p.isResponse() {
				return nil
			}
			return []*Packet{p}
		}), RuleMissing},
		{"a task answered wrongly", "titan/server-task", changed(func(p *Packet) bool { return p.isResponse() && p.ID == 1 }, func(p *Packet) { p.Payload = 43.0 }), RuleMismatch},
		{"a task that fails wrongly", "titan/server-task", changed(func(p *Packet) bool { return p.isResponse() && p.ID == 1 }, func(p *Packet) { p.Error = true }), RuleMismatch},
		{"a stream without a barrier", "titan/stream-upload-numbers", tampered(func(p *Packet) []*Packet { return []*Packet{p} }), RuleBarrier},
		{"a stream of another peer", "titan/stream-upload-numbers", changed(isRequest, func(p *Packet) {
			ref := p.args()[2].(StreamRef)
			ref.PeerID = "x"
			p.args()[2] = ref
		}), RuleUnexpected},
		{"a chunk ahead of the call", "titan/stream-upload-numbers", tampered(func(p *Packet) []*Packet {
			if isRequest(p) {
				return []*Packet{{ID: 99, Type: TypeStream, Impulse: true, Payload: 1.0, StreamID: 1}, p}
			}
			return []*Packet{p}
		}), RuleOrder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				p := play(t, conversation(t, tt.conversation), dial, accept, []Option{AsRecorded(), Patience(time.Minute), tt.client}, []Option{Patience(20 * time.Second)})
				wantRule(t, p.server, tt.want)
			})
		})
	}
}

// uploads are what a program may do wrong with a stream after a barrier.
func TestServerJudgesUploads(t *testing.T) {
	chunk := func(i int, v any) *Packet {
		return &Packet{ID: uint32(100 + i), Type: TypeStream, Impulse: true, Payload: v, StreamID: 5, Index: uint32(i)}
	}
	end := func(i int) *Packet { p := chunk(i, nil); p.EOS = true; return p }
	live := func(p *Packet) *Packet { p.Live = true; return p }
	var all []*Packet
	for i := range 100 {
		all = append(all, chunk(i, float64(i+1)))
	}
	for _, tt := range []struct {
		name string
		send []*Packet
		want Rule
	}{
		{"as recorded", append(slices.Clone(all), end(100)), ""},
		{"the end with data", append(slices.Clone(all[:99]), &Packet{ID: 1, Type: TypeStream, Impulse: true, EOS: true, Payload: 100.0, StreamID: 5, Index: 99}), ""},
		{"a number too few", append(slices.Clone(all[:99]), end(99)), RuleMismatch},
		{"an index left out", []*Packet{chunk(0, 1.0), chunk(2, 2.0)}, RuleOrder},
		{"more after the end", append(slices.Clone(all), end(100), chunk(101, 1.0)), RuleOrder},
		{"live after all", []*Packet{live(chunk(0, 1.0))}, RuleMismatch},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				dial, accept := pipes()
				done := make(chan error)
				go func() {
					_, err := conversation(t, "titan/stream-upload-numbers").ServeRecorded(ctx, accept)
					cancel()
					done <- err
				}()
				p, err := dialProgram(ctx, t, 1, dial)
				if err != nil {
					t.Fatal(err)
				}
				defer p.link.close()
				id := p.request(TypeCall, "calculator@1.0.0", "sumStream", StreamRef{StreamID: 5, Writable: true, PeerID: p.id})
				if err := p.task("unsubscribe", "x"); err != nil {
					t.Fatal(err)
				}
				for _, q := range tt.send {
					p.send(q)
				}
				if tt.want == "" {
					if _, err := p.answer(id); err != nil {
						t.Error(err)
					}
				}
				if tt.want == "" || tt.name == "more after the end" {
					p.link.sendClose(ws.StatusNormalClosure, "")
				}
				err = <-done
				if tt.want != "" {
					wantRule(t, err, tt.want)
				} else if err != nil {
					t.Errorf("ServeRecorded() = %v, want nil", err)
				}
			})
		})
	}
}

// The bytes of an upload may be cut elsewhere.
func TestServerJoinsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		dial, accept := pipes()
		var report *Report
		done := make(chan error)
		go func() {
			r, err := conversation(t, "titan/stream-upload-live").ServeRecorded(ctx, accept)
			report = r
			done <- err
		}()
		p, err := dialProgram(ctx, t, 1, dial)
		if err != nil {
			t.Fatal(err)
		}
		call := Call{Op: OpCall, Name: "upload", Args: []any{Stream{Items: []any{make([]byte, 20), make([]byte, 30)}}}}
		if n, failure, err := p.do(call, "calculator@1.0.0"); n != 50.0 || failure != nil || err != nil {
			t.Errorf("upload = %v, %v, %v, want 50", n, failure, err)
		}
		p.link.close() // without a close frame, which a server takes as it comes
		if err := <-done; err != nil {
			t.Errorf("ServeRecorded() = %v, want nil", err)
		}
		if report.Allowed["chunking"] == 0 || report.Allowed["abrupt-end"] == 0 {
			t.Errorf("allowed %v, want chunking and abrupt-end among them", report)
		}
	})
}

// Courtesies are answered to a dialler although the recorded client did not ask.
func TestServerCourtesies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dial, accept := pipes()
		done := make(chan error)
		go func() {
			_, err := conversation(t, "browser-no-discovery/call-add").ServeRecorded(t.Context(), accept)
			done <- err
		}()
		p, err := dialProgram(t.Context(), t, 1, dial)
		if err != nil {
			t.Fatal(err)
		}
		defer p.link.close()
		for _, tt := range []struct {
			typ     int
			payload []any
			want    func(q *Packet) bool
		}{
			{TypeTask, []any{"query_interface", "calculator"}, isDefinition},
			{TypeTask, []any{"query_interface", "calculator@1.0.0"}, isDefinition},
			{TypeTask, []any{"query_interface", "nosuch"}, anyRefusal},
			{TypeTask, []any{"abilities"}, anyRefusal},
			{TypeTask, []any{"unref_service", newUUID()}, result(Undefined{})},
			{TypePing, []any{1.0}, result([]any{1.0})},
			{TypeCall, []any{"calculator@1.0.0", "add", 5.0, 3.0}, result(8.0)},
		} {
			if q, err := p.answer(p.request(tt.typ, tt.payload...)); err != nil || !tt.want(q) {
				t.Errorf("%s %v = %v, %v", typeNames[tt.typ], tt.payload, q, err)
			}
		}
		p.link.sendClose(ws.StatusNormalClosure, "")
		if err := <-done; err != nil {
			t.Errorf("ServeRecorded() = %v, want nil", err)
		}
	})
}

// rawServer answers the upgrade with the given text and hands the connection to f.
func rawServer(t *testing.T, nc net.Conn, response func(key string) string, f func(nc net.Conn)) {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(nc))
	if err != nil {
		return
	}
	_, _ = io.WriteString(nc, response(req.Header.Get("Sec-Websocket-Key")))
	if f != nil {
		f(nc)
	}
	_, _ = io.Copy(io.Discard, nc)
}

func switching(key string) string {
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + acceptKey(key) + "\r\n\r\n"
}

func TestClientNoticesBadConnection(t *testing.T) {
	write := func(frames ...string) func(net.Conn) {
		return func(nc net.Conn) {
			time.Sleep(idFrameDelay)
			for _, f := range frames {
				_, _ = io.WriteString(nc, f)
			}
		}
	}
	const id = "\x82\x15" + `{"type":"id","id":"x"}`
	good := "\x82" + string(rune(len(`{"type":"id","id":"x"}`))) + `{"type":"id","id":"x"}`
	for _, tt := range []struct {
		name     string
		response func(key string) string
		f        func(net.Conn)
		want     Rule
	}{
		{"status", func(string) string { return "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n" }, nil, RuleUpgrade},
		{"no HTTP", func(string) string { return "hello\r\n\r\n" }, nil, RuleUpgrade},
		{"wrong accept", func(string) string { return switching("other") }, nil, RuleUpgrade},
		{"subprotocol", func(k string) string {
			return strings.Replace(switching(k), "\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n", 1)
		}, nil, RuleUpgrade},
		{"extension", func(k string) string {
			return strings.Replace(switching(k), "\r\n\r\n", "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 1)
		}, nil, RuleUpgrade},
		{"no upgrade header", func(k string) string { return strings.Replace(switching(k), "Upgrade: websocket\r\n", "", 1) }, nil, RuleUpgrade},
		{"id at once", switching, func(nc net.Conn) { _, _ = io.WriteString(nc, good) }, RuleEarlyHello},
		{"masked frame", switching, write("\x82\x81\x00\x00\x00\x00x"), RuleFrame},
		{"reserved bit", switching, write("\xc2\x01x"), RuleFrame},
		{"reserved opcode", switching, write("\x83\x01x"), RuleFrame},
		{"fragmented ping", switching, write("\x09\x00"), RuleFrame},
		{"long ping", switching, write("\x89\x7e\x00\x80" + strings.Repeat("x", 128)), RuleFrame},
		{"continuation of nothing", switching, write("\x80\x01x"), RuleFrame},
		{"frame inside a message", switching, write("\x02\x01x", "\x82\x01x"), RuleFrame},
		{"text that is no UTF-8", switching, write("\x81\x01\xff"), RuleFrame},
		{"huge frame", switching, write("\x82\x7f\x00\x00\x00\x00\x10\x00\x00\x00"), RuleSize},
		{"close code 1005", switching, write("\x88\x02\x03\xed"), RuleFrame},
		{"close", switching, write(good, "\x88\x02\x03\xe9"), RuleCloseFrame},
		{"end", switching, func(nc net.Conn) { _ = nc.Close() }, RuleCloseFrame},
		{"end in a frame", switching, func(nc net.Conn) {
			time.Sleep(idFrameDelay)
			_, _ = io.WriteString(nc, id[:5])
			_ = nc.Close()
		}, RuleFrame},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				done := make(chan struct{})
				go func() {
					defer close(done)
					rawServer(t, far, tt.response, tt.f)
				}()
				_, err := conversation(t, "titan/call-add").ReplayClient(t.Context(), Conns(near))
				wantRule(t, err, tt.want)
				_ = far.Close()
				<-done
			})
		})
	}
}

func TestServerNoticesBadUpgrade(t *testing.T) {
	const good = "GET /?id=x HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	for _, tt := range []struct{ name, old, new string }{
		{"method", "GET", "POST"},
		{"no HTTP", "GET", "\x00"},
		{"version", "13", "8"},
		{"key", "dGhlIHNhbXBsZSBub25jZQ==", "dGhl"},
		{"no upgrade", "Upgrade: websocket\r\n", ""},
		{"subprotocol", "\r\n\r\n", "\r\nSec-WebSocket-Protocol: netron\r\n\r\n"},
		{"no host", "Host: h\r\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := net.Pipe()
			go func() {
				_, _ = io.WriteString(far, strings.Replace(good, tt.old, tt.new, 1))
				_, _ = io.Copy(io.Discard, far)
			}()
			_, err := conversation(t, "titan/call-add").ServeRecorded(t.Context(), Conns(near))
			wantRule(t, err, RuleUpgrade)
			_ = far.Close()
		})
	}
}

// A server may ping and send a message in fragments; the played client answers and puts it together.
func TestClientPongsAndJoins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := conversation(t, "raw/raw-query-interface-bare-name")
		near, far := net.Pipe()
		got := make(chan string, 1)
		done := make(chan struct{})
		go func() {
			defer close(done)
			r := bufio.NewReader(far)
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			const id = `{"type":"id","id":"x"}`
			_, _ = io.WriteString(far, switching(req.Header.Get("Sec-Websocket-Key")))
			_, _ = io.WriteString(far, "\x89\x02hi"+"\x01\x05"+id[:5]+"\x89\x00"+"\x80"+string(rune(len(id)-5))+id[5:])
			h, _ := ws.ReadHeader(r)
			p := make([]byte, h.Length)
			_, _ = io.ReadFull(r, p)
			ws.Cipher(p, h.Mask, 0)
			got <- fmt.Sprintf("%x %s", h.OpCode, p)
			_, _ = io.Copy(io.Discard, r)
		}()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := c.ReplayClient(ctx, Conns(near), Patience(time.Second))
		wantRule(t, err, RuleMissing) // greeted, then left alone
		if s := <-got; s != "a hi" {
			t.Errorf("answer to a ping = %q, want %q", s, "a hi")
		}
		_ = far.Close()
		<-done
	})
}
