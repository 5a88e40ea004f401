package memlink

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// backlog is how many links may wait for Accept.
const backlog = 128

// Listener accepts links that are made with its Dial. All methods are safe for
// concurrent use.
type Listener struct {
	addr  Addr
	links atomic.Int64

	mu      sync.Mutex
	cond    *sync.Cond
	waiting []*Conn
	closed  bool
}

var _ net.Listener = (*Listener)(nil)

// Listen returns a new listener; name is its address.
func Listen(name string) *Listener {
	l := &Listener{addr: Addr{name}}
	l.cond = sync.NewCond(&l.mu)
	return l
}

// Accept blocks until there is a link and returns its end, a *Conn. After Close
// it returns an error that wraps net.ErrClosed.
func (l *Listener) Accept() (net.Conn, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.waiting) == 0 && !l.closed {
		l.cond.Wait()
	}
	if l.closed {
		return nil, &net.OpError{Op: "accept", Net: "memory", Addr: l.addr, Err: net.ErrClosed}
	}
	c := l.waiting[0]
	l.waiting = l.waiting[1:]
	return c, nil
}

// Dial makes a link and returns its other end, a *Conn. It does not wait for
// Accept. It fails with ECONNREFUSED when the listener is closed or 128 links
// wait. Network and address are not looked at, so that Dial fits where a network
// dialler is expected.
func (l *Listener) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	near, far := newLink(linkName(l.links.Add(1)), l.addr.name)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.waiting) >= backlog {
		return nil, &net.OpError{Op: "dial", Net: "memory", Addr: l.addr, Err: syscall.ECONNREFUSED}
	}
	l.waiting = append(l.waiting, far)
	l.cond.Signal()
	return near, nil
}

// Close makes Accept fail and resets the links that wait for it.
func (l *Listener) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, c := range l.waiting {
		c.Cut()
	}
	l.waiting = nil
	l.cond.Broadcast()
	return nil
}

// Addr returns the address of the listener.
func (l *Listener) Addr() net.Addr { return l.addr }
