package balance_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// model is a world in which anything may happen at any time.
type model struct {
	*world
	rng     *rand.Rand
	names   []string
	shared  *sharing
	clients []*balance.Client
	outside *workerClient // the first client as another node got it from the caller
	closed  map[*balance.Client]bool
	down    map[string]bool // nodes that are away, or on their way out
	wg      sync.WaitGroup  // calls, and what ends nodes
	next    int

	mu       sync.Mutex
	outcomes map[int]int    // of each call; guarded by mu
	errs     map[int]error  // guarded by mu
	twice    map[int]bool   // calls that may be served twice; guarded by mu
	kinds    map[string]int // of calls that were served; guarded by mu
	what     map[int]string // kinds of calls; guarded by mu
	restored []func()       // what ends the faults
}

func (m *model) chance(percent int) bool { return m.rng.IntN(100) < percent }

func (m *model) one() string { return m.names[m.rng.IntN(len(m.names))] }

// instance returns a way to register a node.
func (m *model) instance(name string) balance.Instance {
	return balance.Instance{
		ID: name, Address: addressOf(name), Weight: m.rng.IntN(5) - 1,
		Suspect: m.chance(15), Zone: []string{"", "east", "west"}[m.rng.IntN(3)],
	}
}

// disturb does something to the nodes, the links or the resolver.
func (m *model) disturb() {
	name := m.one()
	link := m.Link("caller", name)
	switch m.rng.IntN(12) {
	case 0:
		m.registry.remove(addressOf(name))
	case 1, 2:
		m.registry.add(m.instance(name))
	case 3: // all are new, in another order, and with what makes no sense
		m.registry.change(func([]balance.Instance) []balance.Instance {
			all := []balance.Instance{{}, {Address: "none:1"}}
			for _, i := range m.rng.Perm(len(m.names)) {
				all = append(all, m.instance(m.names[i]))
			}
			return append(all, all...)
		})
	case 4:
		link.Cut()
	case 5:
		link.Stall()
		m.restored = append(m.restored, link.Resume)
	case 6:
		link.Refuse()
		m.restored = append(m.restored, link.Allow)
	case 7:
		for _, restore := range m.restored {
			restore()
		}
		m.restored = nil
	case 8:
		m.end(name, false)
	case 9:
		m.end(name, true)
	case 10:
		wk := m.workers[name]
		wk.fail.Store(m.chance(30))
		wk.delay.Store(int64(m.rng.IntN(300)) * int64(time.Millisecond))
	case 11:
		if !m.down[name] {
			_ = m.nodes[name].Conceal("worker@1.0.0")
			_ = m.nodes[name].Expose("worker@1.0.0", m.workers[name])
		}
	}
}

// end ends a node, and starts another one at its address.
func (m *model) end(name string, drains bool) {
	if m.down[name] {
		return
	}
	m.down[name] = true
	if drains {
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(m.rng.IntN(3000))*time.Millisecond)
		_ = m.nodes[name].Shutdown(ctx)
		cancel()
	}
	m.nodes[name].Close()
	m.start(name)
	m.workers[name].delay.Store(int64(m.rng.IntN(100)) * int64(time.Millisecond))
	m.down[name] = false
}

// reader yields bytes now and then, and may fail.
type reader struct {
	n     int
	pause time.Duration
	err   error
}

func (r *reader) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, r.err
	}
	time.Sleep(r.pause)
	r.n--
	return len(p[:min(len(p), 100)]), nil
}

// kinds are those of calls.
var kinds = []string{"func", "Call", "typed", "Go", "CallFunc", "MethodFunc", "Feed", "Tail", "Inner", "Get", "relayed", "relayed Feed", "relayed Tail"}

// call begins one call.
func (m *model) call() {
	id := m.next
	m.next++
	c := m.clients[m.rng.IntN(len(m.clients))]
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+m.rng.IntN(8000))*time.Millisecond)
	if m.chance(10) {
		time.AfterFunc(time.Duration(m.rng.IntN(500))*time.Millisecond, cancel)
	}
	policy := m.rng.IntN(3)
	switch policy {
	case 1:
		ctx = rpc.Idempotent(ctx)
	case 2:
		ctx = rpc.RetryUnsent(ctx)
	}
	switch m.rng.IntN(4) {
	case 0:
		ctx = balance.WithKey(ctx, fmt.Sprint(id%7))
	case 1:
		ctx = balance.Sticky(ctx)
	}
	n := m.rng.IntN(4)
	pause, failing, breaks := time.Duration(m.rng.IntN(100))*time.Millisecond, m.chance(20), m.chance(30)
	kind := kinds[m.rng.IntN(len(kinds))]
	m.mu.Lock()
	m.twice[id], m.what[id] = policy == 1, kind
	m.mu.Unlock()
	done := func(err error) {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.outcomes[id]++
		m.errs[id] = err
		if err == nil {
			m.kinds[kind]++
		}
	}
	m.wg.Go(func() {
		defer cancel()
		s, err := c.Stub(ctx)
		if err != nil {
			done(err)
			return
		}
		k, err := rpc.Bind[workerClient](s)
		if err != nil {
			done(err)
			return
		}
		args := struct{ ID int }{id}
		if m.outside != nil && strings.HasPrefix(kind, "relayed") {
			k = m.outside
		}
		switch kind {
		case "func", "relayed":
			_, err = k.Work(ctx, id)
		case "Call":
			err = s.Call(ctx, "work", nil, id)
		case "typed":
			_, err = rpc.Method[struct{ ID int }, string](s, "work")(ctx, args)
		case "Go":
			err = s.Go(ctx, "work", nil, id).Wait(context.Background())
		case "CallFunc", "MethodFunc":
			endc := make(chan struct{})
			if kind == "CallFunc" {
				err = s.CallFunc(ctx, "work", func(_ context.Context, _ *rpc.Reply, err error) {
					done(err)
					close(endc)
				}, id)
			} else {
				err = rpc.MethodFunc[struct{ ID int }, string](s, "work")(ctx, args, func(_ context.Context, _ string, err error) {
					done(err)
					close(endc)
				})
			}
			if err == nil {
				<-endc
				return
			}
		case "Feed", "relayed Feed":
			r := &reader{n: n, pause: pause, err: io.EOF}
			if failing {
				r.err = io.ErrUnexpectedEOF
			}
			_, err = k.Feed(ctx, id, r)
		case "Tail", "relayed Tail":
			for _, failure := range k.Tail(ctx, id, n) {
				if err = failure; breaks {
					break
				}
			}
		case "Inner":
			inner, failure := k.Inner(ctx)
			if err = failure; err == nil {
				_, _ = inner.Name(ctx)
			}
		case "Get":
			err = s.Get(ctx, "place", nil)
		}
		done(err)
	})
}

