package engine

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// eventKind says what [parser.next] found.
type eventKind uint8

const (
	eventNone    eventKind = iota // the rest is a part of a frame
	eventMessage                  // a whole message
	eventPing
	eventPong
	eventClose
	eventFragment // a frame was taken that completes nothing
)

// event is one thing that the peer sent.
type event struct {
	kind eventKind
	text bool // of a message
	code uint16

	// payload is the message, or the payload of a control frame without the
	// code. It lends from the parsed bytes or the parser until the next call.
	payload []byte
}

// parser turns bytes into messages and control frames. It does no I/O and is
// used by one goroutine.
//
// The caller keeps the bytes of an unfinished frame and offers them again with
// more behind them; the parser remembers how much of a text it has already
// unmasked and checked, so the caller must keep those bytes as they are now.
type parser struct {
	client     bool   // we are the client: frames come unmasked
	maxMessage uint64 // limit over all fragments of a message

	fragmented bool     // a message has begun and waits for its last frame
	text       bool     // the message in progress is text
	message    *buf.Buf // payload of the fragments so far; nil before any bytes
	done       bool     // message was lent by the last event and can go
	seen       int      // payload bytes of the unfinished text frame already unmasked and checked
	check      utf8Check
}

// next takes one frame from the start of b, in place: unmasking changes b. It
// returns how many bytes the frame has; 0 with eventNone when b holds only a
// part of it. A non-nil error ends the connection with its code; the parser must
// not be used afterwards, except for release.
//
// RFC 6455 sections 5.2, 5.4, 5.5.
func (p *parser) next(b []byte) (ev event, n int, err *CloseError) {
	if p.done {
		p.dropMessage()
	}
	if len(b) >= 2 {
		if err := p.checkStart(b[0], b[1]); err != nil {
			return ev, 0, err
		}
	}
	h, ok := parseFrameHeader(b)
	if !ok {
		return ev, 0, nil
	}
	if err := p.checkLength(&h, b[1]); err != nil {
		return ev, 0, err
	}
	body := b[h.size:]
	if uint64(len(body)) < h.length {
		return ev, 0, p.checkPart(&h, body)
	}
	body = body[:h.length]
	n = h.size + len(body)
	if h.masked {
		unmask(body[p.seen:], h.mask, p.seen)
	}
	switch h.op() {
	case opPing:
		ev = event{kind: eventPing, payload: body}
	case opPong:
		ev = event{kind: eventPong, payload: body}
	case opClose:
		ev, err = parseClose(body)
	default:
		ev, err = p.data(&h, body)
	}
	return ev, n, err
}

// release gives the parser's buffer back.
func (p *parser) release() { p.dropMessage() }

// partial reports whether a message is half received.
func (p *parser) partial() bool { return p.fragmented }

// checkStart applies the rules that the first two bytes of a frame decide, so
// that a bad frame fails before the rest of it comes.
func (p *parser) checkStart(first, second byte) *CloseError {
	if first&0x70 != 0 {
		return protocolError("reserved bits set")
	}
	switch op := first & 0x0f; op {
	case opContinuation:
		if !p.fragmented {
			return protocolError("continuation without a message")
		}
	case opText, opBinary:
		if p.fragmented {
			return protocolError("new message inside a fragmented one")
		}
	case opClose, opPing, opPong:
		if first&bitFin == 0 {
			return protocolError("fragmented control frame")
		}
		if second&^bitMask > maxControl {
			return protocolError("control frame over 125 bytes")
		}
	default:
		return protocolError("reserved opcode")
	}
	// RFC 6455 section 5.1: a client masks, a server does not.
	if masked := second&bitMask != 0; masked == p.client {
		if masked {
			return protocolError("masked frame from a server")
		}
		return protocolError("unmasked frame from a client")
	}
	return nil
}

