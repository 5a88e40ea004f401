// Package memlink is a network in memory: pairs of net.Conn that behave like
// TCP sockets, listeners, and faults on demand.
//
// Each direction of a link has a bounded buffer, so writers block when nobody
// reads. Deadlines, half-close and resets work as on a socket: closing with
// unread data resets the link, and so does writing to an end that was closed.
//
// A link can be cut, stalled, delayed and throttled while it is in use. Nothing
// in the package is shared between links and every wait is on a condition
// variable, so links work in virtual time (testing/synctest): a link belongs to
// the bubble that made it.
package memlink
