package codec_test

import (
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/codec"
)

func bigOf(t testing.TB, s string) *big.Int {
	t.Helper()
	b, ok := new(big.Int).SetString(s, 10)
	if !ok {
		t.Fatalf("bad integer %q", s)
	}
	return b
}

func TestAppendNumbers(t *testing.T) {
	for _, tt := range []struct {
		in   any
		want string
	}{
		{uint8(200), "ccc8"},
		{int8(-128), "d080"},
		{int16(-129), "d1ff7f"},
		{uint16(65535), "cdffff"},
		{int32(math.MinInt32), "d280000000"},
		{uint32(math.MaxUint32), "ceffffffff"},
		{int64(1 << 32), "cb41f0000000000000"},
		{int64(1 << 53), "cb4340000000000000"},
		{int64(1<<53 + 1), "c71178b039303037313939323534373430393933"},
		{int64(-1<<53 - 1), "c71278b12d39303037313939323534373430393933"},
		{int64(math.MinInt64), "c71578b42d39323233333732303336383534373735383038"},
		{uint64(math.MaxUint64), "c71578b43138343436373434303733373039353531363135"},
		{uint(5), "05"},
		{float32(1.5), "cb3ff8000000000000"},
		{2.0, "02"},
		{-2147483648.0, "d280000000"},
		{-2147483649.0, "cbc1e0000000200000"},
		{4294967295.0, "ceffffffff"},
		{4294967296.0, "cb41f0000000000000"},
		{math.Copysign(0, -1), "00"},
		{math.NaN(), "cb7ff8000000000000"},
		{codec.Float(3), "03"},
		{codec.Int(-1), "ff"},
		{codec.Uint(1 << 40), "cb4270000000000000"},
		{big.NewInt(5), "d578a135"},
		{*big.NewInt(-5), "c70378a22d35"},
		{(*big.Int)(nil), "c0"},
	} {
		if got := hex.EncodeToString(mustAppend(t, tt.in)); got != tt.want {
			t.Errorf("Append(%T %v) = %s, want %s", tt.in, tt.in, got, tt.want)
		}
	}
}

func TestNumbersByValue(t *testing.T) {
	const (
		two63  = "c7097701" + "8000000000000000"                                        // Long, unsigned
		minus1 = "c7097700" + "ffffffffffffffff"                                        // Long, signed
		big53  = "c71178b039303037313939323534373430393933"                             // 2^53+1
		huge   = "c71f78be313233343536373839303132333435363738393031323334353637383930" // 30 digits
	)
	for _, tt := range []struct {
		src     string
		want    any // a value of the target's type, or the text of the error
		target  any
		wantErr error
	}{
		{"02", int(2), int(0), nil},
		{"cb4000000000000000", int(2), int(0), nil},
		{"cb3ff8000000000000", "codec: 1.5 is not an integer", int(0), codec.ErrRange},
		{"cb7ff8000000000000", "codec: NaN is not an integer", int64(0), codec.ErrRange},
		{"cb7ff0000000000000", "codec: +Inf is not an integer", int64(0), codec.ErrRange},
		{"cd012c", "codec: 300 overflows uint8", uint8(0), codec.ErrRange},
		{"cc80", "codec: 128 overflows int8", int8(0), codec.ErrRange},
		{"d080", int8(-128), int8(0), nil},
		{"ff", "codec: -1 overflows uint64", uint64(0), codec.ErrRange},
		{"ff", "codec: -1 overflows uint16", uint16(0), codec.ErrRange},
		{"cd8000", "codec: 32768 overflows int16", int16(0), codec.ErrRange},
		{"ce80000000", "codec: 2147483648 overflows int32", int32(0), codec.ErrRange},
		{"cf0000000100000000", "codec: 4294967296 overflows uint32", uint32(0), codec.ErrRange},
		{"cfffffffffffffffff", uint64(math.MaxUint64), uint64(0), nil},
		{"cfffffffffffffffff", "codec: 18446744073709551615 overflows int64", int64(0), codec.ErrRange},
		{"d38000000000000000", int64(math.MinInt64), int64(0), nil},
		{"d3ffffffffffffffff", int8(-1), int8(0), nil},
		{"cb43e0000000000000", uint64(1 << 63), uint64(0), nil},
		{"cb43e0000000000000", "codec: 9.223372036854776e+18 overflows int64", int64(0), codec.ErrRange},
		{"cbc3e0000000000000", int64(math.MinInt64), int64(0), nil},
		{"cb7e37e43c8800759c", "codec: 1e+300 overflows int64", int64(0), codec.ErrRange},
		{"cb7e37e43c8800759c", "codec: 1e+300 overflows uint64", uint64(0), codec.ErrRange},
		{"ca3fc00000", 1.5, 0.0, nil},
		{"cb3fb999999999999a", float32(0.1), float32(0), nil},
		{"cb7e37e43c8800759c", "codec: 1e+300 overflows float32", float32(0), codec.ErrRange},
		{"cbfff0000000000000", float32(math.Inf(-1)), float32(0), nil},
		{"03", 3.0, 0.0, nil},
		{"cf0020000000000001", "codec: 9007199254740993 is not exact as a float64", 0.0, codec.ErrRange},
		{"cf8000000000000000", 9.223372036854775808e18, 0.0, nil},
		{"cf7fffffffffffffff", "codec: 9223372036854775807 is not exact as a float64", 0.0, codec.ErrRange},
		{"cfffffffffffffffff", "codec: 18446744073709551615 is not exact as a float64", 0.0, codec.ErrRange},
		{two63, uint64(1 << 63), uint64(0), nil},
		{two63, 9.223372036854775808e18, 0.0, nil},
		{minus1, int(-1), int(0), nil},
		{minus1, "codec: -1 overflows uint8", uint8(0), codec.ErrRange},
		{big53, int64(1<<53 + 1), int64(0), nil},
		{big53, uint64(1<<53 + 1), uint64(0), nil},
		{big53, "codec: 9007199254740993 is not exact as a float64", 0.0, codec.ErrRange},
		{huge, "codec: 123456789012345678901234567890 overflows int64", int64(0), codec.ErrRange},
		{huge, *bigOf(t, "123456789012345678901234567890"), big.Int{}, nil},
		{"cb4480f0cf064dd592", *bigOf(t, "10000000000000000000000"), big.Int{}, nil}, // 1e22 is exact
		{"cfffffffffffffffff", *bigOf(t, "18446744073709551615"), big.Int{}, nil},
		{"cb3ff8000000000000", "codec: 1.5 is not an integer", big.Int{}, codec.ErrRange},
		{"cb7ff8000000000000", "codec: NaN is not an integer", big.Int{}, codec.ErrRange},
		{"a131", "codec: a string is not a number", int(0), codec.ErrType},
		{"c0", "codec: nil is not a number", 0.0, codec.ErrType},
		{"d40000", "codec: undefined is not a number", int(0), codec.ErrType},
		{"c3", "codec: a boolean is not a number", uint(0), codec.ErrType},
		{"05", codec.Long{Bits: 5}, codec.Long{}, nil},
		{"cfffffffffffffffff", codec.Long{Bits: math.MaxUint64, Unsigned: true}, codec.Long{}, nil},
		{"d578a17a", "codec: BigInt is not a decimal number", big.Int{}, codec.ErrMalformed},
		{"d578a12d", "codec: BigInt is not a decimal number", big.Int{}, codec.ErrMalformed},
		{"d478a0", "codec: BigInt is not a decimal number", big.Int{}, codec.ErrMalformed},
		{"d57805c0", "codec: a number is not a string", big.Int{}, codec.ErrType},
	} {
		target := reflect.New(reflect.TypeOf(tt.target))
		err := codec.Unmarshal(unhex(t, tt.src), target.Interface())
		// The same through reflection alone.
		d := codec.NewDecoder(unhex(t, tt.src), codec.Limits{})
		again := reflect.New(target.Type().Elem()).Elem()
		errAgain := d.DecodeValue(again)
		if text, ok := tt.want.(string); ok {
			if err == nil || err.Error() != text || !errors.Is(err, tt.wantErr) {
				t.Errorf("Unmarshal(%s, %T) = %v, %v, want error %q (%v)", tt.src, target.Interface(), target.Elem(), err, text, tt.wantErr)
			}
			if errAgain == nil || errAgain.Error() != text {
				t.Errorf("DecodeValue(%s, %T) = %v, want error %q", tt.src, target.Interface(), errAgain, text)
			}
			continue
		}
		for _, got := range []any{target.Elem().Interface(), again.Interface()} {
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b big.Int) bool { return a.Cmp(&b) == 0 })); diff != "" || err != nil || errAgain != nil {
				t.Errorf("Unmarshal(%s, %T) = %v, %v, %v, want %v", tt.src, target.Interface(), got, err, errAgain, tt.want)
			}
		}
	}
}

