package pubsub

import (
	"context"
	"log/slog"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newBus returns a bus that is closed at the end of the test, which waits for all that
// runs.
func newBus(t testing.TB, cfg Config) *Bus {
	t.Helper()
	b, _ := newPrivileged(t, cfg)
	return b
}

func newPrivileged(t testing.TB, cfg Config) (*Bus, Emitter) {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	b, e, err := NewPrivileged(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(context.Background()); err != nil {
			t.Errorf("Close() = %v", err)
		}
	})
	return b, e
}

// subscribe subscribes or fails the test.
func subscribe(t testing.TB, b *Bus, pattern string, h Handler, opts ...Option) *Subscription {
	t.Helper()
	s, err := b.Subscribe(pattern, h, opts...)
	if err != nil {
		t.Fatalf("Subscribe(%q) = %v", pattern, err)
	}
	return s
}

// returns is a handler that returns a value.
func returns(v any) Handler {
	return func(context.Context, Event) (any, error) { return v, nil }
}

// fails is a handler that returns an error.
func fails(err error) Handler {
	return func(context.Context, Event) (any, error) { return nil, err }
}
