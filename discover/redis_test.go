package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/rueidis"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// raw is Redis as somebody else uses it.
type raw struct {
	t testing.TB
	c rueidis.Client
}

func newRaw(t testing.TB, s *redistest.Server) *raw {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &raw{t: t, c: c}
}

// do does a command, which must not fail.
func (r *raw) do(args ...string) rueidis.RedisResult {
	r.t.Helper()
	res := r.c.Do(context.Background(), r.c.B().Arbitrary(args...).Build())
	if err := res.Error(); err != nil && !rueidis.IsRedisNil(err) {
		r.t.Fatalf("%.200q: %v", args, err)
	}
	return res
}

func (r *raw) hash(key string) map[string]string {
	r.t.Helper()
	m, err := r.do("HGETALL", key).AsStrMap()
	if err != nil {
		r.t.Fatal(err)
	}
	return m
}

// The keys of TypeScript peers of version 0.6.
const (
	tsNode      = "netron:discovery:nodes:"
	tsHeartbeat = "netron:discovery:heartbeat:"
	tsIndex     = "netron:discovery:index:nodes"
	tsChannel   = "netron:discovery:events"
)

// tsBeat is a heartbeat of a TypeScript peer of version 0.6 that lasts for an hour.
func (r *raw) tsBeat(id, address, services string) {
	r.t.Helper()
	r.do("EVAL", `redis.call('HSET', KEYS[1], 'address', ARGV[2], 'services', ARGV[3], 'timestamp', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('PSETEX', KEYS[2], ARGV[6], '1')
redis.call('SADD', KEYS[3], ARGV[1])
return 1`, "3", tsNode+id, tsHeartbeat+id, tsIndex, id, address, services, "1700000000000",
		"3600", "3600000")
}

func (r *raw) tsEvent(kind, id, address, services string) {
	r.t.Helper()
	r.do("PUBLISH", tsChannel, fmt.Sprintf(`{"type":%q,"nodeId":%q,"address":%q,"services":%s,"timestamp":1700000000000}`, kind, id, address, services))
}

// slow are times at which nothing happens during a test but what somebody tells.
func slow(s *redistest.Server) Config {
	return Config{URL: s.URL(), Heartbeat: time.Hour, Reconcile: 24 * time.Hour, Grace: 24 * time.Hour, RetryDelay: 20 * time.Millisecond, Logger: quiet}
}

func start(t testing.TB, cfg Config) *Registry {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, r)
	return r
}

func startReady(t testing.TB, cfg Config) *Registry {
	t.Helper()
	r := start(t, cfg)
	wantReady(t, r)
	return r
}

// TestTypeScriptNodes has nodes of version 0.6 come, change and go.
func TestTypeScriptNodes(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	ts, r := newRaw(t, s), startReady(t, slow(s))
	const id = "4be7a9e2-2c0f-4c1e-8bb1-8a7f52f7a1c5"
	list := `[{"name":"calculator","version":"1.0.0"},{"name":"auth","version":""},{"name":"store"}]`
	ts.tsBeat(id, "192.168.1.20:8080", list)
	ts.tsEvent(typeRegistered, id, "192.168.1.20:8080", list)
	wantIDs(t, "all", r.Nodes, id)
	n, _ := r.Node(id)
	want := Node{
		ID: id, Address: "192.168.1.20:8080", Scheme: "ws", Services: services("auth", "calculator@1.0.0", "store"),
		Updated: time.UnixMilli(1700000000000),
	}
	if diff := cmp.Diff(want, n); diff != "" {
		t.Errorf("Node() differs (-want +got):\n%s", diff)
	}
	wantIDs(t, "those of a range", find(r, "calculator@^1"), id)
	wantIDs(t, "those without a version", find(r, "store"), id)

	list = `[{"name":"calculator","version":"2.0.0"}]`
	ts.tsBeat(id, "192.168.1.20:8081", list)
	ts.tsEvent(typeUpdated, id, "192.168.1.20:8081", list)
	wantIDs(t, "those of a range", find(r, "calculator@^2"), id)
	wantIDs(t, "those of a service that was given up", find(r, "store"))

	// isNodeActive of another peer names itself; the node lives.
	ts.tsEvent(typeDeregistered, id, "", "[]")
	heard := r.Stats().Heard
	ts.tsEvent(typeDeregistered, "caller", "", "[]")
	eventually(t, "it is heard", func() bool { return r.Stats().Heard > heard })
	if _, err := r.Fresh(context.Background(), "x"); err != nil {
		t.Fatal(err)
	}
	wantIDs(t, "those who live", r.Nodes, id)

	ts.do("MULTI")
	ts.do("DEL", tsNode+id, tsHeartbeat+id)
	ts.do("SREM", tsIndex, id)
	ts.do("EXEC")
	ts.tsEvent(typeDeregistered, id, "192.168.1.20:8081", list)
	wantIDs(t, "those who live", r.Nodes)
	if st := r.Stats(); st.Refused+st.Odd+st.Malformed+st.Crowded != 0 {
		t.Errorf("Stats() = %+v", st)
	}
}