func TestAnyNumbersDoNotDependOnForm(t *testing.T) {
	for _, tt := range []struct {
		src  []string
		want any
	}{
		{[]string{"05", "cc05", "cd0005", "ce00000005", "cf0000000000000005", "d005", "d30000000000000005", "ca40a00000", "cb4014000000000000"}, int64(5)},
		{[]string{"cb4340000000000000", "cf0020000000000000"}, int64(1 << 53)},
		{[]string{"cf8000000000000000"}, uint64(1 << 63)},
		{[]string{"cb43e0000000000000"}, float64(1 << 63)},
		{[]string{"cb8000000000000000"}, int64(0)},
	} {
		for _, src := range tt.src {
			var got any
			if err := codec.Unmarshal(unhex(t, src), &got); err != nil || got != tt.want {
				t.Errorf("Unmarshal(%s) = %T %v, %v, want %T %v", src, got, got, err, tt.want, tt.want)
			}
		}
	}
}

func TestJSNumber(t *testing.T) {
	for f, want := range map[float64]string{
		0: "0", math.Copysign(0, -1): "0", 1: "1", -1.5: "-1.5", 1e20: "100000000000000000000", 1e21: "1e+21",
		1e-6: "0.000001", 1e-7: "1e-7", 5e-324: "5e-324", 1.5e300: "1.5e+300", math.Inf(1): "Infinity", math.Inf(-1): "-Infinity",
	} {
		if got := codec.JSNumber(f); got != want {
			t.Errorf("jsNumber(%g) = %s, want %s", f, got, want)
		}
	}
	if got := codec.JSNumber(math.NaN()); got != "NaN" {
		t.Errorf("jsNumber(NaN) = %s, want NaN", got)
	}
}

func TestHugeBigIntInMessage(t *testing.T) {
	src := mustAppend(t, bigOf(t, strings.Repeat("9", 400)))
	var i int64
	err := codec.Unmarshal(src, &i)
	if want := "codec: an integer of 1329 bits overflows int64"; err == nil || err.Error() != want {
		t.Errorf("Unmarshal(400 digits) = %v, want %s", err, want)
	}
}
