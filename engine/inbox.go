package engine

import (
	"github.com/d-e-v-grid/netron/internal/buf"
)

const (
	minRead = 4 << 10
	maxRead = 64 << 10

	// largeFrame is the size from which a frame is read into a buffer of its own size, and
	// maxLarge the largest for which there is one at once.
	largeFrame = 16 << 10
	maxLarge   = 260 << 10

	// behindLarge is how much is read behind a large frame: the header of the next one, or
	// what is small. It will have to be copied.
	behindLarge = 4 << 10
)

// inbox is the read buffer of a connection: bytes r to w of b are an unfinished
// frame. It is empty, and holds no memory, while nothing is unfinished.
//
// Buffers start at 4 KiB, double up to 64 KiB while reads fill them, and shrink
// again. A frame that does not fit makes the buffer double each time it is full:
// it grows by what has arrived, never by what was announced, unless a frame as large has come
// before. Then it is read into a buffer of its size, and little behind it, so that nothing has
// to be moved and the buffer can be given away.
type inbox struct {
	b      *buf.Buf
	r, w   int
	asked  int // bytes of the last space
	size   int // of the next buffer
	few    int // reads in a row that would have fitted a smaller buffer
	frame  int // size of the unfinished frame if it is large and known, else 0
	proven int // the largest frame that has come, up to maxLarge
}

// space returns room for the next read, at the end of what is unfinished.
func (in *inbox) space() []byte {
	if in.b == nil {
		in.size = max(in.size, minRead)
		in.b = buf.Get(in.size)
		in.r, in.w = 0, 0
	}
	mem := in.mem()
	part := in.w - in.r
	fits := in.frame > 0 && in.r+in.frame <= len(mem)
	if in.r > 0 && !fits && (part <= len(mem)/2 || in.w == len(mem)) {
		copy(mem, mem[in.r:in.w])
		in.r, in.w = 0, part
		fits = in.frame > 0 && in.frame <= len(mem)
	}
	if room := in.room(); !fits && room > len(mem) {
		in.move(room)
	} else if in.w == len(mem) {
		in.move(2 * len(mem))
	}
	mem = in.mem()
	end := len(mem)
	switch {
	case in.frame > 0 && in.r+in.frame <= len(mem):
		end = min(in.r+in.frame+behindLarge, end)
	case part == 0:
		end = min(in.r+in.size, end)
	}
	in.asked = end - in.w
	return mem[in.w:end]
}

func (in *inbox) mem() []byte { return in.b.B[:cap(in.b.B)] }

// room returns how large the buffer of what is unfinished should be at least.
func (in *inbox) room() int {
	part := in.w - in.r
	if most := max(in.size, in.proven, 2*part); in.frame > 0 {
		return max(min(in.frame+behindLarge, most), part)
	}
	return max(in.size, part)
}

// move moves what is unfinished to another buffer.
func (in *inbox) move(room int) {
	next := buf.Get(room)
	n := copy(next.B[:cap(next.B)], in.bytes())
	in.b.Release()
	in.b, in.r, in.w = next, 0, n
}

// added takes note of n bytes read into space.
func (in *inbox) added(n int) {
	in.w += n
	switch {
	case n == in.asked:
		in.size = max(in.size, min(2*in.size, maxRead))
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
func (in *inbox) bytes() []byte {
	if in.b == nil {
		return nil
	}
	return in.mem()[in.r:in.w]
}

// begins notes how large the frame is that what is unfinished begins with, as far as it is
// known; the one before has come.
func (in *inbox) begins(frame int) {
	if in.frame > 0 {
		in.size = min(in.frame+behindLarge, maxLarge)
		in.proven = max(in.proven, in.size)
	}
	in.frame = 0
	if frame >= largeFrame {
		in.frame = frame
	}
}

// consumed removes n bytes from the front. Once nothing is left the memory goes
// back to its pool; a small rest of a big buffer moves to a small one.
func (in *inbox) consumed(n int) {
	in.r += n
	part := in.w - in.r
	switch {
	case part == 0:
		in.release()
	case cap(in.b.B) > maxRead && in.frame == 0 && part <= in.size/2:
		in.move(in.size)
	}
}

// take gives away the buffer, of which the bytes from start to end after the first that is
// unfinished are wanted, and keeps what is behind them. It returns nil if the buffer is much
// larger than that.
func (in *inbox) take(start, end int) *buf.Buf {
	if cap(in.b.B) > 2*(end-start)+behindLarge {
		return nil
	}
	b, first := in.b, in.r
	in.r += end
	rest := in.bytes()
	in.begins(frameSize(rest))
	in.b = nil
	if len(rest) > 0 {
		next := buf.Get(in.room())
		in.b, in.r, in.w = next, 0, copy(next.B[:cap(next.B)], rest)
	}
	b.B = b.B[:cap(b.B)]
	b.Cut(first+start, first+end)
	return b
}

// release gives the memory back.
func (in *inbox) release() {
	in.frame = 0
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
