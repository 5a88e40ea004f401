// Package redistest runs a real redis-server for a test: on a port of its own, in a
// directory of its own, and no longer than the test. It can be killed, started again,
// and stopped for a while without its connections noticing.
//
// A machine without redis-server fails the test: what needs Redis is never skipped.
package redistest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// patience is how long a server may take to answer or to end.
const patience = 20 * time.Second

// Missing is what a test says on a machine without redis-server.
const Missing = "redis-server is not installed: `make test` installs it (Debian, Ubuntu: apt-get install redis-server)"

// Server is a redis-server that runs, is stopped or was killed. Its methods are for the
// goroutine of the test, and fail it.
type Server struct {
	t    testing.TB
	path string
	dir  string
	port int
	args []string // but those that say where

	option string   // of a second port, empty if there is none
	second int      // that port
	run    *process // nil when it was killed
}

// process is one life of a server.
type process struct {
	p    *os.Process
	done chan struct{} // closed when the process has ended
}

// Start starts a server, waits until it answers, and ends it with the test. Further
// arguments are options of redis-server.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	return start(t, "", plain(args)...)
}

// plain returns the options of a server that keeps nothing, with others.
func plain(args []string) []string {
	return slices.Concat([]string{"--save", "", "--appendonly", "no"}, args)
}

// StartSentinel starts a sentinel that watches a master under the name main, and is enough
// to declare it dead.
func StartSentinel(t testing.TB, master *Server) *Server {
	t.Helper()
	conf := filepath.Join(t.TempDir(), "sentinel.conf") // which it writes to
	text := fmt.Sprintf("sentinel monitor main 127.0.0.1 %d 1\nsentinel down-after-milliseconds main 300\nsentinel failover-timeout main 3000\n", master.port)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return start(t, "", conf, "--sentinel")
}

// StartSentinels starts sentinels as StartSentinel does, and waits until they know of each
// other: the most of them elect the one that replaces the master.
func StartSentinels(t testing.TB, master *Server, n int) []*Server {
	t.Helper()
	all := make([]*Server, n)
	for i := range all {
		all[i] = StartSentinel(t, master)
	}
	for _, s := range all {
		s.await("knows the other sentinels", "SENTINEL MASTER main", fmt.Sprintf("num-other-sentinels\r\n$1\r\n%d\r\n", n-1))
	}
	return all
}

// StartCluster starts a cluster that shares out the slots evenly in order, and waits until
// all its servers say that it works. It works for the slots of those that live.
func StartCluster(t testing.TB, n int) []*Server {
	t.Helper()
	const slots = 16384
	all := make([]*Server, n)
	for i := range all {
		all[i] = start(t, "--cluster-port", plain([]string{
			"--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no",
		})...)
		all[i].await("has its slots", fmt.Sprintf("CLUSTER ADDSLOTSRANGE %d %d", slots*i/n, slots*(i+1)/n-1), "+OK")
		all[i].await("meets the first one", fmt.Sprintf("CLUSTER MEET 127.0.0.1 %d %d", all[0].port, all[0].second), "+OK")
	}
	for _, s := range all {
		s.await("knows the others", "CLUSTER INFO", fmt.Sprintf("cluster_known_nodes:%d\r\n", n))
		s.await("knows all slots", "CLUSTER INFO", fmt.Sprintf("cluster_slots_ok:%d\r\n", slots))
		s.await("works", "CLUSTER INFO", "cluster_state:ok")
	}
	return all
}

func start(t testing.TB, option string, args ...string) *Server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatal(Missing)
	}
	s := &Server{t: t, path: path, dir: t.TempDir(), args: args, option: option}
	t.Cleanup(func() {
		if s.run != nil {
			s.Kill()
		}
	})
	for range 10 { // somebody else may take the port in between
		s.port, s.second = freePort(t), freePort(t)
		if s.begin() {
			return s
		}
	}
	t.Fatalf("redis-server does not start; its log: %s", s.log())
	return nil
}

// Addr returns host and port. They stay when the server is started again.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns the address as a URL.
func (s *Server) URL() string { return "redis://" + s.Addr() }

