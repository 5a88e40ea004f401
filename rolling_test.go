package netron_test

import (
	"bufio"
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
)

var rollingP99 = flag.Duration("rolling.p99", 0, "the p99 above which TestRollingRestart fails; 0 has it printed only")

// What a process that runs TestRollingNode is told by its environment.
const (
	rollingAddr = "NETRON_ROLLING_ADDR" // where to listen
	rollingFile = "NETRON_ROLLING_FILE" // where to write the ids of the calls that were served
)

// tally notes which calls it has served.
type tally struct {
	mu  sync.Mutex
	ids []int // guarded by mu
}

func (s *tally) Do(ctx context.Context, id int) (int, error) {
	s.mu.Lock()
	s.ids = append(s.ids, id)
	s.mu.Unlock()
	if id%211 == 0 { // so that calls are under way whenever a node goes
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return id, nil
}

type tallyClient struct {
	Do func(ctx context.Context, id int) (int, error)
}

// TestRollingNode is a server, in a process of its own that TestRollingRestart starts. It
// serves until SIGTERM.
func TestRollingNode(t *testing.T) {
	addr, isNode := os.LookupEnv(rollingAddr)
	if !isNode {
		t.Skip("it is run by TestRollingRestart")
	}
	n := newNode(t, netron.Config{Addr: addr})
	served := new(tally)
	if err := n.Expose("tally@1.0.0", served); err != nil {
		t.Fatal(err)
	}
	ctx, stop := netron.SignalContext(t.Context())
	defer stop()
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening")
	if err := n.Serve(ctx); err != nil {
		t.Errorf("Serve = %v", err)
	}
	var ids []byte
	for _, id := range served.ids {
		ids = append(strconv.AppendInt(ids, int64(id), 10), '\n')
	}
	if err := os.WriteFile(os.Getenv(rollingFile), ids, 0o600); err != nil {
		t.Fatal(err)
	}
}

// rollingNode is such a process.
type rollingNode struct {
	t      *testing.T
	addr   string
	file   string
	cmd    *exec.Cmd
	output *bytes.Buffer  // written by copying
	copied sync.WaitGroup // the goroutine that copies
}

func startRollingNode(t *testing.T, addr string) *rollingNode {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &rollingNode{t: t, addr: addr, file: filepath.Join(t.TempDir(), "served"), output: new(bytes.Buffer)}
	n.cmd = exec.CommandContext(t.Context(), binary, "-test.run=^TestRollingNode$", "-test.count=1")
	n.cmd.Env = append(os.Environ(), rollingAddr+"="+addr, rollingFile+"="+n.file)
	n.cmd.Stderr = n.cmd.Stdout
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "listening") {
			break
		}
		fmt.Fprintln(n.output, lines.Text())
	}
	n.copied.Go(func() {
		for lines.Scan() {
			fmt.Fprintln(n.output, lines.Text())
		}
	})
	return n
}

// stop ends the process in an orderly way and returns the ids of the calls that it has
// served.
func (n *rollingNode) stop() []int {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatal(err)
	}
	n.copied.Wait() // before Wait closes the pipe
	if err := n.cmd.Wait(); err != nil {
		n.t.Fatalf("node at %s: %v\n%s", n.addr, err, n.output)
	}
	text, err := os.ReadFile(n.file)
	if err != nil {
		n.t.Fatal(err)
	}
	var ids []int
	for line := range strings.Lines(string(text)) {
		id, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			n.t.Fatal(err)
		}
		ids = append(ids, id)
	}
	return ids
}

