package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/d-e-v-grid/netron/codec"
	"github.com/d-e-v-grid/netron/mux"
)

// The core tasks (protocol section 7).
const (
	taskAbilities       = "abilities"
	taskQueryInterface  = "query_interface"
	taskExposeService   = "expose_service"
	taskUnexposeService = "unexpose_service"
	taskUnrefService    = "unref_service"
	taskInvalidateCache = "invalidate_cache"
	taskAuthenticate    = "authenticate"
	taskSubscribe       = "subscribe"
	taskUnsubscribe     = "unsubscribe"
	taskEmit            = "emit"
)

// handleTask serves TASK: an array of task name and arguments (protocol section
// 6.4), or the map that the oldest browser clients send.
func (c *conn) handleTask(ctx context.Context, r *mux.Request, d *codec.Decoder, dst []byte) ([]byte, error) {
	if d.PeekKind() == codec.KindMap {
		return c.handleTaskMap(ctx, r, d, dst)
	}
	n, err := d.ArrayHeader()
	if err != nil {
		return dst, malformedRequest("the payload is no array", err)
	}
	if n < 1 {
		return dst, malformedRequest("the payload lacks the task name", nil)
	}
	name, err := d.StringBytes()
	if err != nil {
		return dst, malformedRequest("the task name", err)
	}
	return c.runLocalTask(ctx, r, name, d, n-1, dst)
}

// taskMap is a task request of the oldest browser clients. At most one of the
// arguments is there.
type taskMap struct {
	Task        string    `msgpack:"task"`
	EventName   codec.Raw `msgpack:"eventName"`
	ServiceName codec.Raw `msgpack:"serviceName"`
	Pattern     codec.Raw `msgpack:"pattern"`
}

func (c *conn) handleTaskMap(ctx context.Context, r *mux.Request, d *codec.Decoder, dst []byte) ([]byte, error) {
	var m taskMap
	if err := d.Decode(&m); err != nil {
		return dst, malformedRequest("the payload", err)
	}
	if err := d.End(); err != nil {
		return dst, malformedRequest("the payload", err)
	}
	n := 0
	var arg codec.Raw
	for _, a := range []codec.Raw{m.EventName, m.ServiceName, m.Pattern} {
		if a != nil {
			n, arg = 1, a
		}
	}
	args := codec.NewDecoder(arg, c.endpoint.cfg.Limits)
	return c.runLocalTask(ctx, r, []byte(m.Task), &args, n, dst)
}

func (c *conn) runLocalTask(ctx context.Context, r *mux.Request, name []byte, d *codec.Decoder, n int, dst []byte) ([]byte, error) {
	m := (*c.endpoint.tasks.view.Load())[string(name)]
	if m == nil {
		return dst, &Error{Code: NotFound, Message: fmt.Sprintf("Task with id %s not found", shown(name))}
	}
	if m.limit > 0 {
		return c.runLimited(ctx, r, m, d.Rest(), n, dst)
	}
	return c.run(ctx, m, d.Rest(), n, dst)
}

// runAbilities tells a 0.6 peer which services there are. The table must be a Map
// (protocol section 7.1).
func (e *Endpoint) runAbilities(ctx context.Context, _ *codec.Raw) map[string]any {
	services := codec.Map{}
	visible := e.services.all()
	if c := connFrom(ctx); c != nil {
		visible = sorted(c.visible())
	}
	for _, entry := range visible {
		services = append(services, codec.Pair{Key: entry.service.QualifiedName(), Value: codec.Raw(entry.encoded)})
	}
	return map[string]any{"services": services, "allowServiceEvents": e.cfg.Events.ServiceEvents}
}

// runQueryInterface tells a peer the definition of a service (protocol section 7.2).
func (e *Endpoint) runQueryInterface(ctx context.Context, qualified string) (codec.Raw, error) {
	q, err := parseQuery(qualified)
	if err != nil {
		return nil, err
	}
	entry := e.services.resolve(q)
	if c := connFrom(ctx); c != nil {
		entry = lookUp(c.visible(), q)
	}
	if entry == nil {
		return nil, serviceNotFound(qualified)
	}
	return entry.encoded, nil
}

// runUnrefService takes back a reference. Services with a name stay, whoever
// refers to them (protocol section 6.8).
func (e *Endpoint) runUnrefService(ctx context.Context, id *codec.Raw) {
	var text string
	if c := connFrom(ctx); c != nil && id != nil && id.Unmarshal(&text) == nil {
		c.unref(text)
	}
}

// runAuthenticate tells who the peer is (protocol section 7.6).
func (e *Endpoint) runAuthenticate(ctx context.Context, credentials *codec.Raw) (any, error) {
	if e.cfg.Authenticate == nil {
		return nil, &Error{Code: Unavailable, Message: "authentication is not configured"}
	}
	if credentials == nil {
		return e.cfg.Authenticate(ctx, nil)
	}
	return e.cfg.Authenticate(ctx, *credentials)
}

// admit returns why a request is refused before anybody looks what it is for. Only
// peers that connected to this side have to prove who they are.
func (c *conn) admit(r *mux.Request) error {
	if c.peer.connector || c.local {
		return nil
	}
	if m, ok := r.Target.(*method); ok && m == c.endpoint.tasks.core[taskAuthenticate] {
		return nil
	}
	return c.endpoint.cfg.Admit(c.peer)
}

// serviceNotFound is what a peer gets for a service that is not there.
func serviceNotFound(qualified string) *Error {
	return &Error{Code: NotFound, Message: fmt.Sprintf("Service '%s' not found", shown(qualified))}
}

// isMissingTask reports whether a peer said that it does not know a task. Peers of
// version 0.6 say it by the text alone.
func isMissingTask(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.remote && strings.HasPrefix(e.Message, "Task ") && strings.Contains(e.Message, "not found")
}
