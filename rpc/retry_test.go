package rpc

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// cutOff is a service whose handlers say what only a refusal may mean.
type cutOff struct{}

func (cutOff) InWords(context.Context) error { return Errorf(Unavailable, messageDraining) }
func (cutOff) Marked(context.Context) error  { return errDraining() }
func (cutOff) Other(context.Context) error {
	return &Error{Message: "x", Fields: map[string]any{fieldUnserved: true, "shelf": 7}}
}

// TestRefusalIsNoHandlersWord checks that a call which a handler has served is not
// taken for one that was refused, whatever the handler says: it would be made again.
func TestRefusalIsNoHandlersWord(t *testing.T) {
	_, far, stub := pair(t, cutOff{})
	for _, method := range []string{"inWords", "marked", "other"} {
		err := stub.Call(t.Context(), method, nil)
		if err == nil || wasRefused(err) {
			t.Errorf("%s = %v, refused %t, want an error of a call that was served", method, err, wasRefused(err))
		}
		if sent, known := WasSent(err); !sent || !known {
			t.Errorf("WasSent of %s = %t, %t, want true and known", method, sent, known)
		}
		if e, _ := errors.AsType[*Error](err); method == "other" && (len(e.Fields) != 1 || e.Fields["shelf"] != int64(7)) {
			t.Errorf("fields of the error %v, want the others untouched", e.Fields)
		}
	}
	if err := far.endpoint.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := stub.Call(t.Context(), "inWords", nil); !wasRefused(err) || CodeOf(err) != Unavailable {
		t.Errorf("call of a peer that drains = %v, want a refusal", err)
	}
}

// TestWasSentOnce checks that the error of a call that was made again tells whether any
// attempt was sent, and not only the last.
func TestWasSentOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := NewEndpoint(Config{ID: "node"})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		for _, first := range []bool{true, false} {
			p := e.NewDialled(Redial{})
			p.life.event.State = StateConnected
			ctx, cancel := context.WithTimeout(Idempotent(t.Context()), time.Minute)
			err = p.retried(ctx, callError(&mux.LostError{Sent: first}), func(context.Context) error {
				return callError(&mux.LostError{})
			})
			cancel()
			if sent, known := WasSent(err); sent != first || !known || CodeOf(err) != DeadlineExceeded {
				t.Errorf("first attempt sent: %t: %v, sent: %t", first, err, sent)
			}
		}
	})
}

// TestMiddlewareHasAnOwner checks that the end of an endpoint ends and waits for the
// middleware of calls that nobody waits for.
func TestMiddlewareHasAnOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := NewEndpoint(Config{ID: "node"})
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Expose("s", cutOff{}); err != nil {
			t.Fatal(err)
		}
		stub, err := e.Local().Service(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		ended := false
		e.UseOutgoing(func(Handler) Handler {
			return func(ctx context.Context, _ *Request) (codec.Raw, error) {
				<-ctx.Done()
				time.Sleep(time.Second)
				ended = true
				return nil, ctx.Err()
			}
		})
		f := stub.Go(context.Background(), "inWords", nil)
		synctest.Wait()
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
		if !ended {
			t.Error("Close returned before the middleware had ended")
		}
		if err := f.Wait(t.Context()); CodeOf(err) != Canceled {
			t.Errorf("the call = %v, want canceled", err)
		}
		if err := stub.Go(t.Context(), "inWords", nil).Wait(t.Context()); CodeOf(err) != Unavailable {
			t.Errorf("a call after Close = %v, want unavailable", err)
		}
		if err := MethodFunc[struct{}, struct{}](stub, "inWords")(t.Context(), struct{}{}, func(context.Context, struct{}, error) {}); CodeOf(err) != Unavailable {
			t.Errorf("a callback after Close = %v, want unavailable", err)
		}
	})
}

// TestParseGoAway checks what a peer may ask for.
func TestParseGoAway(t *testing.T) {
	for _, tc := range []struct {
		name    string
		payload string
		want    time.Duration
		ok      bool
	}{
		{"five seconds", "\x92\xa7restart\xcd\x13\x88", 5 * time.Second, true},
		{"at once", "\x92\xa0\x00", 0, true},
		{"more than it may", "\x92\xa0\xce\xff\xff\xff\xff", maxGoAwayWindow, true},
		{"members to come", "\x93\xa0\x00\x01", 0, true},
		{"nothing", "", 0, false},
		{"null", "\xc0", 0, false},
		{"no window", "\x91\xa0", 0, false},
		{"a negative window", "\x92\xa0\xff", 0, false},
		{"no number", "\x92\xa0\xa1x", 0, false},
		{"NaN", "\x92\xa0\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", 0, false},
		{"a reason that is none", "\x92\x01\x00", 0, false},
		{"half", "\x92\xa7rest", 0, false},
	} {
		if _, got, ok := parseGoAway([]byte(tc.payload), codec.Limits{}); got != tc.want || ok != tc.ok {
			t.Errorf("%s: parseGoAway = %v, %t, want %v, %t", tc.name, got, ok, tc.want, tc.ok)
		}
	}
}

// TestOutcomeOfAttempts checks what the last error of several attempts says of all.
func TestOutcomeOfAttempts(t *testing.T) {
	refused := *errOverloaded()
	refused.remote = true
	gone := *(&refusal{definitionNotFound([]byte("x"))}).Unwrap().(*Error)
	gone.remote = true
	lost, unsent := callError(&mux.LostError{Sent: true}), callError(&mux.LostError{})
	for _, tc := range []struct {
		name        string
		first, last error
		unserved    bool
	}{
		{"lost, then refused", lost, &refused, false},
		{"lost, then gone", lost, &gone, false},
		{"lost, then not sent", lost, unsent, false},
		{"refused, then not sent", &refused, unsent, true},
		{"gone, then not sent", &gone, unsent, true},
		{"gone, then refused", &gone, &refused, true},
		{"not sent, then refused", unsent, &refused, true},
		{"refused, then lost", &refused, lost, false},
	} {
		r := &retry{}
		r.note(tc.first)
		err := r.outcome(tc.last)
		if got := Unserved(err); got != tc.unserved {
			t.Errorf("%s: Unserved = %t, want %t", tc.name, got, tc.unserved)
		}
		if !tc.unserved {
			if sent, known := WasSent(err); known && !sent {
				t.Errorf("%s: WasSent = false, true", tc.name)
			}
		}
	}
}
