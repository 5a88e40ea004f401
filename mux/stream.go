package mux

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// StreamConfig describes the streams of a session. Zero limits mean the documented
// default, negative ones mean none.
type StreamConfig struct {
	// Packets encodes and decodes the payloads of packets about streams. Required.
	Packets StreamPackets

	// MaxStreams limits the open streams in each direction. Default 1,000.
	MaxStreams int

	// Window is how many bytes the peer may send ahead of a reader at first, and MaxWindow
	// at most, if it negotiated [FeatureCredit]: a window grows while it is what holds the
	// peer up. SessionWindow is the same for all streams together, and bounds the memory of
	// the session's readers. Defaults 256 KiB, 4 MiB and 8 MiB.
	Window        int
	MaxWindow     int
	SessionWindow int

	// MaxBuffered limits the bytes that wait for a reader of a peer without credit. Past it
	// the whole connection is not read until half of them are left, for at most StallLimit;
	// then the stream fails. Defaults 1 MiB and 10 s.
	MaxBuffered int
	StallLimit  time.Duration

	// MaxEarlyBytes limits the chunks that came before their streams were announced.
	// Default 1 MiB.
	MaxEarlyBytes int

	// IdleLimit is how long a reader that is not live waits for a packet before the stream
	// fails, and how long early chunks are kept. Default 60 s.
	IdleLimit time.Duration
}

// StreamPackets encodes and decodes the payloads of packets about streams (protocol
// sections 8.5, 12.1 and 12.2). Those that decode report false for anything malformed.
type StreamPackets interface {
	// AppendFailure appends the payload of STREAM_ERROR. cause is what the message is of,
	// nil if there is no more to it. ParseFailure reads that payload, and that of
	// STREAM_CLOSE; it need not say that the error is remote.
	AppendFailure(dst []byte, id uint32, message string, cause error) []byte
	ParseFailure(payload []byte) (id uint32, failure StreamError, ok bool)

	// AppendCancel appends the payload of the CANCEL of a stream, and ParseCancel reads it.
	AppendCancel(dst []byte, id uint32, reason string) []byte
	ParseCancel(payload []byte) (id uint32, reason string, ok bool)

	// AppendCredit appends the payload of CREDIT, and ParseCredit reads it; bytes is from 1
	// to 2^31 - 1.
	AppendCredit(dst []byte, id, bytes uint32) []byte
	ParseCredit(payload []byte) (id, bytes uint32, ok bool)

	// ParseReference reports whether the payload of an answer begins with a reference to a
	// stream that the peer will write, and reads it.
	ParseReference(payload []byte) (id uint32, live, ok bool)

	// IsNothing reports whether a payload is null or undefined, which is no chunk.
	IsNothing(payload []byte) bool
}

const (
	defaultMaxStreams    = 1000
	defaultWindow        = 256 << 10
	defaultMaxWindow     = 4 << 20
	defaultSessionWindow = 8 << 20
	defaultMaxBuffered   = 1 << 20
	defaultStallLimit    = 10 * time.Second
	defaultMaxEarlyBytes = 1 << 20
	defaultIdleLimit     = 60 * time.Second

	// connectorIDs and listenerIDs are the ids before the first stream of each side
	// (protocol section 8.1).
	connectorIDs = 1 << 30
	listenerIDs  = 1 << 31

	// maxCredit bounds every window (protocol section 12.2).
	maxCredit = 1<<31 - 1

	// maxPassed is how many writes in a row calls and events may fill alone.
	maxPassed = 4

	// maxGone is how many ids of streams that have ended are remembered, so that a late packet
	// does not look like a new stream.
	maxGone = 1024
)

func (c *StreamConfig) maxStreams() int    { return limit(c.MaxStreams, defaultMaxStreams) }
func (c *StreamConfig) maxEarlyBytes() int { return limit(c.MaxEarlyBytes, defaultMaxEarlyBytes) }
func (c *StreamConfig) maxBuffered() int   { return limit(c.MaxBuffered, defaultMaxBuffered) }
func (c *StreamConfig) window() int        { return min(limit(c.Window, defaultWindow), maxCredit) }
func (c *StreamConfig) maxWindow() int     { return min(limit(c.MaxWindow, defaultMaxWindow), maxCredit) }

func (c *StreamConfig) sessionWindow() int {
	return min(limit(c.SessionWindow, defaultSessionWindow), maxCredit)
}

func (c *StreamConfig) stallLimit() time.Duration {
	if c.StallLimit == 0 {
		return defaultStallLimit
	}
	return c.StallLimit
}

