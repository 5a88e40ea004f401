package mux

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/d-e-v-grid/netron/internal/buf"
)

// message returns a link that holds the text.
func newTestMessage(text string) *outgoing { return newOutgoing(buf.Copy([]byte(text)), 1) }

// TestLaneOrder checks that what one goroutine pushes is taken in its order,
// whatever the others do and however often the consumer looks.
func TestLaneOrder(t *testing.T) {
	const producers, each = 8, 5000
	var l lane
	wakes := make(chan struct{}, producers*each)
	var wg sync.WaitGroup
	for p := range producers {
		wg.Go(func() {
			for i := range each {
				first, ok := l.push(newTestMessage(fmt.Sprintf("%d %d", p, i)))
				if !ok {
					t.Error("push was refused")
				}
				if first {
					wakes <- struct{}{}
				}
			}
		})
	}
	next := [producers]int{}
	for taken := 0; taken < producers*each; {
		<-wakes // nobody else will wake us for what is there now
		for p := l.pop(); p != nil; p = l.pop() {
			var from, i int
			if _, err := fmt.Sscanf(string(p.b), "%d %d", &from, &i); err != nil {
				t.Fatal(err)
			}
			if i != next[from] {
				t.Fatalf("message %d of producer %d came when %d was due", i, from, next[from])
			}
			next[from]++
			p.sent()
			taken++
		}
	}
	wg.Wait()
	if p := l.pop(); p != nil {
		t.Errorf("pop of an empty lane = %q, want nil", p.b)
	}
}

func TestLaneEnd(t *testing.T) {
	var l lane
	for _, text := range []string{"a", "b", "c"} {
		l.push(newTestMessage(text))
	}
	if p := l.pop(); string(p.b) != "a" {
		t.Errorf("pop = %q, want the oldest", p.b)
	}
	l.push(newTestMessage("d"))
	if p := l.end(); p == nil || string(p.b) != "d" {
		t.Error("end did not return what was pushed last")
	}
	if _, ok := l.push(newTestMessage("e")); ok {
		t.Error("push after the end was taken")
	}
	if p := l.pop(); string(p.b) != "b" {
		t.Errorf("pop = %q, want what was made ready", p.b)
	}
	if l.end() != nil {
		t.Error("second end returned something")
	}
}

// mutexLane is the twin of lane with a mutex, for the benchmark.
type mutexLane struct {
	mu     sync.Mutex
	queued []*outgoing
	ready  []*outgoing
}

func (l *mutexLane) push(p *outgoing) (first, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.queued = append(l.queued, p)
	return len(l.queued) == 1, true
}

func (l *mutexLane) pop() *outgoing {
	if len(l.ready) == 0 {
		l.mu.Lock()
		l.ready, l.queued = l.queued, l.ready[:0]
		l.mu.Unlock()
		if len(l.ready) == 0 {
			return nil
		}
	}
	p := l.ready[0]
	l.ready = l.ready[1:]
	return p
}

// BenchmarkLane compares the lock-free lane with its twin: each goroutine pushes,
// and takes everything when it found the lane empty, as callers do.
func BenchmarkLane(b *testing.B) {
	type queue interface {
		push(*outgoing) (first, ok bool)
		pop() *outgoing
	}
	for name, q := range map[string]queue{"lockfree": &lane{}, "mutex": &mutexLane{}} {
		for _, goroutines := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/goroutines=%d", name, goroutines), func(b *testing.B) {
				var consumer sync.Mutex // the write role
				b.ReportAllocs()
				b.SetParallelism(goroutines)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if first, _ := q.push(new(outgoing)); first {
							consumer.Lock()
							for q.pop() != nil {
							}
							consumer.Unlock()
						}
					}
				})
			})
		}
	}
}

// TestReserveIsForAnswers checks that producers which find the queue full take
// nothing of its reserve, not for a moment: who finds no reserve is cut off.
func TestReserveIsForAnswers(t *testing.T) {
	q := &outQueue{maxBytes: 1 << 20, maxMessages: 1 << 16}
	large := func() *outgoing { return &outgoing{b: make([]byte, 4<<20), count: 1} }
	if _, ok, _ := q.push(&outgoing{b: make([]byte, 1<<20), count: 1}, false); !ok {
		t.Fatal("no room in an empty queue")
	}
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for p := large(); !done.Load(); {
				if _, ok, _ := q.push(p, false); ok {
					t.Error("a full queue took a message")
					return
				}
			}
		})
	}
	for i := range 20_000 {
		if _, ok, _ := q.push(&outgoing{b: make([]byte, 1), count: 1}, true); !ok {
			t.Errorf("answer %d found no reserve", i)
			break
		}
	}
	done.Store(true)
	wg.Wait()
}

// TestSmallMessagesPassNotForever checks that a large message leaves while there are
// always small ones to send.
func TestSmallMessagesPassNotForever(t *testing.T) {
	q := &outQueue{maxBytes: 1 << 20, maxMessages: 1 << 16}
	push := func(n int) {
		if _, ok, err := q.push(&outgoing{b: make([]byte, n), count: 1, buf: buf.Get(0)}, false); !ok || err != nil {
			t.Fatalf("push: %v, %v", ok, err)
		}
	}
	push(bulkBytes)
	for passed := 0; ; passed++ {
		push(1 << 10)
		p := q.pop()
		if len(p.b) == bulkBytes {
			if passed < passBytes>>11 {
				t.Errorf("only %d small messages passed", passed)
			}
			return
		}
		if passed > 2*passBytes>>10 {
			t.Fatal("the large message never left")
		}
		q.sent(p.load())
	}
}

func TestEndOfAFullQueue(t *testing.T) {
	q := &outQueue{maxBytes: 1, maxMessages: 1}
	if _, ok, err := q.push(newTestMessage("a"), false); !ok || err != nil {
		t.Fatalf("push: %v, %v", ok, err)
	}
	q.close(ErrClosed)
	if _, ok, err := q.push(newTestMessage("b"), false); ok || !errors.Is(err, ErrClosed) {
		t.Errorf("push after the end = %v, %v, want ErrClosed", ok, err)
	}
}
