package tspeer

import (
	"slices"
	"strings"
)

// script is what the recorded server did because of one request of the client.
type script struct {
	i       int // index of the request
	steps   []step
	matched bool
}

// step is one move of a script: a message of the server to send, or something of the client's to wait for.
type step struct {
	kind stepKind
	i    int // index of the message to send, of the server's request whose answer is awaited, or of the last chunk of the client's stream
}

type stepKind int

const (
	stepSend stepKind = iota
	stepAnswer
	stepStream
)

// coreTasks are the tasks that any server has and that change nothing but bookkeeping.
var coreTasks = []string{"query_interface", "subscribe", "unsubscribe", "unref_service"}

func isCoreTask(p *Packet) bool { return p.Type == TypeTask && slices.Contains(coreTasks, p.word(0)) }

// place is a connection and an id on it: of a packet or of a stream.
type place struct {
	conn int
	id   uint32
}

// scripts finds out for each request of the client what the server did because of it.
func scripts(msgs []Message) []*script {
	b := &scriptBuilder{
		msgs: msgs, open: map[place][]*script{}, asked: map[place]int{}, causes: map[int]*script{}, readers: map[place]*script{}, writers: map[uint32]*script{},
	}
	for i := range msgs {
		switch m := &msgs[i]; {
		case m.Packet == nil:
		case m.Client:
			b.client(i, m)
		default:
			b.server(i, m)
		}
	}
	return b.all
}

// scriptBuilder walks a recording.
type scriptBuilder struct {
	msgs    []Message
	all     []*script
	cause   *script             // of whatever the server does next on its own
	open    map[place][]*script // requests of the client without an answer
	asked   map[place]int       // requests of the server without an answer
	causes  map[int]*script     // why the server made a request
	readers map[place]*script   // the request that announced a stream of the client
	writers map[uint32]*script  // the request whose answer announces a stream of the server
}

func (s *script) add(kind stepKind, i int) { s.steps = append(s.steps, step{kind: kind, i: i}) }

func (b *scriptBuilder) client(i int, m *Message) {
	p := m.Packet
	at := place{m.Conn, p.ID}
	switch {
	case p.isRequest():
		s := &script{i: i}
		b.all = append(b.all, s)
		b.open[at] = append(b.open[at], s)
		for _, arg := range p.args() {
			if ref, ok := arg.(StreamRef); ok {
				b.readers[place{m.Conn, ref.StreamID}] = s
			}
		}
		if p.Type == TypeCall || p.Type == TypeTask && !isCoreTask(p) {
			b.cause = s
		}
	case p.isResponse():
		if j, ok := b.asked[at]; ok {
			delete(b.asked, at)
			b.causes[j].add(stepAnswer, j)
		}
	case p.Type == TypeStream && p.EOS:
		if s := b.readers[place{m.Conn, p.StreamID}]; s != nil {
			s.add(stepStream, i)
		}
	}
}

func (b *scriptBuilder) server(i int, m *Message) {
	p := m.Packet
	at := place{m.Conn, p.ID}
	switch {
	case p.isResponse():
		// Two requests with one id: the later one was answered first.
		if waiting := b.open[at]; len(waiting) > 0 {
			last := len(waiting) - 1
			b.open[at] = waiting[:last]
			waiting[last].add(stepSend, i)
		}
	case p.isRequest() && b.cause != nil:
		b.asked[at], b.causes[i] = i, b.cause
		b.cause.add(stepSend, i)
	case p.Type == TypeStream:
		s, known := b.writers[p.StreamID]
		if !known {
			s = writerOf(b.msgs, b.all, p.StreamID)
			b.writers[p.StreamID] = s
		}
		if s != nil {
			s.add(stepSend, i)
		}
	}
}

// writerOf finds the request whose answer announces the server's stream. The answer may come after the first chunk.
func writerOf(msgs []Message, all []*script, stream uint32) *script {
	for _, m := range msgs {
		if m.Client || m.Packet == nil || m.Packet.Impulse {
			continue
		}
		ref, ok := m.Packet.Payload.(StreamRef)
		if !ok || ref.StreamID != stream {
			continue
		}
		for _, s := range all {
			if req := msgs[s.i]; req.Conn == m.Conn && req.Packet.ID == m.Packet.ID {
				return s
			}
		}
	}
	return nil
}

// serviceKey returns "name@version" of a definition.
func serviceKey(meta Object) string {
	key := meta.text("name")
	if v := meta.text("version"); v != "" {
		key += "@" + v
	}
	return key
}

// bareName returns a service key without its version.
func bareName(key string) string {
	name, _, _ := strings.Cut(key, "@")
	return name
}
