package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

// runLimited runs a task that has a time limit.
//
// The function runs where any handler does, on the worker, with its arguments and
// its answer in what the session lends to the worker. Only an answer that becomes due
// while it runs comes from elsewhere: from the goroutine of a timer, out of a buffer of its
// own, see [mux.EarlyAnswer]. To run the function on a goroutine of its own instead,
// and leave it behind, would cost every task a copy of its arguments, a goroutine and
// a wake-up, and what is left behind would no longer be counted.
func (c *conn) runLimited(ctx context.Context, r *mux.Request, m *method, args []byte, n int, dst []byte) ([]byte, error) {
	t := &taskContext{parent: ctx, name: m.name, limit: m.limit}
	start := time.Now()
	t.deadline = start.Add(m.limit)
	r.MayAnswerEarly(&t.early)
	t.timer = time.AfterFunc(m.limit, t.expire)
	defer t.end() // also when the function panics
	out, err := c.run(t, m, args, n, dst)
	took := time.Since(start)
	m.observe(took)
	if took >= m.limit && errors.Is(err, context.DeadlineExceeded) {
		err = t.timeoutError() // the function saw the limit before the timer did
	}
	return out, err
}

// taskContext is the context of a task with a time limit, and what answers for the
// task at the limit. It behaves like one of [context.WithDeadline], but makes that
// only for a function that waits: most tasks never ask.
type taskContext struct {
	parent   context.Context //nolint:containedctx // it is one
	name     string
	limit    time.Duration
	deadline time.Time
	timer    *time.Timer // runs expire
	early    mux.EarlyAnswer

	mu     sync.Mutex
	ctx    context.Context    //nolint:containedctx // nil until somebody asks; guarded by mu
	cancel context.CancelFunc // guarded by mu
	ended  bool               // the function has returned; guarded by mu
}

// Deadline implements [context.Context].
func (t *taskContext) Deadline() (time.Time, bool) {
	if d, ok := t.parent.Deadline(); ok && d.Before(t.deadline) {
		return d, true
	}
	return t.deadline, true
}

// Done implements [context.Context].
func (t *taskContext) Done() <-chan struct{} { return t.full().Done() }

// Err implements [context.Context].
func (t *taskContext) Err() error { return t.full().Err() }

// Value implements [context.Context].
func (t *taskContext) Value(key any) any {
	if key == (peerKey{}) {
		return t.parent.Value(key)
	}
	return t.full().Value(key) // package context asks for what cancels the context
}

// full returns the context that the function waits for.
func (t *taskContext) full() context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ctx == nil {
		t.ctx, t.cancel = context.WithDeadline(t.parent, t.deadline)
		if t.ended {
			t.cancel()
		}
	}
	return t.ctx
}

// end is called when the function has returned. Nothing outlives it but an expire
// that has begun.
func (t *taskContext) end() {
	t.timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.ended = true
	if t.cancel != nil {
		t.cancel()
	}
}

// expire answers for a task that has reached its limit. It runs on a goroutine of
// the timer, which ends when the answer is queued or the connection has ended.
func (t *taskContext) expire() { t.early.Answer(appendError(nil, t.timeoutError()), true) }

func (t *taskContext) timeoutError() *Error {
	return &Error{Code: DeadlineExceeded, Message: fmt.Sprintf("Task %s timed out after %v", shown(t.name), t.limit)}
}
