package mux

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// TestCancelPacket checks which packets give a request up.
func TestCancelPacket(t *testing.T) {
	var got []uint32
	cfg := func(features ...string) Config {
		return Config{LocalID: "x", Features: features, Workers: newTestWorkers(t), Overloaded: []byte{0xc0}, Draining: []byte{0xc0}, Serve: echo, Cancel: func(id uint32) { got = append(got, id) }}
	}
	packet := func(id uint32, flags wire.Flags, payload ...byte) []byte {
		return append(wire.AppendHeader(nil, id, flags), payload...)
	}
	for _, tc := range []struct {
		name   string
		theirs []string
		packet []byte
		want   int
	}{
		{"a request given up", []string{FeatureCancel}, packet(5, wire.Request(wire.TypeCancel), 0xc0), 1},
		{"a stream", []string{FeatureCancel}, packet(5, wire.Request(wire.TypeCancel), 0x92, 1, 0xa0), 0},
		{"no payload", []string{FeatureCancel}, packet(5, wire.Request(wire.TypeCancel)), 0},
		{"no impulse", []string{FeatureCancel}, packet(5, wire.Flags(wire.TypeCancel), 0xc0), 0},
		{"not negotiated", []string{FeatureMeta}, packet(5, wire.Request(wire.TypeCancel), 0xc0), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got = nil
			a, b := Pipe(cfg(tc.theirs...), cfg(FeatureCancel, FeatureMeta))
			defer func() {
				a.Close(closeNormal, "")
				<-a.Done()
			}()
			b.Message(false, tc.packet)
			b.ReadDone()
			if len(got) != tc.want {
				t.Errorf("told of %v, want %d requests", got, tc.want)
			}
			if err := b.Err(); err != nil {
				t.Errorf("the session ended: %v", err)
			}
		})
	}
}

// TestGoAwayPacket checks that only a peer which negotiated it can ask for this, and be
// asked.
func TestGoAwayPacket(t *testing.T) {
	for _, tc := range []struct {
		name     string
		features []string
		flags    wire.Flags
		want     int
	}{
		{"negotiated", []string{FeatureGoAway}, wire.Request(wire.TypeGoAway), 1},
		{"no impulse", []string{FeatureGoAway}, wire.Flags(wire.TypeGoAway), 0},
		{"not negotiated", nil, wire.Request(wire.TypeGoAway), 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			told := 0
			cfg := Config{LocalID: "x", Features: tc.features, Workers: newTestWorkers(t), Overloaded: []byte{0xc0}, Draining: []byte{0xc0}, Serve: echo, GoAway: func(*Session, []byte) { told++ }}
			a, b := Pipe(cfg, cfg)
			defer func() {
				a.Close(closeNormal, "")
				<-a.Done()
			}()
			b.Message(false, append(wire.AppendHeader(nil, 5, tc.flags), 0x92, 0xa0, 0x00))
			b.ReadDone()
			if told != tc.want || b.Err() != nil {
				t.Errorf("told %d times, want %d; the session: %v", told, tc.want, b.Err())
			}
			if sent := a.GoAway([]byte{0x92, 0xa0, 0x00}); sent != (tc.features != nil) || told != tc.want+len(tc.features) {
				t.Errorf("GoAway = %t, told %d times", sent, told)
			}
		})
	}
}

// TestCancelIsSent checks that a peer is told of a call that nobody waits for, and only
// one that understands it.
func TestCancelIsSent(t *testing.T) {
	for _, negotiated := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			gate := make(chan struct{})
			var ids []uint32
			var features []string
			if negotiated {
				features = []string{FeatureCancel}
			}
			cfg := Config{LocalID: "x", Features: features, Workers: newTestWorkers(t), Overloaded: []byte{0xc0}, Draining: []byte{0xc0}, Serve: gated(gate), Cancel: func(id uint32) { ids = append(ids, id) }}
			a, b := Pipe(cfg, cfg)
			defer func() {
				close(gate)
				a.Close(closeNormal, "")
				<-a.Done()
			}()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			c := a.NewCall()
			c.B = append(c.B, 0xc0)
			if _, err := c.Do(ctx, wire.TypeCall, 0); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("given up by its context: %v", err)
			}
			c.Release()
			c = a.NewCall()
			c.B = append(c.B, 0xc0)
			if _, err := c.Do(t.Context(), wire.TypeCall, time.Second); !errors.Is(err, ErrTimeout) {
				t.Errorf("given up by its limit: %v", err)
			}
			c.Release()
			synctest.Wait()
			want := 0
			if negotiated {
				want = 2
			}
			if len(ids) != want || b.Stats().Cancels != uint64(want) || b.Stats().Unknown != 0 {
				t.Errorf("negotiated %t: the peer was told of %v, want %d; %+v", negotiated, ids, want, b.Stats())
			}
		})
	}
}

