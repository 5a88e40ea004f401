package tspeer

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// Dialect is a generation of TypeScript peers.
type Dialect int

const (
	// Current is what both the current Node server or client and the current browser client understand.
	Current Dialect = iota
	// V06 is what every late 0.6 snapshot understands: no PING, no STREAM_CLOSE, no extension 110.
	V06
)

const (
	maxDepth  = 512
	maxDateMs = 8_640_000_000_000_000 // the last Date that JavaScript has
)

// Decode decodes a whole WebSocket message as the strictest un-negotiated TypeScript peer of that dialect does. Where those peers
// silently lose or distort something (a second equal map key, invalid UTF-8), it fails too. The error is a *Violation. Decode copies msg.
func Decode(d Dialect, msg []byte) (*Packet, error) {
	if len(msg) > maxPacketBytes {
		return nil, violation(RuleSize, "%d bytes", len(msg))
	}
	if len(msg) < headerBytes+1 {
		return nil, violation(RuleShort, "%x", msg)
	}
	flags := msg[4]
	p := &Packet{
		ID:      binary.BigEndian.Uint32(msg),
		Type:    int(flags & 0x0f),
		Impulse: flags&flagImpulse != 0,
		Error:   flags&flagError != 0,
		EOS:     flags&flagEOS != 0,
		Live:    flags&flagLive != 0,
	}
	if err := checkFlags(d, p); err != nil {
		return nil, err
	}
	dec := decoder{b: msg, off: headerBytes, dialect: d}
	p.Payload = dec.value()
	if dec.err != nil {
		return nil, dec.err
	}
	rest := msg[dec.off:]
	if p.Type == TypeStream {
		if len(rest) < streamBytes {
			return nil, violation(RuleShort, "stream packet with %d bytes after the payload", len(rest))
		}
		p.StreamID, p.Index = binary.BigEndian.Uint32(rest), binary.BigEndian.Uint32(rest[4:])
		rest = rest[streamBytes:]
	}
	if len(rest) > 0 {
		return nil, violation(RuleTrailing, "%d after %v", len(rest), p)
	}
	return p, nil
}

func checkFlags(d Dialect, p *Packet) error {
	stream := p.Type == TypeStream
	switch {
	case p.Type > TypeStreamClose:
		return violation(RuleType, "type %d", p.Type)
	case p.EOS && !stream:
		return violation(RuleEOSFlag, "type %d", p.Type)
	case p.Live && !stream:
		return violation(RuleLiveFlag, "type %d", p.Type)
	case p.Error && (p.Impulse || p.Type == TypePing || p.Type >= TypeStream):
		return violation(RuleErrorFlag, "flags %02x", p.flags())
	case !p.Impulse && p.Type >= TypeStream:
		return violation(RuleImpulse, "flags %02x", p.flags())
	case d == V06 && p.Type == TypePing:
		return violation(RulePing06, "id %d", p.ID)
	case d == V06 && p.Type == TypeStreamClose:
		return violation(RuleClose06, "id %d", p.ID)
	}
	return nil
}

// DecodeValue decodes b, which must hold exactly one value. The error is a *Violation.
func DecodeValue(d Dialect, b []byte) (any, error) {
	dec := decoder{b: b, dialect: d}
	v := dec.value()
	if dec.err != nil {
		return nil, dec.err
	}
	if n := len(b) - dec.off; n > 0 {
		return nil, violation(RuleTrailing, "%d after a value", n)
	}
	return v, nil
}

// decoder reads values from b. After the first error it returns zero values, and err stays.
type decoder struct {
	b       []byte // cut to the extension that is being read
	off     int
	depth   int
	dialect Dialect
	err     error
}

func (d *decoder) fail(r Rule, format string, args ...any) {
	if d.err == nil {
		d.err = violation(r, format+" (before byte %d)", append(args, d.off)...)
	}
}

func (d *decoder) take(n int) []byte {
	if d.err != nil {
		return nil
	}
	if n < 0 || n > len(d.b)-d.off {
		d.fail(RuleTruncated, "%d bytes wanted, %d there", n, len(d.b)-d.off)
		return nil
	}
	p := d.b[d.off : d.off+n]
	d.off += n
	return p
}

