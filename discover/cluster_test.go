package discover

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// TestCluster has three servers that share out the slots: one dies that has none of our
// keys, then the one that has them.
func TestCluster(t *testing.T) {
	t.Parallel()
	servers := redistest.StartCluster(t, 3)
	slot, err := newRaw(t, servers[0]).do("CLUSTER", "KEYSLOT", "netron").AsInt64()
	if err != nil {
		t.Fatal(err)
	}
	at := int(slot) * 3 / 16384
	holder, other, third := servers[at], servers[(at+1)%3], servers[(at+2)%3]
	cfg := quick()
	cfg.Timeout, cfg.TTL = time.Second, 10*time.Second
	cfg.Addrs = []string{other.Addr(), third.Addr(), holder.Addr()}

	plain := start(t, cfg)
	if err := plain.Register(t.Context(), Node{ID: "a", Address: "h:1"}); codeOf(err) != code.FailedPrecondition || !strings.Contains(err.Error(), "hash tag") {
		t.Errorf("Register() in a cluster without a hash tag = %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := plain.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "hash tag") {
		t.Errorf("WaitReady() in a cluster without a hash tag = %v", err)
	}
	plain.Close(t.Context())

	cfg.Prefix = "{netron}:discovery"
	var all []*Registry
	for i := range 3 {
		r := startReady(t, cfg)
		register(t, r, Node{ID: fmt.Sprint("n", i), Services: services("s")})
		all = append(all, r)
	}
	missed := make([]*misses, len(all))
	for i, r := range all {
		wantIDs(t, "all", r.Nodes, "n0", "n1", "n2")
		eventually(t, "it is well", func() bool { return r.Err() == nil })
		missed[i] = countMisses(t, r)
	}
	first, version := all[0], 0
	events := watch(t, all[1])
	changes := func(when string) {
		t.Helper()
		for range 3 {
			heard := all[2].Stats().Heard
			version++
			s := Service{Name: "s", Version: fmt.Sprintf("1.0.%d", version)}
			eventually(t, "a change is written "+when, func() bool {
				return first.SetServices(t.Context(), s) == nil && first.Err() == nil
			})
			for {
				e := events.next()
				if e.Kind == ServiceAvailable && e.Service == s {
					break
				}
			}
			if got, err := all[2].Fresh(t.Context(), s.QualifiedName()); err != nil || len(got) != 1 {
				t.Errorf("%s Fresh() = %v, %v", when, got, err)
			}
			eventually(t, "the change is heard "+when, func() bool { return all[2].Stats().Heard > heard })
		}
	}
	changes("at first")
	other.Kill()
	changes("after the death of a server without our keys")
	for i, m := range missed {
		if n := m.left.Load() + m.suspect.Load(); n > 0 {
			t.Errorf("nodes were missed %d times by %d", n, i)
		}
	}
	third.Kill() // now two are dead: no majority
	for i, r := range all {
		eventually(t, "it notices that the cluster is down", func() bool { return codeOf(r.Err()) == code.Unavailable })
		if n := len(r.Nodes()); n != 3 {
			t.Errorf("%d sees %d nodes of a cluster that is down", i, n)
		}
	}
	third.Restart()
	holder.Restart()
	for _, r := range all {
		eventually(t, "all is well", func() bool {
			_, err := r.Fresh(t.Context(), "s")
			return err == nil && r.Err() == nil && r.Stats().Suspect == 0
		})
	}
	changes("after all")
	for i, m := range missed {
		if n := m.left.Load(); n > 0 {
			t.Errorf("nodes have left %d times the view of %d", n, i)
		}
	}
}
