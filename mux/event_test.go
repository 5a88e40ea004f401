package mux

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/wire"
)

// testEvent returns an event without arguments whose name is one letter.
func testEvent(name string) *Event {
	e := MakeEvent(name, []byte{0x91, 0xa1, name[0]}, 1, []byte("\x92\xa4emit"))
	return &e
}

func emit(ctx context.Context, s *Session, name string, o Overflow, patience time.Duration) error {
	return s.SendEvent(ctx, testEvent(name), o, patience)
}

func testLoss(dst []byte, name string, n uint64) []byte {
	return append(append(append(dst, 0x93, nilValue, 0xa0|byte(len(name))), name...), byte(n))
}

// newSubscriber returns a session whose peer takes events.
func newSubscriber(t *testing.T, cfg Config) *testConn {
	cfg.Features, cfg.EventLoss = []string{FeatureEvent}, testLoss
	tc := newTestConn(t, cfg)
	tc.next("the id")
	tc.writeText(`{"type":"client-id","id":"x","ext":{"v":1,"f":["event"]}}`)
	return tc
}

func TestSendEvent(t *testing.T) {
	for name, tt := range map[string]struct {
		greeting string
		want     []string
	}{
		"negotiated": {`{"type":"client-id","id":"x","ext":{"v":1,"f":["event"]}}`, []string{"000000014a91a161", "000000024a91a162"}},
		"TypeScript": {`{"type":"client-id","id":"x"}`, []string{"000000014492a4656d6974a161", "000000024492a4656d6974a162"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := newTestConn(t, Config{Features: []string{FeatureEvent}})
				defer tc.end()
				tc.next("the id")
				tc.writeText(tt.greeting)
				for _, n := range []string{"a", "b"} {
					if err := emit(t.Context(), tc.session, n, Block, 0); err != nil {
						t.Fatal(err)
					}
				}
				for _, want := range tt.want {
					tc.wantHex("event", want)
				}
				tc.writeHex("0000000104d40000", "000000028404a0") // answers, one of them an error
				if n := tc.session.Pending(); n != 0 {
					t.Errorf("%d calls wait for an answer, want none", n)
				}
				if got := tc.session.EventStats(); got != (EventStats{Sent: 2}) {
					t.Errorf("EventStats = %+v", got)
				}
			})
		})
	}
}

// TestSlowSubscriber checks what becomes of events for which there is no room, and what
// the peer learns.
func TestSlowSubscriber(t *testing.T) {
	for name, tt := range map[string]struct {
		overflow Overflow
		emit     string
		errs     string // of each event: a dot, or d for dropped
		want     string // letters of events, or of lost ones with their number
	}{
		"oldest":               {DropOldest, "abcdefg", ".......", "-a1 -b1 -c1 d e f g"},
		"oldest of one name":   {DropOldest, "aaaaabc", ".......", "-a3 a a b c"},
		"newest":               {DropNewest, "abcdefg", "....ddd", "a b c d -e1 -f1 -g1"},
		"newest of one name":   {DropNewest, "abcdaaa", "....ddd", "a b c d -a3"},
		"block without a wait": {Block, "abcdef", "....dd", "a b c d -e1 -f1"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tc := newSubscriber(t, Config{MaxEvents: 4})
				defer tc.end()
				tc.hold()
				errs := ""
				for _, r := range tt.emit {
					err := emit(t.Context(), tc.session, string(r), tt.overflow, 0)
					errs += map[bool]string{true: "d", false: "."}[errors.Is(err, ErrDropped)]
				}
				if errs != tt.errs {
					t.Errorf("errors %s, want %s", errs, tt.errs)
				}
				stats := tc.session.EventStats()
				tc.release()
				synctest.Wait()
				var got []string
				for _, m := range tc.sent {
					switch p := hex.EncodeToString(m.p[5:]); {
					case m.p[5] == 0x91:
						got = append(got, string(m.p[7]))
					case m.p[5] == 0x93 && m.p[6] == nilValue:
						got = append(got, "-"+string(m.p[8])+string('0'+m.p[9]))
					default:
						t.Errorf("unexpected packet %s", p)
					}
				}
				if g := strings.Join(got, " "); g != tt.want {
					t.Errorf("the peer got %s, want %s", g, tt.want)
				}
				if lost := uint64(len(tt.emit) - 4); stats.Dropped != lost {
					t.Errorf("EventStats = %+v, want %d dropped", stats, lost)
				}
				if err := emit(t.Context(), tc.session, "z", DropNewest, 0); err != nil {
					t.Errorf("after the peer has read: %v", err)
				}
			})
		})
	}
}

