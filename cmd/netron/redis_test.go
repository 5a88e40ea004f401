package main

import (
	"bufio"
	"fmt"
	"net"
	"testing"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

// redisCommand has Redis do something.
func redisCommand(t *testing.T, s *redistest.Server, line string) {
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
}
