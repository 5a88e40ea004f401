package codec_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"runtime"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/codec"
)

// nest returns depth containers of a kind around nil.
func nest(depth int, kind string) []byte {
	b := []byte{0xc0}
	for range depth {
		switch kind {
		case "array":
			b = append([]byte{0x91}, b...)
		case "map":
			b = append([]byte{0x81, 0xa0}, b...)
		case "Set":
			b = append(binary.BigEndian.AppendUint32(codec.AppendExtHeader(nil, 123, 4+len(b)), 1), b...)
		case "Map":
			b = append(append(binary.BigEndian.AppendUint32(codec.AppendExtHeader(nil, 124, 5+len(b)), 1), 0x01), b...)
		case "Error":
			head := []byte{0, 1, 0xa0, 0xa0, 0xa0, 0, 1, 0xa0}
			b = append(append(codec.AppendExtHeader(nil, 126, len(head)+len(b)), head...), b...)
		}
	}
	return b
}

// tree is a recursive type that decodes itself.
type tree struct{ kids []tree }

func (n *tree) DecodeNetron(d *codec.Decoder) error {
	if d.TryNil() {
		return nil
	}
	count, err := d.ArrayHeader()
	if err != nil {
		return err
	}
	for range count {
		var kid tree
		if err := d.Decode(&kid); err != nil {
			return err
		}
		n.kids = append(n.kids, kid)
	}
	return nil
}

type list []list

func TestDepthLimit(t *testing.T) {
	for _, tt := range []struct {
		kind   string
		target func() any
	}{
		{"array", func() any { return new(any) }},
		{"array", func() any { return new(list) }},
		{"array", func() any { return new(tree) }},
		{"map", func() any { return new(any) }},
		{"Set", func() any { return new(any) }},
		{"Map", func() any { return new(any) }},
		{"Error", func() any { return new(any) }},
	} {
		for _, l := range []struct{ limit, depth int }{{0, 64}, {7, 7}, {1024, 1024}, {2000, 1024}, {-1, 1024}} {
			lim := codec.Limits{Depth: l.limit, DecodedBytes: -1}
			name := fmt.Sprintf("%s into %T under %d", tt.kind, tt.target(), l.limit)
			at := l.depth
			if _, ok := tt.target().(*tree); ok {
				at-- // the nil inside is a tree, too
			}
			if err := codec.UnmarshalLimits(nest(at, tt.kind), tt.target(), lim); err != nil {
				t.Errorf("%s: depth %d = %v, want nil", name, at, err)
			}
			err := codec.UnmarshalLimits(nest(at+1, tt.kind), tt.target(), lim)
			if !errors.Is(err, codec.ErrDepth) || !errors.Is(err, codec.ErrLimit) {
				t.Errorf("%s: depth %d = %v, want ErrDepth", name, at+1, err)
			}
		}
	}
	// Skipping has no depth, so it needs no limit.
	d := codec.NewDecoder(append(bytes.Repeat([]byte{0x91}, 1<<20), 0xc0), codec.Limits{})
	if err := d.Skip(); err != nil || d.Len() != 0 {
		t.Errorf("Skip(a million levels) = %v with %d left, want nil, 0", err, d.Len())
	}
}

type endless *endless

func TestPointersHaveNoDepth(t *testing.T) {
	head := &cyclic{}
	for range 62 { // and the head: 63 maps
		head = &cyclic{Next: head}
	}
	var got *cyclic
	if err := codec.Unmarshal(mustAppend(t, head), &got); err != nil {
		t.Errorf("Unmarshal(list of 63) = %v, want nil", err)
	}
	var v any
	if err := codec.Unmarshal(mustAppend(t, head), &v); err != nil {
		t.Errorf("Unmarshal(list of 63, *any) = %v, want nil", err)
	}
	var e endless
	if err := codec.Unmarshal([]byte{1}, &e); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("Unmarshal(pointer to itself) = %v, want ErrUnsupported", err)
	}
	e = &e
	if _, err := codec.Append(nil, e); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("Append(pointer to itself) = %v, want ErrUnsupported", err)
	}
}

