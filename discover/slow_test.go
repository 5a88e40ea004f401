package discover

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// misses counts the nodes that leave the view of a registry, and that are suspect there.
type misses struct{ left, suspect atomic.Int64 }

func countMisses(t *testing.T, r *Registry) *misses {
	m := new(misses)
	t.Cleanup(r.On(func(e Event) {
		switch {
		case e.Kind == NodeLeft:
			m.left.Add(1)
		case e.Kind == NodeChanged && e.Node.Suspect:
			m.suspect.Add(1)
		}
	}))
	return m
}

// info returns a number that Redis knows.
func (r *raw) info(section, name string) int {
	r.t.Helper()
	text, err := r.do("INFO", section).ToString()
	if err != nil {
		r.t.Fatal(err)
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		if v, ok := strings.CutPrefix(lines.Text(), name+":"); ok {
			v, _, _ = strings.Cut(strings.TrimPrefix(v, "calls="), ",") // of a command
			n, err := strconv.Atoi(v)
			if err != nil {
				r.t.Fatal(err)
			}
			return n
		}
	}
	r.t.Fatalf("INFO %s has no %s", section, name)
	return 0
}

// TestSlowStore has a store whose answers come later than the next heartbeat is due: nobody
// is suspect for that, who dies is gone, and nobody asks more often than otherwise.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Heartbeat: time.Second, TTL: 3 * time.Second, Reconcile: time.Hour}
		f := newFleetWith(t, 5, cfg)
		const late, while = 1250 * time.Millisecond, time.Minute // there, and back
		f.late.Store(int64(late))
		time.Sleep(2 * while) // what was asked before has its answer
		asked := f.stores[0].asked.Load()
		for range while / time.Second {
			time.Sleep(time.Second)
			f.wantComplete("with a slow store")
		}
		if n := f.stores[0].asked.Load() - asked; n > 2*int64(while/time.Second) {
			t.Errorf("%d questions in %v", n, while)
		}
		if age := f.all[0].Age(); age > 6*2*late { // a question, what is under way, and what is marked until then
			t.Errorf("Age() = %v", age)
		}
		if got, err := f.all[1].Fresh(t.Context(), "s"); err != nil || len(got) != len(f.all) {
			t.Errorf("Fresh() = %v, %v", got, err)
		}
		f.wantLeft("with a slow store")

		first := f.all[0]
		f.all = f.all[1:]
		kill(first)
		time.Sleep(cfg.TTL + cfg.grace() + 5*2*late) // one after another: what is under way, and readings that find it missing, twice
		f.wantComplete("after a death")
		f.wantLeft("after a death", "n00")
	})
}

