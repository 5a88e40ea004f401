package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/d-e-v-grid/netron/bench"
)

// benchFlags are the flags that the workloads share.
type benchFlags struct {
	addr               string
	conns, inflight    int
	payload            int
	rate               float64
	duration           time.Duration
	typed, inline      bool
	subscribers        int
	stalled            bool
	chunk              int
	down, reserve      bool
	driver, dialDriver string
	pollers            int
	redis              string
	callers, nodes     int
	asJSON             bool
}

// runBench runs one workload, or all of them in a table.
func runBench(ctx context.Context, e *env, args []string) error {
	flags := newFlags(e, "bench", "[rpc | callback | events | stream | mixed | discovery | idle | sleepers | ping-pong] [flags]")
	var b benchFlags
	flags.StringVar(&b.addr, "addr", "", "`URL` of a server started with netron serve --bench; default: a process of its own")
	flags.IntVar(&b.conns, "conns", 0, "connections; default 1, of idle 10,000, of sleepers 10 with 1,000 of them each")
	flags.IntVar(&b.inflight, "inflight", 0, "calls in flight on each connection; default 64, of sleepers 8")
	flags.IntVar(&b.payload, "payload", 0, "bytes echoed by each call; 0 calls add(a, b)")
	flags.Float64Var(&b.rate, "rate", 0, "calls per second in all, on schedule; 0: each call starts when the last one ends")
	flags.DurationVar(&b.duration, "duration", 3*time.Second, "measured time, after a warm-up of a fifth of it")
	flags.BoolVar(&b.typed, "typed", false, "use rpc.Method and rpc.Handle in place of a struct of funcs and Expose")
	flags.BoolVar(&b.inline, "inline", false, "call methods that are declared inline")
	flags.BoolVar(&b.asJSON, "json", false, "print one JSON object for each run")
	flags.IntVar(&b.subscribers, "subscribers", 1, "connections that subscribe to the events")
	flags.BoolVar(&b.stalled, "stalled", false, "with events: one more subscriber reads nothing")
	flags.IntVar(&b.chunk, "chunk", 64<<10, "bytes of a chunk of stream and mixed")
	flags.BoolVar(&b.down, "down", false, "with stream: from the server to the client")
	flags.BoolVar(&b.reserve, "reserve", false, "with stream and mixed: chunks are sent from where they are made, see stream.Writer; without it they are read from an io.Reader")
	flags.StringVar(&b.redis, "redis", "", "`URL` of the Redis that discovery uses; default: a redis-server of its own")
	flags.IntVar(&b.callers, "callers", 64, "with discovery: those who ask Redis at the same time")
	flags.IntVar(&b.nodes, "nodes", 200, "with discovery: nodes that are registered")
	b.addDrivers(flags)
	profile := flags.String("cpuprofile", "", "write a CPU profile of this process, the client, to `FILE`")
	pingPong := flags.Bool("serve-ping-pong", false, "run the raw TCP echo server of the comparison")
	sink := flags.Bool("serve-sink", false, "run the raw TCP server that bytes are copied to in the comparison")
	if err := parse(flags, args); err != nil {
		return err
	}
	switch {
	case *pingPong:
		return serveTCP(ctx, e, bench.EchoTCP)
	case *sink:
		return serveTCP(ctx, e, bench.SinkTCP)
	}
	stopProfile, err := startProfile(*profile)
	if err != nil {
		return err
	}
	defer stopProfile()
	switch {
	case flags.NArg() == 0:
		return benchTable(ctx, e, &b)
	case flags.NArg() > 1:
		return usagef("unexpected argument %q", flags.Arg(1))
	}
	return b.run(ctx, e, flags.Arg(0))
}