func TestBigIntLimit(t *testing.T) {
	digits := func(n int) []byte {
		b, _ := new(big.Int).SetString("-"+strings.Repeat("9", n), 10)
		return codec.AppendBigInt(nil, b)
	}
	for _, tt := range []struct{ limit, digits int }{{0, 4096}, {10, 10}} {
		var v any
		lim := codec.Limits{BigIntDigits: tt.limit}
		if err := codec.UnmarshalLimits(digits(tt.digits), &v, lim); err != nil {
			t.Errorf("BigInt of %d digits under %d = %v, want nil", tt.digits, tt.limit, err)
		}
		err := codec.UnmarshalLimits(digits(tt.digits+1), &v, lim)
		if !errors.Is(err, codec.ErrLimit) {
			t.Errorf("BigInt of %d digits under %d = %v, want ErrLimit", tt.digits+1, tt.limit, err)
		}
	}
	var v any
	if err := codec.UnmarshalLimits(digits(20000), &v, codec.Limits{BigIntDigits: -1}); err != nil {
		t.Errorf("BigInt of 20,000 digits without a limit = %v, want nil", err)
	}
}

func TestDecodedBytesLimit(t *testing.T) {
	for _, tt := range []struct {
		name   string
		src    []byte
		cost   int // the smallest budget that will do
		target any
	}{
		{"array into any", mustAppend(t, make([]any, 100)), 1600, new(any)},
		{"array into []any", mustAppend(t, make([]any, 100)), 1600, new([]any)},
		{"array into []string", mustAppend(t, make([]string, 100)), 1600, new([]string)},
		{"array into []float64", mustAppend(t, make([]float64, 100)), 800, new([]float64)},
		{"array into []uint16", mustAppend(t, make([]float64, 100)), 200, new([]uint16)},
		{"string", mustAppend(t, strings.Repeat("x", 1000)), 1000, new(string)},
		{"binary", mustAppend(t, make([]byte, 1000)), 1000, new([]byte)},
		{"raw", mustAppend(t, make([]byte, 1000)), 1003, new(codec.Raw)},
		{"unknown extension", append(codec.AppendExtHeader(nil, 50, 1000), make([]byte, 1000)...), 1000, new(codec.Ext)},
		{"Map", mustAppend(t, codec.Map(make([]codec.Pair, 100))), 3200, new(codec.Map)},
	} {
		if err := codec.UnmarshalLimits(tt.src, tt.target, codec.Limits{DecodedBytes: tt.cost}); err != nil {
			t.Errorf("%s under %d = %v, want nil", tt.name, tt.cost, err)
		}
		if err := codec.UnmarshalLimits(tt.src, tt.target, codec.Limits{DecodedBytes: tt.cost - 1}); !errors.Is(err, codec.ErrLimit) {
			t.Errorf("%s under %d = %v, want ErrLimit", tt.name, tt.cost-1, err)
		}
	}
	type fat struct {
		Room [4096]byte `msgpack:"-"`
		N    int
	}
	src := mustAppend(t, []any{codec.Fields{}, codec.Fields{}})
	for _, target := range []any{new([]*fat), new([]fat), new(map[string]fat)} {
		if _, ok := target.(*map[string]fat); ok {
			src = mustAppend(t, codec.Fields{{"a", codec.Fields{}}})
		}
		if err := codec.UnmarshalLimits(src, target, codec.Limits{DecodedBytes: 4000}); !errors.Is(err, codec.ErrLimit) {
			t.Errorf("Unmarshal(%T) under 4000 = %v, want ErrLimit", target, err)
		}
	}
	// The default is eight times the message, but at least 1 MiB and at most 64 MiB.
	var v any
	if err := codec.Unmarshal(mustAppend(t, make([]any, 65536)), &v); err != nil {
		t.Errorf("Unmarshal(65,536 nils) = %v, want nil", err)
	}
	if err := codec.Unmarshal(mustAppend(t, make([]any, 70000)), &v); !errors.Is(err, codec.ErrLimit) {
		t.Errorf("Unmarshal(70,000 nils) = %v, want ErrLimit", err)
	}
	if err := codec.UnmarshalLimits(mustAppend(t, make([]any, 70000)), &v, codec.Limits{DecodedBytes: -1}); err != nil {
		t.Errorf("Unmarshal(70,000 nils) without a limit = %v, want nil", err)
	}
	if err := codec.Unmarshal(mustAppend(t, make([]byte, 65<<20)), &v); !errors.Is(err, codec.ErrLimit) {
		t.Errorf("Unmarshal(65 MiB of binary) = %v, want ErrLimit", err)
	}
}

