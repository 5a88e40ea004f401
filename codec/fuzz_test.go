package codec_test

import (
	"bytes"
	"math/big"
	"slices"
	"sort"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/codec/internal/gentest"
)

func addSeeds(f *testing.F) {
	v := loadVectors(f)
	for _, x := range v.Values {
		if x.Current.Hex != "" {
			f.Add(unhex(f, x.Current.Hex))
		}
	}
	for _, x := range v.Packets {
		f.Add(x.packetPayload(f))
	}
	for _, x := range v.DecodeOnly {
		f.Add(unhex(f, x.Hex))
	}
	for _, src := range hostile() {
		if len(src) < 4096 {
			f.Add(src)
		}
	}
}

// normal returns v with all integers as *big.Int and maps as sorted pairs, so
// that values can be compared whose numbers changed their form on the way.
func normal(v any) any {
	switch v := v.(type) {
	case int64:
		return big.NewInt(v)
	case uint64:
		return new(big.Int).SetUint64(v)
	case []any:
		s := make([]any, len(v))
		for i := range v {
			s[i] = normal(v[i])
		}
		return s
	case codec.Set:
		return codec.Set(normal([]any(v)).([]any))
	case codec.Map:
		m := make(codec.Map, len(v))
		for i, p := range v {
			m[i] = codec.Pair{Key: normal(p.Key), Value: normal(p.Value)}
		}
		return m
	case codec.Fields:
		return normalFields(v)
	case map[string]any:
		var f codec.Fields
		for k, e := range v {
			f = append(f, codec.Field{Name: k, Value: normal(e)})
		}
		sort.Slice(f, func(i, j int) bool { return f[i].Name < f[j].Name })
		return f
	case *codec.Error:
		e := *v
		e.Fields = normalFields(e.Fields)
		return &e
	case *codec.TitanError:
		e := *v
		e.Details, e.Context, e.Extras = normalFields(e.Details), normalFields(e.Context), normalFields(e.Extras)
		if e.Cause != nil {
			e.Cause = normal(e.Cause).(error)
		}
		if c, ok := e.Cause.(*codec.Error); ok {
			// A cause goes out as a map, which has no kind and where these are members.
			c.Kind = codec.KindOfError
			c.Fields = slices.DeleteFunc(c.Fields, func(f codec.Field) bool {
				return slices.Contains([]string{"name", "message", "stack", "__errorType"}, f.Name)
			})
		}
		return &e
	case *codec.Definition:
		d := *v
		d.Meta.Extra = normalFields(d.Meta.Extra)
		return &d
	}
	return v
}

func normalFields(f codec.Fields) codec.Fields {
	var out codec.Fields
	for _, m := range f {
		out = append(out, codec.Field{Name: m.Name, Value: normal(m.Value)})
	}
	return out
}

const fuzzBudget = 1 << 20

// comparableDepth is how deep values may be nested to be compared with cmp, whose
// work doubles with every level.
const comparableDepth = 12

// depth returns how deep values are nested in v.
func depth(v any) int {
	deepest := 0
	look := func(inner ...any) {
		for _, e := range inner {
			deepest = max(deepest, 1+depth(e))
		}
	}
	switch v := v.(type) {
	case []any:
		look(v...)
	case codec.Set:
		look(v...)
	case map[string]any:
		for _, e := range v {
			look(e)
		}
	case codec.Map:
		for _, p := range v {
			look(p.Key, p.Value)
		}
	case codec.Fields:
		for _, f := range v {
			look(f.Value)
		}
	case *codec.Error:
		look(v.Fields)
	case *codec.TitanError:
		look(v.Details, v.Context, v.Extras, v.Cause)
	case *codec.Definition:
		look(v.Meta.Extra)
	}
	return deepest
}

// measured is allocated for one input in eight: measuring stops the world.
func measured(src []byte, f func()) int {
	if len(src)%8 != 0 {
		f()
		return 0
	}
	return allocated(f)
}

