package bench_test

import (
	"net"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/bench"
)

func TestStreamRuns(t *testing.T) {
	url := serve(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := bench.SinkTCP(ln); err != nil {
			t.Errorf("SinkTCP = %v", err)
		}
	})
	defer wg.Wait()
	defer ln.Close()
	for _, r := range []bench.Stream{
		{},
		{Reserve: true, Chunk: 1000},
		{Down: true, Chunk: 256 << 10},
		{Down: true, Reserve: true},
		{Calls: 2},
	} {
		r.URL, r.SinkAddr, r.Duration = url, ln.Addr().String(), 300*time.Millisecond
		result, err := r.Run(t.Context())
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		if result.MBPerS <= 0 || result.RawMBPerS <= 0 || result.OfRaw <= 0 || (r.Calls > 0) != (result.CallsPerS > 0) {
			t.Errorf("%+v: %v, want figures", r, result)
		}
	}
	if _, err := (bench.Stream{URL: url, Chunk: -1}).Run(t.Context()); err == nil {
		t.Error("Run with chunks of -1 bytes = nil, want an error")
	}
}
