package netron_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/rpc"
)

// form is how a call is made.
type form uint8

const (
	byStub form = iota
	byMethod
	byFuture
	byCallback
	byTask
	bySet     // of a property, which takes no time
	byInner   // of the service that open returned last
	byOpening // a service as the result, which is inner from then on
	bySearch  // for the service; no handler runs
	byServer  // the server calls the client
)

// policy says which calls are made again.
type policy uint8

const (
	plain policy = iota
	idempotent
	retryUnsent
)

// call is what is asked of the server, which does it once for each time that it gets it.
type call struct {
	form   form
	policy policy
	takes  time.Duration // at the handler
	within time.Duration // the limit of its context; 0 for none
	bytes  int           // more than it needs
}

// record is a call that was begun.
type record struct {
	call
	id       int
	cancel   context.CancelFunc
	donec    chan struct{} // closed when the call has returned
	outcomes atomic.Int32  // how many there were
	err      error         // set before donec closes, as the others
	result   int
	took     time.Duration
}

// begin begins a call.
func (w *world) begin(c call) *record {
	r := &record{call: c, id: len(w.calls) + 1, donec: make(chan struct{})}
	w.calls = append(w.calls, r)
	ctx, cancel := context.WithCancel(context.Background())
	if c.within > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), c.within)
	}
	switch c.policy {
	case idempotent:
		ctx = netron.Idempotent(ctx)
	case retryUnsent:
		ctx = netron.RetryUnsent(ctx)
	}
	r.cancel = cancel
	peer, desk, inner, start := w.peer, w.desk, w.inner.Load(), time.Now()
	if c.form == byServer {
		peer = w.accepted()
	}
	w.wg.Go(func() {
		defer cancel()
		r.result, r.err = w.ask(ctx, r, peer, desk, inner)
		r.took = time.Since(start)
		r.outcomes.Add(1)
		close(r.donec)
	})
	w.settle()
	return r
}

// doArguments are those of do.
type doArguments struct {
	ID, Milliseconds int
	Ballast          []byte
}

// ask makes a call and returns its outcome.
func (w *world) ask(ctx context.Context, r *record, peer *netron.Peer, desk, inner *netron.Stub) (got int, err error) {
	ms, ballast := int(r.takes.Milliseconds()), make([]byte, r.bytes)
	switch r.form {
	case byStub:
		err = desk.Call(ctx, "do", &got, r.id, ms, ballast)
	case byInner:
		err = inner.Call(ctx, "do", &got, r.id, ms, ballast)
	case byMethod:
		return rpc.Method[doArguments, int](desk, "do")(ctx, doArguments{r.id, ms, ballast})
	case byFuture:
		err = desk.Go(ctx, "do", &got, r.id, ms, ballast).Wait(context.Background())
	case byCallback:
		outcome := make(chan error, 10)
		err = desk.CallFunc(ctx, "do", func(_ context.Context, reply *netron.Reply, err error) {
			if err == nil {
				err = reply.Decode(&got)
			}
			outcome <- err
			if len(outcome) > 1 {
				r.outcomes.Add(1)
			}
		}, r.id, ms, ballast)
		if err == nil {
			err = <-outcome
			outcome <- err // another would be counted
		}
	case byTask, byServer:
		err = peer.RunTask(ctx, "do", &got, r.id, ms, ballast)
	case bySet:
		got, err = r.id, desk.Set(ctx, "last", r.id)
	case byOpening:
		var inner *netron.Stub
		if err = desk.Call(ctx, "open", &inner, r.id, ms); err == nil {
			got = r.id
			w.inner.Store(inner)
		}
	case bySearch:
		got = r.id
		_, err = peer.Service(ctx, "desk")
	}
	return got, err
}

// sentness is what an error tells of the request.
type sentness uint8

const (
	unknown sentness = iota
	wasSent
	unsent
	either // of them is fine; no error tells this
)

func sentnessOf(err error) sentness {
	switch sent, known := netron.WasSent(err); {
	case !known:
		return unknown
	case sent:
		return wasSent
	}
	return unsent
}

// good waits for a call, which must succeed and have been served so many times.
func (w *world) good(r *record, served int) {
	w.t.Helper()
	<-r.donec
	w.settle()
	if n := len(w.book.of(r.id)); r.err != nil || n != served {
		w.t.Errorf("call %d = %v, served %d times, want success and %d", r.id, r.err, n, served)
	}
}

