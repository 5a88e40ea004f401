package rpc

import "context"

// peerContext is the context of the handlers that serve one connection. It ends
// when the connection does.
type peerContext struct {
	context.Context //nolint:containedctx // it is one
	peer            *Peer
}

type peerKey struct{}

// Value implements [context.Context].
func (c *peerContext) Value(key any) any {
	if key == (peerKey{}) {
		return c.peer
	}
	return c.Context.Value(key)
}

// PeerFrom returns the peer whose request is being served under ctx, or nil. Use
// it to call back over the same connection.
func PeerFrom(ctx context.Context) *Peer {
	p, _ := ctx.Value(peerKey{}).(*Peer)
	return p
}