// run runs one workload.
func (b *benchFlags) run(ctx context.Context, e *env, workload string) error {
	config, dial, err := b.client()
	if err != nil {
		return err
	}
	switch workload {
	case "rpc", "callback":
		run := b.rpc()
		if workload == "callback" {
			run.Mode = bench.Callback
		}
		result, err := b.benchRPC(ctx, run)
		if err != nil {
			return err
		}
		return printResult(e, result, b.asJSON)
	case "ping-pong":
		result, err := benchPingPong(ctx, b.duration)
		if err != nil {
			return err
		}
		return printResult(e, result, b.asJSON)
	case "events":
		result, err := b.benchEvents(ctx, b.events())
		if err != nil {
			return err
		}
		return printResult(e, result, b.asJSON)
	case "stream", "mixed":
		run := b.stream()
		if workload == "mixed" {
			run.Calls = max(b.inflight, 1)
		}
		result, err := b.benchStream(ctx, run)
		if err != nil {
			return err
		}
		return printResult(e, result, b.asJSON)
	case "discovery":
		return b.runDiscovery(ctx, e)
	case "idle":
		return b.withServer(ctx, func(url string, pid int) error {
			run := bench.Idle{URL: url, Pid: pid, Conns: b.conns, Duration: b.duration, Config: config, Dial: dial}
			result, err := run.Run(ctx)
			if err != nil {
				return err
			}
			return printResult(e, result, b.asJSON)
		})
	case "sleepers":
		return b.withServer(ctx, func(url string, _ int) error {
			run := bench.Sleepers{URL: url, Conns: b.conns, Inflight: b.inflight, Duration: b.duration, Config: config, Dial: dial}
			result, err := run.Run(ctx)
			if err != nil {
				return err
			}
			return printSleepers(e, result, b.asJSON)
		})
	}
	return usagef("unknown workload %q, want rpc, callback, events, stream, mixed, discovery, idle, sleepers or ping-pong", workload)
}

// rpc returns the run of calls that the flags describe.
func (b *benchFlags) rpc() bench.RPC {
	run := bench.RPC{Conns: b.conns, Inflight: b.inflight, Payload: b.payload, Rate: b.rate, Duration: b.duration, Inline: b.inline}
	if b.typed {
		run.Mode = bench.Typed
	}
	return run
}

// printSleepers prints the parts of a run with sleepers, and how the p99 of the fast
// calls compares with that when they are alone.
func printSleepers(e *env, r *bench.SleepersResult, asJSON bool) error {
	for _, part := range []struct {
		name   string
		result *bench.Result
	}{
		{"alone", r.Alone},
		{"beside connections full of handlers that are asleep", r.Beside},
		{"beside as many that sleep for a second each, again and again", r.Churning},
		{"among 100 such on their own connection", r.Among},
	} {
		if asJSON {
			if err := printResult(e, part.result, true); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(e.stdout, "fast calls %s (%s ended): %s/s, p50 %.0f us, p99 %.0f us, %.2f of that alone\n", part.name,
			bench.Count(float64(part.result.Sleepers)), bench.Count(part.result.OpsPerS), part.result.P50us, part.result.P99us, part.result.P99us/r.Alone.P99us)
	}
	return nil
}

func printResult(e *env, r *bench.Result, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(e.stdout).Encode(r)
	}
	_, err := fmt.Fprintln(e.stdout, r)
	return err
}

// withServer calls f with the server to run against: the one that a flag names, or
// a process of its own, with more flags.
func (b *benchFlags) withServer(ctx context.Context, f func(url string, pid int) error, more ...string) error {
	if b.addr != "" {
		return f(b.addr, 0)
	}
	args := append([]string{"serve", "--bench", "--listen", "127.0.0.1:0"}, b.serverFlags()...)
	server, err := startServer(ctx, append(args, more...)...)
	if err != nil {
		return err
	}
	defer server.stop()
	return f(server.addr, server.cmd.Process.Pid)
}

// benchRPC runs calls.
func (b *benchFlags) benchRPC(ctx context.Context, run bench.RPC) (result *bench.Result, err error) {
	if run.Config, run.Dial, err = b.client(); err != nil {
		return nil, err
	}
	err = b.withServer(ctx, func(url string, pid int) error {
		run.URL, run.Pid = url, pid
		result, err = run.Run(ctx)
		return err
	})
	return result, err
}

// events returns the run of events that the flags describe.
func (b *benchFlags) events() bench.Events {
	return bench.Events{Subscribers: b.subscribers, Payload: b.payload, Rate: b.rate, Duration: b.duration, Stalled: b.stalled}
}

