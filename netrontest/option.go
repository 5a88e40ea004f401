package netrontest

import "github.com/d-e-v-grid/netron"

// Option changes the nodes that [NewPair], [NewCluster] and [Network.Start] make.
type Option func(*options)

type options struct {
	discover  bool
	configure []func(*netron.Config)
	prepare   []func(*netron.Node) error
}

// Configure runs f on the configuration of each node before the node is made, and
// again at a restart. By its ID, which is the name of the node's host, f can tell
// the nodes apart. Config.Addr is not used.
func Configure(f func(cfg *netron.Config)) Option {
	return func(o *options) { o.configure = append(o.configure, f) }
}

// Prepare runs f on each node before it listens, and again at a restart: the place
// to expose services that must be there from the beginning.
func Prepare(f func(node *netron.Node) error) Option {
	return func(o *options) { o.prepare = append(o.prepare, f) }
}

// Discover has nodes of one network find each other, as others do by Redis: it sets
// Config.Discovery, so that [netron.Node.Find] calls a service at whichever of them offer it,
// over the network. What is news takes some milliseconds to get around. A node leaves when it is
// closed or restarted; for one that is registered and cannot be reached use [Link.Refuse] and [Link.Cut].
func Discover() Option { return func(o *options) { o.discover = true } }

func collect(opts []Option) *options {
	o := new(options)
	for _, opt := range opts {
		opt(o)
	}
	return o
}
