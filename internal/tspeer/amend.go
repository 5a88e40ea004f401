package tspeer

import (
	"fmt"
	"slices"
)

// Amendment says where the original's server is not the model, and what a right one does instead.
type Amendment struct {
	Client string // "" for all
	Name   string
	Reason string

	edit func(*amended)
}

// alternative is another right answer to a request.
type alternative func(p *Packet) bool

// amended is a conversation that is being amended.
type amended struct {
	msgs []Message
	err  error
}

// Amendments returns the conversations in which a right server answers otherwise than the original, or may do so. [Conversation.ReplayClient]
// applies them unless told otherwise ([AsRecorded]).
func Amendments() []Amendment {
	const (
		lenient = "malformed requests may be refused"
		strict  = "only exposed members are reachable, and readonly is enforced by the owner"
	)
	return []Amendment{
		{"", "generator-empty", "the end of a stream before its announcement is lost", func(a *amended) { a.announceFirst() }},
		{Titan, "stream-upload-native", "the original cannot find the writer's peer", func(a *amended) { a.finishUpload(2) }},
		{Browser, "stream-upload-at-once", "chunks before their call are kept", func(a *amended) { a.addAnswer(1, 16000) }},
		{BrowserNoDiscovery, "stream-upload-at-once", "chunks before their call are kept", func(a *amended) { a.setAnswer(1, 16000.0) }},
		{Raw, "raw-properties", strict, func(a *amended) {
			a.must(anyRefusal, 3, 9)
			a.setAnswer(10, "1.0.0")
			a.setAnswer(11, "1.0.0")
			a.may(anyRefusal, 7)
			a.may(anyResult, 8)
		}},
		{Raw, "raw-unknown-task", "the task abilities of 0.6 is served too; " + lenient, func(a *amended) {
			a.may(isAbilities, 2)
			a.may(anyRefusal, 3, 4)
		}},
		{Raw, "raw-query-interface-unknown", "any version may be asked for; " + lenient, func(a *amended) {
			a.may(isDefinition, 4)
			a.may(anyRefusal, 5, 6, 7)
		}},
		{Raw, "raw-unknown-definition", "a service may be called by its bare name", func(a *amended) { a.may(result(3.0), 5) }},
		{Raw, "raw-unsubscribe-unused", lenient, func(a *amended) { a.may(anyRefusal, 7, 8) }},
		{Raw, "raw-event-emit-to-server", lenient, func(a *amended) { a.may(anyRefusal, 2) }},
		{Raw, "raw-exposure-refused", "a server without authentication may have no such task", func(a *amended) {
			a.may(anyRefusal, 3, 4)
			a.may(unsuccessful, 3)
		}},
		{Raw, "raw-task-before-client-id", "the original goes mute for good", func(a *amended) {
			a.addOptional(1, 3)
			a.addOptional(2, 7)
		}},
		{Raw, "raw-server-task", "what a peer throws may arrive as an error with its message", func(a *amended) {
			a.may(failure("plain string"), 4)
			a.may(failure("a plain map"), 5)
		}},
		{Browser, "server-task", "what a peer throws may arrive as an error with its message", func(a *amended) { a.may(failure("client task failed"), 4) }},
	}
}

// amend returns the messages of the conversation as a right server would have had them.
func (c *Conversation) amend(msgs []Message) ([]Message, error) {
	a := &amended{msgs: slices.Clone(msgs)}
	for _, am := range Amendments() {
		if am.Name == c.Name && (am.Client == "" || am.Client == c.Client) {
			am.edit(a)
		}
	}
	if a.err != nil {
		return nil, fmt.Errorf("tspeer: %v: %w", c, a.err)
	}
	return a.msgs, nil
}

// answer returns the index of the server's answer to the client's request id, -1 if there is none.
func (a *amended) answer(id uint32) int {
	return slices.IndexFunc(a.msgs, func(m Message) bool {
		return !m.Client && m.Packet != nil && m.Packet.isResponse() && m.Packet.ID == id
	})
}

// request returns the index of the client's request id, -1 if there is none.
func (a *amended) request(id uint32) int {
	return slices.IndexFunc(a.msgs, func(m Message) bool {
		return m.Client && m.Packet != nil && m.Packet.isRequest() && m.Packet.ID == id
	})
}

