package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

// redisCommand sends a command to Redis and returns the line of its answer, which must be
// no error.
func redisCommand(t *testing.T, s *redistest.Server, line string) string {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "%s\r\n", line)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || answer[0] == '-' {
		t.Fatalf("%s = %q, %v", line, answer, err)
	}
	return strings.TrimSpace(answer)
}
