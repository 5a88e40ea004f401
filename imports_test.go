package netron_test

import (
	"errors"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/d-e-v-grid/netron"

// layer says what a package may import besides the standard library.
type layer struct {
	own  []string // packages of this module, relative to it
	deps []string // modules of others
	pure bool     // no sockets, no files: nothing of noIO
}

// layers is the map of the module: imports point from what knows more to what
// knows less, and never between neighbours. Change it on purpose, with a reason in
// docs/design, and not to make a build pass.
var layers = map[string]layer{
	"codec":                  {deps: []string{"github.com/tinylib/msgp"}, pure: true},
	"codec/internal/gentest": {own: []string{"codec"}, deps: []string{"github.com/tinylib/msgp"}, pure: true},

	"internal/code":    {pure: true},
	"internal/wire":    {pure: true},
	"internal/buf":     {pure: true},
	"internal/memlink": {},

	"internal/redisurl":  {deps: []string{"github.com/redis/rueidis"}},
	"internal/redistest": {}, // a real redis-server for tests

	// The judge of the implementation shares no code with it.
	"internal/tspeer": {deps: []string{"github.com/gobwas/ws"}},

	"engine": {own: []string{"internal/buf"}, deps: []string{"github.com/gobwas/ws", "github.com/cloudwego/netpoll"}},

	// Not engine: mux declares the link that it needs.
	"mux": {own: []string{"internal/wire", "internal/buf"}, deps: []string{"github.com/panjf2000/ants/v2"}, pure: true},

	"stream": {own: []string{"codec", "mux", "internal/buf"}},
	"rpc": {
		own:  []string{"codec", "mux", "stream", "pubsub", "internal/code", "internal/wire", "internal/buf"},
		deps: []string{"github.com/Masterminds/semver/v3", "github.com/google/uuid"},
	},
	"rpc/resilience": {
		own: []string{"rpc", "codec", "mux"}, // mux to tell whether a lost request was sent
		deps: []string{
			"github.com/hashicorp/golang-lru/v2", "github.com/sony/gobreaker/v2", "golang.org/x/sync", "golang.org/x/time",
		},
	},
	"rpc/balance": {own: []string{"rpc", "codec"}}, // declares the resolver that discover satisfies
	"rpc/auth":    {own: []string{"rpc", "codec"}},
	"stream/file": {own: []string{"stream", "codec", "internal/code"}},

	"pubsub": {own: []string{"internal/code"}, pure: true}, // neither rpc nor codec: the root connects them
	"pubsub/redisbus": {
		own:  []string{"pubsub", "codec", "internal/code", "internal/redisurl"},
		deps: []string{"github.com/redis/rueidis"},
	},
	"discover": { // usable alone
		own:  []string{"internal/code", "internal/redisurl"},
		deps: []string{"github.com/redis/rueidis", "github.com/Masterminds/semver/v3"},
	},

	"": { // the facade
		own: []string{
			"codec", "engine", "mux", "stream", "stream/file", "rpc", "rpc/resilience", "rpc/balance", "rpc/auth",
			"pubsub", "pubsub/redisbus", "discover", "internal/buf", "internal/memlink", "internal/wire",
		},
		deps: []string{"github.com/google/uuid"},
	},

	"netrontest":    {own: []string{"", "discover", "internal/memlink"}}, // what users can do, over links that fail on demand
	"internal/demo": {own: []string{"", "rpc", "stream", "pubsub", "discover", "codec"}},
	"bench":         {own: []string{anything}, deps: []string{anything}},
	"fuzz":          {own: []string{anything}},
	"cmd/netron": {
		own:  []string{"", "internal/demo", "bench", "discover", "codec", "engine", "pubsub", "stream/file"}, // codec to print values, engine to serve --echo
		deps: []string{"github.com/spf13/pflag", "github.com/HdrHistogram/hdrhistogram-go"},
	},

	"examples":                {own: []string{"", "rpc", "rpc/resilience", "rpc/auth", "rpc/balance", "codec", "discover", "pubsub", "stream", "stream/file"}}, // each of them
	"examples/internal/leaks": {deps: []string{"github.com/panjf2000/ants/v2", "go.uber.org/goleak"}},
}

const anything = "*"

// noIO is what a pure package must do without.
var noIO = []string{"net", "net/http", "os", "os/exec", "syscall"}

// testDeps is what tests alone may import. They may also import every package of
// this module and what any of them depends on.
var testDeps = []string{"github.com/google/go-cmp", "go.uber.org/goleak", "pgregory.net/rapid"}

func TestImports(t *testing.T) {
	for _, file := range goFiles(t) {
		pkg := strings.TrimPrefix(path.Dir(file), ".")
		if path.Dir(pkg) == "examples" {
			pkg = "examples" // one entry for all of them
		}
		allowed, known := layers[pkg]
		if !known {
			t.Errorf("%s: package %q is not in the map of this test; give it a place there", file, pkg)
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, spec := range parsed.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatalf("%s: import %s: %v", file, spec.Path.Value, err)
			}
			if reason := allowed.refuses(imported, strings.HasSuffix(file, "_test.go")); reason != "" {
				t.Errorf("%s: package %q must not import %q: %s", file, pkg, imported, reason)
			}
		}
	}
}

