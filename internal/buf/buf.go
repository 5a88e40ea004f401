// Package buf provides pooled byte buffers in size classes.
//
// A [Buf] has one owner at a time. The owner may append to B freely and calls
// [Buf.Release] exactly once; passing a *Buf on passes the ownership on. Race
// enabled builds overwrite released memory, so that a late use shows in a test.
package buf

import (
	"math/bits"
	"sync"
)

const (
	minShift = 8  // smallest class: 256 bytes
	maxShift = 20 // largest class: 1 MiB, and what grew to less than twice that, so that one huge message does not pin memory
	classes  = maxShift - minShift + 1
)

// Buf is a pooled buffer. Get it with [Get].
type Buf struct {
	// B is the content. Its owner may append to it, reslice it or replace it.
	B []byte

	mem []byte // B's memory while the buffer rests in a pool, and after Cut
}

// pools holds only memory: no channels, timers or goroutines.
var pools [classes]sync.Pool

// Get returns a buffer of length 0 with room for at least n bytes.
func Get(n int) *Buf {
	c := classFor(n)
	if c >= classes {
		return &Buf{B: make([]byte, 0, n)}
	}
	if b, _ := pools[c].Get().(*Buf); b != nil {
		b.B, b.mem = b.mem, nil
		return b
	}
	return &Buf{B: make([]byte, 0, 1<<(c+minShift))}
}

// Copy returns a buffer that holds a copy of p.
func Copy(p []byte) *Buf {
	b := Get(len(p))
	b.B = append(b.B, p...)
	return b
}

// Append appends p to B. When B has to grow its memory goes back to the pools, and
// the new one is of a size class, at least double: slices of the old B are not
// valid afterwards.
func (b *Buf) Append(p []byte) {
	if need := len(b.B) + len(p); need > cap(b.B) {
		b.grow(need)
	}
	b.B = append(b.B, p...)
}

// Reserve makes room for n more bytes, so that appending them to B does not move it.
// Slices of the old B are not valid afterwards.
func (b *Buf) Reserve(n int) {
	if need := len(b.B) + n; need > cap(b.B) {
		b.grow(need)
	}
}

func (b *Buf) grow(need int) {
	bigger := Get(max(need, 2*cap(b.B)))
	bigger.B = append(bigger.B, b.B...)
	*b, *bigger = *bigger, *b
	bigger.Release()
}

// Cut makes B what is B[from:to] now, with no room behind it. The memory around it stays the
// buffer's and goes where it came from with Release.
func (b *Buf) Cut(from, to int) {
	if b.mem == nil {
		b.mem = b.B[:0]
	}
	b.B = b.B[from:to:to]
}

// Release gives the buffer back and sets B to nil. The owner must not touch b or slices of b.B
// afterwards. Buffers of 2 MiB and more, or smaller than the smallest class, are
// left to the garbage collector.
func (b *Buf) Release() {
	if b.B == nil {
		panic("BUG: buffer released twice")
	}
	p := b.B[:0]
	if b.mem != nil {
		p = b.mem
	}
	b.B, b.mem = nil, nil
	poison(p[:cap(p)])
	c := bits.Len(uint(cap(p))) - 1 - minShift
	if c < 0 || c >= classes {
		return
	}
	b.mem = p[: 0 : 1<<(c+minShift)] // a buffer is never larger than its class says
	pools[c].Put(b)
}

// classFor returns the smallest class whose buffers hold n bytes.
func classFor(n int) int {
	if n <= 1<<minShift {
		return 0
	}
	return bits.Len(uint(n-1)) - minShift
}
