package tspeer

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// cut stands for the left-out part of a value in a recording: a long string, Buffer, array or object of which only the beginning is kept.
type cut struct {
	kept  any // string, []byte, []any or Object
	total int // length, or number of elements or members
}

// unknownExt is an extension that no decoder knows, kept by the recordings to be sent.
type unknownExt struct {
	typ  int
	data []byte
}

// unsupported is a value that the encoders refuse.
type unsupported string

// parseTagged reads tagged JSON into the neutral form. Long parts that the recording cut become cut values.
func parseTagged(raw []byte) (any, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	v, err := parseJSON(dec)
	if err != nil {
		return nil, fmt.Errorf("tspeer: tagged JSON: %w", err)
	}
	return untag(v)
}

// parseJSON reads one value and keeps the order of members, which the bytes on the wire depend on.
func parseJSON(dec *json.Decoder) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		list := []any{}
		for dec.More() {
			v, err := parseJSON(dec)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = dec.Token()
		return list, err
	case json.Delim('{'):
		o := Object{}
		for dec.More() {
			key, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseJSON(dec)
			if err != nil {
				return nil, err
			}
			o = append(o, Member{key.(string), v})
		}
		_, err = dec.Token()
		return o, err
	}
	if n, ok := tok.(json.Number); ok {
		return n.Float64()
	}
	return tok, nil
}

func untag(v any) (any, error) {
	switch v := v.(type) {
	case []any:
		return untagList(v)
	case Object:
		if len(v) > 0 && strings.HasPrefix(v[0].Key, "$") && v[0].Key != "$more" {
			return untagObject(v[0].Key, v[0].Value, v)
		}
		return untagMembers(v)
	}
	return v, nil
}

func untagList(in []any) (any, error) {
	out := make([]any, 0, len(in))
	for i, e := range in {
		if o, ok := e.(Object); ok && len(o) == 1 && o[0].Key == "$more" {
			return cut{kept: out, total: i + int(o[0].Value.(float64))}, nil
		}
		x, err := untag(e)
		if err != nil {
			return nil, err
		}
		out = append(out, x)
	}
	return out, nil
}

func untagMembers(in Object) (any, error) {
	out := make(Object, 0, len(in))
	for i, m := range in {
		if m.Key == "$more" {
			return cut{kept: out, total: i + int(m.Value.(float64))}, nil
		}
		x, err := untag(m.Value)
		if err != nil {
			return nil, err
		}
		out = append(out, Member{m.Key, x})
	}
	return out, nil
}

// members returns o as an Object with its values untagged.
func members(v any) (Object, error) {
	o, ok := v.(Object)
	if !ok {
		return nil, fmt.Errorf("tspeer: tagged JSON: %s is no object", show(v))
	}
	u, err := untagMembers(o)
	if err != nil {
		return nil, err
	}
	out, _ := u.(Object)
	return out, nil
}

// untagObject converts an object whose first key is tag, with the value v.
func untagObject(tag string, v any, whole Object) (any, error) {
	switch tag {
	case "$undefined":
		return Undefined{}, nil
	case "$bigint":
		return BigInt(v.(string)), nil
	case "$number":
		return map[string]float64{"NaN": math.NaN(), "+Inf": math.Inf(1), "-Inf": math.Inf(-1), "-0": math.Copysign(0, -1)}[v.(string)], nil
	case "$bin", "$string":
		return untagBytes(tag, v.(string), whole)
	case "$repeat", "$binRepeat", "$repeatArray":
		return untagRepeat(tag, v.([]any))
	case "$date":
		if v == nil {
			return Date(0), nil // what the encoders write for an invalid date
		}
		return Date(v.(float64)), nil
	case "$regexp":
		pair := v.([]any)
		return RegExp{Source: pair[0].(string), Flags: pair[1].(string)}, nil
	case "$set":
		list, err := untag(v)
		if err != nil {
			return nil, err
		}
		return Set(list.([]any)), nil
	case "$map":
		return untagMap(v.([]any))
	case "$ext":
		pair := v.([]any)
		data, err := hex.DecodeString(pair[1].(string))
		return unknownExt{typ: int(pair[0].(float64)), data: data}, err
	case "$unsupported":
		return unsupported(v.(string)), nil
	}
	o, err := members(v)
	if err != nil {
		return nil, err
	}
	return untagRecord(tag, o)
}

func untagBytes(tag, kept string, whole Object) (any, error) {
	length, isCut := whole.Get("length")
	var v any = kept
	if tag == "$bin" {
		b, err := hex.DecodeString(kept)
		if err != nil {
			return nil, fmt.Errorf("tspeer: tagged JSON: %w", err)
		}
		v = b
	}
	if isCut {
		return cut{kept: v, total: int(length.(float64))}, nil
	}
	return v, nil
}

func untagRepeat(tag string, pair []any) (any, error) {
	n := int(pair[1].(float64))
	switch tag {
	case "$repeat":
		return strings.Repeat(pair[0].(string), n), nil
	case "$binRepeat":
		return bytes.Repeat([]byte{byte(pair[0].(float64))}, n), nil
	}
	e, err := untag(pair[0])
	if err != nil {
		return nil, err
	}
	list := make([]any, n)
	for i := range list {
		list[i] = e
	}
	return list, nil
}

func untagMap(pairs []any) (any, error) {
	out := make(Map, 0, len(pairs))
	for _, p := range pairs {
		kv, err := untag(p)
		if err != nil {
			return nil, err
		}
		pair := kv.([]any)
		out = append(out, Pair{pair[0], pair[1]})
	}
	return out, nil
}

// untagRecord converts the tags whose value is an object.
func untagRecord(tag string, o Object) (any, error) {
	get := func(key string) any { v, _ := o.Get(key); return v }
	switch tag {
	case "$reference":
		return Reference{DefID: o.text("defId")}, nil
	case "$streamReference":
		id, _ := get("streamId").(float64)
		live, _ := get("isLive").(bool)
		return StreamRef{StreamID: uint32(id), Writable: o.text("type") == "writable", Live: live, PeerID: o.text("peerId")}, nil
	case "$definition":
		return &Definition{ID: o.text("id"), ParentID: o.text("parentId"), PeerID: o.text("peerId"), Meta: o.object("meta")}, nil
	case "$long":
		unsigned, _ := get("unsigned").(bool)
		return Long{Unsigned: unsigned, Value: o.text("value")}, nil
	case "$error":
		return &Error{Ctor: o.text("ctor"), Name: o.text("name"), Stack: get("stack"), Message: o.text("message"), Fields: o.object("fields")}, nil
	case "$titanError":
		code, _ := get("code").(float64)
		stamp, _ := get("timestamp").(float64)
		return &TitanError{
			Name: o.text("name"), Code: code, Message: o.text("message"), Details: o.object("details"), Context: o.object("context"), Timestamp: stamp,
			RequestID: get("requestId"), CorrelationID: get("correlationId"), SpanID: get("spanId"), TraceID: get("traceId"),
			Stack: get("stack"), Cause: get("cause"), Extras: get("extras"),
		}, nil
	}
	return nil, fmt.Errorf("tspeer: tagged JSON: unknown tag %s", tag)
}
