package rpc

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// Peer is the other side of a connection. Both sides may expose services, and
// call those of the other.
type Peer struct {
	endpoint  *Endpoint
	connector bool // this side dialled

	conn atomic.Pointer[conn]
	user atomic.Pointer[any]

	use   atomic.Pointer[[]Middleware] // for what is asked of the peer
	chain atomic.Pointer[clientChain]

	inbox   atomic.Pointer[inbox]    // of the events of the peer; nil if nobody wants any
	private atomic.Pointer[registry] // services that only the peer sees; nil if there are none

	redial *Redial // nil if the peer does not reconnect
	life   life
}

func newPeer(e *Endpoint, connector bool, r *Redial) *Peer {
	p := &Peer{endpoint: e, connector: connector, redial: r}
	p.life.init()
	return p
}

// link returns the session that carries the peer.
func (p *Peer) link() *mux.Session { return p.conn.Load().session }

// localID returns the id that the peer sees.
func (p *Peer) localID() string {
	if p.redial != nil && p.redial.ID != "" {
		return p.redial.ID
	}
	return p.endpoint.cfg.ID
}

// User returns what the peer has authenticated as, nil if it has not.
func (p *Peer) User() any {
	if u := p.user.Load(); u != nil {
		return *u
	}
	return nil
}

// SetUser notes what the peer has authenticated as; nil takes it back. Handlers of
// its requests find it by [UserFrom]. It ends with the connection: one who connects
// anew has to authenticate anew.
func (p *Peer) SetUser(user any) { p.user.Store(&user) }

// ID returns the id that the peer claims, empty if it gave none. It is not
// authenticated.
func (p *Peer) ID() string {
	if c := p.conn.Load(); c != nil {
		if info := c.info.Load(); info != nil {
			return info.ID
		}
	}
	return ""
}

// Kind says which software the peer is, zero before the handshake is done.
func (p *Peer) Kind() mux.Kind {
	if c := p.conn.Load(); c != nil {
		return c.kind()
	}
	return 0
}

// Done is closed when the connection has ended for good and all calls have failed. A
// dialled peer outlives the loss of a connection: it ends when this side closes it, when
// its attempts to reconnect are used up, or with its node.
func (p *Peer) Done() <-chan struct{} { return p.life.donec }

// Err returns why the connection ended for good, or nil before.
func (p *Peer) Err() error {
	select {
	case <-p.life.donec:
		return p.life.err
	default:
		return nil
	}
}

// Stats returns counters of the present connection, or the last one.
func (p *Peer) Stats() mux.Stats { return p.link().Stats() }

const closeNormal = 1000

// Close ends the connection in an orderly way, for good, and waits for its end. It
// must not be called from a callback of [Stub.CallFunc].
func (p *Peer) Close() error {
	p.CloseWith(closeNormal, "")
	<-p.life.donec
	return nil
}

// CloseWith ends the connection for good, with a WebSocket close code and a reason, and
// does not wait.
func (p *Peer) CloseWith(code uint16, reason string) { p.shut(code, reason) }

// WaitReady waits for the end of the handshake. The owner of a dialled
// connection calls it before it hands the peer out.
func (p *Peer) WaitReady(ctx context.Context) error { return p.conn.Load().waitReady(ctx) }

func (c *conn) waitReady(ctx context.Context) error {
	info, err := c.session.WaitReady(ctx)
	if err != nil {
		return err
	}
	if info.Kind == mux.KindLegacy {
		// 0.6 connectors ask for the table of services at once, and 0.6 listeners
		// learn from it that the connection is in use.
		if err := c.fetchAbilities(ctx); err != nil {
			return fmt.Errorf("rpc: abilities of a 0.6 peer: %w", err)
		}
	}
	return nil
}

