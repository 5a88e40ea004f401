package bench

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/stream"
)

// Stream describes a run that moves bytes over one connection, and copies as many over plain
// TCP in turns with that.
type Stream struct {
	URL      string        // of the server. Required
	SinkAddr string        // of a [SinkTCP] in the server's place, for the copies; empty for none
	Chunk    int           // bytes of a chunk. Default 64 KiB
	Down     bool          // from the server to the client; else up
	Reserve  bool          // the chunks are sent from where they are made, and not copied there
	Calls    int           // callers of add on the same connection meanwhile: the workload mixed
	Warmup   time.Duration // Default a fifth of Duration
	Duration time.Duration // of the stream. Default 3 s
	Pid      int           // of the server process, to measure it too; 0 means not
	Config   netron.Config // of the client's node
	Dial     []netron.DialOption
}

// streamTurns is in how many turns the stream and the copies are measured.
const streamTurns = 5

// sourceService streams what [Stream] asks for.
type sourceService struct{}

// Source streams chunks of a size until nobody wants more.
func (sourceService) Source(_ context.Context, chunk int, reserve bool) (io.Reader, error) {
	if chunk <= 0 || chunk > 8<<20 {
		return nil, netron.Errorf(netron.InvalidArgument, "chunks of %d bytes", chunk)
	}
	return source(chunk, reserve, func() bool { return true }), nil
}

// source returns a stream of chunks for as long as more says so.
func source(chunk int, reserve bool, more func() bool) io.Reader {
	pattern := make([]byte, chunk)
	return stream.Bytes(func(_ context.Context, w *stream.Writer) error {
		for more() {
			p, err := w.Reserve(chunk)
			if err != nil {
				return err
			}
			if reserve {
				clear(p) // they are made here
			} else {
				copy(p, pattern)
			}
			if err := w.Commit(chunk); err != nil {
				return err
			}
		}
		return nil
	})
}

// forSome is a file that can be read for some time: it has a copy of the same bytes each time.
type forSome struct {
	pattern []byte
	until   time.Time
	n       int64
}

func (f *forSome) Read(p []byte) (int, error) {
	if !time.Now().Before(f.until) {
		return 0, io.EOF
	}
	n := copy(p, f.pattern)
	f.n += int64(n)
	return n, nil
}

// streamRun is a Stream under way.
type streamRun struct {
	Stream
	client *demo.Client
	source func(ctx context.Context, chunk int, reserve bool) (*stream.Reader, error)
}

// Run moves bytes and reports how many.
func (r Stream) Run(ctx context.Context) (*Result, error) {
	if r.Chunk == 0 {
		r.Chunk = 64 << 10
	}
	if r.Duration == 0 {
		r.Duration = 3 * time.Second
	}
	if r.Warmup == 0 {
		r.Warmup = r.Duration / 5
	}
	if r.Chunk < 0 || r.Duration < 0 || r.Warmup < 0 || r.Calls < 0 {
		return nil, fmt.Errorf("bench: a negative number of bytes, calls or seconds")
	}
	node, err := netron.New(r.Config)
	if err != nil {
		return nil, err
	}
	defer node.Close()
	peer, err := node.Dial(ctx, r.URL, r.Dial...)
	if err != nil {
		return nil, err
	}
	run := &streamRun{Stream: r}
	if run.client, err = netron.Query[demo.Client](ctx, peer, demo.ServiceName); err != nil {
		return nil, err
	}
	from, err := netron.Query[struct {
		Source func(ctx context.Context, chunk int, reserve bool) (*stream.Reader, error)
	}](ctx, peer, sourceName)
	if err != nil {
		return nil, err
	}
	run.source = from.Source
	if _, err := run.move(ctx, r.Warmup); err != nil {
		return nil, err
	}
	return run.measure(ctx)
}

