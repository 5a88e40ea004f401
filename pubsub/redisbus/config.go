package redisbus

import (
	"crypto/rand"
	"crypto/tls"
	"log/slog"
	"math"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redisurl"
	"github.com/d-e-v-grid/netron/pubsub"
)

// Config describes a [Bridge]. The zero value works with a Redis on this machine: a zero
// field means the documented default, a negative limit means none. It must not be changed
// after [New].
type Config struct {
	// URL says where Redis is: redis://user:password@host:port, rediss:// for TLS,
	// unix:///path for a socket. Further parameters are addr=host:port for more addresses,
	// which are tried in turn, and master_set=name if they are those of sentinels. Any node
	// of a cluster will do. Redis 6 or later. Default redis://127.0.0.1:6379.
	URL string

	// TLS replaces the configuration that rediss:// means. Nil leaves it.
	TLS *tls.Config

	// Prefix is what the bridges have in common that belong together. Their channel is
	// Prefix:events. At most 256 bytes. Default "netron:bus".
	Prefix string

	// Node is the id of this node, unique among those of the prefix. At most 128 bytes.
	// Default a random one.
	Node string

	// Patterns are the names that travel, in both directions: see [pubsub.CheckPattern].
	// Default all, which is "*". At most 1,000.
	Patterns []string

	// MaxMessageBytes limits a message. Events beyond stay here; messages beyond are
	// refused. Default 1 MiB.
	MaxMessageBytes int

	// MaxEvents and MaxBytes limit what waits for Redis, and likewise what waits for the
	// handlers here. Events beyond are lost. Default 65,536 and 16 MiB.
	MaxEvents int
	MaxBytes  int

	// MaxHops limits how often in a row events may be answers to events of other nodes.
	// Default 16.
	MaxHops int

	// MaxNodes limits the nodes whose losses are counted at a time. Beyond it one is
	// forgotten for each new one, and its next loss is not counted. Default 4,096.
	MaxNodes int

	// Limits bounds what it costs to decode the arguments of an event.
	Limits codec.Limits

	// HandlerTimeout is how long the handlers of one event of another node may take
	// before the next one is emitted. Default 5 s.
	HandlerTimeout time.Duration

	// Timeout is how long Redis may take to accept a connection, and to answer. Default 5 s.
	Timeout time.Duration

	// RetryDelay is the mean time between attempts to connect; each takes between half
	// and one and a half of it. Default 1 s, also if it is negative.
	RetryDelay time.Duration

	// Logger is told when Redis is lost and found, and of messages that make no sense.
	// Nil means [slog.Default].
	Logger *slog.Logger
}

const (
	defaultPrefix          = "netron:bus"
	defaultMaxMessageBytes = 1 << 20
	defaultMaxEvents       = 1 << 16
	defaultMaxBytes        = 16 << 20
	defaultMaxHops         = 16
	defaultMaxNodes        = 4096
	defaultTimeout         = 5 * time.Second
	defaultRetryDelay      = time.Second

	maxPrefixBytes = 256
	maxNodeBytes   = 128
	maxPatterns    = 1000

	// ringScale is the logarithm of how many commands may be under way: few, since a batch
	// counts as one.
	ringScale = 8
)

func (c *Config) maxMessageBytes() int { return limit(c.MaxMessageBytes, defaultMaxMessageBytes) }
func (c *Config) maxEvents() int       { return limit(c.MaxEvents, defaultMaxEvents) }
func (c *Config) maxBytes() int        { return limit(c.MaxBytes, defaultMaxBytes) }
func (c *Config) maxHops() int         { return limit(c.MaxHops, defaultMaxHops) }
func (c *Config) maxNodes() int        { return limit(c.MaxNodes, defaultMaxNodes) }

func (c *Config) handlerTimeout() time.Duration { return timeLimit(c.HandlerTimeout) }
func (c *Config) timeout() time.Duration        { return timeLimit(c.Timeout) }

func (c *Config) retryDelay() time.Duration {
	if c.RetryDelay <= 0 {
		return defaultRetryDelay
	}
	return c.RetryDelay
}

func (c *Config) prefix() string {
	if c.Prefix == "" {
		return defaultPrefix
	}
	return c.Prefix
}

func (c *Config) node() string {
	if c.Node == "" {
		return rand.Text()
	}
	return c.Node
}

func (c *Config) patterns() []string {
	if len(c.Patterns) == 0 {
		return []string{"*"}
	}
	return slices.Clone(c.Patterns)
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

// check returns what is wrong with the configuration, for a bus.
func (c *Config) check(bus *pubsub.Bus) error {
	switch {
	case bus == nil:
		return errorf(code.InvalidArgument, "there is no bus")
	case len(c.Prefix) > maxPrefixBytes:
		return errorf(code.InvalidArgument, "the prefix has %d bytes, at most %d are allowed", len(c.Prefix), maxPrefixBytes)
	case len(c.Node) > maxNodeBytes || !utf8.ValidString(c.Node):
		return errorf(code.InvalidArgument, "the id %.200q of the node is not at most %d bytes of UTF-8", c.Node, maxNodeBytes)
	case len(c.Patterns) > maxPatterns:
		return errorf(code.InvalidArgument, "there are %d patterns, at most %d are allowed", len(c.Patterns), maxPatterns)
	}
	for _, p := range c.Patterns {
		if err := bus.CheckPattern(p); err != nil {
			return err
		}
		if bus.IsInternal(p) {
			return errorf(code.InvalidArgument, "%s is an event of the node, which does not travel", p)
		}
	}
	return nil
}

// options returns how to connect, but for the address to begin with.
func (c *Config) options() (rueidis.ClientOption, error) {
	o, err := redisurl.Options(c.URL, c.TLS, c.timeout())
	if err != nil {
		return o, &Error{Code: code.InvalidArgument, Message: "the URL of Redis makes no sense", cause: err}
	}
	o.RingScaleEachConn = ringScale
	o.DisableCache = true
	o.ForceSingleClient = o.Sentinel.MasterSet == ""
	return o, nil
}

// limit maps the zero value to def and negative values to none.
func limit(v, def int) int {
	switch {
	case v == 0:
		return def
	case v < 0:
		return math.MaxInt32
	}
	return min(v, math.MaxInt32)
}

// timeLimit maps the zero value to the default and negative values to none.
func timeLimit(d time.Duration) time.Duration {
	switch {
	case d == 0:
		return defaultTimeout
	case d < 0:
		return math.MaxInt64 / 4
	}
	return d
}
