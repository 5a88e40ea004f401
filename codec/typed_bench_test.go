package codec_test

import (
	"testing"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/codec/internal/gentest"
)

type mixed struct {
	Name  string
	Level uint8
	Count int
	Ratio float64
	Open  bool
}

// benchmarkTuple compares the ways of a call's arguments.
func benchmarkTuple[T any](b *testing.B, name string, v T) {
	typed := codec.TypedOf[T]()
	buf, n, err := codec.AppendTuple(make([]byte, 0, 2048), &v)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("append/"+name+"/typed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = typed.AppendTuple(buf[:0], &v)
		}
	})
	b.Run("append/"+name+"/any", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _, _ = codec.AppendTuple(buf[:0], &v)
		}
	})
	b.Run("decode/"+name+"/typed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var d codec.Decoder
			d.Reset(buf, codec.Limits{})
			_ = typed.DecodeTuple(&d, &v, n)
		}
	})
	b.Run("decode/"+name+"/any", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			d := codec.NewDecoder(buf, codec.Limits{})
			_ = d.DecodeTuple(&v, n)
		}
	})
}

// benchmarkValue compares the ways of a call's result.
func benchmarkValue[T any](b *testing.B, name string, v T) {
	typed := codec.TypedOf[T]()
	buf := append(make([]byte, 0, 2048), mustAppend(b, &v)...)
	b.Run("append/"+name+"/typed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = typed.Append(buf[:0], &v)
		}
	})
	b.Run("append/"+name+"/any", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_, _ = codec.Append(buf[:0], &v)
		}
	})
	b.Run("decode/"+name+"/typed", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var d codec.Decoder
			d.Reset(buf, codec.Limits{})
			_ = typed.Decode(&d, &v)
			_ = d.End()
		}
	})
	b.Run("decode/"+name+"/any", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = codec.UnmarshalLimits(buf, &v, codec.Limits{})
		}
	})
}

func BenchmarkTypedTuple(b *testing.B) {
	type floats struct{ A, B float64 }
	benchmarkTuple(b, "floats", floats{2.5, 1e9 + 0.25})
	benchmarkTuple(b, "whole", floats{5, 3})
	benchmarkTuple(b, "1KiB", struct{ V []byte }{make([]byte, 1024)})
	benchmarkTuple(b, "mixed", mixed{"name", 3, 70000, 2.5, true})
	benchmarkTuple(b, "generated", gentest.AddArgs{X: 2.5, Y: 3})
	benchmarkTuple(b, "generated6", gentest.TaggedArgs{ID: 1 << 60, Delta: -5, Name: "n", Data: []byte{1}, Tags: []string{"x"}, OK: true})
}

func BenchmarkTypedValue(b *testing.B) {
	benchmarkValue(b, "float", 2.5)
	benchmarkValue(b, "string", "a text of some 30 letters or so")
	benchmarkValue(b, "1KiB", struct{ V []byte }{make([]byte, 1024)})
	benchmarkValue(b, "mixed", mixed{"name", 3, 70000, 2.5, true})
	benchmarkValue(b, "generated", sampleTrade())
	benchmarkValue(b, "reflected", map[string]int{"a": 1})
}
