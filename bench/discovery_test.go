package bench_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/bench"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// command sends a command to Redis and returns the line of its answer.
func command(t *testing.T, s *redistest.Server, line string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s\r\n", line)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(answer)
}

func wantEmpty(t *testing.T, s *redistest.Server, after any) {
	t.Helper()
	if n := command(t, s, "DBSIZE"); n != ":0" {
		t.Errorf("after %+v Redis has %s keys, want none", after, n)
	}
}

func TestDiscovery(t *testing.T) {
	s := redistest.Start(t)
	for _, r := range []bench.Discovery{
		{},
		{Nodes: 1},
		{Fresh: true},
		{Fresh: true, Callers: 3, Nodes: 300},
	} {
		r.URL, r.Duration = s.URL(), 300*time.Millisecond
		result, err := r.Run(t.Context())
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if result.OpsPerS <= 0 || result.P50us <= 0 || result.Nodes <= 0 || (result.QuestionsS > 0) != r.Fresh || (result.ServerCPU > 0) != r.Fresh {
			t.Errorf("%+v: %+v, want figures", r, result)
		}
		if line := result.String(); !strings.Contains(line, "allocs/op") {
			t.Errorf("%+v: %q, want a line", r, line)
		}
		wantEmpty(t, s, r)
	}
}

// TestDiscoveryEnds checks that a run does not outlast its ctx, nor leaves anything behind.
func TestDiscoveryEnds(t *testing.T) {
	s := redistest.Start(t)
	for _, isFresh := range []bool{false, true} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		r := bench.Discovery{URL: s.URL(), Fresh: isFresh, Duration: time.Hour}
		if _, err := r.Run(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Fresh %t: Run = %v, want context.DeadlineExceeded", isFresh, err)
		}
		cancel()
		wantEmpty(t, s, r)
	}
}

func TestDiscoveryErrors(t *testing.T) {
	s := redistest.Start(t)
	r := bench.Discovery{URL: s.URL(), Duration: time.Nanosecond}
	if result, err := r.Run(t.Context()); err == nil {
		t.Errorf("Run without time = %v, want an error", result)
	}
	wantEmpty(t, s, r)
	if got := command(t, s, "CONFIG SET requirepass secret"); got != "+OK" {
		t.Fatalf("CONFIG SET = %s", got)
	}
	for url, want := range map[string]discover.Code{
		s.URL():               netron.Unauthenticated,
		"http://127.0.0.1":    netron.InvalidArgument,
		"redis://127.0.0.1:1": netron.Unavailable,
	} {
		_, err := bench.Discovery{URL: url}.Run(t.Context())
		if e, ok := errors.AsType[*discover.Error](err); !ok || e.Code != want {
			t.Errorf("Run with %s = %v, want code %v", url, err, want)
		}
	}
	for _, r := range []bench.Discovery{{Nodes: -1}, {Fresh: true, Callers: -1}, {Duration: -1}} {
		if _, err := r.Run(t.Context()); err == nil {
			t.Errorf("Run of %+v = nil, want an error", r)
		}
	}
}
