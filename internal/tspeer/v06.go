package tspeer

import (
	"fmt"
)

// Peers of version 0.6 were not recorded. The two here are scripted: a server with the reference service, and a client that uses it. What
// they accept and write is that of the 0.6 encoders and decoders.

// calculator06 is the definition of the reference service as 0.6 writes it: types are strings.
func calculator06(id, peerID string) *Definition {
	method := func(typ string, args ...any) Object {
		if args == nil {
			args = []any{}
		}
		return Object{{"type", typ}, {"arguments", args}}
	}
	methods := Object{
		{"add", method("Number", "Number", "Number")},
		{"multiply", method("Number", "Number", "Number")},
		{"divide", method("Number", "Number", "Number")},
		{"fail", method("Promise", "Object")},
		{"echo", method("Object", "Object")},
		{"echoAll", method("Object", "Object")},
		{"nothing", method("void")},
		{"count", method("Object", "Number")},
		{"upload", method("Promise", "Object")},
		{"sumStream", method("Promise", "Object")},
		{"child", method("Object", "Number")},
		{"fire", method("Boolean", "String", "Object")},
	}
	properties := Object{
		{"version", Object{{"type", "String"}, {"readonly", true}}},
		{"counter", Object{{"type", "Object"}, {"readonly", false}}},
	}
	return &Definition{ID: id, PeerID: peerID, Meta: Object{{"name", "calculator"}, {"version", "1.0.0"}, {"properties", properties}, {"methods", methods}}}
}

// inner06 is the definition of a service that child returns.
func inner06(id, parentID, peerID string) *Definition {
	methods := Object{{"value", Object{{"type", "Number"}, {"arguments", []any{}}}}}
	return &Definition{ID: id, ParentID: parentID, PeerID: peerID, Meta: Object{{"name", "inner"}, {"version", "1.0.0"}, {"properties", Object{}}, {"methods", methods}}}
}

// thrown06 is an error as a 0.6 server throws it, stack and all.
func thrown06(class, message string, fields ...Member) *Error {
	return &Error{Ctor: class, Name: class, Stack: fmt.Sprintf("%s: %s\n    at <anonymous>", class, message), Message: message, Fields: fields}
}

// numberAt returns argument i as a number; missing ones are 0.
func numberAt(args []any, i int) float64 {
	if i >= len(args) {
		return 0
	}
	x, _ := args[i].(float64)
	return x
}

// firstArg returns the first argument, Undefined if there is none.
func firstArg(args []any) any {
	if len(args) == 0 {
		return Undefined{}
	}
	return args[0]
}
