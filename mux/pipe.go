package mux

import (
	"encoding/binary"
	"errors"
	"sync/atomic"
)

// Pipe joins two sessions in one process without a socket: the first behaves as
// the connector, the second as the listener. Packets take the same path as over
// a connection, except that a goroutine that sends also delivers.
//
// Both sessions have begun when Pipe returns, and their handshake is done.
func Pipe(connector, listener Config) (*Session, *Session) {
	connector.Connector = true
	listener.Connector = false
	listener.Hint = Hint{Netron: true}
	ends := new(atomic.Int32)
	a, b := &pipeEnd{ends: ends}, &pipeEnd{ends: ends}
	a.other, b.other = b, a
	a.session = NewSession(a, connector)
	b.session = NewSession(b, listener)
	a.session.Begin()
	b.session.Begin()
	return a.session, b.session
}

// errPipeClosed is why a session over a pipe ended when either end was closed.
var errPipeClosed = errors.New("mux: pipe closed")

// pipeEnd is the link of one session. It delivers what its session sends to the
// other one; whoever holds its role is the read owner of the other session.
type pipeEnd struct {
	session *Session
	other   *pipeEnd

	wanted  atomic.Int64 // kicks not yet looked at; the one that makes it 1 takes the role
	closing atomic.Bool
	ends    *atomic.Int32 // roles of the pipe that have ended

	// Owned by the holder of the role.
	vec   [][]byte
	ended bool
}

const textBit = 1 << 31

// BeginFrame implements [Link]: room for length and kind.
func (e *pipeEnd) BeginFrame(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// EndFrame implements [Link].
func (e *pipeEnd) EndFrame(b []byte, start int, text bool) []byte {
	n := uint32(len(b) - start - 4)
	if text {
		n |= textBit
	}
	binary.BigEndian.PutUint32(b[start:], n)
	return b
}

// Kick implements [Link].
func (e *pipeEnd) Kick() {
	if e.wanted.Add(1) != 1 {
		return
	}
	for seen := int64(1); ; {
		e.deliver()
		// Kicks that came meanwhile may have found their packets gone already; looking
		// once more is cheap and loses none.
		if e.wanted.CompareAndSwap(seen, 0) {
			return
		}
		seen = e.wanted.Load()
	}
}

// deliver passes on all that the session has to send, and then the end of the
// pipe if it was closed.
func (e *pipeEnd) deliver() {
	to := e.other.session
	for !e.ended {
		e.vec = e.session.Collect(e.vec[:0])
		if len(e.vec) == 0 {
			break
		}
		for _, frames := range e.vec {
			for len(frames) > 0 {
				n := binary.BigEndian.Uint32(frames)
				size := n &^ textBit
				to.Message(n&textBit != 0, frames[4:4+size])
				frames = frames[4+size:]
			}
		}
		to.ReadDone()
	}
	if !e.ended && e.closing.Load() {
		e.ended = true
		// A session ends when nothing comes to it any more and nothing is taken from it:
		// at the end of both roles, of which the other may be somebody else's.
		if e.ends.Add(1) == 2 {
			e.session.Closed(errPipeClosed)
			to.Closed(errPipeClosed)
		}
	}
}

// CloseWith implements [Link]. Both sessions end.
func (e *pipeEnd) CloseWith(uint16, string) {
	e.closing.Store(true)
	e.other.closing.Store(true)
	e.Kick()
	e.other.Kick()
}
