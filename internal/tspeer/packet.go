package tspeer

import (
	"encoding/binary"
	"fmt"
	"regexp"
)

// Packet types. Protocol section on packets.
const (
	TypePing        = 0
	TypeGet         = 1
	TypeSet         = 2
	TypeCall        = 3
	TypeTask        = 4
	TypeStream      = 5
	TypeStreamError = 6
	TypeStreamClose = 7
)

const (
	flagEOS     = 0x10
	flagLive    = 0x20
	flagImpulse = 0x40
	flagError   = 0x80

	headerBytes     = 5
	streamBytes     = 8
	maxPacketBytes  = 16 << 20
	maxMemberLength = 255
)

var typeNames = [...]string{"PING", "GET", "SET", "CALL", "TASK", "STREAM", "STREAM_ERROR", "STREAM_CLOSE"}

// Packet is one decoded message. StreamID and Index are zero unless Type is TypeStream.
type Packet struct {
	ID                        uint32
	Type                      int
	Impulse, Error, EOS, Live bool
	Payload                   any
	StreamID, Index           uint32
}

// String renders the packet in one line.
func (p *Packet) String() string {
	s := fmt.Sprintf("type %d", p.Type)
	if p.Type < len(typeNames) {
		s = typeNames[p.Type]
	}
	s += fmt.Sprintf(" id %d", p.ID)
	for _, f := range []struct {
		on   bool
		name string
	}{{p.isResponse(), " response"}, {p.Error, " error"}, {p.EOS, " eos"}, {p.Live, " live"}} {
		if f.on {
			s += f.name
		}
	}
	if p.Type == TypeStream {
		s += fmt.Sprintf(" stream %d/%d", p.StreamID, p.Index)
	}
	return s + " " + show(p.Payload)
}

// isResponse reports whether the packet answers a request.
func (p *Packet) isResponse() bool { return !p.Impulse }

// isRequest reports whether the packet wants an answer.
func (p *Packet) isRequest() bool { return p.Impulse && p.Type < TypeStream }

// args returns the payload as an array, nil if it is none.
func (p *Packet) args() []any {
	a, _ := p.Payload.([]any)
	return a
}

// word returns element i of the payload as a string, "" if there is none.
func (p *Packet) word(i int) string {
	if a := p.args(); i < len(a) {
		s, _ := a[i].(string)
		return s
	}
	return ""
}

// isTask reports whether the packet is a request to run the task of that name.
func (p *Packet) isTask(name string) bool {
	return p.Impulse && p.Type == TypeTask && p.word(0) == name
}

// flags returns the flags byte.
func (p *Packet) flags() byte {
	f := byte(p.Type)
	for _, b := range []struct {
		on   bool
		mask byte
	}{{p.EOS, flagEOS}, {p.Live, flagLive}, {p.Impulse, flagImpulse}, {p.Error, flagError}} {
		if b.on {
			f |= b.mask
		}
	}
	return f
}

// AppendTo appends the packet to dst as a TypeScript peer of that dialect writes it.
func (p *Packet) AppendTo(dst []byte, d Dialect) []byte {
	dst = binary.BigEndian.AppendUint32(dst, p.ID)
	dst = append(dst, p.flags())
	dst = AppendValue(dst, d, p.Payload)
	if p.Type == TypeStream {
		dst = binary.BigEndian.AppendUint32(dst, p.StreamID)
		dst = binary.BigEndian.AppendUint32(dst, p.Index)
	}
	return dst
}

// definitionID matches what the current server takes for the id of a definition or for the key of a service.
var definitionID = regexp.MustCompile(`^([0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[A-Za-z0-9_-]+(@[A-Za-z0-9_.-]+)?)$`)

// uuid matches the ids that are safe to mint.
var uuid = regexp.MustCompile(`^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$`)

var memberName = regexp.MustCompile(`^[A-Za-z0-9_$]+$`)

// Check reports whether a TypeScript peer can act on a packet that it understood: a request has an array of the right shape (anything else
// ends the original's server process), a chunk is not null before the end, stream errors and closes say which stream they mean. The
// result is nil or a *Violation.
func Check(p *Packet) error {
	if p.isResponse() {
		return nil
	}
	switch p.Type {
	case TypeGet, TypeSet, TypeCall:
		return checkMember(p)
	case TypeTask:
		if p.word(0) == "" {
			return violation(RulePayload, "%v wants an array that starts with the task's name", p)
		}
	case TypeStream:
		return checkChunk(p)
	case TypeStreamError, TypeStreamClose:
		key := map[int]string{TypeStreamError: "message", TypeStreamClose: "reason"}[p.Type]
		o, _ := p.Payload.(Object)
		id, _ := o.Get("streamId")
		text, _ := o.Get(key)
		if n, ok := id.(float64); !ok || n < 1 || n > 1<<32-1 || n != float64(uint32(n)) {
			return violation(RuleChunk, "%v wants a map with a streamId", p)
		}
		if _, ok := text.(string); !ok {
			return violation(RuleChunk, "%v wants a map with a string named %s", p, key)
		}
	}
	return nil
}

func checkMember(p *Packet) error {
	a := p.args()
	least, most := 2, len(a)
	switch p.Type {
	case TypeGet:
		most = 2
	case TypeSet:
		least, most = 3, 3
	}
	if len(a) < least || len(a) > most {
		return violation(RulePayload, "%v has %d elements", p, len(a))
	}
	if !definitionID.MatchString(p.word(0)) {
		return violation(RulePayload, "%v has no definition id that the current server accepts", p)
	}
	if name := p.word(1); len(name) > maxMemberLength || !memberName.MatchString(name) {
		return violation(RulePayload, "%v has no member name that the current server accepts", p)
	}
	return nil
}

func checkChunk(p *Packet) error {
	if p.StreamID == 0 {
		return violation(RuleChunk, "%v: stream 0 is ignored", p)
	}
	if p.EOS {
		return nil
	}
	switch p.Payload.(type) {
	case nil, Undefined:
		return violation(RuleChunk, "%v: null ends a reader", p)
	}
	return nil
}
