package balance

import (
	"context"
	"slices"

	"github.com/d-e-v-grid/netron/rpc"
)

// Instance is a node that offers a service.
type Instance struct {
	// ID names the instance where keys and subsets are computed, so that it should be the same for all
	// clients. Default Address.
	ID string

	// Address is what the [Dialer] gets. Of several instances with one address the first
	// counts, and none without an address.
	Address string

	// Zone is where it is, see Config.Zone.
	Zone string

	// Weight is the part of the calls that it gets, in proportion to the others. 0 means 1; a negative
	// one gets calls only while no other instance can be asked.
	Weight int

	// Suspect puts it behind all others: the resolver doubts that it lives.
	Suspect bool

	// Metadata is for people: see [Client.Stats].
	Metadata map[string]string
}

func (i *Instance) id() string {
	if i.ID == "" {
		return i.Address
	}
	return i.ID
}

func (i *Instance) weight() int { return min(max(i.Weight, 1), maxWeight) }

// isLast reports whether it gets calls only if no other can be asked.
func (i *Instance) isLast() bool { return i.Suspect || i.Weight < 0 }

// maxWeight is what greater weights count as.
const maxWeight = 1 << 20

// Resolver knows which instances offer services. Any number of goroutines call its methods.
type Resolver interface {
	// Resolve returns the instances that offer a service now: "name", "name@version" or "name@range".
	// They are not changed afterwards. It should not block: it answers from what is known.
	Resolve(service string) []Instance

	// Watch has changed called whenever Resolve may return something else for the service, until
	// stop. changed does not block, and may be called too often.
	Watch(service string, changed func()) (stop func())
}

// Learner is a [Resolver] that has to ask others which instances there are.
type Learner interface {
	Resolver

	// Ready reports whether it has been told once. Before that, calls that find no instance wait for
	// one. Watch tells when it changes.
	Ready() bool

	// Err returns why it may not know what there is now, nil if it does: errors of calls that find
	// no instance say so.
	Err() error
}

// Dialer connects to the address of an instance. The peer may reconnect by itself. The client
// asks for one connection to an address at a time.
type Dialer func(ctx context.Context, address string) (*rpc.Peer, error)

// Static returns a resolver whose instances never change, and offer every service that they are asked
// for.
func Static(instances ...Instance) Resolver { return static(slices.Clone(instances)) }

type static []Instance

func (s static) Resolve(string) []Instance { return s }

func (static) Watch(string, func()) (stop func()) { return func() {} }
