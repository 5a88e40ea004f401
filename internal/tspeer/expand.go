package tspeer

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Messages returns the conversation's messages in order of time, with everything that the recording leaves out put back. Payloads of which
// only a digest was kept are proved by it. The messages are the caller's.
func (c *Conversation) Messages() ([]Message, error) {
	msgs, err := c.expand()
	if err != nil {
		return nil, fmt.Errorf("tspeer: %v: %w", c, err)
	}
	return msgs, nil
}

func (c *Conversation) expand() ([]Message, error) {
	whole := make([]*Message, len(c.entries))
	for i := range c.entries {
		if c.entries[i].Elided > 0 {
			continue
		}
		m, err := c.entries[i].message()
		if err != nil {
			return nil, fmt.Errorf("message %d: %w", i, err)
		}
		whole[i] = m
	}
	var out []Message
	for i, e := range c.entries {
		if e.Elided == 0 {
			out = append(out, *whole[i])
			continue
		}
		run, err := fillRun(e, lastLike(e, whole[:i]), whole[i+1:])
		if err != nil {
			return nil, fmt.Errorf("%d %s: %w", e.Elided, e.What, err)
		}
		out = append(out, run...)
	}
	// A run was recorded as one entry; what happened meanwhile stands behind it.
	slices.SortStableFunc(out, func(a, b Message) int { return int(a.At - b.At) })
	return out, nil
}

func milliseconds(t float64) time.Duration { return time.Duration(t * float64(time.Millisecond)) }

// message returns the message of an entry that is one.
func (e *entry) message() (*Message, error) {
	m := &Message{Conn: e.Conn, At: milliseconds(e.T), Client: e.From == "client", Text: e.Kind == "text"}
	raw, err := hex.DecodeString(e.Hex)
	if err != nil {
		return nil, err
	}
	if e.Hex != "" {
		m.Raw = raw
	}
	if e.JSON != nil {
		m.Hello = &Hello{raw: m.Raw}
		return m, json.Unmarshal(m.Raw, m.Hello)
	}
	if m.Raw == nil {
		return m, e.restore(m)
	}
	m.Packet, err = Decode(Current, m.Raw)
	m.Bad, _ = errors.AsType[*Violation](err)
	return m, nil
}

// restore fills in a message of which the recording has only the payload, perhaps cut.
func (e *entry) restore(m *Message) error {
	p, err := e.Packet.packet()
	if err != nil {
		return err
	}
	if p.Payload, err = uncut(p.Payload); err != nil {
		return err
	}
	m.Packet = p
	if e.SHA256 == "" {
		return nil
	}
	m.Raw = p.AppendTo(nil, Current)
	if sum := sha256.Sum256(m.Raw); len(m.Raw) != e.Length || hex.EncodeToString(sum[:]) != e.SHA256 || !strings.HasPrefix(hex.EncodeToString(m.Raw), e.HexPrefix) {
		return fmt.Errorf("the restored %v differs from the recorded one (%d bytes, want %d)", p, len(m.Raw), e.Length)
	}
	return nil
}

// packet returns the readable form of a recording as a Packet.
func (r *recordedPacket) packet() (*Packet, error) {
	payload, err := parseTagged(r.Payload)
	return &Packet{
		ID: uint32(r.ID), Type: int(r.Type), Impulse: r.Impulse == 1, Error: r.Error == 1, EOS: r.EOS, Live: r.Live,
		Payload: payload, StreamID: r.StreamID, Index: r.Index,
	}, err
}

// like reports whether the entry's run may consist of messages such as m.
func (e *entry) like(m *Message) bool {
	if m == nil || m.Packet == nil || m.Client != (e.From == "client") || m.Conn != e.Conn {
		return false
	}
	p := m.Packet
	what, isAnswers := strings.CutPrefix(e.What, "answers to ")
	kind, name, _ := strings.Cut(what, " ")
	switch {
	case strings.HasPrefix(e.What, "chunks of stream "):
		return p.Type == TypeStream && !p.EOS && strconv.Itoa(int(p.StreamID)) == strings.TrimPrefix(e.What, "chunks of stream ")
	case isAnswers && name == "emit": // the browser client answers every request as if it were a call
		return p.isResponse()
	case isAnswers:
		return p.isResponse() && typeNames[p.Type] == kind
	}
	word := p.word(0)
	if p.Type == TypeCall {
		word = p.word(1)
	}
	name, _, _ = strings.Cut(name, " ")
	return p.isRequest() && typeNames[p.Type] == kind && word == name
}

