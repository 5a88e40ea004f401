package bench

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/redisurl"
)

const (
	fleetServices   = 100 // that there are
	servicesPerNode = 5
	fleetBeat       = 5 * time.Second
	fleetTTL        = 3 * fleetBeat
	fleetTimeout    = 5 * time.Second
	fleetBatch      = 64 // nodes that are written at a time
)

// fleet is nodes that are written to Redis as those of others would be (protocol section
// 11.1), without a registry for each, which would read all the others.
type fleet struct {
	client rueidis.Client
	prefix string
	nodes  []discover.Node
}

// newPrefix returns a prefix that nobody else has. All of its keys are in one slot of a
// cluster.
func newPrefix() string { return "{netron:bench:" + rand.Text() + "}" }

func serviceName(i int) string { return "service-" + strconv.Itoa(i%fleetServices) }

func newFleet(url, prefix string, nodes int) (*fleet, error) {
	options, err := redisurl.Options(url, nil, fleetTimeout)
	if err != nil {
		return nil, fmt.Errorf("bench: the URL of Redis: %w", err)
	}
	options.DisableCache = true // nothing is read
	client, err := rueidis.NewClient(options)
	if err != nil {
		return nil, fmt.Errorf("bench: connect to Redis: %w", err)
	}
	f := &fleet{client: client, prefix: prefix, nodes: make([]discover.Node, nodes)}
	for i := range f.nodes {
		n := discover.Node{ID: "node-" + strconv.Itoa(i), Address: fmt.Sprintf("10.%d.%d.%d:8080", i>>16&0xff, i>>8&0xff, i&0xff)}
		for s := range servicesPerNode {
			n.Services = append(n.Services, discover.Service{Name: serviceName(i*servicesPerNode + s), Version: fmt.Sprintf("1.%d.0", i%4)})
		}
		f.nodes[i] = n
	}
	return f, nil
}

// queries returns one for each service that somebody offers.
func (f *fleet) queries() []string {
	var all []string
	for _, n := range f.nodes[:min(len(f.nodes), fleetServices)] {
		for _, s := range n.Services {
			all = append(all, s.Name+"@^1.0")
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// write registers all nodes.
func (f *fleet) write(ctx context.Context) error {
	for nodes := range slices.Chunk(f.nodes, fleetBatch) {
		if err := f.beat(ctx, nodes); err != nil {
			return err
		}
	}
	return nil
}

// keep has the nodes give signs of life, one after another, until ctx ends.
func (f *fleet) keep(ctx context.Context) error {
	t := time.NewTicker(fleetBeat / time.Duration(len(f.nodes)))
	defer t.Stop()
	for i := 0; ; i = (i + 1) % len(f.nodes) {
		select {
		case <-t.C:
		case <-ctx.Done():
			return nil
		}
		if err := f.beat(ctx, f.nodes[i:i+1]); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

func (f *fleet) index() string { return f.prefix + ":index:nodes" }

func (f *fleet) keys(n *discover.Node) (record, heartbeat string) {
	return f.prefix + ":nodes:" + n.ID, f.prefix + ":heartbeat:" + n.ID
}

// beat writes the records and the signs of life of nodes. All of it expires.
func (f *fleet) beat(ctx context.Context, nodes []discover.Node) error {
	b, ttl := f.client.B(), fleetTTL.Milliseconds()
	commands := make(rueidis.Commands, 0, 4*len(nodes)+1)
	for i := range nodes {
		n := &nodes[i]
		services, err := json.Marshal(n.Services)
		if err != nil {
			return err
		}
		record, heartbeat := f.keys(n)
		commands = append(
			commands,
			b.Hset().Key(record).FieldValue().FieldValue("address", n.Address).FieldValue("services", string(services)).
				FieldValue("timestamp", strconv.FormatInt(time.Now().UnixMilli(), 10)).Build(),
			b.Pexpire().Key(record).Milliseconds(ttl).Build(),
			b.Psetex().Key(heartbeat).Milliseconds(ttl).Value("1").Build(),
			b.Sadd().Key(f.index()).Member(n.ID).Build(),
		)
	}
	commands = append(commands, b.Pexpire().Key(f.index()).Milliseconds(ttl).Build())
	for _, result := range f.client.DoMulti(ctx, commands...) {
		if err := result.Error(); err != nil {
			return fmt.Errorf("bench: register nodes: %w", err)
		}
	}
	return nil
}

// remove takes everything out of Redis, and closes the connection.
func (f *fleet) remove(ctx context.Context) error {
	defer f.client.Close()
	ctx, cancel := context.WithTimeout(ctx, fleetTimeout)
	defer cancel()
	keys := []string{f.index()}
	for i := range f.nodes {
		record, heartbeat := f.keys(&f.nodes[i])
		keys = append(keys, record, heartbeat)
	}
	for some := range slices.Chunk(keys, fleetBatch) {
		if err := f.client.Do(ctx, f.client.B().Del().Key(some...).Build()).Error(); err != nil {
			return fmt.Errorf("bench: keys that begin with %s stay in Redis for %v: %w", f.prefix, fleetTTL, err)
		}
	}
	return nil
}

// redisUsage returns the CPU time and the resident memory of Redis, zeros if it does not
// say.
func (f *fleet) redisUsage(ctx context.Context) (cpu time.Duration, rss int64) {
	info, err := f.client.Do(ctx, f.client.B().Info().Build()).ToString()
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "used_cpu_user", "used_cpu_sys":
			seconds, _ := strconv.ParseFloat(value, 64) // zero if it is none
			cpu += time.Duration(seconds * float64(time.Second))
		case "used_memory_rss":
			rss, _ = strconv.ParseInt(value, 10, 64) // likewise
		}
	}
	return cpu, rss
}
