package codec_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/codec/internal/gentest"
)

type (
	namedBool   bool
	namedInt    int
	namedFloat  float32
	namedString string
	namedByte   byte
	namedBytes  []namedByte

	// scalars has a field of each kind that is a number, a text or a boolean.
	scalars struct {
		B   bool
		I   int
		I8  int8
		I16 int16
		I32 int32
		I64 int64
		U   uint
		U8  uint8
		U16 uint16
		U32 uint32
		U64 uint64
		F32 float32
		F64 float64
		S   string
		P   []byte
	}

	// optionals has a field of each kind that may be missing.
	optionals struct {
		A  int
		O  *int
		OO **string
		B  bool      `msgpack:",omitempty"`
		U8 uint8     `msgpack:",omitempty"`
		F  float64   `msgpack:",omitempty"`
		S  string    `msgpack:",omitempty"`
		P  []byte    `msgpack:",omitempty"`
		At time.Time `msgpack:",omitempty"`
		In inner     `msgpack:",omitempty"`
		Ar [2]int    `msgpack:",omitempty"`
		An any       `msgpack:",omitempty"`
		L  []string  `msgpack:",omitempty"`
	}

	// nested has values in values.
	nested struct {
		Base
		inner
		List   []scalars
		Ints   []int16
		Named  []namedString
		Floats []float64
		Pair   [2]float32
		ID     [4]namedByte
		Deep   []struct{ Deeper []*optionals }
		None   []struct{}
		Raw    codec.Raw
		RawTo  *codec.Raw
		Any    any
		Anys   []any
		Map    map[string]any
		At     time.Time
		N      namedInt
		F      namedFloat
		Bs     namedBytes
		Ok     namedBool `msgpack:"okay"`
	}

	// mixedArgs has a field that only reflection knows.
	mixedArgs struct {
		X float64
		M map[string]int
		P point
	}

	// problem is an error by its value, and late one by its pointer.
	problem struct{ Code int }
	late    struct{ Code int }
)

func (p problem) Error() string { return fmt.Sprintf("problem %d", p.Code) }
func (l *late) Error() string   { return fmt.Sprintf("late %d", l.Code) }

// twin compares what Typed does for a type with what the functions do.
type twin struct {
	name   string
	decode func(t *testing.T, src []byte, lim codec.Limits)
	tuple  func(t *testing.T, src []byte, n int, lim codec.Limits)
}

func twinOf[T any]() twin {
	typed := codec.TypedOf[T]()
	tt := reflect.TypeFor[T]()
	// A type with generated code is charged for more than it turns out to need.
	sameBudget := codec.GeneratedForm(tt) == "" && !strings.Contains(tt.String(), "gentest")
	compare := func(t *testing.T, op string, want, got *T, wantD, gotD *codec.Decoder, wantErr, gotErr error) {
		sameError(t, op, wantErr, gotErr)
		if !same(want, got) {
			t.Fatalf("%s: Typed[%v] gives %+v, want %+v", op, tt, *got, *want)
		}
		pos, depth, budget := gotD.State()
		wantPos, wantDepth, wantBudget := wantD.State()
		if sameBudget && budget != wantBudget || wantErr == nil && (pos != wantPos || depth != wantDepth) {
			t.Fatalf("%s: Typed[%v] leaves %d, %d, %d, want %d, %d, %d", op, tt, pos, depth, budget, wantPos, wantDepth, wantBudget)
		}
		sameEncoding(t, typed, want, got)
	}
	return twin{
		name: tt.String(),
		decode: func(t *testing.T, src []byte, lim codec.Limits) {
			defer reportSource(t, src)
			var want, got T
			for range 2 { // the second time into what the first has left
				wantD, gotD := codec.NewDecoder(src, lim), codec.NewDecoder(src, lim)
				wantErr, gotErr := wantD.Decode(&want), typed.Decode(&gotD, &got)
				compare(t, "Decode", &want, &got, &wantD, &gotD, wantErr, gotErr)
			}
		},
		tuple: func(t *testing.T, src []byte, n int, lim codec.Limits) {
			defer reportSource(t, src)
			var want, got T
			for range 2 {
				wantD, gotD := codec.NewDecoder(src, lim), codec.NewDecoder(src, lim)
				wantErr, gotErr := wantD.DecodeTuple(&want, n), typed.DecodeTuple(&gotD, &got, n)
				compare(t, "DecodeTuple", &want, &got, &wantD, &gotD, wantErr, gotErr)
			}
		},
	}
}