// goFiles returns the Go files of this module, for every platform, with slashes
// and relative to its root. Modules inside it, such as tools, are not its files.
func goFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != "." && isForeign(file):
			return fs.SkipDir
		case !d.IsDir() && strings.HasSuffix(file, ".go"):
			files = append(files, filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 10 {
		t.Fatalf("found %d Go files, this is not the root of the module", len(files))
	}
	return files
}

// isForeign reports whether a directory holds no packages of this module.
func isForeign(dir string) bool {
	name := filepath.Base(dir)
	if name == "testdata" || name == "node_modules" || name[0] == '.' || name[0] == '_' {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return !errors.Is(err, fs.ErrNotExist)
}

// TestImportRules shows that the rules refuse what they should.
func TestImportRules(t *testing.T) {
	for _, tc := range []struct {
		pkg, imported string
		isTest, want  bool
	}{
		{"mux", modulePath + "/internal/wire", false, true},
		{"mux", modulePath + "/engine", false, false},
		{"mux", modulePath + "/engine", true, true},
		{"mux", "net", false, false},
		{"mux", "net", true, true},
		{"mux", "net/netip", false, true},
		{"engine", "net/http", false, true},
		{"engine", "github.com/gobwas/ws/wsutil", false, true},
		{"engine", "github.com/gobwas/wsx", false, false},
		{"engine", "github.com/google/go-cmp/cmp", false, false},
		{"engine", "github.com/google/go-cmp/cmp", true, true},
		{"engine", "github.com/stretchr/testify/require", true, false},
		{"cmd/netron", modulePath, false, true},
		{"cmd/netron", modulePath + "/mux", false, false},
		{"bench", modulePath + "/engine", false, true},
		{"netrontest", modulePath + "/internal/memlink", false, true},
		{"netrontest", modulePath + "/engine", false, false},
		{"netrontest", modulePath + "/engine", true, true},
		{"pubsub", modulePath + "/rpc", false, false},
		{"rpc", modulePath + "/pubsub/redisbus", false, false},
	} {
		if reason := layers[tc.pkg].refuses(tc.imported, tc.isTest); (reason == "") != tc.want {
			t.Errorf("%q imports %q, test %t: got refusal %q, want allowed %t", tc.pkg, tc.imported, tc.isTest, reason, tc.want)
		}
	}
}

// refuses returns why a package of the layer must not import a path, empty if it may.
func (l layer) refuses(imported string, isTest bool) string {
	own, isOwn := strings.CutPrefix(imported, modulePath)
	isOwn = isOwn && (own == "" || own[0] == '/')
	switch {
	case isOwn:
		if isTest || slices.Contains(l.own, anything) || slices.Contains(l.own, strings.TrimPrefix(own, "/")) {
			return ""
		}
		return "it is not below that package in the module's map"
	case !strings.Contains(strings.Split(imported, "/")[0], "."): // the standard library
		if l.pure && !isTest && slices.Contains(noIO, imported) {
			return "it does no input or output of its own"
		}
		return ""
	case slices.Contains(l.deps, anything) || within(imported, l.deps):
		return ""
	case isTest && (within(imported, testDeps) || isDependency(imported)):
		return ""
	}
	return "a new dependency needs a reason and a place in the module's map"
}

// isDependency reports whether any package of the map may import the path.
func isDependency(imported string) bool {
	for _, l := range layers {
		if within(imported, l.deps) {
			return true
		}
	}
	return false
}

// within reports whether an import path belongs to one of the modules.
func within(imported string, modules []string) bool {
	return slices.ContainsFunc(modules, func(m string) bool {
		return imported == m || strings.HasPrefix(imported, m+"/")
	})
}