// checkAny decodes src into any, and if that works encodes and decodes again.
func checkAny(t *testing.T, src []byte) {
	before := bytes.Clone(src)
	var v any
	var err error
	if n := measured(src, func() { err = codec.UnmarshalLimits(src, &v, codec.Limits{DecodedBytes: fuzzBudget}) }); n > 2*fuzzBudget {
		t.Fatalf("Unmarshal(%x) allocates %d bytes", src, n)
	}
	if !bytes.Equal(before, src) {
		t.Fatalf("Unmarshal changes its input %x to %x", before, src)
	}
	if err != nil {
		return
	}
	d := codec.NewDecoder(src, codec.Limits{})
	if err := d.Skip(); err != nil || d.Len() > 0 {
		t.Fatalf("Skip(%x) = %v with %d left, but Unmarshal works", src, err, d.Len())
	}
	again, err := codec.Append(nil, v)
	if err != nil {
		return // such as a date before 1970, which 0.6 sends
	}
	var w any
	lim := codec.Limits{DecodedBytes: -1, Depth: -1, BigIntDigits: -1}
	if err := codec.UnmarshalLimits(again, &w, lim); err != nil {
		t.Fatalf("Unmarshal(Append(%#v)) = %v, from %x", v, err, src)
	}
	if depth(v) > comparableDepth {
		// The order of map members may differ, their length does not.
		if third, err := codec.Append(nil, w); err != nil || len(third) != len(again) {
			t.Fatalf("encoded again, %x has %d bytes, want %d (%v)", again, len(third), len(again), err)
		}
		return
	}
	if diff := cmp.Diff(normal(v), normal(w), valueOptions[:len(valueOptions)-1]); diff != "" {
		t.Fatalf("decoded again differs (-want +got), from %x:\n%s", src, diff)
	}
}

func FuzzDecodeAny(f *testing.F) {
	addSeeds(f)
	f.Fuzz(checkAny)
}

// FuzzExtension puts its bytes into an extension of each type that has a meaning.
func FuzzExtension(f *testing.F) {
	v := loadVectors(f)
	for _, x := range v.Values {
		src := unhex(f, x.Current.Hex)
		d := codec.NewDecoder(src, codec.Limits{})
		if d.PeekKind() >= codec.KindStreamReference && len(src) > 3 {
			f.Add(src[2], src[3:]) // ext8: the rest is the content
			f.Add(src[1], src[2:]) // fixext
		}
	}
	f.Fuzz(func(t *testing.T, typ byte, data []byte) {
		checkAny(t, append(codec.AppendExtHeader(nil, typ, len(data)), data...))
		checkAny(t, append(codec.AppendExtHeader(nil, 107+typ%20, len(data)), data...))
	})
}

func FuzzDecodeTyped(f *testing.F) {
	addSeeds(f)
	f.Add([]byte{0x83, 0xa4, 'n', 'a', 'm', 'e', 0xa1, 'x', 0xa5, 'l', 'e', 'v', 'e', 'l', 3, 0xa2, 'o', 'n', 0xc3})
	f.Add([]byte{0x81, 0xa4, 't', 'a', 'g', 's', 0x92, 0xa0, 0xa1, 'x'})
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, target := range []any{
			new(user), new(gentest.Trade), new(gentest.Safe), new([]gentest.Safe), new(map[string]user), new(map[any]any),
			new(map[int8][]string), new([]*big.Int), new(time.Time), new(codec.Definition), new(codec.Meta), new(error),
			new(codec.Fields), new(codec.Map), new(codec.Set), new(tree), new(list), new([3]float32), new(uint8), new(float32), new(*point),
		} {
			var err error
			n := measured(src, func() { err = codec.UnmarshalLimits(src, target, codec.Limits{DecodedBytes: fuzzBudget}) })
			if n > 2*fuzzBudget {
				t.Fatalf("Unmarshal(%x, %T) allocates %d bytes", src, target, n)
			}
			if err != nil {
				continue
			}
			if _, err := codec.Append(nil, target); err != nil {
				continue // such as a zero time
			}
		}
		var args gentest.TaggedArgs
		d := codec.NewDecoder(src, codec.Limits{DecodedBytes: fuzzBudget})
		_ = d.DecodeTuple(&args, 6)
		// Generated code and the plan agree wherever both are used.
		var byCode, byPlan gentest.Trade
		errCode := codec.Unmarshal(src, &byCode)
		errPlan := codec.DecodePlain(src, &byPlan)
		if (errCode == nil) != (errPlan == nil) {
			t.Fatalf("Unmarshal(%x) = %v, by plan %v", src, errCode, errPlan)
		}
		if errCode != nil {
			return
		}
		if diff := cmp.Diff(byPlan, byCode, valueOptions); diff != "" {
			t.Fatalf("Unmarshal(%x) differs from the plan (-plan +got):\n%s", src, diff)
		}
	})
}
