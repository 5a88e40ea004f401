package engine

import (
	"crypto/tls"
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Conn is a WebSocket connection that carries whole messages.
//
// A Conn reads nothing until [Conn.Start]. From then on one goroutine at a time
// owns the read side and calls the [Handler]: on the std driver the connection's
// reader, on the epoll driver a poller and, for the end, a goroutine of the
// connection. The last call is Handler.Closed. All methods are safe for concurrent
// use unless they say otherwise.
type Conn struct {
	nc     net.Conn
	sock   *socket   // is nc on the epoll driver; nil on the std driver
	writer tryWriter // nil where the socket has no non-blocking write
	lim    *limits
	client bool
	early  []byte // came with the handshake; owned by the reader after Start

	handler Handler // set once by Start before the reader runs

	// Read side, owned by the reader.
	in      parser
	inBuf   inbox
	message lentMessage
	counts  batchCounts

	// Write side, owned by the holder of the write role.
	out       [][]byte // what is being written
	outMem    [][]byte // memory of out
	ctlOut    []byte   // control frames being written; swapped with ctl
	lastBytes int64    // collected since closing began
	noCollect bool     // Collect panicked or its share of the closing is used up
	framed    bool     // the close frame is part of out, or written
	broken    bool     // a write has failed: what is not collected has not been sent

	// kicks counts the calls of Kick that the holder of the write role has not
	// answered: whoever raises it from 0 gets the role, and keeps it until it
	// brings the count it has seen back to 0. See conn_write.go.
	kicks atomic.Int64

	born     time.Time    // times below are nanoseconds since born
	lastRead atomic.Int64 // when bytes last came
	lastPing atomic.Int64 // when a ping was last queued
	partial  atomic.Bool  // half a frame or message is waiting for more
	urgent   atomic.Bool  // ctl or the closing needs a look by the writer
	waiting  atomic.Int64 // since when the write role is parked without progress; 0 if it is not
	deaf     atomic.Bool  // the reader discards what comes
	dead     atomic.Bool  // set under mu: no goroutine may start any more
	paused   atomic.Bool  // resumec is there
	stats    connCounters

	mu            sync.Mutex
	request       *Request // nil if head can say it
	head          []byte   // of the upgrade request, as it came
	tls           *tls.ConnectionState
	startCalled   bool
	started       bool    // there is a reader, or there will be none
	late          Handler // came to Start after CloseWith
	aborted       bool
	probed        time.Duration // since born; when Probe pinged
	probeEnd      time.Duration // since born; by when something must have come; 0 if nothing need
	closing       bool
	closeCode     uint16 // of the frame to send; 0 is a frame without a code
	closeReason   string
	closeFailed   bool          // we close for a failure: half-close after the frame
	closeSent     bool          // our close frame has been written
	closeReceived bool          // the peer's close frame was read
	halfClosed    bool          // the write side of the socket was shut
	closeAt       time.Duration // since born; when the closing must be over; 0 is never
	flushedc      chan struct{} // closed by markFlushed; made when closing begins
	flushed       bool
	roleDone      chan struct{} // see roleEnd
	resumec       chan struct{} // closed at the end of the pause; nil while there is none
	ctl           []byte        // control frames to be written
	cause         error         // why the connection ends; the first wins
	timer         *time.Timer   // runs tick
	onEnd         func()        // tells the server; called once, last

	wg    sync.WaitGroup // the reader, the writer, a running tick
	err   error          // set before donec closes
	donec chan struct{}  // closed when the connection has ended
}

// newConn wraps a connection whose upgrade is complete. early holds bytes that
// came behind the handshake; the Conn takes them.
func newConn(nc net.Conn, client bool, lim *limits, req *Request, early []byte) *Conn {
	c := &Conn{
		nc:      nc,
		writer:  newTryWriter(nc),
		lim:     lim,
		request: req,
		client:  client,
		early:   early,
		in:      parser{client: client, maxMessage: lim.maxMessage},
		donec:   make(chan struct{}),
		born:    time.Now(),
	}
	c.useSocket(nc)
	return c
}

// Start begins reading and hands the connection to h. It must be called exactly
// once, and does not block. Bytes that came with the handshake are delivered
// first. If the connection has ended already, Start calls h.Closed before it
// returns; if it is closing, h gets nothing but Closed.
func (c *Conn) Start(h Handler) {
	c.mu.Lock()
	if c.startCalled {
		c.mu.Unlock()
		panic("BUG: engine: Start called twice")
	}
	c.startCalled = true
	switch {
	case c.dead.Load():
		c.mu.Unlock()
		<-c.donec // at most a moment away
		h.Closed(c.err)
	case c.started: // by CloseWith
		c.late = h
		c.mu.Unlock()
	default:
		c.startLocked(h)
		c.mu.Unlock()
		c.Kick() // for what was said before there was a handler
	}
}

func (c *Conn) startLocked(h Handler) {
	c.started = true
	c.handler = h
	c.lastRead.Store(int64(c.now()))
	c.armLocked(c.nextTick(c.now()))
	if c.sock != nil {
		c.startPolledLocked()
		return
	}
	c.wg.Go(c.readLoop)
}

// AppendFrame appends p to dst as one unfragmented message: header, mask if this
// side is the client, payload. It copies p.
//
// RFC 6455 section 5.2.
func (c *Conn) AppendFrame(dst []byte, text bool, p []byte) []byte {
	op := byte(bitFin | opBinary)
	if text {
		op = bitFin | opText
	}
	return appendFrame(dst, c.client, op, p)
}

// BeginFrame appends room for a frame header to dst. The payload of one message
// is to be appended behind it, then [Conn.EndFrame] called.
func (c *Conn) BeginFrame(dst []byte) []byte { return beginFrame(dst, c.client) }

// EndFrame completes the message that BeginFrame began when b was start bytes
// long: it writes the header and, if this side is the client, masks the payload,
// both in place. What it returns may be longer than b, and replaces it.
//
// RFC 6455 section 5.2.
func (c *Conn) EndFrame(b []byte, start int, text bool) []byte {
	op := byte(bitFin | opBinary)
	if text {
		op = bitFin | opText
	}
	return endFrame(b, start, c.client, op)
}

// BeginLongFrame is [Conn.BeginFrame] for a message that is not short: it makes room for the
// longest header, so that [Conn.EndLongFrame] has nothing to move. dst is empty.
func (c *Conn) BeginLongFrame(dst []byte) []byte {
	var room [maxHeader]byte
	return append(dst, room[:]...)
}

// EndLongFrame completes the binary message that BeginLongFrame began, which is all of b, in
// place, and returns where its frame begins in b.
func (c *Conn) EndLongFrame(b []byte) (start int) {
	return endLongFrame(b, c.client, bitFin|opBinary)
}

// Done returns a channel that is closed when the connection has ended and
// Handler.Closed has returned.
func (c *Conn) Done() <-chan struct{} { return c.donec }

// Err returns why the connection ended, or nil before Done is closed.
func (c *Conn) Err() error {
	select {
	case <-c.donec:
		return c.err
	default:
		return nil
	}
}

// LocalAddr returns the local address of the socket.
func (c *Conn) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr returns the remote address of the socket.
func (c *Conn) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }

