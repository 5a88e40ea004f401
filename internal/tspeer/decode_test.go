package tspeer

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

//go:embed testdata/vectors.json.gz
var vectors []byte

// vectorFile holds values and packets with the bytes of the original encoders, and the verdicts of its decoder.
type vectorFile struct {
	Values []struct {
		Name      string
		Value     json.RawMessage
		Current   encoded
		V06       json.RawMessage // an encoded, "same", or "not in 0.6"
		DecodesTo json.RawMessage
	}
	Packets []struct {
		Name                 string
		ID                   uint32
		Type, Impulse, Error int
		EOS, Live            bool
		Payload              json.RawMessage
		StreamID             uint32
		StreamIndex          uint32
		Hex                  string
		V06                  string
	}
	DecodeOnly, DecodeOnlyPackets []struct {
		Name, Hex string
		Current   struct {
			Value json.RawMessage
			Error string
		}
	}
}

// encoded is what an encoder makes of a value.
type encoded struct {
	Hex, HexPrefix, SHA256, Error string
	Bytes                         int
}

func (e encoded) matches(p []byte) bool {
	if e.SHA256 != "" {
		sum := sha256.Sum256(p)
		return hex.EncodeToString(sum[:]) == e.SHA256
	}
	return hex.EncodeToString(p) == e.Hex
}

func loadVectors(t *testing.T) *vectorFile {
	t.Helper()
	raw, err := unzip(vectors)
	if err != nil {
		t.Fatal(err)
	}
	var f vectorFile
	if err := json.Unmarshal(raw, &f); err != nil {
		t.Fatal(err)
	}
	return &f
}

// unhex decodes hex digits.
func unhex(t *testing.T, s string) []byte {
	t.Helper()
	p, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func tagged(t *testing.T, raw json.RawMessage) any {
	t.Helper()
	v, err := parseTagged(raw)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// same compares with go-cmp, so that Diff itself is not its own judge.
func same(got, want any) string { return cmp.Diff(want, got, cmpopts.EquateNaNs()) }

func TestValueVectors(t *testing.T) {
	for _, v := range loadVectors(t).Values {
		t.Run(v.Name, func(t *testing.T) {
			if v.Current.Error != "" {
				t.Skip("the original cannot encode it")
			}
			value := tagged(t, v.Value)
			enc := AppendValue(nil, Current, value)
			if !v.Current.matches(enc) {
				t.Errorf("AppendValue(%s) = %.100x, want %+v", show(value), enc, v.Current)
			}
			got, err := DecodeValue(Current, enc)
			if err != nil {
				t.Fatalf("DecodeValue(%.100x) = %v, want nil", enc, err)
			}
			want := value
			if v.DecodesTo != nil && string(v.DecodesTo) != `"equal"` {
				want = tagged(t, v.DecodesTo)
			}
			if diff := same(got, want); diff != "" {
				t.Errorf("DecodeValue(%.100x) differs (-want +got):\n%s", enc, diff)
			}
		})
	}
}

func TestValueVectors06(t *testing.T) {
	for _, v := range loadVectors(t).Values {
		t.Run(v.Name, func(t *testing.T) {
			want := v.Current
			if err := json.Unmarshal(v.V06, &want); err != nil && string(v.V06) != `"same"` {
				t.Skip("not in 0.6")
			}
			if want.Error != "" {
				t.Skip("0.6 cannot encode it")
			}
			value := tagged(t, v.Value)
			enc := AppendValue(nil, V06, value)
			if !want.matches(enc) {
				t.Fatalf("AppendValue(V06, %s) = %.100x, want %+v", show(value), enc, want)
			}
			got, err := DecodeValue(V06, enc)
			if ms, isDate := value.(Date); isDate && ms < 0 { // it arrives as an invalid date
				wantRule(t, err, RuleDate)
				return
			}
			if err != nil {
				t.Fatalf("DecodeValue(V06, %.100x) = %v, want nil", enc, err)
			}
			if v.DecodesTo != nil && string(v.DecodesTo) != `"equal"` {
				value = tagged(t, v.DecodesTo)
			}
			if diff := same(got, value); diff != "" {
				t.Errorf("DecodeValue(V06, %.100x) differs (-want +got):\n%s", enc, diff)
			}
		})
	}
}

func TestPacketVectors(t *testing.T) {
	for _, v := range loadVectors(t).Packets {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			want := &Packet{
				ID: v.ID, Type: v.Type, Impulse: v.Impulse == 1, Error: v.Error == 1, EOS: v.EOS, Live: v.Live,
				Payload: tagged(t, v.Payload), StreamID: v.StreamID, Index: v.StreamIndex,
			}
			got, err := Decode(Current, raw)
			if err != nil {
				t.Fatalf("Decode(%x) = %v, want nil", raw, err)
			}
			if diff := same(got, want); diff != "" {
				t.Errorf("Decode(%x) differs (-want +got):\n%s", raw, diff)
			}
			if err := Check(got); err != nil {
				t.Errorf("Check(%v) = %v, want nil", got, err)
			}
			if enc := want.AppendTo(nil, Current); !bytes.Equal(enc, raw) {
				t.Errorf("AppendTo(%v) = %x, want %x", want, enc, raw)
			}
			_, err = Decode(V06, raw)
			if refused := v.Type == TypePing || v.Type == TypeStreamClose || bytes.Contains(raw, []byte("TitanError")); refused != (err != nil) {
				t.Errorf("Decode(V06, %x) = %v, want an error: %v", raw, err, refused)
			}
		})
	}
}