func newTestWorkers(t *testing.T) *Workers {
	t.Helper()
	w, err := NewWorkers(0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(time.Second); err != nil {
			t.Error(err)
		}
	})
	return w
}

// TestResumeToken checks that a token is shown to the listener that gave it, and to
// nobody else.
func TestResumeToken(t *testing.T) {
	long := strings.Repeat("x", maxToken+1)
	for _, tc := range []struct {
		name     string
		features []string // of the connector
		text     string   // of the listener
		token    string   // told about it
		answer   string
	}{
		{
			"the same listener",
			[]string{"resume"},
			`{"type":"id","id":"srv","ext":{"v":1,"f":["resume"],"resume":"new"}}`,
			"new", `{"type":"client-id","id":"local","ext":{"v":1,"f":["resume"],"resume":"old"}}`,
		},
		{
			"another listener",
			[]string{"resume"},
			`{"type":"id","id":"other","ext":{"v":1,"f":["resume"],"resume":"new"}}`,
			"new", `{"type":"client-id","id":"local","ext":{"v":1,"f":["resume"]}}`,
		},
		{
			"not offered by the listener",
			[]string{"resume"},
			`{"type":"id","id":"srv","ext":{"v":1,"f":[],"resume":"new"}}`,
			"", `{"type":"client-id","id":"local","ext":{"v":1,"f":[]}}`,
		},
		{
			"not offered by the connector", nil, `{"type":"id","id":"srv","ext":{"v":1,"f":["resume"],"resume":"new"}}`,
			"", `{"type":"client-id","id":"local","ext":{"v":1,"f":[]}}`,
		},
		{
			"too long",
			[]string{"resume"},
			`{"type":"id","id":"srv","ext":{"v":1,"f":["resume"],"resume":"` + long + `"}}`,
			"", `{"type":"client-id","id":"local","ext":{"v":1,"f":["resume"],"resume":"old"}}`,
		},
		{"a TypeScript peer", []string{"resume"}, `{"type":"id","id":"srv"}`, "", `{"type":"client-id","id":"local"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTestConn(t, Config{Connector: true, Features: tc.features, Token: "old", TokenOf: "srv"})
				defer c.end()
				c.writeText(tc.text)
				got, err := c.session.WaitReady(t.Context())
				if err != nil || got.Token != tc.token {
					t.Errorf("WaitReady = %+v, %v, want token %q", got, err, tc.token)
				}
				c.wantText("the client-id", tc.answer)
			})
		})
	}
}

// TestResumeTokenShown checks what a listener makes of a token.
func TestResumeTokenShown(t *testing.T) {
	for _, tc := range []struct{ name, text, token string }{
		{"shown", `{"type":"client-id","id":"x","ext":{"v":1,"f":["resume"],"resume":"old"}}`, "old"},
		{"first connection", `{"type":"client-id","id":"x","ext":{"v":1,"f":["resume"]}}`, ""},
		{"not negotiated", `{"type":"client-id","id":"x","ext":{"v":1,"f":["cancel"],"resume":"old"}}`, ""},
		{"too long", `{"type":"client-id","id":"x","ext":{"v":1,"f":["resume"],"resume":"` + strings.Repeat("x", maxToken+1) + `"}}`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newTestConn(t, Config{Features: []string{"resume"}, Token: "new"})
				defer c.end()
				c.wantText("the id", `{"type":"id","id":"local","ext":{"v":1,"f":["resume"],"resume":"new"}}`)
				c.writeText(tc.text)
				if got, err := c.session.WaitReady(t.Context()); err != nil || got.Token != tc.token {
					t.Errorf("WaitReady = %+v, %v, want token %q", got, err, tc.token)
				}
			})
		})
	}
}
