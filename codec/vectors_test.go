package codec_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/d-e-v-grid/netron/codec"
)

// vectors is testdata/wire-vectors.json: bytes that the original TypeScript
// implementation produced, with the values they stand for as tagged JSON.
type vectors struct {
	Values     []vector
	Packets    []vector
	DecodeOnly []vector
}

type vector struct {
	Name    string
	Value   json.RawMessage
	Payload json.RawMessage
	Type    int
	Hex     string
	Current struct {
		Hex, HexPrefix, SHA256, Error string
		Bytes                         int
		Value                         json.RawMessage
	}
}

func loadVectors(t testing.TB) vectors {
	t.Helper()
	b, err := os.ReadFile("testdata/wire-vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// packetPayload cuts header and stream trailer off a packet.
func (v *vector) packetPayload(t testing.TB) []byte {
	b := unhex(t, v.Hex)[5:]
	if v.Type == 5 {
		b = b[:len(b)-8]
	}
	return b
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestVectorValues(t *testing.T) {
	for _, v := range loadVectors(t).Values {
		t.Run(v.Name, func(t *testing.T) {
			want := parseTagged(t, v.Value)
			if _, ok := want.(notInGo); ok {
				t.Skip("no Go value stands for it")
			}
			got, err := codec.Append(nil, want)
			if v.Current.Error != "" {
				if err == nil {
					t.Errorf("Append(%#v) = %x, want an error as the original has: %s", want, got, v.Current.Error)
				}
				return
			}
			if err != nil {
				t.Fatalf("Append(%#v) = %v", want, err)
			}
			// The 13th element of a TitanError is not part of the tagged value.
			if !strings.Contains(v.Name, "subclass extras") {
				v.checkBytes(t, got)
			} else {
				got = unhex(t, v.Current.Hex)
			}
			checkDecode(t, got, want)
		})
	}
}

func (v *vector) checkBytes(t *testing.T, got []byte) {
	t.Helper()
	if v.Current.Hex != "" {
		if s := hex.EncodeToString(got); s != v.Current.Hex {
			t.Errorf("Append(%s) = %s, want %s", v.Name, s, v.Current.Hex)
		}
		return
	}
	sum := sha256.Sum256(got)
	if len(got) != v.Current.Bytes || hex.EncodeToString(sum[:]) != v.Current.SHA256 {
		t.Errorf("Append(%s) = %d bytes starting %x, want %d starting %s", v.Name, len(got), got[:24], v.Current.Bytes, v.Current.HexPrefix)
	}
}

func TestVectorPackets(t *testing.T) {
	for _, v := range loadVectors(t).Packets {
		t.Run(v.Name, func(t *testing.T) {
			payload := v.packetPayload(t)
			want := parseTagged(t, v.Payload)
			got, err := codec.Append(nil, want)
			if err != nil {
				t.Fatalf("Append(%#v) = %v", want, err)
			}
			if !bytes.Equal(got, payload) {
				t.Errorf("Append(payload) = %x, want %x", got, payload)
			}
			checkDecode(t, payload, want)
		})
	}
}

func TestVectorDecodeOnly(t *testing.T) {
	stamp := codec.Ext{Type: 255, Data: []byte{0x65, 0x53, 0x0b, 0x80}}
	// What we make of data that the original refuses, or reads with a loss.
	special := map[string]any{
		"uint64 max":               uint64(math.MaxUint64),
		"map32":                    map[string]any{"a": int64(1)},
		"unknown ext 50":           codec.Ext{Type: 50, Data: []byte{1}},
		"msgpack timestamp ext -1": stamp,
		"error id 0":               &codec.Error{Kind: codec.KindOfError, Name: "E", Message: "x"},
		"error id 9":               &codec.Error{Kind: codec.KindOfError, Name: "E", Message: "x"},
		"map __proto__ key":        map[string]any{"__proto__": map[string]any{"a": int64(1)}},
		"never used 0xc1":          codec.ErrMalformed,
		"truncated str":            codec.ErrTruncated,
	}
	for _, v := range loadVectors(t).DecodeOnly {
		t.Run(v.Name, func(t *testing.T) {
			src := unhex(t, v.Hex)
			want, ok := special[v.Name]
			if !ok {
				want = asAny(parseTagged(t, v.Current.Value))
			}
			var got any
			err := codec.Unmarshal(src, &got)
			if wantErr, ok := want.(error); ok && v.Current.Error != "" && !isErrorValue(want) {
				if !errors.Is(err, wantErr) {
					t.Errorf("Unmarshal(%x) = %v, want %v", src, err, wantErr)
				}
				return
			}
			if err != nil {
				t.Fatalf("Unmarshal(%x) = %v", src, err)
			}
			if diff := cmp.Diff(want, got, valueOptions...); diff != "" {
				t.Errorf("Unmarshal(%x) differs (-want +got):\n%s", src, diff)
			}
		})
	}
}

func isErrorValue(v any) bool {
	_, ok := v.(*codec.Error)
	return ok
}

// checkDecode decodes src into any, compares, and encodes the result again.
func checkDecode(t *testing.T, src []byte, want any) {
	t.Helper()
	var got any
	if err := codec.Unmarshal(src, &got); err != nil {
		t.Fatalf("Unmarshal(%x) = %v", src, err)
	}
	if diff := cmp.Diff(asAny(want), got, valueOptions...); diff != "" {
		t.Errorf("Unmarshal(%x) differs (-want +got):\n%s", src, diff)
	}
	if isOrdered(want) {
		if again := mustAppend(t, got); !bytes.Equal(again, src) {
			t.Errorf("Append(Unmarshal(%x)) = %x, want the same bytes", src, again)
		}
	}
	d := codec.NewDecoder(src, codec.Limits{})
	raw, err := d.Raw()
	if err != nil || !bytes.Equal(raw, src) || d.End() != nil {
		t.Errorf("Raw() = %x, %v, want all of %x", []byte(raw), err, src)
	}
	if again := mustAppend(t, raw); !bytes.Equal(again, src) {
		t.Errorf("Append(Raw) = %x, want %x", again, src)
	}
}

var valueOptions = cmp.Options{
	cmp.Comparer(func(a, b *big.Int) bool { return a.Cmp(b) == 0 }),
	cmp.Comparer(func(a, b time.Time) bool { return a.Equal(b) }),
	cmpopts.EquateNaNs(),
	cmpopts.EquateEmpty(),
	cmpopts.IgnoreFields(codec.TitanError{}, "Extras"),
}

// isOrdered says whether the bytes of v do not depend on the order of Go maps,
// and v holds nothing that decodes as something else.
func isOrdered(v any) bool {
	switch v := v.(type) {
	case codec.Undefined:
		return false
	case codec.Fields:
		return len(v) == 0 || len(v) == 1 && isOrdered(v[0].Value)
	case []any:
		for _, e := range v {
			if !isOrdered(e) {
				return false
			}
		}
	case codec.Set:
		return isOrdered([]any(v))
	case codec.Map:
		for _, p := range v {
			if !isOrdered(p.Key) || !isOrdered(p.Value) {
				return false
			}
		}
	case *codec.Error:
		for _, f := range v.Fields {
			if !isOrdered(f.Value) {
				return false
			}
		}
	}
	return true
}

// asAny returns v as [codec.Decoder.Any] would decode it.
func asAny(v any) any {
	switch v := v.(type) {
	case codec.Undefined:
		return nil
	case codec.Fields:
		m := map[string]any{}
		for _, f := range v {
			m[f.Name] = asAny(f.Value)
		}
		return m
	case []any:
		s := make([]any, len(v))
		for i := range v {
			s[i] = asAny(v[i])
		}
		return s
	case codec.Set:
		return codec.Set(asAny([]any(v)).([]any))
	case codec.Map:
		m := make(codec.Map, len(v))
		for i, p := range v {
			m[i] = codec.Pair{Key: asAny(p.Key), Value: asAny(p.Value)}
		}
		return m
	case *codec.Error:
		e := *v
		e.Fields = nil
		for _, f := range v.Fields {
			e.Fields = append(e.Fields, codec.Field{Name: f.Name, Value: asAny(f.Value)})
		}
		return &e
	case float64:
		if v == math.Trunc(v) && math.Abs(v) <= 1<<53 {
			return int64(v)
		}
	}
	return v
}

// notInGo stands for JavaScript values that no Go value stands for.
type notInGo string

// parseTagged reads tagged JSON, keeping the order of members, as Go values.
func parseTagged(t testing.TB, raw json.RawMessage) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	v, err := parseJSON(dec)
	if err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("parse %s: %v", raw, err)
	}
	return untag(t, v)
}

func parseJSON(dec *json.Decoder) (any, error) {
	tok, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch tok {
	case json.Delim('['):
		s := []any{}
		for dec.More() {
			v, err := parseJSON(dec)
			if err != nil {
				return nil, err
			}
			s = append(s, v)
		}
		_, err = dec.Token()
		return s, err
	case json.Delim('{'):
		f := codec.Fields{}
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return nil, err
			}
			v, err := parseJSON(dec)
			if err != nil {
				return nil, err
			}
			f = append(f, codec.Field{Name: name.(string), Value: v})
		}
		_, err = dec.Token()
		return f, err
	}
	return tok, nil
}

