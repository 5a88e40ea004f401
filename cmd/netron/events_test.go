package main

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"testing"
)

// TestSubAndEmit checks that what one process emits reaches another that has subscribed.
func TestSubAndEmit(t *testing.T) {
	url := startTool(t, "serve", "--demo", "--listen", "127.0.0.1:0")
	var out bytes.Buffer
	ready, told := io.Pipe()
	var wg sync.WaitGroup
	wg.Go(func() {
		if code := run(context.Background(), &env{stdout: &out, stderr: told}, []string{"sub", "--count", "3", url, "demo:*", "tick:**"}); code != exitOK {
			t.Errorf("sub: exit code %d", code)
		}
		told.Close()
	})
	line := make([]byte, 100)
	n, err := ready.Read(line)
	if got := string(line[:n]); err != nil || got != "subscribed to demo:* tick:**\n" {
		t.Fatalf("sub said %q, %v", got, err)
	}
	go func() { _, _ = io.Copy(io.Discard, ready) }()
	for _, args := range [][]string{
		{"emit", url, "demo:one", `{"id":7}`, "-1"},
		{"emit", url, "other"},
		{"call", url, "calculator", "fire", `"tick:two"`, "[1]"},
		{"emit", url, "demo:three"},
	} {
		if _, errs, code := runTool(t, args...); code != exitOK {
			t.Errorf("%v: exit code %d, %s", args, code, errs)
		}
	}
	wg.Wait()
	want := `{"event":"demo:one","args":[{"id":7},-1]}
{"event":"tick:two","args":[[1]]}
{"event":"demo:three","args":[]}
`
	if got := out.String(); got != want {
		t.Errorf("sub printed\n%swant\n%s", got, want)
	}
}

func TestEventCommandErrors(t *testing.T) {
	url := startTool(t, "serve", "--demo", "--listen", "127.0.0.1:0")
	for _, tt := range []struct {
		args []string
		code int
		errs string
	}{
		{[]string{"sub", url}, exitUsage, "want URL PATTERN"},
		{[]string{"sub", "--count", "-1", url, "x"}, exitUsage, "negative"},
		{[]string{"sub", url, "a::b"}, exitRemote, "a::b"},
		{[]string{"sub", "127.0.0.1:1", "x"}, exitUnavailable, "refused"},
		{[]string{"emit", url}, exitUsage, "want URL NAME"},
		{[]string{"emit", url, "x", "{"}, exitUsage, "arguments are JSON"},
		{[]string{"emit", url, "x*"}, exitRemote, "asterisk"},
		{[]string{"emit", "127.0.0.1:1", "x"}, exitUnavailable, "refused"},
		{[]string{"serve", "--demo", "--when-full", "never"}, exitUsage, "unknown policy"},
	} {
		if _, errs, code := runTool(t, tt.args...); code != tt.code || !strings.Contains(errs, tt.errs) {
			t.Errorf("%v: exit code %d, %q, want %d and %q", tt.args, code, errs, tt.code, tt.errs)
		}
	}
}

// TestLossCounter checks that losses are told once, each under its pattern.
func TestLossCounter(t *testing.T) {
	var told bytes.Buffer
	e, lost := &env{stderr: &told}, [2]uint64{}
	var c lossCounter
	for i, pattern := range []string{"a", "b:*"} {
		c.of = append(c.of, lossOf{pattern: pattern, lost: func() uint64 { return lost[i] }})
	}
	c.print(e)
	lost[1] = 3
	c.print(e)
	c.print(e)
	lost = [2]uint64{1, 5}
	c.print(e)
	if got, want := told.String(), "the peer has not sent 3 events of b:*\nthe peer has not sent 1 events of a\nthe peer has not sent 2 events of b:*\n"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
}
