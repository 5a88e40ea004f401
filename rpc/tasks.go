package rpc

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/d-e-v-grid/netron/codec"
)

// The core tasks (protocol section 7).
const (
	taskAbilities       = "abilities"
	taskQueryInterface  = "query_interface"
	taskExposeService   = "expose_service"
	taskUnexposeService = "unexpose_service"
	taskUnrefService    = "unref_service"
)

// taskTable holds the tasks that peers may run, by name. Lookups read an
// immutable map; changes replace it.
type taskTable struct {
	mu   sync.Mutex // serialises changes
	core map[string]*method
	view atomic.Pointer[map[string]*method]
}

func newTaskTable(e *Endpoint) *taskTable {
	t := &taskTable{core: make(map[string]*method)}
	for name, fn := range map[string]any{
		taskAbilities:       e.runAbilities,
		taskQueryInterface:  e.runQueryInterface,
		taskExposeService:   e.runExposeService,
		taskUnexposeService: e.runUnexposeService,
		taskUnrefService:    e.runUnrefService,
	} {
		m, err := newReflectMethod(name, reflect.ValueOf(fn), 0)
		if err != nil {
			panic("BUG: core task " + name + ": " + err.Error())
		}
		m.op = OpTask
		t.core[name] = m
	}
	t.view.Store(&t.core)
	return t
}

// AddTask offers a function to all peers under a name. Its first parameter is a
// [context.Context]; the others are the arguments, and it returns nothing, a
// result, an error, or both. A task of the same name is replaced; the core tasks
// of the protocol cannot be.
func (e *Endpoint) AddTask(name string, fn any) error {
	if name == "" || len(name) > maxNameBytes {
		return fmt.Errorf("rpc: add task: name of %d bytes, want 1 to %d", len(name), maxNameBytes)
	}
	rv := reflect.ValueOf(fn)
	if rv.Kind() != reflect.Func || rv.IsNil() || rv.Type().NumIn() == 0 || rv.Type().In(0) != contextType {
		return fmt.Errorf("rpc: add task %s: %T is no function whose first parameter is a context.Context", name, fn)
	}
	m, err := newReflectMethod(name, rv, 0)
	if err != nil {
		return fmt.Errorf("rpc: add task %s: %w", name, err)
	}
	m.op = OpTask
	t := e.tasks
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.core[name] != nil {
		return Errorf(AlreadyExists, "rpc: add task %s: the name is taken by the protocol", name)
	}
	next := maps.Clone(*t.view.Load())
	next[name] = m
	t.view.Store(&next)
	return nil
}

// handleTask serves TASK: an array of task name and arguments (protocol section
// 6.4), or the map that the oldest browser clients send.
func (c *conn) handleTask(ctx context.Context, d *codec.Decoder, dst []byte) ([]byte, error) {
	if d.PeekKind() == codec.KindMap {
		return c.handleTaskMap(ctx, d, dst)
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
	return c.runLocalTask(ctx, name, d, n-1, dst)
}

// taskMap is a task request of the oldest browser clients. At most one of the
// arguments is there.
type taskMap struct {
	Task        string    `msgpack:"task"`
	EventName   codec.Raw `msgpack:"eventName"`
	ServiceName codec.Raw `msgpack:"serviceName"`
	Pattern     codec.Raw `msgpack:"pattern"`
}

func (c *conn) handleTaskMap(ctx context.Context, d *codec.Decoder, dst []byte) ([]byte, error) {
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
	return c.runLocalTask(ctx, []byte(m.Task), &args, n, dst)
}

func (c *conn) runLocalTask(ctx context.Context, name []byte, d *codec.Decoder, n int, dst []byte) ([]byte, error) {
	m := (*c.endpoint.tasks.view.Load())[string(name)]
	if m == nil {
		return dst, &Error{Code: NotFound, Message: fmt.Sprintf("Task with id %s not found", shown(name))}
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
	return map[string]any{"services": services, "allowServiceEvents": false}
}

// runQueryInterface tells a peer the definition of a service (protocol section 7.2).
func (e *Endpoint) runQueryInterface(ctx context.Context, qualified string) (codec.Raw, error) {
	entry := e.services.resolve(qualified)
	if c := connFrom(ctx); c != nil {
		entry = lookUp(c.visible(), qualified)
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
