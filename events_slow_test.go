package netron_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
	"github.com/d-e-v-grid/netron/pubsub"
)

// crowd is a publisher with 99 subscribers that read, and one on a link of its own.
type crowd struct {
	t       *testing.T
	server  *netrontest.Node
	link    *netrontest.Link // of the slow one
	slow    *netron.Peer     // the server, as the slow one sees it
	tally   *eventTally      // of the slow one
	others  []*eventTally
	pad     string
	waits   time.Duration // what emissions took together
	longest time.Duration // what one took
}

const (
	crowdQueued   = 200
	crowdPad      = 1000
	crowdPatience = 300 * time.Millisecond
)

func newCrowd(t *testing.T, whenFull pubsub.Policy) *crowd {
	t.Helper()
	n := new(netrontest.Network)
	c := &crowd{t: t, link: n.Link("slow:1", serverAddr), pad: strings.Repeat("x", crowdPad)}
	quietly := netrontest.Configure(func(cfg *netron.Config) { cfg.Logger, cfg.DrainWindow = quiet, -1 })
	c.server = n.Start(t, serverAddr, quietly, netrontest.Configure(func(cfg *netron.Config) {
		cfg.Events = netron.EventConfig{WhenFull: whenFull, BlockFor: crowdPatience, MaxQueued: crowdQueued}
	}))
	pool, err := n.Start(t, "others:1", quietly).DialPool(t.Context(), serverAddr, 99)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pool.Peers() {
		c.others = append(c.others, c.follow(p))
	}
	if c.slow, err = n.Start(t, "slow:1", quietly).Dial(t.Context(), serverAddr); err != nil {
		t.Fatal(err)
	}
	c.tally = c.follow(c.slow)
	return c
}

// follow has a subscription lose nothing at the subscriber.
func (c *crowd) follow(p *netron.Peer) *eventTally {
	y := follow(c.t.Context(), p, "*", netron.SubscribeBuffer(100_000, pubsub.DropNewest))
	synctest.Wait()
	return y
}

// emit emits a number and much besides.
func (c *crowd) emit(name string, n int) {
	c.t.Helper()
	start := time.Now()
	if _, err := c.server.Bus().EmitParallel(context.Background(), name, n, c.pad); err != nil {
		c.t.Errorf("emit %d: %v", n, err)
	}
	took := time.Since(start)
	c.waits, c.longest = c.waits+took, max(c.longest, took)
}

// othersHave checks that the others have all events of a name in their order.
func (c *crowd) othersHave(name string, n int) {
	c.t.Helper()
	synctest.Wait()
	for i, y := range c.others {
		if got := y.of(name); !slices.Equal(got, fromTo(0, n)) || y.missing() != 0 {
			c.t.Fatalf("subscriber %d has %d of %d events %s, %d lost", i, len(got), n, name, y.missing())
		}
	}
}

// TestSlowSubscribers checks that one who does not read costs the others nothing and the
// emitter no more than the bound, and learns exactly what it has lost.
func TestSlowSubscribers(t *testing.T) {
	for policy, most := range map[pubsub.Policy]time.Duration{
		pubsub.DropOldest: 0,
		pubsub.DropNewest: 0,
		pubsub.Block:      crowdPatience, // once
	} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, policy)
				rare := &eventTally{}
				sub, err := c.slow.Subscribe(t.Context(), "rare", rare.handle, netron.SubscribeInline())
				if err != nil {
					t.Fatal(err)
				}
				c.emit("a", 0)
				synctest.Wait()
				c.link.Stall()
				const n, rares = 1000, 9
				for i := 1; i < n; i++ {
					c.emit("a", i)
					if i%100 == 0 {
						c.emit("rare", i/100-1)
					}
					if i%10 == 0 {
						synctest.Wait() // the others read
					}
				}
				c.othersHave("a", n)
				c.othersHave("rare", rares)
				if c.waits > most {
					t.Errorf("emissions took %v, want %v at most", c.waits, most)
				}
				c.link.Resume()
				time.Sleep(time.Second)
				synctest.Wait()
				got, gotRare := c.tally.of("a"), c.tally.of("rare")
				if lost := c.tally.missing(); !isRising(got) || !isRising(gotRare) || uint64(len(got)+len(gotRare))+lost != n+rares {
					t.Errorf("it has %d and %d events and knows of %d lost, want %d together", len(got), len(gotRare), lost, n+rares)
				}
				if lost := sub.Lost(); uint64(len(gotRare))+lost != rares || !slices.Equal(rare.of("rare"), gotRare) {
					t.Errorf("of the rare ones it has %d and knows of %d lost, want %d together", len(gotRare), lost, rares)
				}
				// What the link has taken, 64 KiB and a write or two, is not in the queue.
				if most := crowdQueued + 256<<10/crowdPad; len(got) > most {
					t.Errorf("%d events waited for it, limit about %d", len(got), most)
				}
				if newest := got[len(got)-1] == n-1; newest != (policy == pubsub.DropOldest) {
					t.Errorf("the last one is %d", got[len(got)-1])
				}
				c.emit("a", n)
				c.othersHave("a", n+1)
				if got := c.tally.of("a"); got[len(got)-1] != n {
					t.Errorf("after all that the last one is %d", got[len(got)-1])
				}
			})
		})
	}
}

