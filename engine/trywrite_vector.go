//go:build linux || freebsd

package engine

import (
	"sync"
	"syscall"
	"unsafe"
)

// vector is the memory of one write of several slices. It is shared, because it
// is bigger than all the rest of an idle connection's write side.
type vector [32]syscall.Iovec

var vectors = sync.Pool{New: func() any { return new(vector) }}

// writePiece writes at most one piece from the front of bufs.
func writePiece(fd int, bufs [][]byte) (int, error) {
	if len(bufs) == 1 || len(bufs[0]) >= pieceBytes {
		return syscall.Write(fd, bufs[0][:min(len(bufs[0]), pieceBytes)])
	}
	v := vectors.Get().(*vector)
	defer vectors.Put(v)
	k, room := 0, pieceBytes
	for _, p := range bufs {
		if k == len(v) || room == 0 {
			break
		}
		if len(p) == 0 {
			continue
		}
		p = p[:min(len(p), room)]
		room -= len(p)
		v[k].Base = &p[0]
		v[k].SetLen(len(p))
		k++
	}
	n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v[0])), uintptr(k))
	clear(v[:k]) // the collector must not see payloads here
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