// hostile are messages that claim more than they hold, or that blow up.
func hostile() map[string][]byte {
	rep := func(head []byte, part []byte, n int) []byte { return append(head, bytes.Repeat(part, n)...) }
	array32 := func(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0xdd}, uint32(n)) }
	return map[string][]byte{
		"array of 4 G":          {0xdd, 0xff, 0xff, 0xff, 0xff},
		"array of 2^31":         {0xdd, 0x80, 0, 0, 0},
		"map of 4 G":            {0xdf, 0xff, 0xff, 0xff, 0xff},
		"string of 4 G":         {0xdb, 0xff, 0xff, 0xff, 0xff, 'a'},
		"binary of 4 G":         {0xc6, 0xff, 0xff, 0xff, 0xff, 'a'},
		"extension of 4 G":      {0xc9, 0xff, 0xff, 0xff, 0xff, 0x7c, 'a'},
		"Map of 4 G":            {0xd6, 124, 0xff, 0xff, 0xff, 0xff},
		"Set of 4 G":            {0xd6, 123, 0xff, 0xff, 0xff, 0xff},
		"Set of 2^31":           {0xd6, 123, 0x80, 0, 0, 0},
		"error of 65,535":       {0xc7, 9, 126, 0, 1, 0xa0, 0xa0, 0xa0, 0xff, 0xff, 0xa0, 0xa0},
		"nils":                  rep(array32(1<<20), []byte{0xc0}, 1<<20),
		"empty arrays":          rep(array32(1<<20), []byte{0x90}, 1<<20),
		"empty maps":            rep(array32(1<<20), []byte{0x80}, 1<<20),
		"maps of one":           rep(array32(300000), []byte{0x81, 0xa0, 0xc0}, 300000),
		"maps of nine":          rep(array32(60000), append([]byte{0x89}, bytes.Repeat([]byte{0xa1, 'k', 1}, 9)...), 60000),
		"empty strings":         rep(array32(1<<20), []byte{0xa0}, 1<<20),
		"broken strings":        rep(array32(1<<18), []byte{0xa3, 0xff, 0xff, 0xff}, 1<<18),
		"BigInts":               rep(array32(1<<18), []byte{0xd5, 120, 0xa1, '1'}, 1<<18),
		"big numbers":           rep(array32(1<<17), []byte{0xcb, 0x7e, 0x37, 0xe4, 0x3c, 0x88, 0x00, 0x75, 0x9c}, 1<<17),
		"dates":                 rep(array32(1<<17), []byte{0xd7, 125, 0, 0, 1, 0x8b, 0xcf, 0xe5, 0x68, 0}, 1<<17),
		"errors":                rep(array32(1<<17), []byte{0xc7, 7, 126, 0, 1, 0xa0, 0xa0, 0xa0, 0, 0}, 1<<17),
		"regular expressions":   rep(array32(1<<18), []byte{0xd5, 121, 0xa0, 0xa0}, 1<<18),
		"definitions":           rep(array32(1<<18), []byte{0xd6, 109, 0xa0, 0xa0, 0xa0, 0x80}, 1<<18),
		"TitanErrors":           rep(array32(1<<16), []byte{0xc7, 13, 110, 0xa0, 0, 0xa0, 0x80, 0x80, 0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0, 0xc0}, 1<<16),
		"stream references":     rep(array32(1<<18), []byte{0xc7, 5, 107, 0xa1, '1', 0, 0, 0xa0}, 1<<18),
		"unknown extensions":    rep(array32(1<<18), []byte{0xd4, 50, 0}, 1<<18),
		"longs":                 rep(array32(1<<17), []byte{0xc7, 9, 119, 1, 255, 255, 255, 255, 255, 255, 255, 255}, 1<<17),
		"integer keys":          rep(binary.BigEndian.AppendUint32([]byte{0xdf}, 1<<18), []byte{1, 1}, 1<<18),
		"definition of methods": definitionOf(1 << 16),
	}
}

