package netron_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// held is how many entries the maps of something have, and what some of its counters
// say, by their paths.
type held map[string]int

// counters are the fields that count what is under way.
var counters = []string{"live", "inflight", "inflightBytes", "offline"}

// heldBy looks at all that can be reached from v within this module, and at contexts.
// Nothing may move meanwhile.
func heldBy(v any) held {
	h := make(held)
	h.walk(reflect.ValueOf(v), "", make(map[any]bool))
	return h
}

// beyond returns what h has more than another.
func (h held) beyond(other held) held {
	more := maps.Clone(h)
	maps.DeleteFunc(more, func(path string, n int) bool { return n <= other[path] })
	return more
}

// String lists what there is.
func (h held) String() string {
	var all []string
	for _, path := range slices.Sorted(maps.Keys(h)) {
		if h[path] != 0 {
			all = append(all, fmt.Sprintf("%s: %d", path, h[path]))
		}
	}
	return strings.Join(all, ", ")
}

func (h held) walk(v reflect.Value, path string, seen map[any]bool) {
	switch v.Kind() {
	case reflect.Map:
		h[path] += v.Len()
	case reflect.Interface:
		h.walk(v.Elem(), path, seen)
	case reflect.Pointer:
		if isOurs(v.Type().Elem()) && !v.IsNil() && !seen[v.Pointer()] {
			seen[v.Pointer()] = true
			h.walk(v.Elem(), path, seen)
		}
	case reflect.Struct:
		h.walkStruct(v, path, seen)
	}
}

func (h held) walkStruct(v reflect.Value, path string, seen map[any]bool) {
	switch name := v.Type().PkgPath() + "." + v.Type().Name(); {
	case strings.HasPrefix(name, "sync/atomic.Pointer["):
		// It is a struct of an empty array of pointers, of their type, and the pointer.
		if p := v.FieldByName("v").UnsafePointer(); p != nil {
			h.walk(reflect.NewAt(v.Type().Field(0).Type.Elem().Elem(), p), path, seen)
		}
	case isOurs(v.Type()):
		for i := range v.NumField() {
			field, name := v.Field(i), v.Type().Field(i).Name
			if slices.Contains(counters, name) {
				h[path+"."+name] += int(number(field))
			} else {
				h.walk(field, path+"."+name, seen)
			}
		}
	}
}

// number returns the value of an integer, which may be an atomic one.
func number(v reflect.Value) int64 {
	if v.Kind() == reflect.Struct {
		v = v.FieldByName("v")
	}
	return v.Int()
}

func isOurs(t reflect.Type) bool {
	return strings.HasPrefix(t.PkgPath(), modulePath) || t.PkgPath() == "context"
}

// atLeast returns h with the larger of its numbers and those of another.
func (h held) atLeast(other held) held {
	most := maps.Clone(h)
	for path, n := range other {
		most[path] = max(most[path], n)
	}
	return most
}
