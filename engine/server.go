package engine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

// Server upgrades connections and keeps track of them. It serves any number of
// listeners with [Server.Serve], and is an [net/http.Handler] as well.
type Server struct {
	cfg    Config
	limits *limits
	accept func(*Conn)

	accepted, refused atomic.Int64

	mu        sync.Mutex
	stopped   bool // no new connections
	closed    bool
	stopc     chan struct{} // closed when stopped is set
	listeners map[net.Listener]struct{}
	sockets   map[net.Conn]bool // in their handshake; true if counted in total
	conns     map[*Conn]struct{}
	perAddr   map[netip.Addr]int // kept only with a limit per address
	total     int                // sockets that are not being refused, and conns; for MaxConns

	wg sync.WaitGroup // Serve loops, handshakes, open connections
}

// ServerStats counts what a server has done.
type ServerStats struct {
	// Accepted and Refused count handshakes that succeeded and that got an error
	// answer.
	Accepted, Refused int64
	// Conns is the number of open connections.
	Conns int
}

// NewServer returns a server that calls accept for each connection after its
// upgrade. accept must not block, and must call [Conn.Start], [Conn.CloseWith]
// or, on another goroutine, [Conn.Close]. It may run on many goroutines at once; on
// the epoll driver they are the pollers.
func NewServer(cfg Config, accept func(*Conn)) *Server {
	return &Server{
		cfg:       cfg,
		limits:    cfg.limits(),
		accept:    accept,
		stopc:     make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		sockets:   make(map[net.Conn]bool),
		conns:     make(map[*Conn]struct{}),
		perAddr:   make(map[netip.Addr]int),
	}
}

// Serve accepts connections from ln until ln fails or the server stops; it takes
// ln and closes it. Temporary errors of Accept are retried after a delay. Serve
// always returns a non-nil error: [ErrServerClosed] after StopAccepting or Close.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close()
	s.mu.Lock()
	if s.stopped {
		s.mu.Unlock()
		return ErrServerClosed
	}
	s.listeners[ln] = struct{}{}
	s.wg.Add(1)
	s.mu.Unlock()
	defer s.wg.Done()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, ln)
		s.mu.Unlock()
	}()
	polled := s.cfg.TLS == nil && s.cfg.Driver != DriverStd
	delay := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err != nil {
			if s.isStopped() {
				return ErrServerClosed
			}
			if !isTemporary(err) {
				return fmt.Errorf("engine: accept: %w", err)
			}
			delay = min(max(2*delay, minAcceptDelay), maxAcceptDelay)
			s.limits.log.Warn("engine: accept failed, trying again", "err", err, "delay", delay)
			if !s.pause(delay) {
				return ErrServerClosed
			}
			continue
		}
		delay = 0
		if !polled || !s.handlePolled(nc) {
			s.handle(nc)
		}
	}
}

// isTemporary reports whether Accept may succeed later: too many open files, a
// connection that was gone before it was taken.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// pause waits for d; it returns false if the server stopped meanwhile.
func (s *Server) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-s.stopc:
		return false
	}
}

func (s *Server) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopped
}

// handle starts the handshake of a socket on a goroutine of its own.
func (s *Server) handle(nc net.Conn) {
	full, ok := s.admit(nc)
	if !ok {
		nc.Close()
		return
	}
	go func() {
		defer s.wg.Done() // admit has added it
		defer s.recoverHandshake(nc)
		if err := s.handshake(nc, full); err != nil {
			s.forget(nc)
			nc.Close()
		}
	}()
}

