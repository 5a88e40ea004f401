// Package rpc exposes services and calls them over sessions of package mux.
//
// An [Endpoint] is the rpc side of a node. It holds the services that the node
// exposes and the [Peer] values of its connections. A [Service] is built from a
// plain Go value by [Endpoint.Expose], or from functions by [NewService] and
// [Handle]. A [Stub] is a remote service as its callers see it; [Query] turns it
// into a struct of funcs, [Method] into one typed function.
//
// Errors travel as [Error]: a code, a message, details, and further fields.
//
// Everything is safe for concurrent use unless its comment says otherwise.
// Cancelling the context of a call abandons that call alone. When a connection
// is lost its pending calls fail at once with [Unavailable].
package rpc
