//go:build linux && (amd64 || arm64 || loong64)

package engine

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// firstRead is the room for the first bytes of a request. Most fit, and a client
// that opens many connections to say nothing fills little.
const firstRead = 1 << 10

// maxHeadRead is how much of a request is read in one turn.
const maxHeadRead = 64 << 10

// handlePolled starts the handshake of a socket on a poller. It returns false if
// the epoll driver cannot carry the socket.
func (s *Server) handlePolled(nc net.Conn) bool {
	if rawConn(nc) == nil {
		return false
	}
	sock := takeSocket(nc, pollersOrLog(s.cfg.Pollers, s.limits.log))
	if sock == nil {
		return false
	}
	full, ok := s.admit(sock)
	if !ok {
		sock.release()
		return true
	}
	h := &handshake{server: s, sock: sock, full: full}
	h.scan = headScanner{maxHead: s.cfg.maxHeaderBytes(), maxLine: s.cfg.maxRequestLine()}
	if err := h.start(); err != nil {
		s.limits.log.Error("engine: handshake", "remote", sock.RemoteAddr(), "err", err)
		h.end()
	}
	return true
}

// handshake is the server's side of the upgrade on the epoll driver. It has no
// goroutine. The poller collects the request; then one of four claims the socket:
// the poller for a request that is complete or wrong, the timer, or the end.
type handshake struct {
	server *Server
	sock   *socket
	full   bool // refuse with status 503

	// Owned by the poller; by whoever has claimed once the operator is freed.
	scan headScanner
	in   *buf.Buf // what has come; nil for nothing

	mu      sync.Mutex
	claimed bool
	timer   *time.Timer // nil for no limit
}

// start begins to read; it may be over when it returns.
func (h *handshake) start() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.sock.attach(h.onReadable, nil, h.onHangup); err != nil {
		h.claimed = true
		return err
	}
	if d := h.server.cfg.handshakeTimeout(); d > 0 {
		h.timer = time.AfterFunc(d, h.onTimer)
	}
	return nil
}

// claim reports whether the caller is the first: the one who decides.
func (h *handshake) claim() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.claimed {
		return false
	}
	h.claimed = true
	if h.timer != nil {
		h.timer.Stop()
	}
	return true
}

// onReadable reads on. It runs on the poller.
func (h *handshake) onReadable(poller) error {
	claimed := false
	defer func() {
		if v := recover(); v != nil {
			h.server.limits.log.Error("engine: panic in handshake", "remote", h.sock.RemoteAddr(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
			if claimed || h.claim() {
				h.leave(nil)
			}
		}
	}()
	head, r := h.collect()
	if head == 0 && r == nil {
		return nil // more is to come, or a hang-up
	}
	if claimed = h.claim(); !claimed {
		return nil
	}
	var req *Request
	var answer []byte
	if r == nil {
		req, answer, r = h.server.decide(bytes.Clone(h.in.B[:head]), h.full)
	}
	if r != nil || !h.upgrade(req, answer, h.in.B[head:]) {
		h.leave(r)
	}
	return nil
}

// collect reads what is there. It returns the length of the head once it is
// complete.
func (h *handshake) collect() (head int, r *refusal) {
	if h.in == nil {
		h.in = buf.Get(firstRead)
	}
	for total := 0; total < maxHeadRead; {
		b := h.in
		if len(b.B) == cap(b.B) {
			h.in = buf.Get(2 * cap(b.B))
			h.in.B = append(h.in.B, b.B...)
			b.Release()
			b = h.in
		}
		n, err := h.sock.readNow(b.B[len(b.B):cap(b.B)])
		if n == 0 {
			if len(b.B) == 0 {
				b.Release()
				h.in = nil
			}
			if err != errNotNow && err != io.EOF { //nolint:errorlint // they are never wrapped
				_ = h.sock.Close() // makes a hang-up certain
			}
			return 0, nil
		}
		total += n
		b.B = b.B[:len(b.B)+n]
		if head, r = h.scan.scan(b.B); head > 0 || r != nil {
			return head, r
		}
	}
	return 0, nil
}

// upgrade answers and makes a connection. On false the socket is still the
// handshake's, and is to be closed.
func (h *handshake) upgrade(req *Request, answer, early []byte) bool {
	// An answer always fits into a fresh socket; if not, the client is up to nothing good.
	if n, _, err := h.sock.tryWrite([][]byte{answer}); err != nil || n < len(answer) {
		return false
	}
	s := h.server
	c := newConn(h.sock, false, s.limits, req, bytes.Clone(early))
	h.sock.setHandlers(c.onReadable, c.onWritable, c.onHangup)
	if err := s.adopt(h.sock, c); err != nil {
		return false
	}
	h.in.Release()
	h.in = nil
	c.acceptReturned()
	s.wg.Done() // admit has added it
	return true
}

// leave takes the socket away from the poller, by whom it is called, and goes on elsewhere.
func (h *handshake) leave(r *refusal) {
	h.sock.op.OnHup = nil
	_ = h.sock.op.Control(pollDetach)
	go h.conclude(r)
}

// conclude sends a refusal, if there is one, and ends the socket. What it does
// may take as long as the limit of a closing.
func (h *handshake) conclude(r *refusal) {
	if r != nil {
		h.server.refuse(h.sock, r)
	}
	h.end()
}

func (h *handshake) onTimer() {
	if !h.claim() {
		return
	}
	_ = h.sock.op.Control(pollDetach)
	h.conclude(refuseLate())
}

// onHangup ends a handshake that the client has given up.
func (h *handshake) onHangup(poller) error {
	if h.claim() {
		h.end()
	}
	return nil
}

// end closes the socket. It is called once, not on the poller.
func (h *handshake) end() {
	h.server.forget(h.sock)
	h.sock.release()
	if h.in != nil {
		h.in.Release()
	}
	h.server.wg.Done() // admit has added it
}
