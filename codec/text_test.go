package codec_test

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/d-e-v-grid/netron/codec"
)

// TestTextIsCheckedToItsLastByte puts a byte that is no ASCII everywhere into
// texts of all the lengths around which the check changes its way.
func TestTextIsCheckedToItsLastByte(t *testing.T) {
	for n := range 80 {
		for at := range n {
			for _, mark := range []string{"\xff", "\u00e9"} {
				text := strings.Repeat("a", at) + mark + strings.Repeat("b", n-at-1)
				want := strings.ToValidUTF8(text, "\ufffd")
				b := codec.AppendString(nil, text)
				if !utf8.Valid(b[len(b)-len(want):]) || !bytes.HasSuffix(b, []byte(want)) {
					t.Fatalf("AppendString(%q) = %q, want %q at its end", text, b, want)
				}
				raw := append(codec.AppendArrayHeader(nil, 1), 0xd9, byte(len(text)))
				d := codec.NewDecoder(append(raw, text...), codec.Limits{})
				if _, err := d.ArrayHeader(); err != nil {
					t.Fatal(err)
				}
				if got, err := d.String(); got != want || err != nil {
					t.Fatalf("String() of %q = %q, %v, want %q", text, got, err, want)
				}
			}
		}
	}
}
