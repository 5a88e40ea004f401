//go:build linux && (amd64 || arm64 || loong64)

package engine

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
)

// socket is a descriptor in the epoll driver. As a net.Conn it has the methods
// that the engine needs of one.
//
// No system call is made on the descriptor once it is closed, because its number
// may be another connection's by then. Close and CloseWrite look under mu. Reads
// are made by the read owner and writes by the holder of the write role, which
// are the same goroutine, and the only one, by the time of release.
type socket struct {
	fd            int
	poll          poller
	local, remote netip.AddrPort
	unix          *[2]net.Addr // local and remote, of a Unix socket

	mu     sync.Mutex
	shut   bool     // both directions were shut down
	closed bool     // the descriptor is closed
	file   *os.File // the descriptor in the runtime's poller, made when a goroutine has to wait

	// Guarded by the mutex of the connection or the handshake.
	op       *operator
	attached bool // op is in the poller, for this owner
	ended    bool // the poller has reported the end: it calls no method of the connection any more
	parked   bool // the write role waits for OnWrite

	// Owned by the holder of the write role; by what is under the mutex while parked.
	wantWrite bool  // OnWrite was asked for
	outBefore int64 // bytes written when it was last parked

	failed error // of a read; owned by the read owner
}

// attach begins to watch the descriptor. It is called with the owner's mutex
// held, and not from a method of the socket's operator.
func (s *socket) attach(onRead, onWrite, onHup func(poller) error) error {
	if s.op != nil {
		s.op.Free() // it was detached; its handler returns in a moment
	}
	s.op = s.poll.Alloc()
	s.op.FD = s.fd
	s.setHandlers(onRead, onWrite, onHup)
	if err := s.op.Control(pollRead); err != nil {
		s.op.Free()
		s.op = nil
		return os.NewSyscallError("epoll_ctl", err)
	}
	s.attached = true
	return nil
}

// setHandlers is called before the operator is in the poller, or by a method of
// the operator.
func (s *socket) setHandlers(onRead, onWrite, onHup func(poller) error) {
	s.op.OnRead, s.op.OnWrite, s.op.OnHup = onRead, onWrite, onHup
}

// release ends everything: after it nothing is called any more and the
// descriptor is closed. It is called once, and not from a method of the operator.
func (s *socket) release() {
	if s.op != nil {
		_ = s.op.Control(pollDetach) // does nothing if it is detached
		s.op.Free()
		s.op = nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.file != nil {
		s.file.Close()
		return
	}
	_ = syscall.Close(s.fd)
}

// Close ends both directions of the socket, which the poller and whoever waits on
// it then notice. The descriptor stays open until release.
//
// What the peer has sent and nobody has read must stay unread: then the peer gets
// a reset. Linux does not open the window again for reads after the shutdown, and
// a peer that waits for that would wait for minutes.
func (s *socket) Close() error { return s.shutdown(syscall.SHUT_RDWR) }

// CloseWrite ends our direction.
func (s *socket) CloseWrite() error { return s.shutdown(syscall.SHUT_WR) }

func (s *socket) shutdown(how int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return net.ErrClosed
	}
	s.shut = s.shut || how == syscall.SHUT_RDWR
	return os.NewSyscallError("shutdown", syscall.Shutdown(s.fd, how))
}

// errNotNow reports that there is nothing to read at the moment.
var errNotNow = errors.New("engine: nothing to read")

// readNow is one read that does not wait.
func (s *socket) readNow(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return 0, net.ErrClosed
	}
	for {
		n, err := syscall.Read(s.fd, p)
		switch {
		case n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, syscall.EAGAIN):
			return 0, errNotNow
		case !errors.Is(err, syscall.EINTR):
			return 0, os.NewSyscallError("read", err)
		}
	}
}

// tryWrite implements tryWriter.
func (s *socket) tryWrite(bufs [][]byte) (n int, again bool, err error) {
	for {
		n, err = writePiece(s.fd, bufs)
		switch err {
		case nil:
			return n, false, nil
		case syscall.EINTR: //nolint:errorlint // the bare number of a system call
			continue
		case syscall.EAGAIN:
			return 0, true, nil
		}
		return 0, false, os.NewSyscallError("write", err)
	}
}

// waitWrite implements tryWriter. It is for the rare time when the poller does
// not watch the socket any more.
func (s *socket) waitWrite(bufs [][]byte) (int, error) {
	raw, err := s.waitable()
	if err != nil {
		return 0, err
	}
	w := &rawWriter{raw: raw}
	w.fn = w.attempt
	return w.waitWrite(bufs)
}

