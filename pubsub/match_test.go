package pubsub

import (
	"context"
	"flag"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/d-e-v-grid/netron/internal/code"
)

// TestAgreesWithNaiveMatcher subscribes, unsubscribes and emits at random, and compares
// who is called, in which order, with a list that is searched from the beginning.
func TestAgreesWithNaiveMatcher(t *testing.T) {
	segments := rapid.SampledFrom([]string{"a", "b", "service", "expose", "*", "**"})
	rapid.Check(t, func(t *rapid.T) {
		b, node, err := NewPrivileged(Config{CachedNames: -1})
		if err != nil {
			t.Fatal(err)
		}
		type known struct {
			sub  *Subscription
			id   int
			prio int
			key  any
			once bool
		}
		var subs []known
		var called []int
		ids := 0
		draw := func(what string) string {
			return strings.Join(rapid.SliceOfN(segments, 1, 4).Draw(t, what), separator)
		}
		emit := func(t *rapid.T) {
			name := draw("name")
			if CheckName(name) != nil {
				return
			}
			var want []int
			seen := map[any]bool{}
			slices.SortStableFunc(subs, func(x, y known) int { return y.prio - x.prio })
			subs = slices.DeleteFunc(subs, func(k known) bool {
				if !naiveMatch(k.sub.pattern, name) || k.key != nil && seen[k.key] {
					return false
				}
				seen[k.key] = k.key != nil
				want = append(want, k.id)
				return k.once
			})
			called = nil
			if _, err := node.EmitSerial(context.Background(), name); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(called, want) {
				t.Fatalf("%q called %v, want %v", name, called, want)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				pattern := draw("pattern")
				ids++
				k := known{id: ids, prio: rapid.IntRange(-1, 1).Draw(t, "priority"), once: rapid.Bool().Draw(t, "once")}
				if rapid.IntRange(0, 3).Draw(t, "shares") == 0 {
					k.key = rapid.IntRange(0, 1).Draw(t, "key")
				}
				id := k.id
				opts := []Option{Priority(k.prio), Distinct(k.key)}
				if k.once {
					opts = append(opts, Once())
				}
				var err error
				k.sub, err = b.Subscribe(pattern, func(context.Context, Event) (any, error) {
					called = append(called, id)
					return nil, nil
				}, opts...)
				if (err == nil) != (CheckPattern(pattern) == nil) {
					t.Fatalf("Subscribe(%q) = %v", pattern, err)
				}
				if err == nil {
					subs = append(subs, k)
				}
			},
			"unsubscribe": func(t *rapid.T) {
				if len(subs) == 0 {
					return
				}
				i := rapid.IntRange(0, len(subs)-1).Draw(t, "which")
				subs[i].sub.Unsubscribe()
				subs = slices.Delete(subs, i, i+1)
			},
			"emit": emit,
			"": func(t *rapid.T) {
				if got := b.Stats().Subscriptions; got != len(subs) {
					t.Fatalf("%d subscriptions, want %d", got, len(subs))
				}
				if len(subs) == 0 && !b.root.isBare() {
					t.Fatal("the trie keeps places without subscriptions")
				}
			},
		})
	})
}

var subscriptions = flag.Int("subscriptions", 10_000, "how many TestManySubscriptions makes, for example 1000000")

// TestManySubscriptions checks that many subscriptions are made and ended in good time,
// of one pattern and of as many, and that they do not slow down a match.
func TestManySubscriptions(t *testing.T) {
	n := *subscriptions
	for _, tc := range []struct {
		name    string
		pattern func(i int) string
	}{
		{"OnePattern", func(int) string { return "x:y" }},
		{"OneWildcard", func(int) string { return "x:*" }},
		{"Names", func(i int) string { return fmt.Sprint("x:", i) }},
		{"Wildcards", func(i int) string { return fmt.Sprint("x:", i, ":*") }},
		{"Deep", func(i int) string { return fmt.Sprint("x:", i%100, ":", i/100) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := newBus(t, Config{})
			subscribe(t, b, "order:*", returns(1))
			before := nsPerMatch(b)
			subs := make([]*Subscription, n)
			began := time.Now()
			for i := range subs {
				subs[i] = subscribe(t, b, tc.pattern(i), returns(nil))
			}
			made := time.Since(began)
			after := nsPerMatch(b)
			began = time.Now()
			for _, s := range subs {
				s.Unsubscribe()
			}
			t.Logf("%d subscriptions: %v to make, %v to end, match %.0f ns before, %.0f ns with them", n, made, time.Since(began), before, after)
			if got := b.Stats().Subscriptions; got != 1 {
				t.Errorf("%d subscriptions are left, want 1", got)
			}
			// Half a second for a hundred times the steps, were the cost quadratic or linear.
			if after > 100*before+500_000 {
				t.Errorf("a match takes %.0f ns with unrelated subscriptions, %.0f without", after, before)
			}
		})
	}
}

