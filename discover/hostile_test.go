package discover

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
	"github.com/d-e-v-grid/netron/internal/redistest"
)

// TestHostileRecords has records that somebody wrote to do harm. It is not parallel, since
// it looks at the memory of the process.
func TestHostileRecords(t *testing.T) {
	s := redistest.Start(t)
	ts := newRaw(t, s)
	const huge = 5_000_000
	const list = `[{"name":"s","version":"1.0.0"}]`
	write := func(id string, changed map[string]string) {
		t.Helper()
		record := map[string]string{"address": "h:1", "services": list, "timestamp": "1"}
		args := []string{"HSET", tsNode + id}
		maps.Copy(record, changed)
		for k, v := range record {
			args = append(args, k, v)
		}
		ts.do(args...)
		ts.do("SET", tsHeartbeat+id, "1", "PX", "3600000")
		ts.do("SADD", tsIndex, id)
	}
	var before, after runtime.MemStats
	r := startReady(t, slow(s))
	write("good", nil)
	wantIDs(t, "all", r.Nodes, "good")
	runtime.GC()
	runtime.ReadMemStats(&before)

	many := make([]Service, 10_000)
	for i := range many {
		many[i] = Service{Name: fmt.Sprint("s", i), Version: "1.0.0"}
	}
	text, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]map[string]string{
		"many":         {"services": string(text)},
		"deep":         {"services": strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)},
		"deeper":       {"services": "[" + strings.Repeat(`{"name":`, 100_000)},
		"bad address":  {"address": "h\xff:1"},
		"long address": {"address": strings.Repeat("h", 1000) + ":1"},
	}
	for _, field := range fieldNames {
		refused["huge "+field] = map[string]string{field: strings.Repeat("9", huge)}
	}
	for id, record := range refused {
		write(id, record)
	}
	ts.do("SADD", tsIndex, strings.Repeat("i", huge), "i\xff")
	ts.do("RPUSH", tsNode+"a list", "address", "h:1")
	ts.do("RPUSH", tsHeartbeat+"a list", "1")
	ts.do("SADD", tsIndex, "a list")
	odd := map[string]map[string]string{
		"odd deep":     {"metadata": strings.Repeat(`{"a":`, 20_000) + strings.Repeat("}", 20_000)},
		"odd metadata": {"metadata": "{\"a\":\"\xff\"}"},
		"odd name":     {"services": "[{\"name\":\"s\xff\"},{\"name\":\"s\",\"version\":\"1.0.0\"}]"},
		"odd zone":     {"zone": strings.Repeat("z", 1000)},
		"odd weight":   {"weight": "99999999999999999999"},
		"odd minus":    {"weight": "-1"},
		"odd scheme":   {"scheme": "javascript"},
	}
	for id, record := range odd {
		write(id, record)
	}
	sane := []string{"good"}
	for id, record := range map[string]map[string]string{
		"of a far future": {"timestamp": "9007199254740993", "started": "9223372036854775807"},
		"of a far past":   {"timestamp": "-9223372036854775808", "started": "-1"},
		"of no version":   {"services": `[{"name":"s","version":"-1.0.0"},{"name":"s","version":"1.-2.0"},{"name":"s","version":"1.0.0"}]`},
		"of no number":    {"timestamp": "NaN", "started": "1e999"},
		"of all fields":   {"more": strings.Repeat("x", huge)},
	} {
		write(id, record)
		sane = append(sane, id)
	}
	ts.do("SET", tsHeartbeat+"good", "1", "PX", "9000000000000000") // for ever, nearly
	eventually(t, "all that makes sense is there", func() bool { return len(r.Find("s@1.0.0")) == len(sane)+len(odd) })
	eventually(t, "the rest is counted", func() bool {
		st := r.Stats()
		return st.Refused >= uint64(len(refused)+3) && st.Odd >= uint64(len(odd))
	})
	if _, err := r.Fresh(t.Context(), "s"); err != nil {
		t.Errorf("Fresh() = %v", err)
	}
	for _, id := range sane {
		if n, ok := r.Node(id); !ok || n.Suspect {
			t.Errorf("Node(%s) = %+v, %t", id, n, ok)
		}
	}
	for id := range odd {
		n, ok := r.Node(id)
		if !ok || n.Weight != 0 || n.Zone != "" || n.Metadata != nil || n.Scheme != "ws" || len(n.Services) != 1 {
			t.Errorf("Node(%s) = %+v, %t", id, n, ok)
		}
	}
	for id := range refused {
		if n, ok := r.Node(id); ok {
			t.Errorf("Node(%s) = %.200v", id, n)
		}
	}
	if got := r.Find("s@<1.0.0"); len(got) > 0 {
		t.Errorf("Find() of versions below = %v", ids(got))
	}

	malformed := r.Stats().Malformed
	messages := []string{
		strings.Repeat("9", huge), strings.Repeat("[", 100_000), `{"type":"NODE_UPDATED","nodeId":` + strings.Repeat("[", 20_000),
		"{\"type\":\"NODE_UPDATED\",\"nodeId\":\"" + strings.Repeat("n", 1000) + "\"}", `{"type":-1,"nodeId":"a"}`, "\xff\xfe",
	}
	for _, m := range messages {
		ts.do("PUBLISH", tsChannel, m)
	}
	eventually(t, "the announcements are counted", func() bool { return r.Stats().Malformed == malformed+uint64(len(messages)) })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if more := int64(after.HeapAlloc) - int64(before.HeapAlloc); more > 2*huge {
		t.Errorf("%d bytes are kept of what makes no sense", more)
	}

	ts.do("RENAME", tsIndex, "elsewhere")
	ts.do("SET", tsIndex, "no set")
	eventually(t, "it says that the index is no set", func() bool { return codeOf(r.Err()) == code.FailedPrecondition })
	if n := len(r.Nodes()); n != len(sane)+len(odd) {
		t.Errorf("%d nodes without an index", n)
	}
	ts.do("RENAME", "elsewhere", tsIndex)
	eventually(t, "it has the index", func() bool { return r.Err() == nil })
	if st := r.Stats(); st.Suspect > 0 {
		t.Errorf("Stats() = %+v", st)
	}
}

