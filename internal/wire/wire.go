// Package wire parses and appends the header and the stream trailer of a
// packet, and nothing else: payloads belong to codec.
//
// A packet is one binary WebSocket message (protocol section 4.1):
//
//	id uint32 | flags uint8 | payload: one MessagePack value | stream id, index uint32 (STREAM only)
package wire

import (
	"encoding/binary"
	"errors"
)

// Sizes in bytes.
const (
	HeaderLen  = 5 // id and flags
	TrailerLen = 8 // stream id and stream index
)

// Errors of Parse.
var (
	// ErrShort reports a packet that ends before its header or stream trailer.
	ErrShort = errors.New("wire: packet too short")
	// ErrNoPayload reports a packet without a payload.
	ErrNoPayload = errors.New("wire: packet without payload")
)

// Type is the kind of a packet, the low four bits of its flags (protocol section 4.3).
type Type uint8

// The packet types that every peer knows.
const (
	TypePing        Type = 0
	TypeGet         Type = 1
	TypeSet         Type = 2
	TypeCall        Type = 3
	TypeTask        Type = 4
	TypeStream      Type = 5
	TypeStreamError Type = 6
	TypeStreamClose Type = 7
)

// The packet types of extensions (protocol section 12), which go only to peers that
// negotiated them.
const (
	TypeCancel Type = 8
	TypeCredit Type = 9
	TypeEvent  Type = 10
	TypeGoAway Type = 11
)

// String returns the name that the protocol document uses.
func (t Type) String() string {
	switch t {
	case TypePing:
		return "PING"
	case TypeGet:
		return "GET"
	case TypeSet:
		return "SET"
	case TypeCall:
		return "CALL"
	case TypeTask:
		return "TASK"
	case TypeStream:
		return "STREAM"
	case TypeStreamError:
		return "STREAM_ERROR"
	case TypeStreamClose:
		return "STREAM_CLOSE"
	case TypeCancel:
		return "CANCEL"
	case TypeCredit:
		return "CREDIT"
	case TypeEvent:
		return "EVENT"
	case TypeGoAway:
		return "GOAWAY"
	}
	return "UNKNOWN"
}

// Flags is the fifth byte of a packet (protocol section 4.2).
type Flags uint8

// The bits of Flags above the type.
const (
	FlagEOS     Flags = 0x10 // last packet of a stream; STREAM only
	FlagLive    Flags = 0x20 // stream without inactivity limit; STREAM only
	FlagImpulse Flags = 0x40 // request or one-way packet; clear in a response
	FlagError   Flags = 0x80 // response that carries an error
	FlagMeta    Flags = 0x10 // a second value follows the payload; GET, SET, CALL and TASK only (protocol section 12.3)

	maskType Flags = 0x0f
)

// Type returns the packet type.
func (f Flags) Type() Type { return Type(f & maskType) }

// Impulse reports whether the packet is a request or one-way.
func (f Flags) Impulse() bool { return f&FlagImpulse != 0 }

// Error reports whether the packet is an error response.
func (f Flags) Error() bool { return f&FlagError != 0 }

// EOS reports whether the packet ends its stream.
func (f Flags) EOS() bool { return f.Type() == TypeStream && f&FlagEOS != 0 }

// Meta reports whether a second value follows the payload, if the peer negotiated that.
func (f Flags) Meta() bool { return f.Type() >= TypeGet && f.Type() <= TypeTask && f&FlagMeta != 0 }

// Live reports whether the packet belongs to a live stream.
func (f Flags) Live() bool { return f.Type() == TypeStream && f&FlagLive != 0 }

// Request returns the flags of a request of type t.
func Request(t Type) Flags { return Flags(t) | FlagImpulse }

// Response returns the flags of a response of type t.
func Response(t Type, isError bool) Flags {
	if isError {
		return Flags(t) | FlagError
	}
	return Flags(t)
}

// Packet is a parsed packet.
type Packet struct {
	ID    uint32
	Flags Flags

	// Payload is what lies between header and trailer: one MessagePack value, if
	// the sender obeys the protocol. It lends from the parsed bytes.
	Payload []byte

	// StreamID and StreamIndex are set for STREAM packets alone.
	StreamID    uint32
	StreamIndex uint32
}

// Parse splits a message into the parts of a packet. On [ErrNoPayload] and, for
// a STREAM packet, [ErrShort] the ID and Flags of the result are valid if b
// holds at least HeaderLen bytes; then an answer can still name the request.
//
// Protocol section 4.1.
func Parse(b []byte) (Packet, error) {
	var p Packet
	if len(b) < HeaderLen {
		return p, ErrShort
	}
	p.ID = binary.BigEndian.Uint32(b)
	p.Flags = Flags(b[4])
	body := b[HeaderLen:]
	if p.Flags.Type() == TypeStream {
		if len(body) < TrailerLen {
			return p, ErrShort
		}
		trailer := body[len(body)-TrailerLen:]
		body = body[:len(body)-TrailerLen]
		p.StreamID = binary.BigEndian.Uint32(trailer)
		p.StreamIndex = binary.BigEndian.Uint32(trailer[4:])
	}
	if len(body) == 0 {
		return p, ErrNoPayload
	}
	p.Payload = body
	return p, nil
}

// AppendHeader appends the header of a packet.
func AppendHeader(dst []byte, id uint32, f Flags) []byte {
	dst = binary.BigEndian.AppendUint32(dst, id)
	return append(dst, byte(f))
}

// PutHeader writes a header over the first HeaderLen bytes of b.
func PutHeader(b []byte, id uint32, f Flags) {
	_ = b[HeaderLen-1]
	binary.BigEndian.PutUint32(b, id)
	b[4] = byte(f)
}

// AppendTrailer appends the stream trailer of a STREAM packet.
func AppendTrailer(dst []byte, streamID, index uint32) []byte {
	dst = binary.BigEndian.AppendUint32(dst, streamID)
	return binary.BigEndian.AppendUint32(dst, index)
}