// TestSlowSubscriberIsDisconnected checks that one who does not read is gone in time, and
// may come back.
func TestSlowSubscriberIsDisconnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, pubsub.Disconnect)
		c.link.Stall()
		const n = 1000
		for i := range n {
			c.emit("a", i)
			if i%10 == 0 {
				synctest.Wait()
			}
		}
		c.othersHave("a", n)
		if c.waits != 0 {
			t.Errorf("emissions took %v", c.waits)
		}
		start := time.Now()
		for c.server.Peer("slow") != nil {
			if time.Sleep(100 * time.Millisecond); time.Since(start) > 10*time.Second {
				t.Fatal("it is still there after 10 s")
			}
		}
		c.link.Resume()
		c.link.Cut()
		synctest.Wait()
		for e := range c.slow.States(t.Context()) {
			if e.State == netron.StateConnected {
				break
			}
		}
		c.emit("a", n)
		c.othersHave("a", n+1)
		if got := c.tally.of("a"); !isRising(got) || len(got) == 0 || got[len(got)-1] != n {
			t.Errorf("back again it has %v", got)
		}
	})
}

// TestThrottledSubscriber checks that one who reads at some speed gets what it can.
func TestThrottledSubscriber(t *testing.T) {
	for _, policy := range []pubsub.Policy{pubsub.DropOldest, pubsub.DropNewest, pubsub.Block} {
		t.Run(policy.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, policy)
				c.link.Throttle(100 << 10)
				const n = 1000
				for i := range n {
					c.emit("a", i)
					time.Sleep(time.Millisecond)
				}
				c.othersHave("a", n)
				time.Sleep(time.Minute)
				synctest.Wait()
				got, lost := c.tally.of("a"), c.tally.missing()
				if !isRising(got) || uint64(len(got))+lost != n {
					t.Errorf("%d events, %d lost, want %d together", len(got), lost, n)
				}
				if c.longest > crowdPatience {
					t.Errorf("an emission took %v, want %v at most", c.longest, crowdPatience)
				}
				if waits := policy == pubsub.Block; waits != (lost == 0) || waits != (c.waits > 0) {
					t.Errorf("%d lost, emissions took %v", lost, c.waits)
				}
			})
		})
	}
}

// TestEmitWhileClosing checks that the end of peers and of the node harms no emitter.
func TestEmitWhileClosing(t *testing.T) {
	for name, end := range map[string]func(*crowd) error{
		"peer":     func(c *crowd) error { return c.slow.Close() },
		"node":     func(c *crowd) error { return c.server.Close() },
		"shutdown": func(c *crowd) error { return c.server.Shutdown(context.Background()) },
		"cut":      func(c *crowd) error { c.link.Cut(); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, pubsub.Block)
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 4)
				for i := range cap(ended) {
					go func() {
						var err error
						for j := 0; ctx.Err() == nil && err == nil; j++ {
							_, err = c.server.Bus().EmitParallel(ctx, fmt.Sprint("e", i), j, c.pad)
							if err == nil {
								err = c.server.Broadcast(ctx, fmt.Sprint("b", i), j)
							}
							time.Sleep(time.Millisecond)
						}
						if errors.Is(err, pubsub.ErrClosed) || ctx.Err() != nil {
							err = nil
						}
						ended <- err
					}()
				}
				time.Sleep(20 * time.Millisecond)
				c.link.Stall()
				time.Sleep(500 * time.Millisecond)
				time.AfterFunc(time.Second, c.link.Cut) // what waits for the link then ends
				if err := end(c); err != nil {
					t.Error(err)
				}
				time.Sleep(20 * time.Millisecond)
				cancel()
				for range cap(ended) {
					if err := <-ended; err != nil {
						t.Errorf("an emitter got %v", err)
					}
				}
				c.link.Resume()
				synctest.Wait()
				for i := range cap(ended) {
					for _, y := range c.others {
						if got := y.of(fmt.Sprint("e", i)); len(got) == 0 || !isRising(got) {
							t.Fatalf("events %v are not in their order", got)
						}
					}
				}
			})
		})
	}
}
