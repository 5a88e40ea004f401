package tspeer

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

var load = sync.OnceValues(Load)

// loadAll returns the recorded conversations.
func loadAll(t *testing.T) []*Conversation {
	t.Helper()
	all, err := load()
	if err != nil {
		t.Fatalf("Load() = %v, want nil", err)
	}
	return all
}

// conversation returns one of the recorded conversations.
func conversation(t *testing.T, name string) *Conversation {
	t.Helper()
	for _, c := range loadAll(t) {
		if c.String() == name {
			return c
		}
	}
	t.Fatalf("no conversation %s", name)
	return nil
}

// pipes returns connected endpoints for two connections.
func pipes() (dial, accept Endpoints) {
	var near, far []net.Conn
	for range 2 {
		a, b := net.Pipe()
		near, far = append(near, a), append(far, b)
	}
	return Conns(near...), Conns(far...)
}

// played is the outcome of both sides.
type played struct {
	client, server             error
	clientReport, serverReport *Report
}

// play runs the recorded client of c against its recorded server. When one side gives up, the other one loses its connection.
func play(t *testing.T, c *Conversation, dial, accept Endpoints, client, server []Option) (p played) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.serverReport, p.server = c.ServeRecorded(ctx, accept, server...)
	}()
	p.clientReport, p.client = c.ReplayClient(ctx, dial, client...)
	<-done
	return p
}

func (p played) wantNoErrors(t *testing.T) {
	t.Helper()
	if p.client != nil {
		t.Errorf("ReplayClient() = %v, want nil", p.client)
	}
	if p.server != nil {
		t.Errorf("ServeRecorded() = %v, want nil", p.server)
	}
}

func TestReplayAgainstItself(t *testing.T) {
	all := loadAll(t)
	if len(all) != 188 {
		t.Fatalf("Load() has %d conversations, want 188", len(all))
	}
	for _, c := range all {
		t.Run(c.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				asRecorded := []Option{AsRecorded()}
				p := play(t, c, dial, accept, asRecorded, asRecorded)
				p.wantNoErrors(t)
				if n := p.clientReport.Allowed; len(n) > 1 || len(n) == 1 && n["order"] == 0 {
					t.Errorf("ReplayClient() allowed %v, want nothing but another order", n)
				}
			})
		})
	}
}

// The same over TCP, for a few of them.
func TestReplayOverTCP(t *testing.T) {
	for _, name := range []string{"titan/call-concurrent-1000", "titan/second-connection", "browser/event-order-1000", "browser-no-discovery/large-string-4MiB", "raw/raw-undecodable"} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = ln.Close() }()
			asRecorded := []Option{AsRecorded()}
			play(t, conversation(t, name), Dial("tcp", ln.Addr().String()), Accept(ln), asRecorded, asRecorded).wantNoErrors(t)
		})
	}
}

// Where the original is no model, its answers are refused by a client that is not told to expect them; elsewhere nothing changes.
func TestAmendments(t *testing.T) {
	wrong := map[string]Rule{
		"titan/generator-empty": RuleOrder, "browser/generator-empty": RuleOrder, "browser-no-discovery/generator-empty": RuleOrder,
		"titan/stream-upload-native": RuleMismatch, "browser/stream-upload-at-once": RuleMissing, "browser-no-discovery/stream-upload-at-once": RuleMismatch,
		"raw/raw-properties": RuleMismatch,
	}
	for _, c := range loadAll(t) {
		if strings.HasPrefix(c.Name, "large-") {
			continue // seen in TestReplayAgainstItself
		}
		t.Run(c.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				p := play(t, c, dial, accept, nil, []Option{AsRecorded(), Patience(30 * time.Second)})
				if rule, ok := wrong[c.String()]; ok {
					wantRule(t, p.client, rule)
				} else {
					p.wantNoErrors(t)
				}
			})
		})
	}
	for _, a := range Amendments() {
		if a.Reason == "" || !slices.ContainsFunc(loadAll(t), func(c *Conversation) bool { return c.Name == a.Name && (a.Client == "" || a.Client == c.Client) }) {
			t.Errorf("amendment of %s/%s has no reason, or nothing to amend", a.Client, a.Name)
		}
	}
}

// A right server passes where the original does not.
func TestAmendedServer(t *testing.T) {
	for _, name := range []string{
		"titan/generator-empty", "browser/generator-empty", "browser-no-discovery/generator-empty", "titan/stream-upload-native",
		"browser/stream-upload-at-once", "browser-no-discovery/stream-upload-at-once",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				amended := func(o *options) { o.amended = true }
				play(t, conversation(t, name), dial, accept, nil, []Option{AsRecorded(), amended}).wantNoErrors(t)
			})
		})
	}
}

// A recorded client meets a server that judges it: argument streams lack the barrier that the original's client had as a pause.
func TestRecordedClientIsJudged(t *testing.T) {
	for _, c := range loadAll(t) {
		if c.Client == Raw || strings.HasPrefix(c.Name, "large-") {
			continue
		}
		t.Run(c.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				p := play(t, c, dial, accept, []Option{AsRecorded()}, nil)
				switch {
				case c.Name == "stream-upload-native":
					wantRule(t, p.server, RuleUnexpected)
				case c.Name == "stream-upload-at-once" && c.Client != Titan:
					wantRule(t, p.server, RuleOrder)
				case strings.HasPrefix(c.Name, "stream-upload"):
					wantRule(t, p.server, RuleBarrier)
				default:
					p.wantNoErrors(t)
				}
			})
		})
	}
}

func TestFreshIDs(t *testing.T) {
	for _, name := range []string{"titan/call-add", "titan/generator-count", "titan/remote-exposure", "browser/event-once", "raw/raw-server-task"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial, accept := pipes()
				play(t, conversation(t, name), dial, accept, []Option{AsRecorded(), FreshIDs()}, []Option{AsRecorded()}).wantNoErrors(t)
			})
		})
	}
}

func TestContextEndsReplay(t *testing.T) {
	c := conversation(t, "titan/call-add")
	for _, side := range []string{"client", "server"} {
		t.Run(side, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				near, far := net.Pipe()
				defer func() { _ = far.Close() }()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				var err error
				if side == "client" {
					_, err = c.ReplayClient(ctx, Conns(near))
				} else {
					_, err = c.ServeRecorded(ctx, Conns(near))
				}
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("a peer that says nothing: %v, want %v", err, context.DeadlineExceeded)
				}
			})
		})
	}
}

func TestNoEndpoint(t *testing.T) {
	c := conversation(t, "titan/call-add")
	if _, err := c.ReplayClient(t.Context(), Conns()); err == nil {
		t.Error("ReplayClient(no connection) = nil, want an error")
	}
	if _, err := c.ServeRecorded(t.Context(), Conns()); err == nil {
		t.Error("ServeRecorded(no connection) = nil, want an error")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.ServeRecorded(ctx, Accept(ln)); !errors.Is(err, context.Canceled) {
		t.Errorf("ServeRecorded(canceled) = %v, want %v", err, context.Canceled)
	}
}