func untag(t testing.TB, v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := v.Int64(); err == nil {
			return i
		}
		f, err := v.Float64()
		if err != nil {
			t.Fatal(err)
		}
		return f
	case []any:
		s := make([]any, len(v))
		for i := range v {
			s[i] = untag(t, v[i])
		}
		return s
	case codec.Fields:
		if len(v) == 1 && strings.HasPrefix(v[0].Name, "$") {
			return untagOne(t, v[0].Name, v[0].Value)
		}
		f := make(codec.Fields, len(v))
		for i := range v {
			f[i] = codec.Field{Name: v[i].Name, Value: untag(t, v[i].Value)}
		}
		return f
	}
	return v
}

func untagOne(t testing.TB, tag string, v any) any {
	t.Helper()
	switch tag {
	case "$undefined":
		return codec.Undefined{}
	case "$bigint":
		b, _ := new(big.Int).SetString(v.(string), 10)
		return b
	case "$bin":
		return unhex(t, v.(string))
	case "$date":
		if v == nil {
			return time.UnixMilli(0).UTC()
		}
		return time.UnixMilli(untag(t, v).(int64)).UTC()
	case "$map":
		m := codec.Map{}
		for _, p := range v.([]any) {
			p := untag(t, p).([]any)
			m = append(m, codec.Pair{Key: p[0], Value: p[1]})
		}
		return m
	case "$set":
		return codec.Set(untag(t, v).([]any))
	case "$regexp":
		s := v.([]any)
		return codec.RegExp{Source: s[0].(string), Flags: s[1].(string)}
	case "$number":
		switch v {
		case "NaN":
			return math.NaN()
		case "+Inf":
			return math.Inf(1)
		case "-Inf":
			return math.Inf(-1)
		}
		return math.Copysign(0, -1)
	case "$repeat":
		s := v.([]any)
		return strings.Repeat(s[0].(string), int(untag(t, s[1]).(int64)))
	case "$binRepeat":
		s := untag(t, v).([]any)
		return bytes.Repeat([]byte{byte(s[0].(int64))}, int(s[1].(int64)))
	case "$repeatArray":
		s := untag(t, v).([]any)
		a := make([]any, s[1].(int64))
		for i := range a {
			a[i] = s[0]
		}
		return a
	case "$unsupported":
		return notInGo(v.(string))
	}
	f, ok := untag(t, v).(codec.Fields)
	if !ok {
		t.Fatalf("unknown tag %s", tag)
	}
	return untagStruct(t, tag, f)
}

