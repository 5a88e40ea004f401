//go:build unix

package engine

import (
	"io"
	"net"
	"os"
	"syscall"
)

// newSource returns the way to read from nc.
func newSource(nc net.Conn) source {
	raw := rawConn(nc)
	if raw == nil {
		return plainSource{nc}
	}
	return newRawSource(raw)
}

func newRawSource(raw syscall.RawConn) *rawSource {
	s := &rawSource{raw: raw}
	s.fn = s.attempt
	return s
}

// rawSource reads from a socket and holds no buffer while it waits, so that an
// idle connection costs no read buffer.
type rawSource struct {
	raw syscall.RawConn
	fn  func(fd uintptr) bool // s.attempt, made once: a method value allocates

	in  *inbox
	n   int
	err error
}

func (s *rawSource) read(in *inbox) (int, error) {
	s.in, s.n, s.err = in, 0, nil
	if err := s.raw.Read(s.fn); err != nil {
		return 0, err
	}
	switch {
	case s.err != nil:
		return 0, os.NewSyscallError("read", s.err)
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// attempt runs with the descriptor. Returning false makes the runtime wait until
// it is readable.
func (s *rawSource) attempt(fd uintptr) bool {
	space := s.in.space()
	for {
		n, err := syscall.Read(int(fd), space)
		switch err {
		case nil:
			s.n, s.err = n, nil
			return true
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			s.in.idle()
			return false
		}
		s.n, s.err = 0, err
		return true
	}
}
