package rpc

import (
	"context"
	"errors"
	"maps"
	"slices"

	"github.com/d-e-v-grid/netron/mux"
)

// Services asks the peer for the qualified names of its services and returns them
// sorted. Current TypeScript peers do not tell them: for such a peer the error has
// the code [Unimplemented] and wraps [errors.ErrUnsupported].
func (p *Peer) Services(ctx context.Context) ([]string, error) {
	c := p.conn.Load()
	services, err := c.askAbilities(ctx)
	if isMissingTask(err) {
		return nil, Errorf(Unimplemented, "rpc: the peer does not list its services: %w", errors.ErrUnsupported)
	}
	if err != nil {
		return nil, err
	}
	if c.kind() == mux.KindLegacy {
		c.keepAbilities(services)
	}
	return slices.Sorted(maps.Keys(services)), nil
}

// HasService reports whether the peer has a service; qualified is what
// [Peer.Service] takes, ranges included.
func (p *Peer) HasService(ctx context.Context, qualified string) (bool, error) {
	_, err := p.conn.Load().definition(ctx, qualified)
	if CodeOf(err) == NotFound && !isMissingTask(err) {
		return false, nil
	}
	return err == nil, err
}