func reportSource(t *testing.T, src []byte) {
	if t.Failed() {
		t.Logf("message: %x", src)
	}
}

// sameEncoding compares how Typed and the functions encode.
func sameEncoding[T any](t *testing.T, typed *codec.Typed[T], want, got *T) {
	dst := []byte("before")
	wantB, wantErr := codec.Append(dst, want)
	gotB, gotErr := typed.Append(dst, got)
	sameError(t, "Append", wantErr, gotErr)
	sameBytes(t, "Append", *got, wantB, gotB)

	wantB, wantN, wantErr := codec.AppendTuple(dst, want)
	gotB, gotN, gotErr := typed.AppendTuple(dst, got)
	sameError(t, "AppendTuple", wantErr, gotErr)
	sameBytes(t, "AppendTuple", *got, wantB, gotB)
	if wantN != gotN {
		t.Fatalf("Typed[%T].AppendTuple appends %d values, want %d", *got, gotN, wantN)
	}
	if n, fixed := typed.TupleLen(); fixed && gotErr == nil && n != gotN {
		t.Fatalf("Typed[%T].AppendTuple appends %d values, TupleLen says %d", *got, gotN, n)
	}
}

// sameBytes compares encodings of v. The members of Go maps come in any order, so
// with such maps in v it is enough that the bytes are the same in some order.
func sameBytes(t *testing.T, op string, v any, want, got []byte) {
	if bytes.Equal(want, got) {
		return
	}
	if w, g := sorted(want), sorted(got); !hasUnordered(reflect.ValueOf(v)) || !bytes.Equal(w, g) {
		t.Fatalf("Typed[%T].%s(%+v) = %x, want %x", v, op, v, got, want)
	}
}

func sorted(b []byte) []byte {
	b = bytes.Clone(b)
	slices.Sort(b)
	return b
}

// hasUnordered says whether a map of several members is in v.
func hasUnordered(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		return !v.IsNil() && hasUnordered(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if hasUnordered(v.Index(i)) {
				return true
			}
		}
	case reflect.Struct:
		for _, f := range v.Fields() {
			if hasUnordered(f) {
				return true
			}
		}
	case reflect.Map:
		for it := v.MapRange(); it.Next(); {
			if v.Len() > 1 || hasUnordered(it.Value()) {
				return true
			}
		}
	}
	return false
}

// sameError compares errors in all that a caller can see.
func sameError(t *testing.T, op string, want, got error) {
	if (want == nil) != (got == nil) || want != nil && want.Error() != got.Error() {
		t.Fatalf("%s = %v, want %v", op, got, want)
	}
	w, ok := errors.AsType[*codec.DecodeError](want)
	if !ok {
		return
	}
	if g, ok := errors.AsType[*codec.DecodeError](got); !ok || w.Offset != g.Offset || w.Path != g.Path || w.Err.Error() != g.Err.Error() {
		t.Fatalf("%s = %#v, want %#v", op, got, want)
	}
}

// same is reflect.DeepEqual with a NaN that is equal to itself.
func same(a, b any) bool {
	return reflect.DeepEqual(a, b) || sameValue(reflect.ValueOf(a), reflect.ValueOf(b))
}

