package codec_test

import (
	"bytes"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tinylib/msgp/msgp"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/codec/internal/gentest"
)

func TestGeneratedCodeIsUsedWhereItAgrees(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want string
	}{
		{gentest.AddArgs{}, "tuple"},
		{gentest.TaggedArgs{}, "tuple"},
		{gentest.Trade{}, "map"},
		{gentest.Safe{}, "map"},
		{gentest.Untagged{}, ""}, // other names
		{gentest.Plain{}, ""},    // floats and int64 as they come
		{gentest.Optional{}, ""}, // omitempty
		{gentest.WithMap{}, ""},  // may be too large
		{handWritten{}, ""},
	} {
		if got := codec.GeneratedForm(reflect.TypeOf(tt.v)); got != tt.want {
			t.Errorf("generated form of %T = %q, want %q", tt.v, got, tt.want)
		}
	}
}

// handWritten has methods that look generated and panic.
type handWritten struct {
	A string `msg:"a"`
}

func (*handWritten) MarshalMsg([]byte) ([]byte, error)   { panic("never for real") }
func (*handWritten) UnmarshalMsg([]byte) ([]byte, error) { panic("never for real") }
func (*handWritten) Msgsize() int                        { return 0 }

var (
	_ msgp.Marshaler   = (*handWritten)(nil)
	_ msgp.Unmarshaler = (*handWritten)(nil)
)

func sampleTrade() gentest.Trade {
	return gentest.Trade{
		Symbol: "X", Price: 2, Volume: 1 << 60, At: time.UnixMilli(1700000000123).UTC(), Small: 200, Tags: []string{"a", "b"},
	}
}

func TestGeneratedMapIsByteIdentical(t *testing.T) {
	in := sampleTrade()
	byCode := mustAppend(t, &in)
	byPlan := mustAppend(t, in) // not addressable: its methods cannot be called
	if !bytes.Equal(byCode, byPlan) {
		t.Errorf("Append(pointer) = %x, want %x as Append(value)", byCode, byPlan)
	}
	var out, plain gentest.Trade
	if err := codec.Unmarshal(byCode, &out); err != nil {
		t.Fatal(err)
	}
	if err := codec.DecodePlain(byCode, &plain); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("Unmarshal differs (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(in, plain); diff != "" {
		t.Errorf("Unmarshal by plan differs (-want +got):\n%s", diff)
	}
}

func TestGeneratedDecodeFallsBackToPlan(t *testing.T) {
	for _, tt := range []struct {
		name string
		src  any
		want gentest.Safe
	}{
		{"as generated", codec.Fields{{"name", "n"}, {"level", 3}, {"on", true}}, gentest.Safe{Name: "n", Level: 3, On: true}},
		{"other case", codec.Fields{{"Name", "n"}, {"LEVEL", 3}}, gentest.Safe{Name: "n", Level: 3}},
		{"unknown member", codec.Fields{{"x", []any{1}}, {"level", 3}}, gentest.Safe{Level: 3}},
		{"undefined member", codec.Fields{{"name", codec.Undefined{}}, {"level", 3}}, gentest.Safe{Level: 3}},
		{"float in an integer", codec.Fields{{"level", codec.Raw{0xcb, 0x40, 0x08, 0, 0, 0, 0, 0, 0}}}, gentest.Safe{Level: 3}},
		{"text that is not UTF-8", codec.Fields{{"name", codec.Raw{0xa1, 0xff}}}, gentest.Safe{Name: "\ufffd"}},
		{"Map", codec.Map{{"level", 3}}, gentest.Safe{Level: 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got gentest.Safe
			if err := codec.Unmarshal(mustAppend(t, tt.src), &got); err != nil || got != tt.want {
				t.Errorf("Unmarshal(%v) = %+v, %v, want %+v", tt.src, got, err, tt.want)
			}
		})
	}
	var got gentest.Safe
	err := codec.Unmarshal(mustAppend(t, codec.Fields{{"level", 300}}), &got)
	if want := "codec: level: 300 overflows uint8"; err == nil || err.Error() != want {
		t.Errorf("Unmarshal = %v, want %s", err, want)
	}
}

