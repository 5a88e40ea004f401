package engine

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	"github.com/gobwas/ws"
)

// Opcodes (RFC 6455 section 5.2).
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xA
)

const (
	bitFin  = 0x80
	bitMask = 0x80

	maxControl = 125 // payload of a control frame, RFC 6455 section 5.5
	maxHeader  = 14  // header of the longest form with a mask

	shortHeader = 2 // header of the shortest form without a mask
	maskLen     = 4

	len16 = 126 // the length follows in 2 bytes
	len64 = 127 // the length follows in 8 bytes
)

// cipherMin is the payload size from which the vector code of ws.Cipher beats a
// plain 8-byte loop.
const cipherMin = 128

// frameHeader is a parsed frame header (RFC 6455 section 5.2).
type frameHeader struct {
	first  byte // FIN, the reserved bits and the opcode as they came
	masked bool
	mask   [4]byte
	length uint64 // of the payload, as declared: not checked against any limit
	size   int    // of the header itself
}

func (h *frameHeader) fin() bool { return h.first&bitFin != 0 }
func (h *frameHeader) op() byte  { return h.first & 0x0f }

// parseFrameHeader reads a header from the start of b. It returns false when b
// holds only a part of it.
func parseFrameHeader(b []byte) (h frameHeader, ok bool) {
	if len(b) < 2 {
		return h, false
	}
	h.first = b[0]
	h.masked = b[1]&bitMask != 0
	h.size = 2
	switch short := b[1] &^ bitMask; short {
	case len16:
		if len(b) < 4 {
			return h, false
		}
		h.length = uint64(binary.BigEndian.Uint16(b[2:]))
		h.size = 4
	case len64:
		if len(b) < 10 {
			return h, false
		}
		h.length = binary.BigEndian.Uint64(b[2:])
		h.size = 10
	default:
		h.length = uint64(short)
	}
	if h.masked {
		if len(b) < h.size+4 {
			return h, false
		}
		copy(h.mask[:], b[h.size:])
		h.size += 4
	}
	return h, true
}

// frameSize returns how many bytes the frame at the start of b has, 0 if that is not known yet.
func frameSize(b []byte) int {
	h, ok := parseFrameHeader(b)
	if !ok {
		return 0
	}
	return h.size + int(min(h.length, math.MaxInt32/2))
}

// appendFrame appends one frame. A client masks it with a fresh random key
// (RFC 6455 section 5.3); the payload is copied.
func appendFrame(dst []byte, client bool, first byte, p []byte) []byte {
	var maskBit byte
	if client {
		maskBit = bitMask
	}
	switch n := len(p); {
	case n <= maxControl:
		dst = append(dst, first, maskBit|byte(n))
	case n <= 0xffff:
		dst = append(dst, first, maskBit|len16, byte(n>>8), byte(n))
	default:
		dst = append(dst, first, maskBit|len64)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	if !client {
		return append(dst, p...)
	}
	key := rand.Uint32()
	dst = binary.LittleEndian.AppendUint32(dst, key)
	start := len(dst)
	dst = append(dst, p...)
	xorMask(dst[start:], key)
	return dst
}

// beginFrame appends room for the shortest frame header of this side.
func beginFrame(dst []byte, client bool) []byte {
	var room [shortHeader + maskLen]byte
	return append(dst, room[:headerRoom(client)]...)
}

// headerRoom is the size of the shortest frame header.
func headerRoom(client bool) int {
	if client {
		return shortHeader + maskLen
	}
	return shortHeader
}

// endFrame completes the frame that beginFrame began at b[start:]. A payload too
// long for the shortest header is moved.
func endFrame(b []byte, start int, client bool, first byte) []byte {
	room := headerRoom(client)
	n := len(b) - start - room
	extra := 0
	switch {
	case n > 0xffff:
		extra = 8
	case n > maxControl:
		extra = 2
	}
	if extra > 0 {
		var grow [8]byte
		b = append(b, grow[:extra]...)
		copy(b[start+room+extra:], b[start+room:start+room+n])
	}
	putHeader(b[start:], n, client, first)
	return b
}

// endLongFrame completes the frame whose payload is b[maxHeader:], and returns where its header
// begins.
func endLongFrame(b []byte, client bool, first byte) (start int) {
	n := len(b) - maxHeader
	size := headerRoom(client)
	switch {
	case n > 0xffff:
		size += 8
	case n > maxControl:
		size += 2
	}
	putHeader(b[maxHeader-size:], n, client, first)
	return maxHeader - size
}

// putHeader writes the header of the frame b, whose payload of n bytes is in its place, and
// masks it for a client.
func putHeader(h []byte, n int, client bool, first byte) {
	at := shortHeader
	h[0] = first
	switch {
	case n > 0xffff:
		h[1] = len64
		binary.BigEndian.PutUint64(h[2:], uint64(n))
		at += 8
	case n > maxControl:
		h[1] = len16
		binary.BigEndian.PutUint16(h[2:], uint16(n))
		at += 2
	default:
		h[1] = byte(n)
	}
	if client {
		h[1] |= bitMask
		key := rand.Uint32()
		binary.LittleEndian.PutUint32(h[at:], key)
		xorMask(h[at+maskLen:], key)
	}
}

// xorMask masks or unmasks p in place with a key in little-endian order,
// starting at the key's first byte.
func xorMask(p []byte, key uint32) {
	if len(p) >= cipherMin {
		var k [4]byte
		binary.LittleEndian.PutUint32(k[:], key)
		ws.Cipher(p, k, 0)
		return
	}
	wide := uint64(key)<<32 | uint64(key)
	for len(p) >= 8 {
		binary.LittleEndian.PutUint64(p, binary.LittleEndian.Uint64(p)^wide)
		p = p[8:]
	}
	for i := range p {
		p[i] ^= byte(wide)
		wide >>= 8
	}
}

// unmask unmasks p, which starts offset bytes into its frame's payload.
func unmask(p []byte, mask [4]byte, offset int) {
	if offset&3 == 0 {
		xorMask(p, binary.LittleEndian.Uint32(mask[:]))
		return
	}
	ws.Cipher(p, mask, offset&3)
}

// appendClose appends a close frame. Code 0 means a frame without a code. The
// reason is cut to what a control frame holds, at a rune boundary.
func appendClose(dst []byte, client bool, code uint16, reason string) []byte {
	var p [maxControl]byte
	if code == 0 {
		return appendFrame(dst, client, bitFin|opClose, nil)
	}
	binary.BigEndian.PutUint16(p[:], code)
	n := copy(p[2:], cutReason(reason))
	return appendFrame(dst, client, bitFin|opClose, p[:2+n])
}