func sameValue(a, b reflect.Value) bool {
	if a.IsValid() != b.IsValid() || a.IsValid() && a.Type() != b.Type() {
		return false
	}
	switch a.Kind() {
	case reflect.Float32, reflect.Float64:
		return a.Float() == b.Float() || a.Float() != a.Float() && b.Float() != b.Float()
	case reflect.Pointer, reflect.Interface:
		return a.IsNil() == b.IsNil() && (a.IsNil() || sameValue(a.Elem(), b.Elem()))
	case reflect.Slice, reflect.Array:
		if a.Len() != b.Len() || a.Kind() == reflect.Slice && a.IsNil() != b.IsNil() {
			return false
		}
		for i := range a.Len() {
			if !sameValue(a.Index(i), b.Index(i)) {
				return false
			}
		}
		return true
	case reflect.Struct:
		for i := range a.NumField() {
			if !sameValue(a.Field(i), b.Field(i)) {
				return false
			}
		}
		return true
	case reflect.Map:
		if a.Len() != b.Len() || a.IsNil() != b.IsNil() {
			return false
		}
		for it := a.MapRange(); it.Next(); {
			if !sameValue(it.Value(), b.MapIndex(it.Key())) {
				return false
			}
		}
		return true
	case reflect.Invalid:
		return true
	}
	return a.Equal(b)
}

func twins() []twin {
	return []twin{
		twinOf[bool](), twinOf[int](), twinOf[int8](), twinOf[int16](), twinOf[int32](), twinOf[int64](),
		twinOf[uint](), twinOf[uint8](), twinOf[uint16](), twinOf[uint32](), twinOf[uint64](),
		twinOf[float32](), twinOf[float64](), twinOf[string](), twinOf[[]byte](), twinOf[[4]byte](), twinOf[[0]byte](),
		twinOf[namedBool](), twinOf[namedInt](), twinOf[namedFloat](), twinOf[namedString](), twinOf[namedByte](), twinOf[namedBytes](),
		twinOf[*int](), twinOf[**string](), twinOf[*scalars](), twinOf[[]int](), twinOf[[3]int16](), twinOf[[][]uint8](), twinOf[[]*float64](),
		twinOf[any](), twinOf[*any](), twinOf[[]any](), twinOf[map[string]any](), twinOf[[]string](), twinOf[[]float64](),
		twinOf[time.Time](), twinOf[*time.Time](), twinOf[codec.Raw](), twinOf[*codec.Raw](), twinOf[codec.Undefined](), twinOf[*codec.Undefined](),
		twinOf[struct{}](), twinOf[[]struct{}](), twinOf[scalars](), twinOf[optionals](), twinOf[nested](), twinOf[mixed](), twinOf[callArgs](),
		twinOf[struct{ A, B float64 }](), twinOf[struct{ V []byte }](), twinOf[[]optionals](), twinOf[*optionals](),
		twinOf[big.Int](), twinOf[*big.Int](), twinOf[codec.Definition](), twinOf[*codec.Definition](), twinOf[codec.Error](), twinOf[*codec.TitanError](),
		twinOf[codec.Fields](), twinOf[codec.Map](), twinOf[codec.Set](), twinOf[codec.Long](), twinOf[codec.Ext](), twinOf[codec.Float](), twinOf[codec.Time](),
		twinOf[map[string]int](), twinOf[map[int8]string](), twinOf[user](), twinOf[list](), twinOf[mixedArgs](), twinOf[cyclic](),
		twinOf[point](), twinOf[*point](), twinOf[[]point](), twinOf[failing](), twinOf[lazy](), twinOf[greedy](), twinOf[still](),
		twinOf[problem](), twinOf[*problem](), twinOf[late](), twinOf[*late](), twinOf[[]late](), twinOf[error](), twinOf[fmt.Stringer](),
		twinOf[gentest.AddArgs](), twinOf[gentest.TaggedArgs](), twinOf[gentest.Trade](), twinOf[gentest.Safe](), twinOf[[]gentest.Safe](), twinOf[gentest.Optional](),
		twinOf[chan int](), twinOf[struct{ C func() }](), twinOf[mutexed](), twinOf[struct{ M mutexed }](), twinOf[uintptr](), twinOf[complex64](),
	}
}

