package tspeer

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
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
	if n > len(d.b)-d.off {
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
	if 2*n > len(d.b)-d.off {
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

// ext reads the type and the n bytes of an extension.
func (d *decoder) ext(n int) any {
	typ := int(d.uint(1))
	if d.err == nil && n > len(d.b)-d.off {
		d.fail(RuleTruncated, "extension %d of %d bytes in %d", typ, n, len(d.b)-d.off)
	}
	if d.err != nil {
		return nil
	}
	whole, end := d.b, d.off+n
	d.b = whole[:end]
	v := d.extension(typ, n)
	var inner *Violation
	if asViolation(d.err, &inner) && inner.Rule == RuleTruncated {
		d.err = violation(RuleExtLength, "extension %d of %d bytes: %s", typ, n, inner.Detail)
	}
	if d.err == nil && d.off != end {
		d.fail(RuleExtLength, "extension %d of %d bytes has %d more than its content", typ, n, end-d.off)
	}
	d.b = whole
	return v
}

func asViolation(err error, v **Violation) bool {
	x, ok := err.(*Violation)
	if ok {
		*v = x
	}
	return ok
}

func (d *decoder) extension(typ, n int) any {
	switch typ {
	case 0:
		if p := d.take(n); n != 1 || p[0] != 0 {
			d.fail(RuleUndefined, "%x", p)
		}
		return Undefined{}
	case 107:
		return d.streamRef()
	case 108:
		id := d.string(RuleReference, "id")
		if d.err == nil && id == "" {
			d.fail(RuleReference, "empty id")
		}
		return Reference{DefID: id}
	case 109:
		return d.definition()
	case 110:
		if d.dialect == V06 {
			d.fail(RuleTitan06, "extension 110")
			return nil
		}
		return d.titanError()
	case 119:
		return d.long(n)
	case 120:
		s := d.string(RuleBigInt, "value")
		if d.err == nil && !isDecimal(s) {
			d.fail(RuleBigInt, "%q", s)
		}
		return BigInt(s)
	case 121:
		r := RegExp{Source: d.string(RuleRegExp, "source"), Flags: d.string(RuleRegExp, "flags")}
		d.regExpFlags(r.Flags)
		return r
	case 123:
		return Set(d.counted(1))
	case 124:
		kv := d.counted(2)
		m := make(Map, 0, len(kv)/2)
		for i := 0; i+1 < len(kv); i += 2 {
			m = append(m, Pair{kv[i], kv[i+1]})
		}
		return m
	case 125:
		ms := d.uint(8)
		if ms > maxDateMs {
			d.fail(RuleDate, "%d ms", ms)
		}
		return Date(ms)
	case 126:
		return d.jsError()
	}
	d.fail(RuleExtType, "type %d", typ)
	return nil
}

// string reads a value that must be a string; anything else breaks r.
func (d *decoder) string(r Rule, what string) string {
	v := d.value()
	s, ok := v.(string)
	if d.err == nil && !ok {
		d.fail(r, "%s is %s, not a string", what, show(v))
	}
	return s
}

func (d *decoder) counted(each int) []any {
	n := int(d.uint(4)) * each
	if d.err == nil && n > len(d.b)-d.off {
		d.fail(RuleTruncated, "%d values in %d bytes", n, len(d.b)-d.off)
	}
	if d.err != nil {
		return nil
	}
	return d.array(n)
}

func (d *decoder) streamRef() any {
	id := d.string(RuleStreamRef, "stream id")
	n, err := strconv.ParseUint(id, 10, 32)
	if d.err == nil && (err != nil || n == 0 || strconv.FormatUint(n, 10) != id) {
		d.fail(RuleStreamRef, "stream id %q", id)
	}
	flags := d.take(2)
	peer := d.string(RuleStreamRef, "peer id")
	if d.err != nil {
		return nil
	}
	if flags[0] > 1 || flags[1] > 1 {
		d.fail(RuleStreamRef, "flags %x", flags)
	}
	return StreamRef{StreamID: uint32(n), Writable: flags[0] == 1, Live: flags[1] == 1, PeerID: peer}
}

func (d *decoder) definition() any {
	def := &Definition{ID: d.string(RuleDefinition, "id"), ParentID: d.string(RuleDefinition, "parent id"), PeerID: d.string(RuleDefinition, "peer id")}
	meta := d.value()
	if d.err != nil {
		return nil
	}
	def.Meta, _ = meta.(Object)
	if problem := metaProblem(meta); problem != "" {
		d.fail(RuleDefinition, "%s", problem)
	} else if def.ID == "" {
		d.fail(RuleDefinition, "empty id")
	}
	return def
}

// metaProblem says what keeps a TypeScript proxy from working with the metadata of a service, or "".
func metaProblem(v any) string {
	meta, ok := v.(Object)
	if !ok {
		return "metadata is no map"
	}
	for _, key := range []string{"name", "version"} {
		if x, _ := meta.Get(key); !isString(x) {
			return key + " is no string"
		}
	}
	for _, key := range []string{"properties", "methods"} {
		x, _ := meta.Get(key)
		members, ok := x.(Object)
		if !ok {
			return key + " is no map"
		}
		for _, m := range members {
			about, ok := m.Value.(Object)
			if !ok {
				return fmt.Sprintf("%s.%s is no map", key, m.Key)
			}
			if readonly, _ := about.Get("readonly"); key == "properties" && !isBool(readonly) {
				return fmt.Sprintf("%s.%s.readonly is no bool", key, m.Key)
			}
		}
	}
	return ""
}

func isString(v any) bool { _, ok := v.(string); return ok }
func isBool(v any) bool   { _, ok := v.(bool); return ok }

// titanError reads the thirteen values of extension 110. A missing one makes the packet undecodable.
func (d *decoder) titanError() any {
	const count = 13
	var v [count]any
	for i := range v {
		if d.err == nil && d.off == len(d.b) {
			d.fail(RuleTitan, "%d of %d values", i, count)
		}
		v[i] = d.value()
	}
	if d.err != nil {
		return nil
	}
	e := &TitanError{RequestID: v[6], CorrelationID: v[7], SpanID: v[8], TraceID: v[9], Stack: v[10], Cause: v[11], Extras: v[12]}
	var ok [6]bool
	e.Name, ok[0] = v[0].(string)
	e.Code, ok[1] = v[1].(float64)
	e.Message, ok[2] = v[2].(string)
	e.Details, ok[3] = v[3].(Object)
	e.Context, ok[4] = v[4].(Object)
	e.Timestamp, ok[5] = v[5].(float64)
	for i := range ok {
		if !ok[i] {
			d.fail(RuleTitan, "value %d is %s", i+1, show(v[i]))
		}
	}
	for i := 6; i < 10; i++ {
		if _, undefined := v[i].(Undefined); !undefined && !isString(v[i]) {
			d.fail(RuleTitan, "value %d is %s", i+1, show(v[i]))
		}
	}
	d.titanTail(e)
	return e
}

func (d *decoder) titanTail(e *TitanError) {
	if e.Stack != nil && !isString(e.Stack) {
		d.fail(RuleTitan, "stack is %s", show(e.Stack))
	}
	switch e.Cause.(type) {
	case nil, *TitanError, Object:
	default:
		d.fail(RuleTitan, "cause is %s", show(e.Cause))
	}
	switch e.Extras.(type) {
	case nil, Object:
	default:
		d.fail(RuleTitan, "extras are %s", show(e.Extras))
	}
}

func (d *decoder) long(n int) any {
	const size = 9
	if n != size {
		d.fail(RuleLong, "%d bytes", n)
		return nil
	}
	unsigned := d.uint(1)
	if unsigned > 1 {
		d.fail(RuleLong, "flag %d", unsigned)
	}
	x := d.uint(8)
	if unsigned == 1 {
		return Long{Unsigned: true, Value: strconv.FormatUint(x, 10)}
	}
	return Long{Value: strconv.FormatInt(int64(x), 10)}
}

// isDecimal reports whether s is a decimal integer as BigInt prints it.
func isDecimal(s string) bool {
	digits, _ := strings.CutPrefix(s, "-")
	return digits != "" && strings.Trim(digits, "0123456789") == ""
}

// regExpFlags checks flags as the RegExp constructor does, which throws on others.
func (d *decoder) regExpFlags(flags string) {
	for i, c := range flags {
		if !strings.ContainsRune("dgimsuvy", c) || strings.ContainsRune(flags[:i], c) {
			d.fail(RuleRegExp, "flags %q", flags)
			return
		}
	}
}

func (d *decoder) jsError() any {
	id := int(d.uint(2))
	if d.err == nil && (id < 1 || id >= len(errorClasses)) {
		d.fail(RuleErrorID, "%d", id)
		return nil
	}
	e := &Error{Name: d.string(RuleError, "name"), Stack: d.value(), Message: d.string(RuleError, "message")}
	n := int(d.uint(2))
	e.Fields = Object{}
	for range n {
		if d.err != nil {
			return nil
		}
		key := d.string(RuleError, "field name")
		if key == "__proto__" {
			d.fail(RuleProto, "field of an error")
		}
		e.Fields = append(e.Fields, Member{key, d.value()})
	}
	if d.err != nil {
		return nil
	}
	switch e.Stack.(type) {
	case nil, Undefined, string:
	default:
		d.fail(RuleError, "stack is %s", show(e.Stack))
	}
	e.Ctor = errorClasses[id]
	return e
}