func str(f codec.Fields, name string) string {
	v, _ := f.Get(name)
	s, _ := v.(string)
	return s
}

func fieldsOf(f codec.Fields, name string) codec.Fields {
	v, _ := f.Get(name)
	g, _ := v.(codec.Fields)
	return g
}

func untagStruct(t testing.TB, tag string, f codec.Fields) any {
	t.Helper()
	switch tag {
	case "$error":
		kinds := map[string]codec.ErrorKind{
			"Error": codec.KindOfError, "SyntaxError": codec.KindOfSyntaxError, "TypeError": codec.KindOfTypeError,
			"ReferenceError": codec.KindOfReferenceError, "RangeError": codec.KindOfRangeError,
			"EvalError": codec.KindOfEvalError, "URIError": codec.KindOfURIError,
		}
		return &codec.Error{
			Kind: kinds[str(f, "ctor")], Name: str(f, "name"), Message: str(f, "message"),
			Stack: str(f, "stack"), Fields: fieldsOf(f, "fields"),
		}
	case "$map_object":
		return &codec.Error{Kind: codec.KindOfError, Name: str(f, "name"), Message: str(f, "message"), Stack: str(f, "stack")}
	case "$titanError":
		code, _ := f.Get("code")
		ms, _ := f.Get("timestamp")
		cause, _ := f.Get("cause")
		e := &codec.TitanError{
			Name: str(f, "name"), Code: int(code.(int64)), Message: str(f, "message"),
			Details: fieldsOf(f, "details"), Context: fieldsOf(f, "context"),
			Timestamp: time.UnixMilli(ms.(int64)).UTC(), RequestID: str(f, "requestId"),
			CorrelationID: str(f, "correlationId"), SpanID: str(f, "spanId"), TraceID: str(f, "traceId"),
		}
		if cause, ok := cause.(error); ok {
			e.Cause = cause
		}
		return e
	case "$long":
		unsigned, _ := f.Get("unsigned")
		l := codec.Long{Unsigned: unsigned.(bool)}
		var err error
		if l.Unsigned {
			l.Bits, err = strconv.ParseUint(str(f, "value"), 10, 64)
		} else {
			var i int64
			i, err = strconv.ParseInt(str(f, "value"), 10, 64)
			l.Bits = uint64(i)
		}
		if err != nil {
			t.Fatal(err)
		}
		return l
	case "$reference":
		return codec.Reference{DefID: str(f, "defId")}
	case "$streamReference":
		id, _ := f.Get("streamId")
		live, _ := f.Get("isLive")
		return codec.StreamReference{
			StreamID: uint32(id.(int64)), Writable: str(f, "type") == "writable", Live: live.(bool), PeerID: str(f, "peerId"),
		}
	case "$definition":
		return &codec.Definition{
			ID: str(f, "id"), ParentID: str(f, "parentId"), PeerID: str(f, "peerId"), Meta: metaOf(fieldsOf(f, "meta")),
		}
	}
	t.Fatalf("unknown tag %s", tag)
	return nil
}

