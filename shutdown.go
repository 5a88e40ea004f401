package netron

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"syscall"
)

// StopListening stops accepting connections for good, also those of [Node.Handler].
// What is connected stays, and is served on; [Node.Serve] goes on until its context
// ends. Dialling is still possible. Config.Discovery finds the node no more.
func (n *Node) StopListening() {
	n.mu.Lock()
	ln := n.listener
	n.mu.Unlock()
	if n.discovery != nil {
		n.discovery.leave()
	}
	n.server.StopAccepting()
	if ln != nil {
		_ = ln.Close() // it may never have been served
	}
}

// OnShutdown has fn called by [Node.Shutdown], and thus at the end of [Node.Serve],
// when running requests have been answered and before the connections end: to write
// what is buffered, or to say goodbye to peers. Functions are called one after the
// other, the one that was registered last first, with the context of Shutdown; their
// errors are part of what it returns. [Node.Close] calls none.
func (n *Node) OnShutdown(fn func(ctx context.Context) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.atEnd = append(n.atEnd, fn)
}

// runAtEnd calls the functions of OnShutdown, once.
func (n *Node) runAtEnd(ctx context.Context) error {
	n.mu.Lock()
	fns := n.atEnd
	n.atEnd = nil
	n.mu.Unlock()
	var errs []error
	for _, fn := range slices.Backward(fns) {
		errs = append(errs, n.callAtEnd(ctx, fn))
	}
	return errors.Join(errs...)
}

func (n *Node) callAtEnd(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			n.cfg.logger().Error("netron: panic in a function of OnShutdown", "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("netron: panic in a function of OnShutdown: %v", v)
		}
	}()
	return fn(ctx)
}

// SignalContext returns a context that ends when the process is told to end, by an
// interrupt or SIGTERM, for the Serve of a main function. A second signal ends the
// process at once, as without this function. Call stop to hear no more signals.
func SignalContext(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ctx, stop = signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}
