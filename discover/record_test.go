package discover

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzRecord decodes what may be in Redis. What comes out of it must have a record that
// means the same.
func FuzzRecord(f *testing.F) {
	f.Add("h:1", `[{"name":"x","version":"1.0.0"}]`, "1700000000000", "wss", "z", "3", `{"a":"b"}`, "i", "1")
	f.Add("ws://h:1/", `[{"name":"x"},null,1]`, "", "", "", "-1", `[]`, "", "x")
	f.Add("[::1]:1", `[]`, "9e99", "http", "\xff", "1e3", `{"a":1}`, "\xff", "-5")
	f.Add("", "", "1", "", "", "", "", "", "")
	f.Add("h:1", "["+strings.Repeat(`{"name":"x"},`, 1001)+"{}]", "1", "", "", "", "", "", "")
	cfg := &Config{MaxRecordBytes: 1 << 16}
	f.Fuzz(func(t *testing.T, address, services, timestamp, scheme, zone, weight, metadata, instance, started string) {
		in := fields{address, services, timestamp, scheme, zone, weight, metadata, instance, started}
		n, odd, err := decode("id", &in, cfg)
		if err != nil {
			if n != nil {
				t.Errorf("decode() = %v and %v", n, err)
			}
			return
		}
		if in.size() > 1<<16 || len(n.Services) > defaultMaxServices || odd < 0 {
			t.Errorf("decode() of %d bytes = %d services", in.size(), len(n.Services))
		}
		c := n.Clone()
		if err := c.normalize(cfg); err != nil {
			t.Fatalf("normalize() of what was read = %v", err)
		}
		out, err := encode(&c, &Config{})
		if err != nil {
			t.Fatal(err)
		}
		out[fieldTimestamp] = timestamp
		again, odd, err := decode("id", &out, &Config{})
		if err != nil || odd != 0 {
			t.Fatalf("decode() of %q, once more = %d, %v", out, odd, err)
		}
		if again.Started.UnixMilli() < 0 { // there is no such time on the wire
			again.Started = time.Time{}
		}
		if n.Started.IsZero() {
			again.Started = n.Started
		}
		if !again.same(n) {
			t.Errorf("the record of %+v means %+v", n, again)
		}
	})
}

func FuzzAnnouncement(f *testing.F) {
	f.Add(`{"type":"NODE_REGISTERED","nodeId":"a","address":"h:1","services":[{"name":"x","version":"1.0.0"}],"timestamp":1700000000000}`)
	f.Add(`{"type":"NODE_DEREGISTERED","nodeId":"a","address":"","services":[],"timestamp":1,"instance":"i"}`)
	f.Add(`{"type":"NODE_UPDATED","nodeId":1}`)
	f.Add(`[]`)
	f.Fuzz(func(t *testing.T, message string) {
		a, err := parseAnnouncement(message, &Config{})
		if err != nil {
			return
		}
		if !isID(a.NodeID) {
			t.Errorf("parseAnnouncement(%q) = %+v", message, a)
		}
		text, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := parseAnnouncement(string(text), &Config{}); err != nil || b.Type != a.Type || b.NodeID != a.NodeID || b.Instance != a.Instance {
			t.Errorf("parseAnnouncement(%s) = %+v, %v", text, b, err)
		}
	})
}

// TestAnnouncementBytes pins the JSON that TypeScript peers of version 0.6 read.
func TestAnnouncementBytes(t *testing.T) {
	n := &Node{ID: "n", Address: "h:1", Services: services("a@1.0.0", "b"), Instance: "i"}
	got, err := json.Marshal(announce(typeUpdated, n, time.UnixMilli(1700000000000)))
	const want = `{"type":"NODE_UPDATED","nodeId":"n","address":"h:1","services":[{"name":"a","version":"1.0.0"},{"name":"b","version":""}],"timestamp":1700000000000,"instance":"i"}`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}

func TestClone(t *testing.T) {
	n := Node{Services: services("a"), Metadata: map[string]string{"k": "v"}}
	c := n.Clone()
	c.Services[0].Name, c.Metadata["k"] = "b", "w"
	if n.Services[0].Name != "a" || n.Metadata["k"] != "v" || !slices.Equal(services("b"), c.Services) {
		t.Errorf("%+v and its copy %+v share", n, c)
	}
}
