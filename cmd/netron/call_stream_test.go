package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/stream/file"
)

func TestCallStreams(t *testing.T) {
	url := startTool(t, "serve", "--demo", "--listen", "127.0.0.1:0")
	name := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(name, make([]byte, 300_000), 0o600); err != nil {
		t.Fatal(err)
	}
	pattern := make([]byte, 100_000)
	for i := range pattern {
		pattern[i] = byte(i & 0xffff)
	}
	for _, tt := range []struct {
		stdin string
		args  []string // with URL for that of the server
		out   string
		code  int
		errs  string
	}{
		{"", []string{"URL", "calculator", "count", "3"}, "0\n1\n2\n", exitOK, ""},
		{"", []string{"URL", "calculator", "count", "0"}, "", exitOK, ""},
		{"", []string{"URL", "calculator", "download", "100000"}, string(pattern), exitOK, ""},
		{"", []string{"--items", "URL", "calculator", "download", "3"}, "\"AAEC\"\n", exitOK, ""},
		{"hello", []string{"URL", "calculator", "upload", "-"}, "5\n", exitOK, ""},
		{"", []string{"URL", "calculator", "upload", "-"}, "0\n", exitOK, ""},
		{"", []string{"URL", "calculator", "upload", "@" + name}, "300000\n", exitOK, ""},
		{"1 2\n3.5\n", []string{"--items", "URL", "calculator", "sumStream", "-"}, "6.5\n", exitOK, ""},
		{"1 2 x", []string{"--items", "URL", "calculator", "sumStream", "-"}, "", exitRemote, "invalid character 'x'"},
		{"", []string{"URL", "calculator", "upload", "@" + name + "-not"}, "", exitUsage, "no such file"},
		{"", []string{"URL", "calculator", "sumStream", "5"}, "", exitRemote, "a number, not a stream"},
		{"xyz", []string{"URL", "calculator", "sumStream", "-"}, "", exitRemote, "an item does not fit"},
		{"", []string{"URL", "calculator", "pump", "1", "100000000"}, "", exitRemote, "chunks of"},
	} {
		args := []string{"call"}
		for _, arg := range tt.args {
			args = append(args, strings.ReplaceAll(arg, "URL", url))
		}
		var out, errs bytes.Buffer
		code := run(t.Context(), &env{stdin: strings.NewReader(tt.stdin), stdout: &out, stderr: &errs}, args)
		if out.String() != tt.out || code != tt.code || !strings.Contains(errs.String(), tt.errs) {
			t.Errorf("%v = %.50q, %d, %q, want %.50q, %d, %q", args, out.String(), code, errs.String(), tt.out, tt.code, tt.errs)
		}
	}
}

func TestProgressLine(t *testing.T) {
	for _, tt := range []struct {
		at   file.Progress
		want string
	}{
		{file.Progress{Bytes: 5, Total: -1, Elapsed: time.Second}, "5 B, 5 B/s"},
		{file.Progress{Bytes: 0, Total: 0, Elapsed: time.Second}, "0 B of 0 B (100 %), 0 B/s"},
		{file.Progress{Bytes: 10, Total: 30, Elapsed: time.Second}, "[##########....................] 10 B of 30 B (33 %), 10 B/s"},
		{file.Progress{Bytes: 40, Total: 30, Elapsed: time.Second}, "[##############################] 40 B of 30 B (100 %), 40 B/s"},
	} {
		if got := progressLine(tt.at); got != tt.want {
			t.Errorf("progressLine(%+v) = %q, want %q", tt.at, got, tt.want)
		}
	}
	p := newProgress(&env{stderr: &bytes.Buffer{}}, false)
	p.show(file.Progress{})
	p.end()
	if p.w != nil || p.shown {
		t.Error("a progress is shown on what is no terminal")
	}
	var line bytes.Buffer
	p = &progress{w: &line}
	p.show(file.Progress{Bytes: 1, Total: -1})
	p.end()
	p.end()
	if got := line.String(); got != "\r1 B, 0 B/s\x1b[K\n" {
		t.Errorf("progress = %q", got)
	}
}
