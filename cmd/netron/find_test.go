package main

import (
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

// TestFound calls a service that is found through Redis.
func TestFound(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	startTool(t, "serve", "--demo", "--listen", "127.0.0.1:0", "--redis", redis.URL(), "--zone", "north")
	for _, tc := range []struct {
		args []string
		want string // or of the error, after the exit code
		code int
	}{
		{[]string{redis.URL(), "calculator@^1", "add", "5", "3"}, "8\n", exitOK},
		{[]string{redis.URL(), "calculator", "count", "2"}, "0\n1\n", exitOK},
		{[]string{redis.URL(), "calculator", "divide", "1", "0"}, "Division by zero", exitRemote},
		{[]string{redis.URL(), "calculator@^2", "add", "5", "3"}, "no instance of calculator@^2 is known", exitUnavailable},
		{[]string{redis.URL(), "a@b@c", "add", "5", "3"}, "a@b@c", exitUsage},
		{[]string{"redis://nowhere:x", "a", "add"}, "the URL of Redis makes no sense", exitUsage},
		{[]string{"--task", redis.URL(), "sum", "1"}, "a task is run at a peer", exitUsage},
	} {
		// A server says that it listens before it is registered.
		args := append([]string{"call"}, tc.args...)
		out, errs, code := runTool(t, args...)
		for tc.code != exitUnavailable && code == exitUnavailable && t.Context().Err() == nil {
			out, errs, code = runTool(t, args...)
		}
		if code != tc.code || !strings.Contains(out+errs, tc.want) {
			t.Errorf("%v: exit code %d, %q, %q; want %d and %q", args, code, out, errs, tc.code, tc.want)
		}
	}
	redis.Kill()
	_, errs, code := runTool(t, "call", "--timeout", "100ms", redis.URL(), "calculator", "add", "5", "3")
	if code != exitUnavailable || !strings.Contains(errs, "Redis") {
		t.Errorf("call without Redis: exit code %d, %q", code, errs)
	}
}

func TestServeRefusesDiscovery(t *testing.T) {
	for _, args := range [][]string{
		{"serve", "--demo", "--zone", "north"},
		{"serve", "--demo", "--advertise", "host"},
		{"serve", "--echo", "--redis", "redis://127.0.0.1"},
		{"serve", "--demo", "--redis", "http://127.0.0.1"},
		{"serve", "--demo", "--redis", "redis://127.0.0.1", "--advertise", "http://host"},
	} {
		if _, errs, code := runTool(t, args...); code != exitUsage || errs == "" {
			t.Errorf("%v: exit code %d, %q", args, code, errs)
		}
	}
}
