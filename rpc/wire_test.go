package rpc

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/internal/wire"
	"github.com/d-e-v-grid/netron/mux"
)

// wirePeer is a connection of an endpoint whose other side is the test, which says and
// hears packets. It is used inside a bubble.
type wirePeer struct {
	t       *testing.T
	e       *Endpoint
	peer    *Peer // the test, as the endpoint sees it
	session *mux.Session
	log     *logBuffer
	ending  sync.Once

	mu     sync.Mutex
	held   bool     // the link takes nothing
	heard  []string // packets as text, not looked at yet; guarded by mu
	lastID uint32   // of the last packet heard; guarded by mu
	ids    int      // how many ids the packets of the task emit had; guarded by mu
	closed string   // code and reason of CloseWith, "" if none; guarded by mu
	vec    [][]byte // of the one who has the write role
}

// The ways to greet an endpoint that accepts, and the id that one gets which dials.
const (
	greetNetron  = `{"type":"client-id","id":"far","ext":{"v":1,"f":["event","cancel"]}}`
	greetNode    = `{"type":"client-id","id":"far"}`
	greetBrowser = `{"type":"client-id","id":""}`
	greetLegacy  = "" // by its first packet
)

// greetings are the kinds of peer that an endpoint accepts.
var greetings = map[string]string{"netron": greetNetron, "node": greetNode, "browser": greetBrowser, "0.6": greetLegacy}

// newWirePeer returns a connection that the endpoint has accepted from a peer of some
// kind.
func newWirePeer(t *testing.T, cfg Config, greeting string) *wirePeer {
	t.Helper()
	log := &logBuffer{}
	cfg.ID, cfg.Logger = "near", slog.New(slog.NewTextHandler(log, nil))
	return joinWire(t, newEndpoint(t, cfg), greeting, log)
}

// joinWire returns one more connection of an endpoint.
func joinWire(t *testing.T, e *Endpoint, greeting string, log *logBuffer) *wirePeer {
	t.Helper()
	w := &wirePeer{t: t, e: e, peer: e.NewPeer(false), log: log}
	w.session = e.Bind(w.peer, w, mux.Hint{Netron: true})
	w.session.Begin()
	if greeting == greetLegacy {
		w.session.Message(false, wire.AppendHeader(nil, 1, wire.Request(wire.TypePing)))
		w.say(1, wire.Request(wire.TypeTask), "abilities", map[string]any{})
	} else {
		w.session.Message(true, []byte(greeting))
		w.session.ReadDone()
	}
	synctest.Wait()
	w.mu.Lock()
	w.heard = nil
	w.mu.Unlock()
	t.Cleanup(w.end)
	return w
}

// end loses the connection.
func (w *wirePeer) end() {
	w.hold()
	w.ending.Do(func() { w.session.Closed(errWireLost) })
	synctest.Wait()
}

var errWireLost = fmt.Errorf("test: connection lost")

// BeginFrame and the others implement [mux.Link]. A frame is its length, and the message.
func (w *wirePeer) BeginFrame(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// EndFrame implements [mux.Link].
func (w *wirePeer) EndFrame(b []byte, start int, text bool) []byte {
	n := uint32(len(b) - start - 4)
	if text {
		n |= 1 << 31
	}
	b[start], b[start+1], b[start+2], b[start+3] = byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
	return b
}

// Kick implements [mux.Link].
func (w *wirePeer) Kick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for !w.held {
		w.vec = w.session.Collect(w.vec[:0])
		if len(w.vec) == 0 {
			return
		}
		for b := bytes.Join(w.vec, nil); len(b) > 0; {
			n := int(b[0]&0x7f)<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
			if b[0]>>7 == 0 {
				w.hear(b[4 : 4+n])
			}
			b = b[4+n:]
		}
	}
}

// hear notes a packet. mu is held.
func (w *wirePeer) hear(p []byte) {
	text := packetText(p)
	w.heard = append(w.heard, text)
	if pkt, err := wire.Parse(p); err == nil {
		if strings.HasPrefix(text, "task [emit") && pkt.ID != w.lastID {
			w.ids++
		}
		w.lastID = pkt.ID
	}
}

// agree answers a task of the endpoint that is the next thing it says, with success.
func (w *wirePeer) agree(task string, args ...any) {
	w.t.Helper()
	w.reply(codec.Undefined{}, task, args...)
}

// reply is agree with any answer.
func (w *wirePeer) reply(v any, task string, args ...any) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	id := w.lastID
	w.mu.Unlock()
	w.wants("a task", fmt.Sprint("task ", id, " ", append([]any{task}, args...)))
	w.answer(id, v)
	synctest.Wait()
}