// Request returns what the client's upgrade said; nil on a dialled connection.
// It is shared: callers must not modify it. Once the accept function of the server has
// returned, each call parses the request again, because most connections are
// not asked any more and a parsed one takes much memory.
func (c *Conn) Request() *Request {
	c.mu.Lock()
	r, head, state := c.request, c.head, c.tls
	c.mu.Unlock()
	if r == nil && head != nil {
		r, _ = parseRequest(head) // it was parsed before
		r.TLS = state
	}
	return r
}

// dropRequest keeps the request only as it came.
func (c *Conn) dropRequest() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.request; r != nil && r.head != nil {
		c.head, c.tls, c.request = r.head, r.TLS, nil
	}
}

// Driver returns the driver that carries the connection.
func (c *Conn) Driver() Driver {
	if c.sock != nil {
		return DriverEpoll
	}
	return DriverStd
}

// IsClient reports whether this side dialled.
func (c *Conn) IsClient() bool { return c.client }

// now returns the time since the connection was born, on the monotonic clock.
func (c *Conn) now() time.Duration { return time.Since(c.born) }

// spawn runs f on a goroutine of the connection, unless the connection is dead.
func (c *Conn) spawn(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead.Load() {
		return false
	}
	c.wg.Go(f)
	return true
}

// finish ends the connection. It runs once: at the end of the reader, or for
// abort if there never was one.
func (c *Conn) finish() {
	c.mu.Lock()
	c.dead.Store(true)
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.cause == nil {
		c.cause = ErrLost
	}
	if ce, ok := c.cause.(*CloseError); ok {
		ce.Clean = c.closeSent && c.closeReceived
	}
	c.err = c.cause
	if c.late != nil {
		c.handler = c.late
	}
	c.mu.Unlock()

	c.nc.Close()
	c.markFlushed()
	if c.kicks.Add(1) != 1 {
		// The holder sees dead, because it was set before the count changed.
		<-c.roleEnd()
	}
	c.out, c.outMem, c.ctlOut = nil, nil, nil
	c.in.release()
	c.inBuf.release()
	if c.handler != nil {
		c.callClosed()
	}
	close(c.donec)
	if c.sock != nil {
		// Last, because it waits for the poller, which may be in Start, waiting for donec.
		c.sock.release()
	}
	if c.onEnd != nil {
		c.onEnd()
	}
}

func (c *Conn) callClosed() {
	defer func() {
		if v := recover(); v != nil {
			c.logPanic(v)
		}
	}()
	c.handler.Closed(c.err)
}

func (c *Conn) logPanic(v any) {
	c.lim.log.Error("engine: panic in handler", "remote", c.RemoteAddr(), "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
}