func (r *streamRun) measure(ctx context.Context) (*Result, error) {
	reader := rpcRun{RPC: RPC{Pid: r.Pid}}
	var (
		spent   usage
		bytes   int64
		elapsed time.Duration
		raw     copies
		parts   []*hdrhistogram.Histogram
	)
	for range streamTurns {
		before, start := reader.read(), time.Now()
		stop := r.call(ctx)
		n, err := r.move(ctx, r.Duration/streamTurns)
		elapsed += time.Since(start)
		h, callErr := stop()
		if err == nil {
			err = callErr
		}
		if err != nil {
			return nil, err
		}
		after := reader.read()
		parts = append(parts, h)
		bytes += n
		spent.clientCPU += after.clientCPU - before.clientCPU
		spent.serverCPU += after.serverCPU - before.serverCPU
		spent.mallocs += after.mallocs - before.mallocs
		spent.serverRSS = after.serverRSS
		if r.SinkAddr == "" {
			continue
		}
		if err := raw.run(ctx, r.SinkAddr, r.Duration/streamTurns); err != nil {
			return nil, err
		}
	}
	chunks := float64(bytes) / float64(r.Chunk)
	result := &Result{
		Workload:  "stream",
		Conns:     1,
		Payload:   r.Chunk,
		Down:      r.Down,
		OpsPerS:   chunks / elapsed.Seconds(),
		MBPerS:    float64(bytes) / elapsed.Seconds() / 1e6,
		RawMBPerS: raw.fastest() / 1e6,
		ClientCPU: spent.clientCPU.Seconds() / chunks * 1e6,
		ServerCPU: spent.serverCPU.Seconds() / chunks * 1e6,
		ClientGB:  spent.clientCPU.Seconds() / float64(bytes) * 1e9,
		ServerGB:  spent.serverCPU.Seconds() / float64(bytes) * 1e9,
		AllocsPer: float64(spent.mallocs) / chunks,
		SrvRSSMB:  float64(spent.serverRSS) / 1e6,
	}
	if r.SinkAddr != "" {
		result.OfRaw = result.MBPerS / result.RawMBPerS
	}
	if r.Calls > 0 {
		h := merged(parts)
		result.Workload, result.Inflight = "mixed", r.Calls
		result.CallsPerS = float64(h.TotalCount()) / elapsed.Seconds()
		result.P50us = float64(h.ValueAtQuantile(50)) / 1e3
		result.P99us = float64(h.ValueAtQuantile(99)) / 1e3
		result.P999us = float64(h.ValueAtQuantile(99.9)) / 1e3
	}
	return result, nil
}

// move has bytes move for d, and returns how many arrived.
func (r *streamRun) move(ctx context.Context, d time.Duration) (int64, error) {
	if r.Down {
		return r.download(ctx, d)
	}
	until := time.Now().Add(d)
	body := &forSome{pattern: make([]byte, r.Chunk), until: until}
	var from io.Reader = body
	if r.Reserve {
		from = source(r.Chunk, true, func() bool { return time.Now().Before(until) })
	}
	n, err := r.client.Upload(stream.With(ctx, stream.Options{ChunkSize: r.Chunk}), from)
	if err == nil && !r.Reserve && n != body.n {
		err = fmt.Errorf("bench: stream: %d bytes arrived, %d were sent", n, body.n)
	}
	return n, err
}

func (r *streamRun) download(ctx context.Context, d time.Duration) (n int64, err error) {
	from, err := r.source(ctx, r.Chunk, r.Reserve)
	if err != nil {
		return 0, err
	}
	defer from.Close()
	for until := time.Now().Add(d); time.Now().Before(until); {
		p, err := from.Next()
		if err != nil {
			return n, err
		}
		n += int64(len(p))
	}
	return n, nil
}

// call has callers call until the function that it returns is called, which returns how long
// the calls took.
func (r *streamRun) call(ctx context.Context) (stop func() (*hdrhistogram.Histogram, error)) {
	ctx, cancel := context.WithCancel(ctx)
	var group errgroup.Group
	all := make([]*hdrhistogram.Histogram, 1+r.Calls)
	for i := range all {
		h := newHistogram()
		if all[i] = h; i == 0 { // so that there is one without callers
			continue
		}
		group.Go(func() error {
			for ctx.Err() == nil {
				begin := time.Now()
				sum, err := r.client.Add(context.Background(), 2, 3)
				if err == nil && sum != 5 {
					err = fmt.Errorf("bench: mixed: add(2, 3) = %v", sum)
				}
				if err != nil {
					return err
				}
				_ = h.RecordValue(min(int64(time.Since(begin)), maxTracked)) // within range
			}
			return nil
		})
	}
	return func() (*hdrhistogram.Histogram, error) {
		cancel()
		err := group.Wait()
		return merged(all), err
	}
}
