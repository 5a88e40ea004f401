package engine

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math"
	"net"
	"net/http"
	"net/url"
	"time"
)

// Config holds the limits and times of connections. The zero value works: a
// zero field means the documented default, a negative one means none. A Config
// is not modified, and must not be, once it is in use.
type Config struct {
	// HandshakeTimeout limits TLS and the HTTP upgrade together. Default 10 s.
	HandshakeTimeout time.Duration
	// MaxHeaderBytes limits the upgrade request or answer as a whole. Default 16 KiB.
	MaxHeaderBytes int
	// MaxRequestLine limits the request line in bytes. Default 8 KiB.
	MaxRequestLine int

	// MaxMessageBytes limits a received message, all its fragments together;
	// past it the connection ends with code 1009. Default 16 MiB.
	MaxMessageBytes int64
	// FrameTimeout is how long half a message may wait for its next byte.
	// Past it the connection ends with code 1008. Default 30 s.
	FrameTimeout time.Duration
	// CloseTimeout limits the closing, from the decision to close until the
	// socket is closed. Default 5 s.
	CloseTimeout time.Duration
	// WriteTimeout is how long a write may go on without any progress; past it
	// the connection is dropped. Default 10 s.
	WriteTimeout time.Duration
	// PingInterval is the silence after which the peer is pinged. Default 25 s.
	PingInterval time.Duration
	// PingTimeout is the silence after which the peer counts as dead. Default 60 s.
	PingTimeout time.Duration

	// MaxConns limits the connections of a server, those still in their
	// handshake included; more get status 503. Default none.
	MaxConns int
	// MaxConnsPerAddr limits them per remote IP address. Default none.
	MaxConnsPerAddr int

	// AllowedOrigins lists the origins from which browsers may connect besides
	// the server's own, as "https://example.com"; "*" allows every origin. A
	// request without an Origin header does not come from a browser and is
	// allowed.
	AllowedOrigins []string
	// Path restricts a server to this path and what is below it; others get
	// status 404. Default every path.
	Path string

	// TLS makes [Server.Serve] speak TLS, and configures it for [Dial] with
	// wss://. Default is to verify certificates against the roots of the system.
	TLS *tls.Config

	// Driver says how connections are driven. It is a wish: see [DriverEpoll] for
	// where it is not possible. Default is that driver for what a server accepts,
	// and DriverStd for what is dialled.
	Driver Driver
	// Pollers is the least number of pollers of the epoll driver. They belong to
	// the process, are started when they are first needed, and are never stopped. A
	// server or dialler uses the first so many of them. Default is all that there
	// are, which is one poller and one more for every 20 processors at first.
	Pollers int

	// Logger receives panics of handlers, failures to accept, and the lack of the epoll
	// driver. Default none.
	Logger *slog.Logger
}

// DialConfig configures [Dial]. The zero value works.
type DialConfig struct {
	// Config holds the limits; the fields for servers are ignored.
	Config
	// Header is sent with the request in addition to the fields of the upgrade.
	Header http.Header
	// Query is added to the query of the URL.
	Query url.Values
	// NetDial replaces the dialling of plain connections, for proxies and
	// in-memory links. Default is that of [net.Dialer].
	NetDial func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (c *Config) handshakeTimeout() time.Duration {
	return durationOr(c.HandshakeTimeout, 10*time.Second)
}
func (c *Config) maxHeaderBytes() int { return intOr(c.MaxHeaderBytes, 16<<10) }
func (c *Config) maxRequestLine() int { return intOr(c.MaxRequestLine, 8<<10) }
func (c *Config) maxConns() int       { return countOr(c.MaxConns) }
func (c *Config) maxPerAddr() int     { return countOr(c.MaxConnsPerAddr) }

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return c.Logger
}

// limits is what every connection of a server shares: a Config with its
// defaults filled in, 0 meaning none for the durations.
type limits struct {
	maxMessage   uint64
	frameTimeout time.Duration
	closeTimeout time.Duration
	writeTimeout time.Duration
	pingInterval time.Duration
	pingTimeout  time.Duration
	log          *slog.Logger
}

func (c *Config) limits() *limits {
	l := &limits{
		maxMessage:   16 << 20,
		frameTimeout: durationOr(c.FrameTimeout, 30*time.Second),
		closeTimeout: durationOr(c.CloseTimeout, 5*time.Second),
		writeTimeout: durationOr(c.WriteTimeout, 10*time.Second),
		pingInterval: durationOr(c.PingInterval, 25*time.Second),
		pingTimeout:  durationOr(c.PingTimeout, 60*time.Second),
		log:          c.logger(),
	}
	switch {
	case c.MaxMessageBytes > 0:
		l.maxMessage = uint64(c.MaxMessageBytes)
	case c.MaxMessageBytes < 0:
		// None: still a length that an int holds.
		l.maxMessage = math.MaxInt - maxHeader
	}
	l.maxMessage = min(l.maxMessage, math.MaxInt-maxHeader)
	return l
}

// durationOr returns d, the default for zero, and zero for none.
func durationOr(d, byDefault time.Duration) time.Duration {
	switch {
	case d == 0:
		return byDefault
	case d < 0:
		return 0
	}
	return d
}

// intOr returns n, the default for zero, and the largest int for none.
func intOr(n, byDefault int) int {
	switch {
	case n == 0:
		return byDefault
	case n < 0:
		return math.MaxInt
	}
	return n
}

// countOr returns n, or the largest int where n sets no limit.
func countOr(n int) int {
	if n <= 0 {
		return math.MaxInt
	}
	return n
}