func (c *StreamConfig) idleLimit() time.Duration {
	if c.IdleLimit == 0 {
		return defaultIdleLimit
	}
	return c.IdleLimit
}

// Errors of streams that callers branch on.
var (
	// ErrTooManyStreams reports that as many streams are open as may be.
	ErrTooManyStreams = errors.New("mux: too many streams")

	// ErrNoStreams reports a stream before the handshake is done, or of a session without
	// [Config.Streams].
	ErrNoStreams = errors.New("mux: the session has no streams, or none yet")

	// ErrStreamID reports a stream under an id that has one already, or had one.
	ErrStreamID = errors.New("mux: stream id in use")
)

// StreamError reports that a stream has failed, or was given up by the other side.
type StreamError struct {
	// Message is why.
	Message string

	// Remote says that the peer said so; else this side found out.
	Remote bool

	// Cause is what the writer said of its failure besides, nil if nothing.
	Cause error
}

// Unwrap returns the cause.
func (e *StreamError) Unwrap() error { return e.Cause }

// Error implements error.
func (e *StreamError) Error() string {
	if e.Remote {
		return "mux: stream ended by the peer: " + e.Message
	}
	return "mux: stream failed: " + e.Message
}

func streamErrorf(format string, args ...any) *StreamError {
	return &StreamError{Message: fmt.Sprintf(format, args...)}
}

// streams is the open streams of a session, and what waits to be sent on them. A session
// gets it with its first stream. Chunks are large or come by the piece, so one mutex is
// enough for all of them.
type streams struct {
	session *Session
	cfg     *StreamConfig
	credits bool  // both sides count bytes
	giver   giver // the link, nil if it is none
	framer  framer

	mu      sync.Mutex
	err     error  // the session has ended
	code    uint16 // the connection is to be closed with, and reason; 0 if it is not
	reason  string
	lastID  uint32
	writers map[uint32]*StreamWriter
	readers map[uint32]*StreamReader
	early   map[uint32]*StreamReader // that nobody has asked for yet
	waiting int                      // bytes in early
	gone    gone                     // readers that have ended: what still comes is dropped

	// Sending.
	turn     *StreamWriter // whose turn it is, in a ring of those with something to send
	turns    int           // how many are in the ring
	queued   int           // bytes that wait
	credit   int64         // that the peer has given for all streams
	unwanted gone          // streams of the peer that it gave up before it announced them

	// Receiving.
	window   int64 // credit that the peer has left for all streams
	owed     int   // credit that is to be given back
	buffered int   // bytes that wait for readers
	full     int   // readers that have too much to read from a peer without credit
}

// streamsOf returns the streams of the session, which is ready.
func (s *Session) streamsOf() *streams {
	if st := s.streams.Load(); st != nil {
		return st
	}
	st := &streams{
		session: s,
		cfg:     s.cfg.Streams,
		credits: s.canCredit.Load(),
		writers: make(map[uint32]*StreamWriter),
		readers: make(map[uint32]*StreamReader),
		early:   make(map[uint32]*StreamReader),
		lastID:  listenerIDs,
		window:  int64(s.cfg.Streams.sessionWindow()),
		credit:  int64(s.peerSessionWindow),
	}
	st.giver, _ = s.link.(giver)
	st.framer, _ = s.link.(framer)
	if s.cfg.Connector {
		st.lastID = connectorIDs
	}
	if !s.streams.CompareAndSwap(nil, st) {
		return s.streams.Load()
	}
	return st
}

// owns reports whether an id is one that this side gives to streams.
func (s *Session) owns(id uint32) bool {
	if s.cfg.Connector {
		return id >= connectorIDs && id < listenerIDs
	}
	return id >= listenerIDs
}

// newID returns an id for a stream that this side announces. mu is held.
func (st *streams) newID() uint32 {
	first := uint32(listenerIDs)
	if st.session.cfg.Connector {
		first = connectorIDs
	}
	for {
		if st.lastID++; st.lastID < first || st.lastID-first >= connectorIDs {
			st.lastID = first + 1
		}
		id := st.lastID
		if st.writers[id] == nil && st.readers[id] == nil && st.early[id] == nil && !st.gone.has(id) {
			return id
		}
	}
}

