package rpc

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
)

// TestPeerEmit checks events that are sent without a subscription.
func TestPeerEmit(t *testing.T) {
	for kind, greeting := range greetings {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				form := "task [emit %s]"
				if greeting == greetNetron {
					form = "event [%s]"
				}
				w := newWirePeer(t, Config{MaxMessageBytes: 1000}, greeting)
				if err := w.peer.Emit(t.Context(), "a", 1); err != nil {
					t.Error(err)
				}
				w.wants("Emit", fmt.Sprintf(form, "a 1"))
				if err := w.e.Broadcast(t.Context(), "b"); err != nil {
					t.Error(err)
				}
				w.wants("Broadcast", fmt.Sprintf(form, "b"))
				for name, tt := range map[string]struct {
					name string
					arg  any
					want Code
				}{
					"empty name": {"", 1, InvalidArgument},
					"pattern":    {"a:*", 1, InvalidArgument},
					"internal":   {"service:expose", 1, PermissionDenied},
					"too large":  {"a", make([]byte, 1000), ResourceExhausted},
					"argument":   {"a", make(chan int), InvalidArgument},
				} {
					if err := w.peer.Emit(t.Context(), tt.name, tt.arg); CodeOf(err) != tt.want {
						t.Errorf("Emit, %s: %v, want %v", name, err, tt.want)
					}
					if err := w.e.Broadcast(t.Context(), tt.name, tt.arg); CodeOf(err) != tt.want {
						t.Errorf("Broadcast, %s: %v, want %v", name, err, tt.want)
					}
				}
				w.wants("what cannot be sent")
				w.end()
				if err := w.peer.Emit(t.Context(), "a"); CodeOf(err) != Unavailable {
					t.Errorf("Emit after the end = %v", err)
				}
				if err := w.e.Broadcast(t.Context(), "a"); err != nil {
					t.Errorf("Broadcast to nobody = %v", err)
				}
			})
		})
	}
}

// TestGate checks that peers which have not proved who they are get no events, and that
// theirs reach nobody.
func TestGate(t *testing.T) {
	for kind, greeting := range greetings {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWirePeer(t, Config{Admit: func(p *Peer) error {
					if p.User() == nil {
						return Errorf(Unauthenticated, "who are you?")
					}
					return nil
				}}, greeting)
				got := collectInline(t, w, "a")
				w.task(5, taskSubscribe, "a")
				w.wants("subscribe", "error 5 unauthenticated: who are you?")
				w.task(6, taskEmit, "a", 1)
				w.wants("emit, whose errors end the process of some peers", "answer 6 undefined")
				w.event("a", 1)
				w.emit("a", 2)
				if err := w.e.Broadcast(t.Context(), "a"); err != nil {
					t.Error(err)
				}
				w.wants("events for somebody unknown")
				if len(*got) != 0 {
					t.Errorf("events of somebody unknown arrived: %q", *got)
				}
				w.peer.SetUser("ann")
				w.task(7, taskSubscribe, "a")
				w.task(8, taskEmit, "a", 3)
				w.wants("after authentication", "answer 8 undefined", "answer 7 undefined")
				if want := []string{"a [3]"}; !slices.Equal(*got, want) {
					t.Errorf("events %q, want %q", *got, want)
				}
			})
		})
	}
}
