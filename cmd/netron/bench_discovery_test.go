package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/bench"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

func TestBenchDiscovery(t *testing.T) {
	s := redistest.Start(t)
	for _, args := range [][]string{
		{},
		{"--redis", s.URL(), "--nodes", "20", "--callers", "4"},
	} {
		out, errs, code := runTool(t, append([]string{"bench", "discovery", "--duration", "300ms", "--json"}, args...)...)
		var local, redis bench.Result
		lines := json.NewDecoder(strings.NewReader(out))
		if code != exitOK || lines.Decode(&local) != nil || lines.Decode(&redis) != nil {
			t.Errorf("bench discovery %v = %q, %d, %q, want two results", args, out, code, errs)
			continue
		}
		if local.Workload != "discovery-local" || local.OpsPerS <= 0 || redis.Workload != "discovery-redis" || redis.OpsPerS <= 0 {
			t.Errorf("bench discovery %v = %s, want figures of both", args, out)
		}
	}
	out, errs, code := runTool(t, "bench", "discovery", "--duration", "300ms", "--redis", s.URL())
	if code != exitOK || strings.Count(out, "allocs/op\n") != 2 {
		t.Errorf("bench discovery = %q, %d, %q, want two lines", out, code, errs)
	}
}

func TestBenchDiscoveryErrors(t *testing.T) {
	s := redistest.Start(t)
	redisCommand(t, s, "CONFIG SET requirepass secret")
	t.Setenv("PATH", t.TempDir())
	for _, tt := range []struct {
		args []string
		code int
		errs string
	}{
		{nil, exitUnavailable, "apt-get install redis-server), or name one by --redis URL"},
		{[]string{"--redis", "nonsense"}, exitUsage, "URL"},
		{[]string{"--redis", "redis://127.0.0.1:1"}, exitUnavailable, "refused"},
		{[]string{"--redis", s.URL()}, exitRemote, "NOAUTH"},
	} {
		if _, errs, code := runTool(t, append([]string{"bench", "discovery"}, tt.args...)...); code != tt.code || !strings.Contains(errs, tt.errs) {
			t.Errorf("bench discovery %v: exit code %d, %q, want %d and %q", tt.args, code, errs, tt.code, tt.errs)
		}
	}
}

// TestRowWithoutRedis checks that the table says why a row is empty.
func TestRowWithoutRedis(t *testing.T) {
	var out, errs bytes.Buffer
	e := &env{stdout: &out, stderr: &errs}
	r := row{name: "lookups", promised: 10_000, aim: 300_000}
	err := fmt.Errorf("%w, or not", bench.ErrNoRedis)
	r.printMissing(e, false, err)
	if got := out.String(); !strings.Contains(got, "300,000") || !strings.Contains(got, "not measured: there is no redis-server") {
		t.Errorf("the row = %q, want what it aims at and why there is nothing", got)
	}
	out.Reset()
	r.printMissing(e, true, err)
	if out.Len() > 0 || !strings.Contains(errs.String(), "lookups: not measured") {
		t.Errorf("the row as JSON = %q and %q on standard error, want nothing and the reason", out.String(), errs.String())
	}
}
