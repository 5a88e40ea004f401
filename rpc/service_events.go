package rpc

import (
	"context"
	"errors"
	"slices"
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

	// maxOwnEvents bounds the events about itself that an endpoint has not emitted yet. Of
	// more the oldest are dropped.
	maxOwnEvents = 1024
)

// ownEvents emits the events of an endpoint about itself in their order, on a goroutine
// that lasts as long as there are some, so that nobody waits for the handlers.
type ownEvents struct {
	mu      sync.Mutex
	queue   []ownEvent // guarded by mu
	running bool       // guarded by mu
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
	o := &e.own
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) >= maxOwnEvents {
		o.queue = slices.Delete(o.queue, 0, 1)
	}
	o.queue = append(o.queue, ownEvent{name, arg})
	if !o.running {
		o.running = e.begin(e.emitOwn)
	}
}

func (e *Endpoint) emitOwn() {
	o := &e.own
	for {
		o.mu.Lock()
		if len(o.queue) == 0 {
			o.running = false
			o.mu.Unlock()
			return
		}
		next := o.queue[0]
		o.queue = slices.Delete(o.queue, 0, 1)
		o.mu.Unlock()
		ctx, cancel := context.WithTimeout(e.ctx, ownEventTime)
		if _, err := e.emitter.EmitParallel(ctx, next.name, next.arg); err != nil && !errors.Is(err, pubsub.ErrClosed) {
			e.cfg.logger().Warn("netron: handlers of an event failed", "event", next.name, "err", err)
		}
		cancel()
	}
}

// tellService emits that a service can be called now, or cannot any more.
func (e *Endpoint) tellService(entry *entry, exposed bool) {
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