// nsPerMatch measures a lookup in the trie, past the cache.
func nsPerMatch(b *Bus) float64 {
	const rounds = 1000
	began := time.Now()
	for range rounds {
		b.find("order:created")
	}
	return float64(time.Since(began).Nanoseconds()) / rounds
}

// TestCacheIsRight subscribes and unsubscribes while others emit, and checks that each
// emission sees what was done before it began.
func TestCacheIsRight(t *testing.T) {
	b := newBus(t, Config{CachedNames: -1})
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					b.EmitSerial(context.Background(), "order:created")
					b.EmitSerial(context.Background(), fmt.Sprint("other:", i%1000)) // pushes names out
				}
			}
		})
	}
	rounds := 2000
	if raceEnabled {
		rounds = 300
	}
	for i := range rounds {
		pattern := []string{"order:created", "order:*", "*"}[i%3]
		var calls atomic.Int64
		s := subscribe(t, b, pattern, func(_ context.Context, e Event) (any, error) {
			if len(e.args) > 0 {
				calls.Add(1)
			}
			return nil, nil
		})
		if _, err := b.EmitSerial(t.Context(), "order:created", i); err != nil {
			t.Fatal(err)
		}
		if calls.Load() != 1 {
			t.Fatalf("round %d: the handler of %q was called %d times, want 1", i, pattern, calls.Load())
		}
		s.Unsubscribe()
		if b.HasHandlers("order:created") {
			t.Fatalf("round %d: %q still has handlers", i, pattern)
		}
	}
	close(stop)
	wg.Wait()
}

func TestCacheIsBounded(t *testing.T) {
	b := newBus(t, Config{CachedNames: 100})
	subscribe(t, b, "*", returns("x"))
	for i := range 10_000 {
		name := fmt.Sprint("n:", i)
		if got, err := b.EmitSerial(t.Context(), name); err != nil || !cmp.Equal(got, []any{"x"}) {
			t.Fatalf("EmitSerial(%q) = %v, %v", name, got, err)
		}
	}
	if got := len(b.routes.Load().buckets) * cacheWays; got != 128 {
		t.Errorf("the cache has room for %d names, want 128", got)
	}
	for in, want := range map[int]int{0: 4096, -1: 64, 1: 64, 65: 128, 4096: 4096, 5000: 8192} {
		if got := (&Config{CachedNames: in}).cachedNames(); got != want {
			t.Errorf("CachedNames %d means %d, want %d", in, got, want)
		}
	}
}

func TestMaxSubscriptions(t *testing.T) {
	b := newBus(t, Config{MaxSubscriptions: 2})
	s := subscribe(t, b, "a", returns(nil))
	subscribe(t, b, "b", returns(nil))
	if _, err := b.Subscribe("c", returns(nil)); codeOf(err) != code.ResourceExhausted {
		t.Errorf("a third subscription = %v, want resource_exhausted", err)
	}
	if _, err := b.Reader("c"); codeOf(err) != code.ResourceExhausted {
		t.Errorf("a reader = %v, want resource_exhausted", err)
	}
	s.Unsubscribe()
	s.Unsubscribe()
	subscribe(t, b, "c", returns(nil))
	if _, err := b.Subscribe("d", returns(nil)); codeOf(err) != code.ResourceExhausted {
		t.Errorf("a subscription after one was ended twice = %v, want resource_exhausted", err)
	}
}

func TestChanged(t *testing.T) {
	var log []string
	var b *Bus
	b = newBus(t, Config{Changed: func(pattern string) { log = append(log, fmt.Sprint(pattern, " ", b.IsSubscribed(pattern))) }})
	first := subscribe(t, b, "order:*", returns(nil))
	second := subscribe(t, b, "order:*", returns(nil))
	all := subscribe(t, b, "**", returns(nil))
	once := subscribe(t, b, "a", returns(nil), Once())
	if got := b.Patterns(); !cmp.Equal(slices.Sorted(slices.Values(got)), []string{"*", "a", "order:*"}) {
		t.Errorf("Patterns() = %q", got)
	}
	first.Unsubscribe()
	second.Unsubscribe()
	all.Unsubscribe()
	if _, err := b.EmitParallel(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	once.Unsubscribe()
	want := []string{"order:* true", "* true", "a true", "order:* false", "* false", "a false"}
	if diff := cmp.Diff(want, log); diff != "" {
		t.Errorf("Changed was told (-want +got):\n%s", diff)
	}
	if got := b.Patterns(); len(got) > 0 {
		t.Errorf("Patterns() = %q in the end", got)
	}
}
