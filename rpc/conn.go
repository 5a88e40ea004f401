package rpc

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
	"github.com/d-e-v-grid/netron/pubsub"
)

// features are the extensions that this package offers to peers.
var features = []string{
	mux.FeatureCancel, mux.FeatureCredit, mux.FeatureMeta, mux.FeatureEvent, mux.FeatureGoAway, mux.FeatureResume,
}

// conn is one connection of a peer: its session, and what runs under it. A peer that
// reconnects has several, one after the other.
type conn struct {
	endpoint *Endpoint
	peer     *Peer
	session  *mux.Session
	link     mux.Link // nil for the ends of a pipe
	token    string   // by which the peer can end this connection on its next one; of accepted ones
	router   router
	dead     bool // the session has ended; guarded by life.mu of the peer
	leaving  bool // the other side has asked to connect anew; guarded by life.mu of the peer
	tries    int  // those of the peer at that moment; guarded by life.mu of the peer
	local    bool // one of the ends of [Endpoint.Local], which are not among the endpoint's peers

	ctx      *peerContext // the parent of what handlers run under
	ownerCtx *peerContext // of those that run on the read owner

	info atomic.Pointer[mux.Peer] // nil until the handshake is done

	held    holdings // what the peer got as results
	outlets outlets  // the events that it subscribed to

	// muted says that events are dropped which come over the connection, since they come
	// over another one as well, or will.
	muted atomic.Bool

	lastEvent string          // the name of the last event that came; owned by the read owner
	interest  pubsub.Interest // in it; owned by the read owner
	received  arrivals        // owned by the read owner

	// Requests that the peer has given up, and those that can be told. Most requests
	// are in neither table: see [requestContext].
	marks   atomic.Int32 // length of marked
	mu      sync.Mutex
	running map[uint32]*requestState // whose handlers wait for the end of their context; guarded by mu
	marked  map[uint32]struct{}      // given up, and not found in running; guarded by mu
	markAt  time.Time                // when the last of them was; guarded by mu

	legacyStubs map[string]int               // stubs to services that a 0.6 peer returned, by definition id; guarded by mu
	abilities   map[string]*codec.Definition // of a 0.6 peer, by qualified name; guarded by mu
}

const (
	// maxMarks bounds the requests given up that nobody has asked about. They are
	// forgotten together: then their handlers go on until they are done.
	maxMarks = 1024
	// markLife is how long after the last one marks are kept. Most are of requests whose
	// answers had left already.
	markLife = time.Minute
)

func newConn(e *Endpoint, p *Peer) *conn {
	c := &conn{endpoint: e, peer: p}
	c.router.endpoint = e
	return c
}

// config returns the configuration of the session that will be attached.
func (c *conn) config(hint mux.Hint) mux.Config {
	cfg := &c.endpoint.cfg
	return mux.Config{
		Connector:        c.peer.connector,
		LocalID:          c.peer.localID(),
		Hint:             hint,
		Features:         features,
		HandshakeTimeout: cfg.HandshakeTimeout,
		MaxRequests:      cfg.MaxRequests,
		MaxRequestBytes:  cfg.MaxRequestBytes,
		MaxQueueBytes:    cfg.MaxQueueBytes,
		MaxQueuePackets:  cfg.MaxQueuePackets,
		Workers:          c.endpoint.workers,
		Ready:            c.ready,
		Route:            c.router.route,
		Serve:            c.serve,
		Refused:          c.router.refuseStreams,
		Cancel:           c.cancel,
		GoAway:           c.goAway,
		Event:            c.event,
		EventLoss:        appendEventLoss,
		MaxEvents:        cfg.Events.MaxQueued,
		MaxEventBytes:    cfg.Events.MaxQueuedBytes,
		Streams:          c.streamConfig(),
		Ended:            c.ended,
		Overloaded:       c.endpoint.overloaded,
		Draining:         c.endpoint.draining,
		Failed:           c.endpoint.failed,
		ValidPing:        c.endpoint.validPing,
		Context:          cfg.Context,
	}
}

// attach gives the connection its session, and the peer the connection unless it has
// to wait for [Peer.Adopt]. The session must not have begun.
func (c *conn) attach(s *mux.Session) {
	c.session = s
	c.ctx = &peerContext{Context: s.Context(), conn: c}
	c.ownerCtx = &peerContext{Context: s.OwnerContext(s.Context()), conn: c}
	c.peer.attached(c)
}

// ready is called when the handshake is done.
func (c *conn) ready(s *mux.Session, info mux.Peer) {
	c.info.Store(&info)
	if !c.local {
		c.endpoint.add(s, c.peer, info)
	}
	c.peer.becameReady()
}

// ended is called when the session has ended.
func (c *conn) ended(_ *mux.Session, err error) {
	c.giveBack()
	c.endOutlets()
	c.mu.Lock()
	c.marked = nil
	c.mu.Unlock()
	if info := c.info.Load(); info != nil && !c.local {
		c.endpoint.remove(c.peer, info.ID)
	}
	c.peer.lost(c, err)
}

// kind says which software the peer is, zero before the handshake is done.
func (c *conn) kind() mux.Kind {
	if info := c.info.Load(); info != nil {
		return info.Kind
	}
	return 0
}

// cancel is told that the peer has given up a request. It may be any: finished,
// running, or one whose turn has not come.
//
// Protocol section 12.1.
func (c *conn) cancel(id uint32) {
	c.mu.Lock()
	r := c.running[id]
	if r == nil {
		if len(c.marked) >= maxMarks {
			clear(c.marked)
		}
		if c.marked == nil {
			c.marked = make(map[uint32]struct{})
		}
		c.marked[id] = struct{}{}
		c.markAt = time.Now()
		c.marks.Store(int32(len(c.marked)))
	}
	c.mu.Unlock()
	if r != nil {
		r.cancel(context.Canceled)
	}
}

// takeMark reports whether a request has been given up, and forgets that.
func (c *conn) takeMark(id uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.takeMarkLocked(id)
}

func (c *conn) takeMarkLocked(id uint32) bool {
	_, ok := c.marked[id]
	switch {
	case ok:
		delete(c.marked, id)
	case time.Since(c.markAt) > markLife:
		clear(c.marked)
	}
	c.marks.Store(int32(len(c.marked)))
	return ok
}

// track makes a request known whose handler waits for the end of its context.
func (c *conn) track(id uint32, s *requestState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.takeMarkLocked(id) {
		s.cancel(context.Canceled)
	}
	if c.running == nil {
		c.running = make(map[uint32]*requestState)
	}
	c.running[id] = s
}

func (c *conn) untrack(id uint32, s *requestState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running[id] == s { // a peer may use an id twice at a time
		delete(c.running, id)
	}
}
