package netron_test

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// snippet is a Go block of a document.
type snippet struct {
	file string
	line int // of its first line
	text string
}

// snippets returns the Go blocks of a document.
func snippets(t *testing.T, file string) []snippet {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []snippet
	var open *snippet
	for i, line := range strings.Split(string(text), "\n") {
		switch {
		case open == nil && line == "```go":
			open = &snippet{file: file, line: i + 2}
		case open != nil && line == "```":
			all = append(all, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return all
}

// packages are what snippets may use, by name.
var packages = map[string]string{
	"balance":    modulePath + "/rpc/balance",
	"codec":      modulePath + "/codec",
	"discover":   modulePath + "/discover",
	"netron":     modulePath,
	"netrontest": modulePath + "/netrontest",
	"pubsub":     modulePath + "/pubsub",
	"redisbus":   modulePath + "/pubsub/redisbus",
	"rpc":        modulePath + "/rpc",
	"auth":       modulePath + "/rpc/auth",
	"stream":     modulePath + "/stream",
	"file":       modulePath + "/stream/file",
	"resilience": modulePath + "/rpc/resilience",
	"synctest":   "testing/synctest",
	"http":       "net/http",
	"slog":       "log/slog",
	"context":    "context",
	"errors":     "errors",
	"fmt":        "fmt",
	"io":         "io",
	"iter":       "iter",
	"log":        "log",
	"os":         "os",
	"math":       "math",
	"runtime":    "runtime",
	"testing":    "testing",
	"time":       "time",
}

// assumed are the declarations that snippets take for granted, by name: those that an
// earlier snippet has, or that anybody can imagine.
var assumed = map[string]string{
	"ctx":              "var ctx context.Context",
	"node":             "var node *netron.Node",
	"peer":             "var peer *netron.Peer",
	"stub":             "var stub *netron.Stub",
	"users":            "var users UsersClient",
	"isRead":           "func isRead(*netron.Request) bool { return true }",
	"verify":           "func verify(context.Context, string) (string, error) { return \"\", nil }",
	"closeDatabase":    "func closeDatabase(context.Context) error { return nil }",
	"Calculator":       "type Calculator struct{}\nfunc (Calculator) Add(context.Context, float64, float64) (float64, error) { return 0, nil }",
	"CalculatorClient": "type CalculatorClient struct { Add func(context.Context, float64, float64) (float64, error) }",
	"Order":            "type Order struct{ ID int }",
	"OrderCreated":     "var OrderCreated = pubsub.NewTopic[Order](\"order:created\")",
	"Users":            "type Users struct{}",
	"UsersClient":      "type UsersClient struct { Get func(context.Context, string) (string, error) }",
	"market":           "var market struct{ Prices func(context.Context, []string) iter.Seq2[Price, error] }",
	"Market":           "type Market struct{}\nfunc (*Market) next(context.Context, []string) (p Price, err error) { return }",
	"Price":            "type Price struct{ Cents int }",
	"Reports":          "type Reports struct{}",
	"Page":             "type Page struct{}",
	"Search":           "type Search struct{}",
	"Resizer":          "type Resizer struct{}",
	"Display":          "type Display struct{}",
	"DisplayClient":    "type DisplayClient struct { Show func(context.Context, string) error }",
}

// program returns a package of the snippet: as it is if it has declarations alone, or in
// a function.
func (s snippet) program() (string, error) {
	at := fmt.Sprintf("//line %s:%d\n", s.file, s.line)
	body := at + s.text
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, "", "package p\n"+body, parser.SkipObjectResolution)
	if err != nil {
		body = "func _() {\n{\n" + at + s.text + "}\n}\n"
		parsed, err = parser.ParseFile(set, "", "package p\n"+body, parser.SkipObjectResolution)
		if err != nil {
			return "", err
		}
		results, uses := inFunction(parsed.Decls[0].(*ast.FuncDecl))
		body = "func _() " + results + " {\n{\n" + at + s.text + uses + "}\npanic(0)\n}\n"
	}
	var text strings.Builder
	text.WriteString("package p\n")
	declared := names(parsed)
	rest := ""
	for _, name := range slices.Sorted(maps.Keys(assumed)) {
		if !declared[name] {
			rest += assumed[name] + "\n"
		}
	}
	whole, err := parser.ParseFile(set, "", "package p\n"+body+rest, parser.SkipObjectResolution)
	if err != nil {
		return "", err
	}
	for _, name := range qualifiers(whole) {
		if path, ok := packages[name]; ok {
			fmt.Fprintf(&text, "import %q\n", path)
		}
	}
	return text.String() + body + "//line assumed.go:1\n" + rest, nil
}

// inFunction returns the results of a function by what it returns, and statements that
// use the variables of its inner block.
func inFunction(f *ast.FuncDecl) (results, uses string) {
	inner, _ := f.Body.List[0].(*ast.BlockStmt)
	for _, stmt := range inner.List {
		if a, ok := stmt.(*ast.AssignStmt); ok && a.Tok == token.DEFINE {
			for _, v := range a.Lhs {
				if name, ok := v.(*ast.Ident); ok && name.Name != "_" {
					uses += "_ = " + name.Name + "\n"
				}
			}
		}
	}
	ast.Inspect(inner, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncLit:
			return false
		case *ast.ReturnStmt:
			switch len(n.Results) {
			case 1:
				results = "error"
			case 2:
				results = "(*UsersClient, error)"
			}
		}
		return true
	})
	return results, uses
}

