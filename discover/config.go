package discover

import (
	"crypto/tls"
	"log/slog"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redisurl"
)

// Config describes a [Registry]. The zero value works with a Redis on this machine: a
// zero field means the documented default, a negative limit means none. It must not be
// changed after [New].
type Config struct {
	// URL says where Redis is: redis://user:password@host:port/db, rediss:// for TLS,
	// unix:///path for a socket. Further parameters are addr=host:port for more addresses
	// and master_set=name if they are those of sentinels. Redis 6 or later. Default
	// redis://127.0.0.1:6379.
	URL string

	// Addrs are addresses of Redis as host:port, instead of those of the URL or besides
	// them. They are tried in turn. Any node of a cluster will do, but its Prefix needs a
	// hash tag, as in "{netron}:discovery".
	Addrs []string

	// MasterSet is the name of the master if the addresses are those of sentinels.
	MasterSet string

	// Username and Password replace those of the URL.
	Username string
	Password string

	// TLS replaces the configuration that rediss:// means. Nil leaves it.
	TLS *tls.Config

	// Prefix is what all keys begin with. TypeScript peers of version 0.6 use the
	// default, "netron:discovery", and their successors "titan:discovery". At most 256
	// bytes.
	Prefix string

	// Channel is where changes are announced. Default Prefix:events.
	Channel string

	// NoEvents keeps the registry from announcing changes and from listening to the
	// announcements of others. Changes are noticed without them, but those who leave are
	// suspect for a while.
	NoEvents bool

	// Heartbeat is the longest time between two signs of life of the own node; each
	// comes up to a fifth earlier. Default 5 s.
	Heartbeat time.Duration

	// TTL is how long a sign of life of the own node lasts: more than two heartbeats.
	// Default three of them.
	TTL time.Duration

	// Grace is how long a node stays, and is suspect, after its signs of life have ended.
	// Default a fifth of Heartbeat, which is 1 s.
	Grace time.Duration

	// Reconcile is the mean time between two readings of everything, which repair what
	// was missed otherwise. Default TTL.
	Reconcile time.Duration

	// Cleanup is the mean time between two removals of what dead nodes have left behind
	// in the index. Negative means never. Default 1 min.
	Cleanup time.Duration

	// Timeout is how long Redis may take to accept a connection, and to answer. Default 5 s.
	Timeout time.Duration

	// RetryDelay is the shortest time between two attempts while Redis does not do what it
	// is asked; each takes up to twice as long. Default a fifth of Heartbeat, at most 1 s.
	RetryDelay time.Duration

	// MaxNodes limits the nodes of the view. Those beyond are left out. Default 10,000.
	MaxNodes int

	// MaxServices and MaxRecordBytes limit what one node may be: nodes beyond are left
	// out, and can not be registered. Default 1,000 services and 1 MiB.
	MaxServices    int
	MaxRecordBytes int

	// MaxEvents limits what waits for a watcher. Beyond it events are lost, and it is
	// told how many. Default 1,024.
	MaxEvents int

	// Logger is told when Redis is lost and found, and of records that make no sense. Nil
	// means [slog.Default].
	Logger *slog.Logger
}

const (
	defaultPrefix      = "netron:discovery"
	defaultHeartbeat   = 5 * time.Second
	defaultCleanup     = time.Minute
	defaultTimeout     = 5 * time.Second
	defaultRetryDelay  = time.Second
	defaultMaxNodes    = 10_000
	defaultMaxServices = 1000
	defaultRecordBytes = 1 << 20
	defaultMaxEvents   = 1024
	beatsPerTTL        = 3
	beatsPerGrace      = 5 // a fifth of a beat

	maxPrefixBytes = 256

	// readAhead is how many nodes are read by one batch: few enough that no client takes
	// the batch for one that blocks, which would go over another connection.
	readAhead = 256
	// firstAhead is how many are read so at first, when nobody knows how large they are.
	firstAhead = 16

	// batchBytes is how large a batch should be. A record may be larger.
	batchBytes = 8 << 20
)

