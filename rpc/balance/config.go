package balance

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
)

// Policy says how a [Client] picks among instances that could all be asked. All heed weights.
type Policy uint8

// The policies.
const (
	// LeastLoaded takes two at random, and of them the one with fewer calls of this client under way.
	LeastLoaded Policy = iota

	// LowLatency takes two at random, and of them the one with the lower product of its latency and
	// its calls under way. The latency is an average that rises at once and falls over ten seconds,
	// so that a slow instance is tried again now and then. It should not be used where methods differ
	// much in what they cost.
	LowLatency

	// RoundRobin takes them in turn.
	RoundRobin

	// Random takes any.
	Random

	// ByKey takes the one that the key of the call belongs to: that of [WithKey], or what
	// Config.Key returns. Calls without a key are spread as by LeastLoaded. Of the instances those
	// are dialled that calls are for.
	ByKey

	numPolicies
)

// Config says how a [Client] works. Dial and Resolver are required; the zero value of all else is
// the default.
type Config struct {
	// Dial connects to an instance. Required.
	Dial Dialer

	// Resolver says which instances there are. Required.
	Resolver Resolver

	// Release gives a connection back that Dial returned, once for each time that it did: when the
	// instance has left, does not have the service, the connection has ended for good, or with the
	// client. The connection may be one that others use as well; then it leaves it open. It must
	// not block. Default is to close it.
	Release func(*rpc.Peer)

	// ID is that of the caller, which chooses its subset. Default is a random one.
	ID string

	// Zone is where the caller is: instances of the same zone are asked while one of them can be.
	// Keys do not heed zones. Empty means that zones are ignored.
	Zone string

	// Policy picks an instance for each call. Default LeastLoaded.
	Policy Policy

	// Key returns the key of a call for the policy ByKey, empty for none.
	Key func(ctx context.Context) string

	// KeyLoad bounds the calls under way of an instance with keys: it is never given more than that
	// many times the mean; what is too much goes to the next instance of the key. It must be more
	// than 1, for example 1.25. 0 is no bound.
	KeyLoad float64

	// Subset is how many instances the client connects to, which it chooses by ID: another client
	// takes others. Instances that cannot be connected to are replaced. Default 16, all with the
	// policy ByKey, as keys need; negative means all, but no more than 4096, which are the same
	// for all clients.
	Subset int

	// WaitReady has calls wait while there is no instance that could be asked, until their context
	// ends or MaxWait has passed. Default is an error of code rpc.Unavailable.
	WaitReady bool

	// MaxWait bounds the waiting for an instance of calls whose context has no deadline. Default 30 s.
	MaxWait time.Duration

	// MaxAttempts is how often a call is made that instances may have served, or refused because of
	// their load. Default 3. Calls that nobody has seen do not count.
	MaxAttempts int

	// RetryRatio bounds repeated calls, as MaxAttempts counts them, to this part of all calls, one
	// per second, and 100 at first. Default 0.2; negative means that none is repeated.
	RetryRatio float64

	// DialDelay is the longest pause before an instance is dialled again. It doubles with each attempt
	// up to MaxDialDelay; the pause itself is random. Defaults 250 ms and 30 s.
	DialDelay    time.Duration
	MaxDialDelay time.Duration

	// EjectAfter is after how many failures in a row an instance gets no calls for EjectTime:
	// connections that were lost, and errors of code rpc.Unavailable that it returned. With each
	// further failure the time doubles, up to MaxEjectTime. Never more than half of the instances are
	// ejected. Defaults 5, 5 s and 5 min; a negative EjectAfter means never.
	EjectAfter   int
	EjectTime    time.Duration
	MaxEjectTime time.Duration

	// Logger gets what goes wrong in the background. Default slog.Default.
	Logger *slog.Logger
}

const (
	defaultSubset       = 16
	defaultMaxWait      = 30 * time.Second
	defaultMaxAttempts  = 3
	defaultRetryRatio   = 0.2
	defaultDialDelay    = 250 * time.Millisecond
	defaultMaxDialDelay = 30 * time.Second
	defaultEjectAfter   = 5
	defaultEjectTime    = 5 * time.Second
	defaultMaxEjectTime = 5 * time.Minute
)

// check returns what is wrong with the configuration.
func (c *Config) check() error {
	switch {
	case c.Dial == nil:
		return rpc.Errorf(rpc.InvalidArgument, "balance: Config.Dial is nil")
	case c.Resolver == nil:
		return rpc.Errorf(rpc.InvalidArgument, "balance: Config.Resolver is nil")
	case c.Policy >= numPolicies:
		return rpc.Errorf(rpc.InvalidArgument, "balance: policy %d is unknown", c.Policy)
	case c.KeyLoad != 0 && !(c.KeyLoad > 1):
		return rpc.Errorf(rpc.InvalidArgument, "balance: Config.KeyLoad is %v, want more than 1", c.KeyLoad)
	case c.RetryRatio != c.RetryRatio:
		return rpc.Errorf(rpc.InvalidArgument, "balance: Config.RetryRatio is no number")
	}
	return nil
}

func (c *Config) release(p *rpc.Peer) {
	if c.Release != nil {
		c.Release(p)
		return
	}
	p.CloseWith(closeNormal, "")
}

const closeNormal = 1000

func (c *Config) subset() int {
	if c.Subset < 0 || c.Subset == 0 && c.Policy == ByKey {
		return -1
	}
	return orDefault(c.Subset, defaultSubset)
}

func (c *Config) retryRatio() float64 { return max(orDefault(c.RetryRatio, defaultRetryRatio), 0) }

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

func orDefault[T comparable](v, otherwise T) T {
	var zero T
	if v == zero {
		return otherwise
	}
	return v
}

// String returns the name of the policy.
func (p Policy) String() string {
	if p < numPolicies {
		return [...]string{"least loaded", "low latency", "round robin", "random", "by key"}[p]
	}
	return fmt.Sprintf("Policy(%d)", uint8(p))
}
