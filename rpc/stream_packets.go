package rpc

import (
	"strings"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// StreamConfig says how streams travel. Zero fields mean the documented default, negative ones
// mean none.
type StreamConfig struct {
	// Timeout is how long the reader of a stream that is not live waits for what comes next. At
	// it the stream fails. Default 60 s.
	Timeout time.Duration

	// MaxStreams limits the open streams of a connection in each direction. Default 1,000.
	MaxStreams int

	// Window is how many bytes the peer may send ahead of the reader of one stream at first, and
	// MaxWindow at most: it grows while it is what holds the peer up. ConnWindow is the same for
	// all streams of a connection together, and bounds the memory that their readers take. They
	// hold for peers that count (protocol section 12.2). Defaults 256 KiB, 4 MiB and 8 MiB.
	Window     int
	MaxWindow  int
	ConnWindow int

	// MaxBuffered limits the bytes that wait for the reader of one stream of a peer that does not
	// count them. Past it the whole connection is not read until half of them are left, for at
	// most StallTimeout; then the stream fails. Defaults 1 MiB and 10 s.
	MaxBuffered  int
	StallTimeout time.Duration

	// MaxEarlyBytes limits what peers may send of streams before they announce them. Default
	// 1 MiB for a connection.
	MaxEarlyBytes int
}

// streamConfig returns the configuration of the streams of a connection.
func (c *conn) streamConfig() *mux.StreamConfig {
	s := &c.endpoint.cfg.Streams
	return &mux.StreamConfig{
		Packets:       streamPackets{c},
		MaxStreams:    s.MaxStreams,
		Window:        s.Window,
		MaxWindow:     s.MaxWindow,
		SessionWindow: s.ConnWindow,
		MaxBuffered:   s.MaxBuffered,
		StallLimit:    s.StallTimeout,
		MaxEarlyBytes: s.MaxEarlyBytes,
		IdleLimit:     s.Timeout,
	}
}

// streamPackets encodes and decodes what packets about streams say.
type streamPackets struct{ conn *conn }

var _ mux.StreamPackets = streamPackets{}

const (
	keyStreamID = "streamId"
	keyMessage  = "message"
	keyReason   = "reason"
	keyError    = "error"

	// maxStreamReason is how long the text of a failure or cancellation may be, in bytes, and
	// maxStreamFailure the whole error.
	maxStreamReason  = 4 << 10
	maxStreamFailure = 64 << 10
)

// AppendFailure implements [mux.StreamPackets]. Peers of this library get the whole error of
// the source (protocol section 8.5).
func (p streamPackets) AppendFailure(dst []byte, id uint32, message string, cause error) []byte {
	var whole []byte
	if cause != nil {
		e := ofHandler(asError(cause))
		message = e.Message
		if p.conn.kind() == mux.KindNetron {
			if whole = appendError(nil, e); len(whole) > maxStreamFailure {
				whole = appendError(nil, &Error{Code: e.Code, Message: cut(message)})
			}
		}
	}
	members := 2
	if whole != nil {
		members++
	}
	dst, _ = codec.AppendMapHeader(dst, members) // there are few
	dst = codec.AppendUint(codec.AppendString(dst, keyStreamID), uint64(id))
	dst = codec.AppendString(codec.AppendString(dst, keyMessage), cut(message))
	if whole != nil {
		dst = append(codec.AppendString(dst, keyError), whole...)
	}
	return dst
}

// ParseFailure implements [mux.StreamPackets].
func (p streamPackets) ParseFailure(payload []byte) (id uint32, failure mux.StreamError, ok bool) {
	limits := p.conn.endpoint.cfg.Limits
	d := codec.NewDecoder(payload, limits)
	n, err := d.MapHeader()
	for range n {
		var key []byte
		if err == nil {
			key, err = d.StringBytes()
		}
		if err != nil {
			return 0, failure, false
		}
		switch string(key) {
		case keyStreamID:
			err = d.Decode(&id)
		case keyMessage, keyReason:
			if d.PeekKind() == codec.KindString {
				failure.Message, err = d.String()
			} else {
				err = d.Skip()
			}
		case keyError:
			var raw codec.Raw
			if raw, err = d.Raw(); err == nil {
				failure.Cause = decodeError(raw, limits)
			}
		default:
			err = d.Skip()
		}
	}
	if err != nil || d.End() != nil {
		return 0, failure, false
	}
	failure.Message = cut(failure.Message)
	return id, failure, true
}

// AppendCancel implements [mux.StreamPackets] (protocol section 12.1).
func (streamPackets) AppendCancel(dst []byte, id uint32, reason string) []byte {
	dst = codec.AppendUint(codec.AppendArrayHeader(dst, 2), uint64(id))
	return codec.AppendString(dst, cut(reason))
}

// ParseCancel implements [mux.StreamPackets].
func (p streamPackets) ParseCancel(payload []byte) (id uint32, reason string, ok bool) {
	d := codec.NewDecoder(payload, p.conn.endpoint.cfg.Limits)
	if n, err := d.ArrayHeader(); err != nil || n != 2 || d.Decode(&id) != nil || d.Decode(&reason) != nil || d.End() != nil {
		return 0, "", false
	}
	return id, cut(reason), true
}

// AppendCredit implements [mux.StreamPackets] (protocol section 12.2).
func (streamPackets) AppendCredit(dst []byte, id, bytes uint32) []byte {
	return codec.AppendUint(codec.AppendUint(codec.AppendArrayHeader(dst, 2), uint64(id)), uint64(bytes))
}

// ParseCredit implements [mux.StreamPackets].
func (p streamPackets) ParseCredit(payload []byte) (id, bytes uint32, ok bool) {
	d := codec.NewDecoder(payload, p.conn.endpoint.cfg.Limits)
	if n, err := d.ArrayHeader(); err != nil || n != 2 || d.Decode(&id) != nil || d.Decode(&bytes) != nil || d.End() != nil {
		return 0, 0, false
	}
	return id, bytes, bytes > 0 && bytes <= 1<<31-1
}

// ParseReference implements [mux.StreamPackets].
func (p streamPackets) ParseReference(payload []byte) (id uint32, live, ok bool) {
	d := codec.NewDecoder(payload, p.conn.endpoint.cfg.Limits)
	if d.PeekKind() != codec.KindStreamReference {
		return 0, false, false
	}
	var r codec.StreamReference
	if d.Decode(&r) != nil || !r.Writable {
		return 0, false, false
	}
	return r.StreamID, r.Live, true
}

// IsNothing implements [mux.StreamPackets].
func (streamPackets) IsNothing(payload []byte) bool {
	k := codec.Raw(payload).Kind()
	return k == codec.KindNil || k == codec.KindUndefined
}

// cut returns a text that is not too long, as valid UTF-8.
func cut(s string) string {
	if len(s) > maxStreamReason {
		s = s[:maxStreamReason]
	}
	return strings.ToValidUTF8(s, "")
}