// TestSlowRedis has a Redis whose answers come late, then later than anybody waits.
func TestSlowRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	p := redistest.StartProxy(t, s.Addr())
	p.Delay(500 * time.Millisecond)
	cfg := quick()
	cfg.URL, cfg.Grace, cfg.Timeout = p.URL(), time.Second, 1500*time.Millisecond
	near := cfg
	near.URL = s.URL()
	a, b, c := start(t, cfg), start(t, cfg), startReady(t, near)
	wantReady(t, a)
	wantReady(t, b)
	for i, r := range []*Registry{a, b, c} {
		register(t, r, Node{ID: fmt.Sprint("n", i), Services: services("s")})
	}
	for _, r := range []*Registry{a, b, c} {
		wantIDs(t, "all", r.Nodes, "n0", "n1", "n2")
	}
	missed := []*misses{countMisses(t, a), countMisses(t, b), countMisses(t, c)}
	ts := newRaw(t, s)
	commands, evals, before := ts.info("stats", "total_commands_processed"), ts.info("commandstats", "cmdstat_eval"), a.Stats()
	if err := a.SetServices(t.Context(), services("s", "new")...); err != nil {
		t.Fatal(err)
	}
	if got, err := b.Fresh(t.Context(), "new"); err != nil || len(got) != 1 {
		t.Errorf("Fresh() over a slow connection = %v, %v", got, err)
	}
	eventually(t, "some heartbeats later", func() bool { return a.Stats().Beats > before.Beats+4 })
	// All read what a heartbeat of one of them changes, once: a busy loop would ask for more.
	if n, beats := ts.info("stats", "total_commands_processed")-commands, ts.info("commandstats", "cmdstat_eval")-evals; n > 30*beats {
		t.Errorf("%d commands for %d heartbeats", n, beats)
	}
	for i, r := range []*Registry{a, b, c} {
		if n := missed[i].left.Load() + missed[i].suspect.Load(); n > 0 || r.Err() != nil {
			t.Errorf("with a slow Redis nodes were missed %d times, Err() = %v", n, r.Err())
		}
	}
	if st := a.Stats(); st.Failures > before.Failures {
		t.Errorf("a slow Redis is taken for one that fails: %+v", st)
	}

	p.Delay(cfg.Timeout * 3 / 2)
	for _, r := range []*Registry{a, b} {
		eventually(t, "it notices", func() bool { return codeOf(r.Err()) == code.Unavailable })
	}
	if _, err := a.Fresh(t.Context(), "s"); codeOf(err) != code.Unavailable || len(a.Find("s")) != 3 {
		t.Errorf("Fresh() of a Redis that is too slow = %v, Find() = %v", err, ids(a.Find("s")))
	}
	p.Delay(0)
	for i, r := range []*Registry{a, b, c} {
		eventually(t, "all is well", func() bool {
			got, err := r.Fresh(t.Context(), "s")
			return err == nil && len(got) == 3 && r.Err() == nil && r.Stats().Suspect == 0
		})
		if n := missed[i].left.Load(); n > 0 && r != c {
			t.Errorf("nodes have left %d times", n)
		}
	}
}

// TestSplit has one registry that does not reach Redis, while others do.
func TestSplit(t *testing.T) {
	t.Parallel()
	for name, split := range map[string]func(*redistest.Proxy){"cut": (*redistest.Proxy).Cut, "stalled": (*redistest.Proxy).Stall} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			p := redistest.StartProxy(t, s.Addr())
			cfg := quick()
			cfg.URL, cfg.TTL, cfg.Grace, cfg.Timeout = s.URL(), time.Second, 500*time.Millisecond, 300*time.Millisecond
			b, c := startReady(t, cfg), startReady(t, cfg)
			cfg.URL = p.URL()
			a := startReady(t, cfg)
			register(t, a, Node{ID: "a", Services: services("s")})
			register(t, b, Node{ID: "b", Services: services("s")})
			for _, r := range []*Registry{a, b, c} {
				wantIDs(t, "all", r.Nodes, "a", "b")
			}
			missed, events := countMisses(t, a), watch(t, c)
			began := time.Now()
			split(p)
			events.want(NodeLeft, "a")
			if stayed := time.Since(began); stayed < cfg.TTL-cfg.Heartbeat {
				t.Errorf("a node that is cut off has left after %v", stayed)
			}
			wantIDs(t, "those who live", b.Nodes, "b")
			eventually(t, "it notices", func() bool { return codeOf(a.Err()) == code.Unavailable })
			register(t, c, Node{ID: "c", Services: services("s")})
			if err := b.SetServices(t.Context(), services("t")...); err != nil {
				t.Fatal(err)
			}
			if got := ids(a.Find("s")); fmt.Sprint(got) != "[a b]" || a.Age() < cfg.TTL {
				t.Errorf("Find() of one that is cut off = %v, Age() = %v", got, a.Age())
			}
			p.Mend()
			for _, r := range []*Registry{a, b, c} {
				eventually(t, "all is well", func() bool { return r.Err() == nil })
				wantIDs(t, "those of the service", find(r, "s"), "a", "c")
				wantIDs(t, "all", r.Nodes, "a", "b", "c")
			}
			if n := missed.left.Load(); n > 0 {
				t.Errorf("%d nodes have left the view of one that was cut off", n)
			}
		})
	}
}
