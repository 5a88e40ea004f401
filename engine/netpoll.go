//go:build linux && (amd64 || arm64 || loong64)

package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/cloudwego/netpoll"
)

// The only file that knows netpoll. Its pollers are used, its connections are
// not: those hold at least 4 KiB each, start a task for every event, and cannot be
// closed near a handler that runs on the poller. See docs/design/0005.
//
// The build tags are where netpoll's epoll code is right: elsewhere on Linux it
// lays out struct epoll_event wrongly, and its kqueue code leaves the read filter
// in place when an operator with OnWrite is detached.

type (
	// poller is an event loop of netpoll. It belongs to the process and is never
	// closed.
	poller = netpoll.Poll

	// operator is a descriptor in a poller. OnRead, OnWrite and OnHup are called
	// as follows:
	//
	//   - OnRead and OnWrite on the goroutine of the poller, level-triggered, never
	//     two at a time for one operator;
	//   - OnHup once, on another goroutine that serves other operators after this
	//     one, after a hang-up of either direction or an error. The operator has been
	//     detached by then, and bytes may be left to be read.
	//
	// Free waits until no method of the operator runs, and so must not be called
	// by one. After Free none is going to run, except an OnHup that was due already.
	operator = netpoll.FDOperator
)

const (
	pollRead     = netpoll.PollReadable // begin to watch
	pollDetach   = netpoll.PollDetach
	pollAddWrite = netpoll.PollR2RW
	pollNoWrite  = netpoll.PollRW2R
)

// shared is what this package knows of the pollers, which netpoll keeps for the
// process.
var shared struct {
	mu     sync.Mutex
	polls  []poller
	err    error
	warned bool
	next   atomic.Uint32 // for taking turns
}

// pollers returns at least one poller, and n of them if n is not 0. More are started if
// there are less. The failure of the first call is final.
func pollers(n int) ([]poller, error) {
	p := &shared
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && len(p.polls) == 0 {
		p.polls, p.err = findPollers()
	}
	if p.err != nil {
		return nil, p.err
	}
	if n > len(p.polls) {
		// A lower number would stop pollers that other users of netpoll may need;
		// Configure would overwrite their other settings.
		if err := netpoll.SetNumLoops(n); err != nil { //nolint:staticcheck // see above
			return nil, fmt.Errorf("engine: netpoll: %w", err)
		}
		more, err := findPollers()
		if err != nil {
			return nil, err
		}
		p.polls = more
	}
	if n <= 0 || n > len(p.polls) {
		n = len(p.polls)
	}
	return p.polls[:n], nil
}

// pollersOrLog is pollers for those who can do without: it logs the first
// failure.
func pollersOrLog(n int, log *slog.Logger) []poller {
	polls, err := pollers(n)
	if err == nil {
		return polls
	}
	shared.mu.Lock()
	first := !shared.warned
	shared.warned = true
	shared.mu.Unlock()
	if first {
		log.Warn("engine: no epoll driver, using goroutines", "err", err)
	}
	return nil
}

// findPollers makes connections until one gets a poller again that was seen: they
// take turns.
func findPollers() ([]poller, error) {
	var found []poller
	for {
		p, err := anchor()
		if err != nil {
			return nil, err
		}
		if slices.Contains(found, p) {
			return found, nil
		}
		found = append(found, p)
	}
}

// anchor finds out which poller netpoll gives to a new connection.
func anchor() (poller, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("engine: netpoll: %w", err)
	}
	defer syscall.Close(fds[1])
	conn, err := netpoll.NewFDConnection(fds[0])
	if err != nil {
		_ = syscall.Close(fds[0])
		return nil, fmt.Errorf("engine: netpoll: %w", err)
	}
	defer conn.Close()
	return pollerOf(conn)
}

// pollerOf reads the poller of a connection from fields that netpoll does not
// export. It fails if they are not what they are in the version this was written
// for.
func pollerOf(conn any) (poller, error) {
	var op *operator
	if err := field(conn, "operator", &op); err != nil {
		return nil, err
	}
	var p poller
	if err := field(op, "poll", &p); err != nil {
		return nil, err
	}
	if p == nil {
		return nil, errors.New("engine: netpoll: connection without a poller")
	}
	return p, nil
}

// field copies a field of the struct that of points to, which must have the type
// of *dst.
func field[T any](of any, name string, dst *T) error {
	v := reflect.ValueOf(of)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return fmt.Errorf("engine: netpoll: %T is no struct", of)
	}
	f := v.Elem().FieldByName(name)
	if !f.IsValid() || f.Type() != reflect.TypeFor[T]() {
		return fmt.Errorf("engine: netpoll: %T has no field %s of type %v", of, name, reflect.TypeFor[T]())
	}
	*dst = *(*T)(f.Addr().UnsafePointer())
	return nil
}
