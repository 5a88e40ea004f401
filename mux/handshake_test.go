package mux

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestHandshakeListener(t *testing.T) {
	long := strings.Repeat("x", maxPeerID+1)
	tests := []struct {
		name  string
		hint  Hint
		text  string // sent as text
		hex   string // sent as a packet, if text is empty
		want  Peer
		fails string // reason of the close, "" if the handshake succeeds
	}{
		{"browser", Hint{}, `{"type":"client-id","id":"b"}`, "", Peer{ID: "b", Kind: KindBrowser}, ""},
		{"node", Hint{QueryID: "n", HeaderID: "n"}, "", "7b2274797065223a22636c69656e742d6964222c226964223a226e227d", Peer{ID: "n", Kind: KindNode}, ""},
		{"node behind a proxy that strips headers", Hint{QueryID: "n"}, `{"type":"client-id","id":"n"}`, "", Peer{ID: "n", Kind: KindNode}, ""},
		{"0.6", Hint{QueryID: "old"}, "", "000000014492a96162696c697469657380", Peer{ID: "old", Kind: KindLegacy}, ""},
		{"0.6 without id", Hint{}, "", "000000014492a96162696c697469657380", Peer{Kind: KindLegacy}, ""},
		{
			"own, no common feature",
			Hint{QueryID: "g", Netron: true},
			`{"type":"client-id","id":"g","ext":{"v":1,"f":["other"]}}`, "",
			Peer{ID: "g", Kind: KindNetron, Features: []string{}},
			"",
		},
		{
			"own, common features in our order",
			Hint{QueryID: "g", Netron: true},
			`{"type":"client-id","id":"g","ext":{"v":1,"f":["credit","x","cancel"],"win":9,"cwin":10},"more":[1]}`, "",
			Peer{ID: "g", Kind: KindNetron, Features: []string{"cancel", "credit"}},
			"",
		},
		{
			"own, credit without a window",
			Hint{QueryID: "g", Netron: true},
			`{"type":"client-id","id":"g","ext":{"v":1,"f":["credit","cancel"],"win":9}}`, "",
			Peer{ID: "g", Kind: KindNetron, Features: []string{"cancel"}},
			"",
		},
		{"empty id", Hint{}, `{"type":"client-id"}`, "", Peer{Kind: KindBrowser}, ""},
		{"wrong type", Hint{}, `{"type":"id","id":"b"}`, "", Peer{}, "expected a client-id message"},
		{"no JSON", Hint{}, `hello`, "", Peer{}, "expected a client-id message"},
		{"broken JSON in binary", Hint{}, "", "7b7b7b7b7b7b7b7b", Peer{}, "expected a client-id message"},
		{"endless id", Hint{}, `{"type":"client-id","id":"` + long + `"}`, "", Peer{}, "expected a client-id message"},
		{"endless message", Hint{}, `{"type":"client-id","id":"b","x":"` + strings.Repeat("x", maxGreeting) + `"}`, "", Peer{}, "expected a client-id message"},
		{"wrong JSON type", Hint{}, `{"type":"client-id","id":7}`, "", Peer{}, "expected a client-id message"},
		{"too short for a packet", Hint{}, "", "00000001", Peer{}, "expected a client-id message or a packet"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := newTestConn(t, Config{Hint: tt.hint, Features: []string{"cancel", "credit"}})
				defer tc.end()
				if tt.hint.Netron || tt.hint == (Hint{}) {
					tc.wantText("the id at once", `{"type":"id","id":"local","ext":{"v":1,"f":["cancel","credit"]}}`)
				} else {
					time.Sleep(idDelay - 1)
					tc.wantIdle("a current Node connector misses an earlier id")
					time.Sleep(time.Nanosecond)
					tc.wantText("the id after the delay", `{"type":"id","id":"local","ext":{"v":1,"f":["cancel","credit"]}}`)
				}
				if tt.text != "" {
					tc.writeText(tt.text)
				} else {
					tc.writeHex(tt.hex)
				}
				if tt.fails != "" {
					tc.wantClose("a greeting that makes no sense", closeProtocol, tt.fails)
					if _, err := tc.session.WaitReady(t.Context()); !errors.Is(err, ErrHandshake) {
						t.Errorf("WaitReady = %v, want ErrHandshake", err)
					}
					tc.writeHex("000000014492a96162696c697469657380")
					tc.wantIdle("nothing is served after a handshake that failed")
					return
				}
				got, err := tc.session.WaitReady(t.Context())
				if err != nil {
					t.Fatalf("WaitReady: %v", err)
				}
				if got.ID != tt.want.ID || got.Kind != tt.want.Kind || strings.Join(got.Features, " ") != strings.Join(tt.want.Features, " ") {
					t.Errorf("WaitReady = %+v, want %+v", got, tt.want)
				}
				if got.Kind == KindLegacy {
					tc.wantHex("the first packet of a 0.6 peer is served", "000000010492a96162696c697469657380")
				}
			})
		})
	}
}