func (c *Config) maxNodes() int       { return limit(c.MaxNodes, defaultMaxNodes) }
func (c *Config) maxServices() int    { return limit(c.MaxServices, defaultMaxServices) }
func (c *Config) maxRecordBytes() int { return limit(c.MaxRecordBytes, defaultRecordBytes) }
func (c *Config) maxEvents() int      { return max(2, limit(c.MaxEvents, defaultMaxEvents)) }

func (c *Config) heartbeat() time.Duration { return positive(c.Heartbeat, defaultHeartbeat) }
func (c *Config) ttl() time.Duration       { return positive(c.TTL, beatsPerTTL*c.heartbeat()) }
func (c *Config) grace() time.Duration     { return positive(c.Grace, c.heartbeat()/beatsPerGrace) }
func (c *Config) reconcile() time.Duration { return positive(c.Reconcile, c.ttl()) }
func (c *Config) timeout() time.Duration   { return positive(c.Timeout, defaultTimeout) }

func (c *Config) cleanup() time.Duration {
	if c.Cleanup < 0 {
		return math.MaxInt64 / 4
	}
	return positive(c.Cleanup, defaultCleanup)
}

// retryDelay returns a random time to wait.
func (c *Config) retryDelay() time.Duration {
	d := positive(c.RetryDelay, min(defaultRetryDelay, c.heartbeat()/beatsPerGrace))
	return d + rand.N(d)
}

func (c *Config) prefix() string {
	if c.Prefix == "" {
		return defaultPrefix
	}
	return c.Prefix
}

func (c *Config) channel() string {
	if c.Channel == "" {
		return c.prefix() + ":events"
	}
	return c.Channel
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

// check returns what is wrong with the configuration.
func (c *Config) check() error {
	switch {
	case len(c.Prefix) > maxPrefixBytes:
		return errorf(code.InvalidArgument, "the prefix has %d bytes, at most %d are allowed", len(c.Prefix), maxPrefixBytes)
	case len(c.Channel) > 2*maxPrefixBytes:
		return errorf(code.InvalidArgument, "the channel has %d bytes, at most %d are allowed", len(c.Channel), 2*maxPrefixBytes)
	case c.heartbeat() < time.Millisecond:
		return errorf(code.InvalidArgument, "the heartbeat %v is shorter than 1 ms", c.heartbeat())
	case c.ttl() <= 2*c.heartbeat():
		return errorf(code.InvalidArgument, "the TTL %v is not longer than two heartbeats of %v", c.ttl(), c.heartbeat())
	}
	return nil
}

// options returns how to connect.
func (c *Config) options() (rueidis.ClientOption, error) {
	o, err := redisurl.Options(c.URL, c.TLS, c.timeout())
	if err != nil {
		return o, &Error{Code: code.InvalidArgument, Message: "the URL of Redis makes no sense", cause: err}
	}
	if c.URL == "" && len(c.Addrs) > 0 {
		o.InitAddress = nil
	}
	o.InitAddress = append(o.InitAddress, c.Addrs...)
	for _, addr := range o.InitAddress {
		if _, _, err := net.SplitHostPort(addr); err != nil && !strings.HasPrefix(addr, "/") {
			return o, errorf(code.InvalidArgument, "the address %.200q of Redis is not host:port", addr)
		}
	}
	if c.Username != "" || c.Password != "" {
		o.Username, o.Password = c.Username, c.Password
	}
	if c.MasterSet != "" {
		o.Sentinel.MasterSet = c.MasterSet
	}
	o.InitAddress = slices.Clip(o.InitAddress)
	o.Sentinel.TLSConfig = o.TLSConfig
	o.Sentinel.Dialer = o.Dialer
	o.Sentinel.TopologyRefreshInterval = c.timeout() // a missed +switch-master is never noticed otherwise
	o.ClientTrackingOptions = []string{}             // the connection is told the changes of everything it reads
	o.CacheSizeEachConn = 1 << 10                    // it is not used
	o.ClusterOption.MaxMovedRedirections = 8         // not for ever
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

// positive maps everything else to def.
func positive(d, def time.Duration) time.Duration {
	if d <= 0 {
		return def
	}
	return d
}
