package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
)

// Config describes an [Endpoint]. Zero fields mean the documented default,
// negative limits and times mean none.
type Config struct {
	// ID is the id that peers see. Required.
	ID string

	// CallTimeout limits calls whose context has no deadline. Default 5 s.
	CallTimeout time.Duration

	// TaskTimeout limits the tasks that peers run here, see [Endpoint.AddTask].
	// Default 5 s.
	TaskTimeout time.Duration

	// TaskOverwrite says what [Endpoint.AddTask] does when the name is taken. Default
	// [TaskReplace].
	TaskOverwrite TaskOverwrite

	// HandshakeTimeout limits the handshake after the WebSocket upgrade. Default 10 s.
	HandshakeTimeout time.Duration

	// MaxMessageBytes limits the messages that are sent; larger calls and results
	// fail. It should be what the link accepts. Default 16 MiB.
	MaxMessageBytes int

	// Limits bounds what decoding one message may cost.
	Limits codec.Limits

	// MaxRequests, MaxRequestBytes, MaxQueueBytes and MaxQueuePackets are those of
	// [mux.Config].
	MaxRequests     int
	MaxRequestBytes int
	MaxQueueBytes   int
	MaxQueuePackets int

	// Workers is how many requests are served at a time, over all connections.
	// Default 65,536. WorkerBytes limits the bytes of these requests together.
	// Default 256 MiB.
	Workers     int
	WorkerBytes int

	// Authenticate serves the core task authenticate: it gets the encoded credentials,
	// nil if there were none, and returns the result of the task. Nil means that the
	// task answers [Unavailable].
	Authenticate func(ctx context.Context, credentials codec.Raw) (any, error)

	// Admit is asked before each request of a peer that connected to this side, that
	// task alone excepted, whether the request is one for something that exists or not.
	// An error is the answer. It must not block. Nil admits all.
	Admit func(*Peer) error

	// MaxReferences limits the services that a peer may hold which methods returned to
	// it: a method that returns one more fails. Default 10,000.
	MaxReferences int

	// MaxExposedServices is how many services a peer may expose here, for all other
	// peers: see [Peer.Publish]. Default none: peers that try get an error of code
	// [PermissionDenied]. Negative means any number.
	MaxExposedServices int

	// ServicesChanged is called whenever [Endpoint.Services] returns something else, at
	// times by several goroutines at once. It must not block. Nil means that nobody is told.
	ServicesChanged func()

	// Logger receives rare events. Nil means [slog.Default].
	Logger *slog.Logger

	// OfflineCalls is how many calls of one peer may wait while it has no connection
	// and is being dialled again. The others fail at once with an error of code
	// [Unavailable], as all do by default.
	OfflineCalls int

	// DrainWindow is how long [Endpoint.Drain] serves peers that can connect elsewhere.
	// They are asked to do so at random moments within its first half. It is at most half
	// of the time that Drain has. Default 1 s.
	DrainWindow time.Duration

	// Events says how events travel.
	Events EventConfig

	// Streams says how streams travel.
	Streams StreamConfig

	// Context is the parent of the contexts of all handlers. Nil means
	// [context.Background].
	Context context.Context //nolint:containedctx // the documented lifetime of the endpoint
}

const (
	defaultCallTimeout     = 5 * time.Second
	defaultTaskTimeout     = 5 * time.Second
	defaultMaxMessageBytes = 16 << 20
	defaultMaxReferences   = 10_000
	workersGrace           = 10 * time.Second // for handlers that still run when the endpoint closes
)

func (c *Config) callTimeout() time.Duration {
	if c.CallTimeout == 0 {
		return defaultCallTimeout
	}
	return max(c.CallTimeout, 0)
}

func (c *Config) taskTimeout() time.Duration {
	if c.TaskTimeout == 0 {
		return defaultTaskTimeout
	}
	return max(c.TaskTimeout, 0)
}

func (c *Config) maxMessageBytes() int {
	switch {
	case c.MaxMessageBytes == 0:
		return defaultMaxMessageBytes
	case c.MaxMessageBytes < 0:
		return int(^uint(0) >> 1)
	}
	return c.MaxMessageBytes
}

func (c *Config) maxReferences() int {
	if c.MaxReferences == 0 {
		return defaultMaxReferences
	}
	return max(c.MaxReferences, 0)
}

func (c *Config) logger() *slog.Logger {
	if c.Logger == nil {
		return slog.Default()
	}
	return c.Logger
}

