package pubsub

import (
	"context"
	"errors"
	"testing"
)

// lentText is a payload in memory that will be used anew.
type lentText struct{ text string }

func (p *lentText) Args() ([]any, error)   { return []any{p.text}, nil }
func (p *lentText) Decode(vs ...any) error { return assign(vs[0], p.text) }
func (p *lentText) Clone() Payload         { return &lentText{p.text} }

func textOf(t *testing.T, e Event) (text string) {
	t.Helper()
	if err := e.Decode(&text); err != nil {
		t.Errorf("Decode: %v", err)
	}
	return text
}

// TestLentEvents checks who gets an event as it is lent, and who one that lasts.
func TestLentEvents(t *testing.T) {
	b := newBus(t, Config{})
	reader, err := b.Reader("a")
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	var lent, cloned Event
	subscribe(t, b, "a", func(_ context.Context, e Event) (any, error) {
		lent, cloned = e, e.Clone()
		return nil, nil
	}, Inline())
	memory := &lentText{"first"}
	if err := b.With().LendEvent(t.Context(), b.Interest("a"), NewEvent("a", memory)); err != nil {
		t.Fatal(err)
	}
	memory.text = "second"
	read, err := reader.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for who, e := range map[string]Event{"a clone": cloned, "a reader": read} {
		if got := textOf(t, e); got != "first" {
			t.Errorf("%s has %q, want what was lent", who, got)
		}
	}
	if got := textOf(t, lent); got != "second" {
		t.Errorf("the handler had %q, want no copy", got)
	}
	// Whoever else emits a lent event gives the handlers one that lasts.
	memory.text = "third"
	if _, err := b.With().EmitEvent(t.Context(), OpSerial, NewEvent("a", memory)); err != nil {
		t.Fatal(err)
	}
	memory.text = "fourth"
	if got := textOf(t, lent); got != "third" {
		t.Errorf("EmitEvent gave the handler %q, want a copy", got)
	}
	if e := NewEvent("a", nil).Clone(); e.Payload() != nil {
		t.Error("a clone has a payload that the event has not")
	}
}

// TestLendEventRunsAll checks that neither errors nor handlers that may block change who
// gets a lent event.
func TestLendEventRunsAll(t *testing.T) {
	failed := errors.New("failed")
	for name, opts := range map[string][]Option{"inline": {Inline()}, "not inline": nil} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t, Config{})
			runs := 0
			for range 3 {
				subscribe(t, b, "a", func(context.Context, Event) (any, error) { runs++; return 1, failed }, opts...)
			}
			if err := b.With().LendEvent(t.Context(), b.Interest("a"), NewEvent("a", &lentText{})); !errors.Is(err, failed) || runs != 3 {
				t.Errorf("LendEvent = %v after %d handlers, want the error and 3", err, runs)
			}
			runs = 0
			for _, name := range []string{"b", "", "*"} {
				if err := b.With().LendEvent(t.Context(), b.Interest(name), NewEvent(name, &lentText{})); err != nil || runs > 0 {
					t.Errorf("LendEvent of %q = %v after %d handlers, want none", name, err, runs)
				}
			}
		})
	}
	b := newBus(t, Config{})
	subscribe(t, b, "a", fails(failed), Inline())
	to := b.Interest("a")
	if err := b.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := b.With().LendEvent(t.Context(), to, NewEvent("a", &lentText{})); !errors.Is(err, ErrClosed) {
		t.Errorf("LendEvent on a closed bus = %v", err)
	}
}

// TestLendToTheUnknowing checks that handlers and middleware which do not know that events are
// lent get clones.
func TestLendToTheUnknowing(t *testing.T) {
	for name, middleware := range map[string]bool{"a handler that is not inline": false, "middleware": true} {
		t.Run(name, func(t *testing.T) {
			b := newBus(t, Config{})
			var kept []Event
			keep := func(_ context.Context, e Event) (any, error) { kept = append(kept, e); return nil, nil }
			subscribe(t, b, "a", keep, Inline())
			if middleware {
				b.Use(func(next Handler) Handler {
					return func(ctx context.Context, e Event) (any, error) { kept = append(kept, e); return next(ctx, e) }
				})
			} else {
				subscribe(t, b, "a", keep)
			}
			memory := &lentText{"first"}
			if err := b.With().LendEvent(context.Background(), b.Interest("a"), NewEvent("a", memory)); err != nil || len(kept) != 2 {
				t.Fatalf("LendEvent = %v, %d events", err, len(kept))
			}
			memory.text = "second"
			for i, e := range kept {
				if got := textOf(t, e); got != "first" {
					t.Errorf("event %d has %q, want what was lent", i, got)
				}
			}
		})
	}
}

// TestInterestEnds checks that an interest knows when it is out of date.
func TestInterestEnds(t *testing.T) {
	b, other := newBus(t, Config{}), newBus(t, Config{})
	for _, pattern := range []string{"a", "*", "**", "b"} {
		before := b.Interest("a")
		if before.Any() || !before.IsOf(b) || before.IsOf(other) {
			t.Fatalf("an interest that nobody has: %v, of the bus %v, of another %v", before.Any(), before.IsOf(b), before.IsOf(other))
		}
		s := subscribe(t, b, pattern, returns(nil))
		if before.IsOf(b) {
			t.Errorf("an interest stays after a subscription to %s", pattern)
		}
		during := b.Interest("a")
		if during.Any() != (pattern != "b") || !during.IsOf(b) {
			t.Errorf("interest with a subscription to %s: %v, of the bus %v", pattern, during.Any(), during.IsOf(b))
		}
		s.Unsubscribe()
		if during.IsOf(b) {
			t.Errorf("an interest stays after the end of a subscription to %s", pattern)
		}
	}
	if (Interest{}).IsOf(b) || (Interest{}).Any() {
		t.Error("no interest is one")
	}
}

// TestScratch checks that the handlers of an emission share one scratch, and those of the
// next one do not take it for theirs, even after a panic.
func TestScratch(t *testing.T) {
	b := newBus(t, Config{Payload: func([]any) Payload { return &lentText{"payload"} }})
	n := 0
	first := subscribe(t, b, "a", func(_ context.Context, e Event) (any, error) {
		if s := e.Scratch(); s == nil || s.Filled || e.Clone().Scratch() != nil {
			t.Errorf("the first handler has the scratch %v, want an empty one, and none in clones", s)
		} else {
			s.Value, s.Filled = n, true
		}
		panic("of a handler")
	}, Inline(), WithScratch(), Priority(1))
	subscribe(t, b, "a", func(_ context.Context, e Event) (any, error) {
		if s := e.Scratch(); s == nil || s.Value != n || !s.Filled {
			t.Errorf("the second handler has the scratch %v, want that of the first", s)
		}
		return nil, nil
	}, Inline(), WithScratch())
	for n = range 3 {
		if _, err := b.EmitParallel(t.Context(), "a"); err == nil {
			t.Errorf("emission %d: no error", n)
		}
	}
	first.Unsubscribe()
	// Handlers on several goroutines share a payload instead.
	subscribe(t, b, "b", func(_ context.Context, e Event) (any, error) {
		if e.Scratch() != nil || e.Payload() == nil {
			t.Errorf("scratch %v, payload %v, want only a payload", e.Scratch(), e.Payload())
		}
		return nil, nil
	}, WithScratch())
	subscribe(t, b, "b", returns(nil))
	if _, err := b.EmitParallel(t.Context(), "b"); err != nil {
		t.Error(err)
	}
}
