package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/mux"
)

// BenchmarkStream measures streams of binary chunks over a connection on the loopback
// interface, below rpc: in each direction, with each driver on both sides, and the copy over
// plain TCP beside it, by writes of several sizes.
func BenchmarkStream(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10, 256 << 10} {
		for _, driver := range []engine.Driver{engine.DriverEpoll, engine.DriverStd} {
			for _, up := range []bool{true, false} {
				direction := map[bool]string{true: "up", false: "down"}[up]
				b.Run(fmt.Sprintf("%dKiB/%v/%s", size>>10, driver, direction), func(b *testing.B) {
					client, server := streamSessions(b, driver)
					if up {
						pumpChunks(b, client, server, size)
					} else {
						pumpChunks(b, server, client, size)
					}
				})
			}
		}
	}
	for _, size := range []int{32 << 10, 60 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("TCP/%dKiB", size>>10), func(b *testing.B) { copyTCP(b, size) })
	}
}

// pumpChunks sends b.N chunks from one session to the other.
func pumpChunks(b *testing.B, from, to *mux.Session, size int) {
	w, err := from.NewWriter(true)
	if err != nil {
		b.Fatal(err)
	}
	r, err := to.ReaderFor(w.ID(), true)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	b.ResetTimer()
	sent := make(chan error, 1)
	go func() { sent <- writeChunks(w, size, b.N) }()
	if err := readChunks(r, b.N*size); err != nil {
		b.Fatal(err)
	}
	if err := <-sent; err != nil {
		b.Fatal(err)
	}
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

// TestStreamContent checks what comes of chunks of all sizes, over each driver, while the memory
// of those that were read is in use again.
func TestStreamContent(t *testing.T) {
	content := func(i, n int) []byte { // odd at first, as a chunk is not nil
		return bytes.Repeat([]byte{byte(i) | 1, byte(i >> 8), byte(n), 7, 11}, n/5+1)[:n]
	}
	sizes := []int{1, 4 << 10, 5000, 16 << 10, 32 << 10, 60_000, 1<<16 - 13, 1<<16 - 14, 1 << 16, 70_000, 256 << 10, 300_000, 1 << 20}
	const rounds = 12
	for _, driver := range []engine.Driver{engine.DriverEpoll, engine.DriverStd} {
		for _, up := range []bool{true, false} {
			from, to := streamSessions(t, driver)
			if !up {
				from, to = to, from
			}
			w, err := from.NewWriter(true)
			if err != nil {
				t.Fatal(err)
			}
			r, err := to.ReaderFor(w.ID(), true)
			if err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				defer w.Close()
				for i := range rounds * len(sizes) {
					n := sizes[i/3%len(sizes)]
					buf := w.Begin(n)
					buf.B = append(buf.B, content(i, n)...)
					if err := w.Send(context.Background(), buf); err != nil {
						sent <- err
						return
					}
				}
				sent <- nil
			}()
			for i := range rounds * len(sizes) {
				n := sizes[i/3%len(sizes)]
				p, err := r.Next(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(p, content(i, n)) {
					t.Fatalf("%v, up %v: chunk %d of %d bytes is another one, of %d", driver, up, i, n, len(p))
				}
				for k := range p {
					p[k] = 0xdb // it is ours
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// streamSessions returns the two ends of a connection.
func streamSessions(b testing.TB, driver engine.Driver) (client, server *mux.Session) {
	b.Helper()
	workers, err := mux.NewWorkers(0, 0, nil)
	if err != nil {
		b.Fatal(err)
	}
	accepted := make(chan *mux.Session, 1)
	addr, stop := serveStreams(b, driver, accepted)
	c, err := engine.Dial(b.Context(), "ws://"+addr, &engine.DialConfig{Config: engine.Config{Driver: driver}})
	if err != nil {
		b.Fatal(err)
	}
	client = mux.NewSession(c, streamConfig(workers, "client", true))
	c.Start(client)
	client.Begin()
	server = <-accepted
	for _, session := range []*mux.Session{client, server} {
		if _, err := session.WaitReady(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		client.Close(1000, "")
		<-client.Done()
		<-server.Done()
		stop()
		if err := workers.Close(0); err != nil {
			b.Error(err)
		}
	})
	return client, server
}

func streamConfig(workers *mux.Workers, id string, connector bool) mux.Config {
	return mux.Config{
		LocalID: id, Connector: connector, Workers: workers,
		Features: []string{mux.FeatureCancel, mux.FeatureCredit},
		Streams:  &mux.StreamConfig{Packets: benchPackets{}},
		Hint:     mux.Hint{Netron: true},
		Serve:    func(r *mux.Request, dst []byte) ([]byte, bool) { return append(dst, r.Payload...), false },
	}
}

// serveStreams serves sessions on the address that it returns, until stop is called.
func serveStreams(tb testing.TB, driver engine.Driver, accepted chan<- *mux.Session) (addr string, stop func()) {
	tb.Helper()
	workers, err := mux.NewWorkers(0, 0, nil)
	if err != nil {
		tb.Fatal(err)
	}
	s := engine.NewServer(engine.Config{Driver: driver}, func(c *engine.Conn) {
		session := mux.NewSession(c, streamConfig(workers, "server", false))
		c.Start(session)
		session.Begin()
		accepted <- session
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	return ln.Addr().String(), func() {
		s.Close()
		<-served
		if err := workers.Close(0); err != nil {
			tb.Error(err)
		}
	}
}

// copyTCP sends b.N pieces over plain TCP.
func copyTCP(b *testing.B, size int) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			return
		}
		defer c.Close()
		data := make([]byte, size)
		for range b.N {
			if _, err := c.Write(data); err != nil {
				return
			}
		}
	}()
	c, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	b.SetBytes(int64(size))
	b.ResetTimer()
	data := make([]byte, 256<<10)
	for got := 0; got < b.N*size; {
		n, err := c.Read(data)
		if err != nil {
			b.Fatal(err)
		}
		got += n
	}
}

// benchPackets encodes what packets about streams say, for two ends that trust each other.
type benchPackets struct{}

func (benchPackets) AppendFailure(dst []byte, id uint32, s string, _ error) []byte {
	return append(binary.BigEndian.AppendUint32(dst, id), s...)
}

func (benchPackets) ParseFailure(p []byte) (uint32, mux.StreamError, bool) {
	return binary.BigEndian.Uint32(p), mux.StreamError{Message: string(p[4:])}, true
}

func (p benchPackets) AppendCancel(dst []byte, id uint32, s string) []byte {
	return p.AppendFailure(dst, id, s, nil)
}

func (benchPackets) ParseCancel(b []byte) (uint32, string, bool) {
	return binary.BigEndian.Uint32(b), string(b[4:]), true
}

func (benchPackets) ParseReference([]byte) (id uint32, live, ok bool) { return 0, false, false }

func (benchPackets) AppendCredit(dst []byte, id, n uint32) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(dst, id), n)
}

func (benchPackets) ParseCredit(p []byte) (id, n uint32, ok bool) {
	return binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:]), true
}

func (benchPackets) IsNothing(p []byte) bool { return len(p) == 1 && p[0] == 0xc0 }
