package rpc

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// nestedStub is what a [Stub] has besides if it came as a result.
type nestedStub struct {
	conn     *conn // it came through, and ends with
	parent   *Stub // that returned it; nil if a task did
	released atomic.Bool
}

// usable returns an error if the stub has been released, or its connection is gone.
func (s *Stub) usable() error {
	n := s.nested
	switch {
	case n == nil:
		return nil
	case n.released.Load():
		return Errorf(FailedPrecondition, "rpc: service %s was released", s.Name())
	case s.peer.conn.Load() != n.conn:
		return Errorf(Unavailable, "rpc: the connection through which service %s came has ended", s.Name())
	}
	return nil
}

// decodeService stores the service in an answer in target: nil for null. parent is the
// stub that was called, nil for a task.
func (p *Peer) decodeService(payload []byte, parent *Stub, target **Stub) error {
	if k := codec.Raw(payload).Kind(); k == codec.KindNil || k == codec.KindUndefined {
		*target = nil
		return nil
	}
	var d *codec.Definition
	if err := codec.UnmarshalLimits(payload, &d, p.endpoint.cfg.Limits); err != nil {
		return answerError(err)
	}
	stub := newStub(p, d)
	stub.nested = &nestedStub{conn: p.conn.Load(), parent: parent}
	if parent != nil {
		d.ParentID = parent.definition.ID
		parent.addChild(stub)
	}
	if p.Kind() == mux.KindLegacy {
		stub.nested.conn.countLegacy(d.ID, 1)
	}
	*target = stub
	return nil
}

// decodeReply is [Peer.decodeReply] for an answer of the service.
func (s *Stub) decodeReply(r mux.Reply, result any) error {
	if target, ok := result.(**Stub); ok && !r.IsError {
		return s.peer.decodeService(r.Payload, s, target)
	}
	return s.peer.decodeReply(r, result)
}

func (s *Stub) addChild(child *Stub) {
	s.childMu.Lock()
	defer s.childMu.Unlock()
	if s.children == nil {
		s.children = make(map[*Stub]struct{})
	}
	s.children[child] = struct{}{}
}

func (s *Stub) removeChild(child *Stub) {
	s.childMu.Lock()
	defer s.childMu.Unlock()
	delete(s.children, child)
}

func (s *Stub) takeChildren() map[*Stub]struct{} {
	s.childMu.Lock()
	defer s.childMu.Unlock()
	children := s.children
	s.children = nil
	return children
}

// Release gives a service that a method returned back to its peer, which forgets it
// when nobody holds it any more. What the service itself returned is given back first.
// Later uses of the stub fail with an error of code [FailedPrecondition]. Releasing
// twice, or after the connection has ended, does nothing; so does releasing a service
// with a name, but for the services that it returned.
//
// A service that is not released is held until the connection ends.
//
// Protocol section 6.8.
func (s *Stub) Release(ctx context.Context) error {
	var errs []error
	for child := range s.takeChildren() {
		errs = append(errs, child.Release(ctx))
	}
	n := s.nested
	if n == nil || !n.released.CompareAndSwap(false, true) {
		return errors.Join(errs...)
	}
	if n.parent != nil {
		n.parent.removeChild(s)
	}
	// A peer of version 0.6 forgets the service at once, whoever else holds it.
	if n.conn.kind() == mux.KindLegacy && n.conn.countLegacy(s.definition.ID, -1) > 0 {
		return errors.Join(errs...)
	}
	err := n.conn.runTask(ctx, taskUnrefService, nil, s.definition.ID)
	if n.conn.session.Err() == nil { // else all was given back with the connection
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// countLegacy changes how many stubs there are to a service of a 0.6 peer.
func (c *conn) countLegacy(id string, by int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.legacyStubs == nil {
		c.legacyStubs = make(map[string]int)
	}
	n := c.legacyStubs[id] + by
	if n == 0 {
		delete(c.legacyStubs, id)
	} else {
		c.legacyStubs[id] = n
	}
	return n
}

// appendArgument encodes one argument for the peer. A service goes back to the peer
// that it came from, as a reference to it; no other can be passed.
func (p *Peer) appendArgument(dst []byte, arg any) ([]byte, error) {
	switch arg := arg.(type) {
	case *Stub:
		if arg == nil {
			return codec.AppendNil(dst), nil
		}
		if arg.peer != p {
			return dst, fmt.Errorf("service %s is not one of the peer that is called", arg.Name())
		}
		if err := arg.usable(); err != nil {
			return dst, err
		}
		return codec.Append(dst, codec.Reference{DefID: arg.view.Load().definition.ID})
	case *Service:
		return dst, errors.New("a service of this side cannot be passed: expose it, or publish it at the peer")
	}
	if isStreamValue(arg) {
		return dst, errStreamCall
	}
	return codec.Append(dst, arg)
}

// appendValue is appendArgument for a reflected value.
func (p *Peer) appendValue(dst []byte, arg reflect.Value) ([]byte, error) {
	if arg.Kind() == reflect.Interface && !arg.IsNil() {
		arg = arg.Elem()
	}
	if arg.IsValid() && isService(arg.Type()) {
		return p.appendArgument(dst, arg.Interface())
	}
	return codec.AppendValue(dst, arg)
}
