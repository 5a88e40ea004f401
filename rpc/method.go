package rpc

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// method is one method of a service, the reading or writing of a property, or a task.
type method struct {
	name   string
	op     Op
	owner  *Service // nil for a task
	args   []string // their types as TypeScript calls them
	result string   // likewise

	invoke invokeFunc

	use   []Middleware // of this method alone; fixed once the service is exposed
	chain atomic.Pointer[serverChain]

	limit time.Duration // of a task, 0 for none; methods have none

	streaming    bool // it takes or returns streams
	takesStreams bool

	inline bool         // fixed once the service is exposed
	mean   atomic.Int64 // of the time that a call takes, exponentially weighted, in nanoseconds
	alone  atomic.Bool  // the mean says that a call is worth a worker of its own
}

// invokeFunc decodes the n values of args and calls a method, then appends the
// encoded result to dst. An error of the decoder or of the method is returned with
// dst as it was.
type invokeFunc func(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error)

const (
	// sampleMask selects the calls whose time is taken, by their ids: one in 16.
	// Reading the clock twice is a tenth of the cost of a small call.
	sampleMask = 15
	// aloneAbove and batchedBelow are the means at which a method gets workers of its
	// own, and at which it goes back to sharing one.
	aloneAbove   = 50 * time.Microsecond
	batchedBelow = 20 * time.Microsecond
	// suspectAbove is the mean from which every call is timed.
	suspectAbove = 10 * time.Microsecond
	// stalledTime is what counts for a call that has held up its batch: how long it
	// takes in the end is not known yet. A machine that stalls for a moment makes good
	// methods look slow, so one such call is not enough.
	stalledTime = 100 * time.Microsecond
	// meanWeight is the part, as a shift, that one call has in the mean: 1/8.
	meanWeight = 3
)

// Dispatch implements [mux.Target].
func (m *method) Dispatch() mux.Dispatch {
	switch {
	case m.inline:
		return mux.Inline
	case m.takesStreams || m.alone.Load():
		return mux.Alone
	}
	return mux.Batched
}

// Mean implements [mux.Target].
func (m *method) Mean() time.Duration { return time.Duration(m.mean.Load()) }

// Stalled implements [mux.Target].
func (m *method) Stalled() { m.observe(stalledTime) }

// isSampled reports whether the time of the call with this request id is to be
// taken.
func (m *method) isSampled(id uint32) bool {
	return id&sampleMask == 0 || m.mean.Load() > int64(suspectAbove)
}

// observe takes note of how long a call took. Of two at the same time one may be
// lost, which a mean does not mind.
func (m *method) observe(d time.Duration) {
	mean := m.mean.Load()
	// One call that a busy machine has interrupted must not make a fast method slow.
	d = min(d, max(stalledTime, time.Duration(4*mean)), time.Second)
	mean += (int64(d) - mean) >> meanWeight
	m.mean.Store(mean)
	switch alone := m.alone.Load(); {
	case !alone && mean > int64(aloneAbove):
		m.alone.Store(true)
	case alone && mean < int64(batchedBelow):
		m.alone.Store(false)
	}
}

// finishArguments checks what follows the arguments that a method takes: further
// ones are ignored, but after them the packet must end.
func finishArguments(d *codec.Decoder, extra int) error {
	for range extra {
		if err := d.Skip(); err != nil {
			return argumentsError(err)
		}
	}
	if err := d.End(); err != nil {
		return argumentsError(err)
	}
	return nil
}

// argumentsError reports arguments that cannot be read.
func argumentsError(err error) error {
	return &Error{Code: InvalidArgument, Message: "malformed arguments: " + err.Error(), cause: err}
}

// argumentError reports an argument that does not fit; i counts from 0.
func argumentError(method string, i int, err error) error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf("argument %d of %s: %v", i+1, method, err), cause: err}
}

// serviceArgumentError is argumentError for an argument that is a service. A service
// that is not there has a code of its own.
func serviceArgumentError(method string, i int, err error) error {
	if e, ok := err.(*Error); ok { // one that was made for the peer
		return e
	}
	return argumentError(method, i, err)
}

// missingArgument reports an argument that is not there; i counts from 0.
func missingArgument(method string, i int) error {
	return &Error{Code: InvalidArgument, Message: fmt.Sprintf("missing argument %d of %s", i+1, method)}
}

// resultError reports a result that has no form on the wire.
func resultError(method string, err error) error {
	return &Error{Code: Internal, Message: fmt.Sprintf("result of %s: %v", method, err), cause: err}
}
