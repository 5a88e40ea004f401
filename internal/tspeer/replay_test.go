package tspeer

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// loadAll returns the recorded conversations.
func loadAll(t *testing.T) []*Conversation {
	t.Helper()
	all, err := Load()
	if err != nil {
		t.Fatalf("Load() = %v, want nil", err)
	}
	return all
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

// play runs the recorded client of c against its recorded server.
func play(t *testing.T, c *Conversation, dial, accept Endpoints, opts ...Option) (client, server error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	done := make(chan error)
	go func() {
		_, err := c.ServeRecorded(ctx, accept, opts...)
		done <- err
	}()
	_, client = c.ReplayClient(ctx, dial, opts...)
	if client != nil {
		cancel()
	}
	return client, <-done
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
				client, server := play(t, c, dial, accept, AsRecorded())
				if client != nil {
					t.Errorf("ReplayClient() = %v, want nil", client)
				}
				if server != nil {
					t.Errorf("ServeRecorded() = %v, want nil", server)
				}
			})
		})
	}
}
