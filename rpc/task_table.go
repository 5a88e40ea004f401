package rpc

import (
	"context"
	"maps"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron/codec"
)

// TaskOverwrite says what [Endpoint.AddTask] does when the name is taken by another
// task.
type TaskOverwrite uint8

const (
	// TaskReplace puts the new task in the place of the old one. It is the default.
	TaskReplace TaskOverwrite = iota

	// TaskSkip keeps the old task, and is no error.
	TaskSkip

	// TaskThrow keeps the old task and reports an error of code [AlreadyExists].
	TaskThrow
)

// String returns the name of the strategy as TypeScript peers configure it.
func (o TaskOverwrite) String() string {
	switch o {
	case TaskReplace:
		return "replace"
	case TaskSkip:
		return "skip"
	case TaskThrow:
		return "throw"
	}
	return "unknown"
}

func (o TaskOverwrite) check() error {
	if o > TaskThrow {
		return Errorf(InvalidArgument, "rpc: there is no TaskOverwrite %d", o)
	}
	return nil
}

// TaskOption changes how [Endpoint.AddTask] adds a task.
type TaskOption func(*taskOptions)

type taskOptions struct {
	overwrite TaskOverwrite
	limit     time.Duration
}

// Overwrite says what happens when the name is taken, instead of
// Config.TaskOverwrite.
func Overwrite(strategy TaskOverwrite) TaskOption {
	return func(o *taskOptions) { o.overwrite = strategy }
}

// TaskLimit is the time limit of the task, instead of Config.TaskTimeout. Zero means
// that default, a negative time none.
func TaskLimit(d time.Duration) TaskOption { return func(o *taskOptions) { o.limit = d } }

// taskTable holds the tasks that peers may run, by name. Lookups read an
// immutable map; changes replace it.
type taskTable struct {
	mu   sync.Mutex // serialises changes
	core map[string]*method
	emit *method // of core
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
		taskInvalidateCache: e.runInvalidateCache,
		taskAuthenticate:    e.runAuthenticate,
		taskSubscribe:       e.runSubscribe,
		taskUnsubscribe:     e.runUnsubscribe,
	} {
		m, err := newReflectMethod(name, reflect.ValueOf(fn), 0)
		if err != nil {
			panic("BUG: core task " + name + ": " + err.Error())
		}
		m.op = OpTask
		t.core[name] = m
	}
	t.emit = &method{name: taskEmit, op: OpTask, invoke: e.invokeEmit, inline: true}
	t.core[taskEmit] = t.emit
	t.view.Store(&t.core)
	return t
}

// AddTask offers a function to all peers under a name. Its first parameter is a
// [context.Context], from which [PeerFrom] gets the calling peer; the others are the
// arguments, and it returns nothing, a result, an error, or both.
//
// If the name is taken by another task, Config.TaskOverwrite or the option
// [Overwrite] decides; the names of the protocol's own tasks cannot be taken, which
// is an error of code [AlreadyExists]. What makes no sense is an error of code
// [InvalidArgument].
//
// The task has the time limit of Config.TaskTimeout or of the option [TaskLimit]: at
// it the ctx of the function ends, and the caller gets an error of code
// [DeadlineExceeded] whatever the function does. A function that goes on keeps its
// place among the requests being served until it returns; its result is dropped.
func (e *Endpoint) AddTask(name string, fn any, opts ...TaskOption) error {
	if name == "" || len(name) > maxNameBytes {
		return Errorf(InvalidArgument, "rpc: add task: name of %d bytes, want 1 to %d", len(name), maxNameBytes)
	}
	rv := reflect.ValueOf(fn)
	if rv.Kind() != reflect.Func || rv.IsNil() || rv.Type().NumIn() == 0 || rv.Type().In(0) != contextType {
		return Errorf(InvalidArgument, "rpc: add task %s: %T is no function whose first parameter is a context.Context", name, fn)
	}
	m, err := newReflectMethod(name, rv, 0)
	if err != nil {
		return Errorf(InvalidArgument, "rpc: add task %s: %w", name, err)
	}
	if m.streaming {
		return Errorf(InvalidArgument, "rpc: add task %s: tasks have no streams, methods of services do", name)
	}
	o := taskOptions{overwrite: e.cfg.TaskOverwrite}
	for _, opt := range opts {
		opt(&o)
	}
	if err := o.overwrite.check(); err != nil {
		return err
	}
	m.op = OpTask
	m.limit = max(o.limit, 0)
	if o.limit == 0 {
		m.limit = e.cfg.taskTimeout()
	}
	return e.tasks.add(m, o.overwrite)
}

func (t *taskTable) add(m *method, overwrite TaskOverwrite) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.core[m.name] != nil {
		return Errorf(AlreadyExists, "rpc: add task %s: the name is taken by the protocol", m.name)
	}
	view := *t.view.Load()
	if view[m.name] != nil {
		switch overwrite {
		case TaskSkip:
			return nil
		case TaskThrow:
			return Errorf(AlreadyExists, "rpc: add task %s: there is a task of that name", m.name)
		}
	}
	next := maps.Clone(view)
	next[m.name] = m
	t.view.Store(&next)
	return nil
}

// RemoveTask takes a task back; where it runs it goes on. It returns an error of
// code [NotFound] if there is none of that name, and of code [FailedPrecondition] for
// the tasks of the protocol.
func (e *Endpoint) RemoveTask(name string) error {
	t := e.tasks
	t.mu.Lock()
	defer t.mu.Unlock()
	view := *t.view.Load()
	switch {
	case t.core[name] != nil:
		return Errorf(FailedPrecondition, "rpc: remove task %s: it belongs to the protocol", name)
	case view[name] == nil:
		return Errorf(NotFound, "rpc: remove task %s: there is no task of that name", shown(name))
	}
	next := maps.Clone(view)
	delete(next, name)
	t.view.Store(&next)
	return nil
}

// runInvalidateCache drops what is cached about services, which is nothing (protocol
// section 7.7).
func (e *Endpoint) runInvalidateCache(context.Context, *codec.Raw) int { return 0 }