// benchQueue is how many events may wait for a subscriber when they go as fast as they can:
// more would leave the caches.
const benchQueue = 1024

// benchEvents runs events. Those that go as fast as they can must wait for their
// subscribers.
func (b *benchFlags) benchEvents(ctx context.Context, run bench.Events) (result *bench.Result, err error) {
	if run.Config, run.Dial, err = b.client(); err != nil {
		return nil, err
	}
	server := []string{"--when-full", "drop-oldest"}
	if run.Rate == 0 {
		server = []string{"--when-full", "block", "--max-queued", strconv.Itoa(benchQueue)}
	}
	err = b.withServer(ctx, func(url string, pid int) error {
		run.URL, run.Pid = url, pid
		result, err = run.Run(ctx)
		return err
	}, server...)
	return result, err
}

// promisedCalls is the promised rate of calls per second, with a p99 below 2 ms.
const promisedCalls = 50_000

// promisedEvents is the promised rate of events per second, with a p99 below 1 ms.
const promisedEvents = 100_000

// promisedMB is the promised rate of a stream, in MB per second.
const promisedMB = 1000

// promisedLookups is the promised rate of lookups per second, with a p99 below 5 ms.
const promisedLookups = 10_000

// measured returns what a row is about: operations per second, of streams MB.
func measured(r *bench.Result) float64 {
	if r.Workload == "stream" || r.Workload == "mixed" {
		return r.MBPerS
	}
	return r.OpsPerS
}

// row is a line of the table: a workload with what was promised and what is aimed
// at.
type row struct {
	name          string
	run           func(context.Context) (*bench.Result, error)
	promised, aim float64 // operations per second, of streams MB
	maxP99        float64 // microseconds promised
	aimP99        float64 // microseconds aimed at, if fewer
}

// columns is the format of the table.
const columns = "%-34s %11s %11s %11s %8s %8s %10s  %s\n"

// printMissing prints the line of a row that can not be measured without Redis.
func (r *row) printMissing(e *env, asJSON bool, reason error) {
	if asJSON {
		fmt.Fprintf(e.stderr, "%s: not measured: %v\n", r.name, reason)
		return
	}
	fmt.Fprintf(e.stdout, columns, r.name, goal(r.promised), goal(r.aim), "-", "-", "-", "-", fmt.Sprintf("not measured: %v", reason))
}