// stricter names what this decoder refuses although the original's takes it.
var stricter = map[string]Rule{"map with int key": RuleKey, "map __proto__ key": RuleProto, "type 8": RuleType}

func TestDecoderVerdicts(t *testing.T) {
	f := loadVectors(t)
	for _, v := range f.DecodeOnly {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			got, err := DecodeValue(Current, raw)
			if rule, ok := stricter[v.Name]; ok {
				wantRule(t, err, rule)
				return
			}
			if v.Current.Error != "" {
				if err == nil {
					t.Errorf("DecodeValue(%x) = %s, want an error (%s)", raw, show(got), v.Current.Error)
				}
				return
			}
			if err != nil {
				t.Fatalf("DecodeValue(%x) = %v, want nil", raw, err)
			}
			if diff := same(got, tagged(t, v.Current.Value)); diff != "" {
				t.Errorf("DecodeValue(%x) differs (-want +got):\n%s", raw, diff)
			}
		})
	}
	for _, v := range f.DecodeOnlyPackets {
		t.Run(v.Name, func(t *testing.T) {
			raw := unhex(t, v.Hex)
			_, err := Decode(Current, raw)
			if rule, ok := stricter[v.Name]; ok {
				wantRule(t, err, rule)
			} else if err == nil {
				t.Errorf("Decode(%x) = nil, want an error (%s)", raw, v.Current.Error)
			}
		})
	}
}

// wantRule fails the test unless err wraps a *Violation of the rule.
func wantRule(t *testing.T, err error, want Rule) {
	t.Helper()
	if v, ok := errors.AsType[*Violation](err); !ok {
		t.Errorf("error %v, want a violation of %q", err, want)
	} else if v.Rule != want {
		t.Errorf("%v, want a violation of %q", err, want)
	}
}

