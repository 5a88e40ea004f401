package discover

import (
	"context"
	"crypto/rand"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
)

// beat is a sign of life: a record and how long it lasts.
type beat struct {
	id     string
	fields fields
	ttl    time.Duration
	claim  bool // also if another instance has the id
}

// beaten is what came of it.
type beaten struct {
	isNew  bool   // there was no record
	holder string // the other instance that had the id and was alive
	isHeld bool   // it still has it: nothing was written
}

// own is the node that is registered here.
type own struct {
	wake chan struct{} // has one element when a sign of life is due
	now  chan struct{} // has one element when it is due without any delay
	busy chan struct{} // has one element while somebody beats or leaves, so that none comes after the other

	mu      sync.Mutex
	node    *Node         // nil if there is none; not changed, but replaced; guarded by mu
	fields  fields        // its record; guarded by mu
	edition uint64        // grows with each new node; guarded by mu
	told    uint64        // the edition that the store has; guarded by mu
	claim   bool          // guarded by mu
	taken   bool          // another process has the id; guarded by mu
	turned  chan struct{} // closed at the next change of told; guarded by mu

	unsaid string // what is still to be announced, empty if nothing is; guarded by busy
}

func newOwn() own {
	return own{wake: make(chan struct{}, 1), now: make(chan struct{}, 1), busy: make(chan struct{}, 1), turned: make(chan struct{})}
}

// poke asks for a sign of life now.
func (o *own) poke() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// pokeNow asks for a sign of life that others wait for.
func (o *own) pokeNow() {
	select {
	case o.now <- struct{}{}:
	default:
	}
}

// identity returns the id and the instance, both empty if there is no node.
func (o *own) identity() (id, instance string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.node == nil {
		return "", ""
	}
	return o.node.ID, o.node.Instance
}

func (o *own) isTaken() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.taken
}

// state reports whether the store does not have the node yet, and when to look again.
func (o *own) state() (turned <-chan struct{}, isOpen bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.turned, o.node != nil && o.told != o.edition
}

// turn is called with the lock held.
func (o *own) turn() {
	close(o.turned)
	o.turned = make(chan struct{})
}

// lock waits until nobody else beats or leaves.
func (o *own) lock(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case o.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *own) unlock() { <-o.busy }

// Register makes a node known, and keeps it so until [Registry.Deregister] or
// [Registry.Close], also when Redis has lost it in between. It waits for one answer of
// Redis.
//
// An error of code invalid_argument says what is wrong with the node; one of code
// unauthenticated, permission_denied or failed_precondition that Redis refuses it; others
// are those of ctx and [ErrClosed]. Then it is not registered, though Redis may have it for
// a TTL if it had no time to answer. That Redis is away is no
// error: it is told when it is back, and [Registry.WaitReady] waits for that.
//
// A registry has one node; to register it again changes it. The process that registers
// last has the id: another one that has it gets an event [IDTaken] and the error
// [ErrTaken], and has it back when this one leaves.
func (r *Registry) Register(ctx context.Context, n Node) error {
	return r.change(ctx, registration(&r.cfg, n), false)
}

// RegisterLater is [Registry.Register] without waiting. An error says what is wrong with the
// node, or that the registry is closed; as long as Redis refuses it, it is tried again, and
// [Registry.Err] says why.
func (r *Registry) RegisterLater(n Node) error {
	return r.change(context.Background(), registration(&r.cfg, n), true)
}

// Check returns what is wrong with a node, as [Registry.Register] would.
func (r *Registry) Check(n Node) error {
	n = n.Clone()
	if err := n.normalize(&r.cfg); err != nil {
		return err
	}
	_, err := encode(&n, &r.cfg)
	return err
}

// registration is the edit by which a node is registered.
func registration(cfg *Config, n Node) edit {
	n = n.Clone()
	return func(before *Node) (*Node, bool, error) {
		if err := n.normalize(cfg); err != nil {
			return nil, false, err
		}
		if before != nil && before.ID != n.ID {
			return nil, false, errorf(code.FailedPrecondition, "this registry has the node %s already", before.ID)
		}
		n.Suspect, n.Instance, n.Started = false, rand.Text(), time.Now()
		if before != nil {
			n.Instance, n.Started = before.Instance, before.Started
		}
		return &n, before == nil, nil
	}
}

