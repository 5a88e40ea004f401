package pubsub

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/internal/code"
)

var numbers = NewTopic[int]("number")

// readNow returns what the reader has at this moment: values, and "lost n" where some
// are missing. The error is the last one, nil if there is none yet. In a bubble of
// synctest.
func readNow(r *Reader[int]) (got []string, last error) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), time.Nanosecond)
		v, err := r.Next(ctx)
		cancel()
		lost, isLost := errors.AsType[*LostError](err)
		switch {
		case isLost:
			got = append(got, fmt.Sprint("lost ", lost.Count))
		case errors.Is(err, context.DeadlineExceeded):
			return got, nil
		case err != nil:
			return got, err
		default:
			got = append(got, fmt.Sprint(v))
		}
	}
}

func TestPolicies(t *testing.T) {
	for _, tc := range []struct {
		name  string
		opts  []ReaderOption
		want  []string
		last  error
		lost  uint64
		took  time.Duration
		check func(Stats) uint64
	}{
		{"DropOldest", []ReaderOption{Buffer(3)}, []string{"lost 4", "5", "6", "7"}, nil, 4, 0, func(s Stats) uint64 { return s.DroppedOldest }},
		{"DropNewest", []ReaderOption{Buffer(3), WhenFull(DropNewest)}, []string{"1", "2", "3", "lost 4"}, nil, 4, 0, func(s Stats) uint64 { return s.DroppedNewest }},
		{"Disconnect", []ReaderOption{Buffer(3), WhenFull(Disconnect)}, []string{"1", "2", "3"}, ErrSlowReader, 0, 0, func(s Stats) uint64 { return 4 * s.Disconnected }},
		{"Block", []ReaderOption{Buffer(3), BlockFor(time.Minute)}, []string{"1", "2", "3", "lost 4"}, nil, 4, 4 * time.Minute, func(s Stats) uint64 { return s.TimedOut }},
		{"default bound", []ReaderOption{Buffer(3), WhenFull(Block)}, []string{"1", "2", "3", "lost 4"}, nil, 4, 4 * time.Second, func(s Stats) uint64 { return s.Blocked }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t, Config{})
				r, err := numbers.Reader(b, tc.opts...)
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				began := time.Now()
				for i := range 7 {
					if err := numbers.EmitSerial(t.Context(), b, i+1); err != nil {
						t.Fatal(err)
					}
				}
				if took := time.Since(began); took != tc.took {
					t.Errorf("emitting took %v, want %v", took, tc.took)
				}
				got, last := readNow(r)
				if !slices.Equal(got, tc.want) || !sameError(last, tc.last) {
					t.Errorf("read %q, %v, want %q, %v", got, last, tc.want, tc.last)
				}
				if r.Lost() != tc.lost || tc.check(b.Stats()) != 4 {
					t.Errorf("lost %d, want %d; %+v", r.Lost(), tc.lost, b.Stats())
				}
				if tc.last != nil {
					if b.HasHandlers("number") {
						t.Error("a disconnected reader is still subscribed")
					}
					return
				}
				// Reading makes room, and what comes then is told apart from what was lost.
				for i := range 2 {
					if err := numbers.Emit(t.Context(), b, i+8); err != nil {
						t.Fatal(err)
					}
				}
				if got, last := readNow(r); !slices.Equal(got, []string{"8", "9"}) || last != nil {
					t.Errorf("then read %q, %v", got, last)
				}
			})
		})
	}
	for p, want := range map[Policy]string{DropOldest: "drop oldest", DropNewest: "drop newest", Disconnect: "disconnect", Block: "block", 9: "unknown"} {
		if p.String() != want {
			t.Errorf("Policy(%d) = %q, want %q", p, p, want)
		}
	}
}

// TestLostInBetween checks that the gap is told where it is.
func TestLostInBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, Config{})
		r, err := numbers.Reader(b, Buffer(2), WhenFull(DropNewest))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		emit := func(vs ...int) {
			for _, v := range vs {
				if err := numbers.EmitSerial(context.Background(), b, v); err != nil {
					t.Fatal(err)
				}
			}
		}
		emit(1, 2, 3, 4)
		if v, err := r.Next(t.Context()); v != 1 || err != nil {
			t.Errorf("Next = %v, %v", v, err)
		}
		emit(5, 6)
		if got, _ := readNow(r); !slices.Equal(got, []string{"2", "lost 2", "5", "lost 1"}) {
			t.Errorf("read %q", got)
		}
	})
}

// TestBlockWaitsForRoom checks that a slow reader slows down emissions and loses nothing.
func TestBlockWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, Config{})
		r, err := numbers.Reader(b, Buffer(2), BlockFor(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		const emitters, each = 5, 20
		var wg sync.WaitGroup
		for e := range emitters {
			wg.Go(func() {
				for i := range each {
					if err := numbers.Emit(context.Background(), b, e*each+i); err != nil {
						t.Error(err)
					}
				}
			})
		}
		next := make([]int, emitters)
		for range emitters * each {
			time.Sleep(time.Second) // virtual: the reader is slow
			v, err := r.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if e := v / each; v%each != next[e] {
				t.Errorf("number %d of emitter %d came, want %d", v%each, e, next[e])
			} else {
				next[e]++
			}
		}
		wg.Wait()
		if r.Lost() != 0 || b.Stats().Blocked == 0 {
			t.Errorf("lost %d, %+v", r.Lost(), b.Stats())
		}
	})
}

