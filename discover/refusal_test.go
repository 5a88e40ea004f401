package discover

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// TestNobodyWrites has a Redis that answers, and takes no heartbeats for longer than nodes
// live: nobody has died for that.
func TestNobodyWrites(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		text         string
		before, mend func(admin *raw)
	}{
		"out of memory": {
			"OOM",
			func(admin *raw) { admin.do("CONFIG", "SET", "maxmemory", "1") },
			func(admin *raw) { admin.do("CONFIG", "SET", "maxmemory", "0") },
		},
		"a replica": {
			"READONLY",
			func(admin *raw) { admin.do("REPLICAOF", "127.0.0.1", "1") },
			func(admin *raw) { admin.do("REPLICAOF", "NO", "ONE") },
		},
		"no replicas": {
			"NOREPLICAS",
			func(admin *raw) { admin.do("CONFIG", "SET", "min-replicas-to-write", "1") },
			func(admin *raw) { admin.do("CONFIG", "SET", "min-replicas-to-write", "0") },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			admin := newRaw(t, s)
			cfg := quick()
			cfg.URL, cfg.TTL, cfg.Grace = s.URL(), 600*time.Millisecond, 100*time.Millisecond
			a, b, c := startReady(t, cfg), startReady(t, cfg), startReady(t, cfg)
			register(t, a, Node{ID: "a", Services: services("s")})
			register(t, b, Node{ID: "b", Services: services("s")})
			all := []*Registry{a, b, c} // of which c only watches
			var missed []*misses
			for _, r := range all {
				wantIDs(t, "all", r.Nodes, "a", "b")
				missed = append(missed, countMisses(t, r))
			}
			tc.before(admin)
			for _, r := range all {
				eventually(t, "it says that nobody writes", func() bool {
					return codeOf(r.Err()) == code.Unavailable && strings.Contains(r.Err().Error(), tc.text)
				})
				wantIDs(t, "all", r.Nodes, "a?", "b?")
			}
			for deadline := time.Now().Add(2 * (cfg.TTL + cfg.Grace)); time.Now().Before(deadline); {
				for _, r := range all {
					if got, err := r.Fresh(t.Context(), "s"); err != nil || len(got) != 2 {
						t.Fatalf("Fresh() = %v, %v", got, err)
					}
				}
			}
			tc.mend(admin)
			for i, r := range all {
				wantIDs(t, "all", r.Nodes, "a", "b")
				eventually(t, "the error ends", func() bool { return r.Err() == nil })
				if n := missed[i].left.Load(); n > 0 {
					t.Errorf("nodes have left %d times", n)
				}
			}
			kill(a)
			for _, r := range all[1:] {
				wantIDs(t, "those who live", r.Nodes, "b")
			}
		})
	}
}

// TestRights has users that may not do all that is needed, until they may.
func TestRights(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	admin := newRaw(t, s)
	other := quick()
	other.URL = s.URL()
	o := startReady(t, other)
	register(t, o, Node{ID: "other", Services: services("s")})
	for name, tc := range map[string]struct {
		missing string
		isNode  bool // may be one
		err     Code // of Err
		text    string
	}{
		"eval":    {"-eval", false, 0, ""},
		"script":  {"-psetex", false, 0, ""},
		"client":  {"-client", true, 0, ""},
		"publish": {"-publish", true, code.PermissionDenied, "publish"},
		"reading": {"-hmget", true, code.PermissionDenied, "hmget"},
		"probe":   {"-setrange", true, 0, ""},
		"channel": {"resetchannels", true, code.PermissionDenied, "channel"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin := &raw{t: t, c: admin.c}
			admin.do("ACL", "SETUSER", name, "on", ">secret", "~*", "&*", "+@all", tc.missing)
			cfg := quick()
			cfg.URL, cfg.Username, cfg.Password, cfg.TTL = s.URL(), name, "secret", patience
			r := start(t, cfg)
			n := Node{ID: name, Address: "h:1", Services: services("t")}
			if err := r.Register(t.Context(), n); tc.isNode != (err == nil) || err != nil && codeOf(err) != code.PermissionDenied {
				t.Errorf("Register() without %s = %v", tc.missing, err)
			}
			eventually(t, "the error is clear", func() bool {
				err := r.Err()
				return codeOf(err) == tc.err && (err == nil || strings.Contains(strings.ToLower(err.Error()), tc.text))
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			if name != "reading" {
				if got, err := r.Fresh(ctx, "s"); err != nil || len(got) != 1 {
					t.Errorf("Fresh() without %s = %v, %v", tc.missing, got, err)
				}
			}
			admin.do("ACL", "SETUSER", name, "+@all", "&*")
			eventually(t, "the error ends", func() bool { return r.Err() == nil })
			register(t, r, n)
			if got, err := r.Fresh(ctx, "t"); err != nil || len(got) < 1 {
				t.Errorf("Fresh() with all rights = %v, %v", got, err)
			}
			eventually(t, "others see it", func() bool { _, ok := o.Node(name); return ok })
		})
	}
}

// TestLostRights takes rights from a registry that is well, and gives them back.
func TestLostRights(t *testing.T) {
	t.Parallel()
	for _, missing := range []string{"-client", "-eval", "-hmget", "-publish", "-subscribe", "-exists -setrange"} {
		t.Run(missing, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			admin := newRaw(t, s)
			admin.do("ACL", "SETUSER", "u", "on", ">secret", "~*", "&*", "+@all")
			cfg := quick()
			cfg.URL, cfg.Username, cfg.Password, cfg.TTL = s.URL(), "u", "secret", patience
			a, b := startReady(t, cfg), startReady(t, cfg)
			register(t, a, Node{ID: "a", Services: services("s")})
			wantIDs(t, "all", b.Nodes, "a")
			missed := countMisses(t, b)
			admin.do(append([]string{"ACL", "SETUSER", "u"}, strings.Fields(missing)...)...)
			admin.do("CLIENT", "KILL", "USER", "u")
			if missing != "-client" {
				for _, r := range []*Registry{a, b} {
					if missing == "-publish" || missing == "-eval" && r == b || missing == "-exists -setrange" && r == a {
						continue
					}
					eventually(t, "the error is clear", func() bool { return codeOf(r.Err()) == code.PermissionDenied })
				}
			}
			if missing == "-publish" {
				a.SetServices(t.Context(), services("s", "p")...)
				eventually(t, "the error is clear", func() bool { return codeOf(a.Err()) == code.PermissionDenied })
			}
			if got := fmt.Sprint(ids(b.Find("s"))); got != "[a]" {
				t.Errorf("without %s the view has %s", missing, got)
			}
			if missing == "-client" {
				eventually(t, "it does without", func() bool {
					err := a.SetServices(t.Context(), services("s", "t")...)
					got, err2 := b.Fresh(t.Context(), "t")
					return err == nil && err2 == nil && len(got) == 1 && a.Err() == nil && b.Err() == nil
				})
			}
			admin.do("ACL", "SETUSER", "u", "+@all")
			for _, r := range []*Registry{a, b} {
				eventually(t, "the error ends", func() bool { return r.Err() == nil })
			}
			if err := a.SetServices(t.Context(), services("s", "u")...); err != nil {
				t.Error(err)
			}
			if got, err := b.Fresh(t.Context(), "u"); err != nil || len(got) != 1 {
				t.Errorf("Fresh() with all rights again = %v, %v", got, err)
			}
			if n := missed.left.Load() + missed.suspect.Load(); n > 0 {
				t.Errorf("nodes were missed %d times", n)
			}
		})
	}
}
