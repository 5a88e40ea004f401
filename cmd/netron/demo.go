package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/stream/file"
)

// demoRun is a demonstration under way: a server node and a client node in one
// process, joined by a real WebSocket connection.
type demoRun struct {
	out    io.Writer
	nodes  []*netron.Node // all of them
	server *netron.Node
	client *netron.Node
	peer   *netron.Peer
	calc   *demo.Client
}

// runDemo shows what the library does. It needs no network but loopback.
func runDemo(ctx context.Context, e *env, args []string) error {
	flags := newFlags(e, "demo", "")
	if err := parse(flags, args); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait() // for Serve, which ends with the server
	d := &demoRun{out: e.stdout}
	defer d.close()
	server, err := d.demoNode(netron.Config{ID: "server", Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	d.server = server
	if d.client, err = d.demoNode(netron.Config{ID: "client"}); err != nil {
		return err
	}
	served := make(chan error, 1)
	serving, stop := context.WithCancel(ctx)
	defer stop()
	for _, step := range []struct {
		title string
		run   func(context.Context) error
	}{
		{"A node exposes a service and listens", func(context.Context) error {
			if err := d.listen(); err != nil {
				return err
			}
			wg.Go(func() { served <- server.Serve(serving) })
			return nil
		}},
		{"Another node dials it and asks for the service", d.dial},
		{"Typed calls go over the WebSocket", d.calls},
		{"Errors keep their code, name and details", d.errors},
		{"A slow call delays nobody", d.slow},
		{"The server calls back over the same connection", d.callBack},
		{"Tasks run by name", d.task},
		{"Properties are read and written, if they may", d.property},
		{"Events go to those who subscribed to a pattern", d.events},
		{"Methods take and return streams", d.streams},
		{"A file goes up with progress and comes down checked", d.files},
		{"Nodes find each other, and calls go to whoever is there", d.found},
		{"A connection is lost, and made anew", d.reconnect},
		{"20,000 calls, 64 in flight, on one connection", d.load},
	} {
		fmt.Fprintf(d.out, "\n%s\n", step.title)
		if err := step.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(step.title), err)
		}
	}
	fmt.Fprintf(d.out, "\nThe server drains and closes\n")
	stop()
	if err := <-served; err != nil {
		return err
	}
	<-d.peer.Done()
	d.say("the client saw: %v", d.peer.Err())
	fmt.Fprintf(d.out, "\nAll done. Next: go run ./cmd/netron serve --demo\n")
	return nil
}

// say prints one line of a step.
func (d *demoRun) say(format string, args ...any) {
	fmt.Fprintf(d.out, "  "+format+"\n", args...)
}

func (d *demoRun) listen() error {
	if err := demo.Expose(d.server); err != nil {
		return err
	}
	if err := d.server.Listen(); err != nil {
		return err
	}
	d.say("listening on ws://%s with %s", d.server.Addr(), strings.Join(d.server.Services(), ", "))
	return nil
}

func (d *demoRun) dial(ctx context.Context) (err error) {
	start := time.Now()
	if d.peer, err = d.client.Dial(ctx, d.server.Addr(), netron.DialReconnect(0, -1)); err != nil {
		return err
	}
	d.say("connected to peer %q in %s", d.peer.ID(), took(start))
	start = time.Now()
	if d.calc, err = netron.Query[demo.Client](ctx, d.peer, "calculator"); err != nil {
		return err
	}
	d.say("calculator is now a struct of funcs (%s)", took(start))
	return nil
}

func (d *demoRun) calls(ctx context.Context) error {
	start := time.Now()
	sum, err := d.calc.Add(ctx, 5, 3)
	if err != nil {
		return err
	}
	d.say("Add(5, 3) = %v in %s", sum, took(start))
	start = time.Now()
	product, err := d.calc.Multiply(ctx, 2.5, 4)
	if err != nil {
		return err
	}
	d.say("Multiply(2.5, 4) = %v in %s", product, took(start))
	start = time.Now()
	echoed, err := d.calc.Echo(ctx, map[string]any{"id": 7, "tags": []string{"a", "b"}, "raw": []byte{1, 2, 3}})
	if err != nil {
		return err
	}
	d.say("Echo(a map) = %v in %s", echoed, took(start))
	return nil
}

func (d *demoRun) errors(ctx context.Context) error {
	_, err := d.calc.Divide(ctx, 1, 0)
	if err == nil {
		return errors.New("1 / 0 gave a result")
	}
	d.say("Divide(1, 0): %v", err)
	failure, ok := errors.AsType[*netron.Error](d.calc.Fail(ctx, "E_STOCK"))
	if !ok {
		return errors.New("the call of Fail did not fail")
	}
	d.say("Fail(\"E_STOCK\"): name %s, code %v, details %v", failure.Name, failure.Fields["code"], failure.Details)
	if err := d.calc.Nothing(ctx); err != nil {
		return err
	}
	err = d.peer.RunTask(ctx, "noSuchTask", nil)
	if netron.CodeOf(err) != netron.NotFound {
		return fmt.Errorf("a missing task gave %w", err)
	}
	d.say("RunTask(\"noSuchTask\"): %v", err)
	return nil
}