// typedSources are messages that come near to fitting some of the types above.
func typedSources(tb testing.TB) [][]byte {
	numbers := []any{
		0, 1, -1, 127, 128, -32, -33, -128, -129, 255, 256, 32767, 32768, -32769, 65535, 65536, math.MaxInt32, math.MinInt32,
		int64(math.MaxUint32), int64(math.MaxUint32) + 1, int64(1) << 53, int64(math.MaxInt64), int64(math.MinInt64), uint64(math.MaxUint64),
		2.5, 1e300, math.Inf(-1), math.NaN(), math.Copysign(0, -1), bigOf(tb, "123456789012345678901234567890"),
		codec.Long{Bits: 300},
		codec.Raw{0xcb, 0x40, 0x08, 0, 0, 0, 0, 0, 0},
		codec.Raw{0xca, 0x40, 0x40, 0, 0},
		codec.Raw{0xd3, 0, 0, 0, 0, 0, 0, 0, 5},
		codec.Raw{0xcc, 5},
		codec.Raw{0xcd, 0, 5},
		codec.Raw{0xce, 0xff, 0, 0, 5},
		codec.Raw{0xcf, 0, 0, 0, 0, 0, 0, 0, 5},
		codec.Raw{0xd0, 0x85},
		codec.Raw{0xd1, 0xff, 5},
		codec.Raw{0xd2, 0xff, 0, 0, 5},
	}
	values := append(numbers,
		nil, codec.Undefined{}, true, false, "", "text", codec.Raw{0xa2, 0xff, 'x'}, codec.Raw{0xd9, 2, 0xc3, 0x28}, strings.Repeat("s", 300),
		[]byte{}, []byte{1, 2, 3, 4}, make([]byte, 1024), time.UnixMilli(1700000000123), "2024-01-02T03:04:05Z",
		[]any{}, []any{1, 2, 3}, []any{1, "x", nil}, []any{2.5, 3.5}, []any{nil, codec.Undefined{}}, codec.Set{1, 2, 3}, []any{[]any{1, 2}, []any{3}},
		map[string]any{"a": 1}, codec.Map{{"a", 1}, {2, "b"}}, &codec.Error{Message: "m"}, codec.Ext{Type: 5, Data: []byte{1}},
	)
	all := codec.Fields{}
	for _, name := range []string{
		"b", "i", "i8", "i16", "i32", "i64", "u", "u8", "u16", "u32", "u64", "f32", "f64", "s", "p", "A", "o", "oo", "f", "at", "in", "ar",
		"an", "l", "id", "deep", "list", "ints", "named", "floats", "pair", "none", "raw", "rawTo", "any", "anys", "map", "okay", "unknown",
		"name", "level", "on", "symbol", "price", "volume", "tags", "x", "y", "m", "code", "next", "count", "open", "ratio", "v",
	} {
		all = append(all, codec.Field{Name: name})
	}
	var sources [][]byte
	for i, v := range values {
		sources = append(sources, mustAppend(tb, v))
		for j := range all {
			all[j].Value = v
		}
		sources = append(sources, mustAppend(tb, all), mustAppend(tb, all[i%len(all):]), mustAppend(tb, []any{all, all}))
		var tuple []byte
		for j := range 14 {
			tuple = append(tuple, mustAppend(tb, values[(i+j)%len(values)])...)
		}
		sources = append(sources, tuple)
		for _, f := range all[i%8 : i%8+5] {
			sources = append(sources, mustAppend(tb, codec.Fields{f}))
		}
	}
	for _, v := range []any{
		&scalars{true, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 1.5, 2.5, "s", []byte{1}},
		&optionals{A: 1, F: 2, S: "s", At: time.UnixMilli(1), An: 3, L: []string{"x"}},
		&nested{List: make([]scalars, 2), Ints: []int16{1, 2, 3}, None: make([]struct{}, 5), At: time.UnixMilli(1), Base: Base{Created: time.UnixMilli(2)}},
	} {
		b := mustAppend(tb, v)
		sources = append(sources, b)
		for n := 0; n < len(b); n += 5 {
			sources = append(sources, b[:n])
		}
		tuple, _, err := codec.AppendTuple(nil, v)
		if err != nil {
			tb.Fatal(err)
		}
		sources = append(sources, tuple)
	}
	return append(sources, nil, []byte{0xc1}, []byte{0xdd, 0xff, 0xff, 0xff, 0xff}, []byte{0xde, 0, 1, 0xc0}, []byte{0x81, 0xc0, 1})
}

