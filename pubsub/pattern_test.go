package pubsub

import (
	"errors"
	"regexp"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/internal/code"
)

// codeOf returns the code of an error of the package, 0 for others.
func codeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return 0
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		pattern, name string
		want          bool
	}{
		{"order:created", "order:created", true},
		{"order:created", "order:create", false},
		{"order:created", "order:created:now", false},
		{"order", "order:created", false},
		{"order:*", "order:created", true},
		{"order:*", "order", false},
		{"order:*", "order:created:now", false},
		{"order:**", "order:created", true},
		{"order:**", "order:created:by:ann", true},
		{"order:**", "order", false},
		{"order:**", "orders:created", false},
		{"*:created", "order:created", true},
		{"*:created", "created", false},
		{"*:created", "a:b:created", false},
		{"order:*:paid", "order:7:paid", true},
		{"order:*:paid", "order:7:sent", false},
		{"order:*:*", "order:7:sent", true},
		{"order:*:**", "order:7", false},
		{"order:*:**", "order:7:sent:late", true},
		{"*", "order", true},
		{"*", "order:created:now", true},
		{"**", "order:created:now", true},
		{"*:*", "order", false},
		{"*:*", "order:created", true},
		{"*:**", "order:created:now", true},

		// Internal names are matched only by what begins with their first segment.
		{"*", "service:expose", false},
		{"**", "service:expose", false},
		{"*:expose", "service:expose", false},
		{"*:*", "peer:connect", false},
		{"*:**", "discovery:event", false},
		{"service:*", "service:expose", true},
		{"service:**", "service:unexpose", true},
		{"peer:disconnect", "peer:disconnect", true},
		{"*", "service:exposed", true},
		{"*", "service", true},
	} {
		if got := Matches(tc.pattern, tc.name); got != tc.want {
			t.Errorf("Matches(%q, %q) = %t, want %t", tc.pattern, tc.name, got, tc.want)
		}
		if got := naiveMatch(tc.pattern, tc.name); got != tc.want {
			t.Errorf("naiveMatch(%q, %q) = %t, want %t", tc.pattern, tc.name, got, tc.want)
		}
		b := newBus(t, Config{})
		subscribe(t, b, tc.pattern, returns(nil))
		if got := b.HasHandlers(tc.name); got != tc.want {
			t.Errorf("a bus with %q has handlers for %q: %t, want %t", tc.pattern, tc.name, got, tc.want)
		}
	}
}

// naiveMatch is another way to say what patterns match: by a regular expression.
func naiveMatch(pattern, name string) bool {
	if pattern == wildcard {
		pattern = wildRest
	}
	if pattern[0] == '*' && Internal(name) {
		return false
	}
	var parts []string
	for segment := range strings.SplitSeq(pattern, separator) {
		switch segment {
		case wildcard:
			parts = append(parts, `[^:]+`)
		case wildRest:
			parts = append(parts, `[^:]+(:[^:]+)*`)
		default:
			parts = append(parts, regexp.QuoteMeta(segment))
		}
	}
	return regexp.MustCompile(`(?s)\A` + strings.Join(parts, ":") + `\z`).MatchString(name)
}

