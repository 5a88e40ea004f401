package tspeer

import (
	"fmt"
	"math"
	"strings"
)

// The neutral Go form of a value on the wire. Beside the types below it is one of nil, bool, float64 (every JavaScript number), string,
// []byte (a Buffer) and []any.
type (
	// Undefined is JavaScript's undefined, which differs from nil (null) on the wire.
	Undefined struct{}

	// BigInt is a JavaScript bigint in decimal.
	BigInt string

	// Date is a point in time in milliseconds since 1970, UTC.
	Date int64

	// Map is a JavaScript Map in insertion order. A plain object is an [Object].
	Map []Pair

	// Pair is an entry of a [Map].
	Pair struct{ Key, Value any }

	// Set is a JavaScript Set in insertion order.
	Set []any

	// RegExp is a JavaScript regular expression.
	RegExp struct{ Source, Flags string }

	// Long is a 64-bit integer of the long.js library, in decimal.
	Long struct {
		Unsigned bool
		Value    string
	}

	// Reference names a service of the receiver by its definition id.
	Reference struct{ DefID string }

	// StreamRef announces a stream. Writable is the originator's end: true when the sender of the reference will write.
	StreamRef struct {
		StreamID       uint32
		Writable, Live bool
		PeerID         string
	}

	// Definition describes a service.
	Definition struct {
		ID, ParentID, PeerID string
		Meta                 Object
	}

	// Error is a thrown value of one of JavaScript's own error classes (extension 126). Ctor is the class that the receiver builds.
	Error struct {
		Ctor, Name string
		Stack      any // string, Undefined or nil
		Message    string
		Fields     Object
	}

	// TitanError is an error of the current version's own class (extension 110). The identifiers are strings or Undefined.
	TitanError struct {
		Name                                      string
		Code                                      float64
		Message                                   string
		Details, Context                          Object
		Timestamp                                 float64
		RequestID, CorrelationID, SpanID, TraceID any
		Stack, Cause, Extras                      any
	}
)

// Object is a plain JavaScript object: its members in insertion order, keys unique.
type Object []Member

// Member is a key and its value.
type Member struct {
	Key   string
	Value any
}

// Get returns the member named key; ok is false if there is none.
func (o Object) Get(key string) (v any, ok bool) {
	for _, m := range o {
		if m.Key == key {
			return m.Value, true
		}
	}
	return nil, false
}

// Equal reports whether both objects have the same members, in any order. It makes objects comparable with go-cmp.
func (o Object) Equal(p Object) bool { return Diff(o, p) == nil }

// text returns the string member named key, or "".
func (o Object) text(key string) string {
	v, _ := o.Get(key)
	s, _ := v.(string)
	return s
}

// object returns the object member named key, or nil.
func (o Object) object(key string) Object {
	v, _ := o.Get(key)
	p, _ := v.(Object)
	return p
}

// errorClasses are the constructors of extension 126 by their number on the wire.
var errorClasses = [...]string{1: "Error", 2: "SyntaxError", 3: "TypeError", 4: "ReferenceError", 5: "RangeError", 6: "EvalError", 7: "URIError"}

// mapValue returns a copy of v in which every string, wherever it stands, is replaced by f of it. Object keys stay.
func mapValue(v any, f func(string) string) any {
	switch v := v.(type) {
	case string:
		return f(v)
	case []any:
		return mapAll(v, f)
	case Set:
		return Set(mapAll(v, f))
	case Map:
		out := make(Map, len(v))
		for i, p := range v {
			out[i] = Pair{mapValue(p.Key, f), mapValue(p.Value, f)}
		}
		return out
	case Object:
		return mapObject(v, f)
	case Reference:
		return Reference{DefID: f(v.DefID)}
	case StreamRef:
		v.PeerID = f(v.PeerID)
		return v
	case *Definition:
		return &Definition{ID: f(v.ID), ParentID: f(v.ParentID), PeerID: f(v.PeerID), Meta: mapObject(v.Meta, f)}
	case *Error:
		e := *v
		e.Message, e.Stack, e.Fields = f(v.Message), mapValue(v.Stack, f), mapObject(v.Fields, f)
		return &e
	case *TitanError:
		e := *v
		e.Message = f(v.Message)
		e.Details, e.Context = mapObject(v.Details, f), mapObject(v.Context, f)
		e.Cause, e.Extras = mapValue(v.Cause, f), mapValue(v.Extras, f)
		return &e
	}
	return v
}

func mapAll(vs []any, f func(string) string) []any {
	out := make([]any, len(vs))
	for i, v := range vs {
		out[i] = mapValue(v, f)
	}
	return out
}

func mapObject(o Object, f func(string) string) Object {
	if o == nil {
		return nil
	}
	out := make(Object, len(o))
	for i, m := range o {
		out[i] = Member{m.Key, mapValue(m.Value, f)}
	}
	return out
}

// show renders v for a failure text, in one short line.
func show(v any) string {
	var b strings.Builder
	showTo(&b, v)
	const most = 300
	if s := b.String(); len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + fmt.Sprintf("... (%d bytes)", len(s))
	}
	return b.String()
}

func showTo(b *strings.Builder, v any) {
	const enough = 1 << 10
	if b.Len() > enough {
		return
	}
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case Undefined:
		b.WriteString("undefined")
	case bool:
		fmt.Fprint(b, v)
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			fmt.Fprintf(b, "%d", int64(v))
		} else {
			fmt.Fprintf(b, "%v", v)
		}
	case string:
		fmt.Fprintf(b, "%q", v[:min(len(v), enough)])
	case []byte:
		fmt.Fprintf(b, "bin(%d)%x", len(v), v[:min(len(v), 24)])
	case []any:
		showList(b, "[", v, "]")
	case Set:
		showList(b, "Set[", v, "]")
	case Map:
		b.WriteString("Map")
		for _, p := range v {
			showList(b, "(", []any{p.Key, p.Value}, ")")
		}
	case Object:
		b.WriteByte('{')
		for i, m := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(m.Key + ": ")
			showTo(b, m.Value)
		}
		b.WriteByte('}')
	case *Definition:
		fmt.Fprintf(b, "Definition(%s %s@%s)", v.ID, v.Meta.text("name"), v.Meta.text("version"))
	case *Error:
		fmt.Fprintf(b, "%s(%s: %q ", v.Ctor, v.Name, v.Message)
		showTo(b, v.Fields)
		b.WriteByte(')')
	case *TitanError:
		fmt.Fprintf(b, "TitanError(%s: %v %q)", v.Name, v.Code, v.Message)
	default:
		fmt.Fprintf(b, "%T%+v", v, v)
	}
}

func showList(b *strings.Builder, open string, vs []any, closing string) {
	b.WriteString(open)
	for i, v := range vs {
		if i > 0 {
			b.WriteString(", ")
		}
		showTo(b, v)
		if i > 40 {
			b.WriteString(", ...")
			break
		}
	}
	b.WriteString(closing)
}
