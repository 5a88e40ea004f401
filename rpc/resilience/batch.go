package resilience

import (
	"context"

	"golang.org/x/sync/errgroup"
)

// Batch calls fn for each of the items, at most limit of them at a time, and returns
// the results in the order of the items. It waits for all that it started.
//
// The first error ends the context of the others, no further ones are started, and
// Batch returns that error and no results; so it does when ctx ends before all were
// started. limit below 1 counts as 1. fn must be safe for concurrent use.
func Batch[T, R any](ctx context.Context, items []T, limit int, fn func(ctx context.Context, item T) (R, error)) ([]R, error) {
	g, groupCtx := errgroup.WithContext(ctx)
	g.SetLimit(max(limit, 1))
	results := make([]R, len(items))
	started := 0
	for ; started < len(items) && groupCtx.Err() == nil; started++ {
		i := started
		g.Go(func() (err error) {
			results[i], err = fn(groupCtx, items[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	if started < len(items) {
		return nil, ctx.Err()
	}
	return results, nil
}
