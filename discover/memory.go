package discover

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"
)

// Hub has the records of registries of one process, which see each other: see [NewMemory].
type Hub struct {
	mu      sync.Mutex
	records map[string]*kept         // guarded by mu
	members map[*marks]func(message) // what each is to hear; guarded by mu
}

// message is an announcement as it is on the channel.
type message = string

// kept is a record in memory.
type kept struct {
	fields  fields
	expires time.Time // zero for never
}

// forever is the life of what does not expire.
const forever = 100 * 365 * 24 * time.Hour

// NewHub returns an empty hub.
func NewHub() *Hub {
	return &Hub{records: make(map[string]*kept), members: make(map[*marks]func(message))}
}

// pin puts a node into the hub that is always there.
func (h *Hub) pin(n *Node, cfg *Config) error {
	f, err := encode(n, cfg)
	if err != nil {
		return err
	}
	f[fieldTimestamp] = milliseconds(time.Now())
	h.records[n.ID] = &kept{fields: f}
	return nil
}

// live returns the record of a node that has a heartbeat. It is called with the lock held.
func (h *Hub) live(id string) *kept {
	k := h.records[id]
	if k != nil && !k.expires.IsZero() && !time.Now().Before(k.expires) {
		delete(h.records, id)
		return nil
	}
	return k
}

// mark marks a node that has changed, everywhere. It is called with the lock held.
func (h *Hub) mark(id string) {
	for m := range h.members {
		m.node(id, false)
	}
}

// memoryStore is the store of one of the registries of a hub.
type memoryStore struct {
	hub *Hub
	cfg *Config
}

func (s *memoryStore) run(ctx context.Context, m *marks, hear func(string), _ func(error)) {
	if s.cfg.NoEvents {
		hear = func(string) {}
	}
	s.hub.mu.Lock()
	s.hub.members[m] = hear
	s.hub.mu.Unlock()
	m.everything()
	<-ctx.Done()
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	delete(s.hub.members, m)
}

func (s *memoryStore) beat(_ context.Context, b *beat) (beaten, error) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.live(b.id)
	if k == nil {
		h.records[b.id] = &kept{fields: b.fields, expires: time.Now().Add(b.ttl)}
		h.mark(b.id)
		return beaten{isNew: true}, nil
	}
	var holder string
	if k.fields[fieldInstance] != b.fields[fieldInstance] {
		holder = k.fields[fieldInstance]
	}
	if holder != "" && !b.claim {
		return beaten{isHeld: true, holder: holder}, nil
	}
	h.records[b.id] = &kept{fields: b.fields, expires: time.Now().Add(b.ttl)}
	h.mark(b.id)
	return beaten{holder: holder}, nil
}

func (s *memoryStore) leave(_ context.Context, id, instance string) (left bool, err error) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	k := h.live(id)
	if k != nil && k.fields[fieldInstance] != instance {
		return false, nil
	}
	delete(h.records, id)
	h.mark(id)
	return true, nil
}

func (s *memoryStore) list(context.Context, int) ([]string, bool, error) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return slices.Collect(maps.Keys(s.hub.records)), true, nil
}

func (s *memoryStore) read(_ context.Context, ids []string) ([]reading, error) {
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	readings := make([]reading, len(ids))
	for i, id := range ids {
		switch k := h.live(id); {
		case k == nil:
		case k.expires.IsZero():
			readings[i] = reading{fields: k.fields, ttl: forever}
		default:
			readings[i] = reading{fields: k.fields, ttl: time.Until(k.expires)}
		}
	}
	return readings, nil
}

// tidy has nothing to do: what expires leaves nothing behind.
func (s *memoryStore) tidy(context.Context, []string) (int, error) { return 0, nil }

func (s *memoryStore) announce(_ context.Context, a announcement) error {
	m, err := json.Marshal(a)
	if err != nil {
		return err
	}
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, hear := range h.members {
		hear(string(m))
	}
	return nil
}

func (s *memoryStore) takes(context.Context) (refusal, err error) { return nil, nil }

// fence returns at once: a change is marked before whoever makes it goes on.
func (s *memoryStore) fence(context.Context) error { return nil }

func (s *memoryStore) tells() bool { return true }

func (s *memoryStore) close() {}
