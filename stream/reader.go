package stream

import (
	"io"

	"github.com/d-e-v-grid/netron/codec"
)

// Reader reads a stream of bytes. It is what methods and callers get for an [io.Reader]; one
// that declares a *Reader need not look what it got. It is for one goroutine at a time, but any
// may close it.
//
// At the end its methods return [io.EOF], if the stream fails the error, and after Close
// [io.ErrClosedPipe].
type Reader struct {
	in   *In
	rest []byte // of the last chunk, lent
}

// Next returns the next chunk, as it was written. It lends: what it returned is good until the
// next use of the reader. A chunk that Read has begun is not returned again, only what is left of it.
func (r *Reader) Next() ([]byte, error) {
	if p := r.begun(); len(p) > 0 {
		r.rest = nil
		return p, nil
	}
	for {
		p, err := r.in.next()
		if err != nil {
			r.in.end(true)
			return nil, err
		}
		if p, err = bytesOf(p, r.in); err != nil {
			r.in.end(true)
			return nil, err
		}
		if len(p) > 0 {
			return p, nil
		}
	}
}

// begun returns what is left of the chunk that was read last.
func (r *Reader) begun() []byte {
	if r.in.closed.Load() {
		r.rest = nil
	}
	return r.rest
}

// bytesOf returns the bytes in an encoded chunk. Text counts as its UTF-8.
func bytesOf(p []byte, in *In) ([]byte, error) {
	var d codec.Decoder
	d.Reset(p, in.Limits)
	var err error
	kind := d.PeekKind()
	switch kind {
	case codec.KindBinary:
		p, err = d.BinaryBytes()
	case codec.KindString:
		p, err = d.StringBytes()
	default:
		return nil, in.refuse("a chunk is %v, not bytes", kind)
	}
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return nil, in.refuse("malformed chunk: %v", err)
	}
	return p, nil
}

// Read implements [io.Reader].
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if len(r.begun()) == 0 {
		chunk, err := r.Next()
		if err != nil {
			return 0, err
		}
		r.rest = chunk
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

// WriteTo implements [io.WriterTo]: it passes what came on without a copy.
func (r *Reader) WriteTo(w io.Writer) (n int64, err error) {
	for {
		p, err := r.Next()
		if err == io.EOF { //nolint:errorlint // as io.Reader has it
			return n, nil
		}
		if err != nil {
			return n, err
		}
		m, err := w.Write(p)
		n += int64(m)
		if err == nil && m < len(p) {
			err = io.ErrShortWrite
		}
		if err != nil {
			r.rest = p[m:]
			return n, err
		}
	}
}

// Close gives the rest of the stream up. It returns nil.
func (r *Reader) Close() error {
	r.in.Close()
	return nil
}