// TestForTypeScript shows what TypeScript peers of version 0.6 see of our nodes.
func TestForTypeScript(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	ts := newRaw(t, s)
	events := make(chan map[string]any, 100)
	ctx, cancel := context.WithCancel(context.Background())
	listening, heard := make(chan struct{}), make(chan struct{})
	hook := rueidis.WithOnSubscriptionHook(ctx, func(rueidis.PubSubSubscription) { close(listening) })
	go func() {
		defer close(heard)
		ts.c.Receive(hook, ts.c.B().Subscribe().Channel(tsChannel).Build(), func(m rueidis.PubSubMessage) {
			var e map[string]any
			if err := json.Unmarshal([]byte(m.Message), &e); err != nil {
				t.Errorf("%s: %v", m.Message, err)
			}
			events <- e
		})
	}()
	defer func() { cancel(); <-heard }()
	<-listening

	wantEvent := func(kind, services string) {
		t.Helper()
		select {
		case e := <-events:
			list, _ := json.Marshal(e["services"])
			ms, _ := e["timestamp"].(float64)
			if age := time.Since(time.UnixMilli(int64(ms))); age < -time.Minute || age > time.Minute {
				t.Errorf("timestamp %v", e["timestamp"])
			}
			delete(e, "timestamp")
			delete(e, "instance") // which they ignore
			delete(e, "services")
			want := map[string]any{"type": kind, "nodeId": "n", "address": "h.example:8080"}
			if diff := cmp.Diff(want, e); diff != "" || string(list) != services {
				t.Errorf("the event differs (-want +got):\n%s\nservices: %s, want %s", diff, list, services)
			}
		case <-time.After(patience):
			t.Fatal("no event has come")
		}
	}
	cfg := slow(s)
	cfg.Heartbeat, cfg.TTL = 50*time.Millisecond, 15500*time.Millisecond
	r := startReady(t, cfg)
	register(t, r, Node{ID: "n", Address: "wss://h.example:8080", Services: services("b@1.0.0", "a")})
	const list = `[{"name":"a","version":""},{"name":"b","version":"1.0.0"}]`
	wantEvent(typeRegistered, list)
	got := ts.hash(tsNode + "n")
	for _, f := range []string{"timestamp", "started", "instance"} {
		if got[f] == "" {
			t.Errorf("there is no %s", f)
		}
		delete(got, f)
	}
	if want := map[string]string{"address": "h.example:8080", "services": list, "scheme": "wss", "zone": "", "weight": "", "metadata": ""}; !maps.Equal(got, want) {
		t.Errorf("the hash is %q, want %q", got, want)
	}
	// What getActiveNodes of 0.6 looks at.
	if ids, _ := ts.do("SMEMBERS", tsIndex).AsStrSlice(); len(ids) != 1 || ids[0] != "n" {
		t.Errorf("the index is %q", ids)
	}
	if v, _ := ts.do("GET", tsHeartbeat+"n").ToString(); v != "1" {
		t.Errorf("the heartbeat is %q", v)
	}
	if ms, _ := ts.do("PTTL", tsHeartbeat+"n").AsInt64(); ms <= 10_000 || ms > 15_500 {
		t.Errorf("the heartbeat lives for %d ms", ms)
	}
	if sec, _ := ts.do("TTL", tsNode+"n").AsInt64(); sec < 15 || sec > 16 {
		t.Errorf("the hash lives for %d s", sec)
	}
	if err := r.SetServices(ctx); err != nil {
		t.Fatal(err)
	}
	wantEvent(typeUpdated, "[]")
	beats := r.Stats().Beats
	eventually(t, "the heart beats", func() bool { return r.Stats().Beats > beats+2 })
	if err := r.Update(ctx, func(n *Node) { n.Weight, n.Zone, n.Metadata = 3, "z", map[string]string{"k": "v"} }); err != nil {
		t.Fatal(err)
	}
	wantEvent(typeUpdated, "[]") // and none for a heartbeat
	got = ts.hash(tsNode + "n")
	if got["weight"] != "3" || got["zone"] != "z" || got["metadata"] != `{"k":"v"}` || got["services"] != "[]" {
		t.Errorf("the hash is %q", got)
	}

	// A reader of 0.6 deletes what it takes for dead; the next heartbeat brings it back.
	ts.do("DEL", tsNode+"n", tsHeartbeat+"n")
	ts.do("SREM", tsIndex, "n")
	wantEvent(typeRegistered, "[]")
	if err := r.Close(ctx); err != nil {
		t.Fatal(err)
	}
	wantEvent(typeDeregistered, "[]")
	if n, _ := ts.do("DBSIZE").AsInt64(); n != 0 {
		t.Errorf("%d keys are left: %v", n, ts.do("KEYS", "*"))
	}
}

