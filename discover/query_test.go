package discover

import (
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/internal/code"
)

func TestQueries(t *testing.T) {
	for _, tc := range []struct {
		query  string
		offers string // what a node must have one of, divided by blanks
		want   bool
	}{
		{"s", "s", true},
		{"s", "s@1.0.0", true},
		{"s", "t", false},
		{"s", "s@2.0.0-beta.1", false},
		{"s", "s@2.0.0-beta.1 s@1.9.9", true},
		{"s@*", "s", true},
		{"s@*", "s@1.0.0", true},
		{"s:1.0.0", "s@1.0.0", true},
		{"s@1.0.0", "s@1.0.0", true},
		{"s@1.0.0", "s", false},
		{"s@1.0.0", "s@1.0.1", false},
		{"s@2.0.0-beta.1", "s@2.0.0-beta.1", true},
		{"s@^1.2", "s@1.2.0", true},
		{"s@^1.2", "s@1.9.9", true},
		{"s@^1.2", "s@2.0.0", false},
		{"s@^1.2", "s@1.1.0 s@2.0.0", false},
		{"s@^1.2", "s", false},
		{"s@^1.2", "s@1.3.0-rc.1", false},
		{"s@>=1.3.0-0", "s@1.3.0-rc.1", true},
		{"s@1.2", "s@1.2.7", true},
		{"s@1.2", "s@1.2", true}, // what peers of version 0.6 may have
		{"s@1.2", "s@1.3.0", false},
		{"s@1.x", "s@1.3.0", true},
		{"s@>=1.0.0 <1.5.0 || 3", "s@3.1.0", true},
		{"s@nonsense", "s@nonsense", false},
		{"s@1.0.0", "s@nonsense", false},
		{"s", "s@nonsense", false},
		{"", "s", false},
		{"@1.0.0", "s@1.0.0", false},
	} {
		n := Node{Services: sorted(services(strings.Fields(tc.offers)...))}
		if got := n.Offers(tc.query); got != tc.want {
			t.Errorf("%q offers %q = %t, want %t", tc.offers, tc.query, got, tc.want)
		}
	}
	for _, q := range []string{"", "@1.0.0", "s@x y z", "s@^^1", "s@" + strings.Repeat("1", 300)} {
		if err := CheckQuery(q); codeOf(err) != code.InvalidArgument {
			t.Errorf("CheckQuery(%q) = %v", q, err)
		}
	}
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{"s", "s@1.0.0", "s@^1.2", "s@*", "s:1", "@", "s@>=1 <2 || 3"} {
		f.Add(s, "1.2.3")
	}
	f.Fuzz(func(t *testing.T, query, version string) {
		q, err := parseQuery(query)
		if (err == nil) != (CheckQuery(query) == nil) {
			t.Errorf("CheckQuery(%q) disagrees with %v", query, err)
		}
		n := Node{Services: []Service{{Name: q.name, Version: version}}}
		if n.Offers(query) && (err != nil || q.name == "") {
			t.Errorf("%+v offers %q, which is %v", n.Services, query, err)
		}
	})
}
