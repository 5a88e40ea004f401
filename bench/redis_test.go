package bench_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/bench"
)

func TestStartRedis(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	r, err := bench.StartRedis(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimPrefix(r.URL(), "redis://")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Errorf("a Redis that was started does not accept: %v", err)
	} else {
		conn.Close()
	}
	r.Stop()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("somebody listens where Redis was stopped")
	}
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("Stop left %v", left)
	}
}

func TestStartRedisErrors(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("PATH", dir)
	if _, err := bench.StartRedis(t.Context()); !errors.Is(err, bench.ErrNoRedis) {
		t.Errorf("StartRedis without redis-server = %v, want ErrNoRedis", err)
	}
	script := func(lines string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "redis-server"), []byte("#!/bin/sh\n"+lines), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	script("echo out of ports\n")
	if _, err := bench.StartRedis(t.Context()); err == nil || !strings.Contains(err.Error(), "out of ports") {
		t.Errorf("StartRedis of one that ends at once = %v, want what it said", err)
	}
	script("echo starting; exec /bin/sleep 600\n")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := bench.StartRedis(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("StartRedis of one that is never ready = %v, want context.Canceled", err)
	}
	if left, _ := os.ReadDir(os.Getenv("TMPDIR")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
