package pubsub

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/d-e-v-grid/netron/internal/code"
)

type user struct{ Name string }

func TestTopic(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		created := NewTopic[user]("user:created")
		if created.Name() != "user:created" {
			t.Errorf("Name() = %q", created.Name())
		}
		var got []user
		sub, err := created.Subscribe(b, func(_ context.Context, u user) error {
			got = append(got, u)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		var plain [][]any
		subscribe(t, b, "user:*", func(_ context.Context, e Event) (any, error) {
			args, err := e.Args()
			plain = append(plain, args)
			return nil, err
		})
		for _, emit := range []func() error{
			func() error { return created.Emit(ctx, b.With(Concurrency(1)), user{"Ann"}) },
			func() error { return created.EmitSerial(ctx, b, user{"Bob"}) },
			func() error { _, err := b.EmitSerial(ctx, "user:created", user{"Eve"}, "more"); return err },
			func() error { _, err := b.EmitSerial(ctx, "user:created", nil); return err },
			func() error { _, err := b.EmitSerial(ctx, "user:created"); return err },
		} {
			if err := emit(); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff([]user{{"Ann"}, {"Bob"}, {"Eve"}, {}, {}}, got); diff != "" {
			t.Errorf("typed handler (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([][]any{{user{"Ann"}}, {user{"Bob"}}, {user{"Eve"}, "more"}, {nil}, nil}, plain); diff != "" {
			t.Errorf("plain handler (-want +got):\n%s", diff)
		}
		if _, err := b.EmitSerial(ctx, "user:created", "Ann"); codeOf(err) != code.InvalidArgument {
			t.Errorf("an argument of another type = %v", err)
		}
		// A topic of another type over the same name fits if the value does.
		if err := NewTopic[any]("user:created").EmitSerial(ctx, b, user{"Any"}); err != nil || got[len(got)-1] != (user{"Any"}) {
			t.Errorf("a value within an interface = %v, %v", got, err)
		}
		if err := NewTopic[any]("user:created").EmitSerial(ctx, b, 7); codeOf(err) != code.InvalidArgument {
			t.Errorf("another value within an interface = %v", err)
		}
		sub.Unsubscribe()
		var some any
		if _, err := NewTopic[any]("user:created").Subscribe(b, func(_ context.Context, v any) error { some = v; return nil }); err != nil {
			t.Fatal(err)
		}
		if err := created.Emit(ctx, b.With(Concurrency(1)), user{"Zoe"}); err != nil || some != any(user{"Zoe"}) {
			t.Errorf("a topic of any got %v, %v", some, err)
		}
	})
}

func TestTopicErrors(t *testing.T) {
	b := newBus(t, Config{})
	bad, pattern := NewTopic[int]("a::b"), NewTopic[int]("n:*")
	if _, err := bad.Subscribe(b, func(context.Context, int) error { return nil }); codeOf(err) != code.InvalidArgument {
		t.Errorf("Subscribe of a bad name = %v", err)
	}
	if err := bad.Emit(t.Context(), b, 1); codeOf(err) != code.InvalidArgument {
		t.Errorf("Emit of a bad name = %v", err)
	}
	if err := pattern.Emit(t.Context(), b, 1); codeOf(err) != code.InvalidArgument {
		t.Errorf("Emit of a pattern = %v", err)
	}
	if _, err := pattern.Subscribe(b, nil); codeOf(err) != code.InvalidArgument {
		t.Errorf("Subscribe without a handler = %v", err)
	}
	if _, err := Handle[int, int](b, pattern, nil); codeOf(err) != code.InvalidArgument {
		t.Errorf("Handle without a handler = %v", err)
	}
	if _, err := pattern.Subscribe(b, func(context.Context, int) error { return errOne }); err != nil {
		t.Error(err)
	}
	if err := NewTopic[int]("n:1").EmitSerial(t.Context(), b, 1); !errors.Is(err, errOne) {
		t.Errorf("EmitSerial = %v, want the handler's error", err)
	}
}

func TestReduceOfTopic(t *testing.T) {
	contexts(t, func(t *testing.T, ctx context.Context) {
		b := newBus(t, Config{})
		price := NewTopic[int]("price")
		for _, factor := range []float64{1, 0.5} {
			if _, err := Handle(b, price, func(_ context.Context, n int) (float64, error) { return factor * float64(n), nil }); err != nil {
				t.Fatal(err)
			}
		}
		subscribe(t, b, "*", returns(nil))
		sum := func(acc string, v float64) string { return acc + "+" + map[float64]string{4: "4", 2: "2"}[v] }
		if got, err := Reduce(ctx, b, price, 4, "0", sum); got != "0+4+2" || err != nil {
			t.Errorf("Reduce = %q, %v", got, err)
		}
		if got, err := Reduce(ctx, b, NewTopic[int]("x:y"), 4, "0", sum); got != "0" || err != nil {
			t.Errorf("Reduce without results = %q, %v", got, err)
		}
		subscribe(t, b, "price", returns("text"))
		if got, err := Reduce(ctx, b, price, 4, "0", sum); got != "" || codeOf(err) != code.InvalidArgument {
			t.Errorf("Reduce with a result of another type = %q, %v", got, err)
		}
	})
}
