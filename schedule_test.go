package netron_test

import (
	"flag"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
)

var schedules = flag.Int("schedules", 0, "random schedules of TestSchedules; by default 2000, and fewer with -short or -race")

// TestSchedules runs random schedules of calls and of what can go wrong, in virtual time.
// Whatever happens, no call is lost without an error, none is served twice unless it may
// be, what its error says is true, a healed network works again, and nothing is left:
// see [world.check] and [world.finish].
//
// A schedule that fails is made shorter and printed. Peers wait for random times before
// they dial again, so that the same schedule may run differently: repeat it with the seed
// that is printed, by -rapid.seed. Run many with -schedules=100000 -timeout=1h.
func TestSchedules(t *testing.T) {
	n := *schedules
	switch {
	case n > 0:
	case raceEnabled || testing.Short():
		n = 300
	default:
		n = 2000
	}
	for name, value := range map[string]string{
		"rapid.checks":     fmt.Sprint(n),
		"rapid.nofailfile": "true", // what is printed can be repeated as well as that
	} {
		if err := flag.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	var all outcomes
	rapid.Check(t, func(rt *rapid.T) {
		s := randomSchedule().Draw(rt, "schedule")
		if complaints := s.run(t, &all); len(complaints) > 0 {
			rt.Fatalf("%v\n%s", s, strings.Join(complaints, "\n"))
		}
	})
	t.Logf("%+v", all)
	if all.good == 0 || all.failed == 0 || all.again == 0 || all.lost == 0 {
		t.Errorf("%+v: the schedules prove nothing", all)
	}
}

// outcomes counts what came of the calls of all schedules.
type outcomes struct {
	calls  int
	good   int
	failed int
	again  int // served more than once
	lost   int // served, and without an answer
	ended  int // schedules in which the peer was given up
}

// schedule is a world and what happens in it.
type schedule struct {
	also     bool // there is another server
	offline  int  // Config.OfflineCalls
	attempts int  // Config.MaxReconnectAttempts
	quick    bool // silence is noticed after a few seconds
	steps    []step
}

// step is one thing that happens.
type step struct {
	what  string // a key of happenings
	call  call   // of "call"
	time  time.Duration
	which int  // of the calls that were begun
	hasty bool // the next step meets what this one has under way
}

// String returns the step as few words.
func (s step) String() string {
	switch s.what {
	case "call":
		return fmt.Sprintf("call%+v", s.call)
	case "cancel":
		return fmt.Sprintf("cancel(%d)", s.which)
	case "pass", "delay", "leave", "send away":
		return fmt.Sprintf("%s(%v)", s.what, s.time)
	}
	return s.what
}

// String returns what is special about the world, and the steps.
func (s schedule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "also %t, offline %d, attempts %d, quick %t:", s.also, s.offline, s.attempts, s.quick)
	for _, step := range s.steps {
		fmt.Fprintf(&b, " %v", step)
		if !step.hasty {
			b.WriteString(";")
		}
	}
	return b.String()
}

// GoString is what rapid prints.
func (s schedule) GoString() string { return s.String() }

// often says how often things happen, of a hundred.
var often = map[string]int{
	"call": 34, "pass": 16, "cut": 12, "stall": 3, "resume": 4, "delay": 3, "refuse": 2, "allow": 4, "down": 3,
	"up": 4, "leave": 3, "send away": 3, "hang up": 1, "reconnect": 2, "conceal": 1, "expose": 2, "cancel": 2, "close": 1,
}

