package mux

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/internal/buf"
	"github.com/d-e-v-grid/netron/internal/wire"
)

// Kind says which software the peer is, as far as the handshake shows it
// (protocol section 3.3).
type Kind uint8

// The kinds of peer.
const (
	KindNetron  Kind = iota + 1 // this library, or another that negotiates extensions
	KindNode                    // current TypeScript Netron on Node.js
	KindBrowser                 // current TypeScript Netron in a browser
	KindLegacy                  // TypeScript Netron 0.6
)

// String returns the kind's name.
func (k Kind) String() string {
	switch k {
	case KindNetron:
		return "netron"
	case KindNode:
		return "node"
	case KindBrowser:
		return "browser"
	case KindLegacy:
		return "legacy"
	}
	return "unknown"
}

// Peer is what the handshake told about the other side.
type Peer struct {
	// ID is the id that the peer claims. It is not authenticated. It is empty if
	// the peer gave none.
	ID string

	Kind Kind

	// Features are the extensions that both sides offer.
	Features []string

	// Token is of [FeatureResume]. To the connector it is what the listener gives it for
	// its next connection; to the listener what the connector has shown. Empty if there
	// is none.
	Token string
}

// Has reports whether an extension was negotiated.
func (p Peer) Has(feature string) bool { return slices.Contains(p.Features, feature) }

// The extensions that a session knows how to carry (protocol section 12).
const (
	FeatureCancel = "cancel" // requests can be given up
	FeatureMeta   = "meta"   // requests and answers may carry a second value
	FeatureGoAway = "goaway" // a side can ask the other one to connect anew
	FeatureEvent  = "event"  // events need no answers
	FeatureCredit = "credit" // readers say how much of a stream they can take
	FeatureResume = "resume" // a connector can prove that it was connected before
)

const (
	// idDelay is how long a listener waits before it sends its id to a current
	// TypeScript connector on Node.js, which misses an id that comes at once.
	// Protocol section 3.1.
	idDelay = 10 * time.Millisecond

	maxPeerID    = 256  // bytes of a peer id
	maxToken     = 256  // bytes of a token
	maxGreeting  = 4096 // bytes of a handshake message
	maxFeatures  = 32   // extensions in an offer that are looked at
	greetingID   = "id"
	greetingBack = "client-id"
	extVersion   = 1
)

// greeting is a handshake message (protocol section 3).
type greeting struct {
	Type string     `json:"type"`
	ID   string     `json:"id"`
	Ext  *extension `json:"ext,omitempty"`
}

// extension is the member that only peers who negotiate extensions know
// (protocol section 3.4).
type extension struct {
	Version  int      `json:"v"`
	Features []string `json:"f"`
	Resume   string   `json:"resume,omitempty"`
	Window   int      `json:"win,omitempty"`  // of each stream, in bytes
	Windows  int      `json:"cwin,omitempty"` // of all streams together
}

// handshake is the state of a session's handshake.
type handshake struct {
	readyc chan struct{} // closed when the handshake has succeeded or failed
	peer   Peer          // set before readyc closes
	err    error         // set before readyc closes

	mu       sync.Mutex
	timers   []*time.Timer // guarded by mu
	finished bool          // guarded by mu
}

// after runs f once, later, unless the handshake is over by then.
func (h *handshake) after(d time.Duration, f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.finished {
		h.timers = append(h.timers, time.AfterFunc(d, f))
	}
}

// finish stops the timers and reports whether this call ended the handshake.
func (h *handshake) finish() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.finished {
		return false
	}
	h.finished = true
	for _, t := range h.timers {
		t.Stop()
	}
	h.timers = nil
	return true
}

// fail ends the handshake with an error.
func (h *handshake) fail(err error) {
	if h.finish() {
		h.err = fmt.Errorf("%w: %w", ErrHandshake, err)
		close(h.readyc)
	}
}

