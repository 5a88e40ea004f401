package redisbus

import (
	"errors"
	"unicode/utf8"

	"github.com/d-e-v-grid/netron/codec"
)

// envelope is what travels, an array of seven: version, id of the node, epoch of its
// bridge, name of the event, hops, array of arguments, number of the event.
//
// An epoch is a random number for each bridge that was ever made. Events of one epoch
// have the numbers 1, 2, 3, ..., including those that are lost.
//
// Protocol section 9.4.
type envelope struct {
	emitter
	name string
	hops int
	args []byte // an encoded array
	seq  uint64
}

// emitter is a bridge that emits.
type emitter struct {
	node  string
	epoch uint64
}

const (
	envelopeVersion = 1
	envelopeFields  = 7

	// maxEpoch bounds epochs and numbers: JavaScript counts up to it.
	maxEpoch = 1 << 53
	// seqBytes is the longest form of a number.
	seqBytes = 9
)

var errEnvelope = errors.New("not an event")

// appendHead appends what all events of an emitter begin with.
func appendHead(dst []byte, e emitter) []byte {
	dst = codec.AppendArrayHeader(dst, envelopeFields)
	dst = codec.AppendUint(dst, envelopeVersion)
	dst = codec.AppendString(dst, e.node)
	return codec.AppendUint(dst, e.epoch)
}

// appendEvent appends what follows the head, but for the number.
func appendEvent(dst []byte, name string, hops int, args []any) ([]byte, error) {
	dst = codec.AppendString(dst, name)
	dst = codec.AppendInt(dst, int64(hops))
	dst = codec.AppendArrayHeader(dst, len(args))
	var err error
	for _, arg := range args {
		if dst, err = codec.Append(dst, arg); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

// parseEnvelope takes p, and looks at all of it but at what is in the arguments, whose
// extent it checks.
func parseEnvelope(p []byte, lim codec.Limits) (e envelope, err error) {
	d := codec.NewDecoder(p, lim)
	n, err := d.ArrayHeader()
	if err != nil || n != envelopeFields {
		return e, errEnvelope
	}
	if v, err := d.Uint64(); err != nil || v != envelopeVersion {
		return e, errEnvelope
	}
	if e.node, err = parseText(&d, maxNodeBytes); err != nil {
		return e, err
	}
	if e.epoch, err = parseNumber(&d, maxEpoch); err != nil {
		return e, err
	}
	if e.name, err = parseText(&d, len(p)); err != nil {
		return e, err
	}
	hops, err := parseNumber(&d, maxEpoch)
	if err != nil {
		return e, err
	}
	e.hops = int(min(hops, 1<<30))
	if d.PeekKind() != codec.KindArray {
		return e, errEnvelope
	}
	if e.args, err = d.Raw(); err != nil {
		return e, err
	}
	if e.seq, err = parseNumber(&d, maxEpoch); err != nil || e.seq == 0 {
		return e, errEnvelope
	}
	return e, d.End()
}

func parseText(d *codec.Decoder, maxBytes int) (string, error) {
	if d.PeekKind() != codec.KindString {
		return "", errEnvelope
	}
	p, err := d.StringBytes()
	if err != nil || len(p) == 0 || len(p) > maxBytes || !utf8.Valid(p) {
		return "", errEnvelope
	}
	return string(p), nil
}

func parseNumber(d *codec.Decoder, most uint64) (uint64, error) {
	v, err := d.Uint64()
	if err != nil || v > most {
		return 0, errEnvelope
	}
	return v, nil
}