func TestDecodeRules(t *testing.T) {
	titan := func(values string) string { // extension 110 with the data
		data := unhex(t, values)
		return hex.EncodeToString(append(appendExtHeader(nil, len(data), 110), data...))
	}
	const titanHead = "a161 cd0194 a16d 80 80 00 d40000 d40000 d40000 d40000"
	ext := func(typ byte, data string) string {
		p := unhex(t, data)
		return hex.EncodeToString(append(appendExtHeader(nil, len(p), typ), p...))
	}
	const meta = "84 a46e616d65 a161 a776657273696f6e a0 aa70726f70657274696573 80 a76d6574686f6473 80"
	for _, tt := range []struct {
		name, value string
		want        Rule
	}{
		{"nothing", "", RuleTruncated},
		{"c1", "c1", RuleC1},
		{"c1 inside", "92c0c1", RuleC1},
		{"map32", "df00000001a16101", RuleMap32},
		{"integer key", "8101a161", RuleKey},
		{"nil key", "81c0a161", RuleKey},
		{"undefined key", "81d40000a161", RuleKey},
		{"key twice", "82a16101a16102", RuleDuplicateKey},
		{"__proto__", "81a95f5f70726f746f5f5f01", RuleProto},
		{"string", "a2c328", RuleUTF8},
		{"surrogate", "a3eda080", RuleUTF8},
		{"key", "81a1ff01", RuleUTF8},
		{"short string", "a361", RuleTruncated},
		{"short bin", "c40500", RuleTruncated},
		{"short bin header", "c600", RuleTruncated},
		{"short array", "93c0", RuleTruncated},
		{"huge array", "ddffffffff", RuleTruncated},
		{"short map", "82a16101", RuleTruncated},
		{"short double", "cb00", RuleTruncated},
		{"short ext", "c70578", RuleTruncated},
		{"depth", strings.Repeat("91", maxDepth) + "c0", RuleDepth},
		{"trailing", "c0c0", RuleTrailing},
		{"user extension", "d40101", RuleExtType},
		{"reserved extension", "d46401", RuleExtType},
		{"timestamp", "d6ff65530b80", RuleExtType},
		{"extension 122", "d47a00", RuleExtType},
		{"extension longer than its content", ext(120, "a13101"), RuleExtLength},
		{"extension shorter than its content", ext(120, "a231"), RuleExtLength},
		{"set with fewer values", ext(123, "00000002c0"), RuleExtLength},
		{"set with more values", ext(123, "00000001c0c0"), RuleExtLength},
		{"map with half a pair", ext(124, "00000001c0"), RuleExtLength},
		{"set without a count", ext(123, "0000"), RuleExtLength},
		{"undefined with 1", "d40001", RuleUndefined},
		{"undefined of two bytes", "d5000000", RuleUndefined},
		{"stream id as a number", ext(107, "010100a0"), RuleStreamRef},
		{"stream id 0", ext(107, "a1300100a0"), RuleStreamRef},
		{"stream id with a zero ahead", ext(107, "a230310100a0"), RuleStreamRef},
		{"stream id over 32 bits", ext(107, "aa"+hex.EncodeToString([]byte("4294967296"))+"0100a0"), RuleStreamRef},
		{"stream direction", ext(107, "a1310200a0"), RuleStreamRef},
		{"stream peer", ext(107, "a1310100c0"), RuleStreamRef},
		{"empty reference", ext(108, "a0"), RuleReference},
		{"numeric reference", ext(108, "01"), RuleReference},
		{"definition without metadata", ext(109, "a161a0a0c0"), RuleDefinition},
		{"definition with a number as id", ext(109, "01a0a0"+meta), RuleDefinition},
		{"definition without id", ext(109, "a0a0a0"+meta), RuleDefinition},
		{"definition with a null parent", ext(109, "a161c0a0"+meta), RuleDefinition},
		{"definition without methods", ext(109, "a161a0a0 83 a46e616d65 a161 a776657273696f6e a0 aa70726f70657274696573 80"), RuleDefinition},
		{"definition with a method that is no map", ext(109, "a161a0a0 84 a46e616d65 a161 a776657273696f6e a0 aa70726f70657274696573 80 a76d6574686f6473 81a161c3"), RuleDefinition},
		{"definition with a property without readonly", ext(109, "a161a0a0 84 a46e616d65 a161 a776657273696f6e a0 aa70726f70657274696573 81a16180 a76d6574686f6473 80"), RuleDefinition},
		{"definition without a version", ext(109, "a161a0a0 84 a46e616d65 a161 a776657273696f6e c0 aa70726f70657274696573 80 a76d6574686f6473 80"), RuleDefinition},
		{"titan of 12", titan(titanHead + "c0 c0"), RuleTitan},
		{"titan of none", "c7006e", RuleTitan},
		{"titan of 14", titan(titanHead + "c0 c0 c0 c0"), RuleExtLength},
		{"titan with a text code", titan("a161 a161 a16d 80 80 00 d40000 d40000 d40000 d40000 c0 c0 c0"), RuleTitan},
		{"titan without details", titan("a161 cd0194 a16d c0 80 00 d40000 d40000 d40000 d40000 c0 c0 c0"), RuleTitan},
		{"titan with a null id", titan("a161 cd0194 a16d 80 80 00 c0 d40000 d40000 d40000 c0 c0 c0"), RuleTitan},
		{"titan with a number as stack", titan(titanHead + "01 c0 c0"), RuleTitan},
		{"titan with a number as cause", titan(titanHead + "c0 01 c0"), RuleTitan},
		{"titan with a number as extras", titan(titanHead + "c0 c0 01"), RuleTitan},
		{"long of 8 bytes", ext(119, "0000000000000000"), RuleLong},
		{"long with flag 2", ext(119, "020000000000000000"), RuleLong},
		{"bigint hex", ext(120, "a4"+hex.EncodeToString([]byte("0x1f"))), RuleBigInt},
		{"bigint empty", ext(120, "a0"), RuleBigInt},
		{"bigint sign", ext(120, "a12d"), RuleBigInt},
		{"bigint exponent", ext(120, "a3"+hex.EncodeToString([]byte("1e3"))), RuleBigInt},
		{"bigint number", ext(120, "01"), RuleBigInt},
		{"regexp flags", ext(121, "a161a178"), RuleRegExp},
		{"regexp flag twice", ext(121, "a161a26969"), RuleRegExp},
		{"regexp without flags", ext(121, "a161"), RuleExtLength},
		{"date before 1970", "d77dfffffffffffffc18", RuleDate},
		{"date after the last", "d77d001eb208c2dc0001", RuleDate},
		{"date of 4 bytes", "d67d00000000", RuleExtLength},
		{"error 0", ext(126, "0000a145c0a1780000"), RuleErrorID},
		{"error 8", ext(126, "0008a145c0a1780000"), RuleErrorID},
		{"error without a message", ext(126, "0001a145c0c00000"), RuleError},
		{"error with a number as stack", ext(126, "0001a14501a1780000"), RuleError},
		{"error with a numbered field", ext(126, "0001a145c0a17800010101"), RuleError},
		{"error with a field too few", ext(126, "0001a145c0a1780001"), RuleExtLength},
		{"error with __proto__", ext(126, "0001a145c0a1780001a95f5f70726f746f5f5f01"), RuleProto},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := DecodeValue(Current, unhex(t, tt.value))
			if err == nil {
				t.Fatalf("DecodeValue(%s) = %s, want a violation of %q", tt.value, show(v), tt.want)
			}
			wantRule(t, err, tt.want)
		})
	}
	if _, err := DecodeValue(V06, unhex(t, titan(titanHead+"c0 c0 c0"))); err == nil {
		t.Error("DecodeValue(V06, extension 110) = nil, want an error")
	} else {
		wantRule(t, err, RuleTitan06)
	}
}