// Update changes the own node: services, address, metadata and so on, but not the id. The
// function gets a copy, and may be called again if somebody else updates it at the same
// time. What Update waits for and returns is as for [Registry.Register], but the node
// stays registered as it was after an error.
func (r *Registry) Update(ctx context.Context, f func(*Node)) error {
	return r.change(ctx, update(&r.cfg, f), false)
}

// UpdateLater is [Registry.Update] without waiting, as [Registry.RegisterLater] is
// Register.
func (r *Registry) UpdateLater(f func(*Node)) error {
	return r.change(context.Background(), update(&r.cfg, f), true)
}

// update is the edit by which a node is updated.
func update(cfg *Config, f func(*Node)) edit {
	return func(before *Node) (*Node, bool, error) {
		if before == nil {
			return nil, false, errorf(code.FailedPrecondition, "there is no node to update")
		}
		n := before.Clone()
		f(&n)
		n.ID, n.Instance, n.Started, n.Suspect = before.ID, before.Instance, before.Started, false
		return &n, false, n.normalize(cfg)
	}
}

// SetServices replaces the services of the own node, as [Registry.Update] does.
func (r *Registry) SetServices(ctx context.Context, services ...Service) error {
	return r.Update(ctx, func(n *Node) { n.Services = services })
}

// edit makes the own node another one, which is to have its id, if claim is set, even if
// another process has it.
type edit func(before *Node) (after *Node, claim bool, err error)

// change replaces the own node and tells the store, or has it told if it is to be done later.
func (r *Registry) change(ctx context.Context, f edit, isLater bool) error {
	if r.isClosed() {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return explain("register", err)
	}
	o := &r.own
	o.mu.Lock()
	before, edition := o.node, o.edition
	o.mu.Unlock()
	after, claim, err := f(before) // which may be of a user
	if err != nil {
		return err
	}
	record, err := encode(after, &r.cfg)
	if err != nil {
		return err
	}
	o.mu.Lock()
	if o.edition != edition {
		o.mu.Unlock()
		return r.change(ctx, f, isLater)
	}
	savedFields, savedClaim := o.fields, o.claim
	o.node, o.fields, o.claim = after, record, o.claim || claim
	o.edition++
	mine := o.edition
	o.mu.Unlock()
	if isLater {
		o.pokeNow()
		return nil
	}
	err = r.tell(ctx)
	switch {
	case err == nil:
		return nil
	case r.isClosed():
		return ErrClosed
	case ctx.Err() == nil && !isCertain(err):
		o.poke() // it is tried again
		return nil
	}
	o.mu.Lock()
	if o.edition == mine {
		o.node, o.fields, o.claim = before, savedFields, savedClaim
		o.edition++
		o.turn()
	}
	o.mu.Unlock()
	return err
}

// Deregister takes the own node out of the registry, if there is one, at once. After an
// error it is there for at most a TTL.
func (r *Registry) Deregister(ctx context.Context) error {
	o := &r.own
	o.mu.Lock()
	n, wasTold := o.node, o.told > 0
	o.node, o.taken = nil, false
	o.edition++
	o.told = 0
	o.turn()
	o.mu.Unlock()
	if n == nil {
		return nil
	}
	if err := o.lock(ctx); err != nil {
		return explain("deregister", err)
	}
	defer o.unlock()
	patience := r.cfg.timeout()
	if r.isAway() {
		patience = min(patience, r.cfg.heartbeat()/beatsPerGrace) // it will expire
	}
	o.unsaid = ""
	r.report(partBeat, nil)
	r.report(partAnnounce, nil)
	short, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	left, err := r.store.leave(short, n.ID, n.Instance)
	if err != nil {
		if !wasTold && !isCertain(explain("", err)) {
			return nil // it never was there, as far as anybody knows
		}
		return unanswered(ctx, explain("deregister", err))
	}
	if left { // else another process has the id
		r.marks.node(n.ID, true)
		_ = r.announce(short, typeDeregistered, n) // they notice
	}
	return nil
}