// CloseWith implements [mux.Link].
func (w *wirePeer) CloseWith(code uint16, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed == "" {
		w.closed = fmt.Sprint(code, " ", reason)
	}
}

// packetText says what a packet is, without its id if it is an event or the task emit.
func packetText(p []byte) string {
	pkt, err := wire.Parse(p)
	if err != nil {
		return hex.EncodeToString(p)
	}
	var v any
	if err := codec.Unmarshal(pkt.Payload, &v); err != nil {
		v = err
	}
	switch {
	case pkt.Flags == wire.Request(wire.TypeEvent):
		return fmt.Sprint("event ", v)
	case pkt.Flags == wire.Request(wire.TypeTask):
		if list, ok := v.([]any); ok && list[0] == taskEmit {
			return fmt.Sprint("task ", v)
		}
		return fmt.Sprint("task ", pkt.ID, " ", v)
	case !pkt.Flags.Impulse() && pkt.Flags.Error():
		return fmt.Sprint("error ", pkt.ID, " ", decodeError(pkt.Payload, codec.Limits{}))
	case !pkt.Flags.Impulse() && bytes.Equal(pkt.Payload, codec.AppendUndefined(nil)):
		return fmt.Sprint("answer ", pkt.ID, " undefined")
	case !pkt.Flags.Impulse():
		return fmt.Sprint("answer ", pkt.ID, " ", v)
	}
	return fmt.Sprint(pkt.Flags.Type(), " ", pkt.ID, " ", v)
}

// hold has the link take nothing until release.
func (w *wirePeer) hold() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.held = true
}

func (w *wirePeer) release() {
	w.mu.Lock()
	w.held = false
	w.mu.Unlock()
	w.Kick()
}

// say sends a packet whose payload is an array.
func (w *wirePeer) say(id uint32, f wire.Flags, values ...any) {
	w.t.Helper()
	p, err := codec.Append(wire.AppendHeader(nil, id, f), values)
	if err != nil {
		w.t.Fatal(err)
	}
	w.session.Message(false, p)
	w.session.ReadDone()
}

// task runs a task of the endpoint.
func (w *wirePeer) task(id uint32, name string, args ...any) {
	w.t.Helper()
	w.say(id, wire.Request(wire.TypeTask), append([]any{name}, args...)...)
}

// event sends an EVENT.
func (w *wirePeer) event(values ...any) {
	w.t.Helper()
	w.say(1000, wire.Request(wire.TypeEvent), values...)
}

// answer answers a task of the endpoint with a value, or with an error.
func (w *wirePeer) answer(id uint32, v any) {
	w.t.Helper()
	p := wire.AppendHeader(nil, id, wire.Response(wire.TypeTask, isErrorValue(v)))
	var err error
	if e, ok := v.(*Error); ok {
		p = appendError(p, e)
	} else if p, err = codec.Append(p, v); err != nil {
		w.t.Fatal(err)
	}
	w.session.Message(false, p)
	w.session.ReadDone()
}

func isErrorValue(v any) bool {
	_, ok := v.(*Error)
	return ok
}

// wants compares the packets heard since it was called last. Answers alone may come in any
// order: requests are served at the same time.
func (w *wirePeer) wants(why string, want ...string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.ContainsFunc(w.heard, func(s string) bool { return !strings.HasPrefix(s, "answer") && !strings.HasPrefix(s, "error") }) {
		slices.Sort(w.heard)
		slices.Sort(want)
	}
	if got, want := fmt.Sprintf("%q", w.heard), fmt.Sprintf("%q", want); got != want {
		w.t.Errorf("%s: heard %s, want %s", why, got, want)
	}
	w.heard = nil
}

// wantOpen checks that the endpoint did not close the connection, and waits for nothing.
func (w *wirePeer) wantOpen(why string) {
	w.t.Helper()
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed != "" || w.session.Pending() != 0 {
		w.t.Errorf("%s: closed with %q, %d requests wait for an answer; want neither", why, w.closed, w.session.Pending())
	}
}

// emit emits on the bus of the endpoint.
func (w *wirePeer) emit(name string, args ...any) {
	w.t.Helper()
	if _, err := w.e.Bus().EmitParallel(w.t.Context(), name, args...); err != nil {
		w.t.Errorf("emit %s: %v", name, err)
	}
}

// logBuffer is what an endpoint has logged.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was logged.
func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
