package netron

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/engine"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/auth"
)

// DialOption changes one [Node.Dial].
type DialOption func(*dialSettings)

// dialSettings is what the options of one Dial change.
type dialSettings struct {
	engine.DialConfig
	urls   []string
	redial rpc.Redial
}

// DialHeader adds a header to the upgrade request, for example Authorization.
func DialHeader(key, value string) DialOption {
	return func(c *dialSettings) { c.Header.Add(key, value) }
}

// DialToken shows a bearer token in the upgrade request. A peer that does not accept it
// closes the connection with code 1008.
func DialToken(token string) DialOption { return DialHeader("Authorization", "Bearer "+token) }

// DialTLS sets the TLS configuration for wss:// in place of Config.TLS.
func DialTLS(cfg *tls.Config) DialOption {
	return func(c *dialSettings) { c.TLS = cfg }
}

// DialNet replaces the dialling of the socket, for proxies, Unix sockets and
// connections in memory.
func DialNet(dial func(ctx context.Context, network, addr string) (net.Conn, error)) DialOption {
	return func(c *dialSettings) { c.NetDial = dial }
}

// DialDriver chooses what drives the connection. Default is [DriverStd], which has
// the lower latency for calls that goroutines wait for; [DriverEpoll] pays with
// callbacks and with very many connections. It is a wish: wss:// and connections of
// a kind of their own have DriverStd.
func DialDriver(d Driver) DialOption {
	return func(c *dialSettings) { c.Driver = d }
}

// DialReconnect sets Config.ReconnectDelay and Config.MaxReconnectAttempts for one peer.
func DialReconnect(delay time.Duration, maxAttempts int) DialOption {
	return func(s *dialSettings) { s.redial.Delay, s.redial.MaxAttempts = delay, maxAttempts }
}

// DialAlso gives further addresses of the same peer. Dial tries each once; each attempt
// to reconnect takes the one behind that of the last, without a delay until all of them
// have failed.
func DialAlso(urls ...string) DialOption {
	return func(s *dialSettings) { s.urls = append(s.urls, urls...) }
}

// Dial connects to a peer and returns when it is ready for calls. url is ws://,
// wss://, or a bare host:port, which means ws://.
//
// The peer lives until [Peer.Close] or the end of the node. When it loses its connection
// it is dialled again, see Config.ReconnectDelay and [Peer.OnState]: calls under way fail
// with an error of code [Unavailable], as do those made until it is back, unless their
// context says otherwise, see [Idempotent] and Config.OfflineCalls. Stubs stay good.
//
// If it cannot be connected to now Dial returns the error, and does not try again. ctx and
// Config.ConnectTimeout limit this alone. A dial under way when the node is closed returns
// an error wrapping [ErrClosed]. [CodeOf] an error is [Unavailable], unless more is known:
// [Unauthenticated] for a token that is refused, what belongs to the HTTP status of a
// refused upgrade, or what ended ctx.
func (n *Node) Dial(ctx context.Context, url string, opts ...DialOption) (*Peer, error) {
	return n.dial(ctx, url, n.cfg.ID, opts)
}

// maxPoolConns is how many connections a pool has at most.
const maxPoolConns = 256

// DialPool is [Node.Dial] for conns connections to one peer, 1 to 256, over which calls are
// spread by how many are under way: see [Pool] and [QueryPool]. Each of them has all
// options, reconnects on its own, and is a peer of its own to the other side: the first
// one has the id of the node, the others "id#2", "id#3" and so on. Two to four are enough
// for what a few cores can do.
//
// It returns an error if one of them cannot be connected now, and has closed the others.
func (n *Node) DialPool(ctx context.Context, url string, conns int, opts ...DialOption) (*Pool, error) {
	if conns < 1 || conns > maxPoolConns {
		return nil, Errorf(InvalidArgument, "netron: a pool of %d connections, want 1 to %d", conns, maxPoolConns)
	}
	ids := make([]string, conns)
	for i := range ids {
		ids[i] = n.cfg.ID
		if i > 0 {
			ids[i] = fmt.Sprintf("%s#%d", n.cfg.ID, i+1)
		}
		if len(ids[i]) > maxIDBytes {
			return nil, Errorf(InvalidArgument, "netron: the id of the node leaves no room for %q", ids[i][len(n.cfg.ID):])
		}
	}
	peers, errs := make([]*Peer, conns), make([]error, conns)
	var wg sync.WaitGroup
	for i, id := range ids {
		wg.Go(func() { peers[i], errs[i] = n.dial(ctx, url, id, opts) })
	}
	wg.Wait()
	for _, err := range errs {
		if err == nil {
			continue
		}
		for _, p := range peers {
			if p != nil {
				_ = p.Close() // always nil
			}
		}
		return nil, err // the others will hardly say anything else
	}
	return rpc.NewPool(peers...)
}

