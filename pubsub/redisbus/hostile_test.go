package redisbus

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
	"github.com/d-e-v-grid/netron/pubsub"
)

// stranger publishes what it likes.
type stranger struct {
	t      *testing.T
	client rueidis.Client
	seq    uint64
}

func newStranger(t *testing.T, s *redistest.Server) *stranger {
	t.Helper()
	client, err := rueidis.NewClient(rueidis.ClientOption{
		InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true, PipelineMultiplex: -1,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &stranger{t: t, client: client}
}

func (x *stranger) publish(messages ...string) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, m := range messages {
		cmd := x.client.B().Publish().Channel(defaultPrefix + ":events").Message(m).Build()
		if err := x.client.Do(ctx, cmd).Error(); err != nil {
			x.t.Fatal(err)
		}
	}
}

// event returns the next event of the stranger, as its bridge would send it.
func (x *stranger) event(name string, args ...any) string {
	x.t.Helper()
	x.seq++
	return x.numbered(x.seq, name, args...)
}

func (x *stranger) numbered(seq uint64, name string, args ...any) string {
	x.t.Helper()
	return encodeEnvelope(x.t, emitter{node: "stranger", epoch: 7}, name, 0, seq, args...)
}

func encodeEnvelope(t testing.TB, from emitter, name string, hops int, seq uint64, args ...any) string {
	t.Helper()
	p, err := appendEvent(appendHead(nil, from), name, hops, args)
	if err != nil {
		t.Fatal(err)
	}
	return string(codec.AppendUint(p, seq))
}

// pack encodes values one after another.
func pack(t testing.TB, vs ...any) string {
	t.Helper()
	var p []byte
	for _, v := range vs {
		var err error
		if p, err = codec.Append(p, v); err != nil {
			t.Fatal(err)
		}
	}
	return string(p)
}

func malformed(t testing.TB) map[string]string {
	list := func(vs ...any) string { return pack(t, vs) }
	none := []any{}
	return map[string]string{
		"nothing":             "",
		"text":                "hello",
		"JSON":                `{"type":"NODE_UPDATED"}`,
		"a number":            pack(t, 7),
		"too few fields":      list(1, "n", 1, "x", 0, none),
		"too many fields":     list(1, "n", 1, "x", 0, none, 1, 2),
		"more behind":         list(1, "n", 1, "x", 0, none, 1) + "x",
		"another version":     list(2, "n", 1, "x", 0, none, 1),
		"no node":             list(1, "", 1, "x", 0, none, 1),
		"a number for a node": list(1, 2, 1, "x", 0, none, 1),
		"a long node":         list(1, strings.Repeat("n", maxNodeBytes+1), 1, "x", 0, none, 1),
		"a node of no text":   strings.Replace(list(1, "text", 1, "x", 0, none, 1), "text", "\xff\xff\xff\xff", 1),
		"a name of no text":   strings.Replace(list(1, "n", 1, "text", 0, none, 1), "text", "\xff\xff\xff\xff", 1),
		"a bad epoch":         list(1, "n", -1, "x", 0, none, 1),
		"a long epoch":        list(1, "n", 1e300, "x", 0, none, 1),
		"no name":             list(1, "n", 1, nil, 0, none, 1),
		"bad hops":            list(1, "n", 1, "x", 0.5, none, 1),
		"negative hops":       list(1, "n", 1, "x", -1, none, 1),
		"no arguments":        list(1, "n", 1, "x", 0, nil, 1),
		"a map of arguments":  list(1, "n", 1, "x", 0, map[string]any{}, 1),
		"number zero":         list(1, "n", 1, "x", 0, none, 0),
		"a huge number":       list(1, "n", 1, "x", 0, none, 1e16),
		"no number":           list(1, "n", 1, "x", 0, none, "1"),
		"a lying array":       "\x97\x01\xa1n\x01\xa1x\x00\xdd\xff\xff\xff\xff",
		"half an event":       list(1, "n", 1, "x", 0, []any{1, 2, 3}, 1)[:12],
	}
}

func TestHostileMessages(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := newNode(t, s, Config{MaxMessageBytes: 1000})
	events := a.collect("**")
	x := newStranger(t, s)
	bad := malformed(t)
	for _, m := range bad {
		x.publish(m)
	}
	refused := []string{
		x.event("service:expose", 1), x.event("peer:disconnect"), x.event("a::b"), x.event("a*"),
		x.event(strings.Repeat("n", 300)), x.event("large", strings.Repeat("x", 1000)),
	}
	x.publish(refused...)
	x.publish(encodeEnvelope(t, a.self, "own", 0, 1), encodeEnvelope(t, emitter{a.Node(), 1}, "own", 0, 1))
	x.publish(x.event("good", 1))
	wantEvent(t, events, "good", int64(1))
	wantNone(t, events, "nothing else was an event")
	st := a.Stats()
	if st.Malformed != uint64(len(bad)) || st.Refused != uint64(len(refused)) || st.Own != 2 || st.Received != 1 {
		t.Errorf("%d malformed, %d refused: %+v", len(bad), len(refused), st)
	}
	if st.Missed != 1 { // the large one, which is not looked into
		t.Errorf("%d events missed, want 1", st.Missed)
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := newNode(t, s, Config{})
	events := a.collect("n")
	x := newStranger(t, s)
	for _, seq := range []uint64{5, 5, 4, 6, 10, 8, 11, 11} {
		x.publish(x.numbered(seq, "n", seq))
	}
	for _, want := range []int64{5, 6, 10, 11} {
		wantEvent(t, events, "n", want)
	}
	eventually(t, "all has come", func() bool { return a.Stats().Repeated == 4 })
	wantNone(t, events, "events come once and in order")
	if st := a.Stats(); st.Missed != 3 {
		t.Errorf("%d events missed, want 7, 8 and 9", st.Missed)
	}
}

func TestMaxNodes(t *testing.T) {
	t.Parallel()
	b := &Bridge{cfg: Config{MaxNodes: 3}, heard: make(map[emitter]uint64)}
	for epoch := range uint64(10) {
		for seq := range uint64(3) {
			if !b.inOrder(&envelope{emitter: emitter{"n", epoch}, seq: seq + 1}) {
				t.Errorf("number %d of epoch %d is out of order", seq+1, epoch)
			}
		}
		if len(b.heard) > 3 {
			t.Fatalf("%d emitters are kept, want 3", len(b.heard))
		}
	}
	if b.stats.missed.Load() != 0 {
		t.Error("events are missed that were not sent")
	}
}

func TestUndecodable(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := newNode(t, s, Config{Limits: codec.Limits{Depth: 4}})
	x := newStranger(t, s)
	errs := make(chan error, 10)
	a.on("*", func(_ context.Context, e pubsub.Event) (any, error) {
		_, err := e.Args()
		_, again := e.Args()
		if (err == nil) != (again == nil) {
			t.Errorf("Args() = %v, then %v", err, again)
		}
		var n int
		errs <- errors.Join(err, e.Decode(&n))
		return nil, err
	})
	for i, tc := range []struct {
		arg  any
		want error
	}{
		{codec.Raw("\xd6\x7d\xc3\xc3\xc3\xc3"), codec.ErrTruncated}, // a date of four bytes
		{[]any{[]any{[]any{[]any{[]any{1}}}}}, codec.ErrDepth},
		{"no number", codec.ErrType},
		{1, nil},
	} {
		x.publish(x.event("x", tc.arg))
		select {
		case err := <-errs:
			if (err == nil) != (tc.want == nil) || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("%d: decoding %v = %v, want %v", i, tc.arg, err, tc.want)
			}
			if e, ok := errors.AsType[*Error](err); err != nil && (!ok || e.Code != code.InvalidArgument) {
				t.Errorf("%d: %v is not of code invalid_argument", i, err)
			}
		case <-time.After(patience):
			t.Fatal("no event has come")
		}
	}
	eventually(t, "all are counted", func() bool { return a.Stats().Undecodable == 3 && a.Stats().Failed == 2 })
}

// outcast does not encode.
type outcast struct{ panics bool }

func (o outcast) AppendNetron(dst []byte) ([]byte, error) {
	if o.panics {
		panic("outcast")
	}
	return dst, errors.New("never")
}

func TestEventsThatCannotLeave(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a, b := newNode(t, s, Config{MaxMessageBytes: 1000}), newNode(t, s, Config{MaxMessageBytes: 1000})
	here := 0
	a.on("*", func(context.Context, pubsub.Event) (any, error) {
		here++
		return nil, nil
	})
	events := b.collect("*")
	a.emit("large", strings.Repeat("x", 1000))
	a.emit("channel", make(chan int))
	a.emit("error", outcast{})
	a.emit("panic", outcast{panics: true})
	if _, err := a.bus.With().EmitEvent(context.Background(), pubsub.OpSerial, pubsub.NewEvent("payload", brokenPayload{})); err != nil {
		t.Error(err)
	}
	a.emit("fits", strings.Repeat("x", 800))
	wantEvent(t, events, "fits", strings.Repeat("x", 800))
	if here != 6 {
		t.Errorf("%d events were delivered here, want 6", here)
	}
	if st := a.Stats(); st.TooLarge != 1 || st.Unencodable != 4 {
		t.Errorf("Stats() = %+v", st)
	}
	if st := b.Stats(); st.Missed != 0 { // they were the first ones
		t.Errorf("Stats() = %+v", st)
	}
	a.emit("channel", make(chan int))
	a.sync(b)
	if st := b.Stats(); st.Missed != 1 {
		t.Errorf("b has missed %d events, want 1", st.Missed)
	}
}

type brokenPayload struct{}

func (brokenPayload) Args() ([]any, error) { return nil, errors.New("broken") }
func (brokenPayload) Decode(...any) error  { return errors.New("broken") }

// TestSlowHandlers shows that a handler that hangs holds up others for HandlerTimeout,
// and that what does not fit into the queue meanwhile is counted.
func TestSlowHandlers(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	a := newNode(t, s, Config{})
	b := newNode(t, s, Config{HandlerTimeout: time.Second, MaxEvents: 10})
	began := make(chan struct{})
	b.on("slow", func(ctx context.Context, _ pubsub.Event) (any, error) {
		close(began)
		<-ctx.Done()
		return nil, ctx.Err()
	})
	events := b.collect("quick")
	a.emit("slow")
	<-began
	for i := range 100 {
		a.emit("quick", i)
	}
	eventually(t, "all has come", func() bool { return b.Stats().Overflowed == 90 })
	if st := b.Stats(); st.Arrived != 10 || st.Received != 1 {
		t.Errorf("Stats() = %+v", st)
	}
	for i := range 10 {
		wantEvent(t, events, "quick", int64(i))
	}
	eventually(t, "the handler has failed", func() bool { return b.Stats().Failed == 1 })
	wantNone(t, events, "the others are lost")
}

func TestEnvelope(t *testing.T) {
	t.Parallel()
	want := envelope{emitter: emitter{"node", maxEpoch - 1}, name: "a:b", hops: 3, args: []byte("\x92\x01\xa1x"), seq: 1 << 40}
	got, err := parseEnvelope([]byte(encodeEnvelope(t, want.emitter, want.name, want.hops, want.seq, 1, "x")), codec.Limits{})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("parse(append(%+v)) = %+v, %v", want, got, err)
	}
	if n := len(codec.AppendUint(nil, maxEpoch)); n > seqBytes {
		t.Errorf("a number takes %d bytes, want at most %d", n, seqBytes)
	}
	for what, m := range malformed(t) {
		if e, err := parseEnvelope([]byte(m), codec.Limits{}); err == nil {
			t.Errorf("%s: %q is the event %+v", what, m, e)
		}
	}
}

func FuzzEnvelope(f *testing.F) {
	for _, m := range malformed(f) {
		f.Add([]byte(m))
	}
	f.Add([]byte(encodeEnvelope(f, emitter{"n", 1}, "x", 2, 3, nil, "x", []any{1}, map[string]any{"k": 1.5})))
	f.Fuzz(func(t *testing.T, p []byte) {
		e, err := parseEnvelope(p, codec.Limits{})
		if err != nil {
			return
		}
		var args []codec.Raw
		if err := codec.Unmarshal(e.args, &args); err == nil {
			list := make([]any, len(args))
			for i, a := range args {
				list[i] = a
			}
			again, err := parseEnvelope([]byte(encodeEnvelope(t, e.emitter, e.name, e.hops, e.seq, list...)), codec.Limits{})
			if err != nil || again.emitter != e.emitter || again.hops != e.hops || again.seq != e.seq {
				t.Fatalf("parse(append(%+v)) = %+v, %v", e, again, err)
			}
		}
		var n int
		pay := payload{encoded: e.args, bad: new(atomic.Uint64)}
		pay.Args()
		pay.Decode(&n)
	})
}