// fixedPort returns an address of the loopback that no outgoing connection gets, so that
// a node finds it free when it comes back.
func fixedPort(t *testing.T, from int) string {
	t.Helper()
	for port := from; port < from+100; port++ {
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Skip("no free port")
	return ""
}

// rollingCall is how a call ended.
type rollingCall struct {
	id   int
	took time.Duration // from the time that it was due
	err  error
}

// rollingClient makes a call every interval, from its first one on, until stop closes.
func rollingClient(t *testing.T, do func(context.Context, int) (int, error), first time.Time, interval time.Duration, id, step int, stop <-chan struct{}) []rollingCall {
	var calls []rollingCall
	due := time.NewTimer(0)
	defer due.Stop()
	for at := first; ; at = at.Add(interval) {
		due.Reset(time.Until(at))
		select {
		case <-due.C:
		case <-stop:
			return calls
		}
		got, err := do(netron.RetryUnsent(t.Context()), id)
		if err == nil && got != id {
			err = fmt.Errorf("the answer is that of call %d", got)
		}
		calls = append(calls, rollingCall{id: id, took: time.Since(at), err: err})
		id += step
	}
}

// TestRollingRestart replaces three nodes, which are processes of their own, one after
// the other under the calls of clients that know all of them.
func TestRollingRestart(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no SIGTERM")
	}
	clients, restarts, pause := 200, 3, 2*time.Second
	if raceEnabled { // which is too slow for so many on two cores
		clients = 40
	}
	if testing.Short() {
		clients, restarts, pause = 20, 1, 500*time.Millisecond
	}
	const interval = 100 * time.Millisecond
	nodes := make([]*rollingNode, 3)
	addrs := make([]string, len(nodes))
	for i := range nodes {
		addrs[i] = fixedPort(t, 21_000+100*i)
		nodes[i] = startRollingNode(t, addrs[i])
	}

	stop := make(chan struct{})
	outcomes := make([][]rollingCall, clients)
	var callers []*netron.Node
	var wg sync.WaitGroup
	for i := range clients {
		n := newNode(t, netron.Config{})
		p, err := n.Dial(t.Context(), addrs[i%3], netron.DialAlso(addrs[(i+1)%3], addrs[(i+2)%3]))
		if err != nil {
			t.Fatal(err)
		}
		client, err := netron.Query[tallyClient](t.Context(), p, "tally@1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		first := time.Now().Add(interval * time.Duration(i) / time.Duration(clients))
		callers = append(callers, n)
		wg.Go(func() { outcomes[i] = rollingClient(t, client.Do, first, interval, i, clients, stop) })
	}

	var served []int
	for i := range restarts {
		time.Sleep(pause)
		begun := time.Now()
		served = append(served, nodes[i].stop()...)
		ended := time.Now()
		nodes[i] = startRollingNode(t, addrs[i])
		t.Logf("node %d drained in %v, and was back after %v", i+1, ended.Sub(begun).Round(time.Millisecond), time.Since(ended).Round(time.Millisecond))
	}
	time.Sleep(pause)
	close(stop)
	wg.Wait()
	for _, n := range callers {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, n := range nodes {
		served = append(served, n.stop()...)
	}
	judgeRolling(t, slices.Concat(outcomes...), served)
}

// judgeRolling checks that no call has failed, and that each was served once.
func judgeRolling(t *testing.T, calls []rollingCall, served []int) {
	t.Helper()
	times := make(map[int]int, len(served))
	for _, id := range served {
		times[id]++
	}
	var failed, lost, twice int
	took := make([]time.Duration, 0, len(calls))
	for _, c := range calls {
		took = append(took, c.took)
		if c.err != nil {
			if failed++; failed <= 5 {
				sent, known := netron.WasSent(c.err)
				t.Errorf("call %d failed after %v, served %d times, sent %t, known %t: %v", c.id, c.took, times[c.id], sent, known, c.err)
			}
		} else if times[c.id] == 0 {
			lost++
		}
	}
	for _, n := range times {
		if n > 1 {
			twice++
		}
	}
	slices.Sort(took)
	at := func(part float64) time.Duration {
		return took[int(part*float64(len(took)-1))].Round(10 * time.Microsecond)
	}
	t.Logf("%d calls, %d failed, %d answered but not served, %d served more than once; p50 %v, p99 %v, p99.9 %v, longest %v",
		len(calls), failed, lost, twice, at(0.5), at(0.99), at(0.999), at(1))
	if failed+lost+twice > 0 {
		t.Errorf("%d calls failed, %d were answered but not served, %d were served more than once, want none", failed, lost, twice)
	}
	if limit := *rollingP99; limit > 0 && at(0.99) > limit {
		t.Errorf("p99 %v, want at most %v", at(0.99), limit)
	}
}
