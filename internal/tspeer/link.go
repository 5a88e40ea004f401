package tspeer

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Endpoints are where the connections of a conversation come from: a dialler for a played client, an acceptor for a played server. It is
// called once per connection, one call at a time, and returns early when ctx ends.
type Endpoints func(ctx context.Context) (net.Conn, error)

// Conns returns Endpoints that hand out the given connections in turn.
func Conns(ncs ...net.Conn) Endpoints {
	return func(context.Context) (net.Conn, error) {
		if len(ncs) == 0 {
			return nil, errors.New("tspeer: the conversation has more connections than were given")
		}
		nc := ncs[0]
		ncs = ncs[1:]
		return nc, nil
	}
}

// Accept returns Endpoints that accept from ln, and close ln if ctx ends while they wait.
func Accept(ln net.Listener) Endpoints {
	return func(ctx context.Context) (net.Conn, error) {
		stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
		defer stop()
		return ln.Accept()
	}
}

// Dial returns Endpoints that dial addr.
func Dial(network, addr string) Endpoints {
	return func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
}

// arrival is something that came in on a connection: a message, a close frame, or the end.
type arrival struct {
	conn   int
	at     time.Time
	text   bool
	data   []byte
	closed bool // a close frame with this code and reason
	code   ws.StatusCode
	reason string
	err    error // the connection ended; io.EOF if nothing was wrong with it
}

// inbox is an unbounded queue of arrivals, so that no reader ever waits: a peer that writes before it reads cannot deadlock with another one.
type inbox struct {
	mu    sync.Mutex
	items []arrival
	wake  chan struct{} // holds a token while items may be there
}

func newInbox() *inbox { return &inbox{wake: make(chan struct{}, 1)} }

func (in *inbox) put(a arrival) {
	in.mu.Lock()
	in.items = append(in.items, a)
	in.mu.Unlock()
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

func (in *inbox) take() (a arrival, ok bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.items) == 0 {
		return arrival{}, false
	}
	a = in.items[0]
	in.items = in.items[1:]
	return a, true
}

// next returns the next arrival, or an error when ctx ends or nothing comes for the given time.
func (in *inbox) next(ctx context.Context, patience time.Duration) (arrival, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		if a, ok := in.take(); ok {
			return a, nil
		}
		select {
		case <-in.wake:
		case <-timer.C:
			return arrival{}, violation(RuleMissing, "nothing came within %v", patience)
		case <-ctx.Done():
			return arrival{}, context.Cause(ctx)
		}
	}
}

// link is one WebSocket connection. Its reader puts arrivals into an inbox; its writer sends what was queued.
type link struct {
	nc     net.Conn
	r      *bufio.Reader
	client bool // whether this side is the client
	conn   int
	in     *inbox
	stop   func() bool
	wg     sync.WaitGroup
	// tamper, if set, replaces each message by what it returns: the way tests misbehave.
	tamper func(f frame) []frame

	mu      sync.Mutex
	out     [][]byte
	last    bool          // nothing more will be queued
	outWake chan struct{} // holds a token while out or last may have changed
	written chan struct{} // closed when the writer ends
}

// frame is one message to send.
type frame struct {
	text bool
	data []byte
}

// newLink wraps nc, which is closed when ctx ends.
func newLink(ctx context.Context, nc net.Conn, client bool, conn int, in *inbox) *link {
	const readBuffer = 64 << 10
	return &link{
		nc: nc, r: bufio.NewReaderSize(nc, readBuffer), client: client, conn: conn, in: in, outWake: make(chan struct{}, 1),
		written: make(chan struct{}), stop: context.AfterFunc(ctx, func() { _ = nc.Close() }),
	}
}

// start begins to read frames and to write what is sent, after the upgrade.
func (l *link) start() {
	l.wg.Go(l.read)
	l.wg.Go(l.write)
}

// close drops the connection and waits for its goroutines.
func (l *link) close() {
	l.stop()
	l.finish()
	_ = l.nc.Close()
	l.wg.Wait()
}