// recoverHandshake keeps a panic, above all one of accept, to its connection.
func (s *Server) recoverHandshake(nc net.Conn) {
	if v := recover(); v != nil {
		s.limits.log.Error("engine: panic while accepting", "remote", nc.RemoteAddr(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		s.forget(nc)
		nc.Close()
	}
}

func (s *Server) handshake(nc net.Conn, full bool) error {
	if d := s.cfg.handshakeTimeout(); d > 0 {
		if err := nc.SetDeadline(time.Now().Add(d)); err != nil {
			return err
		}
	}
	sock := nc
	var state *tls.ConnectionState
	if s.cfg.TLS != nil {
		t := tls.Server(nc, s.cfg.TLS)
		if err := t.HandshakeContext(context.Background()); err != nil {
			return err
		}
		cs := t.ConnectionState()
		sock, state = t, &cs
	}
	req, early, err := s.upgrade(sock, full)
	if err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	req.TLS = state
	return s.adopt(nc, newConn(sock, false, s.limits, req, early))
}

// adopt hands the connection of an upgraded socket to accept. nc is what was
// admitted.
func (s *Server) adopt(nc net.Conn, c *Conn) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrServerClosed
	}
	delete(s.sockets, nc)
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	c.onEnd = func() { s.ended(c, nc) }
	s.mu.Unlock()
	s.accepted.Add(1)
	defer c.dropRequest()
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(v)
			c.abort(fmt.Errorf("%w: %v", ErrPanic, v))
		}
	}()
	s.accept(c)
	return nil
}

// admit takes a socket in for its handshake, and adds 1 to wg for it. full
// reports that a limit is reached: then the socket is to be refused, and does not
// count. ok is false if the server has stopped.
func (s *Server) admit(nc net.Conn) (full, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return false, false
	}
	s.wg.Add(1)
	full = s.total >= s.cfg.maxConns()
	if s.cfg.MaxConnsPerAddr > 0 {
		full = full || s.perAddr[remoteIP(nc)] >= s.cfg.maxPerAddr()
	}
	s.sockets[nc] = !full
	if full {
		return true, true
	}
	s.total++
	if s.cfg.MaxConnsPerAddr > 0 {
		s.perAddr[remoteIP(nc)]++
	}
	return false, true
}

// forget takes a socket out whose handshake failed.
func (s *Server) forget(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sockets[nc] {
		s.releaseLocked(nc)
	}
	delete(s.sockets, nc)
}

func (s *Server) ended(c *Conn, nc net.Conn) {
	s.mu.Lock()
	delete(s.conns, c)
	s.releaseLocked(nc)
	s.mu.Unlock()
	s.wg.Done()
}

func (s *Server) releaseLocked(nc net.Conn) {
	s.total--
	if s.cfg.MaxConnsPerAddr > 0 {
		addr := remoteIP(nc)
		if s.perAddr[addr]--; s.perAddr[addr] <= 0 {
			delete(s.perAddr, addr)
		}
	}
}

// remoteIP returns the remote address without port; the zero value for what has
// no IP address, all of which count as one.
func remoteIP(nc net.Conn) netip.Addr {
	if ta, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return ta.AddrPort().Addr().Unmap().WithZone("")
	}
	return netip.Addr{}
}

// StopAccepting closes the listeners and refuses new connections. Those that are
// open go on; handshakes under way are refused with status 503.
func (s *Server) StopAccepting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return
	}
	s.stopped = true
	close(s.stopc)
	for ln := range s.listeners {
		ln.Close()
	}
}

// Wait blocks until StopAccepting or Close was called and then every connection
// has ended and every Serve has returned.
func (s *Server) Wait() {
	<-s.stopc
	s.wg.Wait()
}

// Close stops accepting, aborts all connections without a close frame, and
// returns when everything the server started has ended. It must not be called
// from the accept function or a [Handler]. It is idempotent and always returns
// nil. For an orderly end, call StopAccepting, then CloseWith on each of
// [Server.Conns], then Wait or Close.
func (s *Server) Close() error {
	s.StopAccepting()
	s.mu.Lock()
	s.closed = true
	for nc := range s.sockets {
		nc.Close()
	}
	s.mu.Unlock()
	open := s.Conns()
	for _, c := range open {
		c.abort(ErrClosed)
	}
	for _, c := range open {
		c.Close()
	}
	s.wg.Wait()
	return nil
}

// Conns returns the open connections, in no order.
func (s *Server) Conns() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	open := make([]*Conn, 0, len(s.conns))
	for c := range s.conns {
		open = append(open, c)
	}
	return open
}

// ConnCount returns the number of open connections.
func (s *Server) ConnCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Stats returns the counts so far.
func (s *Server) Stats() ServerStats {
	return ServerStats{Accepted: s.accepted.Load(), Refused: s.refused.Load(), Conns: s.ConnCount()}
}
