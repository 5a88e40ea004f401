// Package resilience has middleware that keeps a system usable when a part of it is
// slow, broken or flooded: [RateLimit], [Bulkhead], [Breaker], [Retry], [Cache] and
// [Timeout], and [Batch] for many calls at a time.
//
// Each function returns an [rpc.Middleware] with a state of its own: the same one
// given to two services shares its limits between them, two of them do not. All are
// safe for concurrent use, start no goroutines, and need not be closed.
//
// What they refuse by themselves has the code [rpc.ResourceExhausted] or
// [rpc.Unavailable]. Of middleware in a row the first is the outermost: Timeout,
// Cache, Retry, Breaker is the usual order of a client.
//
// Bulkhead and Retry wait, so they must not be used for inline methods.
package resilience
