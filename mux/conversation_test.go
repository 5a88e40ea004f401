package mux

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// testConn is a link whose other side is the test. It is used inside a synctest
// bubble: wait for the session with synctest.Wait, then look at what it sent.
type testConn struct {
	t       *testing.T
	session *Session
	workers *Workers

	mu     sync.Mutex
	held   bool // true: Kick does nothing, as if the socket were full
	sent   []message
	closed string // code and reason of CloseWith, "" if none
}

type message struct {
	text bool
	p    []byte
}

var errTestLost = errors.New("test: connection lost")

// newTestConn returns a session in conversation with the test. It must be called
// inside a bubble; the session ends with the test's function.
func newTestConn(t *testing.T, cfg Config) *testConn {
	t.Helper()
	workers, err := NewWorkers(0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	tc := &testConn{t: t, workers: workers}
	if cfg.LocalID == "" {
		cfg.LocalID = "local"
	}
	if cfg.Serve == nil {
		cfg.Serve = echo
	}
	cfg.Workers = workers
	cfg.Overloaded = []byte{0xa4, 'o', 'v', 'e', 'r'}
	cfg.Draining = []byte{0xa5, 'd', 'r', 'a', 'i', 'n'}
	cfg.Failed = []byte{0xa4, 'f', 'a', 'i', 'l'}
	tc.session = NewSession(tc, cfg)
	tc.session.Begin()
	return tc
}

// echo answers with the request's payload.
func echo(r *Request, dst []byte) ([]byte, bool) { return append(dst, r.Payload...), false }

// gated is echo behind a gate: requests are answered once it is closed.
func gated(gate <-chan struct{}) func(*Request, []byte) ([]byte, bool) {
	return func(r *Request, dst []byte) ([]byte, bool) {
		<-gate
		return echo(r, dst)
	}
}

func (tc *testConn) BeginFrame(dst []byte) []byte { return new(pipeEnd).BeginFrame(dst) }

func (tc *testConn) EndFrame(b []byte, start int, text bool) []byte {
	return new(pipeEnd).EndFrame(b, start, text)
}

func (tc *testConn) Kick() {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	for !tc.held {
		vec := tc.session.Collect(nil)
		if len(vec) == 0 {
			return
		}
		for _, b := range vec {
			for len(b) > 0 {
				n := binary.BigEndian.Uint32(b)
				size := n &^ textBit
				tc.sent = append(tc.sent, message{n&textBit != 0, bytes.Clone(b[4 : 4+size])})
				b = b[4+size:]
			}
		}
	}
}

func (tc *testConn) CloseWith(code uint16, reason string) {
	tc.mu.Lock()
	if tc.closed == "" {
		tc.closed = string(binary.BigEndian.AppendUint16(nil, code)) + reason
	}
	tc.mu.Unlock()
	tc.Kick() // what was queued is sent first
}

// hold makes the link accept nothing until release.
func (tc *testConn) hold() {
	tc.mu.Lock()
	defer tc.mu.Unlock()
	tc.held = true
}

func (tc *testConn) release() {
	tc.mu.Lock()
	tc.held = false
	tc.mu.Unlock()
	tc.Kick()
}

// end loses the connection and closes the workers.
func (tc *testConn) end() {
	tc.hold() // the write role is taken for good
	tc.session.Closed(errTestLost)
	if err := tc.workers.Close(1e9); err != nil {
		tc.t.Error(err)
	}
}

// writeText sends a text message to the session.
func (tc *testConn) writeText(s string) {
	tc.session.Message(true, []byte(s))
	tc.session.ReadDone()
}

// writeHex sends binary messages to the session as one read.
func (tc *testConn) writeHex(messages ...string) {
	tc.t.Helper()
	for _, s := range messages {
		tc.session.Message(false, unhex(tc.t, s))
	}
	tc.session.ReadDone()
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// wantText takes the next message, which must be this text.
func (tc *testConn) wantText(why, want string) {
	tc.t.Helper()
	m := tc.next(why)
	if !m.text || string(m.p) != want {
		tc.t.Fatalf("%s: got text %v %q, want text %q", why, m.text, m.p, want)
	}
}

// wantHex takes the next message, which must be this packet.
func (tc *testConn) wantHex(why, want string) {
	tc.t.Helper()
	m := tc.next(why)
	if m.text || hex.EncodeToString(m.p) != want {
		tc.t.Fatalf("%s: got text %v %x, want packet %s", why, m.text, m.p, want)
	}
}

// wantIdle checks that the session has sent nothing more.
func (tc *testConn) wantIdle(why string) {
	tc.t.Helper()
	synctest.Wait()
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if len(tc.sent) != 0 {
		tc.t.Fatalf("%s: got %x, want nothing", why, tc.sent[0].p)
	}
}

// wantClose checks that the session asked to close with this code and reason.
func (tc *testConn) wantClose(why string, code uint16, reason string) {
	tc.t.Helper()
	synctest.Wait()
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if want := string(binary.BigEndian.AppendUint16(nil, code)) + reason; tc.closed != want {
		tc.t.Fatalf("%s: closed with %q, want %q", why, tc.closed, want)
	}
}

func (tc *testConn) next(why string) message {
	tc.t.Helper()
	synctest.Wait()
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if len(tc.sent) == 0 {
		tc.t.Fatalf("%s: got nothing, want a message", why)
	}
	m := tc.sent[0]
	tc.sent = tc.sent[1:]
	return m
}

// asConnector completes the handshake of a connecting session with a peer of
// this library.
func (tc *testConn) asConnector() {
	tc.t.Helper()
	tc.writeText(`{"type":"id","id":"remote","ext":{"v":1,"f":[]}}`)
	tc.wantText("the answer to the id", `{"type":"client-id","id":"local","ext":{"v":1,"f":[]}}`)
}

// request packs a request of the session's own for comparison.
func packed(id uint32, f wire.Flags, payload string) string {
	return hex.EncodeToString(append(wire.AppendHeader(nil, id, f), payload...))
}

// wantOpen checks that the session did not ask to close.
func (tc *testConn) wantOpen(why string) {
	tc.t.Helper()
	synctest.Wait()
	tc.mu.Lock()
	defer tc.mu.Unlock()
	if tc.closed != "" {
		tc.t.Fatalf("%s: closed with %q, want it open", why, tc.closed)
	}
}
