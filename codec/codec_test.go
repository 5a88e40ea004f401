package codec_test

import (
	"testing"

	"github.com/d-e-v-grid/netron/codec"
)

func mustAppend(t testing.TB, v any) []byte {
	t.Helper()
	b, err := codec.Append(nil, v)
	if err != nil {
		t.Fatalf("Append(%#v) = %v", v, err)
	}
	return b
}

const defID = "550e8400-e29b-41d4-a716-446655440000"

func TestCallDoesNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 128)
	boxed := []any{2.5, 3, "s", true}
	encode := func() {
		b := codec.AppendArrayHeader(buf, 4)
		b = codec.AppendString(b, defID)
		b = codec.AppendString(b, "add")
		b = codec.AppendFloat(b, 2.5)
		b = codec.AppendInt(b, 3)
		for _, v := range boxed {
			b, _ = codec.Append(b, v)
		}
	}
	if n := testing.AllocsPerRun(100, encode); n != 0 {
		t.Errorf("encoding a call allocates %v times, want 0", n)
	}

	msg := mustAppend(t, []any{defID, "add", 2.5, 3})
	var x float64
	var y int
	decode := func() {
		d := codec.NewDecoder(msg, codec.Limits{})
		if n, err := d.ArrayHeader(); n != 4 || err != nil {
			t.Fatalf("ArrayHeader() = %d, %v, want 4", n, err)
		}
		if id, err := d.StringBytes(); string(id) != defID || err != nil {
			t.Fatalf("StringBytes() = %q, %v", id, err)
		}
		if name, err := d.StringBytes(); string(name) != "add" || err != nil {
			t.Fatalf("StringBytes() = %q, %v", name, err)
		}
		if err := d.Decode(&x); err != nil {
			t.Fatal(err)
		}
		if err := d.Decode(&y); err != nil {
			t.Fatal(err)
		}
	}
	if n := testing.AllocsPerRun(100, decode); n != 0 {
		t.Errorf("decoding a call allocates %v times, want 0", n)
	}
	if x != 2.5 || y != 3 {
		t.Errorf("decoded %v, %v, want 2.5, 3", x, y)
	}
}

func TestTupleDoesNotAllocate(t *testing.T) {
	type args struct {
		X, Y float64
		N    int
		OK   bool
	}
	in := &args{2.5, 3, 7, true}
	out := new(args)
	buf := make([]byte, 0, 128)
	var n int
	var err error
	if allocs := testing.AllocsPerRun(100, func() {
		var b []byte
		if b, n, err = codec.AppendTuple(buf, in); err != nil {
			t.Fatal(err)
		}
		d := codec.NewDecoder(b, codec.Limits{})
		if err = d.DecodeTuple(out, n); err != nil {
			t.Fatal(err)
		}
	}); allocs != 0 {
		t.Errorf("a tuple of scalars allocates %v times, want 0", allocs)
	}
	if n != 4 || *out != *in {
		t.Errorf("tuple = %d values, %+v, want 4, %+v", n, *out, *in)
	}
}
