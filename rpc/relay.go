package rpc

import (
	"context"
	"errors"

	"github.com/d-e-v-grid/netron/codec"
)

// relayed returns a service of this side that passes what is asked of it on to the
// peer of the stub. It is the same one every time.
func (s *Stub) relayed() *Service {
	s.relayOnce.Do(func() { s.relay = newRelay(s) })
	return s.relay
}

func newRelay(stub *Stub) *Service {
	meta := &stub.definition.Meta
	s := NewService(meta.Name, meta.Version)
	s.stub = stub
	for _, m := range meta.Methods {
		described := &method{name: m.Name, result: m.Type, invoke: stub.relayTo(OpCall, m.Name)}
		for _, a := range m.Arguments {
			described.args = append(described.args, a.Type)
		}
		s.add(described)
	}
	for _, f := range meta.Properties {
		p := &property{name: f.Name, typ: f.Type, get: &method{name: f.Name, op: OpGet, invoke: stub.relayTo(OpGet, f.Name)}}
		if !f.Readonly {
			p.set = &method{name: f.Name, op: OpSet, invoke: stub.relayTo(OpSet, f.Name)}
		}
		s.addProperty(p)
	}
	return s
}

// relayTo returns the invoke of a member that passes the encoded arguments on, and the
// answer back. The deadline, the end and the trace of the request go on with it; other
// headers, which may be meant for this side alone, do not. Neither is decoded, except for services, which have other ids on the
// other side.
func (s *Stub) relayTo(op Op, member string) invokeFunc {
	return func(ctx context.Context, args []byte, n int, lim codec.Limits, dst []byte) ([]byte, error) {
		if trace, ok := HeaderFrom(ctx)[TraceParent]; ok {
			ctx = WithHeader(ctx, TraceParent, trace)
		}
		if op == OpCall && hasStreams(args, n, lim) {
			return s.relayStreams(ctx, member, args, n, lim, dst)
		}
		if s.router != nil {
			out, err := s.relayRouted(ctx, member, func(at *Stub) ([]byte, error) { return at.relayTo(op, member)(ctx, args, n, lim, dst) })
			if err != nil {
				return dst, err
			}
			return out, nil
		}
		translated, err := s.translate(ctx, member, args, n, lim)
		if err != nil {
			return dst, err
		}
		send := s.peer.clientChain()
		if send == nil {
			send = sendRequest
		}
		through := s.view.Load().conn
		raw, err := send(ctx, &Request{op: op, client: true, peer: s.peer, stub: s, member: member, args: translated, count: n, takesStream: op == OpCall})
		if err != nil {
			return dst, err
		}
		raw = orUndefined(raw)
		if err := checkValue(raw, lim); err != nil {
			return dst, answerError(err)
		}
		switch raw.Kind() {
		case codec.KindDefinition:
			return s.relayResult(ctx, member, raw, dst)
		case codec.KindStreamReference:
			return relayStream(ctx, member, through, raw, dst)
		}
		return append(dst, raw...), nil
	}
}

// translate returns a copy of n encoded arguments in which references to services that
// this side relays are those that the peer knows them by.
func (s *Stub) translate(ctx context.Context, member string, args []byte, n int, lim codec.Limits) ([]byte, error) {
	d := codec.NewDecoder(args, lim)
	out := make([]byte, 0, len(args))
	for i := range n {
		raw, err := d.Raw()
		if err != nil {
			return nil, argumentError(member, i, err)
		}
		arg, err := translateArgument(ctx, member, i, raw, lim)
		if err != nil {
			return nil, err
		}
		if out, err = s.peer.appendArgument(out, arg); err != nil {
			return nil, argumentError(member, i, err)
		}
	}
	if err := d.End(); err != nil {
		return nil, argumentsError(err)
	}
	return out, nil
}

// translateArgument returns what to pass on for an encoded argument.
func translateArgument(ctx context.Context, member string, i int, raw codec.Raw, lim codec.Limits) (any, error) {
	if raw.Kind() != codec.KindReference {
		return raw, nil
	}
	var r codec.Reference
	if err := codec.UnmarshalLimits(raw, &r, lim); err != nil {
		return nil, argumentError(member, i, err)
	}
	c := connFrom(ctx)
	if c == nil {
		return nil, argumentError(member, i, errors.New("a service can come from a peer only"))
	}
	e := c.find([]byte(r.DefID))
	if e == nil {
		return nil, definitionNotFound([]byte(r.DefID))
	}
	return e.service.argument(), nil
}

// argument returns what to pass on for the service: what it relays, if it does.
func (s *Service) argument() any {
	if s.stub != nil {
		return s.stub
	}
	return s
}

// relayResult hands out a service that the peer returned. Nobody on this side knows of
// it, so it is given back as soon as no peer holds it any more.
func (s *Stub) relayResult(ctx context.Context, member string, raw codec.Raw, dst []byte) ([]byte, error) {
	var stub *Stub
	if err := s.peer.decodeService(raw, s, &stub); err != nil {
		return dst, err
	}
	relay := stub.relayed()
	relay.forgotten = func() {
		// Whoever lets go of it last must not wait for the peer.
		_ = s.peer.endpoint.background(context.Background(), func(ctx context.Context) { _ = stub.Release(ctx) })
	}
	c := connFrom(ctx)
	if c == nil {
		relay.forgotten()
		return dst, resultError(member, errors.New("a service can be returned to a peer only"))
	}
	out, err := c.appendService(dst, &method{name: member, owner: s.relayed()}, relay)
	if err != nil {
		if c.endpoint.nested.find(relay) == nil && relay.err != nil {
			relay.forgotten() // it never came into the table, which would have done so
		}
		return dst, err
	}
	return out, nil
}
