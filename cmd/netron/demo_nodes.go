package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/discover"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/pubsub"
)

// demoNode returns a node that says nothing, and is closed with the demonstration.
func (d *demoRun) demoNode(cfg netron.Config) (*netron.Node, error) {
	cfg.Logger = slog.New(slog.DiscardHandler)
	node, err := netron.New(cfg)
	if err == nil {
		d.nodes = append(d.nodes, node)
	}
	return node, err
}

// close closes the nodes.
func (d *demoRun) close() {
	for _, n := range d.nodes {
		_ = n.Close() // they have served
	}
}

func (d *demoRun) property(ctx context.Context) error {
	version, err := d.calc.Version(ctx)
	if err != nil {
		return err
	}
	d.say("Version = %q", version)
	if err := d.calc.SetCounter(ctx, 41); err != nil {
		return err
	}
	counter, err := d.calc.Counter(ctx)
	if err != nil {
		return err
	}
	d.say("Counter, which was set to 41, is %v", counter)
	stub, err := d.peer.Service(ctx, "calculator")
	if err != nil {
		return err
	}
	if err = stub.Set(ctx, "version", "2.0.0"); err == nil {
		return errors.New("a readonly property was set")
	}
	d.say("Set(\"version\"): %v", err)
	return nil
}

func (d *demoRun) events(ctx context.Context) error {
	start := time.Now()
	names := make(chan string, 4)
	s, err := d.peer.Subscribe(ctx, "order:*", func(_ context.Context, e pubsub.Event) (any, error) {
		names <- e.Name()
		return nil, nil
	})
	if err != nil {
		return err
	}
	for _, name := range []string{"order:created", "invoice:created", "order:paid"} {
		if _, err := d.server.Bus().EmitParallel(ctx, name, 7); err != nil {
			return err
		}
	}
	for _, want := range []string{"order:created", "order:paid"} {
		select {
		case got := <-names:
			if got != want {
				return fmt.Errorf("got event %s, want %s", got, want)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.say("of order:created, invoice:created and order:paid those of order:* came, in %s", took(start))
	return s.Unsubscribe(ctx)
}

// found has nodes find each other, and one of them leave under load.
func (d *demoRun) found(ctx context.Context) error {
	hub := discover.NewHub() // with Redis: Discovery.Redis
	var nodes []*netron.Node
	for _, id := range []string{"node-a", "node-b", "caller"} {
		registry, err := discover.NewMemory(hub, discover.Config{})
		if err != nil {
			return err
		}
		cfg := netron.Config{ID: id, Discovery: netron.DiscoveryConfig{Registry: registry}}
		if id != "caller" {
			cfg.Addr = "127.0.0.1:0"
		}
		node, err := d.demoNode(cfg)
		if err != nil {
			return err
		}
		if nodes = append(nodes, node); id == "caller" {
			continue
		}
		if err := demo.Expose(node); err != nil {
			return err
		}
		if err := node.Start(); err != nil {
			return err
		}
		if err := node.Discovery().WaitReady(ctx); err != nil {
			return err
		}
	}
	leaving, caller := nodes[0], nodes[2]
	view := caller.Discovery()
	found, err := view.Fresh(ctx, "calculator@^1")
	if err != nil {
		return err
	}
	var urls []string
	for _, n := range found {
		urls = append(urls, n.ID+" at "+n.URL())
	}
	d.say("calculator@^1 is at %s", strings.Join(urls, ", "))
	const lookups = 1_000_000
	start := time.Now()
	for range lookups {
		view.Lookup("calculator@^1")
	}
	d.say("to look that up takes %d ns", time.Since(start).Nanoseconds()/lookups)

	client, err := caller.Find("calculator@^1")
	if err != nil {
		return err
	}
	calc, err := netron.QueryClient[demo.Client](ctx, client)
	if err != nil {
		return err
	}
	for range 1000 {
		if _, err := calc.Add(ctx, 2, 3); err != nil {
			return err
		}
	}
	var served []string
	for _, i := range client.Stats() {
		served = append(served, fmt.Sprintf("%d by %s", i.Picks, i.Instance.ID))
	}
	d.say("of 1,000 calls were served %s", strings.Join(served, ", "))
	var calls atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, 4)
	stop := make(chan struct{})
	for range cap(failed) {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := calc.Add(ctx, 2, 3); err != nil {
					failed <- err
					return
				}
				calls.Add(1)
			}
		})
	}
	err = leaving.Shutdown(ctx)
	close(stop)
	wg.Wait()
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		return <-failed
	}
	d.say("node-a has drained and left under %d calls, of which none failed; %d node is left", calls.Load(), len(view.Lookup("calculator@^1")))
	return nil
}

// reconnect breaks a connection and goes on.
func (d *demoRun) reconnect(ctx context.Context) error {
	node, err := d.demoNode(netron.Config{ID: "traveller"})
	if err != nil {
		return err
	}
	peer, err := node.Dial(ctx, d.server.Addr())
	if err != nil {
		return err
	}
	calc, err := netron.Query[demo.Client](ctx, peer, "calculator")
	if err != nil {
		return err
	}
	var states []string
	changes := make(chan netron.StateEvent, 16) // more than there are
	defer peer.OnState(func(e netron.StateEvent) { changes <- e })()
	start := time.Now()
	if err := d.server.Peer("traveller").Close(); err != nil {
		return err
	}
	sum, err := calc.Add(netron.Idempotent(ctx), 5, 3)
	if err != nil {
		return err
	}
	for len(states) == 0 || states[len(states)-1] != netron.StateConnected.String() {
		select {
		case e := <-changes:
			states = append(states, e.State.String())
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	d.say("the server closed the connection; Add(5, 3) = %v over the next one, after %s (%s)", sum, took(start), strings.Join(states, ", "))
	return peer.Close()
}
