package engine

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// drainBytes is what is read after a refusal, so that the answer is not lost to
// a reset for unread bytes.
const drainBytes = 256 << 10

// errRefused is returned for a request that got an answer other than 101.
var errRefused = errors.New("engine: upgrade refused")

// headScanner finds the end of the head of a request in bytes that come piece by
// piece, and enforces the limits on it.
type headScanner struct {
	maxHead, maxLine int
	scanned          int
	lineStart        int
	lines            int
}

// scan looks at the bytes received so far and returns the length of the head, 0
// if it is not complete. A bare LF or CR is refused: parsers differ on them.
func (s *headScanner) scan(b []byte) (head int, r *refusal) {
	for ; s.scanned < len(b); s.scanned++ {
		i := s.scanned
		switch {
		case i >= s.maxHead:
			return 0, refuse(http.StatusRequestHeaderFieldsTooLarge, "header too large")
		case s.lines == 0 && i >= s.maxLine && b[i] != '\n':
			return 0, refuse(http.StatusRequestURITooLong, "request line too long")
		case b[i] == '\n':
			if i == s.lineStart || b[i-1] != '\r' {
				return 0, refuse(http.StatusBadRequest, "bare LF in header")
			}
			if i == s.lineStart+1 {
				s.scanned++
				if s.lines == 0 {
					return 0, refuse(http.StatusBadRequest, "no request line")
				}
				return s.scanned, nil
			}
			s.lines++
			s.lineStart = i + 1
		case i > s.lineStart && b[i-1] == '\r':
			return 0, refuse(http.StatusBadRequest, "bare CR in header")
		}
	}
	return 0, nil
}

// readHead collects the head of a request from nc. It returns the head and what
// came behind it; both are copies.
func (s *headScanner) readHead(nc io.Reader) (head, rest []byte, err error) {
	b := buf.Get(4 << 10)
	defer func() { b.Release() }()
	for {
		if len(b.B) == cap(b.B) {
			bigger := buf.Get(2 * cap(b.B))
			bigger.B = append(bigger.B, b.B...)
			b.Release()
			b = bigger
		}
		n, err := nc.Read(b.B[len(b.B):cap(b.B)])
		b.B = b.B[:len(b.B)+n]
		size, r := s.scan(b.B)
		switch {
		case r != nil:
			return nil, nil, r
		case size > 0:
			return bytes.Clone(b.B[:size]), bytes.Clone(b.B[size:]), nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			return nil, nil, refuseLate()
		case err != nil:
			return nil, nil, err
		}
	}
}

func refuseLate() *refusal { return refuse(http.StatusRequestTimeout, "handshake timed out") }

// upgrade performs the server's side of the handshake on a fresh socket, which
// has its deadline set. full refuses with status 503. On an error nothing more
// is to be done than closing the socket.
func (s *Server) upgrade(nc net.Conn, full bool) (*Request, []byte, error) {
	scan := headScanner{maxHead: s.cfg.maxHeaderBytes(), maxLine: s.cfg.maxRequestLine()}
	head, early, err := scan.readHead(nc)
	var req *Request
	var answer []byte
	var r *refusal
	switch {
	case errors.As(err, &r):
	case err != nil:
		return nil, nil, err
	default:
		req, answer, r = s.decide(head, full)
	}
	if r != nil {
		s.refuse(nc, r)
		return nil, nil, errRefused
	}
	if _, err := nc.Write(answer); err != nil {
		return nil, nil, err
	}
	return req, early, nil
}

// decide reads the head of a request, which the request keeps, and returns the
// answer to send, or the refusal.
func (s *Server) decide(head []byte, full bool) (req *Request, answer []byte, r *refusal) {
	req, r = parseRequest(head)
	if r == nil {
		r = s.cfg.checkAccess(req)
	}
	if r == nil && s.isStopped() {
		r = refuse(http.StatusServiceUnavailable, "shutting down")
	}
	if r == nil && full {
		r = refuse(http.StatusServiceUnavailable, "too many connections")
	}
	if r == nil {
		answer, r = upgradeAnswer(req.Header.Get("Sec-Websocket-Key"))
	}
	return req, answer, r
}

// refuse sends an HTTP answer and ends the socket in order: half-close, then
// read what the client still sends, bounded in bytes and time, so that the
// answer is not lost.
func (s *Server) refuse(nc net.Conn, r *refusal) {
	s.refused.Add(1)
	if d := s.limits.closeTimeout; d > 0 {
		_ = nc.SetDeadline(time.Now().Add(d))
	}
	if _, err := nc.Write(r.append(nil)); err != nil {
		return
	}
	if h, ok := nc.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		b := buf.Get(4 << 10)
		defer b.Release()
		for total := 0; total < drainBytes; {
			n, err := nc.Read(b.B[:cap(b.B)])
			if err != nil {
				return
			}
			total += n
		}
	}
}