// flush writes what was queued, and ends the writer. The caller closes afterwards.
func (l *link) flush(ctx context.Context, patience time.Duration) {
	l.finish()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-l.written:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (l *link) finish() {
	l.mu.Lock()
	l.last = true
	l.mu.Unlock()
	l.wakeWriter()
}

func (l *link) wakeWriter() {
	select {
	case l.outWake <- struct{}{}:
	default:
	}
}

// send queues one message.
func (l *link) send(text bool, p []byte) {
	frames := []frame{{text, p}}
	if l.tamper != nil {
		frames = l.tamper(frames[0])
	}
	for _, f := range frames {
		op := ws.OpBinary
		if f.text {
			op = ws.OpText
		}
		l.queue(op, f.data)
	}
}

// sendClose queues a close frame.
func (l *link) sendClose(code ws.StatusCode, reason string) {
	if code == ws.StatusNoStatusRcvd {
		l.queue(ws.OpClose, nil)
		return
	}
	l.queue(ws.OpClose, ws.NewCloseFrameBody(code, reason))
}

func (l *link) queue(op ws.OpCode, p []byte) {
	h := ws.Header{Fin: true, OpCode: op, Length: int64(len(p)), Masked: l.client}
	if l.client {
		_, _ = rand.Read(h.Mask[:])
	}
	out := append(appendFrameHeader(make([]byte, 0, ws.MaxHeaderSize+len(p)), h), p...)
	if l.client {
		ws.Cipher(out[len(out)-len(p):], h.Mask, 0)
	}
	l.mu.Lock()
	if !l.last {
		l.out = append(l.out, out)
	}
	l.mu.Unlock()
	l.wakeWriter()
}

// appendFrameHeader appends a frame header. RFC 6455 section 5.2.
func appendFrameHeader(dst []byte, h ws.Header) []byte {
	const fin, masked, len16, len64 = 0x80, 0x80, 126, 127
	dst = append(dst, fin|byte(h.OpCode))
	mask := byte(0)
	if h.Masked {
		mask = masked
	}
	switch n := h.Length; {
	case n < len16:
		dst = append(dst, mask|byte(n))
	case n < 1<<16:
		dst = binary.BigEndian.AppendUint16(append(dst, mask|len16), uint16(n))
	default:
		dst = binary.BigEndian.AppendUint64(append(dst, mask|len64), uint64(n))
	}
	if h.Masked {
		dst = append(dst, h.Mask[:]...)
	}
	return dst
}

func (l *link) write() {
	defer close(l.written)
	for {
		l.mu.Lock()
		var next []byte
		if len(l.out) > 0 {
			next = l.out[0]
		}
		last := l.last
		l.mu.Unlock()
		if next == nil {
			if last {
				return
			}
			<-l.outWake
			continue
		}
		_, err := l.nc.Write(next)
		l.mu.Lock()
		l.out = l.out[1:]
		if err != nil {
			l.out, l.last = nil, true
		}
		l.mu.Unlock()
	}
}

// read reads frames until the connection ends, which it reports as the last arrival.
func (l *link) read() {
	var fragments []byte
	var text, open bool
	for {
		h, payload, err := l.readFrame()
		if err != nil {
			l.in.put(arrival{conn: l.conn, err: err})
			return
		}
		a := arrival{conn: l.conn, at: time.Now()}
		switch {
		case h.OpCode == ws.OpPing:
			l.queue(ws.OpPong, payload)
			continue
		case h.OpCode == ws.OpPong:
			continue
		case h.OpCode == ws.OpClose:
			a.closed, a.code = true, ws.StatusNoStatusRcvd
			if len(payload) > 0 {
				a.code, a.reason = ws.ParseCloseFrameData(payload)
				err = ws.CheckCloseFrameData(a.code, a.reason)
			}
		case (h.OpCode == ws.OpContinuation) != open:
			err = errors.New("continuation frame out of place")
		default:
			if !open {
				fragments, text = nil, h.OpCode == ws.OpText
			}
			fragments = append(fragments, payload...)
			if open = !h.Fin; open {
				continue
			}
			a.text, a.data = text, fragments
			if text && !utf8.Valid(fragments) {
				err = errors.New("text that is not UTF-8")
			}
		}
		if err != nil {
			l.in.put(arrival{conn: l.conn, err: violation(RuleFrame, "%v", err)})
			return
		}
		l.in.put(a)
	}
}

// readFrame reads one frame and checks what RFC 6455 section 5 asks of it.
func (l *link) readFrame() (ws.Header, []byte, error) {
	h, err := ws.ReadHeader(l.r)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
			err = io.EOF
		}
		return h, nil, err
	}
	switch {
	case h.Rsv != 0:
		return h, nil, violation(RuleFrame, "reserved bits %03b", h.Rsv)
	case h.Masked == l.client:
		return h, nil, violation(RuleFrame, "masked: %v, from the wrong side", h.Masked)
	case h.OpCode.IsReserved():
		return h, nil, violation(RuleFrame, "opcode %x", h.OpCode)
	case h.OpCode.IsControl() && (!h.Fin || h.Length > ws.MaxControlFramePayloadSize):
		return h, nil, violation(RuleFrame, "control frame %x of %d bytes, final: %v", h.OpCode, h.Length, h.Fin)
	case h.Length > maxPacketBytes:
		return h, nil, violation(RuleSize, "frame of %d bytes", h.Length)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(l.r, payload); err != nil {
		return h, nil, violation(RuleFrame, "it ends early: %v", err)
	}
	if h.Masked {
		ws.Cipher(payload, h.Mask, 0)
	}
	return h, payload, nil
}
