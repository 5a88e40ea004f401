package rpc

import (
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"

	"github.com/d-e-v-grid/netron/mux"
)

var versionsOfA = []string{
	"a@1.2.0", "a@1.4.1", "a@1.4.10", "a@1.10.0", "a@2.0.0-beta.1", "a@2.0.0-rc.1", "a@0.3.1", "a@0.4.0",
	"b", "b@3.0.0", "c@1.0.0-rc.1", "a.x@1.9.0", "d@1.0.0+b", "d@1.0.0+a", "d@1.0.0-x+c", "e",
}

// rangesOfA are queries and what they find.
var rangesOfA = map[string]string{
	"a@^1.2":              "a@1.10.0",
	"a@^1.2.0":            "a@1.10.0",
	"a@^1.11":             "",
	"a@~1.4":              "a@1.4.10",
	"a@~1.4.2":            "a@1.4.10",
	"a@1.4.x":             "a@1.4.10",
	"a@1.x":               "a@1.10.0",
	"a@1":                 "a@1.10.0",
	"a@1.4":               "a@1.4.10",
	"a@>=1 <2":            "a@1.10.0",
	"a@>=1, <1.10":        "a@1.4.10",
	"a@>1.4.1 <1.4.10":    "",
	"a@<1":                "a@0.4.0",
	"a@^0.3":              "a@0.3.1",
	"a@1.2.0 - 1.4.1":     "a@1.4.1",
	"a@^0.3 || ~1.2":      "a@1.2.0",
	"a@!=1.10.0":          "a@1.4.10",
	"a@=1.2.0":            "a@1.2.0",
	"a@v1.2.0":            "a@1.2.0",
	"a@x":                 "a@1.10.0",
	"a@>=0":               "a@1.10.0",
	"a:^1.2":              "a@1.10.0",
	"a@^2":                "", // prereleases only if the range names one
	"a@>=2.0.0-beta":      "a@2.0.0-rc.1",
	"a@^2.0.0-beta.1":     "a@2.0.0-rc.1",
	"a@<2.0.0-rc.1 >=1":   "a@2.0.0-beta.1",
	"a@^2 || ^3.0.0-beta": "", // for each alternative by itself
	"b@^3":                "b@3.0.0",
	"b@>=0":               "b@3.0.0", // not the one without a version
	"c@^1":                "",
	"c@^1.0.0-rc.0":       "c@1.0.0-rc.1",
	"a.x@^1":              "a.x@1.9.0",
	"d":                   "d@1.0.0+b", // of equal versions always the same
	"d@^1":                "d@1.0.0+b",
	"d@1.0.0+a":           "d@1.0.0+a",
	"e@*":                 "e",
	"e@>=0":               "",
	"x@^1":                "",
}

var badRanges = []string{
	"a@^", "a@nonsense", "a@1.2.3.4", "a@>=1 <", "a@^1 ||", "a@ ", "a@^1 and ^2", "a@1|2", "a@99999999999999999999", "a@1.2.0@3",
	"a@" + strings.Repeat("1||", 40) + "1",
}

