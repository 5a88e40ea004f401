package pubsub

import (
	"reflect"
	"sync"

	"github.com/d-e-v-grid/netron/internal/code"
)

// Op is how an event reaches its handlers.
type Op uint8

// The operations.
const (
	OpParallel    Op = iota // all handlers at once
	OpSerial                // one after another
	OpReduce                // one after another, results folded
	OpReduceRight           // the same, last handler first
	OpChain                 // each handler gets the result of the one before
	OpChainRight            // the same, last handler first
)

// String returns the name in lower case.
func (o Op) String() string {
	switch o {
	case OpParallel:
		return "parallel"
	case OpSerial:
		return "serial"
	case OpReduce:
		return "reduce"
	case OpReduceRight:
		return "reduceRight"
	case OpChain:
		return "chain"
	case OpChainRight:
		return "chainRight"
	}
	return "unknown"
}

// Event is something that happened: a name and arguments. It is a value, which may be
// kept and passed on, unless who hands it over says that it is lent: then [Event.Clone]
// makes one that may. The arguments are shared by all who get the event and must not be
// changed.
type Event struct {
	name    string
	args    []any
	payload Payload  // nil for plain arguments
	call    *call    // of the emission, for middleware; nil for handlers
	scratch *Scratch // of the emission; nil if it has none
}

// Payload is the arguments of an event in another form than a slice, which is decoded
// only when somebody asks. Events from peers have one that holds the encoded bytes; a
// handler that passes them on finds it by [Event.Payload] and need not decode it.
//
// All methods may be called by many goroutines at a time, and as long as somebody holds
// the event, unless the payload is a [Lent] one.
type Payload interface {
	// Args returns all arguments.
	Args() ([]any, error)

	// Decode stores the first arguments in the pointers vs. Those that the event does not
	// have leave their pointers alone.
	Decode(vs ...any) error
}

// Lent is a payload in memory that will be used anew: it is good for the handlers that
// [Emitter.LendEvent] calls, until they return.
type Lent interface {
	Payload

	// Clone returns the same payload in memory of its own. It is called before the handlers
	// return, by any goroutine.
	Clone() Payload
}

// Scratch is where the handlers of one emission that subscribed [WithScratch] keep what
// they share, such as the event in encoded form. One goroutine uses it at a time, for one
// emission after another, on whatever bus.
type Scratch struct {
	// Value is what handlers have left there, perhaps those of an earlier emission: memory
	// that can be used anew.
	Value any

	// Filled says that Value is of this emission. Whoever makes it so sets it.
	Filled bool
}

var pooledScratches = sync.Pool{New: func() any { return new(Scratch) }}

// end gives the scratch back.
func (s *Scratch) end() {
	s.Filled = false
	pooledScratches.Put(s)
}

// NewEvent returns an event whose arguments are decoded on demand, for
// [Emitter.EmitEvent].
func NewEvent(name string, payload Payload) Event { return Event{name: name, payload: payload} }

// Name returns the name, for example "order:created".
func (e Event) Name() string { return e.name }

// Op returns how the event is emitted. It is for middleware; handlers see OpParallel.
func (e Event) Op() Op {
	if e.call == nil {
		return OpParallel
	}
	return e.call.op
}

// Clone returns the event, in memory of its own if it is lent.
func (e Event) Clone() Event {
	if p, ok := e.payload.(Lent); ok {
		e.payload = p.Clone()
	}
	e.scratch = nil
	return e
}

// Scratch returns what the handlers of the emission share, nil if there is nothing: because no
// handler has asked for it, or because they do not run on one goroutine. It is good until the
// handler returns.
func (e Event) Scratch() *Scratch { return e.scratch }

// isEncoded reports whether the event has a payload that is an encoding.
func (e Event) isEncoded() bool {
	_, isLocal := e.payload.(local)
	return e.payload != nil && !isLocal
}

// Args returns the arguments, decoded if they came from a peer. The error is that of
// decoding.
func (e Event) Args() ([]any, error) {
	if e.args == nil && e.payload != nil {
		return e.payload.Args()
	}
	return e.args, nil
}

// Payload returns what the arguments were before they were decoded, nil if the event
// was emitted here with plain arguments, unless a handler subscribed [WithPayload].
func (e Event) Payload() Payload { return e.payload }

// Decode stores the first arguments in the pointers vs. Those that the event does not
// have leave their pointers alone, and nil stores the zero value. An argument of another
// type is an error of code invalid_argument, or what the payload says.
func (e Event) Decode(vs ...any) error {
	if e.args == nil && e.payload != nil {
		return e.payload.Decode(vs...)
	}
	for i, v := range vs {
		if i >= len(e.args) {
			return nil
		}
		if err := assign(v, e.args[i]); err != nil {
			return err
		}
	}
	return nil
}

// WithArgs returns the event with other arguments, for middleware.
func (e Event) WithArgs(args ...any) Event {
	if args == nil {
		args = []any{}
	}
	e.args, e.payload = args, nil
	return e
}

// assign stores value where the pointer points.
func assign(pointer, value any) error {
	p := reflect.ValueOf(pointer)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return errorf(code.InvalidArgument, "decode into %T, which is no pointer", pointer)
	}
	v := reflect.ValueOf(value)
	switch {
	case value == nil:
		p.Elem().SetZero()
	case v.Type().AssignableTo(p.Elem().Type()):
		p.Elem().Set(v)
	default:
		return errorf(code.InvalidArgument, "the event has a value of type %T, not %v", value, p.Elem().Type())
	}
	return nil
}