// TestTold shows that Redis tells what has changed, without announcements.
func TestTold(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := slow(s)
	cfg.NoEvents = true
	ts, r := newRaw(t, s), startReady(t, cfg)
	for i := range 20 {
		id := fmt.Sprint("n", i)
		ts.tsBeat(id, "h:1", `[{"name":"s"}]`)
		if got, err := r.Fresh(t.Context(), "s"); err != nil || len(got) != i+1 {
			t.Fatalf("Fresh() = %v, %v, want %d", got, err, i+1)
		}
		ts.tsBeat(id, "h:2", `[{"name":"t"},{"name":"s"}]`)
		if got, err := r.Fresh(t.Context(), "t"); err != nil || len(got) != i+1 {
			t.Fatalf("Fresh() = %v, %v, want %d", got, err, i+1)
		}
	}
	ts.do("DEL", tsHeartbeat+"n0")
	eventually(t, "it is suspect", func() bool { return r.Stats().Suspect == 1 })
	ts.tsBeat("n0", "h:1", `[{"name":"s"}]`)
	eventually(t, "it is not", func() bool { return r.Stats().Suspect == 0 })
	ts.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
	ts.tsBeat("n1", "h:1", `[{"name":"new"}]`)
	if got, err := r.Fresh(t.Context(), "new"); err != nil || len(got) != 1 {
		got, err = r.Fresh(t.Context(), "new") // the question was under way
		if err != nil || len(got) != 1 {
			t.Fatalf("Fresh() over a new connection = %v, %v", got, err)
		}
	}
}