// announce tells the others, and reports whether it could. If it could not they notice anyway.
func (r *Registry) announce(ctx context.Context, kind string, n *Node) error {
	if r.cfg.NoEvents {
		return nil
	}
	if err := r.store.announce(ctx, announce(kind, n, time.Now())); err != nil {
		r.log.Debug("discover: a change is not announced", "node", n.ID, "error", err)
		return explain("announce a change", err)
	}
	r.stats.announced.Add(1)
	return nil
}

// keep gives signs of life until ctx ends, and otherwise asks whether Redis is there.
func (r *Registry) keep(ctx context.Context) {
	wait := time.Nanosecond // at once
	for {
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-r.own.now:
			t.Stop()
		case <-r.own.wake:
			t.Stop()
			// Not more often than Redis is asked when it is away, and not all nodes at once.
			if !sleep(ctx, mathrand.N(min(r.cfg.heartbeat()/beatsPerGrace, r.cfg.retryDelay()))) {
				return
			}
		case <-ctx.Done():
			t.Stop()
			return
		}
		at := time.Now()
		err := r.tell(ctx)
		if ctx.Err() != nil {
			return
		}
		h := r.cfg.heartbeat()
		wait = h*4/5 + mathrand.N(h/5+1)
		if err != nil {
			wait = min(wait, r.cfg.retryDelay())
		} else {
			wait = max(wait-time.Since(at), time.Nanosecond) // also if the answer takes longer than that
		}
	}
}

// tell gives the store a sign of life of the own node, or asks whether it is there if
// there is no own node.
func (r *Registry) tell(ctx context.Context) error {
	if err := r.own.lock(ctx); err != nil {
		return explain("register", err)
	}
	defer r.own.unlock()
	whole := ctx
	ctx, cancel := context.WithTimeout(whole, r.cfg.timeout())
	defer cancel()
	o := &r.own
	o.mu.Lock()
	n, edition, told := o.node, o.edition, o.told
	b := beat{fields: o.fields, ttl: r.cfg.ttl(), claim: o.claim}
	o.mu.Unlock()
	if n == nil {
		err := unanswered(whole, r.ask(ctx))
		if whole.Err() == nil {
			r.report(partBeat, err)
		}
		return err
	}
	at := time.Now()
	b.id, b.fields[fieldTimestamp] = n.ID, milliseconds(at)
	got, err := r.store.beat(ctx, &b)
	if err != nil {
		err = unanswered(whole, explain("register", err))
		if whole.Err() == nil { // else it is the caller who gave up
			r.report(partBeat, err)
		}
		return err
	}
	r.report(partBeat, nil)
	r.answer()
	if r.store.tells() {
		r.proof.note(r, at.Sub(r.born))
	}
	r.stats.beats.Add(1)
	o.mu.Lock()
	wasTaken := o.taken
	if o.node == n {
		o.taken = got.isHeld
		if !got.isHeld {
			o.claim = false
		}
		o.told = edition // also if another has the id: that is not what anybody waits for
		o.turn()
	}
	o.mu.Unlock()
	switch {
	case got.isHeld && !wasTaken:
		r.stats.conflicts.Add(1)
		r.log.Error("discover: another process has registered under the id of this node", "node", n.ID, "instance", got.holder)
		r.emit(Event{Kind: IDTaken, Node: *n})
	case got.isHeld:
	case got.isNew || told == 0:
		if got.holder != "" {
			r.stats.takeovers.Add(1)
			r.log.Warn("discover: this node has the id of a process that was alive a moment ago", "node", n.ID, "instance", got.holder)
		}
		o.unsaid = typeRegistered
	case told != edition && o.unsaid == "":
		o.unsaid = typeUpdated
	}
	if o.unsaid != "" && !got.isHeld {
		err := unanswered(whole, r.announce(ctx, o.unsaid, n))
		if err == nil {
			o.unsaid = "" // else it is tried again with the next sign of life
		}
		if whole.Err() == nil {
			r.report(partAnnounce, err)
		}
	}
	if told != edition {
		r.marks.node(n.ID, false)
	}
	return nil
}