// Streams returns how many streams are open: those that this side writes and reads, and
// those that the peer has begun to write and nobody has asked for.
func (s *Session) Streams() (writing, reading, early int) {
	st := s.streams.Load()
	if st == nil {
		return 0, 0, 0
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	return len(st.writers), len(st.readers), len(st.early)
}

// isStreamPacket reports whether a packet is about a stream. It may be none of those yet: a
// CANCEL can be of a request as well, which is looked at before.
func (s *Session) isStreamPacket(f wire.Flags) bool {
	if !f.Impulse() {
		return false
	}
	switch f.Type() {
	case wire.TypeStream, wire.TypeStreamError, wire.TypeStreamClose:
		return true
	case wire.TypeCancel:
		return f == wire.Request(wire.TypeCancel) && s.canCancel.Load()
	case wire.TypeCredit:
		return f == wire.Request(wire.TypeCredit) && s.canCredit.Load()
	}
	return false
}

// streamPacket takes a packet about a stream, on the read owner.
func (s *Session) streamPacket(pkt wire.Packet) {
	switch pkt.Flags.Type() {
	case wire.TypeStream:
		if pkt.StreamID == 0 {
			s.stats.malformed.Add(1)
			return
		}
		s.streamsOf().chunk(pkt)
	case wire.TypeStreamError, wire.TypeStreamClose:
		id, failure, ok := s.cfg.Streams.Packets.ParseFailure(pkt.Payload)
		if !ok || id == 0 {
			s.stats.malformed.Add(1)
			return
		}
		failure.Remote = true
		s.streamsOf().failed(id, &failure)
	case wire.TypeCancel:
		id, reason, ok := s.cfg.Streams.Packets.ParseCancel(pkt.Payload)
		if !ok || id == 0 {
			s.stats.malformed.Add(1)
			return
		}
		s.streamsOf().cancelled(id, reason)
	case wire.TypeCredit:
		id, bytes, ok := s.cfg.Streams.Packets.ParseCredit(pkt.Payload)
		if !ok {
			s.stats.malformed.Add(1)
			return
		}
		if st := s.streams.Load(); st != nil {
			st.credited(id, int64(bytes))
		}
	}
}

// unlock releases mu, and then does what cannot be done under it, since the link may look for
// what there is to send: it tells the link if first is set, and closes what is broken.
func (st *streams) unlock(first bool) {
	code, reason := st.code, st.reason
	st.mu.Unlock()
	if first {
		st.session.kickLater()
	}
	if code != 0 {
		st.session.link.CloseWith(code, reason)
	}
}

// end fails all streams, once.
func (st *streams) end(cause error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return
	}
	st.err = &LostError{Sent: true, Cause: cause}
	for _, w := range st.writers {
		w.endLocked(st.err)
	}
	for _, r := range st.readers {
		if r.unclaimed {
			r.unclaimed = false
			r.discard()
		}
		r.endLocked(st.err)
		r.stopTimers()
	}
	clear(st.readers)
	for _, r := range st.early {
		r.discard()
		r.endLocked(st.err)
		r.stopTimers()
	}
	clear(st.early)
	st.waiting, st.gone, st.unwanted = 0, gone{}, gone{}
}

// endStreams fails all streams, those to come as well.
func (s *Session) endStreams(cause error) {
	none := &streams{session: s, cfg: s.cfg.Streams, err: &LostError{Sent: true, Cause: cause}}
	if !s.streams.CompareAndSwap(nil, none) {
		s.streams.Load().end(cause)
	}
}

// control queues a packet about a stream ahead of what streams carry, and reports whether
// the link must be told. It may be called with mu held.
func (st *streams) control(t wire.Type, payload func(dst []byte) []byte) (first bool) {
	s := st.session
	b := buf.Get(controlRoom)
	b.B = wire.AppendHeader(s.link.BeginFrame(b.B), s.table.nextID(), wire.Request(t))
	b.B = s.link.EndFrame(payload(b.B), 0, false)
	p := newOutgoing(b, 1)
	first, ok, err := s.queue.push(p, true)
	if err == nil && !ok {
		p.discard()
		st.broken(closePolicy, "packets about streams are not being read")
	}
	return first
}

// broken has unlock close the connection. mu is held.
func (st *streams) broken(code uint16, reason string) {
	if st.code == 0 {
		st.code, st.reason = code, reason
	}
}

const controlRoom = 96

// gone remembers ids, the oldest only while there are few.
type gone struct {
	ids  map[uint32]struct{}
	ring []uint32
	next int
}

func (g *gone) has(id uint32) bool {
	_, ok := g.ids[id]
	return ok
}

func (g *gone) add(id uint32) {
	if g.has(id) {
		return
	}
	if g.ids == nil {
		g.ids = make(map[uint32]struct{})
	}
	g.ids[id] = struct{}{}
	if len(g.ring) < maxGone {
		g.ring = append(g.ring, id)
		return
	}
	delete(g.ids, g.ring[g.next])
	g.ring[g.next] = id
	g.next = (g.next + 1) % maxGone
}