// Begin starts the handshake. Call it once, after the link has been started with
// the session as its handler. It does not block; see [Session.WaitReady].
func (s *Session) Begin() {
	if d := s.cfg.handshakeTimeout(); d > 0 {
		s.handshake.after(d, func() {
			s.link.CloseWith(closePolicy, "handshake timeout")
		})
	}
	if s.cfg.Connector {
		return // the listener speaks first
	}
	hello := greeting{Type: greetingID, ID: s.cfg.LocalID, Ext: s.offer()}
	if s.cfg.Hint.Netron || (s.cfg.Hint.QueryID == "" && s.cfg.Hint.HeaderID == "") {
		s.say(hello)
		return
	}
	s.handshake.after(idDelay, func() { s.say(hello) })
}

// WaitReady waits until the handshake is done and returns what it told. It
// returns ctx.Err() if ctx ends first, else an error that wraps [ErrHandshake].
func (s *Session) WaitReady(ctx context.Context) (Peer, error) {
	select {
	case <-s.handshake.readyc:
		return s.handshake.peer, s.handshake.err
	default:
	}
	select {
	case <-s.handshake.readyc:
		return s.handshake.peer, s.handshake.err
	case <-ctx.Done():
		return Peer{}, ctx.Err()
	}
}

// Peer returns what the handshake told, or the zero Peer while it is under way.
func (s *Session) Peer() Peer {
	select {
	case <-s.handshake.readyc:
		return s.handshake.peer
	default:
		return Peer{}
	}
}

// offer is this side's part of the negotiation.
func (s *Session) offer() *extension {
	return s.extension(append([]string{}, s.cfg.Features...), s.cfg.Token)
}

// extension returns what this side says of some features.
func (s *Session) extension(features []string, token string) *extension {
	ext := &extension{Version: extVersion, Features: features, Resume: token}
	if s.cfg.Streams != nil && slices.Contains(features, FeatureCredit) {
		ext.Window, ext.Windows = s.cfg.Streams.window(), s.cfg.Streams.sessionWindow()
	}
	return ext
}

// say queues a handshake message as a text frame.
func (s *Session) say(g greeting) {
	text, err := json.Marshal(g)
	if err != nil {
		panic("BUG: greeting does not marshal: " + err.Error())
	}
	b := buf.Get(len(text))
	b.B = append(s.link.BeginFrame(b.B), text...)
	b.B = s.link.EndFrame(b.B, 0, true)
	s.mustRespond(newOutgoing(b, 1))
}

// greet takes a message that came before the handshake was done and reports
// whether it was part of it. It is called by the read owner.
func (s *Session) greet(text bool, p []byte) bool {
	if s.cfg.Connector {
		s.greetConnector(text, p)
		return true
	}
	return s.greetListener(text, p)
}

// greetConnector takes the listener's first message, which must be its id
// (protocol section 3.2).
func (s *Session) greetConnector(text bool, p []byte) {
	g, err := parseGreeting(p, greetingID)
	if err != nil {
		s.handshake.fail(err)
		s.link.CloseWith(closeProtocol, "expected an id message")
		return
	}
	peer := Peer{ID: g.ID, Kind: KindNode}
	answer := greeting{Type: greetingBack, ID: s.cfg.LocalID}
	switch {
	case g.Ext != nil:
		peer.Kind = KindNetron
		peer.Features = s.common(g.Ext)
		token := ""
		if peer.Has(FeatureResume) {
			peer.Token = g.Ext.Resume
			if g.ID == s.cfg.TokenOf {
				token = s.cfg.Token
			}
		}
		answer.Ext = s.extension(peer.Features, token)
	case text:
		// 0.6 sends its id as text and ignores the answer; current peers send it as
		// binary and need the answer.
		peer.Kind = KindLegacy
	}
	s.say(answer)
	s.becomeReady(peer)
}

