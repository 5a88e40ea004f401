package main

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// registerNode registers a node until the test ends, or its registry is closed.
func registerNode(t *testing.T, s *redistest.Server, n discover.Node) *discover.Registry {
	t.Helper()
	r, err := discover.New(discover.Config{URL: s.URL(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	if err := r.Register(t.Context(), n); err != nil {
		t.Fatal(err)
	}
	if err := r.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return r
}

func services(qualified ...string) []discover.Service {
	list := make([]discover.Service, len(qualified))
	for i, q := range qualified {
		list[i] = discover.ParseService(q)
	}
	return list
}

// foreignNode registers the node c as a TypeScript peer does.
func foreignNode(t *testing.T, s *redistest.Server) {
	t.Helper()
	redisCommand(t, s, `HSET netron:discovery:nodes:c address 10.0.0.9:80 timestamp 1 services "[{\"name\":\"old\",\"version\":\"\"}]"`)
	redisCommand(t, s, "SET netron:discovery:heartbeat:c 1 EX 600")
	redisCommand(t, s, "SADD netron:discovery:index:nodes c")
}

func TestNodes(t *testing.T) {
	s := redistest.Start(t)
	registerNode(t, s, discover.Node{
		ID: "b", Address: "wss://10.0.0.2:8080", Zone: "z\x1b[2J", Weight: 7, Metadata: map[string]string{"k": "v"},
		Services: services("market@1.2.0", "mail@1.0.0"),
	})
	registerNode(t, s, discover.Node{ID: "a", Address: "10.0.0.1:8080", Services: services("market@2.0.0")})
	foreignNode(t, s)

	out, errs, code := runTool(t, "nodes", "--redis", s.URL())
	if code != exitOK || errs != "" {
		t.Fatalf("nodes: exit code %d, %q", code, errs)
	}
	lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	since := strings.Index(lines[0], "SINCE")
	var got []string
	for _, line := range lines {
		if column := strings.Index(line, line[since:]); column != since {
			t.Errorf("the column of %q does not begin at %d", line, since)
		}
		columns := strings.Fields(line)
		if _, err := time.Parse(time.DateOnly, columns[4]); err == nil {
			columns = slices.Delete(columns, 4, 6)
		}
		got = append(got, strings.Join(columns, " "))
	}
	want := []string{
		`ID URL ZONE WEIGHT SINCE SUSPECT SERVICES`,
		`a ws://10.0.0.1:8080 - - - market@2.0.0`,
		`b wss://10.0.0.2:8080 "z\x1b[2J" 7 - mail@1.0.0, market@1.2.0`,
		`c ws://10.0.0.9:80 - - - - old`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("nodes printed\n%s\nwant, without times,\n%s", out, strings.Join(want, "\n"))
	}

	out, errs, code = runTool(t, "nodes", "--redis", s.URL(), "--service", "market@^1.0", "--json")
	var node nodeObject
	if err := json.Unmarshal([]byte(out), &node); err != nil || code != exitOK || errs != "" {
		t.Fatalf("nodes --service --json = %q, %d, %q, %v, want one object", out, code, errs, err)
	}
	if node.ID != "b" || node.URL != "wss://10.0.0.2:8080" || node.Weight != 7 || node.Metadata["k"] != "v" || node.Started == "" || len(node.Services) != 2 {
		t.Errorf("nodes --json = %+v, want node b", node)
	}
	if out, errs, code := runTool(t, "nodes", "--redis", s.URL(), "--prefix", "other"); code != exitOK || !strings.HasPrefix(out, "ID ") || errs != "there are no such nodes\n" {
		t.Errorf("nodes of another prefix = %q, %d, %q, want none", out, code, errs)
	}
}

// TestNodesReads checks that a user of Redis that may only read is enough, and says so for
// one that may not.
func TestNodesReads(t *testing.T) {
	s := redistest.Start(t)
	foreignNode(t, s)
	redisCommand(t, s, "ACL SETUSER reader on >secret ~* &* -@all +@read +@connection +subscribe +unsubscribe")
	redisCommand(t, s, "ACL SETUSER blind on >secret ~* &* +@all -smembers")
	url := func(user string) string { return strings.Replace(s.URL(), "//", "//"+user+"@", 1) }
	if out, errs, code := runTool(t, "nodes", "--redis", url("reader:secret"), "--json"); code != exitOK || !strings.HasPrefix(out, `{"id":"c"`) {
		t.Errorf("nodes as a reader = %q, %d, %q, want node c", out, code, errs)
	}
	for user, want := range map[string]string{"reader:wrong": "WRONGPASS", "blind:secret": "NOPERM"} {
		if _, errs, code := runTool(t, "nodes", "--redis", url(user)); code != exitRemote || !strings.Contains(errs, want) {
			t.Errorf("nodes as %s: exit code %d, %q, want %d and %s", user, code, errs, exitRemote, want)
		}
	}
}

func TestNodesErrors(t *testing.T) {
	s := redistest.Start(t)
	for _, tt := range []struct {
		args []string
		code int
		errs string
	}{
		{[]string{"extra"}, exitUsage, "extra"},
		{[]string{"--redis", "http://127.0.0.1"}, exitUsage, "URL of Redis"},
		{[]string{"--redis", s.URL() + "/999"}, exitUsage, "DB index"},
		{[]string{"--service", "market@nonsense!"}, exitUsage, "neither a version nor a range"},
		{[]string{"--timeout", "0s"}, exitUsage, "not positive"},
		{[]string{"--prefix", strings.Repeat("x", 300)}, exitUsage, "300 bytes"},
		{[]string{"--redis", "redis://127.0.0.1:1", "--timeout", "300ms"}, exitUnavailable, "within 300ms: discover: connect to Redis"},
	} {
		if _, errs, code := runTool(t, append([]string{"nodes"}, tt.args...)...); code != tt.code || !strings.Contains(errs, tt.errs) {
			t.Errorf("nodes %v: exit code %d, %q, want %d and %q", tt.args, code, errs, tt.code, tt.errs)
		}
	}
	s.Pause()
	defer s.Continue()
	if _, errs, code := runTool(t, "nodes", "--redis", s.URL(), "--timeout", "300ms"); code != exitUnavailable || !strings.Contains(errs, "no answer of Redis within 300ms") {
		t.Errorf("nodes of a Redis that is stopped: exit code %d, %q, want %d", code, errs, exitUnavailable)
	}
}

// watchNodes runs nodes --watch until the test ends, and returns its lines.
func watchNodes(t *testing.T, args ...string) (next func() string) {
	t.Helper()
	out, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if code := run(ctx, &env{stdout: w, stderr: io.Discard}, append([]string{"nodes", "--watch"}, args...)); code != exitOK {
			t.Errorf("nodes --watch: exit code %d", code)
		}
		w.Close()
	})
	t.Cleanup(func() {
		cancel()
		out.Close()
		wg.Wait()
	})
	lines := bufio.NewScanner(out)
	return func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("nodes --watch has ended: %v", lines.Err())
		}
		return lines.Text()
	}
}

