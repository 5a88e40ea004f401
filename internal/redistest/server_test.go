package redistest

import (
	"bufio"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ask sends a line to the server and returns its answer, or an error after a while.
func ask(conn net.Conn, line string, wait time.Duration) (string, error) {
	conn.SetDeadline(time.Now().Add(wait))
	if _, err := io.WriteString(conn, line+"\r\n"); err != nil {
		return "", err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	return strings.TrimSpace(answer), err
}

func dial(t *testing.T, s *Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func TestServer(t *testing.T) {
	s := Start(t)
	if want := "redis://" + s.Addr(); s.URL() != want {
		t.Errorf("URL() = %q, want %q", s.URL(), want)
	}
	conn := dial(t, s)
	if got, err := ask(conn, "SET key value", patience); got != "+OK" {
		t.Fatalf("SET = %q, %v", got, err)
	}

	s.Pause()
	if got, err := ask(conn, "PING", 50*time.Millisecond); err == nil {
		t.Errorf("PING of a stopped server = %q", got)
	}
	s.Continue()
	conn.SetDeadline(time.Now().Add(patience))
	if got, err := bufio.NewReader(conn).ReadString('\n'); got != "+PONG\r\n" {
		t.Errorf("the answer after Continue = %q, %v", got, err)
	}

	addr := s.Addr()
	s.Restart()
	if s.Addr() != addr {
		t.Errorf("Restart moved the server from %s to %s", addr, s.Addr())
	}
	if got, err := ask(conn, "PING", patience); err == nil {
		t.Errorf("PING over the connection to the server before = %q", got)
	}
	if got, err := ask(dial(t, s), "EXISTS key", patience); got != ":0" {
		t.Errorf("EXISTS after a restart = %q, %v; want :0", got, err)
	}

	s.Kill()
	if conn, err := net.Dial("tcp", s.Addr()); err == nil {
		conn.Close()
		t.Error("somebody listens where a server was killed")
	}
	s.Restart()
	if got, err := ask(dial(t, s), "PING", patience); got != "+PONG" {
		t.Errorf("PING after Kill and Restart = %q, %v", got, err)
	}
}

// TestTakenPort shows that a server whose port is taken is noticed, although somebody
// answers there.
func TestTakenPort(t *testing.T) {
	first := Start(t)
	second := &Server{t: t, path: first.path, dir: t.TempDir(), port: first.port}
	if second.begin() {
		t.Error("two servers run on one port")
		second.Kill()
	}
	if text := second.log(); !strings.Contains(text, "in use") {
		t.Errorf("the log says %q, want that the port is in use", text)
	}
}

func TestPausedServerIsKilled(t *testing.T) {
	s := Start(t)
	s.Pause()
	s.Kill()
	if _, err := os.Stat(s.dir); err != nil {
		t.Error(err)
	}
}

// recorder is a test that fails without ending this one.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Fatal(args ...any) {
	r.fatal = args[0].(string)
	panic(r)
}

func TestMissingServerFails(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	r := &recorder{TB: t}
	defer func() {
		if recover() != r || !strings.Contains(r.fatal, "make test") {
			t.Errorf("without redis-server the test says %q, want how to install it", r.fatal)
		}
	}()
	Start(r)
}