// greetListener takes a message of a connector that has not said who it is
// (protocol section 3.1). It reports false if the message is the first packet of
// a 0.6 peer, which says nothing more, and is to be served.
func (s *Session) greetListener(text bool, p []byte) bool {
	// No packet starts like JSON here: the ids of a connection count from 1.
	if text || (len(p) > 0 && p[0] == '{') {
		g, err := parseGreeting(p, greetingBack)
		if err != nil {
			s.handshake.fail(err)
			s.link.CloseWith(closeProtocol, "expected a client-id message")
			return true
		}
		peer := Peer{ID: g.ID, Kind: KindBrowser}
		switch {
		case g.Ext != nil:
			peer.Kind = KindNetron
			peer.Features = s.common(g.Ext)
			if peer.Has(FeatureResume) {
				peer.Token = g.Ext.Resume
			}
		case s.cfg.Hint.QueryID != "" || s.cfg.Hint.HeaderID != "":
			peer.Kind = KindNode
		}
		s.becomeReady(peer)
		return true
	}
	pkt, err := wire.Parse(p)
	switch {
	case errors.Is(err, wire.ErrShort):
		s.handshake.fail(err)
		s.link.CloseWith(closeProtocol, "expected a client-id message or a packet")
		return true
	case err == nil && pkt.Flags.Type() == wire.TypePing && pkt.Flags.Impulse():
		s.pong(pkt) // allowed before the client-id, and tells nothing about the peer
		return true
	}
	return !s.becomeReady(Peer{ID: clip(s.cfg.Hint.QueryID), Kind: KindLegacy})
}

// becomeReady ends the handshake with success. It reports false if the handshake
// has failed: what comes until the connection is closed is not served.
func (s *Session) becomeReady(peer Peer) bool {
	if !s.handshake.finish() {
		return false
	}
	s.ready = true
	s.canCancel.Store(peer.Has(FeatureCancel))
	s.canMeta.Store(peer.Has(FeatureMeta))
	s.canGoAway.Store(peer.Has(FeatureGoAway))
	s.canEvent.Store(peer.Has(FeatureEvent))
	s.canCredit.Store(peer.Has(FeatureCredit))
	s.canStream.Store(s.cfg.Streams != nil)
	s.handshake.peer = peer
	if s.cfg.Ready != nil {
		s.cfg.Ready(s, peer)
	}
	close(s.handshake.readyc) // after Ready: whoever waits finds what Ready has set up
	return true
}

// common returns the features that both sides offer, in the order of this side, and takes
// note of what the peer says of them.
func (s *Session) common(ext *extension) []string {
	theirs := ext.Features
	if len(theirs) > maxFeatures {
		theirs = theirs[:maxFeatures]
	}
	both := []string{}
	s.peerWindow, s.peerSessionWindow = min(ext.Window, maxCredit), min(ext.Windows, maxCredit)
	for _, f := range s.cfg.Features {
		isOffered := f != FeatureCredit || ext.Window > 0 && ext.Windows > 0
		if isOffered && slices.Contains(theirs, f) {
			both = append(both, f)
		}
	}
	return both
}

// parseGreeting reads a handshake message of the given type.
func parseGreeting(p []byte, typ string) (greeting, error) {
	var g greeting
	if len(p) == 0 || p[0] != '{' {
		return g, errors.New("not a handshake message")
	}
	if len(p) > maxGreeting {
		return g, fmt.Errorf("handshake message of %d bytes, limit %d", len(p), maxGreeting)
	}
	if err := json.Unmarshal(p, &g); err != nil {
		return g, fmt.Errorf("malformed handshake message: %w", err)
	}
	if g.Type != typ {
		return g, fmt.Errorf("handshake message of type %q, want %q", clip(g.Type), typ)
	}
	if len(g.ID) > maxPeerID {
		return g, fmt.Errorf("peer id of %d bytes, limit %d", len(g.ID), maxPeerID)
	}
	if g.Ext != nil && len(g.Ext.Resume) > maxToken {
		g.Ext.Resume = "" // as good as none
	}
	return g, nil
}

// clip bounds text of the peer that is kept or shown.
func clip(s string) string {
	if len(s) > maxPeerID {
		return s[:maxPeerID]
	}
	return s
}
