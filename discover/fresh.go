package discover

import (
	"context"
	"sync"
	"time"
)

// fences are questions to the store whose answer is that the view is current. Whoever asks
// while one is under way waits for the next one, together with all others: the store is
// asked once for all of them, after each of them has asked.
type fences struct {
	wake chan struct{} // has one element when somebody waits for next

	mu   sync.Mutex
	next *turn // nil if nobody waits; guarded by mu
}

// Fresh is [Registry.Lookup] in a view that is not older than the call: Redis was asked
// after it, and all that had been written there before has been taken into account. Calls
// at the same time share a question. It waits for the answer, for what has to be read
// because of it, and for Redis if that is away.
//
// A registration or an update that had returned before is in the answer. A node that had
// left before is not in it, or is suspect; one that died is in it as long as in the view.
//
// An error is of code invalid_argument for a query that makes no sense, unavailable or
// that of ctx; Lookup still has an answer then.
func (r *Registry) Fresh(ctx context.Context, query string) ([]*Node, error) {
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	nodes := r.view.Load().lookup(query)
	if nodes == nil {
		return nil, CheckQuery(query)
	}
	return nodes, nil
}

// refresh waits until the view is not older than the call.
func (r *Registry) refresh(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return explain("ask Redis", err)
	}
	r.fences.mu.Lock()
	t := r.fences.next
	if t == nil {
		t = &turn{done: make(chan struct{})}
		r.fences.next = t
	}
	r.fences.mu.Unlock()
	select {
	case r.fences.wake <- struct{}{}:
	default:
	}
	select {
	case <-t.done:
	case <-ctx.Done():
		return explain("ask Redis", ctx.Err())
	case <-r.done:
		return ErrClosed
	}
	if t.err != nil {
		return t.err
	}
	r.stats.fresh.Add(1)
	if !r.marks.pending() {
		return nil
	}
	return explain("read nodes", r.marks.settle(ctx))
}

// fence asks the store for those who wait, until ctx ends.
func (r *Registry) fence(ctx context.Context) {
	for {
		select {
		case <-r.fences.wake:
		case <-ctx.Done():
			return
		}
		r.fences.mu.Lock()
		t := r.fences.next
		r.fences.next = nil
		r.fences.mu.Unlock()
		if t == nil {
			continue
		}
		short, cancel := context.WithTimeout(ctx, r.cfg.timeout())
		t.err = unanswered(ctx, r.ask(short))
		cancel()
		if ctx.Err() != nil {
			t.err = ErrClosed
		}
		close(t.done)
	}
}

// ask asks the store once.
func (r *Registry) ask(ctx context.Context) error {
	at := time.Since(r.born)
	if err := r.store.fence(ctx); err != nil {
		return explain("ask Redis", err)
	}
	r.answer()
	r.stats.fences.Add(1)
	r.proof.note(r, at)
	return nil
}

// proof is the last time that the store was asked such that its answer came behind all
// marks of what had changed before.
type proof struct {
	mu   sync.Mutex
	at   time.Duration // guarded by mu
	upTo uint64        // the marks of what had changed before; guarded by mu
}

// note says that the store was asked at that time, and has answered.
func (p *proof) note(r *Registry, at time.Duration) {
	p.mu.Lock()
	p.at, p.upTo = at, r.marks.made.Load()
	p.mu.Unlock()
	p.check(r)
}

// check notes when the view was current if it has the marks of the proof.
func (p *proof) check(r *Registry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.marks.seen.Load() >= p.upTo {
		r.confirm(p.at)
	}
}
