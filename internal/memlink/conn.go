package memlink

import (
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// bufferBytes is the size of the buffer of each direction.
const bufferBytes = 64 << 10

// Addr is the address of an end of a link.
type Addr struct{ name string }

// AddrOf returns the address with a name.
func AddrOf(name string) Addr { return Addr{name} }

// Network returns "memory".
func (Addr) Network() string { return "memory" }

// String returns the name of the end.
func (a Addr) String() string { return a.name }

// Conn is one end of a link. It implements net.Conn and, like a TCP connection,
// CloseWrite. All methods are safe for concurrent use.
type Conn struct {
	in, out       *pipe
	local, remote Addr
	far           *Conn

	closeOnce sync.Once
}

var _ net.Conn = (*Conn)(nil)

// Pipe returns the two ends of a new link with buffers of 64 KiB.
func Pipe() (a, b *Conn) { return newLink("a", "b") }

func newLink(nameA, nameB string) (a, b *Conn) {
	ab, ba := newPipe(bufferBytes), newPipe(bufferBytes)
	a = &Conn{in: ba, out: ab, local: Addr{nameA}, remote: Addr{nameB}}
	b = &Conn{in: ab, out: ba, local: Addr{nameB}, remote: Addr{nameA}, far: a}
	a.far = b
	return a, b
}

// Read reads what has arrived, and blocks while that is nothing. It returns
// io.EOF after the other end's CloseWrite or Close, ECONNRESET on a link that
// was reset, net.ErrClosed after Close, and os.ErrDeadlineExceeded.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.in.read(b)
	return n, c.wrap("read", err)
}

// Write writes all of b, and blocks while the buffer is full. It copies b. Two
// writes at once may mix.
func (c *Conn) Write(b []byte) (int, error) {
	n, err := c.out.write(b)
	if errors.Is(err, errNoReader) {
		// A closed socket answers data with a reset. Whom that does not reach, because
		// the other direction is stalled, takes the data for sent.
		if !c.far.sendReset() {
			return len(b), nil
		}
		err = syscall.EPIPE
	}
	return n, c.wrap("write", err)
}

// CloseWrite ends the direction from this end; the other end reads what is on
// its way and then io.EOF.
func (c *Conn) CloseWrite() error {
	c.out.change(func() { c.out.finished = true })
	return nil
}

// Close closes this end. Data that was written still arrives, unless data for
// this end was unread: then, and when the other end writes afterwards, the link
// is reset.
func (c *Conn) Close() error {
	c.closeOnce.Do(func() {
		unread := false
		c.in.change(func() {
			unread = c.in.size > 0 && !c.in.stalled
			c.in.readClosed = true
		})
		c.out.change(func() { c.out.finished, c.out.wrClosed = true, true })
		if unread {
			c.sendReset()
		}
	})
	return nil
}

// sendReset resets the link and returns true, or on a stalled link leaves that to
// Resume.
func (c *Conn) sendReset() bool {
	arrives := false
	c.out.change(func() {
		arrives = !c.out.stalled
		c.out.resetHeld = !arrives
	})
	if arrives {
		c.Cut()
	}
	return arrives
}

// Far returns the other end of the link.
func (c *Conn) Far() *Conn { return c.far }

// Ended reports whether the link was reset or both ends have been closed.
func (c *Conn) Ended() bool {
	ended := false
	c.in.look(func() { ended = c.in.reset || c.in.readClosed && c.in.wrClosed })
	return ended
}

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr returns the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline sets both deadlines.
func (c *Conn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

// SetReadDeadline sets when Read gives up; the zero time is never.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.change(func() { c.in.readDeadline = t })
	return nil
}

// SetWriteDeadline sets when Write gives up; the zero time is never.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.change(func() { c.out.writeDeadline = t })
	return nil
}

func (c *Conn) wrap(op string, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &net.OpError{Op: op, Net: "memory", Source: c.local, Addr: c.remote, Err: err}
}

func linkName(n int64) string { return "memory:" + strconv.FormatInt(n, 10) }
