package bench

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// maxTracked is the longest latency that a histogram tells apart, in nanoseconds.
const maxTracked = int64(60 * time.Second)

// newHistogram returns a histogram of latencies with a precision of 1 %. There is
// one for each call in flight, so they must be small: those with three digits take
// 200 KB each, and recording into 256 of them cost a tenth of a client's time in
// cache misses.
func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(100, maxTracked, 2) }

// newFineHistogram returns one that tells nanoseconds apart, for a few callers.
func newFineHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, maxTracked, 2) }

// merged returns the sum of histograms.
func merged(parts []*hdrhistogram.Histogram) *hdrhistogram.Histogram {
	total := newHistogram()
	for _, h := range parts {
		total.Merge(h)
	}
	return total
}
