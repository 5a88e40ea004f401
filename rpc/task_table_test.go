package rpc

import (
	"context"
	"strings"
	"testing"
	"time"
)

// returning returns a task whose result is n.
func returning(n int) func(context.Context) int { return func(context.Context) int { return n } }

func TestAddTaskOverwrite(t *testing.T) {
	tests := []struct {
		config TaskOverwrite
		opts   []TaskOption
		code   Code // of the second AddTask
		want   int  // what the task then is
	}{
		{TaskReplace, nil, 0, 2},
		{TaskSkip, nil, 0, 1},
		{TaskThrow, nil, AlreadyExists, 1},
		{TaskThrow, []TaskOption{Overwrite(TaskReplace)}, 0, 2},
		{TaskThrow, []TaskOption{Overwrite(TaskSkip)}, 0, 1},
		{TaskReplace, []TaskOption{Overwrite(TaskThrow)}, AlreadyExists, 1},
		{TaskReplace, []TaskOption{Overwrite(9)}, InvalidArgument, 1},
	}
	for _, tt := range tests {
		e := newEndpoint(t, Config{TaskOverwrite: tt.config})
		if err := e.AddTask("n", returning(1), tt.opts[:0]...); err != nil {
			t.Fatal(err)
		}
		if err := e.AddTask("n", returning(2), tt.opts...); CodeOf(err) != tt.code {
			t.Errorf("%v, %d options: AddTask of a taken name = %v, want code %v", tt.config, len(tt.opts), err, tt.code)
		}
		var got int
		if err := e.Local().RunTask(t.Context(), "n", &got); err != nil || got != tt.want {
			t.Errorf("%v, %d options: the task = %v, %v, want %d", tt.config, len(tt.opts), got, err, tt.want)
		}
		for _, strategy := range []TaskOverwrite{TaskReplace, TaskSkip, TaskThrow} {
			if err := e.AddTask("abilities", returning(2), Overwrite(strategy)); CodeOf(err) != AlreadyExists {
				t.Errorf("AddTask of a core task with %v = %v, want already_exists", strategy, err)
			}
		}
	}
	if _, err := NewEndpoint(Config{ID: "x", TaskOverwrite: 3}); CodeOf(err) != InvalidArgument {
		t.Errorf("NewEndpoint with an unknown strategy = %v, want invalid_argument", err)
	}
	for o, want := range []string{"replace", "skip", "throw", "unknown"} {
		if got := TaskOverwrite(o).String(); got != want {
			t.Errorf("TaskOverwrite(%d) = %q, want %q", o, got, want)
		}
	}
}

func TestAddTaskErrors(t *testing.T) {
	e := newEndpoint(t, Config{})
	for _, tt := range []struct {
		name string
		fn   any
		text string
	}{
		{"", returning(1), "name of 0 bytes"},
		{strings.Repeat("x", 256), returning(1), "name of 256 bytes"},
		{"x", nil, "is no function"},
		{"x", 1, "is no function"},
		{"x", (func(context.Context))(nil), "is no function"},
		{"x", func(int) {}, "is no function whose first parameter is a context"},
		{"x", func(context.Context, chan int) {}, "parameter 1: codec: unsupported type chan int"},
		{"x", func(context.Context) (int, int) { return 1, 2 }, "returns 2 results"},
	} {
		if err := e.AddTask(tt.name, tt.fn); CodeOf(err) != InvalidArgument || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("AddTask(%.10q, %T) = %v, want invalid_argument with %q", tt.name, tt.fn, err, tt.text)
		}
	}
}

func TestRemoveTask(t *testing.T) {
	e := newEndpoint(t, Config{})
	if err := e.AddTask("n", returning(1)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		want Code
	}{{"n", 0}, {"n", NotFound}, {"", NotFound}, {"query_interface", FailedPrecondition}} {
		if err := e.RemoveTask(tt.name); CodeOf(err) != tt.want {
			t.Errorf("RemoveTask(%q) = %v, want code %v", tt.name, err, tt.want)
		}
	}
	if err := e.Local().RunTask(t.Context(), "n", nil); CodeOf(err) != NotFound {
		t.Errorf("a removed task = %v, want not_found", err)
	}
	if err := e.AddTask("n", returning(2), Overwrite(TaskThrow)); err != nil {
		t.Errorf("AddTask after RemoveTask = %v, want nil", err)
	}
}

// TestInvalidateCache runs the task with all arguments that peers send. "A node
// without such a cache answers 0" (protocol section 7.7).
func TestInvalidateCache(t *testing.T) {
	e := newEndpoint(t, Config{})
	for _, args := range [][]any{nil, {nil}, {"user*"}, {map[string]any{"pattern": "a*", "servicesOnly": true}}} {
		var got any
		if err := e.Local().RunTask(t.Context(), "invalidate_cache", &got, args...); err != nil || got != int64(0) {
			t.Errorf("invalidate_cache(%v) = %v, %v, want 0", args, got, err)
		}
	}
}

func TestTaskTimeoutDefaults(t *testing.T) {
	for _, tt := range []struct {
		config time.Duration
		opts   []TaskOption
		want   time.Duration
	}{
		{0, nil, 5 * time.Second},
		{time.Minute, nil, time.Minute},
		{-1, nil, 0},
		{-1, []TaskOption{TaskLimit(time.Second)}, time.Second},
		{time.Minute, []TaskOption{TaskLimit(0)}, time.Minute},
		{time.Minute, []TaskOption{TaskLimit(-1)}, 0},
	} {
		e := newEndpoint(t, Config{TaskTimeout: tt.config})
		if err := e.AddTask("n", returning(1), tt.opts...); err != nil {
			t.Fatal(err)
		}
		if got := (*e.tasks.view.Load())["n"].limit; got != tt.want {
			t.Errorf("TaskTimeout %v, %d options: limit %v, want %v", tt.config, len(tt.opts), got, tt.want)
		}
	}
}

// TestCoreTasksHaveNoLimit: they never wait.
func TestCoreTasksHaveNoLimit(t *testing.T) {
	for name, m := range newEndpoint(t, Config{}).tasks.core {
		if m.limit != 0 {
			t.Errorf("%s has a limit of %v, want none", name, m.limit)
		}
	}
}
