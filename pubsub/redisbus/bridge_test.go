package redisbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/pubsub"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// node is a bus with a bridge.
type node struct {
	*Bridge
	t   testing.TB
	bus *pubsub.Bus
}

// newNode returns a node that is connected, and ends with the test.
func newNode(t testing.TB, s *redistest.Server, cfg Config) *node {
	t.Helper()
	n := newLonelyNode(t, s, cfg)
	n.wantReady()
	return n
}

// newLonelyNode returns a node that may not be connected yet.
func newLonelyNode(t testing.TB, s *redistest.Server, cfg Config) *node {
	t.Helper()
	bus, err := pubsub.New(pubsub.Config{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, bus: bus, Bridge: newBridge(t, bus, s, cfg)}
	t.Cleanup(func() {
		n.Close()
		if err := bus.Close(context.Background()); err != nil {
			t.Errorf("Close() of the bus = %v", err)
		}
	})
	return n
}

var quiet = slog.New(slog.DiscardHandler)

func newBridge(t testing.TB, bus *pubsub.Bus, s *redistest.Server, cfg Config) *Bridge {
	t.Helper()
	if cfg.URL == "" {
		cfg.URL = s.URL()
	}
	cfg.Logger = quiet
	if cfg.RetryDelay == 0 {
		cfg.RetryDelay = 20 * time.Millisecond
	}
	b, err := New(bus, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func (n *node) wantReady() {
	n.t.Helper()
	wantReady(n.t, n.Bridge)
}

func wantReady(t testing.TB, b *Bridge) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// collect returns a channel with the events of other nodes that match a pattern.
func (n *node) collect(pattern string) <-chan pubsub.Event {
	n.t.Helper()
	events := make(chan pubsub.Event, 1<<17)
	n.on(pattern, func(ctx context.Context, e pubsub.Event) (any, error) {
		isSync := strings.HasPrefix(e.Name(), "sync:") && e.Name() != pattern
		if _, ok := Node(ctx); ok && !isSync {
			events <- e
		}
		return nil, nil
	})
	return events
}

func (n *node) on(pattern string, h pubsub.Handler) {
	n.t.Helper()
	if _, err := n.bus.Subscribe(pattern, h); err != nil {
		n.t.Fatal(err)
	}
}

func (n *node) emit(name string, args ...any) {
	n.t.Helper()
	if _, err := n.bus.EmitParallel(context.Background(), name, args...); err != nil {
		n.t.Fatal(err)
	}
}

// next returns the name and the arguments of the next event.
func next(t testing.TB, events <-chan pubsub.Event) (name string, args []any) {
	t.Helper()
	select {
	case e := <-events:
		args, err := e.Args()
		if err != nil {
			t.Fatalf("Args() of %s = %v", e.Name(), err)
		}
		return e.Name(), args
	case <-time.After(patience):
		t.Fatal("no event has come")
		return "", nil
	}
}

func wantEvent(t testing.TB, events <-chan pubsub.Event, name string, args ...any) {
	t.Helper()
	gotName, got := next(t, events)
	if gotName != name || len(got)+len(args) > 0 && !reflect.DeepEqual(got, args) {
		t.Fatalf("the event is %s %v, want %s %v", gotName, got, name, args)
	}
}

func wantNone(t testing.TB, events <-chan pubsub.Event, why string) {
	t.Helper()
	select {
	case e := <-events:
		args, _ := e.Args()
		t.Errorf("an event %s %v has come, want none: %s", e.Name(), args, why)
	default:
	}
}

// eventually waits until what must come true is true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("never came true: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// sync waits until all that the node has emitted so far has come to the others: Redis
// keeps the order of a connection.
func (n *node) sync(others ...*node) {
	n.t.Helper()
	for _, o := range others {
		name := fmt.Sprintf("sync:%d", syncs.Add(1))
		events := o.collect(name)
		n.emit(name)
		wantEvent(n.t, events, name)
	}
}

var syncs atomic.Uint64

func TestEventsCross(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{Node: "a"}), newNode(t, s, Config{Node: "b"})
	type from struct {
		id string
		ok bool
	}
	nodes := make(chan from, 2)
	where := func(ctx context.Context, _ pubsub.Event) (any, error) {
		id, ok := Node(ctx)
		nodes <- from{id, ok}
		return nil, nil
	}
	a.on("order:*", where)
	events := b.collect("order:*")
	a.emit("order:created", 7, "seven", []byte{7}, nil, map[string]any{"n": 7.5}, true)
	wantEvent(t, events, "order:created", int64(7), "seven", []byte{7}, nil, map[string]any{"n": 7.5}, true)
	if got := <-nodes; got != (from{}) {
		t.Errorf("Node(ctx) where it was emitted = %v", got)
	}
	a.emit("order:paid")
	wantEvent(t, events, "order:paid")
	<-nodes
	b.emit("order:sent", 1)
	if got := <-nodes; got != (from{"b", true}) {
		t.Errorf("Node(ctx) = %v, want b", got)
	}
	if a.Node() != "a" || a.Err() != nil || !a.Stats().Connected {
		t.Errorf("Node() = %q, Err() = %v, %+v", a.Node(), a.Err(), a.Stats())
	}
}

func TestTopicsCross(t *testing.T) {
	t.Parallel()
	type order struct {
		ID    int
		Items []string
		At    time.Time
	}
	created := pubsub.NewTopic[order]("order:created")
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{}), newNode(t, s, Config{})
	got := make(chan order, 1)
	if _, err := created.Subscribe(b.bus, func(_ context.Context, o order) error {
		got <- o
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := order{ID: 1 << 30, Items: []string{"a", "b"}, At: time.UnixMilli(1_700_000_000_000).UTC()}
	if err := created.Emit(context.Background(), a.bus, want); err != nil {
		t.Fatal(err)
	}
	select {
	case o := <-got:
		if !reflect.DeepEqual(o, want) {
			t.Errorf("got %+v, want %+v", o, want)
		}
	case <-time.After(patience):
		t.Fatal("the order has not come")
	}
}

// TestOutcomesStay shows that all operations send their event, and return what they
// return without a bridge.
func TestOutcomesStay(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{}), newNode(t, s, Config{})
	for i := range 2 {
		a.on("n", func(_ context.Context, e pubsub.Event) (any, error) {
			var n int
			err := e.Decode(&n)
			return n + i + 1, err
		})
	}
	broken := errors.New("broken")
	a.on("broken", func(context.Context, pubsub.Event) (any, error) { return nil, broken })
	events := b.collect("**")
	ctx := context.Background()
	sum := func(acc, result any) (any, error) { return acc.(int) + result.(int), nil }
	for _, tc := range []struct {
		op   string
		emit func() (any, error)
		want any
	}{
		{"parallel", func() (any, error) { return a.bus.EmitParallel(ctx, "n", 10) }, []any{11, 12}},
		{"serial", func() (any, error) { return a.bus.EmitSerial(ctx, "n", 10) }, []any{11, 12}},
		{"reduce", func() (any, error) { return a.bus.EmitReduce(ctx, "n", sum, 0, 10) }, 23},
		{"reduce right", func() (any, error) { return a.bus.EmitReduceRight(ctx, "n", sum, 0, 10) }, 23},
		{"chain", func() (any, error) { return a.bus.EmitChain(ctx, "n", 10) }, 13},
		{"chain right", func() (any, error) { return a.bus.EmitChainRight(ctx, "n", 10) }, 13},
	} {
		got, err := tc.emit()
		if !reflect.DeepEqual(got, tc.want) || err != nil {
			t.Errorf("%s = %v, %v; want %v", tc.op, got, err, tc.want)
		}
		wantEvent(t, events, "n", int64(10))
	}
	if _, err := a.bus.EmitSerial(ctx, "broken"); !errors.Is(err, broken) {
		t.Errorf("serial = %v, want %v", err, broken)
	}
	wantEvent(t, events, "broken")
	if _, err := a.bus.EmitParallel(ctx, "not::a name"); err == nil {
		t.Error("a name that is none was emitted")
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	a.bus.EmitParallel(over, "late", 1)
	a.sync(b)
	wantNone(t, events, "what is not emitted does not leave")
}

func TestPatterns(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := newNode(t, s, Config{Patterns: []string{"order:*", "sync:*", "exact"}})
	b := newNode(t, s, Config{Patterns: []string{"order:created", "sync:*", "user:**"}})
	atA, atB := a.collect("*"), b.collect("*")
	for _, name := range []string{"order:created", "order:paid", "order:created:twice", "exact", "user:new"} {
		a.emit(name)
		b.emit(name)
	}
	a.sync(b)
	b.sync(a)
	wantEvent(t, atB, "order:created")
	wantNone(t, atB, "b takes no others that a sends")
	wantEvent(t, atA, "order:created")
	wantNone(t, atA, "a takes no others that b sends")
	if st := b.Stats(); st.Ignored != 2 {
		t.Errorf("b has ignored %d events, want 2: order:paid and exact", st.Ignored)
	}
}

func TestInternalEventsStay(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	bus, privileged, err := pubsub.NewPrivileged(pubsub.Config{Internal: []string{"own:secret"}})
	if err != nil {
		t.Fatal(err)
	}
	a := &node{t: t, bus: bus, Bridge: newBridge(t, bus, s, Config{})}
	a.wantReady()
	b := newNode(t, s, Config{})
	events, known := b.collect("**"), b.collect("service:*")
	for _, name := range []string{"service:expose", "peer:connect", "own:secret"} {
		if _, err := privileged.EmitParallel(context.Background(), name, 1); err != nil {
			t.Fatal(err)
		}
	}
	a.sync(b)
	wantNone(t, events, "internal events do not travel")
	wantNone(t, known, "internal events do not travel")

	// Nor do they come in, whoever says so.
	atA := a.collect("own:*")
	b.emit("own:secret", 2)
	b.emit("own:other", 3)
	wantEvent(t, atA, "own:other", int64(3))
	wantNone(t, atA, "own:secret is internal here")
	if st := a.Stats(); st.Refused != 1 {
		t.Errorf("a has refused %d events, want 1", st.Refused)
	}
}

// TestPrefixesAreApart shows that bridges of another prefix hear nothing.
func TestPrefixesAreApart(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{Prefix: "one"}), newNode(t, s, Config{Prefix: "one"})
	c := newNode(t, s, Config{Prefix: "two"})
	events := c.collect("**")
	a.emit("x")
	a.sync(b)
	d := newNode(t, s, Config{Prefix: "two"})
	d.sync(c) // Redis has handled all that came before
	wantNone(t, events, "it is of another prefix")
	if st := c.Stats(); st.Received != 1 {
		t.Errorf("c has received %d events, want that of sync", st.Received)
	}
}

func TestProtocol2(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{URL: s.URL() + "?protocol=2"}), newNode(t, s, Config{})
	atA, atB := a.collect("*"), b.collect("*")
	a.emit("x", 1)
	wantEvent(t, atB, "x", int64(1))
	b.emit("y", 2)
	wantEvent(t, atA, "y", int64(2))
	s.Restart()
	eventually(t, "both are connected again", func() bool { return a.Stats().Connects == 2 && b.Stats().Connects == 2 })
	a.wantReady()
	b.wantReady()
	a.emit("x", 3)
	wantEvent(t, atB, "x", int64(3))
}

// TestOtherAddress shows that addresses are tried in turn.
func TestOtherAddress(t *testing.T) {
	t.Parallel()
	s, other := redistest.Start(t), redistest.Start(t)
	other.Kill()
	a := newNode(t, s, Config{URL: other.URL() + "?addr=" + s.Addr()})
	b := newNode(t, s, Config{})
	a.sync(b)
}

func TestConfig(t *testing.T) {
	t.Parallel()
	bus, err := pubsub.New(pubsub.Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what string
		cfg  Config
	}{
		{"a scheme", Config{URL: "http://user:secret@localhost"}},
		{"no URL", Config{URL: "redis://user:secret@local host:port%"}},
		{"no database", Config{URL: "redis://user:secret@localhost/x"}},
		{"a long prefix", Config{Prefix: strings.Repeat("x", maxPrefixBytes+1)}},
		{"a long id", Config{Node: strings.Repeat("x", maxNodeBytes+1)}},
		{"an id that is no text", Config{Node: "\xff"}},
		{"a bad pattern", Config{Patterns: []string{"a", "b::c"}}},
		{"an internal pattern", Config{Patterns: []string{"service:expose"}}},
		{"many patterns", Config{Patterns: slices.Repeat([]string{"a"}, maxPatterns+1)}},
	} {
		b, err := New(bus, tc.cfg)
		var coded interface{ NetronCode() pubsub.Code }
		if b != nil || !errors.As(err, &coded) || coded.NetronCode() != code.InvalidArgument {
			t.Errorf("%s: New() = %v, %v; want an error of code invalid_argument", tc.what, b, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error has the password: %v", tc.what, err)
		}
	}
	if _, err := New(nil, Config{}); err == nil {
		t.Error("New(nil) returned no error")
	}
}

func TestLimitsByDefault(t *testing.T) {
	t.Parallel()
	var zero Config
	none := Config{MaxMessageBytes: -1, MaxEvents: -1, HandlerTimeout: -1, Timeout: -1, RetryDelay: -1}
	if zero.maxMessageBytes() != 1<<20 || zero.maxEvents() != 1<<16 || zero.maxBytes() != 16<<20 || zero.maxHops() != 16 ||
		zero.maxNodes() != 4096 || zero.handlerTimeout() != 5*time.Second || zero.timeout() != 5*time.Second ||
		zero.retryDelay() != time.Second || zero.prefix() != "netron:bus" || !slices.Equal(zero.patterns(), []string{"*"}) {
		t.Error("a default is not what the documentation says")
	}
	if none.maxMessageBytes() < 1<<30 || none.maxEvents() < 1<<30 || none.handlerTimeout() < 1<<60 || none.timeout() < 1<<60 ||
		none.retryDelay() != time.Second {
		t.Error("a negative limit is not none")
	}
}
