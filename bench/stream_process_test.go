package bench

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/mux"
)

// BenchmarkStreamProcesses is BenchmarkStream with the server in a process of its own, as two
// ends in one process share their caches and their collector. An operation is a MiB; a fixed
// number of them makes runs comparable, and single runs in turn make up for a busy machine:
//
//	go test -run - -bench StreamProcesses -benchtime 2000x ./bench
//
// With -cpuprofile the profile of the server is in a file of the same name with ".peer" behind.
func BenchmarkStreamProcesses(b *testing.B) {
	for _, size := range []int{32 << 10, 60 << 10, 64 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("TCP/%dKiB", size>>10), func(b *testing.B) {
			newStreamPeer(b, engine.DriverStd).copyTCP(b, size)
		})
	}
	for _, size := range []int{1 << 10, 64 << 10, 256 << 10} {
		for _, server := range []engine.Driver{engine.DriverEpoll, engine.DriverStd} {
			for _, client := range []engine.Driver{engine.DriverStd, engine.DriverEpoll} {
				for _, direction := range []string{"up", "down"} {
					b.Run(fmt.Sprintf("%dKiB/%v-%v/%s", size>>10, client, server, direction), func(b *testing.B) {
						newStreamPeer(b, server).pump(b, client, size, direction == "up")
					})
				}
			}
		}
	}
}

// streamPeer is the other process. It obeys commands, a line each, and answers in lines.
type streamPeer struct {
	tcp, ws string // addresses
	in      io.Writer
	out     *bufio.Reader
}

const streamPeerDriver = "NETRON_BENCH_STREAM_DRIVER"

func newStreamPeer(b *testing.B, driver engine.Driver) *streamPeer {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	args := []string{"-test.run=^TestStreamPeer$", "-test.count=1"}
	if f := flag.Lookup("test.cpuprofile"); f != nil && f.Value.String() != "" {
		args = append(args, "-test.cpuprofile="+f.Value.String()+".peer")
	}
	cmd := exec.CommandContext(context.Background(), self, args...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", streamPeerDriver, driver))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close() // which ends it
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			b.Error(err)
		}
	})
	p := &streamPeer{in: in, out: bufio.NewReader(out)}
	p.answer(b, &p.tcp, &p.ws)
	return p
}

func (p *streamPeer) command(b *testing.B, args ...any) {
	b.Helper()
	if _, err := fmt.Fprintln(p.in, args...); err != nil {
		b.Fatal(err)
	}
}

func (p *streamPeer) answer(b *testing.B, to ...any) {
	b.Helper()
	if _, err := fmt.Fscanln(p.out, to...); err != nil {
		b.Fatal(err)
	}
}

// copyTCP sends b.N MiB over plain TCP in writes of size bytes.
func (p *streamPeer) copyTCP(b *testing.B, size int) {
	c, err := net.Dial("tcp", p.tcp)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	data := make([]byte, size)
	n := max(1, b.N<<20/size)
	p.measure(b, n*size, func() {
		p.command(b, "tcp", 0, size, n)
		for range n {
			if _, err := c.Write(data); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// pump sends b.N MiB in chunks to the peer, or has it send them.
func (p *streamPeer) pump(b *testing.B, driver engine.Driver, size int, up bool) {
	workers, err := mux.NewWorkers(0, 0, nil)
	if err != nil {
		b.Fatal(err)
	}
	c, err := engine.Dial(b.Context(), "ws://"+p.ws, &engine.DialConfig{Config: engine.Config{Driver: driver}})
	if err != nil {
		b.Fatal(err)
	}
	client := mux.NewSession(c, streamConfig(workers, "client", true))
	c.Start(client)
	client.Begin()
	if _, err := client.WaitReady(b.Context()); err != nil {
		b.Fatal(err)
	}
	n := max(1, b.N<<20/size)
	p.measure(b, n*size, func() {
		if up {
			var w *mux.StreamWriter
			if w, err = client.NewWriter(true); err != nil {
				return
			}
			p.command(b, "read", w.ID(), size, n)
			err = writeChunks(w, size, n)
			return
		}
		var r *mux.StreamReader
		if r, err = client.NewReader(true); err != nil {
			return
		}
		p.command(b, "write", r.ID(), size, n)
		err = readChunks(r, size*n)
	})
	if err != nil {
		b.Fatal(err)
	}
	client.Close(1000, "")
	<-client.Done()
	if err := workers.Close(0); err != nil {
		b.Fatal(err)
	}
}

// measure runs what sends so many bytes, until the peer says that it has done its part.
func (p *streamPeer) measure(b *testing.B, bytes int, run func()) {
	b.SetBytes(1 << 20)
	b.ResetTimer()
	before := ownCPU()
	run()
	var theirs int64
	p.answer(b, &theirs)
	b.StopTimer()
	gigabytes := float64(bytes) / 1e9
	b.ReportMetric((ownCPU()-before).Seconds()*1e3/gigabytes, "client-ms/GB")
	b.ReportMetric(float64(theirs)/1e6/gigabytes, "server-ms/GB")
}

// TestStreamPeer is the other process of BenchmarkStreamProcesses.
func TestStreamPeer(t *testing.T) {
	var driver engine.Driver
	if _, err := fmt.Sscan(os.Getenv(streamPeerDriver), &driver); err != nil {
		t.Skip("it is run by BenchmarkStreamProcesses")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sessions := make(chan *mux.Session, 1)
	url, stop := serveStreams(t, driver, sessions)
	defer stop()
	fmt.Println(ln.Addr(), url)
	for {
		var what string
		var id uint32
		var size, n int
		if _, err := fmt.Scanln(&what, &id, &size, &n); err != nil {
			return
		}
		var session *mux.Session
		if what != "tcp" {
			session = <-sessions
			if _, err := session.WaitReady(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		before := ownCPU()
		switch what {
		case "tcp":
			err = readTCP(ln, size*n)
		case "read":
			var r *mux.StreamReader
			if r, err = session.ReaderFor(id, true); err == nil {
				err = readChunks(r, size*n)
			}
		case "write":
			var w *mux.StreamWriter
			if w, err = session.WriterFor(id, true); err == nil {
				err = writeChunks(w, size, n)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(int64(ownCPU() - before))
	}
}

func readTCP(ln net.Listener, n int) error {
	c, err := ln.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	data := make([]byte, 256<<10)
	for n > 0 {
		got, err := c.Read(data)
		if err != nil {
			return err
		}
		n -= got
	}
	return nil
}

// writeChunks sends n chunks and ends the stream.
func writeChunks(w *mux.StreamWriter, size, n int) error {
	data := make([]byte, size)
	for range n {
		buf := w.Begin(size + 5)
		buf.B = codec.AppendBytes(buf.B, data)
		if err := w.Send(context.Background(), buf); err != nil {
			return err
		}
	}
	w.Close()
	<-w.Done()
	return w.Err()
}

// readChunks reads a stream to its end, which must have at least n bytes.
func readChunks(r *mux.StreamReader, n int) error {
	for {
		p, err := r.Next(context.Background())
		switch {
		case errors.Is(err, io.EOF) && n > 0:
			return fmt.Errorf("%d bytes did not come", n)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		n -= len(p)
	}
}