func metaOf(f codec.Fields) codec.Meta {
	m := codec.Meta{Name: str(f, "name"), Version: str(f, "version")}
	for _, p := range fieldsOf(f, "properties") {
		readonly, _ := p.Value.(codec.Fields).Get("readonly")
		m.Properties = append(m.Properties, codec.Property{Name: p.Name, Type: str(p.Value.(codec.Fields), "type"), Readonly: readonly.(bool)})
	}
	for _, p := range fieldsOf(f, "methods") {
		method := codec.Method{Name: p.Name, Type: str(p.Value.(codec.Fields), "type")}
		args, _ := p.Value.(codec.Fields).Get("arguments")
		for _, a := range args.([]any) {
			switch a := a.(type) {
			case string:
				method.Arguments = append(method.Arguments, codec.Argument{Type: a})
			case codec.Fields:
				i, _ := a.Get("index")
				method.Arguments = append(method.Arguments, codec.Argument{Type: str(a, "type"), Indexed: true, Index: int(i.(int64))})
			default:
				panic(fmt.Sprintf("argument %v", a))
			}
		}
		m.Methods = append(m.Methods, method)
	}
	for _, x := range f {
		switch x.Name {
		case "name", "version", "properties", "methods":
		default:
			m.Extra = append(m.Extra, x)
		}
	}
	return m
}
