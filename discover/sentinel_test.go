package discover

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/internal/redistest"
)

// startReplica starts a replica, and waits until it follows the master.
func startReplica(t *testing.T, master *redistest.Server) *redistest.Server {
	t.Helper()
	host, port, _ := strings.Cut(master.Addr(), ":")
	replica := redistest.Start(t, "--replicaof", host+" "+port)
	rep := newRaw(t, replica)
	eventually(t, "the replica follows", func() bool {
		info, _ := rep.do("INFO", "replication").ToString()
		return strings.Contains(info, "master_link_status:up")
	})
	return replica
}

// TestSentinels has three sentinels. The one that is asked first dies or says nothing any
// more, then the master dies.
func TestSentinels(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*redistest.Server){"dead": (*redistest.Server).Kill, "silent": (*redistest.Server).Pause} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testSentinels(t, end)
		})
	}
}

func testSentinels(t *testing.T, end func(*redistest.Server)) {
	master := redistest.Start(t)
	replica := startReplica(t, master)
	sentinels := redistest.StartSentinels(t, master, 3)
	cfg := quick()
	cfg.MasterSet, cfg.TTL, cfg.Timeout = "main", patience, time.Second
	for _, s := range sentinels {
		cfg.Addrs = append(cfg.Addrs, s.Addr())
		ask := newRaw(t, s)
		eventually(t, "the sentinel knows the replica", func() bool {
			replicas, _ := ask.do("SENTINEL", "REPLICAS", "main").ToArray()
			return len(replicas) == 1
		})
	}
	var all []*Registry
	var missed []*misses
	join := func() {
		t.Helper()
		r := startReady(t, cfg)
		register(t, r, Node{ID: fmt.Sprint("n", len(all)), Services: services("s")})
		all, missed = append(all, r), append(missed, countMisses(t, r))
		for _, r := range all {
			eventually(t, "all are there", func() bool { return len(r.Find("s")) == len(all) && r.Err() == nil })
		}
	}
	join()
	join()
	end(sentinels[0])
	join()
	master.Kill()
	for _, r := range all {
		eventually(t, "it notices", func() bool { return r.Err() != nil })
	}
	join()
	for i, r := range all {
		eventually(t, "all is well at the new master", func() bool {
			_, err := r.Fresh(t.Context(), "s")
			return err == nil && r.Err() == nil && r.Stats().Suspect == 0
		})
		if n := missed[i].left.Load(); n > 0 {
			t.Errorf("nodes have left %d times", n)
		}
	}
	if n, _ := newRaw(t, replica).do("SCARD", tsIndex).AsInt64(); n != int64(len(all)) {
		t.Errorf("the new master has %d nodes", n)
	}
}