func TestTypedDoesWhatTheFunctionsDo(t *testing.T) {
	sources := typedSources(t)
	limits := []codec.Limits{{}, {DecodedBytes: 40}, {Depth: 2}, {DecodedBytes: 1000, Depth: -1, BigIntDigits: 5}}
	for _, tw := range twins() {
		t.Run(tw.name, func(t *testing.T) {
			for i, src := range sources {
				tw.decode(t, src, limits[i%len(limits)])
				tw.tuple(t, src, i%18-1, limits[i/5%len(limits)])
			}
		})
	}
}

func TestTypedEncodesWhatNoMessageGives(t *testing.T) {
	bad := "a\xff\xfe" + strings.Repeat("b", 70) + "\xc3"
	nan := math.NaN()
	late1 := late{1}
	word := "w"
	to := &word
	encodes(t, bad)
	encodes(t, namedString(bad))
	encodes(t, float32(nan), math.MaxFloat32, 16777217)
	encodes(t, nan, -nan, math.Copysign(0, -1), math.MaxFloat64, 4294967295.0, 4294967296.0, -2147483648.0, -2147483649.0, 1<<53+0.0, 1<<63+0.0, 1<<64+0.0, -1<<63+0.0, 0.5, 127.0, 128.0, -1.0)
	encodes(t, scalars{S: bad, F64: nan, F32: 16777216, U64: math.MaxUint64, I64: math.MinInt64, P: nil})
	encodes(t, optionals{F: math.Copysign(0, -1)}, optionals{OO: &to, Ar: [2]int{0, 1}}, optionals{An: (*int)(nil)}, optionals{L: []string{}})
	encodes(t, nested{At: time.UnixMilli(-1)}, nested{Raw: codec.Raw{1, 2}}, nested{Any: make(chan int)}, nested{Anys: []any{1, func() {}}},
		nested{Map: map[string]any{"f": func() {}}}, nested{Deep: []struct{ Deeper []*optionals }{{[]*optionals{{An: 1i}}}}})
	encodes(t, []any{any(nil)}, []any{late1, &late1, problem{2}}, []any{failing{}})
	encodes(t, problem{1})
	encodes(t, late1)
	encodes(t, &late1, nil)
	encodes(t, &problem{3}, nil)
	encodes(t, error(&late1), nil, errNoLuck)
	encodes(t, user{Owner: nil}, user{Owner: &Owner{"o"}, Err: errNoLuck})
	encodes(t, mixedArgs{1, map[string]int{"a": 1}, point{1, 2}})
	loop := &cyclic{}
	loop.Next = loop
	encodes(t, *loop)
	deep := any(1)
	for range 1030 {
		deep = []any{deep}
	}
	encodes(t, deep)
	encodes(t, nested{Any: deep}, nested{Anys: []any{deep}})
}

func encodes[T any](t *testing.T, values ...T) {
	t.Helper()
	typed := codec.TypedOf[T]()
	for i := range values {
		sameEncoding(t, typed, &values[i], &values[i])
	}
}