// TestOddRecords has records that no node should write.
func TestOddRecords(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := slow(s)
	cfg.MaxRecordBytes = 100_000
	ts, r := newRaw(t, s), startReady(t, cfg)
	const good = `[{"name":"s","version":"1.0.0"}]`
	refused := map[string][]string{
		"no address":      {"services", good, "timestamp", "1"},
		"empty address":   {"address", "", "services", good, "timestamp", "1"},
		"no port":         {"address", "h", "services", good, "timestamp", "1"},
		"odd address":     {"address", "h\n:1", "services", good, "timestamp", "1"},
		"a path":          {"address", "h/x:1", "services", good, "timestamp", "1"},
		"a user":          {"address", "u@h:1", "services", good, "timestamp", "1"},
		"no services":     {"address", "h:1", "timestamp", "1"},
		"empty services":  {"address", "h:1", "services", "", "timestamp", "1"},
		"corrupt":         {"address", "h:1", "services", `[{"name":`, "timestamp", "1"},
		"no list":         {"address", "h:1", "services", `{"name":"s"}`, "timestamp", "1"},
		"no timestamp":    {"address", "h:1", "services", good},
		"too many":        {"address", "h:1", "services", "[" + strings.Repeat("{},", 1000) + "{}]", "timestamp", "1"},
		"too large":       {"address", "h:1", "services", good, "timestamp", "1", "metadata", strings.Repeat("x", 100_000)},
		"deep":            {"address", "h:1", "services", strings.Repeat("[", 50_000), "timestamp", "1"},
		"nothing of ours": {"foo", "bar"},
	}
	for id, fields := range refused {
		ts.do(append([]string{"HSET", tsNode + id}, fields...)...)
		ts.do("SET", tsHeartbeat+id, "1", "PX", "3600000")
		ts.do("SADD", tsIndex, id)
	}
	ts.do("SET", tsNode+"string", "x")
	ts.do("SET", tsHeartbeat+"string", "1")
	ts.do("SADD", tsIndex, "string", "", strings.Repeat("x", 300), "a\xff")
	ts.do("HSET", tsNode+"dead", "address", "h:1", "services", good, "timestamp", "1")
	ts.do("SADD", tsIndex, "dead")

	odd := map[string][]string{
		"future":   {"address", "h:1", "services", good, "timestamp", "99999999999999999999"},
		"negative": {"address", "h:1", "services", good, "timestamp", "-1"},
		"unknown":  {"address", "h:1", "services", good, "timestamp", "1", "capabilities", "{}"},
		"scheme":   {"address", "ws://h:1/", "services", good, "timestamp", "1"},
		"weight":   {"address", "h:1", "services", good, "timestamp", "1", "weight", "heavy", "zone", "\xff", "metadata", "[]", "scheme", "http"},
		"parts": {
			"address", "h:1", "timestamp", "1", "services",
			`[null,1,"s",{"name":1},{"version":"1.0.0"},{"name":"s","version":"1.0.0","more":[]},{"name":"a@b"},{"name":"x","version":1}]`,
		},
	}
	for id, fields := range odd {
		ts.do(append([]string{"HSET", tsNode + id}, fields...)...)
		ts.do("SET", tsHeartbeat+id, "1") // for ever
		ts.do("SADD", tsIndex, id)
	}
	wantIDs(t, "those that make sense", find(r, "s@1.0.0"), "future", "negative", "parts", "scheme", "unknown", "weight")
	eventually(t, "the others are counted", func() bool { return r.Stats().Refused >= uint64(len(refused)+4) })
	if st := r.Stats(); st.Odd < 4+7 || len(r.Nodes()) != len(odd) || st.Crowded != 0 {
		t.Errorf("Stats() = %+v, Nodes() = %v", st, ids(r.Nodes()))
	}
	if n, _ := r.Node("weight"); n.Weight != 0 || n.Zone != "" || n.Metadata != nil || n.Scheme != "ws" {
		t.Errorf("Node(weight) = %+v", n)
	}
	for id := range refused { // and nobody has deleted anything
		if n, _ := ts.do("EXISTS", tsNode+id, tsHeartbeat+id).AsInt64(); n != 2 {
			t.Errorf("%s was deleted", id)
		}
	}

	// One that was good and is corrupt now is suspect, and recovers.
	ts.do("HSET", tsNode+"future", "services", "oops")
	eventually(t, "it is suspect", func() bool { n, _ := r.Node("future"); return n.Suspect })
	ts.do("HSET", tsNode+"future", "services", good)
	eventually(t, "it is not", func() bool { n, _ := r.Node("future"); return !n.Suspect })

	malformed := r.Stats().Malformed
	messages := []string{"", "x", "[]", "{}", `{"type":"NODE_UPDATED"}`, `{"type":"NODE_UPDATED","nodeId":1}`, `{"type":"HELLO","nodeId":"a"}`, strings.Repeat("x", 200_000)}
	for _, m := range messages {
		ts.do("PUBLISH", tsChannel, m)
	}
	eventually(t, "they are counted", func() bool { return r.Stats().Malformed == malformed+uint64(len(messages)) })
}

// TestTooMany has more nodes than there may be.
func TestTooMany(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	cfg := slow(s)
	cfg.MaxNodes = 10
	ts := newRaw(t, s)
	ts.tsBeat("first", "h:1", `[]`)
	r := startReady(t, cfg)
	for i := range 3000 {
		ts.do("SADD", tsIndex, fmt.Sprint("dead", i))
	}
	for i := range 30 {
		ts.tsBeat(fmt.Sprint("a", i), "h:1", `[]`)
	}
	eventually(t, "some are too many", func() bool { return r.Stats().Crowded > 0 && len(r.Nodes()) == 10 })
	if _, ok := r.Node("first"); !ok {
		t.Error("the first one was put out")
	}
	if ids, whole, err := r.store.list(t.Context(), 500); err != nil || whole || len(ids) < 500 || len(ids) > 2000 {
		t.Errorf("list() of an index beyond the limit = %d ids, %t, %v", len(ids), whole, err)
	}
	if _, err := r.Fresh(t.Context(), "x"); err != nil || len(r.Nodes()) != 10 {
		t.Errorf("%v, %d nodes", err, len(r.Nodes()))
	}
}

