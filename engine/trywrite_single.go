//go:build unix && !(linux || freebsd)

package engine

import "syscall"

// writePiece writes at most one piece from the front of bufs, of one slice: there
// is no writev in package syscall here.
func writePiece(fd int, bufs [][]byte) (int, error) {
	for len(bufs) > 1 && len(bufs[0]) == 0 {
		bufs = bufs[1:]
	}
	return syscall.Write(fd, bufs[0][:min(len(bufs[0]), pieceBytes)])
}
