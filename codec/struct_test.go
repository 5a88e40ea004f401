package codec_test

import (
	"encoding/hex"
	"errors"
	"math/big"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

type Base struct {
	ID      string
	Created time.Time `msgpack:"created,omitempty"`
}

type Owner struct{ OwnerName string }

type inner struct{ Deep int }

type user struct {
	Base
	*Owner
	inner
	UserID   int
	URLFor   string            `msgpack:"url"`
	Nick     string            `msg:"nick,omitempty"`
	Both     string            `msgpack:"one" msg:"two"`
	Skipped  string            `msgpack:"-"`
	Tags     []string          `msgpack:"tags"`
	Limits   map[string]int    `msgpack:"limits,omitempty"`
	ByID     map[int]string    `msgpack:"byId,omitempty"`
	Next     *user             `msgpack:"next,omitempty"`
	Any      any               `msgpack:",omitempty"`
	UUID     [4]byte           `msgpack:"uuid"`
	Pair     [2]float32        `msgpack:"pair"`
	Big      *big.Int          `msgpack:"big,omitempty"`
	Rate     float64           `msgpack:"rate"`
	Children []user            `msgpack:"children,omitempty"`
	Err      error             `msgpack:"err,omitempty"`
	Raw      codec.Raw         `msgpack:"raw,omitempty"`
	Nested   map[string][]Base `msgpack:"nested,omitempty"`
	hidden   int
}

func TestStructRoundTrip(t *testing.T) {
	at := time.UnixMilli(1700000000123).UTC()
	for _, in := range []user{
		{},
		{
			Base: Base{ID: "b", Created: at}, Owner: &Owner{"o"}, inner: inner{3}, UserID: -4, URLFor: "u", Nick: "n",
			Both: "1", Tags: []string{"a", "b"}, Limits: map[string]int{"x": 1, "y": 1 << 30}, ByID: map[int]string{1: "one"},
			Next: &user{UserID: 5, Tags: []string{}}, Any: []any{int64(1), "x", nil}, UUID: [4]byte{1, 2, 3, 4},
			Pair: [2]float32{1, 2.5}, Big: big.NewInt(7), Rate: 2, Children: []user{{Rate: 1.5, Tags: []string{}}},
			Err: &codec.Error{Kind: codec.KindOfTypeError, Name: "TypeError", Message: "bad"},
			Raw: codec.Raw{0x93, 1, 2, 3}, Nested: map[string][]Base{"k": {{ID: "z"}}},
		},
	} {
		b := mustAppend(t, in)
		var out user
		if err := codec.Unmarshal(b, &out); err != nil {
			t.Fatalf("Unmarshal(%x) = %v", b, err)
		}
		opts := cmp.Options{
			cmp.AllowUnexported(user{}), cmp.Comparer(func(a, b *big.Int) bool { return a == b || a != nil && b != nil && a.Cmp(b) == 0 }),
		}
		if in.Tags == nil {
			in.Tags = []string{} // a nil slice goes out as an empty one
		}
		if diff := cmp.Diff(in, out, opts); diff != "" {
			t.Errorf("round trip differs (-want +got):\n%s", diff)
		}
		if again := mustAppend(t, &in); len(again) != len(b) {
			t.Errorf("Append(pointer) has %d bytes, want %d as of the value", len(again), len(b))
		}
	}
}

func TestStructMembers(t *testing.T) {
	in := user{Base: Base{ID: "b"}, hidden: 1, Skipped: "s"}
	var got codec.Fields
	if err := codec.Unmarshal(mustAppend(t, in), &got); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range got {
		names = append(names, f.Name)
	}
	want := "id deep userID url one tags uuid pair rate"
	if s := strings.Join(names, " "); s != want {
		t.Errorf("members = %s, want %s", s, want)
	}
}

func TestWireName(t *testing.T) {
	for in, want := range map[string]string{
		"Add": "add", "ID": "id", "URLFor": "urlFor", "UserID": "userID", "HTTPServer": "httpServer", "X": "x", "": "",
		"already": "already", "ID2": "id2", "A1": "a1", "GetURL": "getURL", "Ünder": "ünder", "ÄÖx": "äÖx", "AB_C": "ab_C",
	} {
		if got := codec.WireName(in); got != want {
			t.Errorf("WireName(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestShadowedFields(t *testing.T) {
	type A struct{ X, Y, Z int }
	type B struct {
		X int
		Y int `msgpack:"y"`
	}
	type C struct {
		A
		B
		Z string
	}
	var got codec.Fields
	if err := codec.Unmarshal(mustAppend(t, C{A: A{1, 2, 3}, B: B{4, 5}, Z: "z"}), &got); err != nil {
		t.Fatal(err)
	}
	// X is ambiguous, Y is tagged once, Z is nearer.
	if diff := cmp.Diff(codec.Fields{{"y", int64(5)}, {"z", "z"}}, got); diff != "" {
		t.Errorf("members differ (-want +got):\n%s", diff)
	}
}

func TestDecodeStruct(t *testing.T) {
	type target struct {
		Name  string
		Count int
		Ptr   *int
		At    time.Time
	}
	seven := 7
	for _, tt := range []struct {
		name string
		src  any
		want target
	}{
		{"exact", codec.Fields{{"name", "n"}, {"count", 2.0}, {"ptr", 7}}, target{Name: "n", Count: 2, Ptr: &seven, At: time.UnixMilli(9)}},
		{"any case", codec.Fields{{"NAME", "n"}, {"Count", 1}}, target{Name: "n", Count: 1, At: time.UnixMilli(9)}},
		{"unknown", codec.Fields{{"zzz", []any{1, codec.Fields{{"a", 1}}}}, {"count", 1}}, target{Count: 1, Name: "before", At: time.UnixMilli(9)}},
		{"undefined", codec.Fields{{"name", codec.Undefined{}}, {"count", nil}}, target{At: time.UnixMilli(9)}},
		{"ext 124", codec.Map{{"name", "n"}}, target{Name: "n", At: time.UnixMilli(9)}},
		{"last wins", codec.Fields{{"name", "a"}, {"name", "b"}}, target{Name: "b", At: time.UnixMilli(9)}},
		{"time of ms", codec.Fields{{"at", int64(1700000000123)}}, target{Name: "before", At: time.UnixMilli(1700000000123)}},
		{"time of text", codec.Fields{{"at", "2023-11-14T22:13:20.123Z"}}, target{Name: "before", At: time.UnixMilli(1700000000123)}},
		{"other keys", codec.Raw{0x82, 0x01, 0x02, 0xc0, 0xc0}, target{Name: "before", At: time.UnixMilli(9)}},
	} {
		got := target{Name: "before", At: time.UnixMilli(9)}
		want := tt.want
		if tt.name != "unknown" && want.Name == "" && tt.name != "undefined" {
			want.Name = "before"
		}
		if err := codec.Unmarshal(mustAppend(t, tt.src), &got); err != nil {
			t.Errorf("%s: Unmarshal = %v", tt.name, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: Unmarshal differs (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestDecodeErrorsSayWhere(t *testing.T) {
	for _, tt := range []struct {
		src    any
		target any
		want   string
		is     error
	}{
		{codec.Fields{{"base", 1}, {"children", []any{codec.Fields{{"tags", []any{"a", 2}}}}}}, new(user), "codec: children[0].tags[1]: a number is not a string", codec.ErrType},
		{codec.Fields{{"limits", codec.Fields{{"k", "v"}}}}, new(user), "codec: limits.k: a string is not a number", codec.ErrType},
		{codec.Fields{{"byId", codec.Fields{{"x", "v"}}}}, new(user), "codec: byId: key of a map does not fit int", codec.ErrType},
		{codec.Fields{{"uuid", []byte{1}}}, new(user), "codec: uuid: 1 bytes do not fit [4]uint8", codec.ErrType},
		{codec.Fields{{"pair", []any{1}}}, new(user), "codec: pair: 1 elements do not fit [2]float32", codec.ErrType},
		{[]any{1}, new(user), "codec: an array is not a map", codec.ErrType},
		{nil, new(user), "codec: nil is not a map", codec.ErrType},
		{"x", new([]int), "codec: a string is not an array", codec.ErrType},
		{[]byte{1}, new(string), "codec: binary data is not a string", codec.ErrType},
		{1, new(bool), "codec: a number is not a boolean", codec.ErrType},
		{1, new([]byte), "codec: a number is not binary data", codec.ErrType},
		{true, new(time.Time), "codec: a boolean is not a time", codec.ErrType},
		{"noon", new(time.Time), "codec: string is not a time as RFC 3339 has it", codec.ErrType},
		{1e300, new(time.Time), "codec: 1e+300 is not a time in milliseconds", codec.ErrRange},
		{1, new(codec.Undefined), "codec: a number is not undefined", codec.ErrType},
		{1, new(codec.Reference), "codec: a number is not a reference", codec.ErrType},
		{1, new(codec.Error), "codec: a number is not an error", codec.ErrType},
		{1, new(chan int), "codec: unsupported type chan int", codec.ErrUnsupported},
		{1, new(interface{ Foo() }), "codec: unsupported type interface { Foo() }", codec.ErrUnsupported},
		{codec.Map{{[]any{1}, 2}}, new(map[any]int), "codec: key of a map cannot be compared", codec.ErrType},
		{1, 5, "codec: cannot decode into int, only into a pointer that is not nil", codec.ErrUnsupported},
		{1, nil, "codec: cannot decode into <nil>, only into a pointer that is not nil", codec.ErrUnsupported},
	} {
		err := codec.Unmarshal(mustAppend(t, tt.src), tt.target)
		if err == nil || err.Error() != tt.want || !errors.Is(err, tt.is) {
			t.Errorf("Unmarshal(%v, %T) = %v, want %s", tt.src, tt.target, err, tt.want)
		}
	}
}

type cyclic struct{ Next *cyclic }

type mutexed struct {
	mu sync.Mutex //nolint:unused // a field that is not exported is the point
}

func TestAppendErrors(t *testing.T) {
	loop := &cyclic{}
	loop.Next = loop
	selfMap := map[string]any{}
	selfMap["a"] = selfMap
	selfSlice := []any{nil}
	selfSlice[0] = selfSlice
	selfErr := &codec.Error{}
	selfErr.Fields = codec.Fields{{"cause", selfErr}}
	titan := &codec.TitanError{}
	titan.Cause = titan
	big := map[int]int{}
	wide := map[string]any{}
	for i := range 65536 {
		big[i] = i
		wide[string(rune(i+0x10000))] = i
	}
	for _, tt := range []struct {
		name string
		in   any
		want string
		is   error
	}{
		{"channel", make(chan int), "codec: unsupported type chan int", codec.ErrUnsupported},
		{"function", func() {}, "codec: unsupported type func()", codec.ErrUnsupported},
		{"complex", 1i, "codec: unsupported type complex128", codec.ErrUnsupported},
		{"uintptr", uintptr(1), "codec: unsupported type uintptr", codec.ErrUnsupported},
		{"in a struct", struct{ In []func() }{[]func(){nil}}, "codec: in[0]: unsupported type func()", codec.ErrUnsupported},
		{"nothing exported", mutexed{}, "codec: unsupported type codec_test.mutexed", codec.ErrUnsupported},
		{"cyclic pointer", loop, "", codec.ErrDepth},
		{"cyclic map", selfMap, "", codec.ErrDepth},
		{"cyclic slice", selfSlice, "", codec.ErrDepth},
		{"cyclic error", selfErr, "", codec.ErrDepth},
		{"cyclic cause", titan, "", codec.ErrDepth},
		{"early time", time.UnixMilli(-1), "codec: time 1969-12-31T23:59:59Z is before 1970", codec.ErrRange},
		{"zero time", struct{ At time.Time }{}, "codec: at: time 0001-01-01T00:00:00Z is before 1970", codec.ErrRange},
		{"late time", time.UnixMilli(8_640_000_000_000_001), "codec: time is after the year 275760", codec.ErrRange},
		{"wide map", wide, "codec: map of more than 65535 members", codec.ErrLimit},
		{"empty reference", codec.Reference{}, "codec: reference without an id", codec.ErrRange},
		{"two raw values", codec.Raw{1, 2}, "codec: raw value is not one value: codec: 1 trailing bytes", codec.ErrTrailing},
		{"no raw value", codec.Raw{}, "codec: raw value is not one value: codec: truncated data", codec.ErrTruncated},
		{"known extension", codec.Ext{Type: 125}, "codec: extension type 125 is a date", codec.ErrUnsupported},
		{"marshaler", failing{}, "codec: no luck", errNoLuck},
		{"lazy marshaler", lazy{}, "codec: codec_test.lazy appended nothing", codec.ErrMalformed},
	} {
		dst := []byte("before")
		got, err := codec.Append(dst, tt.in)
		if err == nil || tt.want != "" && err.Error() != tt.want || !errors.Is(err, tt.is) {
			t.Errorf("%s: Append = %v, want %s (%v)", tt.name, err, tt.want, tt.is)
		}
		if string(got) != "before" {
			t.Errorf("%s: Append returns %q, want the slice as it was", tt.name, got)
		}
	}
	if _, err := codec.Append(nil, big); err != nil {
		t.Errorf("Append(65,536 integer keys) = %v, want none: extension 124 has room", err)
	}
}

var errNoLuck = errors.New("no luck")

type failing struct{}

func (failing) AppendNetron([]byte) ([]byte, error) { return nil, errNoLuck }

type lazy struct{}

func (lazy) AppendNetron(dst []byte) ([]byte, error) { return dst, nil }

// point encodes itself as a string.
type point struct{ x, y int }

func (p *point) AppendNetron(dst []byte) ([]byte, error) {
	dst = codec.AppendArrayHeader(dst, 2)
	return codec.AppendInt(codec.AppendInt(dst, int64(p.x)), int64(p.y)), nil
}

func (p *point) DecodeNetron(d *codec.Decoder) error {
	if d.TryNil() {
		*p = point{-1, -1}
		return nil
	}
	if n, err := d.ArrayHeader(); n != 2 || err != nil {
		return errors.New("not a point")
	}
	if err := d.Decode(&p.x); err != nil {
		return err
	}
	return d.Decode(&p.y)
}

// greedy reads more than its value.
type greedy struct{}

func (*greedy) DecodeNetron(d *codec.Decoder) error {
	_ = d.Skip()
	_ = d.Skip()
	_ = d.Skip()
	return nil
}

// still reads nothing.
type still struct{}

func (*still) DecodeNetron(*codec.Decoder) error { return nil }

func TestMarshalers(t *testing.T) {
	type shape struct {
		At   point
		To   *point
		All  []point
		ByID map[string]point
	}
	in := shape{At: point{1, 2}, To: &point{3, 4}, All: []point{{5, 6}}, ByID: map[string]point{"a": {7, 8}}}
	b := mustAppend(t, in) // not addressable
	if again := mustAppend(t, &in); hex.EncodeToString(again) != hex.EncodeToString(b) {
		t.Errorf("Append(pointer) = %x, want %x", again, b)
	}
	var out shape
	if err := codec.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(in, out, cmp.AllowUnexported(point{})); diff != "" {
		t.Errorf("round trip differs (-want +got):\n%s", diff)
	}
	var p point
	if err := codec.Unmarshal([]byte{0xc0}, &p); err != nil || p != (point{-1, -1}) {
		t.Errorf("Unmarshal(nil) = %v, %v, want {-1 -1}", p, err)
	}
	err := codec.Unmarshal(mustAppend(t, codec.Fields{{"at", 5}}), &out)
	if err == nil || err.Error() != "codec: at: not a point" {
		t.Errorf("Unmarshal = %v, want codec: at: not a point", err)
	}
	if err := codec.Unmarshal([]byte{1}, new(still)); !errors.Is(err, codec.ErrMalformed) {
		t.Errorf("Unmarshal into one that reads nothing = %v, want ErrMalformed", err)
	}
	var pair struct {
		G greedy
		N int
	}
	if err := codec.Unmarshal(mustAppend(t, codec.Fields{{"g", []int{1}}, {"n", 5}}), &pair); err != nil || pair.N != 5 {
		t.Errorf("Unmarshal = %+v, %v, want what follows a greedy Unmarshaler", pair, err)
	}
}

func TestCollections(t *testing.T) {
	set := codec.Set{"a", "b"}
	var s []string
	if err := codec.Unmarshal(mustAppend(t, set), &s); err != nil || len(s) != 2 {
		t.Errorf("Unmarshal(Set, *[]string) = %v, %v, want 2 strings", s, err)
	}
	var set2 codec.Set
	if err := codec.Unmarshal(mustAppend(t, s), &set2); err != nil || !reflect.DeepEqual(set2, set) {
		t.Errorf("Unmarshal(array, *Set) = %v, %v, want %v", set2, err, set)
	}
	for _, src := range []any{map[int]string{1: "a"}, codec.Map{{1, "a"}}, map[string]string{"1": "a"}} {
		b := mustAppend(t, src)
		var byInt map[int8]string
		if err := codec.Unmarshal(b, &byInt); err != nil || len(byInt) != 1 || byInt[1] != "a" {
			t.Errorf("Unmarshal(%v, *map[int8]string) = %v, %v", src, byInt, err)
		}
		var byString map[string]string
		if err := codec.Unmarshal(b, &byString); err != nil || byString["1"] != "a" {
			t.Errorf("Unmarshal(%v, *map[string]string) = %v, %v", src, byString, err)
		}
		var pairs codec.Map
		if err := codec.Unmarshal(b, &pairs); err != nil || len(pairs) != 1 || pairs[0].Value != "a" {
			t.Errorf("Unmarshal(%v, *Map) = %v, %v", src, pairs, err)
		}
	}
	if got := hex.EncodeToString(mustAppend(t, map[int]string{1: "a"})); got != "c7077c0000000101a161" {
		t.Errorf("Append(map[int]string) = %s, want extension 124", got)
	}
	if got := hex.EncodeToString(mustAppend(t, struct {
		A []int
		B map[string]int
		C []byte
		D *int
	}{})); got != "84a16190a16280a163c400a164c0" {
		t.Errorf("Append(nil slices) = %s, want empty ones", got)
	}
	reuse := make([]inner, 0, 4)
	reuse = append(reuse, inner{9})
	if err := codec.Unmarshal([]byte{0x91, 0x80}, &reuse); err != nil || reuse[0].Deep != 0 {
		t.Errorf("Unmarshal into a used slice = %v, %v, want elements of zero", reuse, err)
	}
	if v, ok := (codec.Map{{"a", 1}, {[]any{}, 2}, {"a", 3}}).Get("a"); !ok || v != 3 {
		t.Errorf("Map.Get(a) = %v, %v, want 3", v, ok)
	}
	if _, ok := (codec.Map{{[]any{}, 2}}).Get("a"); ok {
		t.Error("Map.Get(a) = true, want false")
	}
}

func TestMapKeysAsJavaScriptNames(t *testing.T) {
	src := unhex(t, "89"+"05"+"01"+"ff"+"02"+"cb3ff8000000000000"+"03"+"c0"+"04"+"d40000"+"05"+"c3"+"06"+"c40161"+"07"+"d578a139"+"08"+"a162"+"09")
	var got map[string]int
	if err := codec.Unmarshal(src, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"5": 1, "-1": 2, "1.5": 3, "null": 4, "undefined": 5, "true": 6, "a": 7, "9": 8, "b": 9}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys differ (-want +got):\n%s", diff)
	}
	var v any
	if err := codec.Unmarshal(unhex(t, "819001"), &v); !errors.Is(err, codec.ErrType) {
		t.Errorf("Unmarshal(array as key) = %v, %v, want ErrType", v, err)
	}
}

func TestInvalidText(t *testing.T) {
	if got := hex.EncodeToString(mustAppend(t, "a\xffb\xfe\xfe")); got != "ab61efbfbd62efbfbdefbfbd" {
		t.Errorf("Append(invalid UTF-8) = %s, want three U+FFFD", got)
	}
	var s string
	if err := codec.Unmarshal(unhex(t, "a361ff62"), &s); err != nil || s != "a\ufffdb" {
		t.Errorf("Unmarshal(invalid UTF-8) = %q, %v, want a\\ufffdb", s, err)
	}
	var b []byte
	if err := codec.Unmarshal(unhex(t, "a361ff62"), &b); err != nil || string(b) != "a\xffb" {
		t.Errorf("Unmarshal(string, *[]byte) = %q, %v, want the bytes", b, err)
	}
}

func TestCheck(t *testing.T) {
	for _, ok := range []any{user{}, point{}, 1, "", &cyclic{}, []any{}, map[string]user{}, codec.Definition{}, failing{}, codec.Fields{}} {
		if err := codec.Check(reflect.TypeOf(ok)); err != nil {
			t.Errorf("Check(%T) = %v, want nil", ok, err)
		}
	}
	for _, bad := range []any{make(chan int), struct{ A func() }{}, []map[string]chan int{}, map[complex64]int{}, mutexed{}} {
		if err := codec.Check(reflect.TypeOf(bad)); !errors.Is(err, codec.ErrUnsupported) {
			t.Errorf("Check(%T) = %v, want ErrUnsupported", bad, err)
		}
	}
}

func TestPlansAreSharedSafely(t *testing.T) {
	type a struct{ B []struct{ C map[string]*a } }
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := codec.Append(nil, a{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestArrayOfNamedBytes(t *testing.T) {
	type digit byte
	var got [3]digit
	want := [3]digit{1, 2, 3}
	src := mustAppend(t, want)
	if err := codec.Unmarshal(src, &got); err != nil || got != want {
		t.Errorf("Unmarshal(%x) = %v, %v, want %v", src, got, err, want)
	}
}
