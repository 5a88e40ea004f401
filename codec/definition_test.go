package codec_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

func TestMetaIsTolerant(t *testing.T) {
	for _, tt := range []struct {
		name string
		src  any
		want codec.Meta
	}{
		{"empty", codec.Fields{}, codec.Meta{}},
		{"odd members", codec.Fields{
			{"name", 5},
			{"version", nil},
			{"properties", "none"},
			{"methods", []any{1}},
		}, codec.Meta{}},
		{"odd properties and methods", codec.Fields{
			{"properties", codec.Fields{{"a", true}, {"b", codec.Fields{{"readonly", 1}, {"type", 2}, {"more", []any{}}}}}},
			{"methods", codec.Fields{{"m", 1}, {"n", codec.Fields{{"arguments", []any{5, "T", codec.Fields{{"index", "x"}}, nil}}, {"x", 1}}}}},
		}, codec.Meta{
			Properties: []codec.Property{{Name: "a"}, {Name: "b"}},
			Methods: []codec.Method{
				{Name: "m"},
				{Name: "n", Arguments: []codec.Argument{{}, {Type: "T"}, {Indexed: true}, {}}},
			},
		}},
		{"Maps", codec.Map{
			{"name", "s"},
			{"methods", codec.Map{{"m", codec.Map{{"type", "T"}}}}},
			{"contract", codec.Undefined{}},
			{"extra", 1},
		}, codec.Meta{
			Name: "s", Methods: []codec.Method{{Name: "m", Type: "T"}},
			Extra: codec.Fields{{"contract", codec.Undefined{}}, {"extra", int64(1)}},
		}},
	} {
		var got codec.Meta
		if err := codec.Unmarshal(mustAppend(t, tt.src), &got); err != nil {
			t.Errorf("%s: Unmarshal = %v", tt.name, err)
		} else if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: Unmarshal differs (-want +got):\n%s", tt.name, diff)
		}
	}
	var m codec.Meta
	if err := codec.Unmarshal([]byte{0x90}, &m); !errors.Is(err, codec.ErrType) {
		t.Errorf("Unmarshal(array) = %v, want ErrType", err)
	}
}

func TestReferencesAsFields(t *testing.T) {
	type all struct {
		Def    *codec.Definition
		Value  codec.Definition
		Ref    codec.Reference
		Stream codec.StreamReference
		Exp    codec.RegExp
		Long   codec.Long
		Ext    codec.Ext
		Set    codec.Set
		Map    codec.Map
		Fields codec.Fields
		Undef  codec.Undefined
		Error  *codec.Error
		Titan  codec.TitanError
	}
	def := codec.Definition{ID: "i", PeerID: "p", Meta: codec.Meta{Name: "n", Methods: []codec.Method{{Name: "m"}}}}
	in := all{
		Def: &def, Value: def, Ref: codec.Reference{DefID: "r"}, Stream: codec.StreamReference{StreamID: 1<<32 - 1, Live: true},
		Exp: codec.RegExp{Source: "a", Flags: "g"}, Long: codec.Long{Bits: 5}, Ext: codec.Ext{Type: 50, Data: []byte{1, 2, 3}},
		Set: codec.Set{"x"}, Map: codec.Map{{int64(1), nil}}, Fields: codec.Fields{{"b", int64(1)}, {"a", int64(2)}},
		Error: &codec.Error{Kind: codec.KindOfRangeError, Name: "R", Message: "m", Stack: "s"},
		Titan: codec.TitanError{Name: "T", Details: codec.Fields{}, Context: codec.Fields{}},
	}
	for _, v := range []any{in, &in} {
		var out all
		if err := codec.Unmarshal(mustAppend(t, v), &out); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(in, out, valueOptions); diff != "" {
			t.Errorf("round trip of %T differs (-want +got):\n%s", v, diff)
		}
	}
}

func TestPeekKind(t *testing.T) {
	for src, want := range map[string]codec.Kind{
		"": codec.KindInvalid, "c1": codec.KindInvalid, "a2": codec.KindInvalid, "c0": codec.KindNil, "d40000": codec.KindUndefined,
		"c7010000": codec.KindUndefined, "c2": codec.KindBool, "05": codec.KindNumber, "ff": codec.KindNumber,
		"cb3ff8000000000000": codec.KindNumber, "a0": codec.KindString, "c400": codec.KindBinary, "90": codec.KindArray,
		"80": codec.KindMap, "c7006b": codec.KindStreamReference, "c7006c": codec.KindReference, "c7006d": codec.KindDefinition,
		"c7006e": codec.KindTitanError, "c70077": codec.KindLong, "c70078": codec.KindBigInt, "c70079": codec.KindRegExp,
		"c7007b": codec.KindSet, "c7007c": codec.KindMapExt, "c7007d": codec.KindTime, "c7007e": codec.KindError, "c70032": codec.KindExt,
	} {
		d := codec.NewDecoder(unhex(t, src), codec.Limits{})
		if got := d.PeekKind(); got != want {
			t.Errorf("PeekKind(%s) = %v, want %v", src, got, want)
		}
		isNil := want == codec.KindNil || want == codec.KindUndefined
		if got := d.TryNil(); got != isNil || got && d.Len() != 0 {
			t.Errorf("TryNil(%s) = %v, want %v", src, got, isNil)
		}
		if got := codec.Raw(unhex(t, src)).Kind(); got != want {
			t.Errorf("Raw(%s).Kind() = %v, want %v", src, got, want)
		}
	}
}
