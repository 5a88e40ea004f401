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

// offered are the fields of what a node offers, which is none of its peers' doing.
var offered = []string{"services", "tasks", "listeners", "internal"}

// heldBy looks at all that can be reached from v within this module, and at contexts.
// Nothing may move meanwhile, nor later without a word of the caller: it takes no locks.
func heldBy(v any) held {
	h := make(held)
	h.walk(reflect.ValueOf(v), "", make(map[any]bool))
	return h
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
		// A struct and its first field have one address.
		if key := [2]any{v.Pointer(), v.Type()}; isOurs(v.Type().Elem()) && !v.IsNil() && !seen[key] {
			seen[key] = true
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
			switch {
			case slices.Contains(offered, name):
			case slices.Contains(counters, name):
				h[path+"."+name] += int(number(field))
			default:
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
