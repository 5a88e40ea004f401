package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
	"github.com/d-e-v-grid/netron/pubsub"
)

// runSub prints the events of a peer, a JSON object on a line for each.
func runSub(ctx context.Context, e *env, args []string) error {
	flags := newFlags(e, "sub", "[flags] URL PATTERN...")
	timeout := flags.Duration("timeout", 5*time.Second, "time limit for connecting and subscribing")
	count := flags.Int("count", 0, "end after so many events; 0: when the process is told to")
	buffer := flags.Int("buffer", 10_000, "events that wait to be printed; of more the oldest are lost, which is told on standard error")
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() < 2 || *count < 0 || *buffer < 1 {
		return usagef("want URL PATTERN..., and no negative numbers")
	}
	node, err := netron.New(netron.Config{ConnectTimeout: *timeout})
	if err != nil {
		return err
	}
	defer node.Close()
	peer, err := node.Dial(ctx, flags.Arg(0))
	if err != nil {
		return err
	}
	// One queue for all patterns, so that events are printed in their order.
	bus, err := pubsub.New(pubsub.Config{})
	if err != nil {
		return err
	}
	reader, err := bus.Reader("*", pubsub.Buffer(*buffer))
	if err != nil {
		return err
	}
	defer reader.Close()
	pass := func(ctx context.Context, event pubsub.Event) (any, error) {
		return bus.With().EmitEvent(ctx, pubsub.OpSerial, event)
	}
	var missed lossCounter
	defer missed.print(e)
	for _, pattern := range flags.Args()[1:] {
		sub, err := subscribe(ctx, peer, pattern, pass, *timeout)
		if err != nil {
			return describe(err)
		}
		missed.of = append(missed.of, lossOf{pattern: pattern, lost: sub.Lost})
	}
	fmt.Fprintf(e.stderr, "subscribed to %s\n", strings.Join(flags.Args()[1:], " "))
	for n := 0; *count == 0 || n < *count; {
		event, err := reader.Next(ctx)
		var lost *pubsub.LostError
		switch {
		case errors.As(err, &lost):
			fmt.Fprintf(e.stderr, "%d events were lost\n", lost.Count)
			continue
		case ctx.Err() != nil:
			return nil // the process was told to end
		case err != nil:
			return err
		}
		missed.print(e)
		if err := printEvent(e, event); err != nil {
			return err
		}
		n++
	}
	return nil
}

func subscribe(ctx context.Context, peer *netron.Peer, pattern string, handler pubsub.Handler, timeout time.Duration) (*netron.PeerSubscription, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	return peer.Subscribe(ctx, pattern, handler, netron.SubscribeInline())
}

// lossCounter tells of the events that the peer has not sent.
type lossCounter struct{ of []lossOf }

// lossOf is what a subscription has lost, of which told has been printed.
type lossOf struct {
	pattern string
	lost    func() uint64
	told    uint64
}

func (c *lossCounter) print(e *env) {
	for i := range c.of {
		l := &c.of[i]
		if lost := l.lost(); lost > l.told {
			fmt.Fprintf(e.stderr, "the peer has not sent %d events of %s\n", lost-l.told, l.pattern)
			l.told = lost
		}
	}
}

func printEvent(e *env, event pubsub.Event) error {
	args, err := event.Args()
	if err != nil {
		return err
	}
	line, err := json.Marshal(struct {
		Event string `json:"event"`
		Args  any    `json:"args"`
	}{event.Name(), toJSON(args)})
	if err != nil {
		return fmt.Errorf("event %s: %w", event.Name(), err)
	}
	fmt.Fprintf(e.stdout, "%s\n", line)
	return nil
}

// runEmit sends one event to a peer.
func runEmit(ctx context.Context, e *env, args []string) error {
	flags := newFlags(e, "emit", "[flags] URL NAME [ARG...]")
	timeout := flags.Duration("timeout", 5*time.Second, "time limit for connecting and sending")
	flags.SetInterspersed(false) // so that -1 is an argument
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() < 2 {
		return usagef("want URL NAME [ARG...], got %d arguments", flags.NArg())
	}
	values, err := parseArguments(flags.Args()[2:])
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	node, err := netron.New(netron.Config{ConnectTimeout: -1})
	if err != nil {
		return err
	}
	defer node.Close()
	peer, err := node.Dial(ctx, flags.Arg(0))
	if err != nil {
		return err
	}
	if err := peer.Emit(ctx, flags.Arg(1), values...); err != nil {
		return err
	}
	// The answer to anything says that the event, which was sent before, has arrived.
	if err := peer.RunTask(ctx, "unsubscribe", nil, flags.Arg(1)); err != nil {
		return err
	}
	return peer.Close()
}

// relay passes on what peers emit under the prefix of the demonstration, so that all who
// have subscribed get it.
func relay(ctx context.Context, event pubsub.Event) (any, error) {
	if !strings.HasPrefix(event.Name(), demo.EventPrefix) {
		return nil, nil
	}
	return netron.NodeFrom(ctx).Bus().With().EmitEvent(ctx, pubsub.OpSerial, event)
}
