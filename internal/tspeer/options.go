package tspeer

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Option changes how a conversation is played.
type Option func(*options)

type options struct {
	asRecorded bool
	freshIDs   bool
	patience   time.Duration

	serviceEvents bool                  // 0.6 only
	tamper        func(f frame) []frame // for tests
	amended       bool                  // a server that does as a right one would, for tests
}

func newOptions(opts []Option) options {
	o := options{patience: 10 * time.Second}
	for _, opt := range opts {
		opt(&o)
	}
	return o
}

// AsRecorded expects the original itself on the other side: its answers with its defects, without amendments, and of a client
// exactly the recorded messages, malformed ones included.
func AsRecorded() Option { return func(o *options) { o.asRecorded = true } }

// FreshIDs gives a played client a new peer id. Without it, every replay of a conversation comes from the same peer, and all raw
// clients are one peer.
func FreshIDs() Option { return func(o *options) { o.freshIDs = true } }

// Patience sets how long a played peer waits for one message; default 10 s.
func Patience(d time.Duration) Option { return func(o *options) { o.patience = d } }

// Report says what happened in a played conversation.
type Report struct {
	// Matched counts the other side's messages that were matched with recorded ones.
	Matched int
	// Extra counts a dialler's requests that the recorded client did not make but any server answers: definitions, unsubscribe and the like.
	Extra int
	// Allowed counts the differences from the recording, by the name of the Tolerance, and amended answers under "amendment".
	Allowed map[string]int
	// Requests lists what a dialler asked a played 0.6 server for, in order, as "CALL add".
	Requests []string
}

// String renders the report in one line.
func (r *Report) String() string {
	var allowed []string
	for _, name := range slices.Sorted(maps.Keys(r.Allowed)) {
		allowed = append(allowed, fmt.Sprintf("%s %d", name, r.Allowed[name]))
	}
	return fmt.Sprintf("%d matched, %d extra, allowed: %s", r.Matched, r.Extra, strings.Join(allowed, ", "))
}