// Service asks the peer for a service: name@version, name for its highest release,
// or name and a range of versions for the highest that it admits, as in name@^1.2,
// name@~1.4, name@1.x and "name@>=1 <2". A range admits prereleases only if it names
// one.
//
// It returns an error of code [NotFound] if the peer does not have it, and of code
// [InvalidArgument] for a range that makes no sense. A current TypeScript peer finds
// only exact versions and its highest one, which a range may exclude: then the
// service counts as not found, even if there is an older version that would do. The
// stub of a dialled peer stays good when the peer reconnects: the service is asked for
// anew.
func (p *Peer) Service(ctx context.Context, qualified string) (*Stub, error) {
	if _, err := parseQuery(qualified); err != nil {
		return nil, err
	}
	stub, err := p.bind(ctx, qualified)
	if p.mayRetry(ctx, err) {
		err = p.retried(ctx, err, func(ctx context.Context) (err error) {
			stub, err = p.bind(ctx, qualified)
			return err
		})
	}
	return stub, err
}

// definition asks for the definition of a service, in the dialect of the peer.
func (c *conn) definition(ctx context.Context, qualified string) (*codec.Definition, error) {
	q, err := parseQuery(qualified)
	if err != nil {
		return nil, err
	}
	if c.kind() == mux.KindLegacy {
		return c.legacyDefinition(ctx, q)
	}
	ask := qualified
	if q.version == latest || (q.versions != nil && c.kind() != mux.KindNetron) {
		ask = q.name // TypeScript peers know neither name@* nor ranges
	}
	var definition *codec.Definition
	err = c.runTask(ctx, taskQueryInterface, &definition, ask)
	if isMissingTask(err) {
		return c.legacyDefinition(ctx, q)
	}
	if err != nil {
		return nil, err
	}
	if definition == nil {
		return nil, serviceNotFound(qualified)
	}
	if !q.admits(definition.Meta.Version) {
		return nil, &Error{Code: NotFound, Message: fmt.Sprintf("Service '%s' not found: the peer offers %s", qualified, shown(joinName(definition.Meta.Name, definition.Meta.Version)))}
	}
	return definition, nil
}

// legacyDefinition looks a service up in the table of a 0.6 peer.
func (c *conn) legacyDefinition(ctx context.Context, q query) (*codec.Definition, error) {
	if d := c.fromAbilities(q); d != nil {
		return d, nil
	}
	// It may have been exposed since the table was fetched.
	if err := c.fetchAbilities(ctx); err != nil {
		return nil, err
	}
	if d := c.fromAbilities(q); d != nil {
		return d, nil
	}
	return nil, serviceNotFound(q.qualified)
}

func (c *conn) fromAbilities(q query) *codec.Definition {
	c.mu.Lock()
	defer c.mu.Unlock()
	return lookUp(c.abilities, q)
}

// fetchAbilities asks for the table of services and keeps it.
func (c *conn) fetchAbilities(ctx context.Context) error {
	services, err := c.askAbilities(ctx)
	if err != nil {
		return err
	}
	c.keepAbilities(services)
	return nil
}

func (c *conn) keepAbilities(services map[string]*codec.Definition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abilities = services
}

// askAbilities asks for the table of services (protocol section 7.1).
func (c *conn) askAbilities(ctx context.Context) (map[string]*codec.Definition, error) {
	var answer struct {
		Services map[string]*codec.Definition
	}
	err := c.runTask(ctx, taskAbilities, &answer, map[string]any{"allowServiceEvents": false})
	return answer.Services, err
}

// RunTask runs a named task of the peer and stores its result in the pointer
// result; nil drops it.
func (p *Peer) RunTask(ctx context.Context, name string, result any, args ...any) error {
	err := p.conn.Load().runTask(ctx, name, result, args...)
	if p.mayRetry(ctx, err) {
		return p.retried(ctx, err, func(ctx context.Context) error { return p.conn.Load().runTask(ctx, name, result, args...) })
	}
	return err
}

// runTask is RunTask over one connection.
func (c *conn) runTask(ctx context.Context, name string, result any, args ...any) error {
	p, call := c.peer, c.session.NewCall()
	call.B = codec.AppendString(codec.AppendArrayHeader(call.B, 1+len(args)), name)
	start := len(call.B)
	if err := p.appendArguments(call, name, args); err != nil {
		return err
	}
	if chain := p.clientChain(); chain != nil {
		r := newClientRequest(p, OpTask, nil, name, call.B[start:], len(args))
		r.conn = c
		call.Release()
		return p.callThrough(ctx, chain, r, result)
	}
	return p.call(ctx, wire.TypeTask, call, result)
}

