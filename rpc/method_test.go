package rpc

import (
	"testing"
	"time"

	"github.com/d-e-v-grid/netron/mux"
)

// TestDispatchIsLearned checks which methods get workers of their own, and how fast.
func TestDispatchIsLearned(t *testing.T) {
	observe := func(m *method, n int, d time.Duration) {
		for range n {
			m.observe(d)
		}
	}
	m := &method{}
	observe(m, 100, 200*time.Nanosecond)
	if m.isSampled(1) || !m.isSampled(16) {
		t.Error("of a fast method one call in 16 is timed, others were")
	}
	observe(m, 1, time.Second)
	if got := m.Dispatch(); got != mux.Batched || !m.isSampled(1) {
		t.Errorf("after one slow call: %v, timed %v; want batched, and every call timed", got, m.isSampled(1))
	}
	observe(m, 10, 200*time.Nanosecond)
	if m.isSampled(1) {
		t.Errorf("one slow call is not forgotten after ten fast ones: mean %v", m.Mean())
	}
	observe(m, 8, time.Second)
	if got := m.Dispatch(); got != mux.Alone {
		t.Errorf("after 8 slow calls: %v with mean %v, want alone", got, m.Mean())
	}
	observe(m, 100, 30*time.Microsecond)
	if got := m.Dispatch(); got != mux.Alone {
		t.Errorf("after calls of 30 us: %v, want alone still", got)
	}
	observe(m, 100, 10*time.Microsecond)
	if got := m.Dispatch(); got != mux.Batched {
		t.Errorf("after 100 calls of 10 us: %v, want batched", got)
	}
	for range 8 {
		m.Stalled()
	}
	if got := m.Dispatch(); got != mux.Alone {
		t.Errorf("after 8 stalls: %v, want alone", got)
	}
	if got := (&method{inline: true}).Dispatch(); got != mux.Inline {
		t.Errorf("an inline method: %v", got)
	}
}
