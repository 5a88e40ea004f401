package netron_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"io"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/stream"
	"github.com/d-e-v-grid/netron/stream/file"
)

// transferBytes is a flag so that the goal of 4 GiB can be tried.
var transferBytes = flag.Int64("transfer", 0, "bytes that TestTransfer moves each way; by default 48 MiB, and 8 MiB with -race")

// noise reads n bytes that look random, the same for each seed.
func noise(seed uint64, n int64) io.Reader { return io.LimitReader(&noiseReader{seed | 1}, n) }

type noiseReader struct{ state uint64 }

func (r *noiseReader) Read(p []byte) (int, error) {
	n := len(p) &^ 7
	for i := 0; i < n; i += 8 {
		r.state ^= r.state << 13
		r.state ^= r.state >> 7
		r.state ^= r.state << 17
		binary.LittleEndian.PutUint64(p[i:], r.state)
	}
	if n == 0 { // the last few bytes, which LimitReader asks for alone
		var last [8]byte
		if _, err := r.Read(last[:]); err != nil {
			return 0, err
		}
		return copy(p, last[:]), nil
	}
	return n, nil
}

// depot takes noise and gives it.
type depot struct{}

func (depot) Put(_ context.Context, body io.Reader) (string, error) { return checksum(body) }
func (depot) Take(_ context.Context, seed uint64, n int64) (io.Reader, error) {
	return noise(seed, n), nil
}

func checksum(r io.Reader) (string, error) {
	h := sha256.New()
	_, err := io.Copy(h, r)
	return hex.EncodeToString(h.Sum(nil)), err
}

type depotClient struct {
	Put  func(ctx context.Context, body io.Reader) (string, error)
	Take func(ctx context.Context, seed uint64, n int64) (io.Reader, error)
}

// heapPeak samples the heap of both sides until stop is called, which returns the most it was.
func heapPeak() (stop func() uint64) {
	runtime.GC()
	var peak uint64
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			peak = max(peak, m.HeapInuse)
			select {
			case <-tick.C:
			case <-done:
				return
			}
		}
	}()
	return func() uint64 {
		close(done)
		<-ended
		return peak
	}
}

// TestTransfer moves many bytes up and down at the same time, over each driver and TLS, and checks
// that they are the same and take little memory.
func TestTransfer(t *testing.T) {
	n := *transferBytes
	switch {
	case n > 0:
	case raceEnabled:
		n = 8 << 20
	default:
		n = 48 << 20
	}
	n += 12_345 // no whole number of chunks
	cert, pool := certificate(t)
	for name, tt := range map[string]struct {
		server netron.Config
		client []netron.DialOption
	}{
		"epoll": {netron.Config{Driver: netron.DriverEpoll}, []netron.DialOption{netron.DialDriver(netron.DriverEpoll)}},
		"std":   {netron.Config{Driver: netron.DriverStd}, []netron.DialOption{netron.DialDriver(netron.DriverStd)}},
		"tls": {netron.Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}}, []netron.DialOption{
			netron.DialTLS(&tls.Config{RootCAs: pool}),
		}},
	} {
		t.Run(name, func(t *testing.T) {
			node, url := serve(t, tt.server)
			if err := node.Expose("depot@1.0.0", depot{}); err != nil {
				t.Fatal(err)
			}
			if tt.server.TLS != nil {
				url = "wss" + strings.TrimPrefix(url, "ws")
			}
			client, err := netron.Query[depotClient](t.Context(), dial(t, url, tt.client...), "depot")
			if err != nil {
				t.Fatal(err)
			}
			want, err := checksum(noise(7, n))
			if err != nil {
				t.Fatal(err)
			}
			stop := heapPeak()
			var wg sync.WaitGroup
			wg.Go(func() {
				if got, err := client.Put(t.Context(), noise(7, n)); got != want || err != nil {
					t.Errorf("Put = %s, %v, want %s", got, err, want)
				}
			})
			wg.Go(func() {
				body, err := client.Take(t.Context(), 7, n)
				if err != nil {
					t.Errorf("Take = %v", err)
					return
				}
				if got, err := checksum(body); got != want || err != nil {
					t.Errorf("Take = %s, %v, want %s", got, err, want)
				}
			})
			wg.Wait()
			peak := stop()
			t.Logf("%d bytes each way, heap of both sides at most %.1f MiB", n, float64(peak)/(1<<20))
			if peak > 64<<20 {
				t.Errorf("heap of both sides %.1f MiB, want at most 64", float64(peak)/(1<<20))
			}
		})
	}
}

