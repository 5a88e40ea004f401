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

// proof is of questions to the store whose answers came behind all marks of what had
// changed before. The view has them some time later, while others may come all the time.
type proof struct {
	mu   sync.Mutex
	next question // the first that the view may not have yet; guarded by mu
	last question // guarded by mu
}

// question is when the store was asked, and the marks of what had changed before.
type question struct {
	at   time.Duration
	upTo uint64
}

// note says that the store was asked at that time, and has answered.
func (p *proof) note(r *Registry, at time.Duration) {
	p.mu.Lock()
	wasSeen := r.marks.seen.Load() >= p.last.upTo
	p.last = question{at: at, upTo: r.marks.made.Load()}
	if wasSeen {
		p.next = p.last
	}
	p.mu.Unlock()
	p.check(r)
}

// check notes when the view was current if it has the marks of a question.
func (p *proof) check(r *Registry) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := r.marks.seen.Load()
	if seen >= p.next.upTo {
		r.confirm(p.next.at)
		p.next = p.last
	}
	if seen >= p.last.upTo {
		r.confirm(p.last.at)
	}
}
