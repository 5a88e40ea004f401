//go:build unix

package engine

import (
	"net"
	"os"
	"syscall"
)

// tryWriter writes to a socket without blocking. It belongs to the holder of the
// write role.
type tryWriter interface {
	// tryWrite writes what the socket takes at once of at most one piece. again
	// reports that it takes no more now.
	tryWrite(bufs [][]byte) (n int, again bool, err error)
	// waitWrite is tryWrite that waits for the socket, up to its write deadline.
	waitWrite(bufs [][]byte) (n int, err error)
}

// rawWriter is the tryWriter of a TCP or Unix socket.
type rawWriter struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool // w.attempt, made once: a method value allocates

	// In and out of attempt.
	bufs  [][]byte
	wait  bool
	n     int
	errno error
}

// newTryWriter returns nil where nc is not a plain socket.
func newTryWriter(nc net.Conn) tryWriter {
	raw := rawConn(nc)
	if raw == nil {
		return nil
	}
	w := &rawWriter{raw: raw}
	w.fn = w.attempt
	return w
}

// rawConn returns the descriptor behind nc if nc is a socket itself; a type that
// embeds one may do more in its Read and Write.
func rawConn(nc net.Conn) syscall.RawConn {
	var raw syscall.RawConn
	var err error
	switch nc := nc.(type) {
	case *net.TCPConn:
		raw, err = nc.SyscallConn()
	case *net.UnixConn:
		raw, err = nc.SyscallConn()
	}
	if err != nil {
		return nil
	}
	return raw
}

func (w *rawWriter) tryWrite(bufs [][]byte) (n int, again bool, err error) {
	n, err = w.run(bufs, false)
	if err == syscall.EAGAIN { //nolint:errorlint // the bare number of a system call
		return n, true, nil
	}
	return n, false, err
}

func (w *rawWriter) waitWrite(bufs [][]byte) (n int, err error) {
	return w.run(bufs, true)
}

func (w *rawWriter) run(bufs [][]byte, wait bool) (int, error) {
	w.bufs, w.wait, w.n, w.errno = bufs, wait, 0, nil
	err := w.raw.Write(w.fn)
	w.bufs = nil
	switch {
	case err != nil:
		return w.n, err
	case w.errno == nil || w.errno == syscall.EAGAIN: //nolint:errorlint // the bare number of a system call
		return w.n, w.errno
	}
	return w.n, os.NewSyscallError("write", w.errno)
}

// attempt runs with the descriptor. Returning false makes the runtime wait until
// it is writable.
func (w *rawWriter) attempt(fd uintptr) bool {
	for {
		n, err := writePiece(int(fd), w.bufs)
		switch err {
		case nil:
			w.n, w.errno = n, nil
			return true
		case syscall.EINTR: //nolint:errorlint // the bare number of a system call
			continue
		case syscall.EAGAIN:
			w.errno = err
			return !w.wait
		}
		w.errno = err
		return true
	}
}
