package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"slices"
	"sync"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// Writer writes a stream of bytes, see [Bytes]. It is for one goroutine at a time. Its methods
// wait while the reader is behind. When the reader has given up, or the call has ended, they
// return an error, always the same from then on.
type Writer struct {
	out      *Out
	chunk    *buf.Buf // that Reserve gave
	start    int      // of its payload
	reserved int      // bytes that Reserve gave, -1 if it has not
	err      error    // why nothing more can be sent

	// In place of out, to a reader in this process: pass hands a chunk over, and reports
	// whether more is wanted; piece is the memory of one.
	pass  func(chunk []byte) bool
	piece []byte
}

func newWriter(o *Out) *Writer { return &Writer{out: o, reserved: -1} }

// binHeader is how many octets say how many bytes follow, whatever their number.
const binHeader = 5

// Reserve returns memory for a chunk of n bytes, which [Writer.Commit] sends from where it is.
// It is the caller's until then, or until Reserve is called again, which drops it. Its content is
// whatever was in that memory before, perhaps of another connection: write all that you commit. A
// negative n panics; a chunk that is larger than a message may be cannot be sent.
func (w *Writer) Reserve(n int) ([]byte, error) {
	if n < 0 {
		panic("stream: Reserve of a negative number of bytes")
	}
	w.discard()
	if w.err != nil {
		return nil, w.err
	}
	w.reserved = n
	if w.pass != nil {
		w.piece = slices.Grow(w.piece[:0], n)[:n:n]
		return w.piece, nil
	}
	w.chunk = w.out.begin(binHeader + n)
	w.start = len(w.chunk.B)
	at := w.start + binHeader
	return w.chunk.B[at : at+n : at+n], nil
}

// Commit sends the first n bytes of what Reserve returned. With 0 it sends nothing. A Commit
// without a Reserve before it, or of more than that, panics.
func (w *Writer) Commit(n int) error {
	if n < 0 || n > w.reserved {
		panic(fmt.Sprintf("stream: Commit of %d bytes, where %d are reserved", n, max(w.reserved, 0)))
	}
	w.reserved = -1
	if w.pass != nil {
		if n > 0 && !w.pass(w.piece[:n]) {
			w.err = io.ErrClosedPipe
		}
		return w.err
	}
	b := w.chunk
	w.chunk = nil
	if n == 0 {
		w.out.w.Discard(b)
		return nil
	}
	b.B = b.B[:w.start+binHeader+n]
	b.B[w.start] = 0xc6 // bin 32
	binary.BigEndian.PutUint32(b.B[w.start+1:], uint32(n))
	w.err = w.out.send(b, w.start)
	return w.err
}

// discard drops what Reserve gave.
func (w *Writer) discard() {
	if w.chunk != nil {
		w.out.w.Discard(w.chunk)
		w.chunk = nil
	}
	w.reserved = -1
}

func (w *Writer) chunkSize() int {
	if w.out == nil {
		return defaultChunkSize
	}
	size := w.out.chunkSize()
	if limit := w.out.MaxBytes; limit > 0 {
		size = max(min(size, limit-binHeader), 1)
	}
	return size
}

// Write implements [io.Writer]. It copies p, in chunks of at most the chunk size.
func (w *Writer) Write(p []byte) (n int, err error) {
	for n < len(p) {
		chunk, err := w.Reserve(min(len(p)-n, w.chunkSize()))
		if err != nil {
			return n, err
		}
		m := copy(chunk, p[n:])
		if err := w.Commit(m); err != nil {
			return n, err
		}
		n += m
	}
	return n, w.err
}

// ReadFrom implements [io.ReaderFrom]: what r has is read into the memory that is sent, each
// time as a chunk of its own.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	for empty := 0; ; {
		chunk, err := w.Reserve(w.chunkSize())
		if err != nil {
			return n, err
		}
		m, readErr := r.Read(chunk)
		if err := w.Commit(m); err != nil {
			return n, err
		}
		n += int64(m)
		switch empty++; {
		case readErr == io.EOF:
			return n, nil
		case readErr != nil:
			return n, readErr
		case m > 0:
			empty = 0
		case empty == maxEmptyReads:
			return n, io.ErrNoProgress
		}
	}
}

// maxEmptyReads is how often in a row a reader may return nothing, and no error.
const maxEmptyReads = 100

// Bytes returns a stream of bytes that write writes: what a method returns, or a caller passes, as
// an [io.Reader] without having one. When the stream is sent write gets the stream's own
// writer, and ctx ends when nobody wants more. Its error is that of the stream; when it returns
// nil the stream ends.
//
// Who reads it in this process runs write in turns with reading, and must read it to the end or
// close it. One goroutine at a time may read; Close waits until write has returned.
func Bytes(write func(ctx context.Context, w *Writer) error) io.ReadCloser {
	return &producer{write: write}
}

// producer is a stream of bytes that a function writes.
type producer struct {
	write func(ctx context.Context, w *Writer) error
	once  sync.Once // for whoever uses it: produce, or Read and Close

	// Of a reader in this process; nil when it is used otherwise.
	cancel context.CancelFunc
	mu     sync.Mutex
	next   func() ([]byte, bool) // guarded by mu
	stop   func()                // guarded by mu
	rest   []byte                // of the chunk that was passed last; guarded by mu
	end    error                 // what write has returned; guarded by mu
	err    error                 // why nothing more can be read; guarded by mu
}

// produce has the stream written.
func (p *producer) produce(ctx context.Context, w *Writer) error {
	err := ErrUsed
	p.once.Do(func() {
		p.mu.Lock()
		p.err = ErrUsed
		p.mu.Unlock()
		err = p.write(ctx, w)
	})
	return err
}

// begin makes ready to write for a reader in this process.
func (p *producer) begin() {
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.next, p.stop = iter.Pull(func(yield func([]byte) bool) {
		w := &Writer{reserved: -1, pass: yield}
		p.end = p.write(ctx, w)
		w.err = io.ErrClosedPipe // for who keeps the writer
	})
}

// Read implements [io.Reader] for a reader in this process.
func (p *producer) Read(b []byte) (int, error) {
	p.once.Do(p.begin)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(b) > 0 && len(p.rest) == 0 && p.err == nil {
		var ok bool
		if p.rest, ok = p.next(); !ok {
			p.cancel()
			if p.err = p.end; p.err == nil {
				p.err = io.EOF
			}
		}
	}
	if len(p.rest) == 0 && len(b) > 0 {
		return 0, p.err
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// Close implements [io.Closer].
func (p *producer) Close() error {
	p.once.Do(p.begin)
	if p.cancel == nil {
		return nil // it is being sent, or was
	}
	p.cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	p.rest, p.err = nil, io.ErrClosedPipe
	return nil
}