func TestChecks(t *testing.T) {
	long, deep := strings.Repeat("a", 256), strings.Repeat("a:", 15)+"a"
	for _, tc := range []struct {
		s             string
		name, pattern bool
	}{
		{"order:created", true, true},
		{"a", true, true},
		{"größe:日本", true, true},
		{"with space:and.dots-and_more/x", true, true},
		{"*", false, true},
		{"**", false, true},
		{"a:*", false, true},
		{"a:**", false, true},
		{"*:a", false, true},
		{"a:*:b:**", false, true},
		{"a*", false, false},
		{"a:*b", false, false},
		{"***", false, false},
		{"**:a", false, false},
		{"a:**:*", false, false},
		{"", false, false},
		{":", false, false},
		{":a", false, false},
		{"a:", false, false},
		{"a::b", false, false},
		{"a\xff", false, false},
		{long, true, true},
		{long + "a", false, false},
		{deep, true, true},
		{deep + ":a", false, false},
	} {
		for _, check := range []struct {
			what string
			err  error
			want bool
		}{
			{"CheckName", CheckName(tc.s), tc.name},
			{"CheckPattern", CheckPattern(tc.s), tc.pattern},
		} {
			if (check.err == nil) != check.want {
				t.Errorf("%s(%q) = %v, want valid %t", check.what, tc.s, check.err, check.want)
			}
			if check.err != nil && codeOf(check.err) != code.InvalidArgument {
				t.Errorf("%s(%q) has the code %v", check.what, tc.s, codeOf(check.err))
			}
		}
		b := newBus(t, Config{})
		if _, err := b.Subscribe(tc.s, returns(nil)); (err == nil) != tc.pattern {
			t.Errorf("Subscribe(%q) = %v, want valid %t", tc.s, err, tc.pattern)
		}
		if _, err := b.EmitSerial(t.Context(), tc.s); (err == nil) != tc.name {
			t.Errorf("EmitSerial(%q) = %v, want valid %t", tc.s, err, tc.name)
		}
	}
}

func TestLimitsOfNames(t *testing.T) {
	b := newBus(t, Config{MaxNameBytes: 5, MaxSegments: 2, Internal: []string{"n:up"}})
	for s, want := range map[string]bool{"a:b": true, "abcde": true, "abcdef": false, "a:b:c": false} {
		if _, err := b.Subscribe(s, returns(nil)); (err == nil) != want {
			t.Errorf("Subscribe(%q) = %v, want valid %t", s, err, want)
		}
		if _, err := b.EmitParallel(t.Context(), s); (err == nil) != want {
			t.Errorf("EmitParallel(%q) = %v, want valid %t", s, err, want)
		}
	}
	if _, err := New(Config{Internal: []string{"a:*"}}); codeOf(err) != code.InvalidArgument {
		t.Errorf("New with a pattern for an internal name = %v", err)
	}
	none := newBus(t, Config{MaxNameBytes: -1, MaxSegments: -1})
	if err := none.CheckPattern(strings.Repeat("a:", 1000) + "*"); err != nil {
		t.Errorf("without limits: %v", err)
	}
}

func FuzzPattern(f *testing.F) {
	for _, seed := range [][2]string{
		{"order:*", "order:created"}, {"*", "service:expose"}, {"a:**", "a:b:c"}, {"*:b:*", "a:b:c"}, {"a::b", ""}, {"a*", "*"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		patternErr, nameErr := CheckPattern(pattern), CheckName(name)
		if (CheckName(pattern) == nil) != (patternErr == nil && isLiteral(pattern)) {
			t.Fatalf("CheckName(%q) = %v, CheckPattern = %v", pattern, CheckName(pattern), patternErr)
		}
		b, err := New(Config{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := b.Subscribe(pattern, returns(nil))
		if (err == nil) != (patternErr == nil) {
			t.Fatalf("Subscribe(%q) = %v, CheckPattern = %v", pattern, err, patternErr)
		}
		if err != nil || nameErr != nil {
			return
		}
		want := naiveMatch(pattern, name)
		if got := Matches(pattern, name); got != want {
			t.Fatalf("Matches(%q, %q) = %t, want %t", pattern, name, got, want)
		}
		if got := b.HasHandlers(name); got != want {
			t.Fatalf("a bus with %q has handlers for %q: %t, want %t", pattern, name, got, want)
		}
		if !b.IsSubscribed(pattern) {
			t.Fatalf("IsSubscribed(%q) = false", pattern)
		}
		s.Unsubscribe()
		if b.HasHandlers(name) || b.IsSubscribed(pattern) || len(b.Patterns()) > 0 || !b.root.isBare() {
			t.Fatalf("something of %q is left", pattern)
		}
	})
}

// isBare reports whether the trie has nothing in it.
func (n *node) isBare() bool {
	return n.count == 0 && n.kids.Load() == nil && n.star.Load() == nil && n.ends.Load() == nil && n.rest.Load() == nil
}
