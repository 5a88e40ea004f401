package mux

import "context"

// What runs on the read owner of a connection (inline handlers, the functions of
// [Call.Start]) must not block: on an event loop it would stop all connections of
// the loop. Its context says so, and whatever could block under it returns
// [ErrWouldBlock] in its place.

type ownerKey struct{}

// ownerContext is a context under which the read owner of a session runs code.
type ownerContext struct {
	context.Context //nolint:containedctx // it is one
	session         *Session
}

// Value implements [context.Context].
func (c *ownerContext) Value(key any) any {
	if key == (ownerKey{}) {
		return c.session
	}
	return c.Context.Value(key)
}

// OwnerContext returns ctx marked as that of code which runs on the read owner of
// the session. The owner of the session serves its inline requests under it. Nobody
// else should use it: see kickLater for what happens then.
func (s *Session) OwnerContext(ctx context.Context) context.Context {
	return &ownerContext{Context: ctx, session: s}
}

// Owns reports whether ctx is the very context that the session gives to functions
// of [Call.Start].
func (s *Session) Owns(ctx context.Context) bool { return ctx == s.ownerCtx }

// now returns the time on the session's clock. For the read owner it is that of the
// first question during the read: reading the clock for each of the calls that
// callbacks make is a tenth of their cost.
func (s *Session) now(ctx context.Context) int64 {
	if !s.Owns(ctx) || !s.reading.Load() {
		return s.deadlines.now()
	}
	at := s.readAt.Load()
	if at > 0 {
		return at
	}
	now := s.deadlines.now()
	// Not for a later read: whoever asks may not be the read owner, and be late.
	s.readAt.CompareAndSwap(at, now)
	return now
}

// forgetTime begins or ends the time of a read.
func (s *Session) forgetTime() {
	s.reads--
	s.readAt.Store(s.reads)
}

// ownerOf returns the session on whose read owner code with this context runs, or
// nil.
func ownerOf(ctx context.Context) *Session {
	s, _ := ctx.Value(ownerKey{}).(*Session)
	return s
}

// WouldBlock returns [ErrWouldBlock] if code with this context runs on the read
// owner of a connection and must not block, else nil.
func WouldBlock(ctx context.Context) error {
	if ownerOf(ctx) != nil {
		return ErrWouldBlock
	}
	return nil
}

// kickLater leaves it to the end of the current read to send what was queued. The
// caller was told by its context that it is the read owner; should it not be, the
// packet is sent all the same: either this call sees that no read is under way, or
// ReadDone, which says so first, sees the wish.
func (s *Session) kickLater() {
	s.kickWanted.Store(true)
	if !s.reading.Load() && s.kickWanted.Swap(false) {
		s.link.Kick()
	}
}

// WithoutOwner returns ctx for code that runs on a goroutine of its own, and may block
// there.
func WithoutOwner(ctx context.Context) context.Context {
	if ownerOf(ctx) == nil {
		return ctx
	}
	return context.WithValue(ctx, ownerKey{}, (*Session)(nil))
}
