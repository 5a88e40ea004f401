// Package auth finds out who a peer is and what it may do.
//
// An [Authenticator] turns [Credentials] into an [Identity]. A peer shows them in the
// upgrade request of its connection, as a bearer token, or later by the task
// authenticate, which [Login] runs (protocol section 7.6). A [Guard] serves both; the
// configuration of a node has one. The identity belongs to the connection, and handlers
// find it by [From].
//
// [Require] refuses requests without an identity, a [Policy] decides by roles and
// permissions. Both are middleware for those who serve.
//
// Everything is safe for concurrent use.
package auth