// bad waits for a call, which must fail and have been served so many times.
func (w *world) bad(r *record, code netron.Code, s sentness, served int) {
	w.t.Helper()
	<-r.donec
	w.settle()
	if n := len(w.book.of(r.id)); netron.CodeOf(r.err) != code || s != either && sentnessOf(r.err) != s || n != served {
		w.t.Errorf("call %d = %v, sent: %v, served %d times, want %v, %v and %d", r.id, r.err, sentnessOf(r.err), n, code, s, served)
	}
}

// atOnce waits for a call that must fail before any time passes, without being sent.
func (w *world) atOnce(r *record) {
	w.t.Helper()
	w.bad(r, netron.Unavailable, unsent, 0)
	w.took(r, 0)
}

// took compares how long a call was under way.
func (w *world) took(r *record, want time.Duration) {
	w.t.Helper()
	<-r.donec
	if r.took != want {
		w.t.Errorf("call %d took %v, want %v", r.id, r.took, want)
	}
}

// waits checks that a call has no outcome yet.
func (w *world) waits(r *record) {
	w.t.Helper()
	w.settle()
	select {
	case <-r.donec:
		w.t.Errorf("call %d has ended with %v, want it to wait", r.id, r.err)
	default:
	}
}

// works makes a call of each form that follows the peer from one connection to the next.
func (w *world) works() {
	w.t.Helper()
	for _, f := range []form{byStub, byMethod, byFuture, byCallback, byTask, bySet, bySearch} {
		want := 1
		if f == bySearch {
			want = 0
		}
		w.good(w.begin(call{form: f}), want)
	}
}

// check looks at what holds for each call: it has exactly one outcome, in time; success
// means that it was served; it was served once unless it may be served twice, and not at
// all if its error says so.
func (w *world) check(r *record) {
	w.t.Helper()
	served := len(w.book.of(r.id))
	complain := func(what string) {
		w.t.Errorf("call %d, %+v: %s: served %d times, outcome %d, %v after %v", r.id, r.call, what, served, r.result, r.err, r.took)
	}
	if n := r.outcomes.Load(); n != 1 {
		complain(fmt.Sprintf("%d outcomes", n))
	}
	if served > 1 && r.policy != idempotent {
		complain("served twice")
	}
	if r.err == nil {
		if r.result != r.id || served == 0 && r.form != bySearch {
			complain("succeeded without being served")
		}
		return
	}
	e, ok := errors.AsType[*netron.Error](r.err)
	if !ok {
		complain("no error of this package")
		return
	}
	if served > 0 && (sentnessOf(r.err) == unsent || e.Fields["unserved"] == true) {
		complain("served, and said not to be")
	}
	const limit = 5 * time.Second // of calls without their own
	if r.within > 0 && r.took > r.within || r.took > max(r.within, 2*limit) {
		complain("too late")
	}
	switch e.Code {
	case netron.Unavailable, netron.DeadlineExceeded, netron.Canceled, netron.NotFound:
	default:
		complain("unexpected code")
	}
}

// book notes what handlers do.
type book struct {
	mu     sync.Mutex
	served map[int][]string // the nodes that have served a call, by its id
}

func (b *book) note(id int, node string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.served == nil {
		b.served = make(map[int][]string)
	}
	b.served[id] = append(b.served[id], node)
}

// of returns which nodes have served a call.
func (b *book) of(id int) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.served[id])
}

// desk is what is exposed in a world.
type desk struct {
	Last netron.Property[int] `netron:"last"`

	book *book
	node string
}

func newDesk(b *book, node string) *desk {
	d := &desk{book: b, node: node}
	d.Last.OnSet(func(_ context.Context, id int) error {
		b.note(id, node)
		return nil
	})
	return d
}

// Do notes the call, takes its time and returns the id.
func (d *desk) Do(ctx context.Context, id, ms int, _ []byte) (int, error) {
	d.book.note(id, d.node)
	if ms == 0 {
		return id, nil
	}
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return id, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Open is Do with another desk as its result.
func (d *desk) Open(ctx context.Context, id, ms int) (*netron.Service, error) {
	if _, err := d.Do(ctx, id, ms, nil); err != nil {
		return nil, err
	}
	return netron.NewServiceOf("inner", newDesk(d.book, d.node))
}
