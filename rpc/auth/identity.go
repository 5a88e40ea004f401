package auth

import (
	"context"
	"slices"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
)

// Identity is who a peer is. It must not be changed once an [Authenticator] has
// returned it.
type Identity struct {
	UserID      string
	Roles       []string
	Permissions []string
	Scopes      []string

	// Metadata is for handlers, and is not sent to the peer.
	Metadata map[string]any

	// Expires is when the identity ends to be valid; zero means never.
	Expires time.Time
}

// isValid reports whether there is an identity that has not expired.
func (i *Identity) isValid() bool {
	return i != nil && (i.Expires.IsZero() || time.Now().Before(i.Expires))
}

// HasRole reports whether the identity has one of the roles.
func (i *Identity) HasRole(roles ...string) bool {
	return slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(i.Roles, r) })
}

// HasPermissions reports whether the identity has all of the permissions.
func (i *Identity) HasPermissions(permissions ...string) bool {
	return !slices.ContainsFunc(permissions, func(p string) bool { return !slices.Contains(i.Permissions, p) })
}

// From returns who the caller of the request is that is served under ctx, or nil if
// that is not known, or not any more.
func From(ctx context.Context) *Identity { return valid(rpc.UserFrom(ctx)) }

func valid(user any) *Identity {
	if i, _ := user.(*Identity); i.isValid() {
		return i
	}
	return nil
}
