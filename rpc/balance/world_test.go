package balance_test

import (
	"context"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// registry is a resolver that the test changes.
type registry struct {
	mu        sync.Mutex
	instances []balance.Instance
	watchers  map[int]func()
	next      int
}

func (r *registry) Resolve(string) []balance.Instance {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.instances)
}

func (r *registry) Watch(_ string, changed func()) (stop func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.watchers == nil {
		r.watchers = make(map[int]func())
	}
	id := r.next
	r.next++
	r.watchers[id] = changed
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.watchers, id)
	}
}

// change changes the instances, and tells those who watch.
func (r *registry) change(f func([]balance.Instance) []balance.Instance) {
	r.mu.Lock()
	r.instances = f(slices.Clone(r.instances))
	var told []func()
	for _, changed := range r.watchers {
		told = append(told, changed)
	}
	r.mu.Unlock()
	for _, changed := range told {
		changed()
	}
}

func (r *registry) add(all ...balance.Instance) {
	r.change(func(now []balance.Instance) []balance.Instance { return append(now, all...) })
}

func (r *registry) remove(address string) {
	r.change(func(now []balance.Instance) []balance.Instance {
		return slices.DeleteFunc(now, func(i balance.Instance) bool { return i.Address == address })
	})
}

// worker is the service of the tests, at one node.
type worker struct {
	Place string `netron:",readonly"`

	world *world
	name  string
	delay atomic.Int64 // of Work
	fail  atomic.Bool  // Work returns an error of code Unavailable
	calls atomic.Int64
}