func TestHandshakeConnector(t *testing.T) {
	tests := []struct {
		name   string
		text   string
		hex    string
		want   Peer
		answer string
		fails  bool
	}{
		{"0.6", `{"type":"id","id":"srv"}`, "", Peer{ID: "srv", Kind: KindLegacy}, `{"type":"client-id","id":"local"}`, false},
		{"current", "", "7b2274797065223a226964222c226964223a22737276227d", Peer{ID: "srv", Kind: KindNode}, `{"type":"client-id","id":"local"}`, false},
		{
			"own", `{"type":"id","id":"srv","ext":{"v":1,"f":["meta","cancel"]}}`, "",
			Peer{ID: "srv", Kind: KindNetron, Features: []string{"cancel", "meta"}},
			`{"type":"client-id","id":"local","ext":{"v":1,"f":["cancel","meta"]}}`, false,
		},
		{"a packet first", "", "000000014491a161", Peer{}, "", true},
		{"a client-id", `{"type":"client-id","id":"srv"}`, "", Peer{}, "", true},
		{"empty", ``, "", Peer{}, "", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := newTestConn(t, Config{Connector: true, Features: []string{"cancel", "meta"}})
				defer tc.end()
				tc.wantIdle("the listener speaks first")
				if tt.hex != "" {
					tc.writeHex(tt.hex)
				} else {
					tc.writeText(tt.text)
				}
				got, err := tc.session.WaitReady(t.Context())
				if tt.fails {
					tc.wantClose("no id came", closeProtocol, "expected an id message")
					if !errors.Is(err, ErrHandshake) {
						t.Errorf("WaitReady = %v, want ErrHandshake", err)
					}
					return
				}
				if err != nil || got.ID != tt.want.ID || got.Kind != tt.want.Kind || strings.Join(got.Features, " ") != strings.Join(tt.want.Features, " ") {
					t.Errorf("WaitReady = %+v, %v, want %+v", got, err, tt.want)
				}
				tc.wantText("the client-id", tt.answer)
			})
		})
	}
}

func TestHandshakePingBeforeClientID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{})
		defer tc.end()
		tc.wantText("the id", `{"type":"id","id":"local","ext":{"v":1,"f":[]}}`)
		tc.writeHex("0000000740a161")
		tc.wantHex("an early PING is answered", "0000000700a161")
		tc.writeText(`{"type":"client-id","id":"b"}`)
		if p, err := tc.session.WaitReady(t.Context()); err != nil || p.Kind != KindBrowser {
			t.Errorf("WaitReady = %+v, %v, want a browser", p, err)
		}
	})
}

func TestHandshakeTimeout(t *testing.T) {
	for _, connector := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			tc := newTestConn(t, Config{Connector: connector, HandshakeTimeout: 3 * time.Second})
			defer tc.end()
			time.Sleep(3*time.Second - 1)
			tc.wantOpen("there is still time")
			time.Sleep(time.Nanosecond)
			tc.wantClose("nobody spoke", closePolicy, "handshake timeout")
		})
	}
}

func TestHandshakeLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		tc.end()
		if _, err := tc.session.WaitReady(t.Context()); !errors.Is(err, ErrHandshake) || !errors.Is(err, errTestLost) {
			t.Errorf("WaitReady = %v, want ErrHandshake and the cause", err)
		}
	})
}

func TestTextAfterHandshakeIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{Connector: true})
		defer tc.end()
		tc.asConnector()
		tc.writeText(`{"type":"id","id":"again"}`)
		tc.wantIdle("text means nothing now")
		if got := tc.session.Stats().IgnoredText; got != 1 {
			t.Errorf("IgnoredText = %d, want 1", got)
		}
	})
}

// TestReadyComesBeforeWaitReady checks the order of the two, which whoever dials
// depends on.
func TestReadyComesBeforeWaitReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waited, early atomic.Bool
		tc := newTestConn(t, Config{Connector: true, Ready: func(*Session, Peer) {
			time.Sleep(time.Second) // no Ready should; it shows who comes first
			early.Store(waited.Load())
		}})
		defer tc.end()
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := tc.session.WaitReady(t.Context()); err != nil {
				t.Error(err)
			}
			waited.Store(true)
		})
		synctest.Wait()
		tc.asConnector()
		wg.Wait()
		if early.Load() {
			t.Error("WaitReady returned before Ready")
		}
	})
}