// blocking returns the descriptor as a file whose reads and writes wait without
// a thread.
func (s *socket) blocking() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, net.ErrClosed
	}
	if s.file == nil {
		s.file = os.NewFile(uintptr(s.fd), "socket")
	}
	return s.file, nil
}

func (s *socket) waitable() (syscall.RawConn, error) {
	f, err := s.blocking()
	if err != nil {
		return nil, err
	}
	return f.SyscallConn()
}

// Read waits for bytes.
func (s *socket) Read(p []byte) (int, error) {
	f, err := s.blocking()
	if err != nil {
		return 0, err
	}
	return f.Read(p)
}

// Write waits until all of p is written.
func (s *socket) Write(p []byte) (int, error) {
	f, err := s.blocking()
	if err != nil {
		return 0, err
	}
	return f.Write(p)
}

// SetDeadline sets the limit of Read, Write and waitWrite.
func (s *socket) SetDeadline(t time.Time) error { return s.setDeadline((*os.File).SetDeadline, t) }

// SetReadDeadline sets the limit of Read.
func (s *socket) SetReadDeadline(t time.Time) error {
	return s.setDeadline((*os.File).SetReadDeadline, t)
}

// SetWriteDeadline sets the limit of Write and waitWrite.
func (s *socket) SetWriteDeadline(t time.Time) error {
	return s.setDeadline((*os.File).SetWriteDeadline, t)
}

func (s *socket) setDeadline(set func(*os.File, time.Time) error, t time.Time) error {
	f, err := s.blocking()
	if err != nil {
		return err
	}
	return set(f, t)
}

// LocalAddr returns the local address.
func (s *socket) LocalAddr() net.Addr {
	if s.unix != nil {
		return s.unix[0]
	}
	return net.TCPAddrFromAddrPort(s.local)
}

// RemoteAddr returns the remote address.
func (s *socket) RemoteAddr() net.Addr {
	if s.unix != nil {
		return s.unix[1]
	}
	return net.TCPAddrFromAddrPort(s.remote)
}

// takeSocket moves a connection of package net to the epoll driver. It returns
// nil if it cannot, and then leaves nc alone.
//
// There is no other way to get the descriptor of a connection: a listener of
// package net lets nobody else wait for it to become readable.
func takeSocket(nc net.Conn, polls []poller) *socket {
	raw := rawConn(nc)
	if raw == nil || len(polls) == 0 {
		return nil
	}
	fd, errno := -1, syscall.Errno(0)
	err := raw.Control(func(old uintptr) {
		var r uintptr
		r, _, errno = syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
		fd = int(r)
	})
	if err != nil || errno != 0 {
		return nil
	}
	s := &socket{fd: fd, poll: polls[int(shared.next.Add(1))%len(polls)]}
	switch remote := nc.RemoteAddr().(type) {
	case *net.TCPAddr:
		s.remote = unmapped(remote)
		if local, ok := nc.LocalAddr().(*net.TCPAddr); ok {
			s.local = unmapped(local)
		}
	default:
		s.unix = &[2]net.Addr{nc.LocalAddr(), remote}
	}
	nc.Close() // says nothing to the peer: the socket has another descriptor
	return s
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	p := a.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// lastReads is the source of a connection that the poller has left: it reads
// what is in the socket, to the end.
type lastReads struct {
	c    *Conn
	wait source // for a socket that is not at its end, made when it is needed
}

func (r *lastReads) read(in *inbox) (int, error) {
	s := r.c.sock
	if s.failed != nil {
		return 0, s.failed
	}
	n, err := 0, errNotNow
	if r.wait == nil {
		n, err = s.readNow(in.space())
	}
	switch {
	case err != errNotNow: //nolint:errorlint // it is never wrapped
		return n, err
	case r.wait != nil:
		return r.wait.read(in)
	}
	raw, err := s.waitable()
	if err != nil {
		return 0, err
	}
	r.wait = newRawSource(raw)
	return r.wait.read(in)
}

var (
	_ net.Conn  = (*socket)(nil)
	_ tryWriter = (*socket)(nil)
)

// pollSocket moves a connection that was dialled to the epoll driver if that is
// wanted and possible.
func (cfg *DialConfig) pollSocket(nc net.Conn) net.Conn {
	if cfg.Driver != DriverEpoll || rawConn(nc) == nil {
		return nc
	}
	if s := takeSocket(nc, pollersOrLog(cfg.Pollers, cfg.logger())); s != nil {
		return s
	}
	return nc
}