func TestGeneratedTuple(t *testing.T) {
	in := gentest.TaggedArgs{ID: 1 << 60, Delta: -5, Name: "n", Data: []byte{1}, Tags: []string{"x"}, OK: true}
	b, n, err := codec.AppendTuple(nil, &in)
	if err != nil || n != 6 {
		t.Fatalf("AppendTuple = %d, %v, want 6", n, err)
	}
	byPlan, _, err := codec.AppendTuple(nil, in)
	if err != nil || !bytes.Equal(b, byPlan) {
		t.Errorf("AppendTuple(pointer) = %x, want %x as of a value", b, byPlan)
	}
	b = append(b, 0x07) // of somebody else
	d := codec.NewDecoder(b, codec.Limits{})
	var out gentest.TaggedArgs
	if err := d.DecodeTuple(&out, n); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("DecodeTuple differs (-want +got):\n%s", diff)
	}
	if got := d.Rest(); !bytes.Equal(got, []byte{0x07}) {
		t.Errorf("Rest() = %x, want 07", got)
	}
}

func TestGeneratedDoesNotTrustCounts(t *testing.T) {
	// 1,000 one-byte elements are there, so the limits of the generated code
	// would accept them, but not the budget.
	src := mustAppend(t, codec.Fields{{"symbol", "s"}, {"tags", make([]string, 1000)}})
	var got gentest.Trade
	if err := codec.UnmarshalLimits(src, &got, codec.Limits{DecodedBytes: 4096}); err == nil {
		t.Errorf("Unmarshal under a budget of 4096 = %d tags, want an error", len(got.Tags))
	}
	if err := codec.UnmarshalLimits(src, &got, codec.Limits{DecodedBytes: 20000}); err != nil || len(got.Tags) != 1000 {
		t.Errorf("Unmarshal under a budget of 20000 = %d tags, %v, want 1000", len(got.Tags), err)
	}
	// More elements than generated code accepts, which the plan does.
	src = mustAppend(t, codec.Fields{{"tags", make([]string, 5000)}})
	if err := codec.Unmarshal(src, &got); err != nil || len(got.Tags) != 5000 {
		t.Errorf("Unmarshal = %d tags, %v, want 5000", len(got.Tags), err)
	}
}

func TestGeneratedTypesByThemselves(t *testing.T) {
	in := sampleTrade()
	b, err := in.MarshalMsg(nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > in.Msgsize() {
		t.Errorf("MarshalMsg wrote %d bytes, more than Msgsize() = %d", len(b), in.Msgsize())
	}
	var out gentest.Trade
	if rest, err := out.UnmarshalMsg(b); err != nil || len(rest) != 0 {
		t.Fatalf("UnmarshalMsg = %x, %v", rest, err)
	}
	if diff := cmp.Diff(in, out); diff != "" {
		t.Errorf("UnmarshalMsg differs (-want +got):\n%s", diff)
	}
}

func TestMsgpStreamMethods(t *testing.T) {
	f, i, u := codec.Float(2.5), codec.Int(-1<<40), codec.Uint(1<<63)
	at := codec.Time(time.UnixMilli(1700000000123).UTC())
	b := codec.BigInt(*bigOf(t, "123456789012345678901234567890"))
	for _, v := range []interface {
		msgp.Encodable
		msgp.Decodable
		msgp.Sizer
		msgp.Marshaler
	}{&f, &i, &u, &at, &b} {
		var buf bytes.Buffer
		if err := msgp.Encode(&buf, v); err != nil {
			t.Fatalf("EncodeMsg(%T) = %v", v, err)
		}
		want, err := v.MarshalMsg(nil)
		if err != nil || !bytes.Equal(buf.Bytes(), want) || len(want) > v.Msgsize() {
			t.Errorf("EncodeMsg(%T) = %x, want %x of at most %d bytes, %v", v, buf.Bytes(), want, v.Msgsize(), err)
		}
		if got := mustAppend(t, v); !bytes.Equal(got, want) {
			t.Errorf("Append(%T) = %x, want %x", v, got, want)
		}
		back := reflect.New(reflect.TypeOf(v).Elem())
		if err := msgp.Decode(&buf, back.Interface().(msgp.Decodable)); err != nil {
			t.Fatalf("DecodeMsg(%T) = %v", v, err)
		}
		if got := mustAppend(t, back.Interface()); !bytes.Equal(got, want) {
			t.Errorf("DecodeMsg(%T) = %x, want %x", v, got, want)
		}
	}
}