// TestModel lets random things happen, and checks that each call has one outcome, which is true,
// that none is served twice which must not be, and that nothing is left in the end.
func TestModel(t *testing.T) {
	seeds := 40
	if raceEnabled {
		seeds = 8
	}
	start := rand.Uint64()
	succeeded := make(map[string]int)
	for seed := start; seed < start+uint64(seeds); seed++ {
		synctest.Test(t, func(t *testing.T) { runModel(t, seed, succeeded) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	for _, kind := range kinds {
		if succeeded[kind] == 0 {
			t.Errorf("no %s has succeeded", kind)
		}
	}
}

func runModel(t *testing.T, seed uint64, succeeded map[string]int) {
	m := &model{
		rng: rand.New(rand.NewPCG(seed, 0)), names: []string{"a", "b", "c", "d"}, closed: make(map[*balance.Client]bool), down: make(map[string]bool),
		outcomes: make(map[int]int), errs: make(map[int]error), twice: make(map[int]bool), kinds: succeeded, what: make(map[int]string),
	}
	m.world = newWorld(t, m.names...)
	attempts := m.rng.IntN(4) - 1 // until a peer is given up
	m.shared = m.sharing(func(ctx context.Context, address string) (*rpc.Peer, error) {
		return m.caller.Dial(ctx, address, netron.DialReconnect(100*time.Millisecond, attempts))
	})
	policy := balance.Policy(m.rng.IntN(5))
	for i := range 3 {
		m.clients = append(m.clients, m.idle(func(c *balance.Config) {
			c.Policy, c.WaitReady, c.Zone = policy, m.chance(50), []string{"", "east"}[m.rng.IntN(2)]
			c.Subset = []int{0, -1, 2}[m.rng.IntN(3)]
			c.EjectAfter = []int{0, 1, -1}[m.rng.IntN(3)]
			if i > 0 {
				m.shared.configure(c)
			}
		}))
	}
	if _, err := m.clients[0].Stub(t.Context()); err == nil {
		m.outside = m.passedOn(m.clients[0])
	}
	steps := 200
	for range steps {
		for range m.rng.IntN(5) {
			m.call()
		}
		if m.chance(25) {
			m.disturb()
		}
		time.Sleep(time.Duration(m.rng.IntN(60)) * time.Millisecond)
	}
	if m.chance(50) { // one ends with calls under way
		_ = m.clients[2].Close()
		m.closed[m.clients[2]] = true
		m.call()
	}
	m.wg.Wait()
	for _, restore := range m.restored {
		restore()
	}
	synctest.Wait()
	m.check()
	time.Sleep(3 * time.Minute) // what was silent is noticed, and who has left is forgotten
	for i, c := range m.clients {
		for _, s := range c.Stats() {
			if s.InFlight != 0 || s.State == balance.StateLeaving && !m.closed[c] {
				t.Errorf("client %d: %+v", i, s)
			}
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	m.shared.want("at the end", 0)
	if n := m.Conns() - m.Link("caller", "outside").Conns(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// check compares the outcomes of calls with what the workers have seen.
func (m *model) check() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.world.mu.Lock()
	defer m.world.mu.Unlock()
	for id := range m.next {
		err, served := m.errs[id], m.ledger[id]
		hasID := m.what[id] != "Inner" && m.what[id] != "Get"
		sent, known := rpc.WasSent(err)
		switch {
		case m.outcomes[id] != 1:
			m.t.Errorf("%s %d has %d outcomes", m.what[id], id, m.outcomes[id])
		case served > 1 && !m.twice[id]:
			m.t.Errorf("%s %d was served %d times", m.what[id], id, served)
		case err == nil && served == 0 && hasID:
			m.t.Errorf("%s %d has succeeded, and was not served", m.what[id], id)
		case err != nil && served > 0 && (known && !sent || rpc.Unserved(err)):
			m.t.Errorf("%s %d was served %d times, and was not sent: %v", m.what[id], id, served, err)
		}
	}
}
