//go:build linux || freebsd

package engine

import (
	"syscall"
	"unsafe"
)

// vector writes several slices with one system call.
type vector struct {
	iov [32]syscall.Iovec
}

// write writes at most one piece from the front of bufs.
func (v *vector) write(fd int, bufs [][]byte) (int, error) {
	if len(bufs) == 1 || len(bufs[0]) >= pieceBytes {
		return syscall.Write(fd, bufs[0][:min(len(bufs[0]), pieceBytes)])
	}
	k, room := 0, pieceBytes
	for _, p := range bufs {
		if k == len(v.iov) || room == 0 {
			break
		}
		if len(p) == 0 {
			continue
		}
		p = p[:min(len(p), room)]
		room -= len(p)
		v.iov[k].Base = &p[0]
		v.iov[k].SetLen(len(p))
		k++
	}
	n, _, errno := syscall.Syscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v.iov[0])), uintptr(k))
	clear(v.iov[:k]) // the collector must not see payloads here
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
