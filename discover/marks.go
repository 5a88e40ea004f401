package discover

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
)

// marks are what has changed in the store, as far as anybody has said, and is not yet in
// the view. Whoever makes a mark never waits; there are at most as many as nodes.
type marks struct {
	made atomic.Uint64 // how many there were
	seen atomic.Uint64 // up to which the view has them
	wake chan struct{} // has one element while there are marks, or somebody hurries

	mu   sync.Mutex
	todo round  // guarded by mu
	most int    // ids in todo
	turn *turn  // of the next round to end; guarded by mu
	rush uint64 // somebody waits for what was marked up to here; guarded by mu
}

// round is what to read at a time.
type round struct {
	ids  map[string]bool // and whether the node was said to have left
	list bool            // who there is
	all  bool            // everything
	upTo uint64          // the last mark that is in it
}

// turn is the end of a round.
type turn struct {
	done chan struct{} // closed at the end
	err  error         // set before that
}

func newMarks(most int) *marks {
	return &marks{
		wake: make(chan struct{}, 1),
		todo: round{ids: make(map[string]bool)},
		most: most,
		turn: &turn{done: make(chan struct{})},
	}
}

// node marks one node, of which somebody may have said that it has left.
func (m *marks) node(id string, left bool) {
	m.mu.Lock()
	if _, ok := m.todo.ids[id]; ok || len(m.todo.ids) < m.most {
		m.todo.ids[id] = m.todo.ids[id] || left
	} else {
		m.todo.all = true
	}
	m.mark()
}

// index marks the list of nodes.
func (m *marks) index() {
	m.mu.Lock()
	m.todo.list = true
	m.mark()
}

// everything marks all there is.
func (m *marks) everything() {
	m.mu.Lock()
	m.todo.all = true
	m.mark()
}

// mark is called with the lock held, and gives it back.
func (m *marks) mark() {
	m.made.Add(1)
	m.mu.Unlock()
	m.poke()
}

func (m *marks) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// take returns what to read.
func (m *marks) take() round {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.todo
	r.upTo = m.made.Load()
	m.todo = round{ids: make(map[string]bool)}
	return r
}

// finish says that a round is in the view, or why it is not: then it is still to be done.
func (m *marks) finish(r round, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err == nil {
		m.seen.Store(r.upTo)
	} else {
		maps.Copy(r.ids, m.todo.ids)
		m.todo.ids = r.ids
		m.todo.list = m.todo.list || r.list
		m.todo.all = m.todo.all || r.all
	}
	m.turn.err = err
	close(m.turn.done)
	m.turn = &turn{done: make(chan struct{})}
}

// pending reports whether there are marks that are not in the view.
func (m *marks) pending() bool { return m.seen.Load() < m.made.Load() }

// hurries reports whether somebody waits for the next round.
func (m *marks) hurries() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rush > m.seen.Load()
}

// settle waits until the view has all marks that there are now.
func (m *marks) settle(ctx context.Context) error {
	want := m.made.Load()
	for m.seen.Load() < want {
		m.mu.Lock()
		if m.seen.Load() >= want {
			m.mu.Unlock()
			return nil
		}
		t := m.turn
		m.rush = max(m.rush, want)
		m.mu.Unlock()
		m.poke()
		select {
		case <-t.done:
			if t.err != nil && m.seen.Load() < want {
				return t.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
