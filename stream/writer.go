package stream

import (
	"context"
	"encoding/binary"
	"io"
	"sync"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// Writer writes a stream of bytes, see [Bytes]. It is for one goroutine at a time. Its methods
// wait while the reader is behind. When the reader has given up, or the call has ended, they
// return an error, always the same from then on.
type Writer struct {
	out   *Out
	chunk *buf.Buf // that Reserve gave
	start int      // of its payload
	err   error    // why nothing more can be sent

	pipe  *io.PipeWriter // in place of out, to a reader in this process
	piece []byte         // that Reserve gave for it
}

// binHeader is how many octets say how many bytes follow, whatever their number.
const binHeader = 5

// Reserve returns memory for a chunk of n bytes, which [Writer.Commit] sends from where it is.
// It is the caller's until then, or until Reserve is called again, which drops it. n must be
// positive; a chunk that is larger than a message may be cannot be sent.
func (w *Writer) Reserve(n int) ([]byte, error) {
	if w.err != nil {
		return nil, w.err
	}
	w.discard()
	if w.pipe != nil {
		w.piece = make([]byte, n)
		return w.piece, nil
	}
	w.chunk = w.out.begin(binHeader + n)
	w.start = len(w.chunk.B)
	at := w.start + binHeader
	return w.chunk.B[at : at+n : at+n], nil
}

// Commit sends the first n bytes of what Reserve returned. With 0 it sends nothing. A Commit
// without a Reserve, or of more than that, panics.
func (w *Writer) Commit(n int) error {
	b, piece := w.chunk, w.piece
	if b == nil && piece == nil {
		panic("stream: Commit without Reserve")
	}
	w.chunk, w.piece = nil, nil
	if piece != nil {
		if w.err == nil && n > 0 {
			_, w.err = w.pipe.Write(piece[:n])
		}
		return w.err
	}
	if n == 0 || w.err != nil {
		w.out.w.Discard(b)
		return w.err
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
	w.piece = nil
}

func (w *Writer) chunkSize() int {
	if w.out == nil {
		return defaultChunkSize
	}
	return w.out.chunkSize()
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
// nil the stream ends. Who reads it in this process gets the bytes through a pipe.
func Bytes(write func(ctx context.Context, w *Writer) error) io.ReadCloser {
	return &producer{write: write}
}

// producer is a stream of bytes that a function writes.
type producer struct {
	write func(ctx context.Context, w *Writer) error
	once  sync.Once // for whoever uses it: write, or Read and Close

	pipe   *io.PipeReader // of a reader in this process
	cancel context.CancelFunc
}

// produce has the stream written.
func (p *producer) produce(ctx context.Context, w *Writer) error {
	err := ErrUsed
	p.once.Do(func() {
		p.pipe, p.cancel = brokenPipe(), func() {}
		err = p.write(ctx, w)
	})
	return err
}

// Read implements [io.Reader] for readers in this process.
func (p *producer) Read(b []byte) (int, error) {
	p.once.Do(p.begin)
	return p.pipe.Read(b)
}

// Close implements [io.Closer].
func (p *producer) Close() error {
	p.once.Do(func() { p.pipe, p.cancel = brokenPipe(), func() {} })
	p.cancel()
	return p.pipe.Close()
}

// begin has the stream written into a pipe.
func (p *producer) begin() {
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	var in *io.PipeWriter
	p.pipe, in = io.Pipe()
	go func() {
		defer p.cancel()
		_ = in.CloseWithError(p.write(ctx, &Writer{pipe: in}))
	}()
}

// brokenPipe returns what is left of a stream that is used otherwise.
func brokenPipe() *io.PipeReader {
	r, _ := io.Pipe()
	_ = r.CloseWithError(ErrUsed)
	return r
}
