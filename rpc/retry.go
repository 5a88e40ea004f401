package rpc

import (
	"context"
	"errors"
	"maps"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

// retryPolicy says which failed calls are made again.
type retryPolicy uint8

const (
	retryNone retryPolicy = iota
	retryUnsent
	retryLost
)

type retryKey struct{}

// Idempotent returns a context for calls that may be served twice without harm. Such a
// call to a dialled peer that is lost with its connection is made again over the next
// one, until its deadline; a call without one until the default time limit has passed
// since it was lost for the first time. It holds for calls that wait for their answer,
// not for [Stub.CallFunc], [MethodFunc] and [Stub.Go].
func Idempotent(ctx context.Context) context.Context {
	return context.WithValue(ctx, retryKey{}, retryLost)
}

// RetryUnsent is [Idempotent] for calls that must not be served twice: they are made
// again only if not a byte of them was sent, or if the peer, because it shuts down, said
// that it has not served them.
func RetryUnsent(ctx context.Context) context.Context {
	return context.WithValue(ctx, retryKey{}, retryUnsent)
}

// WasSent tells from the error of a call whether its request may have reached the peer.
// known is false if the error does not tell: then it may have. A request that was not
// sent can be repeated without harm.
func WasSent(err error) (sent, known bool) {
	if err == nil {
		return true, true
	}
	if e, ok := errors.AsType[*Error](err); ok && e.sent != sentUnknown {
		return e.sent == maybeSent, true
	}
	if lost, ok := errors.AsType[*mux.LostError](err); ok {
		return lost.Sent, true
	}
	if errors.Is(err, mux.ErrWouldBlock) || errors.Is(err, mux.ErrTooManyCalls) {
		return false, true
	}
	if e, ok := errors.AsType[*Error](err); ok && e.remote {
		return true, true
	}
	return false, false
}

// Unserved reports whether the error of a call says for certain that no handler has seen
// it: not a byte was sent, or the peer refused it because it shuts down, has too much to do,
// or does not have the service any more. It can be made again at another peer without harm.
func Unserved(err error) bool {
	if errors.Is(err, mux.ErrWouldBlock) {
		return false // nor would it be elsewhere
	}
	e, ok := errors.AsType[*Error](err)
	if ok && e.sent != sentUnknown {
		return e.sent == notSent
	}
	if lost, ok := errors.AsType[*mux.LostError](err); ok {
		return !lost.Sent || wasDrained(lost)
	}
	return ok && e.remote && e.Fields[fieldUnserved] == true || errors.Is(err, mux.ErrTooManyCalls)
}

// IsIdempotent reports whether calls under ctx may be served twice, see [Idempotent].
func IsIdempotent(ctx context.Context) bool { return policyOf(ctx) == retryLost }

// RetriesUnsent reports whether calls under ctx are to be made again until their deadline if
// nobody has served them, see [RetryUnsent] and [Idempotent].
func RetriesUnsent(ctx context.Context) bool { return policyOf(ctx) != retryNone }

// sentness is what an error tells of its request where its cause does not, or where the
// cause tells of the last attempt alone.
type sentness uint8

const (
	sentUnknown sentness = iota
	maybeSent            // one of the attempts may have reached the peer
	notSent
)

const (
	messageDraining     = "shutting down"
	messageReconnecting = "reconnecting"
)

// fieldUnserved marks the error by which a request is refused that no handler has seen.
// The errors of handlers never have it: one that was cut off says the same in words, and
// one may pass on what another peer has refused.
//
// Protocol section 12.5.
const fieldUnserved = "unserved"

// refusal is the error of a request that no handler has seen.
type refusal struct{ err *Error }

func (r *refusal) Error() string { return r.err.Error() }

// Unwrap returns the error as it travels.
func (r *refusal) Unwrap() error {
	marked := *r.err
	marked.Fields = map[string]any{fieldUnserved: true}
	return &marked
}

// errOverloaded refuses requests beyond the limits.
func errOverloaded() *Error {
	return &Error{Code: ResourceExhausted, Message: "overloaded", Fields: map[string]any{fieldUnserved: true}}
}

// errDraining refuses the requests of a peer that should go elsewhere.
func errDraining() *Error {
	return &Error{Code: Unavailable, Message: messageDraining, Fields: map[string]any{fieldUnserved: true}}
}

// wasRefused reports whether a peer that shuts down said that it has not served a request.
func wasRefused(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.remote && e.Code == Unavailable && e.Fields[fieldUnserved] == true
}

// wasDrained reports whether the peer said at the end of a connection that it has
// served nothing which it has not answered.
func wasDrained(lost *mux.LostError) bool {
	code, reason, remote := closeStatus(lost)
	return remote && code == closeGoingAway && reason == CloseDrained
}

// ofHandler returns an error as a handler may send it.
func ofHandler(e *Error) *Error {
	if _, marked := e.Fields[fieldUnserved]; !marked {
		return e
	}
	plain := *e
	plain.Fields = maps.Clone(e.Fields)
	delete(plain.Fields, fieldUnserved)
	return &plain
}

// callError is callError that says so when the peer is being dialled again.
func (p *Peer) callError(err error) *Error {
	if p.redial != nil {
		if lost, ok := errors.AsType[*mux.LostError](err); ok && !lost.Sent && p.State() == StateReconnecting {
			return &Error{Code: Unavailable, Message: messageReconnecting, cause: err}
		}
	}
	return callError(err)
}

// retry is a call that is made again.
type retry struct {
	peer   *Peer
	ctx    context.Context //nolint:containedctx // of the call, with a limit
	cancel context.CancelFunc
	policy retryPolicy
	tries  int
	sent   bool // an attempt may have been served
	queued bool // it counts among those that wait for the connection
}

func policyOf(ctx context.Context) retryPolicy {
	policy, _ := ctx.Value(retryKey{}).(retryPolicy)
	return policy
}

// mayRetry reports whether a call may be made again that has failed with err; it need
// not have failed. Callers ask before they make the function for [Peer.retried], which
// ordinary calls should not pay for.
func (p *Peer) mayRetry(ctx context.Context, err error) bool {
	return err != nil && p.redial != nil && p.allows(policyOf(ctx), err)
}

// allows reports whether a policy lets a call be made again that has failed with err.
func (p *Peer) allows(policy retryPolicy, err error) bool {
	if lost, ok := errors.AsType[*mux.LostError](err); ok {
		switch policy {
		case retryLost:
			return true
		case retryUnsent:
			return !lost.Sent || wasDrained(lost)
		}
		return !lost.Sent && p.endpoint.cfg.OfflineCalls > 0
	}
	return policy != retryNone && wasRefused(err)
}

// retried makes a call again that has failed with err, as long as its context and the
// outcome allow it, and returns the last outcome.
func (p *Peer) retried(ctx context.Context, err error, run func(context.Context) error) error {
	r := p.newRetry(ctx)
	defer r.stop()
	for r.again(&err) {
		err = run(r.ctx)
	}
	return r.outcome(err)
}

// outcome returns the error of the last attempt as that of all.
func (r *retry) outcome(err error) error {
	e, ok := errors.AsType[*Error](err)
	if sent, known := WasSent(err); !ok || !r.sent || (!known || sent) && !Unserved(err) {
		return err
	}
	all := *e
	all.sent = maybeSent
	return &all
}

// newRetry begins to make a call again. The caller stops it.
func (p *Peer) newRetry(ctx context.Context) *retry {
	r := &retry{peer: p, ctx: ctx, policy: policyOf(ctx), cancel: func() {}}
	if d := p.timeout(ctx); d > 0 {
		r.ctx, r.cancel = context.WithTimeout(ctx, d)
	}
	return r
}

func (r *retry) stop() {
	r.cancel()
	if r.queued {
		r.peer.life.mu.Lock()
		r.peer.life.offline--
		r.peer.life.mu.Unlock()
	}
}

// note notes whether an attempt that ended with err may have been served.
func (r *retry) note(err error) {
	if sent, known := WasSent(err); (sent || !known) && !Unserved(err) {
		r.sent = true
	}
}

const (
	retryPause    = 10 * time.Millisecond
	maxRetryPause = time.Second
)

// again waits until the call can be made again, and reports whether it is to be. If the
// time is up it replaces *err.
func (r *retry) again(err *error) bool {
	if *err == nil || !r.peer.allows(r.policy, *err) || !r.enqueue() {
		return false
	}
	r.note(*err)
	pause := jitter(min(retryPause<<min(r.tries, 10), maxRetryPause))
	r.tries++
	for waited := false; ; waited = true {
		event, changec := r.peer.changed()
		var timer <-chan time.Time
		switch event.State {
		case StateClosed:
			return false
		case StateConnected:
			if waited {
				return true
			}
			// The loss may not have been noted yet, or the peer goes on refusing.
			timer = time.After(pause)
			changec = nil
		}
		select {
		case <-timer:
			if r.peer.State() == StateConnected {
				return true
			}
		case <-changec:
		case <-r.ctx.Done():
			e := callError(r.ctx.Err())
			e.Message, e.cause = "no connection in time", errors.Join(e.cause, *err)
			*err = e
			return false
		}
	}
}

// enqueue counts a call that waits because all calls may. It reports false if too many do.
func (r *retry) enqueue() bool {
	if r.policy != retryNone || r.queued {
		return true
	}
	l := &r.peer.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.offline >= r.peer.endpoint.cfg.OfflineCalls {
		return false
	}
	l.offline++
	r.queued = true
	return true
}
