package rpc

import (
	"context"
	"time"

	"github.com/d-e-v-grid/netron/codec"
)

// Observe returns middleware that tells when requests begin and how they end, for metrics
// and traces: what TypeScript nodes tell by the events rpc:start and rpc:end. Given to
// [Endpoint.Use] it tells of the requests of peers, to [Endpoint.UseOutgoing] of those
// that this side makes, to both of all; [Request] says which one it is, of which peer,
// service and member. Where it is not used it costs nothing.
//
// start may return a context that the request goes on with, and end gets, for example one
// with a span. end is called once for each start, with the time between the two and the
// error, nil if there is none; [CodeOf] has its code. A handler that panicked has failed
// with code [Internal]. Either function may be nil. They are called by many goroutines at a
// time, must not block, and must not keep the Request.
//
// An outgoing call that is made again, see [Idempotent], is told each time. What is refused
// before a handler is looked for, by a limit or by a node that shuts down, only its caller
// tells of.
func Observe(
	start func(ctx context.Context, r *Request) context.Context,
	end func(ctx context.Context, r *Request, took time.Duration, err error),
) Middleware {
	return func(next Handler) Handler {
		return func(ctx context.Context, r *Request) (result codec.Raw, err error) {
			if start != nil {
				ctx = start(ctx, r)
			}
			if end == nil {
				return next(ctx, r)
			}
			begun, returned := time.Now(), false
			defer func() {
				if !returned {
					err = errInternal() // it panics, and goes on doing so
				}
				end(ctx, r, time.Since(begun), err)
			}()
			result, err = next(ctx, r)
			returned = true
			return result, err
		}
	}
}
