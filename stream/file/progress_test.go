package file_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/stream/file"
)

func TestProgress(t *testing.T) {
	for _, tc := range []struct {
		p              file.Progress
		rate, fraction float64
	}{
		{file.Progress{Bytes: 50, Total: 200, Elapsed: 2 * time.Second}, 25, 0.25},
		{file.Progress{Bytes: 50, Total: -1, Elapsed: time.Second}, 50, 0},
		{file.Progress{Bytes: 50, Total: 40}, 0, 1},
		{file.Progress{}, 0, 1},
	} {
		if rate, fraction := tc.p.Rate(), tc.p.Fraction(); rate != tc.rate || fraction != tc.fraction {
			t.Errorf("%+v: Rate = %v, Fraction = %v, want %v, %v", tc.p, rate, fraction, tc.rate, tc.fraction)
		}
	}
}

// A source gives a byte every 30 ms.
func TestReaderReports(t *testing.T) {
	for _, end := range []error{io.EOF, errors.New("line cut")} {
		synctest.Test(t, func(t *testing.T) {
			left := 20
			src := readerFunc(func(p []byte) (int, error) {
				if left == 0 {
					return 0, end
				}
				time.Sleep(30 * time.Millisecond) // the time of the bubble
				left--
				return copy(p, "x"), nil
			})
			var got []file.Progress
			r := file.NewReader(src, 20, func(p file.Progress) { got = append(got, p) })
			io.Copy(io.Discard, r)
			r.Read(make([]byte, 1))           // the end is reported once
			want := []int64{4, 8, 12, 16, 20} // all of it once
			if len(got) != len(want) {
				t.Fatalf("got %d reports, want %d: %+v", len(got), len(want), got)
			}
			for i, p := range got {
				if want := (file.Progress{Bytes: want[i], Total: 20, Elapsed: time.Duration(want[i]) * 30 * time.Millisecond}); p != want {
					t.Errorf("report %d is %+v, want %+v", i, p, want)
				}
			}
		})
	}
}

func TestReaderSum(t *testing.T) {
	content := strings.Repeat("netron", 1000)
	var last file.Progress
	r := file.NewReader(iotest.HalfReader(iotest.DataErrReader(strings.NewReader(content))), -7, func(p file.Progress) { last = p })
	got, err := io.ReadAll(r)
	if err != nil || string(got) != content || r.Bytes() != int64(len(content)) || r.Sum() != sumOf(content) {
		t.Errorf("read %d bytes, %v, Bytes = %d, Sum = %s", len(got), err, r.Bytes(), r.Sum())
	}
	if last.Bytes != r.Bytes() || last.Total != -1 {
		t.Errorf("last report is %+v", last)
	}
}

func TestReaderAllocates(t *testing.T) {
	r := file.NewReader(endless{}, -1, func(file.Progress) {})
	p := make([]byte, 1000)
	if n := testing.AllocsPerRun(100, func() { r.Read(p) }); n > 0 {
		t.Errorf("Read allocates %v times", n)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func BenchmarkReader(b *testing.B) {
	for _, size := range []int{1 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			r := file.NewReader(endless{}, -1, func(file.Progress) {})
			p := bytes.Repeat([]byte{1}, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r.Read(p)
			}
		})
	}
}

func TestProgressString(t *testing.T) {
	for _, tt := range []struct {
		p    file.Progress
		want string
	}{
		{file.Progress{Total: -1}, "0 B, 0 B/s"},
		{file.Progress{Bytes: 999, Total: 5000, Elapsed: time.Second}, "999 B of 5.0 kB (20 %), 999 B/s"},
		{file.Progress{Bytes: 5_000_000, Total: 5_000_000, Elapsed: time.Second / 2}, "5.0 MB of 5.0 MB (100 %), 10.0 MB/s"},
		{file.Progress{Bytes: 4 << 40, Total: -1, Elapsed: time.Second}, "4.4 TB, 4.4 TB/s"},
	} {
		if got := tt.p.String(); got != tt.want {
			t.Errorf("%+v = %q, want %q", tt.p, got, tt.want)
		}
	}
}
