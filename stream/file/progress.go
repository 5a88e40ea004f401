package file

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strconv"
	"sync"
	"time"
)

// progressInterval is the least time between two reports of a Reader, but for the last.
const progressInterval = 100 * time.Millisecond

// Progress says how far a file has got.
type Progress struct {
	// Bytes is how many bytes have been read, and Total how many there are, -1 if that is
	// not known.
	Bytes, Total int64

	// Elapsed is the time since [NewReader].
	Elapsed time.Duration
}

// Rate returns the average speed in bytes per second, 0 before any time has passed.
func (p Progress) Rate() float64 {
	if p.Elapsed <= 0 {
		return 0
	}
	return float64(p.Bytes) / p.Elapsed.Seconds()
}

// Fraction returns how much of the total has been read, from 0 to 1. It is 0 if the total
// is not known.
func (p Progress) Fraction() float64 {
	switch {
	case p.Total < 0:
		return 0
	case p.Bytes >= p.Total:
		return 1
	}
	return float64(p.Bytes) / float64(p.Total)
}

// String returns the progress for people: "1.2 MB of 5.0 MB (24 %), 310.4 MB/s".
func (p Progress) String() string {
	rate := size(p.Rate()) + "/s"
	if p.Total < 0 {
		return size(float64(p.Bytes)) + ", " + rate
	}
	return fmt.Sprintf("%s of %s (%.0f %%), %s", size(float64(p.Bytes)), size(float64(p.Total)), 100*p.Fraction(), rate)
}

// size returns a number of bytes for people.
func size(n float64) string {
	for _, unit := range []string{"B", "kB", "MB", "GB"} {
		if n < 1000 {
			return strconv.FormatFloat(n, 'f', min(len(unit)-1, 1), 64) + " " + unit
		}
		n /= 1000
	}
	return fmt.Sprintf("%.1f TB", n)
}

// Reader counts and hashes what is read through it. Its methods other than Read may be
// called at any time.
type Reader struct {
	src   io.Reader
	total int64
	fn    func(Progress)
	start time.Time

	// Those are Read's own.
	reported time.Time
	ended    bool

	mu   sync.Mutex
	n    int64     // guarded by mu
	hash hash.Hash // guarded by mu
}

// NewReader returns a Reader of r, from which total bytes are expected, or -1 if that is not
// known. It reads no more than it is asked for, and allocates nothing when it is read.
//
// If fn is not nil, Read calls it with the progress, at most every 100 ms, and once more when
// r ends or fails: only then is it told of all the bytes that were expected. fn holds up the
// transfer and should return soon.
func NewReader(r io.Reader, total int64, fn func(Progress)) *Reader {
	now := time.Now()
	return &Reader{src: r, total: max(total, -1), fn: fn, start: now, reported: now, hash: sha256.New()}
}

// Read reads from the underlying reader. It must not run concurrently with itself.
func (r *Reader) Read(p []byte) (int, error) {
	n, err := r.src.Read(p)
	r.mu.Lock()
	r.hash.Write(p[:n])
	r.n += int64(n)
	bytes := r.n
	r.mu.Unlock()
	if r.fn != nil {
		r.report(bytes, err != nil)
	}
	return n, err
}

func (r *Reader) report(bytes int64, atEnd bool) {
	now := time.Now()
	isEarly := now.Sub(r.reported) < progressInterval || r.total >= 0 && bytes >= r.total
	if r.ended || isEarly && !atEnd {
		return
	}
	r.reported, r.ended = now, atEnd
	r.fn(Progress{Bytes: bytes, Total: r.total, Elapsed: now.Sub(r.start)})
}

// Bytes returns how many bytes have been read.
func (r *Reader) Bytes() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.n
}

// Sum returns the SHA-256 of what has been read, in lower-case hex.
func (r *Reader) Sum() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return hex.EncodeToString(r.hash.Sum(nil))
}
