package mux

import (
	"context"
	"time"
)

// Config describes a [Session]. Zero limits mean the documented default,
// negative ones mean none. The session does not modify it.
type Config struct {
	// Connector says that this side dialled; else it accepted.
	Connector bool

	// LocalID is the id that this side announces. It must not be empty.
	LocalID string

	// Hint is what the upgrade request told a listener about the connector.
	Hint Hint

	// Features are the extensions that this side offers (protocol section 12).
	Features []string

	// Token is of [FeatureResume]. A listener gives it to the connector for its next
	// connection. A connector shows it to a listener with the id TokenOf, which gave it
	// the token on its last one. Empty means none.
	Token, TokenOf string

	// Cancel is told on the read owner that the peer has given up a request, by its
	// id, which may be finished, or not yet begun. It must not block. Nil ignores it.
	Cancel func(id uint32)

	// GoAway is told on the read owner that the peer wants no new requests, and asks to
	// connect anew. payload is the encoded array of reason and window, not checked; it
	// lends until GoAway returns, which must not block. Nil ignores it.
	GoAway func(s *Session, payload []byte)

	// Event is told on the read owner of an event of the peer. payload is the encoded
	// array, not checked; it lends until Event returns, which must not block. Nil ignores
	// it.
	Event func(s *Session, payload []byte)

	// EventLoss appends the payload of the notice that n events of a name were not sent
	// to the peer. Nil sends none.
	EventLoss func(dst []byte, name string, n uint64) []byte

	// MaxEvents and MaxEventBytes limit the events that wait to be sent to the peer; a
	// single one may exceed the bytes. Past them [Session.SendEvent] does as it is told.
	// Defaults 8,192 and 8 MiB.
	MaxEvents     int
	MaxEventBytes int

	// Streams describes the streams of the session. Nil means that there are none: packets
	// about them are dropped, and [FeatureCredit] must not be offered.
	Streams *StreamConfig

	// HandshakeTimeout limits the handshake. Default 10 s.
	HandshakeTimeout time.Duration

	// MaxRequests limits the requests of the peer that are being served, counted
	// until their handlers end. Past it the answer is Overloaded. Default 8,192.
	MaxRequests int

	// MaxRequestBytes limits the payloads of these requests together, in bytes; a
	// single request may exceed it. Past it the answer is Overloaded. Default 32 MiB.
	MaxRequestBytes int

	// MaxQueueBytes and MaxQueuePackets limit what waits to be sent. A sender
	// waits when either is reached; what was let in last, a large packet or the answers of
	// a batch, may overshoot. Refusals may take up to twice the limits.
	// Defaults 1 MiB and 65,536.
	MaxQueueBytes   int
	MaxQueuePackets int

	// Workers runs Serve. Required.
	Workers *Workers

	// Ready is called once on the read owner, when the handshake is done, before any
	// request is served and before [Session.WaitReady] returns. It must not block. Nil means nothing to do.
	Ready func(s *Session, peer Peer)

	// Route looks at a request before it is served, on the read owner, and may set
	// its Target, Offset and Count. It must not block, nor keep r. Nil means that all
	// requests are batched. One session calls it one at a time.
	Route func(r *Request)

	// Serve serves one request: it appends the payload of the answer to dst and
	// returns it, and reports whether it is an error. dst stays the session's: Serve may
	// only append to it. If it sets r.Trailer the answer is two values. It runs on a worker, on many at a time, or on the read owner if
	// r.Inline is set, and should recover its own panics. Required.
	Serve func(r *Request, dst []byte) (answer []byte, isError bool)

	// Refused is told of requests that are answered by Overloaded or Draining and not served,
	// after Route has seen them. It must not block, nor keep r. Any goroutine may call it. Nil
	// means nothing to do.
	Refused func(r *Request)

	// Ended is called once, after all pending calls have failed. It must not
	// block. Nil means nothing to do.
	Ended func(s *Session, err error)

	// Overloaded, Draining and Failed are the encoded error payloads sent when a
	// limit refuses a request, when the session drains, and when Serve did not
	// return. Required.
	Overloaded []byte
	Draining   []byte
	Failed     []byte

	// ValidPing reports whether the payload of a PING packet may be sent back: a
	// value, and nothing behind it. Others are dropped as malformed. Nil takes all.
	ValidPing func(payload []byte) bool

	// Context is the parent of the session's context. Nil means
	// [context.Background].
	Context context.Context //nolint:containedctx // the documented lifetime of all sessions of a node
}

// Hint is what a listener learns about a connector from the upgrade request
// (protocol section 2.2).
type Hint struct {
	QueryID  string // the id query parameter
	HeaderID string // the X-Netron-Id header
	Netron   bool   // the X-Netron-Version header is there: a peer of this library
}

const (
	defaultHandshakeTimeout = 10 * time.Second
	defaultMaxRequests      = 8192
	defaultMaxRequestBytes  = 32 << 20
	defaultMaxQueueBytes    = 1 << 20
	defaultMaxQueuePackets  = 1 << 16
)

func (c *Config) handshakeTimeout() time.Duration {
	if c.HandshakeTimeout == 0 {
		return defaultHandshakeTimeout
	}
	return c.HandshakeTimeout
}

func (c *Config) maxRequests() int     { return limit(c.MaxRequests, defaultMaxRequests) }
func (c *Config) maxRequestBytes() int { return limit(c.MaxRequestBytes, defaultMaxRequestBytes) }
func (c *Config) maxQueueBytes() int   { return limit(c.MaxQueueBytes, defaultMaxQueueBytes) }
func (c *Config) maxQueuePackets() int { return limit(c.MaxQueuePackets, defaultMaxQueuePackets) }

func (c *Config) maxEvents() int     { return limit(c.MaxEvents, defaultMaxEvents) }
func (c *Config) maxEventBytes() int { return limit(c.MaxEventBytes, defaultMaxEventBytes) }

// limit maps the zero value to def and negative values to "none".
func limit(v, def int) int {
	switch {
	case v == 0:
		return def
	case v < 0:
		return int(^uint(0) >> 1)
	}
	return v
}