// TestFileService moves files between a [file.Store] and its client.
func TestFileService(t *testing.T) {
	store, err := file.OpenStore(t.TempDir(), file.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	node, url := serve(t, netron.Config{})
	if err := node.Expose("fileService@1.0.0", store); err != nil {
		t.Fatal(err)
	}
	files, err := netron.Query[file.Client](t.Context(), dial(t, url), "fileService")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	up, err := files.UploadFile(t.Context(), "a/b", noise(3, 1_000_003), &file.Metadata{Size: 1_000_003})
	if err != nil {
		t.Fatal(err)
	}
	last := file.Progress{}
	down, err := files.Download(t.Context(), "a/b", filepath.Join(dir, "copy"), func(p file.Progress) { last = p })
	if err != nil || down.Checksum != up.Checksum || down.Size != 1_000_003 || last.Bytes != 1_000_003 || last.Fraction() != 1 {
		t.Errorf("Download = %+v, %v, last %v, want what was uploaded: %+v", down, err, last, up)
	}
	again, err := files.Upload(t.Context(), "c", filepath.Join(dir, "copy"), nil)
	if err != nil || again.Checksum != up.Checksum {
		t.Errorf("Upload = %+v, %v, want the same checksum", again, err)
	}
	for name, code := range map[string]netron.Code{"../x": netron.InvalidArgument, "none": netron.NotFound} {
		if _, err := files.DownloadFile(t.Context(), name); netron.CodeOf(err) != code {
			t.Errorf("DownloadFile(%q) = %v, want %v", name, err, code)
		}
	}
	broken := errors.New("broken")
	if _, err := files.UploadFile(t.Context(), "c", io.MultiReader(noise(1, 100_000), brokenReader{broken}), nil); !errors.Is(err, broken) {
		t.Errorf("UploadFile of a broken body = %v, want its error", err)
	}
	if info, err := files.StatFile(t.Context(), "c"); err != nil || info.Checksum != up.Checksum {
		t.Errorf("StatFile = %+v, %v, want the file as it was", info, err)
	}
	if list, err := files.ListFiles(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("ListFiles = %v, %v, want two files and no temporary one", list, err)
	}
}

type brokenReader struct{ err error }

func (r brokenReader) Read([]byte) (int, error) { return 0, r.err }

// TestFairStreams has many streams share a connection: all get as much of it, once each has what
// its window lets it send ahead.
func TestFairStreams(t *testing.T) {
	const chunk, ahead, each = 4 << 10, 64, 400
	streams := 1000
	if raceEnabled || testing.Short() {
		streams = 100
	}
	_, url := serve(t, netron.Config{})
	calc := query(t, dial(t, url))
	var (
		mu    sync.Mutex
		got   = make([]int, streams) // chunks since the start; guarded by mu
		total = 0                    // chunks of all; guarded by mu
		stop  = make(chan struct{})
		from  = make([]*stream.Reader, streams)
		wg    sync.WaitGroup
	)
	count := func(i int) {
		mu.Lock()
		defer mu.Unlock()
		if total++; total > streams*ahead {
			got[i]++
		}
		if total == streams*(ahead+each) {
			close(stop)
		}
	}
	for i := range from {
		r, err := calc.Pump(t.Context(), 1e9, chunk)
		if err != nil {
			t.Fatal(err)
		}
		from[i] = r
	}
	for i, r := range from {
		wg.Go(func() {
			for {
				if _, err := r.Next(); err != nil {
					if !errors.Is(err, io.ErrClosedPipe) {
						t.Errorf("stream %d: %v", i, err)
					}
					return
				}
				count(i)
			}
		})
	}
	<-stop
	mu.Lock()
	least, most := slices.Min(got), slices.Max(got)
	mu.Unlock()
	for _, r := range from {
		r.Close()
	}
	wg.Wait()
	t.Logf("%d streams: the slowest got %d chunks, the fastest %d", streams, least, most)
	if 2*most > 3*least {
		t.Errorf("%d streams: the slowest got %d chunks, the fastest %d, want less than 1.5 times as many", streams, least, most)
	}
}