// appendArguments encodes the arguments of a call, or releases it.
func (p *Peer) appendArguments(c *mux.Call, method string, args []any) error {
	for i, arg := range args {
		b, err := p.appendArgument(c.B, arg)
		if err != nil {
			c.Release()
			return argumentError(method, i, err)
		}
		c.B = b
	}
	return nil
}

// call sends a request, which it takes, and decodes the answer into result.
func (p *Peer) call(ctx context.Context, t wire.Type, c *mux.Call, result any) error {
	reply, err := p.do(ctx, t, c)
	if err == nil {
		err = p.decodeReply(reply, result)
	}
	c.Release()
	return err
}

// do sends a request and waits for its answer. The caller releases c afterwards.
func (p *Peer) do(ctx context.Context, t wire.Type, c *mux.Call) (mux.Reply, error) {
	return p.doUntil(ctx, ctx, t, c)
}

// doUntil is do with the life of completeUntil.
func (p *Peer) doUntil(ctx, life context.Context, t wire.Type, c *mux.Call) (mux.Reply, error) {
	timeout, err := p.completeUntil(ctx, life, c)
	if err != nil {
		return mux.Reply{}, err
	}
	reply, err := c.Do(ctx, t, timeout)
	if err != nil {
		return reply, p.callError(err)
	}
	if reply.Meta {
		err = p.takeTrailer(ctx, &reply)
	}
	return reply, err
}

// complete adds to a request what it carries besides its payload, and checks it. It
// returns the time limit of the call besides that of its context, 0 for none.
func (p *Peer) complete(ctx context.Context, c *mux.Call) (time.Duration, error) {
	return p.completeUntil(ctx, ctx, c)
}

// completeUntil is complete for a call whose work on the other side may go on when ctx, that of
// the call, has ended: until life does.
func (p *Peer) completeUntil(ctx, life context.Context, c *mux.Call) (time.Duration, error) {
	if c.Session().CanMeta() {
		deadline, limited := life.Deadline()
		if err := appendMeta(ctx, c, deadline, limited); err != nil {
			return 0, err
		}
	}
	if _, limited := ctx.Deadline(); limited {
		return 0, p.checkSize(c)
	}
	return p.endpoint.cfg.callTimeout(), p.checkSize(c)
}

// checkSize refuses a request that the peer would answer by closing the
// connection.
func (p *Peer) checkSize(c *mux.Call) error {
	if n, limit := c.Len(), p.endpoint.cfg.maxMessageBytes(); n > limit {
		return Errorf(ResourceExhausted, "rpc: request of %d bytes, limit %d", n, limit)
	}
	return nil
}

// timeout returns the time limit of a call: that of its context, else the
// default one.
func (p *Peer) timeout(ctx context.Context) time.Duration {
	if _, ok := ctx.Deadline(); ok {
		return 0
	}
	return p.endpoint.cfg.callTimeout()
}

// decodeReply decodes an answer into the pointer result; nil drops it.
func (p *Peer) decodeReply(r mux.Reply, result any) error {
	lim := p.endpoint.cfg.Limits
	if r.IsError {
		return decodeError(r.Payload, lim)
	}
	if target, ok := result.(**Stub); ok {
		return p.decodeService(r.Payload, nil, target)
	}
	var err error
	if result != nil {
		err = codec.UnmarshalLimits(r.Payload, result, lim)
	} else {
		err = checkValue(r.Payload, lim)
	}
	if err != nil {
		return answerError(err)
	}
	return nil
}

// answerError reports an answer that the caller's type cannot hold.
func answerError(err error) error {
	return &Error{Code: Internal, Message: "the answer does not fit: " + err.Error(), cause: err}
}

// checkValue returns an error unless payload is exactly one value.
func checkValue(payload []byte, lim codec.Limits) error {
	d := codec.NewDecoder(payload, lim)
	if err := d.Skip(); err != nil {
		return err
	}
	return d.End()
}