// randomSchedule draws a schedule. All is drawn before it runs: a bubble must not be left
// by a panic.
func randomSchedule() *rapid.Generator[schedule] {
	var things []string
	for what, n := range often {
		for range n {
			things = append(things, what)
		}
	}
	duration := func(all ...time.Duration) *rapid.Generator[time.Duration] { return rapid.SampledFrom(all) }
	const ms = time.Millisecond
	calls := rapid.Custom(func(t *rapid.T) call {
		return call{
			form:   rapid.SampledFrom([]form{byStub, byMethod, byFuture, byCallback, byTask, bySet, bySearch, byOpening, byInner, byServer}).Draw(t, "form"),
			policy: rapid.SampledFrom([]policy{plain, plain, idempotent, retryUnsent}).Draw(t, "policy"),
			takes:  duration(0, 10*ms, 300*ms, 3*time.Second).Draw(t, "takes"),
			within: duration(0, 0, 100*ms, 2*time.Second, 40*time.Second).Draw(t, "within"),
			bytes:  rapid.SampledFrom([]int{0, 0, 0, 100 << 10}).Draw(t, "bytes"),
		}
	})
	steps := rapid.Custom(func(t *rapid.T) step {
		s := step{what: rapid.SampledFrom(things).Draw(t, "what"), hasty: rapid.Bool().Draw(t, "hasty")}
		switch s.what {
		case "call":
			s.call = calls.Draw(t, "call")
		case "cancel":
			s.which = rapid.IntRange(0, 20).Draw(t, "which")
		case "pass":
			s.time = duration(ms, 30*ms, 50*ms, 300*ms, time.Second, 15*time.Second).Draw(t, "time")
		case "delay":
			s.time = duration(0, 20*ms, 100*ms, time.Second).Draw(t, "time")
		case "leave":
			s.time = duration(0, 500*ms, time.Minute).Draw(t, "time")
		case "send away":
			s.time = duration(0, 0, time.Second, time.Minute).Draw(t, "time")
		}
		return s
	})
	return rapid.Custom(func(t *rapid.T) schedule {
		return schedule{
			also:     rapid.Bool().Draw(t, "also"),
			offline:  rapid.SampledFrom([]int{0, 0, 2}).Draw(t, "offline"),
			attempts: rapid.SampledFrom([]int{0, 0, 0, 4}).Draw(t, "attempts"),
			quick:    rapid.Bool().Draw(t, "quick"),
			steps:    rapid.SliceOfN(steps, 15, 60).Draw(t, "steps"),
		}
	})
}

// run runs a schedule in a bubble and returns what was wrong.
func (s schedule) run(t *testing.T, all *outcomes) []string {
	v := &verdict{}
	synctest.Test(t, func(*testing.T) {
		defer v.end()
		defer func() {
			if p := recover(); p != nil && p != any(v) {
				panic(p)
			}
		}()
		w := newWorld(v, s.setup())
		a := actor{world: w, isUp: true, isOffered: true}
		for _, step := range s.steps {
			a.do(step)
		}
		a.heal()
		w.finish()
		all.add(w)
	})
	return v.complaints
}

func (s schedule) setup() setup {
	cfg := netron.Config{OfflineCalls: s.offline, MaxReconnectAttempts: s.attempts, Logger: quiet}
	server := netron.Config{Logger: quiet}
	if s.quick {
		cfg.PingInterval, cfg.PingTimeout = keepalive.PingInterval, keepalive.PingTimeout
		server.PingInterval, server.PingTimeout = keepalive.PingInterval, keepalive.PingTimeout
	}
	return setup{client: cfg, server: server, also: s.also}
}

// actor is a world with what there is to know before the next step.
type actor struct {
	*world
	isUp      bool // the server listens
	isOffered bool // and has the service
	isClosed  bool // the peer is, by this side
}

// do takes a step, unless it makes no sense now.
func (a *actor) do(s step) {
	switch s.what {
	case "call":
		a.call(s.call)
	case "cancel":
		if s.which < len(a.calls) {
			a.calls[s.which].cancel()
		}
	case "pass":
		a.pass(s.time)
	case "cut":
		a.net.Cut()
	case "stall":
		a.link.Stall()
	case "resume":
		a.link.Resume()
	case "delay":
		a.link.Delay(s.time)
	case "refuse":
		a.net.Refuse()
	case "allow":
		a.net.Allow()
	case "reconnect":
		a.peer.Reconnect()
	case "close":
		if !a.isClosed {
			a.isClosed = true
			a.peer.CloseWith(1000, "")
		}
	default:
		a.doToServer(s)
	}
	if !s.hasty {
		a.settle()
	}
}