// benchTable runs all workloads and prints a line each. It fails if a promised
// figure is missed.
func benchTable(ctx context.Context, e *env, b *benchFlags) error {
	rpcRow := func(name string, r bench.RPC, promised, aim float64) row {
		r.Duration = b.duration
		return row{name, func(ctx context.Context) (*bench.Result, error) { return b.benchRPC(ctx, r) }, promised, aim, 2000, 0}
	}
	eventsRow := func(name string, run bench.Events, promised, aim float64) row {
		run.Duration = b.duration
		return row{name, func(ctx context.Context) (*bench.Result, error) { return b.benchEvents(ctx, run) }, promised, aim, 1000, 0}
	}
	streamRow := func(name string, run bench.Stream, promised, aim float64) row {
		run.Duration = b.duration
		return row{name, func(ctx context.Context) (*bench.Result, error) { return b.benchStream(ctx, run) }, promised, aim, 0, 0}
	}
	discoveryRow := func(name string, isFresh bool, aim, aimP99 float64) row {
		run := bench.Discovery{Fresh: isFresh, Duration: b.duration}
		return row{name, func(ctx context.Context) (*bench.Result, error) { return b.benchDiscovery(ctx, run) }, promisedLookups, aim, 5000, aimP99}
	}
	rows := []row{
		rpcRow("rpc, on schedule at 50,000/s", bench.RPC{Rate: promisedCalls}, promisedCalls, promisedCalls),
		rpcRow("rpc, 1 connection, 64 in flight", bench.RPC{Inflight: 64}, promisedCalls, 500_000),
		rpcRow("  with rpc.Method and rpc.Handle", bench.RPC{Inflight: 64, Mode: bench.Typed}, promisedCalls, 500_000),
		rpcRow("  inline", bench.RPC{Inflight: 64, Inline: true}, promisedCalls, 650_000),
		rpcRow("  inline, rpc.Method, rpc.Handle", bench.RPC{Inflight: 64, Inline: true, Mode: bench.Typed}, promisedCalls, 650_000),
		rpcRow("rpc, 1 connection, 256 in flight", bench.RPC{Inflight: 256}, promisedCalls, 900_000),
		rpcRow("  with rpc.Method and rpc.Handle", bench.RPC{Inflight: 256, Mode: bench.Typed}, promisedCalls, 900_000),
		rpcRow("  inline", bench.RPC{Inflight: 256, Inline: true}, promisedCalls, 1_200_000),
		rpcRow("  inline, rpc.Method, rpc.Handle", bench.RPC{Inflight: 256, Inline: true, Mode: bench.Typed}, promisedCalls, 1_200_000),
		rpcRow("callbacks, 1 connection, 1024", bench.RPC{Inflight: 1024, Mode: bench.Callback}, promisedCalls, 2_500_000),
		rpcRow("callbacks, 4 connections, 1024", bench.RPC{Conns: 4, Inflight: 1024, Mode: bench.Callback}, promisedCalls, 3_000_000),
		rpcRow("rpc, 8 connections, 64 in flight", bench.RPC{Conns: 8, Inflight: 64}, 0, 800_000),
		rpcRow("rpc, 64 connections, 8 in flight", bench.RPC{Conns: 64, Inflight: 8}, 0, 400_000),
		rpcRow("rpc, echo of 1 KiB, 64 in flight", bench.RPC{Inflight: 64, Payload: 1024}, 0, 400_000),
		eventsRow("events, on schedule at 100,000/s", bench.Events{Rate: promisedEvents}, promisedEvents, promisedEvents),
		eventsRow("events, 1 subscriber", bench.Events{}, promisedEvents, 2_500_000),
		eventsRow("events, 10 subscribers", bench.Events{Subscribers: 10}, promisedEvents, 5_000_000),
		eventsRow("events, 100 subs, 2,000 events/s", bench.Events{Subscribers: 100, Rate: 2000}, 0, 200_000),
		streamRow("stream up, 64 KiB chunks, MB", bench.Stream{}, promisedMB, 3500),
		streamRow("  made in place", bench.Stream{Reserve: true}, promisedMB, 3500),
		streamRow("stream up, 256 KiB chunks, MB", bench.Stream{Chunk: 256 << 10}, promisedMB, 4000),
		streamRow("  made in place", bench.Stream{Chunk: 256 << 10, Reserve: true}, promisedMB, 4000),
		streamRow("stream down, 64 KiB chunks, MB", bench.Stream{Down: true}, promisedMB, 3500),
		streamRow("stream up beside a caller, MB", bench.Stream{Calls: 1}, 0, 1000),
		discoveryRow("lookups in the local view", false, 10_000_000, 0),
		discoveryRow("lookups through Redis, 64 callers", true, 300_000, 2000),
		{"ping-pong over plain TCP", func(ctx context.Context) (*bench.Result, error) { return benchPingPong(ctx, b.duration) }, 0, 0, 0, 0},
		rpcRow("rpc, 1 connection, 1 in flight", bench.RPC{Inflight: 1}, 0, 0),
	}
	if !b.asJSON {
		fmt.Fprintf(e.stdout, columns, "workload", "promised/s", "aimed at/s", "measured/s", "p50 us", "p99 us", "allocs/op", "verdict")
	}
	var missed []string
	raw := 0.0
	for _, row := range rows {
		result, err := row.run(ctx)
		if errors.Is(err, bench.ErrNoRedis) {
			row.printMissing(e, b.asJSON, err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", strings.TrimSpace(row.name), err)
		}
		switch {
		case result.Workload == "ping-pong":
			raw = result.OpsPerS
		case row.aim == 0:
			row.aim = 0.9 * raw // of the row before
		}
		if b.asJSON {
			if err := printResult(e, result, true); err != nil {
				return err
			}
			continue
		}
		verdict := row.verdict(result)
		if verdict == verdictMissed {
			missed = append(missed, strings.TrimSpace(row.name))
		}
		fmt.Fprintf(e.stdout, columns, row.name, goal(row.promised), goal(row.aim), bench.Count(measured(result)),
			bench.Micros(result.P50us), bench.Micros(result.P99us), fmt.Sprintf("%.1f", result.AllocsPer), verdict)
	}
	if len(missed) > 0 {
		return &goalError{"promised figure missed: " + strings.Join(missed, "; ")}
	}
	return nil
}

func goal(n float64) string {
	if n == 0 {
		return "-"
	}
	return bench.Count(n)
}

const verdictMissed = "MISSED the promise"

// onSchedule is the part of a scheduled rate that counts as reached: the last
// calls of a run end after it.
const onSchedule = 0.99

// verdict compares a result with the figures of its row. The promise is a rate
// together with a latency, so the latency counts at the promised rate; beyond it
// a longer one is said.
func (r *row) verdict(result *bench.Result) string {
	slow := r.promised > 0 && r.maxP99 > 0 && result.P99us > r.maxP99
	switch {
	case r.aim == 0:
		return "for comparison"
	case r.promised == r.aim && measured(result) >= onSchedule*r.promised && !slow:
		return "promise kept"
	case measured(result) < r.promised, r.promised == r.aim:
		return verdictMissed
	}
	s := fmt.Sprintf("%.0f%% of the aim", 100*measured(result)/r.aim)
	if r.promised > 0 {
		s = fmt.Sprintf("%.1fx the promised rate, ", measured(result)/r.promised) + s
	}
	if result.OfRaw > 0 {
		s += fmt.Sprintf(", %.2f of plain TCP", result.OfRaw)
	}
	if slow {
		s += fmt.Sprintf(", p99 over %.0f us", r.maxP99)
	} else if r.aimP99 > 0 && result.P99us > r.aimP99 {
		s += fmt.Sprintf(", p99 over the aim of %.0f us", r.aimP99)
	}
	return s
}

// serverProcess is a server in a process of its own.
type serverProcess struct {
	cmd  *exec.Cmd
	addr string
}

// startServer starts this program with other arguments and waits for its address.
func startServer(ctx context.Context, args ...string) (*serverProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	s := &serverProcess{cmd: cmd}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "listening ")
	if err != nil || !ok {
		s.stop()
		return nil, fmt.Errorf("the server process did not start: instead of its address it said %q", line)
	}
	s.addr = addr
	return s, nil
}

