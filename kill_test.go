package netron_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// What a process that runs TestKillNode is told by its environment.
const (
	killAddr   = "NETRON_KILL_ADDR"   // where to listen
	killLedger = "NETRON_KILL_LEDGER" // the file of a ledger
	killRedis  = "NETRON_KILL_REDIS"  // where to register, if it is to be found
)

// killPoint is when a node is killed.
type killPoint string

const (
	anyMoment      killPoint = "any moment"
	beforeServing  killPoint = "before a call is served"
	beforeAnswer   killPoint = "after a call was served, before its answer"
	afterAnswering killPoint = "soon after an answer"
)

// ledger notes in a file, before it answers, which calls it has served: who is killed
// cannot do so at the end. All nodes share the file.
type ledger struct {
	file  *os.File
	point atomic.Value // a killPoint: when this process is to kill itself
}

func (l *ledger) Do(_ context.Context, id int) (int, error) {
	l.dieAt(beforeServing)
	takes := rand.N(4 * time.Millisecond) // so that calls are under way whenever the process ends
	time.Sleep(takes)
	if _, err := fmt.Fprintln(l.file, id); err != nil { // one write, which the kernel has from then on
		return 0, err
	}
	l.dieAt(beforeAnswer)
	time.Sleep(takes)
	if l.point.Load() == afterAnswering {
		time.AfterFunc(rand.N(time.Millisecond), killMyself)
	}
	return id, nil
}

func (l *ledger) dieAt(point killPoint) {
	if l.point.Load() == point {
		killMyself()
	}
}

func killMyself() {
	if p, err := os.FindProcess(os.Getpid()); err == nil {
		_ = p.Kill()
	}
	select {} // it may take a moment
}

// TestKillNode is a server, in a process of its own that TestKill starts. It serves until
// it is killed. From its standard input it reads when to do so by itself; the end of that
// is the end of TestKill.
func TestKillNode(t *testing.T) {
	addr, isNode := os.LookupEnv(killAddr)
	if !isNode {
		t.Skip("it is run by TestKill")
	}
	file, err := os.OpenFile(os.Getenv(killLedger), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, served := newNode(t, netron.Config{Addr: addr, Discovery: findThrough(os.Getenv(killRedis))}), &ledger{file: file}
	if err := n.Expose("tally@1.0.0", served); err != nil {
		t.Fatal(err)
	}
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("listening")
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			served.point.Store(killPoint(in.Text()))
		}
		killMyself()
	}()
	_ = n.Serve(context.Background())
}

// killNode is such a process.
type killNode struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Scanner
	output bytes.Buffer
}

func startKillNode(t *testing.T, addr, file, redis string) *killNode {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n := &killNode{t: t, cmd: exec.CommandContext(t.Context(), binary, "-test.run=^TestKillNode$", "-test.count=1")}
	n.cmd.Env = append(os.Environ(), killAddr+"="+addr, killLedger+"="+file, killRedis+"="+redis)
	out, err := n.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	n.cmd.Stderr = n.cmd.Stdout
	if n.in, err = n.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := n.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for n.out = bufio.NewScanner(out); n.out.Scan(); {
		if strings.Contains(n.out.Text(), "listening") {
			return n
		}
		fmt.Fprintln(&n.output, n.out.Text())
	}
	_ = n.cmd.Wait()
	t.Fatalf("node at %s does not start:\n%s", addr, &n.output)
	return nil
}

// kill has the process end at a point, or after a while if no call comes to it, and waits
// for it. It reports whether that was at the point.
func (n *killNode) kill(point killPoint) bool {
	n.t.Helper()
	patience := time.Duration(0)
	if point != anyMoment {
		patience = 2 * time.Second
		if _, err := fmt.Fprintln(n.in, point); err != nil {
			n.t.Error(err)
		}
	}
	late := time.AfterFunc(patience, func() { _ = n.cmd.Process.Kill() })
	for n.out.Scan() { // until it has ended
		fmt.Fprintln(&n.output, n.out.Text())
	}
	met := late.Stop()
	if err := n.cmd.Wait(); err == nil || n.cmd.ProcessState.Exited() {
		n.t.Errorf("node has ended by itself: %v\n%s", err, &n.output)
	}
	return met
}

// killCall is how a call ended.
type killCall struct {
	id     int
	policy policy
	err    error
	told   chan error // further outcomes, if there are any
}

// killClient makes one call after the other until stop closes.
type killClient struct {
	stub   *netron.Stub
	policy policy
	calls  []killCall
}

// killDeadline is much more than a call needs to get to a node that lives.
const killDeadline = 30 * time.Second

func (c *killClient) run(ctx context.Context, ids *atomic.Int64, stop <-chan struct{}) {
	pause := time.NewTicker(10 * time.Millisecond)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
			c.calls = append(c.calls, c.call(ctx, int(ids.Add(1))))
		case <-stop:
			return
		}
	}
}

func (c *killClient) call(ctx context.Context, id int) killCall {
	ctx, cancel := context.WithTimeout(ctx, killDeadline)
	defer cancel()
	call := killCall{id: id, policy: c.policy, told: make(chan error, 10)}
	var got int
	switch c.policy {
	case plain: // by a callback, which must not be told twice
		call.err = c.stub.CallFunc(ctx, "do", func(_ context.Context, reply *netron.Reply, err error) {
			if err == nil {
				err = reply.Decode(&got)
			}
			call.told <- err
		}, id)
		if call.err == nil {
			call.err = <-call.told
		}
	case retryUnsent:
		call.err = c.stub.Call(netron.RetryUnsent(ctx), "do", &got, id)
	case idempotent:
		call.err = c.stub.Call(netron.Idempotent(ctx), "do", &got, id)
	}
	if call.err == nil && got != id {
		call.err = fmt.Errorf("the answer is that of call %d", got)
	}
	return call
}

