package codec_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

func TestAppendValue(t *testing.T) {
	if got, err := codec.AppendValue([]byte{1}, reflect.Value{}); err != nil || !bytes.Equal(got, []byte{1, 0xc0}) {
		t.Errorf("AppendValue(zero Value) = %x, %v, want 01c0", got, err)
	}
	for _, v := range []any{5, "x", []byte{1}, []string{"a"}, []float64{1.5}, map[string]any{"a": 1}, [2]int{1, 2}, codec.Raw{1}} {
		want := mustAppend(t, v)
		got, err := codec.AppendValue(nil, reflect.ValueOf(v))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("AppendValue(%v) = %x, %v, want %x", v, got, err, want)
		}
		p := reflect.New(reflect.TypeOf(v))
		p.Elem().Set(reflect.ValueOf(v))
		if got := mustAppend(t, p.Interface()); !bytes.Equal(got, want) {
			t.Errorf("Append(*%T) = %x, want %x", v, got, want)
		}
	}
	if got, err := codec.AppendValue([]byte{1}, reflect.ValueOf(func() {})); !errors.Is(err, codec.ErrUnsupported) || len(got) != 1 {
		t.Errorf("AppendValue(func) = %x, %v, want ErrUnsupported", got, err)
	}
}

func TestByteArrays(t *testing.T) {
	var big [70000]byte
	var medium [300]byte
	big[69999], medium[299] = 7, 7
	for _, tt := range []struct{ value, pointer any }{{big, &big}, {medium, &medium}, {[2]byte{1, 2}, &[2]byte{1, 2}}} {
		b := mustAppend(t, tt.value)
		if again := mustAppend(t, tt.pointer); !bytes.Equal(b, again) {
			t.Errorf("Append(%T) = %x..., want %x... as of the value", tt.pointer, again[:5], b[:5])
		}
		out := reflect.New(reflect.TypeOf(tt.value))
		if err := codec.Unmarshal(b, out.Interface()); err != nil || out.Elem().Interface() != tt.value {
			t.Errorf("Unmarshal(%T) = %v, want the same bytes", tt.value, err)
		}
	}
}

func TestTypedKeys(t *testing.T) {
	src := mustAppend(t, codec.Fields{{"1", 1}, {"0", 2}})
	var u map[uint8]int
	var f map[float64]int
	var b map[bool]int
	for _, target := range []any{&u, &f, &b} {
		if err := codec.Unmarshal(src, target); err != nil {
			t.Errorf("Unmarshal(%T) = %v", target, err)
		}
	}
	if u[1] != 1 || f[0] != 2 || !reflect.DeepEqual(b, map[bool]int{true: 1, false: 2}) {
		t.Errorf("Unmarshal = %v, %v, %v, want the keys 1 and 0", u, f, b)
	}
	for _, target := range []any{new(map[uint8]int), new(map[int]int), new(map[float32]int), new(map[bool]int), new(map[[2]int]int)} {
		for _, key := range []string{"x", "", "999999999999999999999999999999999999999999999999999999999999999999999"} {
			if err := codec.Unmarshal(mustAppend(t, map[string]int{key: 1}), target); !errors.Is(err, codec.ErrType) {
				t.Errorf("Unmarshal(key %q, %T) = %v, want ErrType", key, target, err)
			}
		}
	}
	in := map[[2]int]string{{1, 2}: "a"}
	var out map[[2]int]string
	if err := codec.Unmarshal(mustAppend(t, in), &out); err != nil || !reflect.DeepEqual(in, out) {
		t.Errorf("Unmarshal(array keys) = %v, %v, want %v", out, err, in)
	}
	var m map[string]any
	if err := codec.Unmarshal(mustAppend(t, codec.Map{{1, "a"}, {"b", nil}}), &m); err != nil || len(m) != 2 || m["1"] != "a" {
		t.Errorf("Unmarshal(Map, *map[string]any) = %v, %v", m, err)
	}
	for _, target := range []any{&m, &u, new([]string), new([]float64), new([]any), new([]int), new(codec.Map), new(codec.Set), new(codec.Fields), new([]byte), new(*int), new(any)} {
		if err := codec.Unmarshal([]byte{0xc0}, target); err != nil || !reflect.ValueOf(target).Elem().IsZero() {
			t.Errorf("Unmarshal(nil, %T) = %v, want nil", target, err)
		}
		if _, ok := target.(*any); ok {
			continue
		}
		if err := codec.Unmarshal([]byte{0xc3}, target); err == nil {
			t.Errorf("Unmarshal(true, %T) = nil, want an error", target)
		}
	}
}