// stop ends the process and waits for it.
func (s *serverProcess) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	t := time.AfterFunc(5*time.Second, func() { _ = s.cmd.Process.Kill() })
	defer t.Stop()
	_ = s.cmd.Wait() // how it ended does not matter any more
}

// stream returns the run of a stream that the flags describe.
func (b *benchFlags) stream() bench.Stream {
	return bench.Stream{Chunk: b.chunk, Down: b.down, Reserve: b.reserve, Duration: b.duration}
}

// benchStream runs a stream, and copies over plain TCP beside it.
func (b *benchFlags) benchStream(ctx context.Context, run bench.Stream) (result *bench.Result, err error) {
	if run.Config, run.Dial, err = b.client(); err != nil {
		return nil, err
	}
	sink, err := startServer(ctx, "bench", "--serve-sink")
	if err != nil {
		return nil, err
	}
	defer sink.stop()
	run.SinkAddr = sink.addr
	err = b.withServer(ctx, func(url string, pid int) error {
		run.URL, run.Pid = url, pid
		result, err = run.Run(ctx)
		return err
	})
	return result, err
}

// serveTCP is the other process of what is compared with.
func serveTCP(ctx context.Context, e *env, serve func(net.Listener) error) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	fmt.Fprintf(e.stdout, "listening %s\n", ln.Addr())
	return serve(ln)
}

func benchPingPong(ctx context.Context, d time.Duration) (*bench.Result, error) {
	server, err := startServer(ctx, "bench", "--serve-ping-pong")
	if err != nil {
		return nil, err
	}
	defer server.stop()
	return bench.PingPong(ctx, server.addr, d)
}