// uint reads an integer of n bytes, big-endian.
func (d *decoder) uint(n int) uint64 {
	var x uint64
	for _, c := range d.take(n) {
		x = x<<8 | uint64(c)
	}
	return x
}

func (d *decoder) value() any {
	p := d.take(1)
	if p == nil {
		return nil
	}
	if d.depth++; d.depth > maxDepth {
		d.fail(RuleDepth, "more than %d", maxDepth)
		return nil
	}
	defer func() { d.depth-- }()
	switch c := p[0]; {
	case c < 0x80:
		return float64(c)
	case c < 0x90:
		return d.object(int(c & 0x0f))
	case c < 0xa0:
		return d.array(int(c & 0x0f))
	case c < 0xc0:
		return d.text(int(c & 0x1f))
	case c >= 0xe0:
		return float64(int8(c))
	default:
		return d.lead(c)
	}
}

// lead reads the rest of a value that starts with a byte of c0 to df.
func (d *decoder) lead(c byte) any {
	switch c {
	case 0xc0:
		return nil
	case 0xc1:
		d.fail(RuleC1, "reserved by MessagePack")
	case 0xc2, 0xc3:
		return c == 0xc3
	case 0xc4, 0xc5, 0xc6:
		return append([]byte{}, d.take(int(d.uint(1<<(c-0xc4))))...)
	case 0xc7, 0xc8, 0xc9:
		return d.ext(int(d.uint(1 << (c - 0xc7))))
	case 0xca:
		return float64(math.Float32frombits(uint32(d.uint(4))))
	case 0xcb:
		return math.Float64frombits(d.uint(8))
	case 0xcc, 0xcd, 0xce, 0xcf:
		return float64(d.uint(1 << (c - 0xcc)))
	case 0xd0:
		return float64(int8(d.uint(1)))
	case 0xd1:
		return float64(int16(d.uint(2)))
	case 0xd2:
		return float64(int32(d.uint(4)))
	case 0xd3:
		return float64(int64(d.uint(8)))
	case 0xd4, 0xd5, 0xd6, 0xd7, 0xd8:
		return d.ext(1 << (c - 0xd4))
	case 0xd9, 0xda, 0xdb:
		return d.text(int(d.uint(1 << (c - 0xd9))))
	case 0xdc, 0xdd:
		return d.array(int(d.uint(2 << (c - 0xdc))))
	case 0xde:
		return d.object(int(d.uint(2)))
	case 0xdf:
		d.fail(RuleMap32, "no TypeScript decoder takes it")
	}
	return nil
}

func (d *decoder) text(n int) string {
	p := d.take(n)
	if !utf8.Valid(p) {
		d.fail(RuleUTF8, "string of %d bytes", n)
	}
	return string(p)
}

func (d *decoder) array(n int) []any {
	if n < 0 || n > len(d.b)-d.off { // negative: too large for an int
		d.fail(RuleTruncated, "array of %d in %d bytes", n, len(d.b)-d.off)
		return nil
	}
	out := make([]any, 0, n)
	for range n {
		out = append(out, d.value())
		if d.err != nil {
			return nil
		}
	}
	return out
}

func (d *decoder) object(n int) Object {
	if n < 0 || 2*n > len(d.b)-d.off {
		d.fail(RuleTruncated, "map of %d in %d bytes", n, len(d.b)-d.off)
		return nil
	}
	out := make(Object, 0, n)
	seen := make(map[string]bool, n)
	for range n {
		k := d.value()
		key, ok := k.(string)
		switch {
		case d.err != nil:
			return nil
		case !ok:
			d.fail(RuleKey, "%s", show(k))
			return nil
		case key == "__proto__":
			d.fail(RuleProto, "it is assigned, not added")
		case seen[key]:
			d.fail(RuleDuplicateKey, "%q", key)
		}
		seen[key] = true
		out = append(out, Member{key, d.value()})
	}
	if d.err != nil {
		return nil
	}
	return out
}
