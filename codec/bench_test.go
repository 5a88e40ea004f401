package codec_test

import (
	"testing"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/codec/internal/gentest"
)

func BenchmarkAppendCall(b *testing.B) {
	buf := make([]byte, 0, 128)
	b.ReportAllocs()
	for b.Loop() {
		p := codec.AppendArrayHeader(buf, 4)
		p = codec.AppendString(p, defID)
		p = codec.AppendString(p, "add")
		p = codec.AppendFloat(p, 2.5)
		codec.AppendInt(p, 3)
	}
}

func BenchmarkDecodeCall(b *testing.B) {
	msg := mustAppend(b, []any{defID, "add", 2.5, 3})
	var x, y float64
	b.ReportAllocs()
	for b.Loop() {
		d := codec.NewDecoder(msg, codec.Limits{})
		_, _ = d.ArrayHeader()
		_, _ = d.StringBytes()
		_, _ = d.StringBytes()
		_ = d.Decode(&x)
		_ = d.Decode(&y)
	}
}

type planArgs struct{ X, Y float64 }

func BenchmarkTuple(b *testing.B) {
	for _, bb := range []struct {
		name string
		in   any
		out  any
	}{
		{"plan", &planArgs{2.5, 3}, new(planArgs)},
		{"generated", &gentest.AddArgs{X: 2.5, Y: 3}, new(gentest.AddArgs)},
	} {
		buf, n, err := codec.AppendTuple(make([]byte, 0, 128), bb.in)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("append/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = codec.AppendTuple(buf[:0], bb.in)
			}
		})
		b.Run("decode/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d := codec.NewDecoder(buf, codec.Limits{})
				_ = d.DecodeTuple(bb.out, n)
			}
		})
	}
}

// planTrade is gentest.Trade without methods.
type planTrade gentest.Trade

func BenchmarkStruct(b *testing.B) {
	trade := sampleTrade()
	plain := planTrade(trade)
	buf := mustAppend(b, &trade)
	for _, bb := range []struct {
		name    string
		in, out any
	}{{"plan", &plain, new(planTrade)}, {"generated", &trade, new(gentest.Trade)}} {
		b.Run("append/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = codec.Append(buf[:0], bb.in)
			}
		})
		b.Run("decode/"+bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = codec.Unmarshal(buf, bb.out)
			}
		})
	}
}

func BenchmarkAny(b *testing.B) {
	v := map[string]any{"id": "u1", "tags": []any{"x", "y"}, "meta": map[string]any{"n": 1, "ok": true, "none": nil}}
	buf := mustAppend(b, v)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			_, _ = codec.Append(buf[:0], v)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			d := codec.NewDecoder(buf, codec.Limits{})
			_, _ = d.Any()
		}
	})
	b.Run("skip", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(buf)))
		for b.Loop() {
			d := codec.NewDecoder(buf, codec.Limits{})
			_ = d.Skip()
		}
	})
}