func definitionOf(methods int) []byte {
	meta := []byte{0x81, 0xa7, 'm', 'e', 't', 'h', 'o', 'd', 's', 0xdf}
	meta = binary.BigEndian.AppendUint32(meta, uint32(methods))
	for range methods {
		meta = append(meta, 0xa0, 0x80)
	}
	body := append([]byte{0xa0, 0xa0, 0xa0}, meta...)
	return append(codec.AppendExtHeader(nil, 109, len(body)), body...)
}

// allocated returns how many bytes f allocates.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

func TestHostileMessagesStayInBudget(t *testing.T) {
	const (
		budget = 2 << 20
		slack  = 16 << 10 // error values, and what the runtime does meanwhile
	)
	type row struct {
		A string
		B []any
	}
	for name, src := range hostile() {
		for _, target := range []func() any{
			func() any { return new(any) },
			func() any { return new([]string) },
			func() any { return new([]row) },
			func() any { return new(map[string]row) },
			func() any { return new([]map[string]int) },
			func() any { return new([]*big.Int) },
			func() any { return new([]error) },
			func() any { return new(codec.Map) },
			func() any { return new(codec.Fields) },
			func() any { return new([]codec.Definition) },
			func() any { return new(codec.Definition) },
		} {
			v := target()
			var err error
			n := allocated(func() { err = codec.UnmarshalLimits(src, v, codec.Limits{DecodedBytes: budget}) })
			if n > budget+slack {
				t.Errorf("Unmarshal(%s of %d bytes, %T) allocates %d bytes (%v), want at most %d", name, len(src), v, n, err, budget)
			}
		}
		if strings.Contains(name, "4 G") || strings.Contains(name, "2^31") || strings.Contains(name, "65,535") {
			var v any
			var err error
			n := allocated(func() { err = codec.Unmarshal(src, &v) })
			if !errors.Is(err, codec.ErrTruncated) || n > slack {
				t.Errorf("Unmarshal(%s) = %v after %d bytes, want ErrTruncated at once", name, err, n)
			}
		}
	}
}

func TestRefusedBytes(t *testing.T) {
	for _, tt := range []struct {
		src string
		is  error
	}{
		{"", codec.ErrTruncated},
		{"c1", codec.ErrMalformed},
		{"cd01", codec.ErrTruncated},
		{"cb3ff8", codec.ErrTruncated},
		{"a261", codec.ErrTruncated},
		{"d9", codec.ErrTruncated},
		{"da00", codec.ErrTruncated},
		{"db000000", codec.ErrTruncated},
		{"c403", codec.ErrTruncated},
		{"9201", codec.ErrTruncated},
		{"81a161", codec.ErrTruncated},
		{"92c1c1", codec.ErrMalformed},
		{"d67d00000000", codec.ErrTruncated},                       // a date of 4 bytes
		{"c7097d000000000000000000", codec.ErrMalformed},           // a date of 9 bytes
		{"d77d7fffffffffffffff", codec.ErrRange},                   // a date out of range
		{"d77700000000000000ff", codec.ErrTruncated},               // a long of 8 bytes
		{"d479c0", codec.ErrType},                                  // a regular expression of nil
		{"d47ba0", codec.ErrTruncated},                             // a set without a count
		{"c7057b00000000c0", codec.ErrMalformed},                   // a set that goes on
		{"d46cc0", codec.ErrType},                                  // a reference to nil
		{"c7066ba178000001a0", codec.ErrMalformed},                 // a stream id of "x"
		{"c70e6baa343239343936373239360101a0", codec.ErrMalformed}, // a stream id of 2^32
		{"d47e00", codec.ErrTruncated},
		{"d46ea0", codec.ErrTruncated},
		{"d46da0", codec.ErrTruncated},
		{"0101", codec.ErrTrailing},
	} {
		var v any
		err := codec.Unmarshal(unhex(t, tt.src), &v)
		var de *codec.DecodeError
		if !errors.Is(err, tt.is) || !errors.As(err, &de) {
			t.Errorf("Unmarshal(%s) = %v, %v, want %v", tt.src, v, err, tt.is)
		}
	}
	for _, src := range []string{"", "c1", "92c0", "81c0", "a1", "dd00000002c0", "d4", "c70100", "cf00"} {
		d := codec.NewDecoder(unhex(t, src), codec.Limits{})
		if err := d.Skip(); err == nil {
			t.Errorf("Skip(%s) = nil, want an error", src)
		}
	}
}
