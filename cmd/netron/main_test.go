package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/panjf2000/ants/v2"
	"go.uber.org/goleak"

	"github.com/d-e-v-grid/netron/bench"
	"github.com/d-e-v-grid/netron/engine"
)

func TestMain(m *testing.M) {
	ants.Release() // the package's own default pool, which nothing here uses
	// Pollers live as long as the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}

// runTool runs the tool and returns what it printed.
func runTool(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), &env{stdout: &out, stderr: &errs}, args)
	return out.String(), errs.String(), code
}

// startTool runs a server command until the test ends, and returns its URL.
func startTool(t *testing.T, args ...string) string {
	t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var errs bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() {
		if code := run(ctx, &env{stdout: w, stderr: &errs}, args); code != exitOK {
			t.Errorf("%v: exit code %d, %s", args, code, errs.String())
		}
		w.Close()
	})
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	line := make([]byte, 100)
	n, err := r.Read(line)
	url, ok := strings.CutPrefix(strings.TrimSpace(string(line[:n])), "listening ")
	if err != nil || !ok {
		t.Fatalf("%v printed %q, %v, want the address", args, line[:n], err)
	}
	return url
}

func TestDemo(t *testing.T) {
	out, errs, code := runTool(t, "demo")
	if code != exitOK || errs != "" {
		t.Fatalf("demo: exit code %d, %s\n%s", code, errs, out)
	}
	for _, want := range []string{"Add(5, 3) = 8 in ", "Divide(1, 0): Division by zero", "code E_STOCK", "slept", "hello, client", "sum(1, 2, 3, 4) = 10", "4999950000", "was left after 10", "upload: 67.1 MB of 67.1 MB (100 %)", "is that of the original", "calls/s", "1001", "All done."} {
		if !strings.Contains(out, want) {
			t.Errorf("demo did not print %q:\n%s", want, out)
		}
	}
}

func TestServeAndCall(t *testing.T) {
	url := startTool(t, "serve", "--demo", "--listen", "127.0.0.1:0")
	tests := []struct {
		args []string
		out  string
		code int
		errs string // a part of what standard error says
	}{
		{[]string{"calculator@1.0.0", "add", "5", "3"}, "8\n", exitOK, ""},
		{[]string{"calculator", "add", "-1", "0.5"}, "-0.5\n", exitOK, ""},
		{[]string{"calculator", "echo", `{"a":[1,null,true,"x"]}`}, `{"a":[1,null,true,"x"]}` + "\n", exitOK, ""},
		{[]string{"calculator", "echo", "9007199254740993"}, "9007199254740993\n", exitOK, ""},
		{[]string{"calculator", "nothing"}, "null\n", exitOK, ""},
		{[]string{"calculator", "typeOf", `"x"`}, `"string"` + "\n", exitOK, ""},
		{[]string{"calculator", "divide", "1", "0"}, "", exitRemote, "Division by zero"},
		{[]string{"calculator", "fail", `"E_X"`}, "", exitRemote, `TypeError: custom failure {"code":"E_X","details":{"code":"E_X","list":[1,2,3]}}`},
		{[]string{"calculator", "gone"}, "", exitRemote, "not found"},
		{[]string{"nobody", "add"}, "", exitRemote, "Service 'nobody' not found"},
		{[]string{"calculator", "add", "x"}, "", exitUsage, "arguments are JSON"},
		{[]string{"calculator", "add", "1 2"}, "", exitUsage, "more than one value"},
		{[]string{"calculator"}, "", exitUsage, "want URL SERVICE METHOD"},
	}
	for _, tt := range tests {
		out, errs, code := runTool(t, append([]string{"call", url}, tt.args...)...)
		if out != tt.out || code != tt.code || !strings.Contains(errs, tt.errs) {
			t.Errorf("call %v = %q, %d, %q, want %q, %d, %q", tt.args, out, code, errs, tt.out, tt.code, tt.errs)
		}
	}
	if out, errs, code := runTool(t, "call", "--task", url, "sum", "1", "2"); out != "3\n" || code != exitOK {
		t.Errorf("call --task = %q, %d, %q, want 3", out, code, errs)
	}
	if _, errs, code := runTool(t, "call", "--timeout", "50ms", url, "calculator", "sleep", "5000"); code != exitTimeout {
		t.Errorf("a call that takes too long: exit code %d, %q, want %d", code, errs, exitTimeout)
	}
	if _, errs, code := runTool(t, "call", "--header", "nocolon", url, "calculator", "nothing"); code != exitUsage {
		t.Errorf("a header without colon: exit code %d, %q, want %d", code, errs, exitUsage)
	}
	if out, errs, code := runTool(t, "call", "--header", "X-Test: 1", url, "calculator", "nothing"); code != exitOK || out != "null\n" {
		t.Errorf("call --header = %q, %d, %q, want null", out, code, errs)
	}
}

func TestCallWithoutServer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	if _, errs, code := runTool(t, "call", addr, "calculator", "add", "1", "2"); code != exitUnavailable {
		t.Errorf("call without a server: exit code %d, %q, want %d", code, errs, exitUnavailable)
	}
}