// Work takes a while, and returns the name of the node.
func (w *worker) Work(ctx context.Context, id int) (string, error) {
	w.calls.Add(1)
	w.world.served(id)
	if w.fail.Load() {
		return "", rpc.Errorf(rpc.Unavailable, "a dependency of %s is down", w.name)
	}
	delay := time.Duration(w.delay.Load())
	if delay == 0 { // the race detector of Go 1.26 may crash at a timer of a bubble that is over at once
		return w.name, nil
	}
	select {
	case <-time.After(delay):
		return w.name, nil
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// Count yields numbers, one each second.
func (w *worker) Count(ctx context.Context, n int) iter.Seq2[int, error] {
	w.calls.Add(1)
	return func(yield func(int, error) bool) {
		for i := range n {
			time.Sleep(time.Second)
			if !yield(i, ctx.Err()) {
				return
			}
		}
	}
}

// Size reads all.
func (w *worker) Size(_ context.Context, r io.Reader) (int64, error) {
	w.calls.Add(1)
	return io.Copy(io.Discard, r)
}

// Feed is Size of a call with an id.
func (w *worker) Feed(ctx context.Context, id int, r io.Reader) (int64, error) {
	w.world.served(id)
	return w.Size(ctx, r)
}

// Tail is Count of a call with an id.
func (w *worker) Tail(ctx context.Context, id, n int) iter.Seq2[int, error] {
	w.world.served(id)
	return w.Count(ctx, n)
}

// Inner returns a service.
func (w *worker) Inner(context.Context) (*netron.Service, error) {
	s := netron.NewService("inner", "")
	netron.Func(s, "name", func(context.Context) (string, error) { return w.name, nil })
	return s, nil
}

type workerClient struct {
	Work  func(ctx context.Context, id int) (string, error)
	Count func(ctx context.Context, n int) iter.Seq2[int, error]
	Size  func(ctx context.Context, r io.Reader) (int64, error)
	Feed  func(ctx context.Context, id int, r io.Reader) (int64, error)
	Tail  func(ctx context.Context, id, n int) iter.Seq2[int, error]
	Inner func(ctx context.Context) (*innerClient, error)
}

type innerClient struct {
	Name func(ctx context.Context) (string, error)
}

// world is a network of workers and one caller, in virtual time.
type world struct {
	*netrontest.Network
	t        *testing.T
	registry *registry
	caller   *netrontest.Node
	nodes    map[string]*netrontest.Node
	workers  map[string]*worker
	limit    int // of requests at a time, 0 for the default

	mu      sync.Mutex
	ledger  map[int]int // how often each call was served; guarded by mu
	dials   map[string]int
	dialing map[string]int // attempts under way, by address; guarded by mu
	most    int            // of them at a time, to one address; guarded by mu
}

func newWorld(t *testing.T, names ...string) *world {
	t.Helper()
	w := &world{
		Network: new(netrontest.Network), t: t, registry: &registry{}, nodes: make(map[string]*netrontest.Node),
		workers: make(map[string]*worker), ledger: make(map[int]int), dials: make(map[string]int), dialing: make(map[string]int),
	}
	w.caller = w.Start(t, "caller:1", netrontest.Configure(quiet))
	for _, name := range names {
		w.start(name)
		w.registry.add(balance.Instance{ID: name, Address: addressOf(name)})
	}
	return w
}

func addressOf(name string) string { return name + ":1" }

func quiet(cfg *netron.Config) { cfg.Logger = slog.New(slog.DiscardHandler) }

// start starts a node that offers the service.
func (w *world) start(name string) {
	w.t.Helper()
	wk := &worker{Place: name, world: w, name: name}
	w.workers[name] = wk
	w.nodes[name] = w.Start(w.t, addressOf(name), netrontest.Configure(quiet), netrontest.Configure(func(cfg *netron.Config) { cfg.MaxRequests = w.limit }), netrontest.Prepare(func(n *netron.Node) error {
		return n.Expose("worker@1.0.0", wk)
	}))
}

func (w *world) served(id int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ledger[id]++
}

// dial is the dialler of the clients.
func (w *world) dial(ctx context.Context, address string) (*rpc.Peer, error) {
	w.mu.Lock()
	w.dials[address]++
	w.dialing[address]++
	w.most = max(w.most, w.dialing[address])
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dialing[address]--
	}()
	return w.caller.Dial(ctx, address)
}

func (w *world) dialled(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dials[address]
}

// client returns a client of the workers.
func (w *world) client(configure ...func(*balance.Config)) (*balance.Client, *workerClient) {
	w.t.Helper()
	c := w.idle(configure...)
	k, err := balance.Query[workerClient](w.t.Context(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait() // all are connected to
	return c, k
}

// idle returns a client that has done nothing yet.
func (w *world) idle(configure ...func(*balance.Config)) *balance.Client {
	w.t.Helper()
	cfg := balance.Config{Dial: w.dial, Resolver: w.registry, ID: "caller", Logger: slog.New(slog.DiscardHandler)}
	for _, f := range configure {
		f(&cfg)
	}
	c, err := balance.New("worker@^1", cfg)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := c.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return c
}

func withPolicy(p balance.Policy) func(*balance.Config) {
	return func(c *balance.Config) { c.Policy = p }
}

// counts returns how many calls each worker got since the last time.
func (w *world) counts() map[string]int {
	all := make(map[string]int)
	for name, wk := range w.workers {
		all[name] = int(wk.calls.Swap(0))
	}
	return all
}

// work makes calls that must not fail, 100 a second, and returns how many each worker got.
func (w *world) work(k *workerClient, n int) map[string]int {
	w.t.Helper()
	for i := range n {
		if _, err := k.Work(w.t.Context(), i); err != nil {
			w.t.Error(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return w.counts()
}

// stats returns what the client knows of an instance.
func statsOf(c *balance.Client, name string) balance.InstanceStats {
	for _, s := range c.Stats() {
		if s.Instance.Address == addressOf(name) {
			return s
		}
	}
	return balance.InstanceStats{State: balance.State(255)}
}

// load makes calls, one every pause, until stop. They are numbered.
type load struct {
	wg    sync.WaitGroup
	stopc chan struct{}
	mu    sync.Mutex
	took  []time.Duration
	errs  []error
}

func (w *world) load(ctx context.Context, k *workerClient, pause time.Duration) *load {
	return w.loadOf(ctx, k, pause, 1<<30)
}

// loadOf is load of n calls.
func (w *world) loadOf(ctx context.Context, k *workerClient, pause time.Duration, n int) *load {
	l := &load{stopc: make(chan struct{})}
	l.wg.Go(func() {
		for id := range n {
			l.wg.Go(func() {
				start := time.Now()
				_, err := k.Work(ctx, id)
				l.mu.Lock()
				defer l.mu.Unlock()
				l.took = append(l.took, time.Since(start))
				if err != nil {
					l.errs = append(l.errs, fmt.Errorf("call %d: %w", id, err))
				}
			})
			select {
			case <-time.After(pause):
			case <-l.stopc:
				return
			}
		}
	})
	return l
}

func (l *load) stop() {
	close(l.stopc)
	l.wait()
}

// wait waits for all calls.
func (l *load) wait() {
	l.wg.Wait()
	slices.Sort(l.took)
}

func (l *load) quantile(q float64) time.Duration { return l.took[int(q*float64(len(l.took)-1))] }