// Endpoint is the rpc side of a node: the services and tasks that it offers, and
// its peers.
type Endpoint struct {
	cfg      Config
	services *registry
	nested   nestedTable
	tasks    *taskTable
	bus      *pubsub.Bus
	emitter  pubsub.Emitter // of the bus, for internal events too
	own      ownEvents
	receive  pubsub.Handler               // of the events of all peers; nil for none
	use      atomic.Pointer[[]Middleware] // for the requests of peers
	useOut   atomic.Pointer[[]Middleware] // for calls to peers
	workers  *mux.Workers

	overloaded []byte // encoded errors
	draining   []byte
	failed     []byte

	mu      sync.Mutex
	peers   map[*Peer]int      // how many connections of each have done their handshake; guarded by mu
	byID    map[string][]*Peer // those that claim an id, the first of them first; guarded by mu
	local   *Peer              // the calling end of the local pair; guarded by mu
	served  *Peer              // the other end; guarded by mu
	drains  bool               // Drain was called; guarded by mu
	refuses bool               // Drain has waited long enough for peers to go; guarded by mu
	closed  bool               // guarded by mu

	// What keeps connections up, see reconnect.go.
	redialCtx  context.Context //nolint:containedctx // ends when no connection is to be made any more
	stopRedial context.CancelFunc
	redials    sync.WaitGroup // goroutines that dial again

	// Other goroutines that are none of the workers: they tell of states, and run
	// middleware and what must not hold up others. Close waits for them.
	wg       sync.WaitGroup
	finished bool                    // none may begin any more; guarded by mu
	ctx      context.Context         //nolint:containedctx // that of background, which ends when Close waits
	cancel   context.CancelCauseFunc // of ctx
}

// NewEndpoint returns an endpoint without services. Close it when it is no
// longer needed.
func NewEndpoint(cfg Config) (*Endpoint, error) {
	if cfg.ID == "" {
		return nil, fmt.Errorf("rpc: new endpoint: empty id")
	}
	if err := cfg.TaskOverwrite.check(); err != nil {
		return nil, fmt.Errorf("rpc: new endpoint: %w", err)
	}
	workers, err := mux.NewWorkers(cfg.Workers, cfg.WorkerBytes, cfg.logger())
	if err != nil {
		return nil, fmt.Errorf("rpc: new endpoint: %w", err)
	}
	e := &Endpoint{
		cfg:        cfg,
		services:   newRegistry(),
		workers:    workers,
		overloaded: appendError(nil, errOverloaded()),
		draining:   appendError(nil, errDraining()),
		failed:     appendError(nil, errInternal()),
		peers:      make(map[*Peer]int),
		byID:       make(map[string][]*Peer),
	}
	e.redialCtx, e.stopRedial = context.WithCancel(context.Background())
	e.ctx, e.cancel = context.WithCancelCause(context.Background())
	e.tasks = newTaskTable(e)
	busConfig := cfg.Events.Bus
	busConfig.Payload = func(args []any) pubsub.Payload { return &argsPayload{args: args} }
	if busConfig.Logger == nil {
		busConfig.Logger = cfg.logger()
	}
	if e.bus, e.emitter, err = pubsub.NewPrivileged(busConfig); err != nil {
		_ = workers.Close(0) // nothing runs
		return nil, fmt.Errorf("rpc: new endpoint: %w", err)
	}
	e.services.changed = e.tellService
	if cfg.Events.Receive != nil {
		e.receive = e.guard(cfg.Events.Receive)
	}
	return e, nil
}

// ID returns the id that peers see.
func (e *Endpoint) ID() string { return e.cfg.ID }

// Expose makes the methods of a Go value callable by all peers. See
// [NewServiceOf] for which methods these are, and for the options.
func (e *Endpoint) Expose(qualified string, value any, opts ...ExposeOption) error {
	s, err := NewServiceOf(qualified, value, opts...)
	if err != nil {
		return err
	}
	return e.ExposeService(s)
}

// ExposeService makes a service callable by all peers. It returns an error of
// code [AlreadyExists] if its qualified name is taken or the service is exposed
// already, and reports what went wrong while the service was built.
//
// A service need not be exposed to be reached: a method that returns a *Service hands
// it to its caller, who calls it through a [Stub] until he releases it.
func (e *Endpoint) ExposeService(s *Service) error { return e.services.expose(s, e.cfg.ID) }

// Conceal ends the exposure of a service: name@version, or the name of one without a
// version. Requests that are being served go on; for later ones the service is not
// there, whatever the caller knows of it. It returns an error of code [NotFound] if
// there is no such service. A service may be exposed again afterwards.
func (e *Endpoint) Conceal(qualified string) error { return e.services.conceal(qualified) }

// Services returns the qualified names of the exposed services, sorted.
func (e *Endpoint) Services() []string {
	entries := e.services.all()
	names := make([]string, len(entries))
	for i, entry := range entries {
		names[i] = entry.service.QualifiedName()
	}
	return names
}

// NewPeer returns a peer without a connection. Give it one with [Endpoint.Bind].
// connector says that this side dials.
func (e *Endpoint) NewPeer(connector bool) *Peer {
	return newPeer(e, connector, nil)
}

// Bind returns the session that carries the peer over a new link. The owner of
// the link starts it with the session as its handler, and then calls
// [mux.Session.Begin]. A peer has one session at a time, except for one made by
// [Endpoint.NewDialled], which takes a new one by [Peer.Adopt].
func (e *Endpoint) Bind(p *Peer, link mux.Link, hint mux.Hint) *mux.Session {
	c := newConn(e, p)
	c.link = link
	cfg := c.config(hint)
	if p.connector {
		cfg.Token, cfg.TokenOf = p.lostToken()
	} else {
		c.token = newToken()
		cfg.Token = c.token
	}
	s := mux.NewSession(link, cfg)
	c.attach(s)
	return s
}