func TestPacketRules(t *testing.T) {
	for _, tt := range []struct {
		name    string
		dialect Dialect
		packet  string
		want    Rule
	}{
		{"empty", Current, "", RuleShort},
		{"no payload", Current, "0000000143", RuleShort},
		{"stream without metadata", Current, "0000000145c0", RuleShort},
		{"type 8", Current, "0000000148c0", RuleType},
		{"type 15", Current, "000000014fc0", RuleType},
		{"flag bit 4 on a call", Current, "0000000153c0", RuleEOSFlag},
		{"live call", Current, "0000000163c0", RuleLiveFlag},
		{"error on a request", Current, "00000001c3c0", RuleErrorFlag},
		{"error on a stream", Current, "0000000185c00000000100000000", RuleErrorFlag},
		{"error on a pong", Current, "0000000180c0", RuleErrorFlag},
		{"stream without impulse", Current, "0000000105c00000000100000000", RuleImpulse},
		{"stream error without impulse", Current, "0000000106c0", RuleImpulse},
		{"trailing bytes", Current, "0000000103c000", RuleTrailing},
		{"trailing bytes of a stream", Current, "0000000145c0000000010000000000", RuleTrailing},
		{"payload", Current, "0000000103c1", RuleC1},
		{"ping to 0.6", V06, "0000000140c0", RulePing06},
		{"close to 0.6", V06, "000000014782a873747265616d496401a6726561736f6ea0", RuleClose06},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := Decode(tt.dialect, unhex(t, tt.packet))
			if err == nil {
				t.Fatalf("Decode(%s) = %v, want a violation of %q", tt.packet, p, tt.want)
			}
			wantRule(t, err, tt.want)
		})
	}
	_, err := Decode(Current, make([]byte, maxPacketBytes+1))
	wantRule(t, err, RuleSize)
}