// call begins a call, if there is somebody to make it.
func (a *actor) call(c call) {
	if c.form == byServer {
		a.settle()
	}
	switch {
	case c.form == byServer && a.server.Peer("client") == nil:
		return
	case c.form == byInner && a.inner.Load() == nil:
		return
	}
	a.begin(c)
}

// doToServer takes one of the steps of the server.
func (a *actor) doToServer(s step) {
	p := a.server.Peer("client")
	switch {
	case s.what == "up" && !a.isUp:
		a.offers = []string{"desk@1.0.0"}
		a.up()
		a.isUp, a.isOffered = true, true
	case s.what == "down" && a.isUp:
		a.down()
		a.isUp = false
	case s.what == "leave" && a.isUp:
		a.leave(a.server, s.time)
		a.isUp = false
	case s.what == "conceal" && a.isUp && a.isOffered:
		if err := a.server.Conceal("desk@1.0.0"); err != nil {
			a.t.Errorf("Conceal = %v", err)
		}
		a.isOffered = false
	case s.what == "expose" && a.isUp && !a.isOffered:
		a.exposeNow("desk@1.0.0")
		a.isOffered = true
	case s.what == "send away" && p != nil:
		p.GoAway("balance", s.time)
	case s.what == "hang up" && p != nil:
		p.CloseWith(4000, "enough")
	}
}

// heal undoes all that is wrong, and checks that the peer works again unless it has ended
// for a reason.
func (a *actor) heal() {
	a.restore()
	a.do(step{what: "up"})
	a.do(step{what: "expose"})
	a.peer.Reconnect()
	wait := 3 * time.Minute // silence is noticed, and everybody connects anew
	if a.setup.client.PingInterval > 0 {
		wait = 2 * time.Minute // a request to go away, with a minute for it, may have been on its way
	}
	a.pass(wait)
	if a.peer.State() == netron.StateClosed {
		if !a.isClosed && a.setup.client.MaxReconnectAttempts == 0 {
			a.t.Errorf("the peer has ended without a reason: %v", a.peer.Err())
		}
		for _, p := range []policy{plain, idempotent, retryUnsent} {
			a.atOnce(a.begin(call{policy: p}))
		}
		return
	}
	if a.isClosed {
		a.t.Errorf("the peer that was closed is %v", a.peer.State())
	}
	a.is(netron.StateConnected)
	a.good(a.begin(call{form: bySearch}), 0) // a service that was concealed may have come back
	a.works()
}

// add counts what came of the calls of a world.
func (all *outcomes) add(w *world) {
	if w.states.events[len(w.states.events)-1].Reason != "closed" {
		all.ended++
	}
	for _, r := range w.calls {
		served := len(w.book.of(r.id))
		all.calls++
		switch {
		case r.err == nil:
			all.good++
		case served > 0:
			all.lost++
		default:
			all.failed++
		}
		if served > 1 {
			all.again++
		}
	}
}

// verdict stands for the test of a schedule: it notes what is wrong.
type verdict struct {
	mu         sync.Mutex
	cleanups   []func()
	complaints []string
}

var _ netrontest.TB = (*verdict)(nil)

// Helper implements [netrontest.TB].
func (*verdict) Helper() {}

// Cleanup implements [netrontest.TB].
func (v *verdict) Cleanup(f func()) { v.cleanups = append(v.cleanups, f) }

// Errorf implements [netrontest.TB].
func (v *verdict) Errorf(format string, args ...any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.complaints = append(v.complaints, fmt.Sprintf(format, args...))
}

// Fatalf implements [netrontest.TB]. It panics with v.
func (v *verdict) Fatalf(format string, args ...any) {
	v.Errorf(format, args...)
	panic(v)
}

// end does what the end of a test does.
func (v *verdict) end() {
	for i := len(v.cleanups) - 1; i >= 0; i-- {
		v.cleanups[i]()
	}
}
