package mux

import (
	"context"
	"errors"
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
