package tspeer

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// beginUploads notes the streams that the arguments of a matched call announce. The caller holds s.mu.
func (s *server) beginUploads(conn *serverConn, got, want *Packet) error {
	for i, arg := range got.args() {
		ref, ok := arg.(StreamRef)
		if !ok {
			continue
		}
		if ref.PeerID != conn.peer && !s.o.asRecorded {
			return violation(RuleUnexpected, "%v: the original looks the writer up by the id in the reference, want %s", got, conn.peer)
		}
		up := conn.streams[ref.StreamID]
		if up == nil {
			up = newUpload()
			conn.streams[ref.StreamID] = up
		}
		recorded, _ := want.args()[i].(StreamRef)
		up.recorded, up.live, up.barrier = recorded.StreamID, ref.Live, conn.answers
	}
	return nil
}

func newUpload() *upload { return &upload{ended: make(chan struct{})} }

// chunk takes one packet of a stream that the client writes.
func (s *server) chunk(conn *serverConn, p *Packet) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	up := conn.streams[p.StreamID]
	if up == nil {
		if !s.o.asRecorded {
			return violation(RuleOrder, "%v before the call that announces it is lost", p)
		}
		up = newUpload()
		conn.streams[p.StreamID] = up
	}
	switch {
	case up.over:
		return violation(RuleOrder, "%v after the end of its stream", p)
	case p.Index != up.next:
		return violation(RuleOrder, "%v, want index %d", p, up.next)
	case s.o.asRecorded:
	case up.barrier == conn.answers:
		return violation(RuleBarrier, "%v: wait for the answer to another request first, for example unsubscribe of an unused name", p)
	case p.Live != up.live:
		return violation(RuleMismatch, "%v, but its reference said live: %v", p, up.live)
	}
	up.next++
	s.report.Matched++
	if p.EOS && p.Payload == nil {
		up.over = true
	} else {
		up.items = append(up.items, p.Payload)
		up.over = p.EOS
	}
	if up.over {
		close(up.ended)
	}
	return nil
}

// awaitStream waits for the end of a stream of the client and compares its content with the recorded one.
func (s *server) awaitStream(conn *serverConn, stream uint32) error {
	s.mu.Lock()
	up := conn.upload(stream)
	s.mu.Unlock()
	timer := time.NewTimer(s.o.patience)
	defer timer.Stop()
	select {
	case <-up.ended:
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	case <-timer.C:
		return violation(RuleMissing, "stream %d did not end within %v", stream, s.o.patience)
	}
	var want []any
	for i := range s.msgs {
		if p := s.msgs[i].Packet; s.msgs[i].Client && p != nil && p.Type == TypeStream && p.StreamID == stream && !p.EOS {
			want = append(want, p.Payload)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, err := conn.judge.try(up.items, want)
	if err != nil && bytesEqual(up.items, want) {
		conn.judge.allow("chunking")
		return nil
	}
	if err != nil {
		return violation(RuleMismatch, "stream %d: %v", stream, err)
	}
	t.commit()
	return nil
}

// upload returns the stream that stands for a recorded one.
func (c *serverConn) upload(recorded uint32) *upload {
	for _, up := range c.streams {
		if up.recorded == recorded {
			return up
		}
	}
	panic("BUG: a matched call without its stream")
}

// bytesEqual reports whether both streams are of bytes, and the same ones.
func bytesEqual(a, b []any) bool {
	joined := func(items []any) ([]byte, bool) {
		var all []byte
		for _, it := range items {
			p, ok := it.([]byte)
			if !ok {
				return nil, false
			}
			all = slices.Concat(all, p)
		}
		return all, true
	}
	p, ok := joined(a)
	q, ok2 := joined(b)
	return ok && ok2 && bytes.Equal(p, q)
}