// TestManyLostNames checks that the names of lost events take a bounded amount of memory.
func TestManyLostNames(t *testing.T) {
	for _, o := range []Overflow{DropOldest, DropNewest} {
		synctest.Test(t, func(t *testing.T) {
			tc := newSubscriber(t, Config{MaxEvents: 1})
			defer tc.end()
			tc.hold()
			const n = 60
			for i := range n {
				_ = emit(t.Context(), tc.session, string(rune('A'+i)), o, 0)
			}
			tc.release()
			synctest.Wait()
			lost, names := 0, 0
			for _, m := range tc.sent {
				if m.p[5] == 0x93 {
					names++
					lost += int(m.p[9])
				}
			}
			if lost != n-1 || names > maxLosses {
				t.Errorf("told of %d lost events under %d names, want %d, at most %d", lost, names, n-1, maxLosses)
			}
		})
	}
}

// TestBlockingEmitter checks that Block waits for room, for a bounded time, and only once.
func TestBlockingEmitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newSubscriber(t, Config{MaxEvents: 1})
		defer tc.end()
		tc.hold()
		send := func(want error, after time.Duration) {
			t.Helper()
			start := time.Now()
			err := emit(t.Context(), tc.session, "a", Block, time.Second)
			if d := time.Since(start); !errors.Is(err, want) || d != after {
				t.Errorf("SendEvent = %v after %v, want %v after %v", err, d, want, after)
			}
		}
		send(nil, 0)
		takeOnce := func() {
			tc.mu.Lock()
			defer tc.mu.Unlock()
			tc.session.Collect(nil)
		}
		time.AfterFunc(300*time.Millisecond, takeOnce)
		send(nil, 300*time.Millisecond)
		send(ErrDropped, time.Second)
		send(ErrDropped, 0) // its patience is used up
		takeOnce()
		send(nil, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := emit(ctx, tc.session, "a", Block, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("SendEvent beyond its context = %v", err)
		}
		if err := emit(tc.session.OwnerContext(t.Context()), tc.session, "a", Block, time.Second); !errors.Is(err, ErrDropped) {
			t.Errorf("SendEvent on a read owner = %v", err)
		}
		tc.release()
	})
}

func TestDisconnectSlowSubscriber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newSubscriber(t, Config{MaxEventBytes: 20}) // an event has 3 bytes, its packet 8
		defer tc.end()
		tc.hold()
		for i, want := range []error{nil, nil, ErrDropped} {
			if err := emit(t.Context(), tc.session, "a", Disconnect, 0); !errors.Is(err, want) {
				t.Errorf("event %d: %v, want %v", i, err, want)
			}
		}
		tc.wantClose("a slow subscriber", closePolicy, "events are not being read")
	})
}

// TestEventsEndWithSession checks that nothing is held by a session that has ended, and
// that who waits learns it.
func TestEventsEndWithSession(t *testing.T) {
	for _, before := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			tc := newSubscriber(t, Config{MaxEvents: 1})
			tc.hold()
			e := testEvent("a")
			waited := make(chan error, 1)
			if before {
				if err := tc.session.SendEvent(t.Context(), e, Block, 0); err != nil {
					t.Fatal(err)
				}
				go func() { waited <- tc.session.SendEvent(t.Context(), e, Block, time.Hour) }()
				synctest.Wait()
			}
			tc.end()
			var lost *LostError
			if before {
				if err := <-waited; !errors.As(err, &lost) {
					t.Errorf("who waited for room got %v", err)
				}
			}
			if err := tc.session.SendEvent(t.Context(), e, Block, time.Hour); !errors.As(err, &lost) || !errors.Is(err, errTestLost) {
				t.Errorf("SendEvent after the end = %v", err)
			}
		})
	}
}