// TestBlockEnds checks what lets an emission go on that waits for a reader.
func TestBlockEnds(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(b *Bus, r *Reader[int], cancel func())
		err  error
	}{
		{"context", func(_ *Bus, _ *Reader[int], cancel func()) { cancel() }, context.Canceled},
		{"reader", func(_ *Bus, r *Reader[int], _ func()) { r.Close() }, nil},
		{"bus", func(b *Bus, _ *Reader[int], _ func()) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			if err := b.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				panic(err)
			}
		}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBus(t, Config{})
				r, err := numbers.Reader(b, Buffer(1), BlockFor(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if err := numbers.Emit(ctx, b, 1); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- numbers.Emit(ctx, b, 2) }()
				synctest.Wait()
				began := time.Now()
				tc.end(b, r, cancel)
				if err := <-done; !errors.Is(err, tc.err) {
					t.Errorf("Emit = %v, want %v", err, tc.err)
				}
				if time.Since(began) > time.Minute {
					t.Errorf("Emit went on after %v", time.Since(began))
				}
			})
		})
	}
}

// TestIteration checks how sequences begin and end.
func TestIteration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, Config{})
		ctx, cancel := context.WithCancel(t.Context())
		var got []string
		var last error
		done := make(chan struct{})
		go func() {
			defer close(done)
			for e, err := range b.Events(ctx, "order:*") {
				if last = err; err == nil {
					args, _ := e.Args()
					got = append(got, fmt.Sprint(e.Name(), args))
				}
			}
		}()
		synctest.Wait()
		for i := range 2 {
			if _, err := b.EmitParallel(t.Context(), "order:created", i); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		cancel()
		<-done
		if want := []string{"order:created[0]", "order:created[1]"}; !slices.Equal(got, want) || codeOf(last) != code.Canceled {
			t.Errorf("read %q, %v, want %q and the end of the context", got, last, want)
		}
		if n := b.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions after the iteration", n)
		}

		for _, err := range b.Events(t.Context(), "a::b") {
			if codeOf(err) != code.InvalidArgument {
				t.Errorf("Events of a bad pattern = %v", err)
			}
		}

		// Breaking out ends the subscription.
		go func() {
			synctest.Wait()
			numbers.Emit(context.Background(), b, 1)
		}()
		for v, err := range numbers.Events(t.Context(), b) {
			if v != 1 || err != nil {
				t.Errorf("read %v, %v", v, err)
			}
			break
		}
		if n := b.Stats().Subscriptions; n != 0 {
			t.Errorf("%d subscriptions after break", n)
		}
	})
}

// TestReaderEnds checks that what was buffered is read before a closed bus is noticed,
// and that a closed reader wakes who waits.
func TestReaderEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, Config{})
		r, err := numbers.Reader(b)
		if err != nil {
			t.Fatal(err)
		}
		own, err := numbers.Reader(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := numbers.Emit(t.Context(), b, 1); err != nil {
			t.Fatal(err)
		}
		ended := make(chan int)
		go func() {
			n := 0
			for range own.All(context.Background()) {
				n++
			}
			ended <- n
		}()
		synctest.Wait()
		own.Close()
		own.Close()
		if n := <-ended; n != 1 {
			t.Errorf("a sequence had %d elements before its reader was closed, want 1", n)
		}
		if _, err := own.Next(t.Context()); codeOf(err) != code.Canceled {
			t.Errorf("Next of a closed reader = %v", err)
		}
		if err := b.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, last := readNow(r); !slices.Equal(got, []string{"1"}) || !sameError(last, ErrClosed) {
			t.Errorf("read %q, %v after the bus was closed", got, last)
		}
	})
}

func TestUndecodableIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, Config{})
		r, err := numbers.Reader(b)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		for _, v := range []any{1, "two", 3} {
			if _, err := b.EmitParallel(t.Context(), "number", v); (codeOf(err) == code.InvalidArgument) != (v == "two") {
				t.Errorf("EmitParallel(%v) = %v", v, err)
			}
		}
		if got, _ := readNow(r); !slices.Equal(got, []string{"1", "lost 1", "3"}) || b.Stats().Undecodable != 1 {
			t.Errorf("read %q, %+v", got, b.Stats())
		}
	})
}

// TestNothingIsUnaccounted has many emitters and a reader under each policy that drops,
// and checks that what was read and what was lost make up what was emitted, in order.
func TestNothingIsUnaccounted(t *testing.T) {
	for _, opts := range [][]ReaderOption{{Buffer(4)}, {Buffer(4), WhenFull(DropNewest)}, {Buffer(4), BlockFor(time.Microsecond)}} {
		b := newBus(t, Config{})
		r, err := numbers.Reader(b, opts...)
		if err != nil {
			t.Fatal(err)
		}
		const emitters, each = 4, 2000
		var wg sync.WaitGroup
		for e := range emitters {
			wg.Go(func() {
				for i := range each {
					numbers.EmitSerial(context.Background(), b, e*each+i)
				}
			})
		}
		var read, lost uint64
		latest := slices.Repeat([]int{-1}, emitters)
		for read+lost < emitters*each {
			v, err := r.Next(t.Context())
			if missing, ok := errors.AsType[*LostError](err); ok {
				lost += missing.Count
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			read++
			if e := v / each; v%each <= latest[e] {
				t.Fatalf("%d came after %d", v%each, latest[e])
			} else {
				latest[e] = v % each
			}
			if read%16 == 0 {
				runtime.Gosched()
			}
		}
		wg.Wait()
		if read+lost != emitters*each || r.Lost() != lost {
			t.Errorf("read %d, lost %d, Lost() = %d", read, lost, r.Lost())
		}
		r.Close()
	}
}