// TestTidy shows that the index loses those who are dead, and nobody else.
func TestTidy(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	ts := newRaw(t, s)
	ts.tsBeat("alive", "h:1", `[]`)
	ts.tsBeat("silent", "h:1", `[]`)
	ts.do("DEL", tsHeartbeat+"silent")
	ts.do("SET", tsHeartbeat+"hollow", "1")
	for i := range 300 {
		ts.do("SADD", tsIndex, fmt.Sprint("dead", i))
	}
	ts.do("SADD", tsIndex, "hollow")
	cfg := quick()
	cfg.URL, cfg.TTL, cfg.Reconcile, cfg.Cleanup = s.URL(), 250*time.Millisecond, 20*time.Millisecond, 30*time.Millisecond
	r := startReady(t, cfg)
	eventually(t, "the dead are gone", func() bool {
		n, _ := ts.do("SCARD", tsIndex).AsInt64()
		return n == 3
	})
	eventually(t, "they are counted", func() bool { return r.Stats().Tidied == 300 })
}

// TestRefusals has a Redis that does not want us.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	admin := newRaw(t, s)
	admin.do("ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all", "-hset")
	admin.do("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "resetchannels", "+@all")
	admin.do("ACL", "SETUSER", "untold", "on", ">secret", "~*", "&*", "+@all", "-client|tracking", "-cluster")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cfg := quick()
	try := func(user, password string) (*Registry, error) {
		cfg.URL, cfg.Username, cfg.Password = s.URL(), user, password
		r := start(t, cfg)
		return r, r.Register(ctx, Node{ID: user, Address: "h:1", Services: services("s")})
	}
	_, err := try("nobody", "guess")
	if codeOf(err) != code.Unauthenticated || strings.Contains(err.Error(), "guess") {
		t.Errorf("Register() with a wrong password = %v", err)
	}
	r, err := try("reader", "secret")
	if codeOf(err) != code.PermissionDenied {
		t.Errorf("Register() without permission = %v", err)
	}
	wantReady(t, r) // it reads, and has no node of its own
	r, err = try("untold", "secret")
	if err != nil {
		t.Errorf("Register() without tracking = %v", err)
	}
	if got, err := r.Fresh(ctx, "s"); err != nil || len(got) != 1 {
		t.Errorf("Fresh() without tracking = %v, %v", got, err)
	}

	r, err = try("deaf", "secret")
	if err != nil {
		t.Errorf("Register() without the channel = %v", err)
	}
	eventually(t, "it says that it hears nothing", func() bool { return codeOf(r.Err()) == code.PermissionDenied })
	if got, err := r.Fresh(ctx, "s"); err != nil || len(got) != 2 {
		t.Errorf("Fresh() without the channel = %v, %v", got, err)
	}

	admin.do("CONFIG", "SET", "maxmemory", "1")
	cfg.URL, cfg.Username, cfg.Password = s.URL(), "", ""
	r = startReady(t, cfg)
	register(t, r, Node{ID: "late"})
	eventually(t, "there is an error", func() bool { return codeOf(r.Err()) == code.Unavailable && strings.Contains(r.Err().Error(), "OOM") })
	admin.do("CONFIG", "SET", "maxmemory", "0")
	wantReady(t, r)
	eventually(t, "the error ends", func() bool { return r.Err() == nil })
	admin.do("REPLICAOF", "127.0.0.1", "1")
	eventually(t, "there is an error", func() bool { return strings.Contains(fmt.Sprint(r.Err()), "READONLY") })
	if st := r.Stats(); st.Nodes == 0 {
		t.Errorf("Stats() = %+v", st)
	}
	admin.do("REPLICAOF", "NO", "ONE")
	eventually(t, "the error ends", func() bool { return r.Err() == nil })
	admin.do("DEL", tsIndex)
	admin.do("SET", tsIndex, "x")
	if err := r.Update(ctx, func(n *Node) { n.Weight = 2 }); codeOf(err) != code.FailedPrecondition {
		t.Errorf("Update() with a strange key = %v", err)
	}
}

