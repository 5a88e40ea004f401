package rpc

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/pubsub"
)

// Events that an endpoint emits about itself (protocol section 9.3). Only it can emit
// them.
const (
	eventExpose     = "service:expose"
	eventUnexpose   = "service:unexpose"
	eventConnect    = "peer:connect"
	eventDisconnect = "peer:disconnect"

	// ownEventTime is how long handlers of these events may take. Those that take longer
	// are left behind.
	ownEventTime = 5 * time.Second

	// maxOwnEvents bounds the events about itself of one kind that an endpoint has not emitted
	// yet. Of more the oldest are dropped.
	maxOwnEvents = 1024
)

// ownEvents emits the events of an endpoint about itself: those of services and those of
// peers apart, each in their order, on goroutines that last as long as there are some. So
// nobody waits for the handlers, and those of one kind not for those of the other.
type ownEvents struct {
	mu    sync.Mutex
	kinds map[string]*ownQueue // by what is before the colon; guarded by mu
}

// ownQueue is the events of a kind that wait. It is guarded by the mu of [ownEvents].
type ownQueue struct {
	events  []ownEvent
	running bool
	dropped int // since it was empty
}

type ownEvent struct {
	name string
	arg  any
}

// ServiceEvent is the argument of the events service:expose and service:unexpose.
type ServiceEvent struct {
	Name          string `msgpack:"name"`
	Version       string `msgpack:"version"`
	QualifiedName string `msgpack:"qualifiedName"`
	PeerID        string `msgpack:"peerId"` // of the node where it can be called

	// RemotePeerID is the id of the peer that published the service there, empty if it is
	// the node's own.
	RemotePeerID string `msgpack:"remotePeerId,omitempty"`

	Definition *codec.Definition `msgpack:"definition,omitempty"` // nil when it is concealed
	DefID      string            `msgpack:"defId,omitempty"`      // empty when it is exposed
}

// PeerEvent is the argument of the events peer:connect and peer:disconnect.
type PeerEvent struct {
	PeerID string `msgpack:"peerId"`
}

// tell emits an event of the endpoint about itself. It does not block.
func (e *Endpoint) tell(name string, arg any) {
	if !e.bus.HasHandlers(name) {
		return
	}
	kind, _, _ := strings.Cut(name, ":")
	o := &e.own
	o.mu.Lock()
	defer o.mu.Unlock()
	q := o.kinds[kind]
	if q == nil {
		q = &ownQueue{}
		if o.kinds == nil {
			o.kinds = make(map[string]*ownQueue)
		}
		o.kinds[kind] = q
	}
	if len(q.events) >= maxOwnEvents {
		q.events = slices.Delete(q.events, 0, 1)
		if q.dropped++; q.dropped == 1 {
			e.cfg.logger().Warn("netron: handlers are too slow for the node's own events, the oldest are dropped", "event", name)
		}
	}
	q.events = append(q.events, ownEvent{name, arg})
	if !q.running {
		q.running = e.begin(func() { e.emitOwn(q) })
	}
}

func (e *Endpoint) emitOwn(q *ownQueue) {
	o := &e.own
	for {
		o.mu.Lock()
		if len(q.events) == 0 {
			q.running, q.dropped = false, 0
			o.mu.Unlock()
			return
		}
		next := q.events[0]
		q.events = slices.Delete(q.events, 0, 1)
		o.mu.Unlock()
		ctx, cancel := context.WithTimeout(e.ctx, ownEventTime)
		if _, err := e.emitter.EmitParallel(ctx, next.name, next.arg); err != nil && !errors.Is(err, pubsub.ErrClosed) {
			e.cfg.logger().Warn("netron: handlers of an event failed", "event", next.name, "err", err)
		}
		cancel()
	}
}

// tellService tells that a service can be called now, or cannot any more.
func (e *Endpoint) tellService(entry *entry, exposed bool) {
	if e.cfg.ServicesChanged != nil {
		e.cfg.ServicesChanged()
	}
	name := eventUnexpose
	if exposed {
		name = eventExpose
	}
	if !e.bus.HasHandlers(name) {
		return
	}
	s := entry.service
	arg := ServiceEvent{Name: s.name, Version: s.version, QualifiedName: s.QualifiedName(), PeerID: e.cfg.ID}
	if entry.publisher != nil {
		arg.RemotePeerID = entry.publisher.peer.ID()
	}
	if exposed {
		arg.Definition = &entry.definition
	} else {
		arg.DefID = entry.definition.ID
	}
	e.tell(name, arg)
}

// tellPeer emits that a peer has connected, or has gone.
func (e *Endpoint) tellPeer(name, id string) {
	if id != "" {
		e.tell(name, PeerEvent{PeerID: id})
	}
}
