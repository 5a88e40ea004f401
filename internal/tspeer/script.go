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
	i    int // index of the message to send, or of the server's request whose answer is awaited
	// stream is the recorded id of the client's stream that must have ended.
	stream uint32
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

// scripts finds out for each request of the client what the server did because of it.
func scripts(msgs []Message) []*script {
	var all []*script
	var cause *script                    // of whatever the server does next on its own
	causeOf := map[int]*script{}         // server request -> its cause
	writers := map[uint32]*script{}      // server stream -> the request that it answers
	readers := map[[2]uint32]*script{}   // connection and client stream -> the request that carries it
	open := map[[2]uint32][]*script{}    // connection and id -> requests without an answer
	asked := map[[2]uint32]int{}         // connection and id -> server request
	announced := func(v any) StreamRef { // the stream that a value refers to
		ref, _ := v.(StreamRef)
		return ref
	}
	for i := range msgs {
		m := &msgs[i]
		p := m.Packet
		if p == nil {
			continue
		}
		key := [2]uint32{uint32(m.Conn), p.ID}
		switch {
		case m.Client && p.isRequest():
			s := &script{i: i}
			all = append(all, s)
			open[key] = append(open[key], s)
			for _, arg := range p.args() {
				if ref := announced(arg); ref.StreamID != 0 {
					readers[[2]uint32{uint32(m.Conn), ref.StreamID}] = s
				}
			}
			if p.Type == TypeCall || p.Type == TypeTask && !isCoreTask(p) {
				cause = s
			}
		case m.Client && p.isResponse():
			if j, ok := asked[key]; ok {
				delete(asked, key)
				causeOf[j].steps = append(causeOf[j].steps, step{kind: stepAnswer, i: j})
			}
		case m.Client && p.Type == TypeStream:
			if s := readers[[2]uint32{uint32(m.Conn), p.StreamID}]; s != nil && p.EOS {
				s.steps = append(s.steps, step{kind: stepStream, i: i, stream: p.StreamID})
			}
		case p.isResponse():
			// Two requests with one id: the later one was answered first.
			waiting := open[key]
			if n := len(waiting); n > 0 {
				s := waiting[n-1]
				open[key] = waiting[:n-1]
				s.steps = append(s.steps, step{kind: stepSend, i: i})
			}
		case p.isRequest() && cause != nil:
			asked[key], causeOf[i] = i, cause
			cause.steps = append(cause.steps, step{kind: stepSend, i: i})
		case p.Type == TypeStream:
			s := writers[p.StreamID]
			if s == nil {
				s = writerOf(msgs, all, p.StreamID)
				writers[p.StreamID] = s
			}
			if s != nil {
				s.steps = append(s.steps, step{kind: stepSend, i: i})
			}
		}
	}
	return all
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