func TestTypedOfNothing(t *testing.T) {
	typed := codec.TypedOf[scalars]()
	got, err := typed.Append([]byte{1}, nil)
	if want := []byte{1, 0xc0}; !bytes.Equal(got, want) || err != nil {
		t.Errorf("Append(nil) = %x, %v, want %x", got, err, want)
	}
	if _, n, err := typed.AppendTuple(nil, nil); n != 0 || !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("AppendTuple(nil) = %d, %v, want ErrUnsupported", n, err)
	}
	d := codec.NewDecoder([]byte{1}, codec.Limits{})
	if err := typed.Decode(&d, nil); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("Decode(nil) = %v, want ErrUnsupported", err)
	}
	if err := codec.TypedOf[int]().Decode(&d, nil); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("Decode(nil) = %v, want ErrUnsupported", err)
	}
	if err := typed.DecodeTuple(&d, nil, 1); !errors.Is(err, codec.ErrUnsupported) {
		t.Errorf("DecodeTuple(nil) = %v, want ErrUnsupported", err)
	}
}

func TestTupleLen(t *testing.T) {
	for _, tt := range []struct {
		name  string
		of    interface{ TupleLen() (int, bool) }
		n     int
		fixed bool
	}{
		{"scalars", codec.TypedOf[scalars](), 15, true},
		{"no fields", codec.TypedOf[struct{}](), 0, true},
		{"pointer last", codec.TypedOf[struct{ A, B *int }](), 2, true},
		{"omitempty last", codec.TypedOf[callArgs](), 4, false},
		{"by reflection", codec.TypedOf[mixedArgs](), 3, true},
		{"no struct", codec.TypedOf[int](), 0, false},
		{"pointer", codec.TypedOf[*scalars](), 0, false},
		{"unsupported", codec.TypedOf[mutexed](), 0, false},
	} {
		if n, fixed := tt.of.TupleLen(); n != tt.n || fixed != tt.fixed {
			t.Errorf("%s: TupleLen() = %d, %v, want %d, %v", tt.name, n, fixed, tt.n, tt.fixed)
		}
	}
}

func TestWhatIsDirect(t *testing.T) {
	for _, tt := range []struct {
		v    any
		want bool
	}{
		{scalars{}, true},
		{optionals{}, true},
		{nested{}, true},
		{[]nested{}, true},
		{gentest.Trade{}, true},
		{mixedArgs{}, false}, // a map and a method
		{user{}, false},      // recursive
		{list{}, false},
		{cyclic{}, false},
		{[]point{}, false},
		{[]late{}, true}, // not an error itself
		{[]problem{}, false},
		{map[string]int{}, false},
	} {
		if got := codec.IsDirect(reflect.TypeOf(tt.v)); got != tt.want {
			t.Errorf("%T is direct: %v, want %v", tt.v, got, tt.want)
		}
	}
}

var errDiffers = errors.New("decoded something else")

// TestTypedDoesNotAllocate has its values on the stack: they must not escape.
func TestTypedDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations cannot be counted")
	}
	type args struct {
		X, Y float64
		N    int
		OK   bool
		In   inner
	}
	argsOf, floats, ints := codec.TypedOf[args](), codec.TypedOf[float64](), codec.TypedOf[[]int]()
	buf := make([]byte, 0, 128)
	reused, twoInts := make([]int, 0, 4), []byte{0x92, 1, 2}
	for _, tt := range []struct {
		name string
		want float64
		run  func() error
	}{
		{"tuple", 0, func() error {
			in, out := args{2.5, 3, 1 << 20, true, inner{7}}, args{}
			b, n, err := argsOf.AppendTuple(buf, &in)
			if err != nil {
				return err
			}
			d := codec.NewDecoder(b, codec.Limits{})
			if err := argsOf.DecodeTuple(&d, &out, n); err != nil || in != out {
				return errors.Join(errDiffers, err)
			}
			return d.End()
		}},
		{"map", 0, func() error {
			in, out := args{2.5, 3, 1 << 20, true, inner{7}}, args{}
			b, err := argsOf.Append(buf, &in)
			if err != nil {
				return err
			}
			d := codec.NewDecoder(b, codec.Limits{})
			if err := argsOf.Decode(&d, &out); err != nil || in != out {
				return errors.Join(errDiffers, err)
			}
			return d.End()
		}},
		{"float64", 0, func() error {
			in, out := 2.5, 0.0
			b, err := floats.Append(buf, &in)
			if err != nil {
				return err
			}
			d := codec.NewDecoder(b, codec.Limits{})
			if err := floats.Decode(&d, &out); err != nil || in != out {
				return errors.Join(errDiffers, err)
			}
			return d.End()
		}},
		{"slice within its capacity", 0, func() error {
			d := codec.NewDecoder(twoInts, codec.Limits{})
			s := reused
			if err := ints.Decode(&d, &s); err != nil || len(s) != 2 || s[1] != 2 {
				return errors.Join(errDiffers, err)
			}
			return d.End()
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var err error
			if n := testing.AllocsPerRun(100, func() { err = errors.Join(err, tt.run()) }); n != tt.want || err != nil {
				t.Errorf("%v allocations, %v, want %v", n, err, tt.want)
			}
		})
	}
}

