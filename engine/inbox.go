package engine

import (
	"github.com/d-e-v-grid/netron/internal/buf"
)

const (
	minRead = 4 << 10
	maxRead = 64 << 10
)

// inbox is the read buffer of a connection: bytes r to w of b are an unfinished
// frame. It is empty, and holds no memory, while nothing is unfinished.
//
// Buffers start at 4 KiB, double up to 64 KiB while reads fill them, and shrink
// again. A frame that does not fit makes the buffer double each time it is full:
// it grows by what has arrived, never by what was announced.
type inbox struct {
	b    *buf.Buf
	r, w int
	size int // of the next buffer
	few  int // reads in a row that would have fitted a smaller buffer
}

// space returns room for the next read, at the end of what is unfinished.
func (in *inbox) space() []byte {
	if in.b == nil {
		if in.size == 0 {
			in.size = minRead
		}
		in.b = buf.Get(in.size)
		in.r, in.w = 0, 0
	}
	mem := in.b.B[:cap(in.b.B)]
	if part := in.w - in.r; in.r > 0 && (part <= len(mem)/2 || in.w == len(mem)) {
		copy(mem, mem[in.r:in.w])
		in.r, in.w = 0, part
	}
	if in.w == len(mem) {
		bigger := buf.Get(2 * len(mem))
		mem = bigger.B[:cap(bigger.B)]
		copy(mem, in.b.B[:cap(in.b.B)][in.r:in.w])
		in.r, in.w = 0, in.w-in.r
		in.b.Release()
		in.b = bigger
	}
	return mem[in.w:]
}

// added takes note of n bytes read into space.
func (in *inbox) added(n int) {
	room := cap(in.b.B) - in.w
	in.w += n
	switch {
	case n == room:
		in.size = min(2*in.size, maxRead)
		in.few = 0
	case n < in.size/4 && in.size > minRead:
		if in.few++; in.few >= 16 {
			in.size /= 2
			in.few = 0
		}
	default:
		in.few = 0
	}
}

// bytes returns what is unfinished.
func (in *inbox) bytes() []byte { return in.b.B[:cap(in.b.B)][in.r:in.w] }

// consumed removes n bytes from the front. Once nothing is left the memory goes
// back to its pool; a small rest of a big buffer moves to a small one.
func (in *inbox) consumed(n int) {
	in.r += n
	part := in.w - in.r
	switch {
	case part == 0:
		in.release()
	case cap(in.b.B) > maxRead && part <= in.size/2:
		smaller := buf.Get(in.size)
		copy(smaller.B[:part], in.bytes())
		in.b.Release()
		in.b, in.r, in.w = smaller, 0, part
	}
}

// release gives the memory back.
func (in *inbox) release() {
	if in.b != nil {
		in.b.Release()
		in.b, in.r, in.w = nil, 0, 0
	}
}

// idle gives the memory back if nothing is unfinished.
func (in *inbox) idle() {
	if in.r == in.w {
		in.release()
	}
}
