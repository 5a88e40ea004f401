package redisbus

import "sync"

// queue is a bounded queue from many goroutines to one. When it is full it refuses what
// is put.
type queue[T interface{ size() int }] struct {
	maxItems, maxBytes int
	wake               chan struct{} // gets a token when something was put; one place

	mu    sync.Mutex
	items []T // from head on; guarded by mu
	head  int // guarded by mu
	bytes int // guarded by mu
}

func newQueue[T interface{ size() int }](maxItems, maxBytes int) *queue[T] {
	return &queue[T]{maxItems: maxItems, maxBytes: maxBytes, wake: make(chan struct{}, 1)}
}

// put appends v if there is room. One item has room in an empty queue whatever its size.
func (q *queue[T]) put(v T) bool {
	q.mu.Lock()
	n := len(q.items) - q.head
	if n >= q.maxItems || n > 0 && v.size() > q.maxBytes-q.bytes {
		q.mu.Unlock()
		return false
	}
	q.items = append(q.items, v)
	q.bytes += v.size()
	q.mu.Unlock()
	if n == 0 {
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return true
}

// take moves up to n items to the end of dst. If it moves none, the next put leaves a
// token in wake.
func (q *queue[T]) take(dst []T, n int) []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	n = min(n, len(q.items)-q.head)
	taken := q.items[q.head : q.head+n]
	dst = append(dst, taken...)
	for _, v := range taken {
		q.bytes -= v.size()
	}
	clear(taken)
	q.head += n
	switch {
	case q.head == len(q.items):
		q.items, q.head = q.items[:0], 0
	case q.head > len(q.items)/2: // so that each item moves once, on the average
		rest := copy(q.items, q.items[q.head:])
		clear(q.items[rest:])
		q.items, q.head = q.items[:rest], 0
	}
	return dst
}

func (q *queue[T]) len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.items) - q.head
}