// TestEventPacket checks which packets are events.
func TestEventPacket(t *testing.T) {
	for name, tt := range map[string]struct {
		greeting string
		packet   string
		want     int
	}{
		"an event":       {`{"type":"client-id","id":"x","ext":{"v":1,"f":["event"]}}`, "0000000a4a91a161", 1},
		"no impulse":     {`{"type":"client-id","id":"x","ext":{"v":1,"f":["event"]}}`, "0000000a0a91a161", 0},
		"no payload":     {`{"type":"client-id","id":"x","ext":{"v":1,"f":["event"]}}`, "0000000a4a", 0},
		"not negotiated": {`{"type":"client-id","id":"x","ext":{"v":1,"f":[]}}`, "0000000a4a91a161", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				got := 0
				tc := newTestConn(t, Config{Features: []string{FeatureEvent}, Event: func(*Session, []byte) { got++ }})
				defer tc.end()
				tc.next("the id")
				tc.writeText(tt.greeting)
				tc.writeHex(tt.packet)
				if got != tt.want || tc.session.Stats().Events != uint64(tt.want) {
					t.Errorf("%d events, %+v, want %d", got, tc.session.Stats(), tt.want)
				}
				tc.wantIdle("events are not answered")
			})
		})
	}
}

// TestGivenUpEventsCount checks that the peer learns of an event for which its emitter did
// not wait long enough, even if all others have been taken meanwhile.
func TestGivenUpEventsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newSubscriber(t, Config{MaxEvents: 1})
		defer tc.end()
		tc.hold()
		if err := emit(t.Context(), tc.session, "a", Block, time.Second); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := emit(ctx, tc.session, "b", Block, time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("SendEvent beyond its context = %v", err)
		}
		tc.release()
		tc.wantHex("the event", "000000014a91a161")
		tc.wantHex("the loss", "000000024a93c0a16201")
		tc.session.loseEvent(tc.session.events.Load(), testEvent("c")) // all have been taken
		tc.wantHex("a late loss", "000000034a93c0a16301")
		if got := tc.session.EventStats(); got.Dropped != 2 || got.Waiting != 0 {
			t.Errorf("EventStats = %+v, want 2 dropped", got)
		}
	})
}

// TestEventsAfterBurst checks that a session does not keep the memory of a burst.
func TestEventsAfterBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newSubscriber(t, Config{})
		defer tc.end()
		tc.hold()
		large := MakeEvent("a", make([]byte, CopiedEvent+1), 1, nil) // not put together with others
		for range 4 * keptPieces {
			if err := tc.session.SendEvent(t.Context(), &large, Block, 0); err != nil {
				t.Fatal(err)
			}
		}
		tc.release()
		synctest.Wait()
		if n := cap(tc.session.events.Load().pieces); n > keptPieces {
			t.Errorf("there is room for %d events, want no more than for %d", n, keptPieces)
		}
	})
}

// TestOutbox compares the queue of events with a list of them, over random events, drops
// and writes.
func TestOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newSubscriber(t, Config{})
		defer tc.end()
		synctest.Wait()
		random := rand.New(rand.NewPCG(1, 2))
		for range 200 {
			box, want, lost := &outbox{}, []entry(nil), uint64(0)
			for range random.IntN(3000) {
				name := string(rune('a' + random.IntN(3)))
				switch n := random.IntN(100); {
				case n < 80:
					size := random.IntN(200)
					if n == 0 {
						size = CopiedEvent + random.IntN(CopiedEvent)
					}
					e := MakeEvent(name, append([]byte(name), make([]byte, size)...), 1, nil)
					tc.session.queueEvent(box, &e)
					want = append(want, entry{name, false})
				case n < 95:
					oldest := slices.IndexFunc(want, func(e entry) bool { return !e.lost })
					if box.dropOldest() != (oldest >= 0) {
						t.Fatal("dropOldest does not say whether there was one")
					}
					if oldest >= 0 {
						want[oldest].lost = true
						lost++
					}
				case n < 98:
					box.dropNewest(testEvent(name))
					want = append(want, entry{name, true})
					lost++
				default:
					want = wantTaken(t, tc.session, box, 1+random.IntN(eventShare), want)
				}
			}
			for box.head < len(box.pieces) {
				want = wantTaken(t, tc.session, box, eventShare, want)
			}
			if len(want) != 0 || box.count != 0 || box.bytes != 0 || box.dropped.Load() != lost {
				t.Fatalf("%d of %d events of %d bytes are left, %d were dropped, want none and %d", box.count, len(want), box.bytes, box.dropped.Load(), lost)
			}
		}
	})
}

