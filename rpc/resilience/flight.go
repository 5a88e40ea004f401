package resilience

import (
	"context"
	"sync"
)

// flights lets one of those who ask for the same thing at a time ask for all of them.
type flights[K comparable, V any] struct {
	single func(V) bool // reports a value for the one who asked alone; nil if there is none

	mu    sync.Mutex
	under map[K]*flight[V] // guarded by mu
}

// flight is a question under way that others wait for.
type flight[V any] struct {
	donec chan struct{} // closed by the one who asks
	value V             // valid once donec is closed, as are those below
	err   error
	valid bool // the outcome is also that of those who wait
}

// do returns what is kept for k, or else the outcome of ask, which all who want it meanwhile
// get; if the context of the one who asks ends first, another asks. kept and keep are called
// with mu held; keep gets a value without an error.
func (f *flights[K, V]) do(ctx context.Context, k K, kept func() (V, bool), keep func(V), ask func() (V, error)) (V, error) {
	for {
		f.mu.Lock()
		if v, ok := kept(); ok {
			f.mu.Unlock()
			return v, nil
		}
		other := f.under[k]
		if other == nil {
			mine := &flight[V]{donec: make(chan struct{})}
			if f.under == nil {
				f.under = make(map[K]*flight[V])
			}
			f.under[k] = mine
			f.mu.Unlock()
			return f.ask(ctx, k, mine, keep, ask)
		}
		f.mu.Unlock()
		select {
		case <-other.donec:
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
		if other.valid {
			return other.value, other.err
		}
	}
}

// ask asks, also for those who wait. A panic leaves them without an outcome.
func (f *flights[K, V]) ask(ctx context.Context, k K, mine *flight[V], keep func(V), ask func() (V, error)) (V, error) {
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if mine.valid && mine.err == nil {
			keep(mine.value)
		}
		delete(f.under, k)
		close(mine.donec)
	}()
	mine.value, mine.err = ask()
	mine.valid = mine.err == nil || ctx.Err() == nil
	if mine.err == nil && f.single != nil && f.single(mine.value) {
		mine.valid = false
	}
	return mine.value, mine.err
}
