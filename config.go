package netron

import (
	"context"
	"crypto/tls"
	"log/slog"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

// Config describes a [Node]. The zero value works: a zero field means the
// documented default, a negative limit or time means none. It is not modified,
// and must not be changed after [New].
type Config struct {
	// ID is the id that peers see: 1 to 256 bytes. Default: a random UUID.
	ID string

	// Addr is the address to listen on, "host:port"; port 0 takes a free one, see
	// [Node.Addr]. Only [Node.Serve] and [Node.Listen] need it.
	Addr string

	// Path restricts the listener to this URL path and what is below it. Default:
	// every path.
	Path string

	// TLS makes the listener speak wss:// and configures dialling. Default: a
	// listener without TLS; dialling wss:// with the system's roots.
	TLS *tls.Config

	// AllowedOrigins lists the origins of web pages that may connect besides those
	// served from the same host, as "https://example.com"; "*" allows all.
	AllowedOrigins []string

	// Driver says how incoming connections are driven. Default: [DriverEpoll] for
	// ws:// where it is available, else [DriverStd]. Dialled ones have a default of
	// their own, see [DialDriver].
	Driver Driver
	// Pollers is how many pollers the epoll driver uses. They belong to the process
	// and are shared by all its nodes. Default: one for every 20 processors.
	Pollers int

	// CallTimeout limits calls and tasks whose context has no deadline. Default 5 s.
	CallTimeout time.Duration
	// TaskTimeout limits the tasks that peers run here: at it the context of the task
	// ends, and the caller gets an error of code [DeadlineExceeded] even if the task
	// goes on. [TaskLimit] overrides it for a task. Default 5 s.
	TaskTimeout time.Duration
	// ConnectTimeout limits each attempt to connect to an address. Default 5 s.
	ConnectTimeout time.Duration
	// ReconnectDelay is the longest time before a dialled peer that has lost its
	// connection is dialled again; it doubles with each attempt, or each round of its
	// addresses, up to MaxReconnectDelay, and the time itself is random. Defaults 250 ms
	// and 30 s.
	ReconnectDelay    time.Duration
	MaxReconnectDelay time.Duration
	// MaxReconnectAttempts is after how many attempts in a row a dialled peer is given up
	// of which none led to a connection that lasted 10 s: a peer which accepts connections
	// only to lose them uses them up as one that cannot be reached. A connection that the
	// peer asked to leave need have lasted 1 s. Default none; a negative number means that
	// peers do not reconnect at all.
	MaxReconnectAttempts int
	// Events says how events travel: who may subscribe, what becomes of those for peers
	// that read slowly, and the limits of the bus.
	Events EventConfig

	// Streams says how streams travel: time limit, windows and buffers.
	Streams StreamConfig

	// OfflineCalls is how many calls may wait while a dialled peer is being dialled
	// again, each no longer than its own time limit; others fail at once. Default 0.
	OfflineCalls int
	// HandshakeTimeout limits each step of an incoming connection until its peer
	// is known: TLS and upgrade together, then the exchange of ids. Default 10 s.
	HandshakeTimeout time.Duration
	// DrainTimeout is how long [Node.Serve] lets running requests finish when its
	// context ends. Default 10 s.
	DrainTimeout time.Duration
	// DrainWindow is how long a node that shuts down goes on serving the peers that have
	// dialled it and can connect elsewhere, so that they lose no call and do not all dial
	// at once: they are asked to come back at random moments within its first half. The
	// shutdown goes on before if all of them have gone, and where there are none, as in a
	// program that only dials. It is at most half of the time that the shutdown has. With
	// thousands of peers take more. Default 1 s.
	DrainWindow time.Duration

	// FrameTimeout is how long half a message may wait for its next byte. Default 30 s.
	FrameTimeout time.Duration
	// CloseTimeout limits the closing handshake. Default 5 s.
	CloseTimeout time.Duration
	// WriteTimeout is how long a write may make no progress. Default 10 s.
	WriteTimeout time.Duration
	// PingInterval is the silence after which a peer is pinged. Default 25 s.
	PingInterval time.Duration
	// PingTimeout is the silence after which a peer counts as dead. Default 60 s.
	PingTimeout time.Duration

	// MaxHeaderBytes limits the HTTP header of an upgrade. Default 16 KiB.
	MaxHeaderBytes int
	// MaxRequestLine limits the request line of an upgrade in bytes. Default 8 KiB.
	MaxRequestLine int
	// MaxMessageBytes limits a message in either direction. Default 16 MiB.
	MaxMessageBytes int
	// MaxDepth limits how deep received values may be nested. Default 64, at most 1,024.
	MaxDepth int
	// MaxDecodedBytes limits the memory that one decoded message may take. Default:
	// eight times its length, at least 1 MiB and at most 64 MiB.
	MaxDecodedBytes int
	// MaxBigIntDigits limits the digits of received big integers. Default 4,096.
	MaxBigIntDigits int
	// MaxRequests limits the unfinished requests of a connection. Default 8,192.
	MaxRequests int
	// MaxRequestBytes limits the bytes of these requests together; a single one may
	// exceed it. Default 32 MiB.
	MaxRequestBytes int
	// Workers limits the requests served at a time over all connections, and
	// WorkerBytes their bytes. Defaults 65,536 and 256 MiB.
	Workers     int
	WorkerBytes int
	// MaxQueueBytes and MaxQueuePackets limit what waits to be sent on a connection.
	// Defaults 1 MiB and 65,536.
	MaxQueueBytes   int
	MaxQueuePackets int
	// MaxReferences limits the services that a peer may hold which methods returned to
	// it. Default 10,000.
	MaxReferences int
	// MaxExposedServices is how many services a peer may expose here for all other
	// peers, see [rpc.Peer.Publish]. Default none; negative means any number.
	MaxExposedServices int
	// MaxConns and MaxConnsPerAddr limit the incoming connections in all and per
	// remote address. Default none.
	MaxConns        int
	MaxConnsPerAddr int

	// TaskOverwrite says what [Node.AddTask] does when the name is taken by another
	// task. [Overwrite] overrides it for a call. Default [TaskReplace].
	TaskOverwrite TaskOverwrite

	// Auth says how peers prove who they are. Nil means that they cannot: the task
	// authenticate answers [Unavailable], and tokens of upgrade requests are ignored.
	Auth *auth.Config

	// Discovery says how the node finds others and is found, see [Node.Find]. Default not at
	// all.
	Discovery DiscoveryConfig

	// Logger receives rare events: panics of handlers, failures to accept. Nil means
	// [slog.Default].
	Logger *slog.Logger
}

const (
	defaultCallTimeout    = 5 * time.Second
	defaultConnectTimeout = 5 * time.Second
	defaultDrainTimeout   = 10 * time.Second
	maxIDBytes            = 256
)

// timeout maps the zero value to def and negative values to none, which is 0.
func timeout(d, def time.Duration) time.Duration {
	if d == 0 {
		return def
	}
	return max(d, 0)
}

func (c *Config) connectTimeout() time.Duration {
	return timeout(c.ConnectTimeout, defaultConnectTimeout)
}

func (c *Config) drainTimeout() time.Duration { return timeout(c.DrainTimeout, defaultDrainTimeout) }

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

// engine returns the part of the configuration that the connections need.
func (c *Config) engine() engine.Config {
	return engine.Config{
		HandshakeTimeout: c.HandshakeTimeout,
		MaxHeaderBytes:   c.MaxHeaderBytes,
		MaxRequestLine:   c.MaxRequestLine,
		MaxMessageBytes:  int64(c.MaxMessageBytes),
		FrameTimeout:     c.FrameTimeout,
		CloseTimeout:     c.CloseTimeout,
		WriteTimeout:     c.WriteTimeout,
		PingInterval:     c.PingInterval,
		PingTimeout:      c.PingTimeout,
		MaxConns:         c.MaxConns,
		MaxConnsPerAddr:  c.MaxConnsPerAddr,
		AllowedOrigins:   c.AllowedOrigins,
		Path:             c.Path,
		TLS:              c.TLS,
		Driver:           c.Driver,
		Pollers:          c.Pollers,
		Logger:           c.logger(),
	}
}

// rpc returns the part of the configuration that the services need.
func (c *Config) rpc(ctx context.Context) rpc.Config {
	return rpc.Config{
		ID:                 c.ID,
		CallTimeout:        c.CallTimeout,
		TaskTimeout:        c.TaskTimeout,
		TaskOverwrite:      c.TaskOverwrite,
		HandshakeTimeout:   c.HandshakeTimeout,
		MaxMessageBytes:    c.MaxMessageBytes,
		Limits:             codec.Limits{Depth: c.MaxDepth, DecodedBytes: c.MaxDecodedBytes, BigIntDigits: c.MaxBigIntDigits},
		MaxRequests:        c.MaxRequests,
		MaxRequestBytes:    c.MaxRequestBytes,
		MaxQueueBytes:      c.MaxQueueBytes,
		MaxQueuePackets:    c.MaxQueuePackets,
		Workers:            c.Workers,
		WorkerBytes:        c.WorkerBytes,
		MaxReferences:      c.MaxReferences,
		MaxExposedServices: c.MaxExposedServices,
		OfflineCalls:       c.OfflineCalls,
		Events:             c.Events,
		Streams:            c.Streams,
		DrainWindow:        c.DrainWindow,
		Logger:             c.logger(),
		Context:            ctx,
	}
}