// TestKill kills three nodes, which are processes of their own, one after the other and
// over again, under the calls of clients that know all of them: each time that of which
// the clients are most likely to be.
func TestKill(t *testing.T) {
	addrs := make([]string, killNodes)
	for i := range addrs {
		addrs[i] = fixedPort(t, 22_000+100*i)
	}
	testKill(t, 40, func(i int, file string) *killNode { return startKillNode(t, addrs[i], file, "") },
		func(i int) (*netron.Node, *netron.Stub) {
			n := newNode(t, netron.Config{})
			p, err := n.Dial(t.Context(), addrs[i%3], netron.DialAlso(addrs[(i+1)%3], addrs[(i+2)%3]))
			if err != nil {
				t.Fatal(err)
			}
			stub, err := p.Service(t.Context(), "tally@1.0.0")
			if err != nil {
				t.Fatal(err)
			}
			return n, stub
		})
}

// TestKillFound is TestKill with clients that find the nodes through Redis: each new one is
// at an address that nobody knew before.
func TestKillFound(t *testing.T) {
	redis := redistest.Start(t).URL()
	testKill(t, 12, func(_ int, file string) *killNode { return startKillNode(t, "127.0.0.1:0", file, redis) },
		func(int) (*netron.Node, *netron.Stub) {
			n := newNode(t, netron.Config{Discovery: findThrough(redis)})
			c, err := n.Find("tally@1.0.0")
			if err != nil {
				t.Fatal(err)
			}
			stub, err := c.Stub(netron.RetryUnsent(t.Context())) // one of them may not be registered yet
			if err != nil {
				t.Fatal(err)
			}
			return n, stub
		})
}

// findThrough has nodes find each other through a Redis, in which the dead do not stay
// long; without one there is no discovery.
func findThrough(redis string) netron.DiscoveryConfig {
	if redis == "" {
		return netron.DiscoveryConfig{}
	}
	return netron.DiscoveryConfig{Redis: &discover.Config{URL: redis, Heartbeat: 500 * time.Millisecond, Logger: quiet}}
}

const killNodes = 3

// testKill is TestKill with so many clients. start starts a node, and call returns a
// client of all of them.
func testKill(t *testing.T, clients int, start func(i int, file string) *killNode, call func(i int) (*netron.Node, *netron.Stub)) {
	if runtime.GOOS == "windows" {
		t.Skip("no signal that a process could have ended by")
	}
	kills := 20
	if testing.Short() {
		kills = 4
	}
	if testing.Short() || raceEnabled {
		clients = 12
	}
	before := goleak.IgnoreCurrent()
	file := filepath.Join(t.TempDir(), "served")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	nodes := make([]*killNode, killNodes)
	for i := range nodes {
		nodes[i] = start(i, file)
	}

	var ids atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var callers []*netron.Node
	var all []*killClient
	for i := range clients {
		n, stub := call(i)
		c := &killClient{stub: stub, policy: policy(i % 3)}
		callers, all = append(callers, n), append(all, c)
		wg.Go(func() { c.run(context.Background(), &ids, stop) })
	}
	points := []killPoint{anyMoment, beforeServing, beforeAnswer, afterAnswering}
	met := 0
	for i := range kills {
		time.Sleep(rand.N(time.Second))
		if nodes[i%killNodes].kill(points[i%len(points)]) {
			met++
		}
		nodes[i%killNodes] = start(i%killNodes, file)
	}
	t.Logf("%d nodes killed, %d of them while they served a call", kills, met)
	close(stop)
	wg.Wait()
	for _, n := range callers {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
	for _, n := range nodes {
		n.kill(anyMoment)
	}
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))

	judgeKill(t, int(ids.Load()), all, readLedger(t, file))
}

// readLedger returns how often each call was served.
func readLedger(t *testing.T, file string) map[int]int {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	times := make(map[int]int)
	for line := range strings.Lines(string(text)) {
		id, err := strconv.Atoi(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		times[id]++
	}
	return times
}

// judgeKill checks that each call has one outcome, which is true, and that none was
// served twice that must not be.
func judgeKill(t *testing.T, begun int, clients []*killClient, served map[int]int) {
	t.Helper()
	var ended, failed, lost, again int
	for _, c := range clients {
		for _, call := range c.calls {
			ended++
			times := served[call.id]
			sent, known := netron.WasSent(call.err)
			wrong := ""
			switch {
			case len(call.told) > 0:
				wrong = "has more than one outcome"
			case call.err == nil && times == 0:
				wrong = "was answered but not served"
			case call.policy != idempotent && times > 1:
				wrong = "was served more than once"
			case call.policy == idempotent && call.err != nil:
				wrong = "is idempotent and failed"
			case call.err != nil && netron.CodeOf(call.err) != netron.Unavailable:
				wrong = "failed with another code than unavailable"
			case call.err != nil && !known:
				wrong = "failed and does not tell whether it was sent"
			case call.err != nil && !sent && times > 0:
				wrong = "was served, and is said not to have been sent"
			case call.policy == retryUnsent && call.err != nil && !sent:
				wrong = "was not sent, and not made again"
			}
			if wrong != "" {
				t.Errorf("call %d %s: served %d times, policy %d: %v", call.id, wrong, times, call.policy, call.err)
			}
			if call.err != nil {
				failed++
				if times > 0 {
					lost++
				}
			}
			if times > 1 {
				again++
			}
		}
	}
	if ended != begun {
		t.Errorf("%d calls were begun and %d have ended", begun, ended)
	}
	t.Logf("%d calls, %d failed, of which %d were served; %d idempotent ones were served more than once", begun, failed, lost, again)
}