func TestCursor(t *testing.T) {
	src := mustAppend(t, []any{uint64(math.MaxUint64), 7, []byte{1, 2}, nil, map[string]int{"a": 1}, true})
	d := codec.NewDecoder(src, codec.Limits{})
	if n, err := d.ArrayHeader(); n != 6 || err != nil {
		t.Fatalf("ArrayHeader() = %d, %v, want 6", n, err)
	}
	if u, err := d.Uint64(); u != math.MaxUint64 || err != nil {
		t.Errorf("Uint64() = %d, %v", u, err)
	}
	if u, err := d.Uint64(); u != 7 || err != nil {
		t.Errorf("Uint64() = %d, %v, want 7", u, err)
	}
	b, err := d.BinaryBytes()
	if err != nil || !bytes.Equal(b, []byte{1, 2}) || cap(b) != 2 {
		t.Errorf("BinaryBytes() = %x of capacity %d, %v, want 0102 of capacity 2", b, cap(b), err)
	}
	if b, err := d.BinaryBytes(); b != nil || err != nil {
		t.Errorf("BinaryBytes(nil) = %x, %v, want nil", b, err)
	}
	if n, err := d.MapHeader(); n != 1 || err != nil {
		t.Errorf("MapHeader() = %d, %v, want 1", n, err)
	}
	raw, err := d.Raw()
	if err != nil || hex.EncodeToString(raw) != "a161" {
		t.Errorf("Raw() = %x, %v, want a161", []byte(raw), err)
	}
	var s string
	if err := raw.Unmarshal(&s); err != nil || s != "a" {
		t.Errorf("Raw.Unmarshal() = %q, %v, want a", s, err)
	}
	if err := d.Skip(); err != nil {
		t.Error(err)
	}
	if err := d.End(); !errors.Is(err, codec.ErrTrailing) {
		t.Errorf("End() = %v, want ErrTrailing", err)
	}
	for name, read := range map[string]func() error{
		"ArrayHeader": func() error { _, err := d.ArrayHeader(); return err },
		"MapHeader":   func() error { _, err := d.MapHeader(); return err },
		"String":      func() error { _, err := d.String(); return err },
		"Bytes":       func() error { _, err := d.Bytes(); return err },
		"Int64":       func() error { _, err := d.Int64(); return err },
		"Time":        func() error { _, err := d.Time(); return err },
		"DecodeValue": func() error { return d.DecodeValue(reflect.ValueOf(5)) },
	} {
		if err := read(); err == nil {
			t.Errorf("%s(true) = nil, want an error", name)
		}
	}
	if v, err := d.Bool(); !v || err != nil {
		t.Errorf("Bool() = %v, %v, want true", v, err)
	}
	if _, err := d.Bool(); !errors.Is(err, codec.ErrTruncated) {
		t.Errorf("Bool() at the end = %v, want ErrTruncated", err)
	}
}

func TestLong(t *testing.T) {
	for _, tt := range []struct {
		in   codec.Long
		want string
	}{
		{codec.Long{Bits: math.MaxUint64, Unsigned: true}, "18446744073709551615"},
		{codec.Long{Bits: math.MaxUint64}, "-1"},
	} {
		if got := tt.in.String(); got != tt.want || tt.in.Big().String() != tt.want {
			t.Errorf("String(%v) = %s, Big() = %s, want %s", tt.in, got, tt.in.Big(), tt.want)
		}
	}
}

func TestAnyMapOfManyStaysInBudget(t *testing.T) {
	for _, n := range []int{0, 1, 8, 9, 14, 15, 100, 1000, 1793, 20000, 65535} {
		m := map[string]any{}
		for i := range n {
			m[string(rune(0x4e00+i%20000))+string(rune('a'+i/20000))] = nil
		}
		src := mustAppend(t, m)
		var v any
		lo, hi := 1, 64<<20
		for lo < hi { // the smallest budget that will do
			mid := (lo + hi) / 2
			if codec.UnmarshalLimits(src, &v, codec.Limits{DecodedBytes: mid}) != nil {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		got := allocated(func() { _ = codec.UnmarshalLimits(src, &v, codec.Limits{DecodedBytes: lo}) })
		// A map at the edge of its size splits once more, which leaves garbage.
		if got > lo+lo/2+8192 {
			t.Errorf("a map of %d allocates %d bytes under a budget of %d", n, got, lo)
		}
		if diff := cmp.Diff(n, len(v.(map[string]any))); diff != "" {
			t.Errorf("a map of %d has another length: %s", n, diff)
		}
	}
}