// dial is Dial under an id.
func (n *Node) dial(ctx context.Context, url, id string, opts []DialOption) (*Peer, error) {
	if err := n.beginDial(); err != nil {
		return nil, err
	}
	defer n.wg.Done()
	settings := n.dialSettings(url, id, opts)
	var p *Peer
	settings.redial.Dial = func(ctx context.Context, attempt int) error {
		return n.connect(ctx, p, settings.urls[attempt%len(settings.urls)], &settings.DialConfig)
	}
	settings.redial.Addresses = len(settings.urls)
	p = n.endpoint.NewDialled(settings.redial)
	if err := p.Connect(ctx, len(settings.urls)); err != nil {
		return nil, err
	}
	return p, nil
}

// connect gives a peer a connection.
func (n *Node) connect(ctx context.Context, p *Peer, url string, cfg *engine.DialConfig) error {
	if err := n.beginDial(); err != nil {
		return err
	}
	defer n.wg.Done()
	ctx, cancel := n.dialContext(ctx)
	defer cancel()
	c, err := engine.Dial(ctx, url, cfg)
	if err != nil {
		return n.dialError(url, err)
	}
	s := n.endpoint.Bind(p, c, mux.Hint{})
	c.Start(n.track(c, s))
	s.Begin()
	if err := p.Adopt(ctx); err != nil {
		_ = c.Close() // always nil
		return n.dialError(url, err)
	}
	return nil
}

// dialError wraps why a dial failed. When the node has been closed meanwhile that
// is the reason, whatever the end of the dial's context looks like.
func (n *Node) dialError(url string, err error) error {
	if n.ctx.Err() != nil {
		err = ErrClosed
	}
	return &dialError{url: url, err: err}
}

// dialError is why a dial failed.
type dialError struct {
	url string
	err error
}

func (e *dialError) Error() string { return fmt.Sprintf("netron: dial %s: %v", e.url, e.err) }

func (e *dialError) Unwrap() error { return e.err }

// NetronCode is what [CodeOf] returns: [Unavailable] unless the peer, or ctx, has said more.
func (e *dialError) NetronCode() Code {
	if refused, ok := errors.AsType[*engine.HandshakeError](e.err); ok {
		switch refused.Status {
		case http.StatusUnauthorized:
			return Unauthenticated
		case http.StatusForbidden:
			return PermissionDenied
		case http.StatusNotFound:
			return NotFound
		case http.StatusTooManyRequests:
			return ResourceExhausted
		}
	}
	if closed, ok := errors.AsType[*engine.CloseError](e.err); ok && closed.Code == engine.ClosePolicy && closed.Reason == auth.Refused {
		return Unauthenticated
	}
	switch {
	case errors.Is(e.err, context.DeadlineExceeded):
		return DeadlineExceeded
	case errors.Is(e.err, context.Canceled):
		return Canceled
	}
	return Unavailable
}

// dialContext returns the context of one dial: it ends with ctx, with the limit
// for connecting, and with the node.
func (n *Node) dialContext(ctx context.Context) (context.Context, context.CancelFunc) {
	cancelLimit := func() {}
	if d := n.cfg.connectTimeout(); d > 0 {
		ctx, cancelLimit = context.WithTimeout(ctx, d)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(n.ctx, func() { cancel(ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
		cancelLimit()
	}
}

func (n *Node) dialSettings(target, id string, opts []DialOption) *dialSettings {
	cfg := &dialSettings{
		DialConfig: engine.DialConfig{Config: n.cfg.engine(), Header: make(http.Header), Query: url.Values{queryID: {id}}},
		urls:       []string{target},
		redial:     rpc.Redial{ID: id, Delay: n.cfg.ReconnectDelay, MaxDelay: n.cfg.MaxReconnectDelay, MaxAttempts: n.cfg.MaxReconnectAttempts},
	}
	cfg.Driver = DriverAuto // Config.Driver is that of incoming connections
	cfg.Header.Set(headerID, id)
	cfg.Header.Set(headerVersion, protocolVersion)
	for _, opt := range opts {
		opt(cfg)
	}
	return cfg
}

// beginDial counts a dial under way, unless the node is closing.
func (n *Node) beginDial() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closing {
		return ErrClosed
	}
	n.wg.Add(1)
	return nil
}

// dialledSession is the session of a dialled connection, which the node forgets at its
// end.
type dialledSession struct {
	*mux.Session
	node *Node
	conn *engine.Conn
}

// Closed implements [engine.Handler].
func (s *dialledSession) Closed(err error) {
	s.Session.Closed(err)
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	delete(s.node.dialled, s.conn)
}

// track remembers a dialled connection, which has not been started, for the end of the
// node, and returns the handler to start it with.
func (n *Node) track(c *engine.Conn, s *mux.Session) *dialledSession {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dialled[c] = struct{}{}
	return &dialledSession{s, n, c}
}
