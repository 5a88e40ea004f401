package rpc

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

const (
	defaultDrainWindow = time.Second

	// CloseDrained is the reason of a close frame with code 1001 which says that every
	// request that was taken up has been answered: one without an answer was not served.
	//
	// Protocol section 12.5.
	CloseDrained = "drained"
)

func (c *Config) drainWindow() time.Duration {
	if c.DrainWindow == 0 {
		return defaultDrainWindow
	}
	return max(c.DrainWindow, 0)
}

// Drain asks the peers, also those that still come, to connect elsewhere, and serves
// them while they do so, see Config.DrainWindow. Then it refuses the new requests of all,
// and waits until the running ones have been answered or ctx ends.
func (e *Endpoint) Drain(ctx context.Context) error {
	e.mu.Lock()
	e.drains = true
	window := e.cfg.drainWindow()
	if e.refuses {
		window = 0
	}
	peers := slices.Collect(maps.Keys(e.peers))
	e.mu.Unlock()
	if deadline, ok := ctx.Deadline(); ok {
		window = max(min(window, time.Until(deadline)/2), 0)
	}
	var moving []*mux.Session
	for _, p := range peers {
		// Who was dialled by this side has nowhere else to connect to.
		if s := p.link(); s.GoAway(appendGoAway(goAwayShutdown, window/2)) && !p.connector {
			moving = append(moving, s)
		}
	}
	waitForEnds(ctx, window, moving)
	peers = e.refuse()
	for _, p := range peers {
		p.link().Refuse()
	}
	for _, p := range peers {
		if err := p.link().Drain(ctx); err != nil {
			return err
		}
	}
	return nil
}

// waitForEnds waits until all sessions have ended, the window has passed, or ctx ends.
func waitForEnds(ctx context.Context, window time.Duration, sessions []*mux.Session) {
	over := time.NewTimer(window)
	defer over.Stop()
	for _, s := range sessions {
		select {
		case <-s.Done():
		case <-over.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// refuse has all peers refused that come from now on, and returns those that are here.
func (e *Endpoint) refuse() []*Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.refuses = true
	peers := slices.Collect(maps.Keys(e.peers))
	if e.served != nil {
		peers = append(peers, e.served)
	}
	return peers
}