func (a *amended) each(ids []uint32, f func(m *Message)) {
	for _, id := range ids {
		i := a.answer(id)
		if i < 0 {
			a.err = fmt.Errorf("no answer %d to amend", id)
			return
		}
		f(&a.msgs[i])
	}
}

// may adds another right answer to each of the requests.
func (a *amended) may(alt alternative, ids ...uint32) {
	a.each(ids, func(m *Message) { m.also = append(m.also, alt) })
}

// must replaces the answer to each of the requests.
func (a *amended) must(alt alternative, ids ...uint32) {
	a.each(ids, func(m *Message) { m.also, m.only = append(m.also, alt), true })
}

func (a *amended) setAnswer(id uint32, v any) {
	a.each([]uint32{id}, func(m *Message) {
		p := *m.Packet
		p.Error, p.Payload = false, v
		m.Packet, m.Raw = &p, nil
	})
}

// addAnswer adds an answer that the original did not give.
func (a *amended) addAnswer(id uint32, result float64) *Message {
	i := a.request(id)
	if i < 0 {
		a.err = fmt.Errorf("no request %d to answer", id)
		return &Message{}
	}
	last := a.msgs[len(a.msgs)-1]
	m := Message{Conn: a.msgs[i].Conn, At: last.At, Packet: &Packet{ID: id, Type: a.msgs[i].Packet.Type, Payload: result}}
	a.msgs = append(a.msgs, m)
	return &a.msgs[len(a.msgs)-1]
}

// addOptional allows an answer or a refusal where the original was silent.
func (a *amended) addOptional(id uint32, result float64) {
	m := a.addAnswer(id, result)
	m.optional = true
	m.also = append(m.also, anyRefusal)
}

// announceFirst moves the answer that announces a stream before the stream's packets.
func (a *amended) announceFirst() {
	chunk := slices.IndexFunc(a.msgs, func(m Message) bool { return m.Packet != nil && m.Packet.Type == TypeStream })
	if chunk < 0 || chunk+1 >= len(a.msgs) {
		a.err = fmt.Errorf("no stream")
		return
	}
	a.msgs[chunk], a.msgs[chunk+1] = a.msgs[chunk+1], a.msgs[chunk]
}

// finishUpload ends the client's stream and answers the call with the number of its bytes.
func (a *amended) finishUpload(call uint32) {
	i := a.answer(call)
	if i < 0 {
		a.err = fmt.Errorf("no answer %d", call)
		return
	}
	answer := *a.msgs[i].Packet
	a.msgs = slices.Delete(a.msgs, i, i+1)
	last := a.msgs[len(a.msgs)-1]
	data, _ := last.Packet.Payload.([]byte)
	end := *last.Packet
	end.ID, end.Index, end.EOS, end.Payload = end.ID+1, end.Index+1, true, nil
	answer.Error, answer.Payload = false, float64(len(data))
	a.msgs = append(a.msgs, Message{Conn: last.Conn, At: last.At, Client: true, Packet: &end}, Message{Conn: last.Conn, At: last.At, Packet: &answer})
}

func anyRefusal(p *Packet) bool {
	_, message, _ := refusal(p.Payload)
	return p.Error && message != ""
}

func anyResult(p *Packet) bool { return !p.Error }

func result(v any) alternative {
	return func(p *Packet) bool { return !p.Error && Diff(p.Payload, v) == nil }
}

// failure matches an error that has that message, in whatever form.
func failure(message string) alternative {
	return func(p *Packet) bool {
		_, m, _ := refusal(p.Payload)
		if o, ok := p.Payload.(Object); ok {
			m = o.text("message")
		}
		return p.Error && m == message
	}
}

func isDefinition(p *Packet) bool {
	_, ok := p.Payload.(*Definition)
	return ok && !p.Error
}

func isAbilities(p *Packet) bool {
	o, _ := p.Payload.(Object)
	services, _ := o.Get("services")
	allow, _ := o.Get("allowServiceEvents")
	m, ok := services.(Map)
	for _, s := range m {
		_, isDef := s.Value.(*Definition)
		ok = ok && isDef && isString(s.Key)
	}
	return ok && isBool(allow) && !p.Error
}

func unsuccessful(p *Packet) bool {
	o, _ := p.Payload.(Object)
	v, _ := o.Get("success")
	return v == false && !p.Error
}
