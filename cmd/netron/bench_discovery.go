package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/d-e-v-grid/netron/bench"
)

// runDiscovery measures lookups, first those in the local view, then those that reach Redis.
func (b *benchFlags) runDiscovery(ctx context.Context, e *env) error {
	return b.withRedis(ctx, func(url string) error {
		for _, isFresh := range []bool{false, true} {
			run := bench.Discovery{URL: url, Fresh: isFresh, Callers: b.callers, Nodes: b.nodes, Duration: b.duration}
			result, err := run.Run(ctx)
			if err != nil {
				return err
			}
			if err := printResult(e, result, b.asJSON); err != nil {
				return err
			}
		}
		return nil
	})
}

// benchDiscovery runs lookups of one kind.
func (b *benchFlags) benchDiscovery(ctx context.Context, run bench.Discovery) (result *bench.Result, err error) {
	err = b.withRedis(ctx, func(url string) error {
		run.URL = url
		result, err = run.Run(ctx)
		return err
	})
	return result, err
}

// withRedis calls f with the Redis to use: the one that a flag names, or a redis-server of
// its own.
func (b *benchFlags) withRedis(ctx context.Context, f func(url string) error) error {
	if b.redis != "" {
		return f(b.redis)
	}
	server, err := bench.StartRedis(ctx)
	if errors.Is(err, bench.ErrNoRedis) {
		return fmt.Errorf("%w, or name one by --redis URL", err)
	}
	if err != nil {
		return err
	}
	defer server.Stop()
	return f(server.URL())
}