func TestTypedAllocatesWhatItKeeps(t *testing.T) {
	if raceEnabled {
		t.Skip("allocations cannot be counted")
	}
	type args struct {
		S string
		P []byte
	}
	typed, maps := codec.TypedOf[args](), codec.TypedOf[map[string]int]()
	src, n, err := codec.AppendTuple(nil, &args{"text", make([]byte, 1024)})
	if err != nil {
		t.Fatal(err)
	}
	if got := testing.AllocsPerRun(100, func() {
		var v args
		d := codec.NewDecoder(src, codec.Limits{})
		_ = typed.DecodeTuple(&d, &v, n)
	}); got != 2 {
		t.Errorf("decoding a string and bytes allocates %v times, want 2", got)
	}
	buf := make([]byte, 0, 64)
	in := map[string]int{"a": 1}
	byFunction := testing.AllocsPerRun(100, func() { _, _ = codec.Append(buf, &in) })
	if got := testing.AllocsPerRun(100, func() {
		v := in
		_, _ = maps.Append(buf, &v)
	}); got > byFunction {
		t.Errorf("encoding by reflection allocates %v times, want %v as Append does", got, byFunction)
	}
}

// TestTypedOnAMovingStack has values on a stack that grows, and so moves, while
// they are decoded.
func TestTypedOnAMovingStack(t *testing.T) {
	typed := codec.TypedOf[nested]()
	want := nested{Ints: []int16{1, 2, 3}, List: make([]scalars, 3), Any: nil, Base: Base{ID: "x"}, At: time.UnixMilli(1).UTC()}
	deep := codec.Raw{1}
	for range 60 {
		deep = append(codec.Raw{0x91}, deep...)
	}
	want.Raw = deep
	if err := deep.Unmarshal(&want.Any); err != nil {
		t.Fatal(err)
	}
	src := mustAppend(t, &want)
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			var got nested
			d := codec.NewDecoder(src, codec.Limits{Depth: -1})
			if err := typed.Decode(&d, &got); err != nil {
				t.Error(err)
				return
			}
			if b, err := typed.Append(nil, &got); err != nil || !bytes.Equal(b, src) {
				t.Errorf("Append(Decode(%x)) = %x, %v", src, b, err)
			}
		})
	}
	wg.Wait()
}

func FuzzTyped(f *testing.F) {
	for i, src := range typedSources(f) {
		if i%16 == 0 { // the test has them all
			f.Add(src, i%15, uint16(i))
		}
	}
	f.Add([]byte{0xcb, 0x40, 0, 0, 0, 0, 0, 0, 0, 0xa1, 0xff}, 14, uint16(40))
	all := twins()
	f.Fuzz(func(t *testing.T, src []byte, n int, budget uint16) {
		lim := codec.Limits{DecodedBytes: int(budget), Depth: int(budget % 7)}
		for _, tw := range all {
			tw.decode(t, src, lim)
			tw.tuple(t, src, n, lim)
			tw.tuple(t, src, int(budget%16), lim)
		}
	})
}