func TestNodesWatch(t *testing.T) {
	s := redistest.Start(t)
	foreignNode(t, s)
	next := watchNodes(t, "--redis", s.URL())
	want := func(lines ...string) {
		t.Helper()
		for _, line := range lines {
			got := next()
			if fields := strings.Fields(got); len(fields[0]) == len(time.TimeOnly) && fields[0][2] == ':' {
				fields = fields[1:]
				got = strings.Join(fields, " ")
			}
			if got != line {
				t.Fatalf("nodes --watch printed %q, want %q", got, line)
			}
		}
	}
	if got := strings.Fields(next()); got[0] != "ID" {
		t.Fatalf("nodes --watch printed %q first, want the head of a table", got)
	}
	if got := strings.Fields(next()); got[0] != "c" {
		t.Fatalf("nodes --watch printed %q then, want node c", got)
	}
	r := registerNode(t, s, discover.Node{ID: "a", Address: "10.0.0.1:8080", Zone: "z", Services: services("market@1.0.0")})
	want("node joined a ws://10.0.0.1:8080, zone z: market@1.0.0", "service available market@1.0.0 by a")
	if err := r.SetServices(t.Context(), services("market@1.0.0", "old")...); err != nil {
		t.Fatal(err)
	}
	want("node changed a ws://10.0.0.1:8080, zone z: market@1.0.0, old")
	r.Close(t.Context())
	want("node left a ws://10.0.0.1:8080", "service unavailable market@1.0.0 by a")
	redisCommand(t, s, "DEL netron:discovery:heartbeat:c")
	want("node changed c ws://10.0.0.9:80, suspect: old")
	redisCommand(t, s, "DEL netron:discovery:nodes:c")
	redisCommand(t, s, `PUBLISH netron:discovery:events "{\"type\":\"NODE_DEREGISTERED\",\"nodeId\":\"c\"}"`)
	want("node left c ws://10.0.0.9:80", "service unavailable old by c")
}

