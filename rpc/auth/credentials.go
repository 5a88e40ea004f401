package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"strings"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/rpc"
)

// MaxCredentialBytes limits encoded credentials.
const MaxCredentialBytes = 64 << 10

// Credentials is what a peer shows to prove who it is. It does not print its secrets.
type Credentials struct {
	Token    string
	Username string
	Password string

	// Extra has the further members of the object that the peer sent, decoded.
	Extra map[string]any
}

// String tells which kind of credentials these are.
func (c Credentials) String() string {
	switch {
	case c.Token != "":
		return "credentials with a token"
	case c.Username != "":
		return "credentials with a password"
	}
	return "credentials"
}

// GoString is [Credentials.String].
func (c Credentials) GoString() string { return c.String() }

// LogValue implements [slog.LogValuer].
func (c Credentials) LogValue() slog.Value { return slog.StringValue(c.String()) }

// Members of the credentials on the wire (protocol section 7.6).
const (
	memberToken    = "token"
	memberUsername = "username"
	memberPassword = "password"
)

// wire returns the credentials as they are sent.
func (c Credentials) wire() map[string]any {
	m := maps.Clone(c.Extra)
	if m == nil {
		m = make(map[string]any)
	}
	for name, v := range map[string]string{memberToken: c.Token, memberUsername: c.Username, memberPassword: c.Password} {
		if v != "" {
			m[name] = v
		} else {
			delete(m, name)
		}
	}
	return m
}

// parseCredentials reads what a peer sent. The errors say nothing of the values.
func parseCredentials(raw codec.Raw) (c Credentials, err error) {
	if len(raw) > MaxCredentialBytes {
		return c, rpc.Errorf(rpc.ResourceExhausted, "credentials of %d bytes, limit %d", len(raw), MaxCredentialBytes)
	}
	var m map[string]any
	if len(raw) == 0 || codec.Unmarshal(raw, &m) != nil || len(m) == 0 {
		return c, rpc.Errorf(rpc.InvalidArgument, "credentials: want an object with token, or username and password")
	}
	for name, target := range map[string]*string{memberToken: &c.Token, memberUsername: &c.Username, memberPassword: &c.Password} {
		v, ok := m[name]
		delete(m, name)
		if !ok || v == nil {
			continue
		}
		if *target, ok = v.(string); !ok {
			return Credentials{}, rpc.Errorf(rpc.InvalidArgument, "credentials: %s is no string", name)
		}
	}
	if len(m) > 0 {
		c.Extra = m
	}
	return c, nil
}

// TokenOf returns the token that an upgrade request shows, as "Authorization: Bearer"
// or as ?token=, which browsers need, and whether there is one. It may be empty.
func TokenOf(header http.Header, query url.Values) (token string, shown bool) {
	for _, v := range header.Values("Authorization") {
		if scheme, token, _ := strings.Cut(v, " "); strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token), true
		}
	}
	return query.Get(memberToken), query.Has(memberToken)
}

// Authenticator finds out who shows credentials.
//
// It returns an error if nobody it knows does. The message of one of code
// [rpc.Unauthenticated] or [rpc.PermissionDenied] is told to the peer, and so is an
// error of any other code, which says that the question could not be answered. Of all
// other errors the peer learns nothing but that the credentials were not accepted.
//
// It is called by many goroutines at a time, and must heed the end of ctx. It gets at
// the peer by [rpc.PeerFrom] when the credentials came by the task authenticate.
type Authenticator interface {
	Authenticate(ctx context.Context, c Credentials) (*Identity, error)
}

// Func is an [Authenticator] that is a function.
type Func func(ctx context.Context, c Credentials) (*Identity, error)

// Authenticate implements [Authenticator].
func (f Func) Authenticate(ctx context.Context, c Credentials) (*Identity, error) { return f(ctx, c) }

// Bearer returns an [Authenticator] for credentials that are a token.
func Bearer(check func(ctx context.Context, token string) (*Identity, error)) Authenticator {
	return Func(func(ctx context.Context, c Credentials) (*Identity, error) {
		if c.Token == "" {
			return nil, rpc.Errorf(rpc.Unauthenticated, "a token is required")
		}
		return check(ctx, c.Token)
	})
}

// StaticTokens returns an [Authenticator] that knows a few tokens. It takes the same
// time whichever of them is shown, and keeps only their hashes. The empty token is
// nobody's.
func StaticTokens(tokens map[string]*Identity) Authenticator {
	type known struct {
		hash     [sha256.Size]byte
		identity *Identity
	}
	all := make([]known, 0, len(tokens))
	for token, identity := range tokens {
		all = append(all, known{sha256.Sum256([]byte(token)), identity})
	}
	return Bearer(func(_ context.Context, token string) (found *Identity, _ error) {
		hash := sha256.Sum256([]byte(token))
		for _, k := range all {
			if subtle.ConstantTimeCompare(hash[:], k.hash[:]) == 1 {
				found = k.identity
			}
		}
		return found, nil
	})
}
