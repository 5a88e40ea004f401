package rpc

import (
	"context"
	"errors"
	"iter"
	"reflect"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/stream"
)

// Streams that are passed on: each chunk that one side writes is read here and written to the other
// side, with the backpressure of both.

// hasStreams reports whether there is a stream among n encoded arguments.
func hasStreams(args []byte, n int, lim codec.Limits) bool {
	d := codec.NewDecoder(args, lim)
	for range n {
		if d.PeekKind() == codec.KindStreamReference {
			return true
		}
		if d.Skip() != nil {
			return false
		}
	}
	return false
}

// relayStreams passes a request with streams on.
func (s *Stub) relayStreams(ctx context.Context, member string, args []byte, n int, lim codec.Limits, dst []byte) (out []byte, err error) {
	streams, ctx, err := beginStreams(ctx, &method{name: member}, true)
	if err != nil {
		return dst, err
	}
	answering := false
	defer func() {
		if !answering {
			streams.end(context.Canceled)
		}
	}()
	d := codec.NewDecoder(args, lim)
	values := make([]argument, n)
	for i := range values {
		if d.PeekKind() == codec.KindStreamReference {
			in, err := streams.argument(&d)
			if err != nil {
				return dst, serviceArgumentError(member, i, err)
			}
			values[i] = argument{rawSequence().Receive(in), rawSequence()}
			continue
		}
		raw, err := d.Raw()
		if err != nil {
			return dst, argumentError(member, i, err)
		}
		value, err := translateArgument(ctx, member, i, raw, lim)
		if err != nil {
			return dst, err
		}
		values[i].value = reflect.ValueOf(value)
	}
	if err := d.End(); err != nil {
		return dst, argumentsError(err)
	}
	var result rawResult
	// Whether a stream may be silent is for its reader to say.
	ctx = stream.With(ctx, stream.Options{Live: true})
	if err := s.callStreaming(ctx, member, values, nil, reflect.ValueOf(&result)); err != nil {
		return dst, err
	}
	if items, ok := result.(iter.Seq2[codec.Raw, error]); ok {
		out, err = streams.pass(dst, items)
		answering = err == nil
		return out, err
	}
	raw, _ := result.(codec.Raw)
	switch {
	case raw.Kind() != codec.KindDefinition:
	case s.router != nil:
		return dst, resultError(member, errors.New("who returned the service is not known"))
	default:
		return s.relayResult(ctx, member, raw, dst)
	}
	return append(dst, raw...), nil
}

// relayStream passes the stream on that is the result of a request which went over the connection
// through.
func relayStream(ctx context.Context, member string, through *conn, raw codec.Raw, dst []byte) (out []byte, err error) {
	streams, ctx, err := beginStreams(ctx, &method{name: member}, true)
	if err != nil {
		return dst, err
	}
	r, err := through.openReader(raw)
	if err == nil {
		in := stream.NewIn(ctx, r, through.incoming(member, nil, nil))
		streams.ins = append(streams.ins, in)
		items, _ := reflect.TypeAssert[iter.Seq2[codec.Raw, error]](rawSequence().Receive(in))
		if out, err = streams.pass(dst, items); err == nil {
			return out, nil
		}
	}
	streams.end(context.Canceled)
	return dst, err
}

// pass answers with a stream of encoded items.
func (s *servedStreams) pass(dst []byte, items iter.Seq2[codec.Raw, error]) ([]byte, error) {
	value := reflect.ValueOf(items)
	return s.result(dst, value, func(o *stream.Out) error { return rawSequence().Send(o, value) })
}
