package netron_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/internal/demo"
)

// TestStopListening checks that who is connected is served on, and nobody else.
func TestStopListening(t *testing.T) {
	n, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	if err := demo.Expose(n); err != nil {
		t.Fatal(err)
	}
	if err := n.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- n.Serve(ctx) }()
	client := newNode(t, netron.Config{})
	peer, err := client.Dial(t.Context(), n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	n.StopListening()
	n.StopListening() // again is fine
	if _, err := client.Dial(t.Context(), n.Addr()); err == nil {
		t.Error("a dial after StopListening succeeded")
	}
	var sum float64
	if err := peer.RunTask(t.Context(), "sum", &sum, 1, 2); err != nil || sum != 3 {
		t.Errorf("a task after StopListening = %v, %v, want 3", sum, err)
	}
	select {
	case err := <-served:
		t.Errorf("Serve returned %v while its context lived", err)
	default:
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve = %v, want nil", err)
	}
	if err := peer.Close(); err != nil { // it would try to come back
		t.Error(err)
	}
}

// TestOnShutdown checks when, and in which order, the functions run.
func TestOnShutdown(t *testing.T) {
	n := newNode(t, netron.Config{})
	var ran []string
	broken := errors.New("cannot write")
	running, release := make(chan struct{}), make(chan struct{})
	err := n.AddTask("wait", func(context.Context) {
		close(running)
		<-release
		ran = append(ran, "request")
	})
	if err != nil {
		t.Fatal(err)
	}
	n.OnShutdown(func(context.Context) error {
		ran = append(ran, "first")
		return broken
	})
	n.OnShutdown(func(context.Context) error { panic("no") })
	n.OnShutdown(func(ctx context.Context) error {
		ran = append(ran, "last")
		return ctx.Err()
	})
	go func() { _ = n.Local().RunTask(context.Background(), "wait", nil) }()
	<-running
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- n.Shutdown(ctx) }()
	close(release)
	if err := <-done; !errors.Is(err, broken) {
		t.Errorf("Shutdown = %v, want the error of a function", err)
	}
	if want := []string{"request", "last", "first"}; !slices.Equal(ran, want) {
		t.Errorf("ran %v, want %v", ran, want)
	}
	if err := n.Shutdown(ctx); err != nil {
		t.Errorf("second Shutdown = %v, want nil: the functions run once", err)
	}
}

// TestSignalContext checks that a signal ends the context.
func TestSignalContext(t *testing.T) {
	ctx, stop := netron.SignalContext(t.Context())
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(syscall.SIGTERM); err != nil {
		t.Skip(err) // no such signal on Windows
	}
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Error("the context lives on after SIGTERM")
	}
}