// TestNoRedis has registries without a Redis.
func TestNoRedis(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Kill()
	cfg := quick()
	cfg.URL = s.URL()
	r := start(t, cfg)
	register(t, r, Node{ID: "a", Services: services("s")})
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := r.WaitReady(ctx); !errors.Is(err, context.DeadlineExceeded) || codeOf(err) != code.DeadlineExceeded {
		t.Errorf("WaitReady() = %v", err)
	}
	if _, err := r.Fresh(t.Context(), "s"); codeOf(err) != code.Unavailable || codeOf(r.Err()) != code.Unavailable {
		t.Errorf("Fresh() = %v, Err() = %v", err, r.Err())
	}
	s.Restart()
	wantReady(t, r)
	wantIDs(t, "those of the service", find(r, "s"), "a")
}

// TestAddresses has several addresses, of which not all answer, a socket, and a cluster.
func TestAddresses(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "redis.sock")
	s, other := redistest.Start(t, "--unixsocket", socket), redistest.Start(t)
	other.Kill()
	cfg := quick()
	cfg.Addrs = []string{other.Addr(), s.Addr()}
	a := startReady(t, cfg)
	register(t, a, Node{ID: "a"})
	cfg.Addrs, cfg.URL = nil, "unix://"+socket
	b := startReady(t, cfg)
	wantIDs(t, "all", b.Nodes, "a")
	s.Kill()
	other.Restart()
	wantFound := func() {
		t.Helper()
		cfg.URL = other.URL()
		c := startReady(t, cfg)
		wantIDs(t, "all", c.Nodes, "a")
		c.Close(t.Context())
	}
	wantFound()

	cluster := redistest.Start(t, "--cluster-enabled", "yes")
	newRaw(t, cluster).do("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
	cfg.URL = cluster.URL()
	eventually(t, "the cluster works", func() bool {
		info, _ := newInfo(t, cluster)
		return strings.Contains(info, "cluster_state:ok")
	})
	c := start(t, cfg)
	if err := c.Register(t.Context(), Node{ID: "a", Address: "h:1"}); codeOf(err) != code.FailedPrecondition {
		t.Errorf("Register() in a cluster without a hash tag = %v", err)
	}
	cfg.Prefix = "{netron}:discovery"
	d, e := startReady(t, cfg), startReady(t, cfg)
	register(t, d, Node{ID: "d", Services: services("s")})
	if got, err := e.Fresh(t.Context(), "s"); err != nil || len(got) != 1 {
		t.Errorf("Fresh() in a cluster = %v, %v", got, err)
	}
}

func newInfo(t testing.TB, s *redistest.Server) (string, error) {
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{s.Addr()}, ForceSingleClient: true, DisableCache: true})
	if err != nil {
		return "", err
	}
	defer c.Close()
	return c.Do(t.Context(), c.B().Arbitrary("CLUSTER", "INFO").Build()).ToString()
}

// TestLeastRights has a user with no more rights than the documentation asks for.
func TestLeastRights(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	admin := newRaw(t, s)
	rights := "on >secret ~netron:discovery:* &netron:discovery:events -@all +client|tracking +eval +exists +hmget +pttl " +
		"+scard +smembers +sscan +publish +subscribe +unsubscribe +hget +hset +expire +psetex +sadd +srem +del +setrange"
	admin.do(append([]string{"ACL", "SETUSER", "netron"}, strings.Fields(rights)...)...)
	cfg := quick()
	cfg.URL, cfg.Username, cfg.Password = s.URL(), "netron", "secret"
	var all []*Registry
	for _, id := range []string{"a", "b"} {
		r := startReady(t, cfg)
		register(t, r, Node{ID: id, Services: services("s")})
		all = append(all, r)
	}
	if err := all[0].SetServices(t.Context(), Service{Name: "other"}); err != nil {
		t.Error(err)
	}
	if got, err := all[1].Fresh(t.Context(), "other"); err != nil || len(got) != 1 {
		t.Errorf("Fresh() = %v, %v", got, err)
	}
	if err := all[0].Deregister(t.Context()); err != nil {
		t.Error(err)
	}
	wantIDs(t, "those that are left", all[1].Nodes, "b")
	for _, r := range all {
		if err := r.Err(); err != nil || r.Stats().Failures > 0 {
			t.Errorf("Err() = %v, Stats() = %+v", err, r.Stats())
		}
	}
}