func lastLike(e entry, before []*Message) *Message {
	for _, m := range slices.Backward(before) {
		if e.like(m) {
			return m
		}
	}
	return nil
}

// fillRun returns the messages of a run that was left out: between the last one kept before it and the first one kept after it,
// everything that differs between those two grows evenly.
func fillRun(e entry, a *Message, after []*Message) ([]Message, error) {
	i := slices.IndexFunc(after, e.like)
	if a == nil || i < 0 {
		return nil, fmt.Errorf("no neighbours")
	}
	b := after[i]
	n := e.Elided
	run := make([]Message, 0, n)
	for k := 1; k <= n; k++ {
		f := between{k: float64(k), n: float64(n + 1)}
		p := *a.Packet
		p.ID = uint32(f.number(float64(a.Packet.ID), float64(b.Packet.ID)))
		p.Index = uint32(f.number(float64(a.Packet.Index), float64(b.Packet.Index)))
		p.Payload = f.value(a.Packet.Payload, b.Packet.Payload)
		if f.uneven {
			return nil, fmt.Errorf("the run is not even between %v and %v", a, b)
		}
		m := *a
		m.Packet, m.Raw = &p, nil
		m.At = milliseconds(e.T + (e.UntilT-e.T)*float64(k-1)/float64(n))
		run = append(run, m)
	}
	return run, nil
}

// between finds element k of n steps from one value to another.
type between struct {
	k, n   float64
	uneven bool
}

func (f *between) number(a, b float64) float64 {
	x := a + (b-a)*f.k/f.n
	if x != float64(int64(x)) {
		f.uneven = true
	}
	return x
}

func (f *between) value(a, b any) any {
	switch a := a.(type) {
	case float64:
		b, ok := b.(float64)
		f.uneven = f.uneven || !ok
		return f.number(a, b)
	case []byte:
		b, ok := b.([]byte)
		if !ok || len(a) != len(b) {
			f.uneven = true
			return nil
		}
		out := make([]byte, len(a))
		for i := range a {
			out[i] = byte(f.number(float64(a[i]), float64(b[i])))
		}
		return out
	case []any:
		b, ok := b.([]any)
		if !ok || len(a) != len(b) {
			f.uneven = true
			return nil
		}
		out := make([]any, len(a))
		for i := range a {
			out[i] = f.value(a[i], b[i])
		}
		return out
	}
	if Diff(a, b) != nil {
		f.uneven = true
	}
	return a
}

// uncut restores the cut parts of v by continuing the pattern of what was kept. Whether the guess is right is proved by a digest.
func uncut(v any) (any, error) {
	switch v := v.(type) {
	case cut:
		return continued(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			var err error
			if out[i], err = uncut(v[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return v, nil
}

func continued(c cut) (any, error) {
	switch kept := c.kept.(type) {
	case string:
		return string(repeated([]byte(kept), c.total)), nil
	case []byte:
		return repeated(kept, c.total), nil
	case []any:
		for len(kept) < c.total {
			kept = append(kept, successor(kept[0], kept[1], len(kept)))
		}
		return kept, nil
	case Object:
		for i := len(kept); i < c.total; i++ {
			kept = append(kept, Member{successor(kept[0].Key, kept[1].Key, i).(string), successor(kept[0].Value, kept[1].Value, i)})
		}
		return kept, nil
	}
	return nil, fmt.Errorf("cut %T", c.kept)
}

// repeated continues p to total bytes: counting up if p does, else with its shortest period.
func repeated(p []byte, total int) []byte {
	out := make([]byte, total)
	if len(p) > 2 && p[1] == p[0]+1 && p[2] == p[1]+1 {
		for i := range out {
			out[i] = p[0] + byte(i)
		}
		return out
	}
	period := 1
	for ; period < len(p); period++ {
		if bytes.Equal(p[period:], p[:len(p)-period]) {
			break
		}
	}
	for i := range out {
		out[i] = p[i%period]
	}
	return out
}

// successor returns element i of the sequence that starts with a and b.
func successor(a, b any, i int) any {
	switch a := a.(type) {
	case float64:
		return a + (b.(float64)-a)*float64(i)
	case string:
		return strings.TrimRight(a, "0123456789") + strconv.Itoa(i)
	case Object:
		out := make(Object, len(a))
		for j, m := range a {
			out[j] = Member{m.Key, successor(m.Value, b.(Object)[j].Value, i)}
		}
		return out
	}
	return a
}