func TestCheckRules(t *testing.T) {
	const id = "550e8400-e29b-41d4-a716-446655440000"
	req := func(typ int, payload any) *Packet { return &Packet{ID: 1, Type: typ, Impulse: true, Payload: payload} }
	for _, tt := range []struct {
		name string
		p    *Packet
		want Rule // "" for none
	}{
		{"call", req(TypeCall, []any{id, "add", 1.0}), ""},
		{"call by name", req(TypeCall, []any{"calculator@1.0.0", "add"}), ""},
		{"error response", &Packet{Type: TypeCall, Error: true, Payload: "why"}, ""},
		{"map", req(TypeCall, Object{{"defId", id}}), RulePayload},
		{"call without a method", req(TypeCall, []any{id}), RulePayload},
		{"call of a number", req(TypeCall, []any{id, 1.0}), RulePayload},
		{"bad definition id", req(TypeCall, []any{"not an id!", "add"}), RulePayload},
		{"name with dots", req(TypeCall, []any{"a.b@1.0.0", "add"}), RulePayload},
		{"bad member name", req(TypeGet, []any{id, "bad name"}), RulePayload},
		{"long member name", req(TypeGet, []any{id, strings.Repeat("a", 256)}), RulePayload},
		{"get with a value", req(TypeGet, []any{id, "a", 1.0}), RulePayload},
		{"set without a value", req(TypeSet, []any{id, "a"}), RulePayload},
		{"task without a name", req(TypeTask, []any{}), RulePayload},
		{"task with a number", req(TypeTask, []any{1.0}), RulePayload},
		{"chunk", &Packet{Type: TypeStream, Impulse: true, Payload: 1.0, StreamID: 1}, ""},
		{"null chunk", &Packet{Type: TypeStream, Impulse: true, StreamID: 1}, RuleChunk},
		{"undefined chunk", &Packet{Type: TypeStream, Impulse: true, Payload: Undefined{}, StreamID: 1}, RuleChunk},
		{"end", &Packet{Type: TypeStream, Impulse: true, EOS: true, StreamID: 1}, ""},
		{"stream 0", &Packet{Type: TypeStream, Impulse: true, EOS: true}, RuleChunk},
		{"stream error", req(TypeStreamError, Object{{"streamId", 1.0}, {"message", "boom"}}), ""},
		{"stream error without a message", req(TypeStreamError, Object{{"streamId", 1.0}}), RuleChunk},
		{"stream close without an id", req(TypeStreamClose, Object{{"reason", "x"}}), RuleChunk},
		{"stream close of a name", req(TypeStreamClose, Object{{"streamId", "1"}, {"reason", "x"}}), RuleChunk},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Check(tt.p)
			if tt.want != "" {
				wantRule(t, err, tt.want)
			} else if err != nil {
				t.Errorf("Check(%v) = %v, want nil", tt.p, err)
			}
		})
	}
}

// Every recorded packet decodes to what the recording says, and encodes to the same bytes again.
func TestRecordedPackets(t *testing.T) {
	for _, c := range loadAll(t) {
		for i := range c.entries {
			e := &c.entries[i]
			if e.Hex == "" || e.Packet == nil || e.Packet.Undecodable != "" || e.Packet.Trailing != "" {
				continue
			}
			want, err := e.Packet.packet()
			if err != nil {
				t.Fatalf("%v: packet %d: %v", c, i, err)
			}
			if _, unknown := find(want.Payload); unknown || want.Type > TypeStreamClose {
				continue
			}
			raw := unhex(t, e.Hex)
			got, err := Decode(Current, raw)
			if err != nil {
				t.Errorf("%v: Decode(%x) = %v, want nil", c, raw, err)
				continue
			}
			if diff := same(got, want); diff != "" {
				t.Errorf("%v: Decode(%x) differs (-want +got):\n%s", c, raw, diff)
			}
			if enc := got.AppendTo(nil, Current); !bytes.Equal(enc, raw) {
				t.Errorf("%v: AppendTo(%v) = %x, want %x", c, got, enc, raw)
			}
		}
	}
}

// find reports whether v contains an extension that no decoder knows.
func find(v any) (ext unknownExt, ok bool) {
	switch v := v.(type) {
	case unknownExt:
		return v, true
	case []any:
		for _, e := range v {
			if ext, ok = find(e); ok {
				return ext, true
			}
		}
	}
	return ext, false
}