// validPing reports whether the payload of a PING is exactly one value.
func (e *Endpoint) validPing(payload []byte) bool {
	return checkValue(payload, e.cfg.Limits) == nil
}

// add makes a peer known whose handshake is done.
func (e *Endpoint) add(s *mux.Session, p *Peer, info mux.Peer) {
	e.mu.Lock()
	if e.refuses {
		s.Refuse()
	}
	e.peers[p]++
	var superseded, doubted *conn
	if info.ID != "" {
		superseded, doubted = e.claim(p, info)
	}
	drains := e.drains
	e.mu.Unlock()
	if superseded != nil {
		e.supersede(superseded)
	}
	if doubted != nil {
		e.doubt(doubted)
	}
	if drains {
		s.GoAway(appendGoAway(goAwayShutdown, 0))
	}
	e.tellPeer(eventConnect, info.ID)
}

func (e *Endpoint) remove(p *Peer, id string) {
	e.mu.Lock()
	if e.peers[p]--; e.peers[p] == 0 {
		delete(e.peers, p)
	}
	doubted := e.disclaim(p, id)
	e.mu.Unlock()
	e.tellPeer(eventDisconnect, id)
	if doubted != nil {
		e.doubt(doubted)
	}
}

// Peers returns the connected peers, in no order.
func (e *Endpoint) Peers() []*Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Collect(maps.Keys(e.peers))
}

// Peer returns the connected peer that claims an id, or nil. Of several the one
// that has claimed it for the longest time has it.
func (e *Endpoint) Peer(id string) *Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if claims := e.byID[id]; len(claims) > 0 {
		return claims[0]
	}
	return nil
}

// Local returns a peer that stands for this endpoint itself: calls to it take the
// same path as any other, without a socket. All callers share it; when one of them
// closes it, the next gets a new one.
func (e *Endpoint) Local() *Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.local != nil && (e.closed || e.local.Err() == nil) {
		return e.local
	}
	caller, callee := e.NewPeer(true), e.NewPeer(false)
	near, far := newConn(e, caller), newConn(e, callee)
	near.local, far.local = true, true
	a, b := mux.Pipe(near.config(mux.Hint{}), far.config(mux.Hint{}))
	near.attach(a)
	far.attach(b)
	if e.refuses {
		b.Refuse()
	}
	if e.closed {
		a.Close(closeGoingAway, "")
	}
	e.local, e.served = caller, callee
	return caller
}

const closeGoingAway = 1001

// Close ends the local peer and the workers. The sessions of other peers must
// have ended. It waits a bounded time for handlers that still run.
func (e *Endpoint) Close() error {
	e.mu.Lock()
	e.closed = true
	local := e.local
	e.mu.Unlock()
	e.stopRedial()
	if local != nil {
		local.link().Close(closeGoingAway, "")
		<-local.link().Done()
	}
	e.redials.Wait() // they may have to tell that their peers have ended
	e.mu.Lock()
	e.finished = true
	e.mu.Unlock()
	ended, stop := context.WithCancel(context.Background())
	stop()
	_ = e.bus.Close(ended) // handlers that are left behind have the time of the workers
	e.cancel(mux.ErrClosed)
	over := time.Now().Add(workersGrace)
	late := waitWithin(&e.wg, workersGrace)
	return errors.Join(e.workers.Close(max(time.Until(over), time.Millisecond)), late)
}

// waitWithin waits for goroutines of the endpoint, some of which run functions of the
// application. Those that ignore the end of their context are left behind after d.
func waitWithin(wg *sync.WaitGroup, d time.Duration) error {
	done := make(chan struct{})
	go func() { // ends with the last of them
		wg.Wait()
		close(done)
	}()
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
		return nil
	case <-t.C:
		return errors.New("rpc: close: a handler or callback ignores the end of its context")
	}
}

// beginRedial is begin for a goroutine that dials again.
func (e *Endpoint) beginRedial(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return false
	}
	e.redials.Go(f)
	return true
}

// begin starts a goroutine that the end of the endpoint waits for, or reports that it
// is too late.
func (e *Endpoint) begin(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.finished {
		return false
	}
	e.wg.Go(f)
	return true
}

// background runs f on a goroutine that the end of the endpoint waits for. Its context
// is ctx without the mark of a read owner; it ends with the endpoint, too.
func (e *Endpoint) background(ctx context.Context, f func(ctx context.Context)) error {
	started := e.begin(func() {
		ctx, cancel := context.WithCancelCause(mux.WithoutOwner(ctx))
		defer cancel(nil)
		defer context.AfterFunc(e.ctx, func() { cancel(context.Cause(e.ctx)) })()
		f(ctx)
	})
	if !started {
		return &Error{Code: Unavailable, Message: "this side has shut down", cause: mux.ErrClosed}
	}
	return nil
}