func TestNodesWatchJSON(t *testing.T) {
	s := redistest.Start(t)
	foreignNode(t, s)
	r := registerNode(t, s, discover.Node{ID: "a", Address: "10.0.0.1:8080", Services: services("market@1.0.0")})
	next := watchNodes(t, "--redis", s.URL(), "--json", "--service", "market")
	want := func(event, service string) {
		t.Helper()
		line := next()
		var got eventObject
		if err := json.Unmarshal([]byte(line), &got); err != nil || got.Event != event || got.Node == nil || got.Node.ID != "a" {
			t.Fatalf("nodes --watch --json printed %s, %v, want %s of node a", line, err, event)
		}
		if (got.Service == nil) != (service == "") || got.Service != nil && got.Service.QualifiedName() != service {
			t.Fatalf("nodes --watch --json printed %s, want service %q", line, service)
		}
	}
	if line := next(); !strings.HasPrefix(line, `{"id":"a"`) {
		t.Fatalf("nodes --watch --json printed %s first, want node a", line)
	}
	offer := func(qualified ...string) {
		t.Helper()
		if err := r.SetServices(t.Context(), services(qualified...)...); err != nil {
			t.Fatal(err)
		}
	}
	offer("mail@1.0.0")
	want("node changed", "") // it does not offer the service any more
	want("service unavailable", "market@1.0.0")
	offer("mail@1.0.0", "other") // which nobody has asked for
	offer("market@1.1.0")
	want("node changed", "")
	want("service available", "market@1.1.0")
	r.Close(t.Context())
	want("node left", "")
	want("service unavailable", "market@1.1.0")
}

// TestNodePrinter checks what is printed of events that come to what was printed already.
func TestNodePrinter(t *testing.T) {
	var out strings.Builder
	p := newNodePrinter(&env{stdout: &out, stderr: io.Discard}, "", true)
	n := discover.Node{ID: "a", Address: "x:1"}
	market := discover.Service{Name: "market"}
	for _, event := range []discover.Event{
		{Kind: discover.NodeJoined, Node: n},
		{Kind: discover.NodeJoined, Node: n},
		{Kind: discover.ServiceAvailable, Node: n, Service: market},
		{Kind: discover.ServiceAvailable, Node: n, Service: market},
		{Kind: discover.NodeChanged, Node: n},
		{Kind: discover.NodeLeft, Node: n},
		{Kind: discover.NodeLeft, Node: n},
		{Kind: discover.ServiceUnavailable, Node: n, Service: market},
		{Kind: discover.ServiceUnavailable, Node: n, Service: market},
		{Kind: discover.EventsLost, Lost: 3},
	} {
		p.event(event)
	}
	var kinds []string
	for line := range strings.Lines(out.String()) {
		var o eventObject
		if err := json.Unmarshal([]byte(line), &o); err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, o.Event)
	}
	want := []string{"node joined", "service available", "node left", "service unavailable", "events lost"}
	if !slices.Equal(kinds, want) {
		t.Errorf("printed %q, want %q", kinds, want)
	}
}
