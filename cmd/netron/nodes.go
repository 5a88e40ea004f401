package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/d-e-v-grid/netron/discover"
)

// nodesFlags are the flags of netron nodes.
type nodesFlags struct {
	redis, prefix, service string
	timeout                time.Duration
	watch, asJSON          bool
}

// runNodes prints the nodes that are registered in Redis, and then perhaps what changes.
func runNodes(ctx context.Context, e *env, args []string) error {
	flags := newFlags(e, "nodes", "[flags]")
	var n nodesFlags
	flags.StringVar(&n.redis, "redis", "redis://127.0.0.1:6379", "`URL` of the Redis")
	flags.StringVar(&n.prefix, "prefix", "netron:discovery", "what the keys of the nodes begin with")
	flags.StringVar(&n.service, "service", "", "only nodes that offer what the `QUERY` asks for: a name, name@1.2.0 or name@^1.2")
	flags.DurationVar(&n.timeout, "timeout", 5*time.Second, "time limit for reaching Redis")
	flags.BoolVar(&n.watch, "watch", false, "go on with what changes until the process is told to end")
	flags.BoolVar(&n.asJSON, "json", false, "print one JSON object on a line for each node and each event")
	if err := parse(flags, args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return usagef("unexpected argument %q", flags.Arg(0))
	}
	if n.timeout <= 0 {
		return usagef("the time limit %v is not positive", n.timeout)
	}
	if n.service != "" {
		if err := discover.CheckQuery(n.service); err != nil {
			return err
		}
	}
	registry, err := n.open(ctx, e)
	if err != nil {
		return err
	}
	defer registry.Close(context.Background())
	p := newNodePrinter(e, n.service, n.asJSON)
	if !n.watch {
		return p.print(registry)
	}
	// Events begin before the nodes are printed, so that none is missed in between.
	printed := make(chan struct{})
	stop := registry.On(func(event discover.Event) {
		<-printed
		p.event(event)
	})
	defer stop()
	err = p.print(registry)
	close(printed)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// nodesRetry is how often Redis is tried until the time limit.
const nodesRetry = 100 * time.Millisecond

// open returns a registry that has read everything, and that writes nothing.
func (n *nodesFlags) open(ctx context.Context, e *env) (*discover.Registry, error) {
	cfg := discover.Config{
		URL: n.redis, Prefix: n.prefix, Timeout: n.timeout, RetryDelay: nodesRetry, Cleanup: -1,
		MaxNodes: -1, MaxEvents: 1 << 16, Logger: slog.New(slog.DiscardHandler),
	}
	if n.watch { // then it tells when Redis is lost and found
		cfg.RetryDelay, cfg.Logger = 0, slog.New(slog.NewTextHandler(e.stderr, nil))
	}
	registry, err := discover.New(cfg)
	if err != nil {
		return nil, err
	}
	if err := n.await(ctx, registry); err != nil {
		registry.Close(context.Background())
		return nil, err
	}
	return registry, nil
}

// await waits until a registry has read everything. It gives up at once when Redis refuses.
func (n *nodesFlags) await(ctx context.Context, registry *discover.Registry) error {
	limited, cancel := context.WithTimeout(ctx, n.timeout)
	defer cancel()
	retry := time.NewTicker(nodesRetry)
	defer retry.Stop()
	reason := errors.New("it is silent")
	for {
		_, err := registry.Fresh(limited, "any") // of any name: it asks Redis, and has the rest read
		if err == nil || exitCode(err) != exitUnavailable {
			return err
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			reason = err
		}
		select {
		case <-retry.C:
		case <-limited.Done():
		}
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case limited.Err() != nil:
			return fmt.Errorf("no answer of Redis within %v: %w", n.timeout, reason)
		}
	}
}
