package auth

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

// Config describes a [Guard].
type Config struct {
	// Authenticator finds out who peers are. Required.
	Authenticator Authenticator

	// Required says that a peer which connects must authenticate: until then every
	// request but the task authenticate is refused with [rpc.Unauthenticated], whether
	// it is for something that exists or not. Peers that this side dialled, and the local
	// one, are not asked; [Require] and [Policy] do ask them.
	Required bool

	// Deadline is how long a peer that must authenticate may take, before its connection
	// is closed with code 1008. Default 5 s, negative means no limit.
	Deadline time.Duration

	// Timeout limits one question to the Authenticator. Default 5 s, negative means no
	// limit.
	Timeout time.Duration

	// Logger receives, at level Debug, why credentials were not accepted. Nil means
	// [slog.Default].
	Logger *slog.Logger
}

const defaultTime = 5 * time.Second

func orDefault(d time.Duration) time.Duration {
	if d == 0 {
		return defaultTime
	}
	return d
}

// Close codes of the guard (protocol section 2.5).
const (
	// Refused is the reason with which a connection is closed whose token was refused.
	Refused = "authentication failed"

	closePolicy   = 1008
	closeTryLater = 1013
)

// Guard authenticates the peers of an endpoint. It is made by [New].
type Guard struct{ cfg Config }

// New returns a guard. It returns an error if there is no Authenticator.
func New(cfg Config) (*Guard, error) {
	if cfg.Authenticator == nil {
		return nil, errors.New("auth: Config.Authenticator is nil")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Guard{cfg: cfg}, nil
}

// Install makes the guard serve the endpoint that cfg will be used for.
func (g *Guard) Install(cfg *rpc.Config) {
	cfg.Authenticate = g.serve
	if g.cfg.Required {
		cfg.Admit = func(p *rpc.Peer) error { return require(p.User()) }
	}
}

// errRejected is what a peer learns of credentials that are not accepted, unless the
// [Authenticator] chose to tell more.
var errRejected = rpc.Errorf(rpc.Unauthenticated, "invalid credentials")

// Authenticate asks the [Authenticator], within the time limit. Its errors have a code
// and are fit for the peer.
func (g *Guard) Authenticate(ctx context.Context, c Credentials) (*Identity, error) {
	if d := orDefault(g.cfg.Timeout); d > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d)
		defer cancel()
	}
	i, err := g.cfg.Authenticator.Authenticate(ctx, c)
	if err == nil {
		if i.isValid() {
			return i, nil
		}
		err = errors.New("nobody, or expired")
	}
	g.cfg.Logger.Debug("netron: credentials not accepted", "err", err)
	if e, ok := errors.AsType[*rpc.Error](err); ok {
		if e.Code == 0 || e.Code == rpc.Unknown {
			return nil, errRejected
		}
		return nil, e
	}
	switch code := rpc.CodeOf(err); code {
	case rpc.DeadlineExceeded, rpc.Canceled:
		return nil, rpc.Errorf(code, "the credentials were not checked in time")
	}
	return nil, errRejected
}

func isRejection(err error) bool {
	code := rpc.CodeOf(err)
	return code == rpc.Unauthenticated || code == rpc.PermissionDenied
}

// outcome is the result of the task authenticate.
type outcome struct {
	Success bool     `msgpack:"success"`
	Context *account `msgpack:"context,omitempty"`
	Error   string   `msgpack:"error,omitempty"`
}

// account is an identity as its owner sees it.
type account struct {
	UserID      string   `msgpack:"userId"`
	Roles       []string `msgpack:"roles"`
	Permissions []string `msgpack:"permissions"`
	Scopes      []string `msgpack:"scopes,omitempty"`
}

// serve is the task authenticate. A peer whose credentials are not accepted stays who
// it was.
//
// Protocol section 7.6.
func (g *Guard) serve(ctx context.Context, raw codec.Raw) (any, error) {
	c, err := parseCredentials(raw)
	if err != nil {
		return nil, err
	}
	i, err := g.Authenticate(ctx, c)
	switch {
	case err == nil:
	case isRejection(err):
		e, _ := errors.AsType[*rpc.Error](err)
		return &outcome{Error: e.Message}, nil
	default:
		return nil, err
	}
	if p := rpc.PeerFrom(ctx); p != nil {
		p.SetUser(i)
	}
	a := &account{UserID: i.UserID, Roles: i.Roles, Permissions: i.Permissions, Scopes: i.Scopes}
	if a.Roles == nil {
		a.Roles = []string{}
	}
	if a.Permissions == nil {
		a.Permissions = []string{}
	}
	return &outcome{Success: true, Context: a}, nil
}

// Check asks who shows a token in an upgrade request. If nobody does, code and reason
// are those to close the connection with: 1008, or 1013 if the question could not be
// answered.
func (g *Guard) Check(ctx context.Context, token string) (i *Identity, code uint16, reason string) {
	i, err := g.Authenticate(ctx, Credentials{Token: token})
	switch {
	case err == nil:
		return i, 0, ""
	case isRejection(err):
		return nil, closePolicy, Refused
	}
	return nil, closeTryLater, "authentication not possible now"
}

// Watch closes the connection of a peer that must authenticate and does not in time.
// Call it once, when the peer has connected.
func (g *Guard) Watch(p *rpc.Peer) {
	d := orDefault(g.cfg.Deadline)
	if !g.cfg.Required || d < 0 {
		return
	}
	time.AfterFunc(d, func() {
		if valid(p.User()) == nil {
			p.CloseWith(closePolicy, "authentication timeout")
		}
	})
}

// Login shows credentials to a peer by the task authenticate, and returns who this
// side is for it from now on. It returns an error of code [rpc.Unauthenticated] if they
// are not accepted, and that of the task if they could not be checked, of which
// [rpc.Unavailable] may mean that the peer knows no authentication.
//
// Protocol section 7.6.
func Login(ctx context.Context, p *rpc.Peer, c Credentials) (*Identity, error) {
	var o outcome
	if err := p.RunTask(ctx, "authenticate", &o, c.wire()); err != nil {
		return nil, err
	}
	if !o.Success {
		if o.Error == "" {
			return nil, errRejected
		}
		return nil, rpc.Errorf(rpc.Unauthenticated, "%s", o.Error)
	}
	if o.Context == nil {
		o.Context = new(account)
	}
	return &Identity{UserID: o.Context.UserID, Roles: o.Context.Roles, Permissions: o.Context.Permissions, Scopes: o.Context.Scopes}, nil
}