// names returns what a file declares.
func names(f *ast.File) map[string]bool {
	declared := make(map[string]bool)
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				declared[d.Name.Name] = true
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if typ, ok := spec.(*ast.TypeSpec); ok {
					declared[typ.Name.Name] = true
				}
			}
		}
	}
	return declared
}

// qualifiers returns the names that stand before a dot, sorted.
func qualifiers(f *ast.File) []string {
	found := make(map[string]bool)
	ast.Inspect(f, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if name, ok := sel.X.(*ast.Ident); ok {
				found[name.Name] = true
			}
		}
		return true
	})
	return slices.Sorted(maps.Keys(found))
}

// TestDocuments compiles the Go blocks of the documents.
func TestDocuments(t *testing.T) {
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{make(map[string]string)}
	for _, file := range []string{"README.md", "docs/guide.md"} {
		for _, s := range snippets(t, file) {
			program, err := s.program()
			if err != nil {
				t.Errorf("%s:%d: %v", file, s.line, err)
				continue
			}
			name := fmt.Sprintf("%s%d", strings.TrimSuffix(filepath.Base(file), ".md"), s.line)
			source := filepath.Join(dir, name+".go")
			if err := os.WriteFile(source, []byte(program), 0o600); err != nil {
				t.Fatal(err)
			}
			// Packages of this module that are not on the disk.
			overlay.Replace[filepath.Join(root, "internal", "snippets", name, name+".go")] = source
		}
	}
	if len(overlay.Replace) < 20 {
		t.Errorf("found %d Go blocks, want those of the documents", len(overlay.Replace))
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "overlay.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "./internal/snippets/...")
	if out, err := build.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", build.Args, err, out)
	}
}

var (
	// link is a link of Markdown to a place in this module.
	link = regexp.MustCompile(`\]\(([^)#:]*)(#[^)]*)?\)`)
	// code is what looks like one, but is not.
	code = regexp.MustCompile("(?s)```.*?```|`[^`\n]*`")
)

// TestLinks checks that what the documents link to is there.
func TestLinks(t *testing.T) {
	for _, file := range []string{"README.md", "docs/guide.md", "docs/STATUS.md", "examples/README.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(string(text), ""), -1) {
			target, anchor := file, strings.TrimPrefix(found[2], "#")
			if found[1] != "" {
				target = filepath.Join(filepath.Dir(file), found[1])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s: %v", file, found[1], err)
				continue
			}
			if anchor != "" && !slices.Contains(anchors(t, target), anchor) {
				t.Errorf("%s links to %s%s, which is no heading there", file, found[1], found[2])
			}
		}
	}
}

// anchors returns what the headings of a document are linked by.
func anchors(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for line := range strings.Lines(string(text)) {
		if heading, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			all = append(all, strings.NewReplacer(" ", "-", ",", "").Replace(strings.ToLower(heading)))
		}
	}
	return all
}

// TestExamplesAreListed checks that the index of the examples has all of them.
func TestExamplesAreListed(t *testing.T) {
	index, err := os.ReadFile("examples/README.md")
	if err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob("examples/*/main.go")
	if err != nil || len(programs) == 0 {
		t.Fatalf("programs %v, %v", programs, err)
	}
	for _, program := range programs {
		topic := filepath.Base(filepath.Dir(program))
		for _, want := range []string{"| [" + topic + "](", "./examples/" + topic + "` |"} {
			if !strings.Contains(string(index), want) {
				t.Errorf("examples/README.md has no %q", want)
			}
		}
	}
}