func TestRanges(t *testing.T) {
	e := newEndpoint(t, Config{})
	for _, name := range versionsOfA {
		if err := e.Expose(name, &sample{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 5 { // maps have no order
		for qualified, want := range rangesOfA {
			got := ""
			stub, err := e.Local().Service(t.Context(), qualified)
			if err == nil {
				got = joinName(stub.Name(), stub.Version())
			}
			if got != want || (want == "" && CodeOf(err) != NotFound) {
				t.Errorf("Service(%q) = %q, %v, want %q", qualified, got, err, want)
			}
		}
	}
	for _, qualified := range append(badRanges, "a@"+strings.Repeat(" ", 300)) {
		if _, err := e.Local().Service(t.Context(), qualified); CodeOf(err) != InvalidArgument {
			t.Errorf("Service(%q) = %v, want invalid_argument", qualified, err)
		}
		// A peer that does not look itself gets the same answer.
		err := e.Local().RunTask(t.Context(), "query_interface", nil, qualified)
		if got, ok := err.(*Error); !ok || got.Code != InvalidArgument || !got.Remote() {
			t.Errorf("query_interface(%q) = %v, want invalid_argument from the peer", qualified, err)
		}
	}
	if _, err := Query[struct{}](t.Context(), e.Local(), "a@^1.2"); err != nil {
		t.Errorf("Query of a range = %v, want nil", err)
	}
	_, err := e.Local().Service(t.Context(), "a@^^1")
	if want := `invalid_argument: rpc: "^^1" of service "a" is neither a version nor a range of versions: improper constraint: "^^1"`; err == nil || err.Error() != want {
		t.Errorf("Service of a bad range = %v, want %s", err, want)
	}
}

// TestRangesOfPeers looks at what peers of each kind are asked for.
func TestRangesOfPeers(t *testing.T) {
	const query = "query_interface "
	for _, kind := range []mux.Kind{mux.KindNode, mux.KindBrowser, 0} {
		sp := newScripted(t, kind, typeScript("1.4.0", "1.2.0"))
		for _, tt := range []struct{ qualified, asked, want string }{
			{"a@^1.2", "a", "a@1.4.0"},
			{"a@*", "a", "a@1.4.0"},
			{"a", "a", "a@1.4.0"},
			{"a@1.2.0", "a@1.2.0", "a@1.2.0"},
			{"a@~1.2", "a", ""}, // which it has, and does not tell
			{"b@^1", "b", ""},
			{"a@1.3.0", "a@1.3.0", ""},
		} {
			got, err := sp.service(t.Context(), tt.qualified)
			if got != tt.want || (tt.want == "" && CodeOf(err) != NotFound) {
				t.Errorf("%v: Service(%q) = %q, %v, want %q", kind, tt.qualified, got, err, tt.want)
			}
			sp.wantRuns(tt.qualified, query+tt.asked)
		}
		_, err := sp.service(t.Context(), "a@^2")
		if want := "not_found: Service 'a@^2' not found: the peer offers a@1.4.0"; err == nil || err.Error() != want {
			t.Errorf("%v: Service(a@^2) = %v, want %s", kind, err, want)
		}
	}
	for _, version := range []string{"", "2.0.0-beta.1", "latest"} { // which TypeScript peers prefer
		sp := newScripted(t, mux.KindNode, typeScript(version))
		if got, err := sp.service(t.Context(), "a@>=1"); CodeOf(err) != NotFound {
			t.Errorf("Service(a@>=1) of version %q = %q, %v, want not_found", version, got, err)
		}
	}

	script := typeScript("1.4.0")
	resolve := script["query_interface"]
	script["query_interface"] = func(arg any) (any, error) {
		if arg == "a@^1" || arg == "a@^9" {
			arg = "a"
		}
		return resolve(arg)
	}
	own := newScripted(t, mux.KindNetron, script)
	if got, err := own.service(t.Context(), "a@^1"); err != nil || got != "a@1.4.0" {
		t.Errorf("Service(a@^1) = %q, %v, want a@1.4.0", got, err)
	}
	own.wantRuns("a peer of this protocol resolves ranges itself", query+"a@^1")
	if got, err := own.service(t.Context(), "a@^9"); CodeOf(err) != NotFound {
		t.Errorf("Service(a@^9) = %q, %v, want not_found: the peer gave what the range excludes", got, err)
	}
	own.wantRuns("once", query+"a@^9")
	if _, err := own.service(t.Context(), "a@^x^"); CodeOf(err) != InvalidArgument {
		t.Errorf("Service of a bad range = %v, want invalid_argument", err)
	}
	own.wantRuns("a bad range is not sent")
}

// TestRangesOfLegacyPeers resolves ranges in the table of a 0.6 peer, which may have
// versions that are not complete.
func TestRangesOfLegacyPeers(t *testing.T) {
	table := abilities(append(versionsOfA, "old@1.0", "old@v2.0.0")...)
	for kind, first := range map[mux.Kind][]string{mux.KindLegacy: nil, mux.KindNode: {"query_interface a"}} {
		sp := newScripted(t, kind, map[string]func(any) (any, error){"abilities": table})
		if got, err := sp.service(t.Context(), "a@^1.2"); err != nil || got != "a@1.10.0" {
			t.Errorf("%v: Service(a@^1.2) = %q, %v, want a@1.10.0", kind, got, err)
		}
		sp.wantRuns("the table", append(first, "abilities map[allowServiceEvents:false]")...)
		for qualified, want := range rangesOfA {
			got, err := sp.service(t.Context(), qualified)
			if got != want || (want == "" && CodeOf(err) != NotFound) {
				t.Errorf("%v: Service(%q) = %q, %v, want %q", kind, qualified, got, err, want)
			}
		}
		for qualified, want := range map[string]string{"old@1.0": "old@1.0", "old@^1": "", "old@v2.0.0": "old@v2.0.0"} {
			if got, _ := sp.service(t.Context(), qualified); got != want {
				t.Errorf("%v: Service(%q) = %q, want %q", kind, qualified, got, want)
			}
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for qualified := range rangesOfA {
		f.Add(qualified, "1.2.3")
	}
	for _, qualified := range badRanges {
		f.Add(qualified, "2.0.0-rc.1")
	}
	f.Fuzz(func(t *testing.T, qualified, version string) {
		q, err := parseQuery(qualified)
		if err != nil {
			if CodeOf(err) != InvalidArgument {
				t.Errorf("parseQuery(%q) = %v, want invalid_argument", qualified, err)
			}
			return
		}
		one := 1
		found := lookUp(map[string]*int{joinName(q.name, version): &one}, q) != nil
		v, err := semver.StrictNewVersion(version)
		if err == nil && q.versions != nil && found != q.admits(version) && q.version != version {
			t.Errorf("lookUp(%q) among %v = %v, admits = %v", qualified, v, found, q.admits(version))
		}
	})
}