// checkLength applies the rules on the declared length. The length stays a
// uint64 here: converted too early, a hostile one would turn negative.
func (p *parser) checkLength(h *frameHeader, second byte) *CloseError {
	switch second &^ bitMask {
	case len16:
		if h.length < len16 {
			return protocolError("length not in its shortest form")
		}
	case len64:
		if h.length>>63 != 0 {
			return protocolError("length with the top bit set")
		}
		if h.length <= 0xffff {
			return protocolError("length not in its shortest form")
		}
	}
	if h.op()&0x8 != 0 {
		return nil
	}
	var have uint64
	if p.message != nil {
		have = uint64(len(p.message.B))
	}
	if h.length > p.maxMessage || have > p.maxMessage-h.length {
		return &CloseError{Code: CloseTooBig, Reason: "message too big"}
	}
	return nil
}

// checkPart looks at the part of a frame that is there. Text that is already
// invalid fails now, not when its frame is complete.
func (p *parser) checkPart(h *frameHeader, part []byte) *CloseError {
	if !p.isText(h) || len(part) == p.seen {
		return nil
	}
	fresh := part[p.seen:]
	if h.masked {
		unmask(fresh, h.mask, p.seen)
	}
	p.seen = len(part)
	if !p.check.write(fresh) {
		return errInvalidText()
	}
	return nil
}

func (p *parser) isText(h *frameHeader) bool {
	return h.op() == opText || h.op() == opContinuation && p.text
}

// data handles a complete frame of a message.
func (p *parser) data(h *frameHeader, body []byte) (ev event, err *CloseError) {
	text := p.isText(h)
	if text {
		var ok bool
		if h.fin() && !p.fragmented && p.seen == 0 {
			ok = utf8.Valid(body)
		} else {
			ok = p.check.write(body[p.seen:]) && (!h.fin() || p.check.complete())
		}
		if !ok {
			return ev, errInvalidText()
		}
	}
	p.seen = 0
	if h.fin() && !p.fragmented {
		return event{kind: eventMessage, text: text, payload: body}, nil
	}
	if len(body) > 0 {
		p.keep(body)
	}
	if !h.fin() {
		p.fragmented, p.text = true, text
		return event{kind: eventFragment}, nil
	}
	p.fragmented, p.text, p.done = false, false, true
	ev = event{kind: eventMessage, text: text}
	if p.message != nil {
		ev.payload = p.message.B
	}
	return ev, nil
}

// keep adds a fragment to the message in progress. The buffer grows with what
// has arrived.
func (p *parser) keep(body []byte) {
	if p.message == nil {
		p.message = buf.Get(len(body))
	} else if need := len(p.message.B) + len(body); need > cap(p.message.B) {
		bigger := buf.Get(max(need, 2*cap(p.message.B)))
		bigger.B = append(bigger.B, p.message.B...)
		p.message.Release()
		p.message = bigger
	}
	p.message.B = append(p.message.B, body...)
}

// take gives away the message that was put together of fragments and has been lent. It
// returns nil if its memory is much larger.
func (p *parser) take() *buf.Buf {
	b := p.message
	if b == nil || cap(b.B) > 2*len(b.B)+behindLarge {
		return nil
	}
	p.message, p.done = nil, false
	return b
}

func (p *parser) dropMessage() {
	p.done = false
	if p.message != nil {
		p.message.Release()
		p.message = nil
	}
}

// parseClose reads the payload of a close frame (RFC 6455 sections 5.5.1, 7.4).
// A frame without a code gives [CloseNoStatus].
func parseClose(body []byte) (ev event, err *CloseError) {
	ev = event{kind: eventClose, code: CloseNoStatus}
	if len(body) == 0 {
		return ev, nil
	}
	if len(body) == 1 {
		return ev, protocolError("close frame of one byte")
	}
	ev.code = binary.BigEndian.Uint16(body)
	ev.payload = body[2:]
	if !validCloseCode(ev.code) {
		return ev, protocolError("invalid close code")
	}
	if !utf8.Valid(ev.payload) {
		return ev, &CloseError{Code: CloseInvalidPayload, Reason: "close reason is not UTF-8"}
	}
	return ev, nil
}

// validCloseCode reports whether a peer may send the code (RFC 6455 section
// 7.4.1 and the registry of section 11.7).
func validCloseCode(code uint16) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code >= 1000 && code <= 1014:
		return code != 1004 && code != CloseNoStatus && code != CloseAbnormal
	}
	return false
}
