package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name string
		hex  string
		want Packet
		err  error
	}{
		{"ping", "0000000240c0", Packet{ID: 2, Flags: 0x40, Payload: []byte{0xc0}}, nil},
		{"call answer", "000000050308", Packet{ID: 5, Flags: 0x03, Payload: []byte{8}}, nil},
		{"error answer", "ffffffff84c0", Packet{ID: 0xffffffff, Flags: 0x84, Payload: []byte{0xc0}}, nil},
		{"stream chunk", "0000001f45c404010203040000000100000002", Packet{
			ID: 0x1f, Flags: 0x45, Payload: []byte{0xc4, 4, 1, 2, 3, 4}, StreamID: 1, StreamIndex: 2,
		}, nil},
		{"stream end", "0000002055c08000000100000002", Packet{
			ID: 0x20, Flags: 0x55, Payload: []byte{0xc0}, StreamID: 0x80000001, StreamIndex: 2,
		}, nil},
		{"empty", "", Packet{}, ErrShort},
		{"four bytes", "00000001", Packet{}, ErrShort},
		{"no payload", "0000000143", Packet{ID: 1, Flags: 0x43}, ErrNoPayload},
		{"stream without trailer", "0000000145c0", Packet{ID: 1, Flags: 0x45}, ErrShort},
		{"stream without payload", "00000001450000000100000002", Packet{ID: 1, Flags: 0x45, StreamID: 1, StreamIndex: 2}, ErrNoPayload},
	}
	for _, tt := range tests {
		b, err := hex.DecodeString(tt.hex)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(b)
		if !errors.Is(err, tt.err) || got.ID != tt.want.ID || got.Flags != tt.want.Flags || !bytes.Equal(got.Payload, tt.want.Payload) ||
			got.StreamID != tt.want.StreamID || got.StreamIndex != tt.want.StreamIndex {
			t.Errorf("%s: Parse(%s) = %+v, %v, want %+v, %v", tt.name, tt.hex, got, err, tt.want, tt.err)
		}
	}
}

func TestFlags(t *testing.T) {
	tests := []struct {
		f                         Flags
		typ                       Type
		impulse, isErr, eos, live bool
	}{
		{0x40, TypePing, true, false, false, false},
		{0x43, TypeCall, true, false, false, false},
		{0x83, TypeCall, false, true, false, false},
		{0x53, TypeCall, true, false, false, false}, // bit 4 means end of stream in STREAM packets only
		{0x75, TypeStream, true, false, true, true},
		{0x45, TypeStream, true, false, false, false},
		{0x47, TypeStreamClose, true, false, false, false},
		{0x4f, Type(15), true, false, false, false},
	}
	for _, tt := range tests {
		if tt.f.Type() != tt.typ || tt.f.Impulse() != tt.impulse || tt.f.Error() != tt.isErr || tt.f.EOS() != tt.eos || tt.f.Live() != tt.live {
			t.Errorf("Flags(%#x) = %v impulse %v error %v eos %v live %v, want %+v", byte(tt.f), tt.f.Type(), tt.f.Impulse(), tt.f.Error(), tt.f.EOS(), tt.f.Live(), tt)
		}
	}
	if got := Request(TypeTask); got != 0x44 {
		t.Errorf("Request(TASK) = %#x, want 0x44", byte(got))
	}
	if got := Response(TypeGet, true); got != 0x81 {
		t.Errorf("Response(GET, true) = %#x, want 0x81", byte(got))
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0000000240c0", "0000001f45c404010203040000000100000002", "0000000145c0", "00000001"} {
		b, _ := hex.DecodeString(s)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		out := append(AppendHeader(nil, p.ID, p.Flags), p.Payload...)
		if p.Flags.Type() == TypeStream {
			out = AppendTrailer(out, p.StreamID, p.StreamIndex)
		}
		if !bytes.Equal(out, b) {
			t.Errorf("append(Parse(%x)) = %x, want the same", b, out)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	p, _ := hex.DecodeString("000000050308")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Parse(p); err != nil {
			b.Fatal(err)
		}
	}
}