// entry is an event of the list.
type entry struct {
	name string
	lost bool
}

// wantTaken takes what is to be written next, checks that it is the beginning of the list,
// and returns the rest of the list.
func wantTaken(t *testing.T, s *Session, o *outbox, limit int, want []entry) []entry {
	t.Helper()
	o.take(limit)
	header := len(s.link.BeginFrame(nil)) + wire.HeaderLen
	var got []entry
	for _, p := range o.taken {
		for _, l := range p.lost {
			got = append(got, slices.Repeat([]entry{{l.name, true}}, int(l.count))...)
		}
		if p.large != nil {
			got = append(got, entry{p.large.name, false})
		}
		at := 0
		for _, end := range p.ends[min(p.first, len(p.ends)):] {
			frame := p.frames()[at : end-len(p.buf.B)+len(p.frames())]
			got = append(got, entry{string(frame[header]), false})
			at += len(frame)
		}
		p.free()
	}
	o.taken = o.taken[:0]
	n := len(got)
	if n > len(want) || fmt.Sprint(sorted(got)) != fmt.Sprint(sorted(want[:n])) {
		t.Fatalf("taken %v, want the beginning of %v", got, want)
	}
	return want[n:]
}

// sorted returns the list with the lost events that stand together in the order of their
// names, which is not kept.
func sorted(list []entry) []entry {
	list = slices.Clone(list)
	for i := 0; i < len(list); {
		j := i + 1
		for ; list[i].lost && j < len(list) && list[j].lost; j++ {
		}
		slices.SortFunc(list[i:j], func(a, b entry) int { return strings.Compare(a.name, b.name) })
		i = j
	}
	return list
}

// TestEventsAfterUntoldLosses checks that a session whose peer cannot be told of losses goes
// on behind them.
func TestEventsAfterUntoldLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newTestConn(t, Config{MaxEvents: 4})
		defer tc.end()
		tc.next("the id")
		tc.writeText(`{"type":"client-id","id":"x"}`)
		synctest.Wait()
		large := MakeEvent("a", make([]byte, eventShare), 1, []byte("\x92\xa4emit"))
		for round := range 3 {
			tc.hold()
			dropped := 0
			for range 6 {
				if tc.session.SendEvent(t.Context(), &large, DropNewest, 0) != nil {
					dropped++
				}
			}
			if dropped != 2 {
				t.Fatalf("%d events were dropped, want 2", dropped)
			}
			tc.release()
			for range 4 {
				tc.next("an event")
			}
			if err := emit(t.Context(), tc.session, "b", DropNewest, 0); err != nil {
				t.Fatal(err)
			}
			tc.next("an event behind the losses")
			tc.wantIdle("then")
			if got := tc.session.Stats(); got.EventsWaiting != 0 || got.EventsDropped != uint64(2*(round+1)) || got.EventsSent != uint64(5*(round+1)) {
				t.Errorf("Stats = %+v", got)
			}
		}
	})
}

// TestOutboxMemory checks that what waits takes about the memory that is counted, however large
// and small events alternate.
func TestOutboxMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tc := newSubscriber(t, Config{})
		defer tc.end()
		synctest.Wait()
		box := &outbox{last: eventShare}
		large := MakeEvent("a", make([]byte, CopiedEvent+1), 1, nil)
		room := 0
		for range 1000 {
			tc.session.queueEvent(box, &large)
			tc.session.queueEvent(box, testEvent("a"))
			box.dropNewest(testEvent("b"))
			tc.session.queueEvent(box, testEvent("a"))
		}
		for _, p := range box.pieces {
			if p.buf != nil {
				room += cap(p.buf.B)
			}
		}
		if room > box.bytes+eventShare {
			t.Errorf("%d bytes of events take %d bytes of buffers", box.bytes, room)
		}
	})
}

// TestLossesInOneWrite checks that notices of losses count for the size of a write.
func TestLossesInOneWrite(t *testing.T) {
	box := &outbox{}
	name := strings.Repeat("x", 200)
	for range 1000 {
		box.pieces = append(box.pieces, &piece{lost: []loss{{name, 1}, {name + "y", 1}}})
	}
	box.take(eventShare)
	if n := len(box.taken); n == 0 || n > eventShare/(2*len(name)) {
		t.Errorf("%d pairs of notices in a write, want about %d bytes", n, eventShare)
	}
}
