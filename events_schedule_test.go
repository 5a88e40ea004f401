package netron_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/pubsub"
)

var eventSchedules = flag.Int("eventschedules", 0, "random schedules of TestEventSchedules; by default 30, and fewer with -short or -race")

// TestEventSchedules runs random schedules of emissions, subscriptions and what can go
// wrong, in virtual time. Each event comes at most once to a subscription, those of one
// emitter in their order; what has come and what is known to be lost are no more than what
// was emitted meanwhile, and just that where no connection was lost. Nothing is left.
func TestEventSchedules(t *testing.T) {
	n := *eventSchedules
	switch {
	case n > 0:
	case raceEnabled || testing.Short():
		n = 8
	default:
		n = 30
	}
	var all eventTotals
	for seed := range uint64(n) {
		synctest.Test(t, func(t *testing.T) {
			newMarket(t, seed, &all).run()
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%+v", all)
	if all.exact == 0 || all.lost == 0 || all.silent == 0 {
		t.Errorf("%+v: the schedules prove nothing", all)
	}
}

// eventTotals counts what came of the events of all schedules.
type eventTotals struct {
	subscriptions, exact        int
	emitted, came, lost, silent int // of all subscriptions together; silent is lost without a word
}

// market is a publisher, its subscribers, and a schedule.
type market struct {
	t      *testing.T
	rng    *rand.Rand
	totals *eventTotals
	policy pubsub.Policy
	server *netrontest.Node
	buyers []*buyer
	subs   []*order

	mu   sync.Mutex
	sent map[string]int // how many events each name had; guarded by mu
	done map[string]int // of these, emissions that have returned; guarded by mu
}

// buyer is a subscriber on a link of its own.
type buyer struct {
	peer      *netron.Peer
	link      *netrontest.Link
	stalled   bool
	slowUntil time.Time // there may be events on their way
	losses    int       // of connections that it may have had
}

// isBehind reports whether there may be events on their way, or losses that it has not
// been told of.
func (b *buyer) isBehind() bool {
	return b.stalled || time.Now().Before(b.slowUntil) || b.peer.State() != netron.StateConnected
}

// order is a subscription.
type order struct {
	buyer   *buyer
	pattern string
	cancel  context.CancelFunc
	before  int  // events that match, emitted before it; 0 if some of them may still come
	after   int  // and until it ended; -1 while it lasts
	losses  int  // of the buyer before it
	vague   bool // it began or ended while there may have been events on their way

	mu   sync.Mutex
	got  map[string][]int // by emitter; guarded by mu
	lost int              // guarded by mu
	err  error            // guarded by mu
}

func newMarket(t *testing.T, seed uint64, totals *eventTotals) *market {
	m := &market{t: t, rng: rand.New(rand.NewPCG(seed, 1)), totals: totals, sent: make(map[string]int), done: make(map[string]int)}
	m.policy = []pubsub.Policy{pubsub.DropOldest, pubsub.DropNewest, pubsub.Block, pubsub.Disconnect}[m.rng.IntN(4)]
	n := new(netrontest.Network)
	quietly := netrontest.Configure(func(cfg *netron.Config) { cfg.Logger, cfg.DrainWindow = quiet, -1 })
	m.server = n.Start(t, serverAddr, quietly, netrontest.Configure(func(cfg *netron.Config) {
		cfg.Events = netron.EventConfig{WhenFull: m.policy, BlockFor: 50 * time.Millisecond, MaxQueued: 20}
	}))
	for i := range 4 {
		addr := fmt.Sprintf("buyer%d:1", i)
		p, err := n.Start(t, addr, quietly).Dial(t.Context(), serverAddr)
		if err != nil {
			t.Fatal(err)
		}
		m.buyers = append(m.buyers, &buyer{peer: p, link: n.Link(addr, serverAddr)})
	}
	return m
}

func (m *market) run() {
	ctx, cancel := context.WithCancel(m.t.Context())
	var emitters sync.WaitGroup
	for i := range 3 {
		rng := rand.New(rand.NewPCG(m.rng.Uint64(), 2))
		emitters.Go(func() { m.emit(ctx, fmt.Sprint("e", i), rng) })
	}
	for range 60 {
		m.step()
		time.Sleep(time.Duration(m.rng.IntN(400)) * time.Millisecond)
		synctest.Wait()
	}
	for _, b := range m.buyers {
		b.link.Throttle(0)
		b.link.Resume()
		b.stalled, b.slowUntil = false, time.Time{}
	}
	time.Sleep(time.Minute) // what is lost has been noticed, and all have connected
	cancel()
	emitters.Wait()
	time.Sleep(time.Minute)
	synctest.Wait()
	for _, o := range m.subs {
		m.end(o)
	}
	time.Sleep(time.Minute)
	for _, o := range m.subs {
		m.check(o)
	}
	if got := m.server.Bus().Patterns(); len(got) != 0 {
		m.t.Errorf("at the end the server has %q", got)
	}
}

// emit emits until ctx ends: numbers that rise over all its names.
func (m *market) emit(ctx context.Context, who string, rng *rand.Rand) {
	pad := strings.Repeat("x", 2000)
	for n := 0; ctx.Err() == nil; n++ {
		name := who + []string{":a", ":b", ":c:d"}[rng.IntN(3)]
		m.mu.Lock()
		m.sent[name]++
		m.mu.Unlock()
		if _, err := m.server.Bus().EmitSerial(context.Background(), name, n, pad); err != nil {
			m.t.Errorf("emit %s: %v", name, err)
		}
		m.mu.Lock()
		m.done[name]++
		m.mu.Unlock()
		time.Sleep(time.Duration(1+rng.IntN(40)) * time.Millisecond)
	}
}

// matching counts the events so far that match a pattern: those that were emitted, and
// those whose emission has returned.
func (m *market) matching(pattern string) (sent, done int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.sent {
		if pubsub.Matches(pattern, name) {
			sent, done = sent+m.sent[name], done+m.done[name]
		}
	}
	return sent, done
}

// step does one thing to one of the subscribers.
func (m *market) step() {
	b := m.buyers[m.rng.IntN(len(m.buyers))]
	gentle := b == m.buyers[0] // there is one whose connection is never lost
	switch m.rng.IntN(10) {
	case 0:
		if !gentle {
			b.losses++
			b.link.Cut()
		}
	case 1, 2:
		if m.policy != pubsub.Disconnect || !gentle {
			b.stalled = true
			b.link.Stall()
			if m.policy == pubsub.Disconnect {
				b.losses++
			}
		}
	case 3, 4:
		b.stalled = false
		b.link.Resume()
	case 5:
		if m.policy == pubsub.Disconnect {
			break
		}
		rate := []int{0, 20 << 10}[m.rng.IntN(2)]
		b.link.Throttle(rate)
		if b.slowUntil = time.Now().Add(10 * time.Second); rate > 0 {
			b.slowUntil = time.Now().Add(time.Hour)
		}
	case 6:
		if p := m.server.Peer(b.peer.ID()); p != nil && !gentle {
			b.losses++
			p.GoAway("balance", time.Duration(m.rng.IntN(2000))*time.Millisecond)
		}
	case 7:
		if open := slices.DeleteFunc(slices.Clone(m.subs), func(o *order) bool { return o.after >= 0 }); len(open) > 0 {
			m.end(open[m.rng.IntN(len(open))])
		}
	default:
		m.begin(b)
	}
	// Stalls are shorter than what ends a connection.
	for _, b := range m.buyers {
		if b.stalled && m.rng.IntN(5) == 0 {
			b.stalled = false
			b.link.Resume()
		}
	}
}

// begin begins a subscription, if the peer has agreed before anything else happens.
func (m *market) begin(b *buyer) {
	synctest.Wait()
	pattern := []string{"*", "**", "e0:*", "e1:**", "*:a", "e2:c:d", "e0:a"}[m.rng.IntN(7)]
	ctx, cancel := context.WithCancel(context.Background())
	o := &order{buyer: b, pattern: pattern, cancel: cancel, after: -1, losses: b.losses, got: make(map[string][]int)}
	sent, done := m.matching(pattern)
	if o.vague = sent != done || b.isBehind(); !o.vague {
		o.before = sent
	}
	m.subs = append(m.subs, o)
	go func() {
		for e, err := range b.peer.Events(ctx, pattern, netron.SubscribeBuffer(1<<20, pubsub.DropNewest)) {
			o.note(e, err)
		}
	}()
	synctest.Wait()
}

func (o *order) note(e pubsub.Event, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if lost, isLost := errors.AsType[*pubsub.LostError](err); isLost {
		o.lost += int(lost.Count)
		return
	}
	n := 0
	if err == nil {
		err = e.Decode(&n)
	}
	if err != nil {
		o.err = err
		return
	}
	who, _, _ := strings.Cut(e.Name(), ":")
	if !pubsub.Matches(o.pattern, e.Name()) {
		o.err = fmt.Errorf("got %s", e.Name())
	}
	o.got[who] = append(o.got[who], n)
}

// end ends a subscription.
func (m *market) end(o *order) {
	if o.after >= 0 {
		return
	}
	synctest.Wait()
	sent, done := m.matching(o.pattern)
	o.after = sent
	o.vague = o.vague || sent != done || o.buyer.isBehind()
	o.cancel()
	synctest.Wait()
}

func (o *order) count() int {
	n := 0
	for _, numbers := range o.got {
		n += len(numbers)
	}
	return n
}

func (m *market) check(o *order) {
	m.t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, who := range slices.Sorted(maps.Keys(o.got)) {
		if !isRising(o.got[who]) {
			m.t.Errorf("%s of %s: events of %s came twice or out of order: %v", o.pattern, o.buyer.peer.ID(), who, o.got[who])
		}
	}
	sent, came := o.after-o.before, o.count()
	if came+o.lost > sent {
		m.t.Errorf("%s: %d came, %d are lost, of %d", o.pattern, came, o.lost, sent)
	}
	m.totals.subscriptions++
	m.totals.emitted += sent
	m.totals.came += came
	m.totals.lost += o.lost
	m.totals.silent += sent - came - o.lost
	if o.buyer.losses == o.losses && !o.vague {
		m.totals.exact++
		if came+o.lost != sent {
			m.t.Errorf("%s, whose connection was not lost: %d came, %d are lost, of %d", o.pattern, came, o.lost, sent)
		}
	}
}