// Kill ends the server with SIGKILL, and returns when it has ended.
func (s *Server) Kill() {
	s.t.Helper()
	if s.run == nil {
		s.t.Fatal("redistest: Kill: the server does not run")
	}
	if err := s.run.p.Kill(); err != nil {
		s.t.Errorf("redistest: Kill: %v", err)
	}
	select {
	case <-s.run.done:
	case <-time.After(patience):
		s.t.Fatal("redistest: Kill: the server does not end")
	}
	s.run = nil
}

// Restart kills the server if it runs, and starts it anew at the same address. It has
// lost all data then. Restart returns when it answers.
func (s *Server) Restart() {
	s.t.Helper()
	if s.run != nil {
		s.Kill()
	}
	if !s.begin() {
		s.t.Fatalf("redistest: Restart: the server ended at once; its log: %s", s.log())
	}
}

// Pause stops the server with SIGSTOP: connections stay, and nothing answers.
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(stop)
}

// Continue ends what Pause began.
func (s *Server) Continue() {
	s.t.Helper()
	s.signal(proceed)
}

func (s *Server) signal(sig os.Signal) {
	s.t.Helper()
	if s.run == nil {
		s.t.Fatalf("redistest: %v: the server does not run", sig)
	}
	if err := s.run.p.Signal(sig); err != nil {
		s.t.Fatalf("redistest: %v: %v", sig, err)
	}
}

// begin starts a process and waits until it answers. It returns false if the process
// ended instead.
func (s *Server) begin() bool {
	s.t.Helper()
	args := slices.Concat(s.args, []string{
		"--bind", "127.0.0.1", "--port", strconv.Itoa(s.port), "--dir", s.dir, "--logfile", s.logFile(), "--daemonize", "no",
	})
	if s.option != "" {
		args = append(args, s.option, strconv.Itoa(s.second))
	}
	cmd := exec.Command(s.path, args...)
	dieWithParent(cmd)
	started := make(chan error)
	run := &process{done: make(chan struct{})}
	go func() {
		defer close(run.done)
		runtime.LockOSThread() // for dieWithParent, which means the thread that starts it
		err := cmd.Start()
		run.p = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // it was killed, or its log says why it ended
		}
	}()
	if err := <-started; err != nil {
		s.t.Fatalf("redistest: start %s: %v", s.path, err)
	}
	s.run = run
	deadline := time.After(patience)
	for !answers(s.Addr(), run.p.Pid) {
		select {
		case <-run.done:
			s.run = nil
			return false
		case <-deadline:
			s.t.Fatalf("redistest: the server does not answer; its log: %s", s.log())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return true
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "redis.log") }

func (s *Server) log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// answers reports whether the Redis at the address answers, and is that process.
func answers(addr string, pid int) bool {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return false
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return false
	}
	if _, err := io.WriteString(conn, "INFO server\r\n"); err != nil {
		return false
	}
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		if id, ok := strings.CutPrefix(lines.Text(), "process_id:"); ok {
			return id == strconv.Itoa(pid)
		}
	}
	return false
}

// await waits until an answer to a command has something in it.
func (s *Server) await(what, command, want string) {
	s.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		got, err := s.say(command)
		if err == nil && strings.Contains(got, want) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("redistest: it is not so that %s %s: %s = %q, %v", s.Addr(), what, command, got, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// say returns the answer to a command as it is on the wire.
func (s *Server) say(command string) (string, error) {
	conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	const end = "+PONG\r\n"
	if _, err := io.WriteString(conn, command+"\r\nPING\r\n"); err != nil {
		return "", err
	}
	var answer []byte
	for r := bufio.NewReader(conn); !bytes.HasSuffix(answer, []byte(end)); {
		line, err := r.ReadBytes('\n')
		if err != nil {
			return string(answer), err
		}
		answer = append(answer, line...)
	}
	return strings.TrimSuffix(string(answer), end), nil
}

// freePort returns a port that nobody listens on. It is none of those that the system
// gives to whoever dials, so that it is still free when the server is started again.
func freePort(t testing.TB) int {
	t.Helper()
	for range 100 {
		port := 10_000 + rand.IntN(20_000)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		l.Close()
		return port
	}
	t.Fatal("redistest: there is no free port")
	return 0
}
