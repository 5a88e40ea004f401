package netron_test

import (
	"encoding/hex"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/rpc"
)

// example is a row of a table in docs/protocol.md that shows bytes.
type example struct {
	section string
	what    string // a value or a packet, as the head of the table says
	text    string
	bytes   []byte
}

// TestProtocolExamples proves that the bytes in docs/protocol.md are what the
// document says about them.
func TestProtocolExamples(t *testing.T) {
	examples := protocolExamples(t)
	if len(examples) < 40 {
		t.Fatalf("docs/protocol.md has %d examples with bytes, want at least 40", len(examples))
	}
	for _, e := range examples {
		t.Run(e.section+"/"+e.text, func(t *testing.T) {
			if e.what == "value" {
				checkValue(t, e.bytes)
				return
			}
			p, err := wire.Parse(e.bytes)
			if err != nil {
				t.Fatalf("wire.Parse: %v", err)
			}
			d := codec.NewDecoder(p.Payload, codec.Limits{})
			values := 1
			if e.section == "12.3" {
				values = 2
			}
			for range values {
				if err := d.Skip(); err != nil {
					t.Fatalf("payload: %v", err)
				}
			}
			if err := d.End(); err != nil {
				t.Errorf("payload: %v", err)
			}
		})
	}
}

// checkValue decodes and encodes b, which must come out as it was. Undefined in
// an array or an object becomes nil, so that values with it are only decoded.
func checkValue(t *testing.T, b []byte) {
	t.Helper()
	var v any
	if err := codec.Unmarshal(b, &v); err != nil {
		t.Fatalf("codec.Unmarshal: %v", err)
	}
	const undefined, ext8 = "\xd4\x00\x00", 0xc7
	if strings.Contains(string(b), undefined) && b[0] != ext8 {
		return
	}
	got, err := codec.Append(nil, v)
	if err != nil {
		t.Fatalf("codec.Append: %v", err)
	}
	if hex.EncodeToString(got) != hex.EncodeToString(b) {
		t.Errorf("codec.Append = %x, want %x", got, b)
	}
}

var (
	headingLine = regexp.MustCompile(`^##+ ([0-9.]+) `)
	exampleRow  = regexp.MustCompile("^\\| (.+) \\| `([0-9a-f]{2,})` \\|$")
)

func protocolExamples(t *testing.T) []example {
	t.Helper()
	text, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples []example
	var section, what string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if m := headingLine.FindStringSubmatch(line); m != nil {
			section = m[1]
		}
		switch {
		case line == "| value | hex |":
			what = "value"
		case line == "| packet | hex |":
			what = "packet"
		case !strings.HasPrefix(line, "|"):
			what = ""
		}
		m := exampleRow.FindStringSubmatch(line)
		if what == "" || m == nil {
			continue
		}
		b, err := hex.DecodeString(m[2])
		if err != nil {
			t.Errorf("section %s: %s: %v", section, m[1], err)
		}
		examples = append(examples, example{section: section, what: what, text: m[1], bytes: b})
	}
	return examples
}

// TestProtocolCodes compares the table of section 6.5 with package rpc.
func TestProtocolCodes(t *testing.T) {
	text, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| code | number |")
	table, _, _ = strings.Cut(table, "\n\n")
	documented := make(map[string]int)
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([0-9]+|none) \\|").FindAllStringSubmatch(table, -1) {
		documented[row[1]], _ = strconv.Atoi(row[2]) // none is 0
	}
	for c := rpc.Canceled; c <= rpc.Unauthenticated; c++ {
		number, ok := documented[c.String()]
		if !ok || number != c.Number() {
			t.Errorf("section 6.5 says %d, %t for %v, want %d", number, ok, c, c.Number())
		}
		delete(documented, c.String())
	}
	if len(documented) > 0 {
		t.Errorf("section 6.5 has codes that package rpc does not: %v", documented)
	}
}

// TestProtocolSections shows that every section that the code cites is there.
func TestProtocolSections(t *testing.T) {
	text, err := os.ReadFile("docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	sections := make(map[string]bool)
	for line := range strings.Lines(string(text)) {
		if m := headingLine.FindStringSubmatch(line); m != nil {
			sections[m[1]] = true
		}
	}
	// Comments are wrapped, so that a line may end inside the citation.
	cited := regexp.MustCompile(`(?i)protocol[\s/]+sections?[\s/]+([0-9]+(?:\.[0-9]+)*)`)
	for _, file := range goFiles(t) {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range cited.FindAllStringSubmatch(string(source), -1) {
			if !sections[m[1]] {
				t.Errorf("%s cites protocol section %s, which docs/protocol.md does not have", file, m[1])
			}
		}
	}
}
