package netron_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
)

// scenario is a story of a client and a server in virtual time. What holds for all of
// them is looked at by [world.finish].
type scenario struct {
	name   string
	setup  setup
	states string // of the peer after it was connected, repeated ones once; "" for none, "-" for any
	run    func(w *world)
}

const (
	latency = 100 * time.Millisecond // of a link that is slow enough to cut it in the middle

	lostAndBack   = "reconnecting:lost connected:ready"
	refusedAWhile = "reconnecting:lost reconnecting:dial_failed connected:ready"
)

// keepalive notices a silent connection after three to four seconds.
var keepalive = netron.Config{PingInterval: time.Second, PingTimeout: 3 * time.Second}

func TestScenarios(t *testing.T) {
	all := slices.Concat(lossScenarios, handshakeScenarios, silenceScenarios, addressScenarios, attemptScenarios,
		closeScenarios, drainScenarios, restartScenarios, offlineScenarios, identityScenarios)
	if len(all) < 60 {
		t.Errorf("%d scenarios, want 60 at least", len(all))
	}
	for _, s := range all {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, s.setup)
				s.run(w)
				w.settle()
				if got := w.states.String(); got != s.states && s.states != "-" {
					t.Errorf("states %s\nwant   %s", got, s.states)
				}
				w.finish()
			})
		})
	}
}