func TestServeEcho(t *testing.T) {
	url := startTool(t, "serve", "--echo", "--listen", "127.0.0.1:0")
	c, err := engine.Dial(t.Context(), url, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	c.Start(&once{conn: c, text: "hello", got: got})
	c.Kick()
	if s := <-got; s != "hello" {
		t.Errorf("echo = %q, want hello", s)
	}
	c.CloseWith(engine.CloseNormal, "")
	<-c.Done()
}

// once sends one text message and passes the answer on.
type once struct {
	conn *engine.Conn
	text string
	got  chan<- string
}

func (o *once) Message(_ bool, p []byte) { o.got <- string(p) }
func (o *once) ReadDone()                {}
func (o *once) Closed(error)             {}
func (o *once) Collect(dst [][]byte) [][]byte {
	if o.text == "" {
		return dst
	}
	dst = append(dst, o.conn.AppendFrame(nil, true, []byte(o.text)))
	o.text = ""
	return dst
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"nonsense"},
		{"serve"},
		{"serve", "--demo", "extra"},
		{"serve", "--nonsense"},
		{"serve", "--demo", "--tls-cert", "x"},
		{"call"},
		{"call", "--timeout"},
		{"bench", "nonsense"},
		{"bench", "rpc", "extra"},
		{"demo", "--nonsense"},
		{"nodes", "--nonsense"},
	} {
		if _, errs, code := runTool(t, args...); code != exitUsage || errs == "" {
			t.Errorf("%v: exit code %d, %q, want %d and an explanation", args, code, errs, exitUsage)
		}
	}
	for _, args := range [][]string{{"help"}, {"--help"}, {"serve", "--help"}, {"call", "-h"}, {"bench", "--help"}, {"nodes", "--help"}} {
		if out, errs, code := runTool(t, args...); code != exitOK || !strings.Contains(out, "usage: netron") {
			t.Errorf("%v: exit code %d, %q, %q, want the usage", args, code, out, errs)
		}
	}
	if _, errs, code := runTool(t, "serve", "--demo", "--tls-cert", "missing", "--tls-key", "missing"); code != exitUnavailable || errs == "" {
		t.Errorf("a certificate that is not there: exit code %d, %q", code, errs)
	}
}

func TestBench(t *testing.T) {
	url := startTool(t, "serve", "--bench", "--listen", "127.0.0.1:0")
	for _, args := range [][]string{
		{}, {"--typed"}, {"--payload", "100"}, {"--payload", "100", "--typed"}, {"--conns", "2"}, {"--rate", "1000"},
	} {
		out, errs, code := runTool(t, append([]string{"bench", "rpc", "--addr", url, "--duration", "500ms", "--inflight", "3", "--json"}, args...)...)
		var result bench.Result
		if code != exitOK || json.Unmarshal([]byte(out), &result) != nil || result.OpsPerS <= 0 || result.P99us <= 0 {
			t.Errorf("bench rpc %v = %q, %d, %q, want a result", args, out, code, errs)
		}
	}
	if out, _, code := runTool(t, "bench", "rpc", "--addr", url, "--duration", "500ms", "--inflight", "3"); code != exitOK || !strings.Contains(out, "/s, p50") {
		t.Errorf("bench rpc = %q, %d, want a line", out, code)
	}
	if _, errs, code := runTool(t, "bench", "rpc", "--addr", url, "--duration", "1ns"); code == exitOK {
		t.Errorf("bench rpc without time: exit code %d, %q, want an error", code, errs)
	}
	if _, errs, code := runTool(t, "bench", "rpc", "--addr", url, "--inflight", "-1"); code == exitOK {
		t.Errorf("bench rpc --inflight -1: exit code %d, %q, want an error", code, errs)
	}
}

func TestVerdict(t *testing.T) {
	for _, tt := range []struct {
		row  row
		res  bench.Result
		want string
	}{
		{row{promised: 50, aim: 100, maxP99: 2000}, bench.Result{OpsPerS: 49, P99us: 1}, verdictMissed},
		{row{promised: 50, aim: 100, maxP99: 2000}, bench.Result{OpsPerS: 60, P99us: 2001}, "1.2x the promised rate, 60% of the aim, p99 over 2000 us"},
		{row{promised: 50, aim: 100, maxP99: 2000}, bench.Result{OpsPerS: 75, P99us: 1}, "1.5x the promised rate, 75% of the aim"},
		{row{promised: 50, aim: 50, maxP99: 2000}, bench.Result{OpsPerS: 49.9, P99us: 1}, "promise kept"},
		{row{promised: 50, aim: 50, maxP99: 2000}, bench.Result{OpsPerS: 49, P99us: 1}, verdictMissed},
		{row{promised: 50, aim: 50, maxP99: 2000}, bench.Result{OpsPerS: 50, P99us: 2001}, verdictMissed},
		{row{promised: 50, aim: 100, maxP99: 5000, aimP99: 2000}, bench.Result{OpsPerS: 75, P99us: 2001}, "1.5x the promised rate, 75% of the aim, p99 over the aim of 2000 us"},
		{row{promised: 50, aim: 100, maxP99: 5000, aimP99: 2000}, bench.Result{OpsPerS: 75, P99us: 5001}, "1.5x the promised rate, 75% of the aim, p99 over 5000 us"},
		{row{aim: 100}, bench.Result{OpsPerS: 150}, "150% of the aim"},
		{row{}, bench.Result{OpsPerS: 150}, "for comparison"},
	} {
		if got := tt.row.verdict(&tt.res); got != tt.want {
			t.Errorf("verdict of %+v, %v/s = %q, want %q", tt.row, tt.res.OpsPerS, got, tt.want)
		}
	}
}

func TestExitCodes(t *testing.T) {
	if got := exitCode(&goalError{"missed"}); got != exitGoal {
		t.Errorf("exitCode of a missed goal = %d, want %d", got, exitGoal)
	}
	if got := exitCode(errors.New("other")); got != exitUnavailable {
		t.Errorf("exitCode of another error = %d, want %d", got, exitUnavailable)
	}
}
