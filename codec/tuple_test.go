package codec_test

import (
	"encoding/hex"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

type callArgs struct {
	A    int
	B    string
	Opt  *int
	Last float64 `msgpack:",omitempty"`
}

func TestAppendTuple(t *testing.T) {
	one := 1
	for _, tt := range []struct {
		in    any
		want  string
		wantN int
	}{
		{callArgs{A: 1, B: "b"}, "01a162c0", 3},
		{&callArgs{A: 1, B: "b", Opt: &one, Last: 2}, "01a1620102", 4},
		{struct{}{}, "", 0},
	} {
		dst := []byte{0xaa}
		got, n, err := codec.AppendTuple(dst, tt.in)
		if s := hex.EncodeToString(got[1:]); s != tt.want || n != tt.wantN || err != nil {
			t.Errorf("AppendTuple(%+v) = %s, %d, %v, want %s, %d", tt.in, s, n, err, tt.want, tt.wantN)
		}
	}
	for _, bad := range []any{nil, 1, "x", []int{1}, map[string]int{}, (*callArgs)(nil), mutexed{}, struct{ C chan int }{}} {
		if got, n, err := codec.AppendTuple([]byte{1}, bad); !errors.Is(err, codec.ErrUnsupported) || n != 0 || len(got) != 1 {
			t.Errorf("AppendTuple(%T) = %x, %d, %v, want ErrUnsupported", bad, got, n, err)
		}
	}
}

func TestDecodeTuple(t *testing.T) {
	one := 1
	for _, tt := range []struct {
		name string
		args []any
		want callArgs
		err  string
	}{
		{"all", []any{1, "b", 1, 2.5}, callArgs{1, "b", &one, 2.5}, ""},
		{"optional ones missing", []any{1, "b"}, callArgs{A: 1, B: "b"}, ""},
		{"undefined optional ones", []any{1, "b", codec.Undefined{}, nil}, callArgs{A: 1, B: "b"}, ""},
		{"too many", []any{1, "b", nil, 2, []any{1, 2}, "x"}, callArgs{A: 1, B: "b", Last: 2}, ""},
		{"missing", []any{1}, callArgs{}, "codec: missing argument 2 (b)"},
		{"none", nil, callArgs{}, "codec: missing argument 1 (a)"},
		{"undefined", []any{1, codec.Undefined{}}, callArgs{}, "codec: b: undefined is not a string"},
		{"wrong", []any{"x", "b"}, callArgs{}, "codec: a: a string is not a number"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var src []byte
			for _, a := range tt.args {
				src = append(src, mustAppend(t, a)...)
			}
			d := codec.NewDecoder(append(src, 0x07), codec.Limits{})
			got := callArgs{Opt: &one, Last: 9}
			if len(tt.args) > 2 && tt.args[2] == 1 {
				got.Opt = nil
			}
			err := d.DecodeTuple(&got, len(tt.args))
			if tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("DecodeTuple(%v) = %v, want %s", tt.args, err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatalf("DecodeTuple(%v) = %v", tt.args, err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("DecodeTuple(%v) differs (-want +got):\n%s", tt.args, diff)
			}
			if d.Len() != 1 {
				t.Errorf("DecodeTuple(%v) leaves %d bytes, want 1", tt.args, d.Len())
			}
		})
	}
	d := codec.NewDecoder([]byte{1}, codec.Limits{})
	if err := d.DecodeTuple(new(callArgs), math.MaxInt); !errors.Is(err, codec.ErrTruncated) {
		t.Errorf("DecodeTuple(2^40 values) = %v, want ErrTruncated", err)
	}
	for _, bad := range []any{nil, callArgs{}, new(int), (*callArgs)(nil), new(mutexed)} {
		if err := d.DecodeTuple(bad, 1); !errors.Is(err, codec.ErrUnsupported) {
			t.Errorf("DecodeTuple(%T) = %v, want ErrUnsupported", bad, err)
		}
	}
	if err := d.DecodeTuple(new(callArgs), 0); !errors.Is(err, codec.ErrMissing) {
		t.Errorf("DecodeTuple(0 values) = %v, want ErrMissing", err)
	}
}

func TestDecodeValues(t *testing.T) {
	src := []byte{1, 2, 0xa1, 'x'}
	for _, tt := range []struct {
		n    int
		lim  codec.Limits
		want error
	}{
		{2, codec.Limits{}, nil},
		{3, codec.Limits{}, codec.ErrType},
		{5, codec.Limits{}, codec.ErrTruncated},
		{-1, codec.Limits{}, codec.ErrTruncated},
		{2, codec.Limits{DecodedBytes: 15}, codec.ErrLimit},
	} {
		var got []int64
		d := codec.NewDecoder(src, tt.lim)
		err := d.DecodeValues(reflect.ValueOf(&got).Elem(), tt.n)
		if !errors.Is(err, tt.want) {
			t.Errorf("DecodeValues(%d values, limits %+v) = %v, want %v", tt.n, tt.lim, err, tt.want)
		}
		if tt.want == nil && (len(got) != 2 || got[0] != 1 || got[1] != 2 || d.Len() != 2) {
			t.Errorf("DecodeValues(2) = %v with %d bytes left, want [1 2] and 2", got, d.Len())
		}
	}
	d := codec.NewDecoder(src, codec.Limits{})
	if err := d.DecodeValues(reflect.ValueOf(new(int)).Elem(), 1); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("DecodeValues(into an int) = %v, want ErrUnsupported", err)
	}
}