// heavy is a store that needs too long for more than so many bytes at once.
type heavy struct {
	store
	most int
}

func (s *heavy) read(ctx context.Context, ids []string) ([]reading, error) {
	readings, err := s.store.read(ctx, ids)
	size := 0
	for i := range readings {
		size += readings[i].fields.size()
	}
	if size > s.most {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return readings, err
}

// TestHeavyRecords has strangers with so large records that not many can be read at once.
func TestHeavyRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := NewHub()
		cfg := Config{Logger: quiet, MaxRecordBytes: 1000}
		r := newRegistry(cfg, &heavy{store: &memoryStore{hub: hub, cfg: &cfg}, most: 20_000})
		closeLater(t, r)
		register(t, r, Node{ID: "own"})
		wantReady(t, r)
		const strangers = 1000
		hub.mu.Lock()
		for i := range strangers {
			id := fmt.Sprint("n", i)
			hub.records[id] = &kept{fields: fields{fieldAddress: strings.Repeat("x", 5000)}, expires: time.Now().Add(time.Hour)}
			hub.mark(id)
		}
		hub.mu.Unlock()
		time.Sleep(time.Second)
		register(t, r, Node{ID: "own", Services: services("new")})
		time.Sleep(2 * defaultTimeout)
		if got := r.Find("new"); len(got) != 1 {
			t.Errorf("Find() of what was known = %v", ids(got))
		}
		other, err := NewMemory(hub, cfg)
		if err != nil {
			t.Fatal(err)
		}
		closeLater(t, other)
		register(t, other, Node{ID: "z"})
		time.Sleep(time.Minute)
		if _, ok := r.Node("z"); !ok || r.Stats().Refused < strangers {
			t.Errorf("the node behind the strangers is there: %t; Err() = %v, %+v", ok, r.Err(), r.Stats())
		}
		time.Sleep(time.Hour)
		if st := r.Stats(); st.Failures > 300 {
			t.Errorf("%+v", st)
		}
	})
}
