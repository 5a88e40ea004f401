package rpc

import "testing"

func TestParseServiceName(t *testing.T) {
	good := map[string][2]string{
		"calculator":              {"calculator", ""},
		"calculator@1.0.0":        {"calculator", "1.0.0"},
		"calculator:1.0.0":        {"calculator", "1.0.0"},
		"a.b.C3@2.0.0-beta.1+x.y": {"a.b.C3", "2.0.0-beta.1+x.y"},
	}
	for in, want := range good {
		name, version, err := parseServiceName(in)
		if err != nil || name != want[0] || version != want[1] {
			t.Errorf("parseServiceName(%q) = %q, %q, %v, want %q", in, name, version, err, want)
		}
	}
	for _, in := range []string{
		"", "@1.0.0", "a@", "a@1", "a@1.0", "a@v1.0.0", "a@^1.0.0", "a@*", "a-b", "a_b", "a..b", ".a", "a.", "a b", "a@1.0.0@2", "é",
		string(make([]byte, 300)),
	} {
		if name, version, err := parseServiceName(in); err == nil {
			t.Errorf("parseServiceName(%q) = %q, %q, want an error", in, name, version)
		}
	}
}
