package pubsub

import (
	"log/slog"
	"math"
)

// Config describes a [Bus]. The zero value works: a zero field means the documented
// default, a negative limit means none. It must not be changed after [New].
type Config struct {
	// MaxSubscriptions limits the subscriptions at a time. Default 1,048,576.
	MaxSubscriptions int

	// MaxNameBytes limits the length of names and patterns. Default 256.
	MaxNameBytes int

	// MaxSegments limits how many segments names and patterns have. Default 16. Finding
	// the handlers of a name may take up to 2 to this power of steps, if there are
	// subscriptions that make it so; they are kept after the first time.
	MaxSegments int

	// CachedNames is for how many names the bus remembers their handlers, rounded up to
	// a power of two. Any number of names works, those beyond are looked up anew each
	// time. The memory is taken at the first emission: 8 bytes for each. Default 4,096;
	// negative means 64.
	CachedNames int

	// Workers limits the goroutines that run handlers at a time, over all emissions.
	// Past it emissions that need one to begin with fail with resource_exhausted, and
	// others make do with those they have. Default 65,536.
	Workers int

	// Concurrency limits the handlers that one parallel emission runs at a time, see
	// [Concurrency]. Default none.
	Concurrency int

	// Internal are names of events that only the [Emitter] of [NewPrivileged] may emit,
	// besides those of [Internal].
	Internal []string

	// Payload makes the payload of an event that was emitted with plain arguments. It is
	// called at most once for an emission, and only if the event goes to a subscription
	// made with [WithPayload]. It must not change args. Nil means that there is none.
	Payload func(args []any) Payload

	// Changed is told of each pattern that has got its first subscription or lost its
	// last one. It is called without locks, by whoever made the change, so calls for one
	// pattern may overtake each other: ask [Bus.IsSubscribed] what holds. Nil ignores it.
	Changed func(pattern string)

	// Logger receives the panics of handlers. Nil means [slog.Default].
	Logger *slog.Logger
}

const (
	defaultMaxSubscriptions = 1 << 20
	defaultMaxNameBytes     = 256
	defaultMaxSegments      = 16
	defaultCachedNames      = 1 << 12
	minCachedNames          = 64
	defaultWorkers          = 1 << 16
)

func (c *Config) maxSubscriptions() int {
	return limit(c.MaxSubscriptions, defaultMaxSubscriptions)
}

func (c *Config) maxNameBytes() int { return limit(c.MaxNameBytes, defaultMaxNameBytes) }
func (c *Config) maxSegments() int  { return limit(c.MaxSegments, defaultMaxSegments) }
func (c *Config) workers() int      { return limit(c.Workers, defaultWorkers) }
func (c *Config) concurrency() int  { return limit(c.Concurrency, math.MaxInt32) }

// cachedNames returns a power of two.
func (c *Config) cachedNames() int {
	want := min(limit(max(c.CachedNames, 0), defaultCachedNames), 1<<20)
	if c.CachedNames < 0 {
		want = minCachedNames
	}
	n := minCachedNames
	for n < want {
		n *= 2
	}
	return n
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
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