func (d *demoRun) slow(ctx context.Context) error {
	stub, err := d.peer.Service(ctx, "calculator")
	if err != nil {
		return err
	}
	start := time.Now()
	var answer string
	slow := stub.Go(ctx, "sleep", &answer, 50, "slept")
	if _, err := d.calc.Add(ctx, 1, 1); err != nil {
		return err
	}
	d.say("Add, sent behind a call that sleeps 50 ms, was back in %s", took(start))
	if err := slow.Wait(ctx); err != nil {
		return err
	}
	d.say("the sleeper answered %q after %s", answer, took(start))
	return nil
}

func (d *demoRun) callBack(ctx context.Context) error {
	err := d.server.AddTask("askCaller", func(ctx context.Context) (string, error) {
		var name string
		err := netron.PeerFrom(ctx).RunTask(ctx, "name", &name)
		return "hello, " + name, err
	})
	if err != nil {
		return err
	}
	if err := d.client.AddTask("name", func(context.Context) string { return "client" }); err != nil {
		return err
	}
	start := time.Now()
	var greeting string
	if err := d.peer.RunTask(ctx, "askCaller", &greeting); err != nil {
		return err
	}
	d.say("askCaller asked us back and answered %q in %s", greeting, took(start))
	return nil
}

func (d *demoRun) task(ctx context.Context) error {
	start := time.Now()
	var sum float64
	if err := d.peer.RunTask(ctx, "sum", &sum, 1, 2, 3, 4); err != nil {
		return err
	}
	d.say("sum(1, 2, 3, 4) = %v in %s", sum, took(start))
	return nil
}

func (d *demoRun) streams(ctx context.Context) error {
	start := time.Now()
	sum := 0.0
	for n, err := range d.calc.Count(ctx, 100_000) {
		if err != nil {
			return err
		}
		sum += n
	}
	d.say("Count(100000) streamed numbers that add up to %.0f in %s", sum, took(start))
	seen := 0
	for _, err := range d.calc.Count(ctx, 1e15) {
		if err != nil {
			return err
		}
		if seen++; seen == 10 {
			break
		}
	}
	d.say("Count(1e15) was left after %d: the loop on the server has ended too", seen)
	start = time.Now()
	total, err := d.calc.SumStream(ctx, d.calc.Count(ctx, 1000))
	if err != nil {
		return err
	}
	d.say("SumStream(Count(1000)) = %.0f in %s, a stream fed by a stream", total, took(start))
	return nil
}

// demoFileSize is the size of the file that goes up and down, in bytes.
const demoFileSize = 64 << 20

func (d *demoRun) files(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "netron-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	served := filepath.Join(dir, "served")
	if err := os.Mkdir(served, 0o700); err != nil {
		return err
	}
	store, err := file.OpenStore(served, file.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := d.server.Expose("fileService@1.0.0", store); err != nil {
		return err
	}
	files, err := netron.Query[file.Client](ctx, d.peer, "fileService")
	if err != nil {
		return err
	}
	original := filepath.Join(dir, "original")
	content := make([]byte, demoFileSize)
	for i := range content {
		content[i] = byte(i * i >> 7)
	}
	if err := os.WriteFile(original, content, 0o600); err != nil {
		return err
	}
	next := 0.0
	up, err := files.Upload(ctx, "copies/data.bin", original, func(p file.Progress) {
		if p.Fraction() >= next || p.Bytes == p.Total {
			d.say("upload: %v", p)
			next = p.Fraction() + 0.25
		}
	})
	if err != nil {
		return err
	}
	if err := os.Remove(original); err != nil {
		return err
	}
	start := time.Now()
	down, err := files.Download(ctx, "copies/data.bin", filepath.Join(dir, "copy"), nil)
	if err != nil {
		return err
	}
	if down.Checksum != up.Checksum || down.Size != demoFileSize {
		return fmt.Errorf("the copy is %+v, the original was %+v", down, up)
	}
	d.say("downloaded %d bytes in %s, SHA-256 %s... is that of the original", down.Size, took(start), down.Checksum[:16])
	_, err = files.DownloadFile(ctx, "../secret")
	d.say("DownloadFile(\"../secret\"): %v", err)
	return d.server.Conceal("fileService@1.0.0")
}

func (d *demoRun) load(ctx context.Context) error {
	const calls, inflight = 20_000, 64
	latencies := make([]time.Duration, calls)
	failed := make(chan error, inflight)
	var wg sync.WaitGroup
	start := time.Now()
	for w := range inflight {
		wg.Go(func() {
			for i := w; i < calls; i += inflight {
				begin := time.Now()
				sum, err := d.calc.Add(ctx, float64(i), 1)
				if err == nil && sum != float64(i+1) {
					err = fmt.Errorf("add(%d, 1) = %v", i, sum)
				}
				if err != nil {
					failed <- err
					return
				}
				latencies[i] = time.Since(begin)
			}
		})
	}
	wg.Wait()
	if len(failed) > 0 {
		return <-failed
	}
	total := time.Since(start)
	slices.Sort(latencies)
	d.say("%.0f calls/s, median %s, p99 %s, all results right",
		calls/total.Seconds(), latencies[calls/2].Round(time.Microsecond), latencies[calls*99/100].Round(time.Microsecond))
	return nil
}

// took returns the time since start, for people.
func took(start time.Time) time.Duration { return time.Since(start).Round(time.Microsecond) }
