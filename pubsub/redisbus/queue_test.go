package redisbus

import (
	"slices"
	"sync"
	"testing"
)

// thing has the size that it says.
type thing int

func (t thing) size() int { return int(t) }

func TestQueue(t *testing.T) {
	t.Parallel()
	q := newQueue[thing](3, 10)
	for i, tc := range []struct {
		put  thing
		want bool
	}{{4, true}, {6, true}, {1, false}, {0, true}, {0, false}} {
		if got := q.put(tc.put); got != tc.want {
			t.Errorf("%d: put(%d) = %t, want %t", i, tc.put, got, tc.want)
		}
	}
	if got := q.take(nil, 2); !slices.Equal(got, []thing{4, 6}) || q.len() != 1 {
		t.Errorf("take(2) = %v, and %d left", got, q.len())
	}
	if !q.put(10) || q.put(1) {
		t.Error("what was taken still counts, or what was put does not")
	}
	if got := q.take(nil, 9); !slices.Equal(got, []thing{0, 10}) || q.bytes != 0 {
		t.Errorf("take(9) = %v, and %d bytes are left", got, q.bytes)
	}
	if !q.put(11) {
		t.Error("an empty queue refuses one item that is larger than its bound")
	}
}

// TestQueueWakes has many put and one take.
func TestQueueWakes(t *testing.T) {
	t.Parallel()
	const goroutines, each = 8, 2000
	q := newQueue[thing](goroutines*each, 1<<30)
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range each {
				q.put(thing(i))
			}
		})
	}
	sum, n := 0, 0
	for n < goroutines*each {
		got := q.take(nil, 7)
		for _, v := range got {
			sum += int(v)
		}
		if n += len(got); len(got) == 0 {
			<-q.wake
		}
	}
	wg.Wait()
	if want := goroutines * each * (each - 1) / 2; sum != want {
		t.Errorf("the sum of what was taken = %d, want %d", sum, want)
	}
}

// TestOutbox shows that a session that has ended cannot open.
func TestOutbox(t *testing.T) {
	t.Parallel()
	var stats counters
	o := newOutbox(&Config{}, &stats)
	first := o.begin()
	if !o.opened(first) || o.opened(first) {
		t.Error("a session opens once")
	}
	o.add(message("a"))
	o.add(nil)
	if wasOpen := o.ended(errNotYet); !wasOpen || stats.lost.Load() != 1 || o.unsettled() != 0 {
		t.Errorf("ended() = %t, %d lost, %d unsettled", wasOpen, stats.lost.Load(), o.unsettled())
	}
	if o.opened(first) {
		t.Error("a session opens that has ended")
	}
	if o.passes() || stats.lost.Load() != 2 || o.seq != 3 {
		t.Errorf("without a session %d are lost of %d", stats.lost.Load(), o.seq)
	}
	if !o.opened(o.begin()) {
		t.Error("the next session does not open")
	}
	o.add(message("b"))
	o.drain()
	o.drain()
	o.add(message("c"))
	if o.passes() || o.unsettled() != 1 {
		t.Error("events leave after drain")
	}
	o.settle(1, 0)
	<-o.drained
}
