package tspeer

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

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
	if inner, ok := errors.AsType[*Violation](d.err); ok && inner.Rule == RuleTruncated {
		d.err = violation(RuleExtLength, "extension %d of %d bytes: %s", typ, n, inner.Detail)
	}
	if d.err == nil && d.off != end {
		d.fail(RuleExtLength, "extension %d of %d bytes has %d more than its content", typ, n, end-d.off)
	}
	d.b = whole
	return v
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
