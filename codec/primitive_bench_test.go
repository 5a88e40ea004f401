package codec_test

import (
	"math"
	"testing"

	"github.com/d-e-v-grid/netron/codec"
)

func BenchmarkAppendPrimitive(b *testing.B) {
	buf := make([]byte, 0, 2048)
	for _, bb := range []struct {
		name string
		f    float64
	}{{"small", 3}, {"whole", 70000}, {"fraction", 2.5}, {"large", 1e300}} {
		b.Run("float/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				codec.AppendFloat(buf, bb.f)
			}
		})
	}
	for _, bb := range []struct {
		name string
		i    int64
	}{{"small", 3}, {"negative", -300}, {"wide", math.MaxUint32}, {"wider", 1 << 40}} {
		b.Run("int/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				codec.AppendInt(buf, bb.i)
			}
		})
	}
	for _, bb := range []struct {
		name, s string
	}{{"3B", "add"}, {"36B", defID}, {"1KiB", string(make([]byte, 1024))}} {
		b.Run("string/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				codec.AppendString(buf, bb.s)
			}
		})
	}
}

func BenchmarkDecodePrimitive(b *testing.B) {
	b.Run("new", func(b *testing.B) {
		src := []byte{1}
		b.ReportAllocs()
		for b.Loop() {
			d := codec.NewDecoder(src, codec.Limits{})
			if d.Len() != 1 {
				b.Fatal("Len")
			}
		}
	})
	b.Run("reset", func(b *testing.B) {
		src := []byte{1}
		b.ReportAllocs()
		var d codec.Decoder
		for b.Loop() {
			d.Reset(src, codec.Limits{})
			if d.Len() != 1 {
				b.Fatal("Len")
			}
		}
	})
	for _, bb := range []struct {
		name string
		v    float64
	}{{"small", 3}, {"whole", 70000}, {"fraction", 2.5}} {
		src := mustAppend(b, bb.v)
		b.Run("float/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := codec.NewDecoder(src, codec.Limits{})
				if _, err := d.Float64(); err != nil {
					b.Fatal(err)
				}
				if err := d.End(); err != nil {
					b.Fatal(err)
				}
			}
		})
		if bb.v != math.Trunc(bb.v) {
			continue
		}
		b.Run("int/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := codec.NewDecoder(src, codec.Limits{})
				if _, err := d.Int64(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	for _, bb := range []struct {
		name, s string
	}{{"3B", "add"}, {"36B", defID}} {
		src := mustAppend(b, bb.s)
		b.Run("string/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := codec.NewDecoder(src, codec.Limits{})
				if _, err := d.StringBytes(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	call := mustAppend(b, []any{defID, "add", 5, 3})
	b.Run("head", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := codec.NewDecoder(call, codec.Limits{})
			n, err := d.ArrayHeader()
			if err != nil || n != 4 {
				b.Fatal(n, err)
			}
			if _, err := d.StringBytes(); err != nil {
				b.Fatal(err)
			}
			if _, err := d.StringBytes(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("skip/call", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := codec.NewDecoder(call, codec.Limits{})
			if err := d.Skip(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("skip/float", func(b *testing.B) {
		src := []byte{0xcb, 1, 2, 3, 4, 5, 6, 7, 8}
		b.ReportAllocs()
		for b.Loop() {
			d := codec.NewDecoder(src, codec.Limits{})
			if err := d.Skip(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
