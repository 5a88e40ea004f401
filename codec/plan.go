package codec

import (
	"bytes"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// op is what a plan does with a value.
type op uint8

const (
	opUnsupported op = iota
	opBool
	opInt
	opUint
	opFloat32
	opFloat64
	opString
	opBytes     // []byte of any name
	opByteArray // [N]byte
	opKnown     // a type that appendAny and decodeKnown know
	opMarshaler // Marshaler, Unmarshaler or both
	opError     // implements error
	opInterface
	opPointer
	opSlice
	opArray
	opMap
	opStruct
)

// plan says how values of a type are encoded and decoded. It is compiled once
// and read-only afterwards.
type plan struct {
	typ  reflect.Type
	op   op
	bits int // of a number
	size int // of a value in memory

	shape    shape     // of a value in memory
	pointers []uintptr // where in a value pointers lie, unless it is opaque

	wantsNil         bool // nil is not the same as absent
	marshalByPointer bool // the methods are those of the pointer

	elem  *plan // of pointers, slices, arrays and maps
	key   *plan // of maps
	plain *plan // of opMarshaler and opError: without the interface

	fields   []field
	byName   map[string]int // index in fields
	byFold   map[string]int // the same by lower-case name
	optional bool           // a field may be absent on encoding

	generated *generated // nil: no generated code that is fit
}

// field is a member of a struct plan.
type field struct {
	name      string
	key       []byte // name, encoded
	index     []int  // path through embedded structs
	omitEmpty bool
	embedded  bool    // some struct on the path is a pointer, which may be nil
	shape     shape   // of the plan
	offset    uintptr // in the struct, if that is not opaque
	plan      *plan
}

var (
	errorType       = reflect.TypeFor[error]()
	marshalerType   = reflect.TypeFor[Marshaler]()
	unmarshalerType = reflect.TypeFor[Unmarshaler]()
	timeType        = reflect.TypeFor[time.Time]()
	stringsType     = reflect.TypeFor[[]string]()
	floatsType      = reflect.TypeFor[[]float64]()
)

// isKnown says whether a type is among those of appendAny and decodeOwn.
func isKnown(t reflect.Type) bool {
	switch t {
	case timeType, reflect.TypeFor[Time](), reflect.TypeFor[big.Int](), reflect.TypeFor[BigInt](),
		reflect.TypeFor[Raw](), reflect.TypeFor[Undefined](), reflect.TypeFor[Fields](), reflect.TypeFor[Map](),
		reflect.TypeFor[Set](), reflect.TypeFor[RegExp](), reflect.TypeFor[Error](), reflect.TypeFor[TitanError](),
		reflect.TypeFor[Definition](), reflect.TypeFor[Meta](), reflect.TypeFor[Reference](),
		reflect.TypeFor[StreamReference](), reflect.TypeFor[Long](), reflect.TypeFor[Ext](),
		reflect.TypeFor[[]any](), reflect.TypeFor[map[string]any](), stringsType, floatsType:
		return true
	}
	return false
}

// plans caches compiled plans by type: reflect.Type to *plan.
var plans sync.Map

func planOf(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	c := compiler{made: map[reflect.Type]*plan{}, laidOut: map[*plan]bool{}}
	p := c.compile(t)
	for _, p := range c.made {
		if p.isEndless() {
			p.op = opUnsupported
		}
	}
	for _, p := range c.made {
		c.layOut(p)
	}
	for _, p := range c.made {
		p.inspect()
	}
	// Whoever compiled the same type meanwhile made an equal plan.
	for t, p := range c.made {
		plans.LoadOrStore(t, p)
	}
	return p
}

// isEndless says whether the type is a pointer to itself, such as type T *T, whose
// decoding would never come to a value.
func (p *plan) isEndless() bool {
	slow := p
	for fast := p; fast.op == opPointer && fast.elem.op == opPointer; {
		slow, fast = slow.elem, fast.elem.elem
		if slow == fast {
			return true
		}
	}
	return false
}

// Check returns an error wrapping [ErrUnsupported] if values of type t, or of a
// type inside it, have no form on the wire. Owners check signatures with it
// before the first call.
func Check(t reflect.Type) error {
	return check(planOf(t), map[*plan]bool{})
}

func check(p *plan, seen map[*plan]bool) error {
	if p == nil || seen[p] {
		return nil
	}
	seen[p] = true
	if p.op == opUnsupported {
		return unsupported(p.typ)
	}
	if p.op == opMarshaler || p.op == opError {
		return nil
	}
	for _, part := range []*plan{p.key, p.elem} {
		if err := check(part, seen); err != nil {
			return err
		}
	}
	for i := range p.fields {
		if err := check(p.fields[i].plan, seen); err != nil {
			return atName(err, p.fields[i].name)
		}
	}
	return nil
}

// hasMethods says whether encoding or decoding may call a method of the type or
// of a type inside it, with a pointer to the value.
func (p *plan) hasMethods(seen map[*plan]bool) bool {
	if p == nil || seen[p] {
		return false
	}
	seen[p] = true
	if p.op == opMarshaler || p.op == opError || p.generated != nil {
		return true
	}
	for i := range p.fields {
		if p.fields[i].plan.hasMethods(seen) {
			return true
		}
	}
	return p.key.hasMethods(seen) || p.elem.hasMethods(seen)
}

// compiler compiles the plans of a type and of all types in it.
type compiler struct {
	made    map[reflect.Type]*plan
	laidOut map[*plan]bool
}

func (c *compiler) compile(t reflect.Type) *plan {
	if p, ok := plans.Load(t); ok {
		return p.(*plan)
	}
	if p, ok := c.made[t]; ok {
		return p // perhaps not complete yet: a recursive type
	}
	p := &plan{typ: t, size: int(t.Size())}
	c.made[t] = p
	if c.special(p) {
		return p
	}
	c.byKind(p)
	return p
}

// special compiles the plan of a type that is more than its kind.
func (c *compiler) special(p *plan) bool {
	t := p.typ
	if isKnown(t) {
		p.op = opKnown
		p.wantsNil = t == reflect.TypeFor[Raw]() || t == reflect.TypeFor[Undefined]()
		return true
	}
	if t.Kind() == reflect.Interface {
		return false
	}
	pt := reflect.PointerTo(t)
	if t.Kind() != reflect.Pointer && (pt.Implements(marshalerType) || pt.Implements(unmarshalerType)) {
		p.op = opMarshaler
		p.wantsNil = pt.Implements(unmarshalerType)
		p.marshalByPointer = !t.Implements(marshalerType)
		p.plain = c.plainOf(t)
		return true
	}
	if t.Implements(errorType) {
		if t.Kind() == reflect.Pointer && (isKnown(t.Elem()) || t.Implements(marshalerType)) {
			return false
		}
		p.op = opError
		p.plain = c.plainOf(t)
		return true
	}
	return false
}

func (c *compiler) plainOf(t reflect.Type) *plan {
	p := &plan{typ: t, size: int(t.Size())}
	c.byKind(p)
	return p
}

func (c *compiler) byKind(p *plan) {
	t := p.typ
	switch t.Kind() {
	case reflect.Bool:
		p.op = opBool
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		p.op, p.bits = opInt, t.Bits()
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		p.op, p.bits = opUint, t.Bits()
	case reflect.Float32:
		p.op, p.bits = opFloat32, 32
	case reflect.Float64:
		p.op, p.bits = opFloat64, 64
	case reflect.String:
		p.op = opString
	case reflect.Interface:
		p.op = opInterface
		if t == errorType {
			p.op = opError
			p.plain = &plan{typ: t, op: opInterface, size: p.size}
		}
	case reflect.Pointer:
		p.op, p.elem = opPointer, c.compile(t.Elem())
		p.wantsNil = p.elem.wantsNil
	case reflect.Slice:
		p.op, p.elem = opSlice, c.compile(t.Elem())
		if p.elem.op == opUint && p.elem.bits == 8 {
			p.op = opBytes
		}
	case reflect.Array:
		p.op, p.elem = opArray, c.compile(t.Elem())
		if p.elem.op == opUint && p.elem.bits == 8 {
			p.op = opByteArray
		}
	case reflect.Map:
		p.op, p.key, p.elem = opMap, c.compile(t.Key()), c.compile(t.Elem())
	case reflect.Struct:
		c.compileStruct(p)
	}
}

func (c *compiler) compileStruct(p *plan) {
	fields := structFields(p.typ)
	if len(fields) == 0 && p.typ.NumField() > 0 {
		return // such as a mutex: nothing of it could travel
	}
	p.op = opStruct
	p.fields = fields
	p.byName = make(map[string]int, len(fields))
	p.byFold = make(map[string]int, len(fields))
	for i := range fields {
		f := &fields[i]
		f.key = AppendString(nil, f.name)
		f.plan = c.compile(p.typ.FieldByIndex(f.index).Type)
		p.byName[f.name] = i
		if fold := strings.ToLower(f.name); !hasKey(p.byFold, fold) {
			p.byFold[fold] = i
		}
		p.optional = p.optional || f.omitEmpty || f.embedded
	}
}

func hasKey(m map[string]int, k string) bool {
	_, ok := m[k]
	return ok
}

// candidate is a field found by structFields, before shadowing.
type candidate struct {
	field
	tagged bool
}

// structFields returns the fields of a struct that travel, in their order, with
// those of embedded structs in place. Of equal names the least nested wins, then
// the only tagged one, else none, as in encoding/json.
func structFields(t reflect.Type) []field {
	var all []candidate
	collect(t, nil, false, map[reflect.Type]bool{}, &all)
	var fields []field
	for i := range all {
		if wins(all, i) {
			fields = append(fields, all[i].field)
		}
	}
	return fields
}

func wins(all []candidate, i int) bool {
	a := &all[i]
	for j := range all {
		b := &all[j]
		if i == j || a.name != b.name {
			continue
		}
		if len(b.index) < len(a.index) {
			return false
		}
		if len(b.index) == len(a.index) && (b.tagged || !a.tagged) {
			return false
		}
	}
	return true
}

func collect(t reflect.Type, path []int, viaPointer bool, above map[reflect.Type]bool, all *[]candidate) {
	if above[t] {
		return // embeds itself by a pointer
	}
	above[t] = true
	defer delete(above, t)
	for i := range t.NumField() {
		sf := t.Field(i)
		name, omitEmpty, skip := parseTag(sf)
		if skip {
			continue
		}
		index := append(slices.Clone(path), i)
		if sf.Anonymous && name == "" {
			et := sf.Type
			isPointer := et.Kind() == reflect.Pointer
			if isPointer {
				et = et.Elem()
			}
			if isPointer && !sf.IsExported() {
				continue // could not be set
			}
			if et.Kind() == reflect.Struct && !isKnown(et) && !reflect.PointerTo(et).Implements(marshalerType) {
				collect(et, index, viaPointer || isPointer, above, all)
				continue
			}
		}
		if !sf.IsExported() {
			continue
		}
		tagged := name != ""
		if !tagged {
			name = WireName(sf.Name)
		}
		*all = append(*all, candidate{
			field:  field{name: name, index: index, omitEmpty: omitEmpty, embedded: viaPointer},
			tagged: tagged,
		})
	}
}

// parseTag reads the tag msgpack, or else msg.
func parseTag(sf reflect.StructField) (name string, omitEmpty, skip bool) {
	tag, ok := sf.Tag.Lookup("msgpack")
	if !ok {
		tag = sf.Tag.Get("msg")
	}
	if tag == "-" {
		return "", false, true
	}
	name, options, _ := strings.Cut(tag, ",")
	for option := range strings.SplitSeq(options, ",") {
		omitEmpty = omitEmpty || option == "omitempty"
	}
	return name, omitEmpty, false
}

// WireName returns the name that a Go method or field has on the wire: lower
// camel case, with a leading initialism in lower case as a whole. Add is add, ID
// is id, URLFor is urlFor, HTTPServer is httpServer, UserID is userID.
func WireName(goName string) string {
	upper := 0 // bytes of the leading upper-case letters
	runes := 0
	last := 0 // start of the last of them
	for i, r := range goName {
		if !unicode.IsUpper(r) {
			if unicode.IsLower(r) && runes > 1 {
				upper = last // it starts the next word
			}
			break
		}
		last = i
		upper = i + utf8.RuneLen(r)
		runes++
	}
	return strings.ToLower(goName[:upper]) + goName[upper:]
}

// fieldNamed returns the index of the field of that name, or else of one that
// differs in case only, or -1. The guess is tried first.
func (p *plan) fieldNamed(name []byte, guess int) int {
	if guess < len(p.fields) && string(name) == p.fields[guess].name {
		return guess
	}
	if i, ok := p.byName[string(name)]; ok {
		return i
	}
	if len(name) > 256 {
		return -1 // spare the copy: no Go field is that long
	}
	if i, ok := p.byFold[string(bytes.ToLower(name))]; ok {
		return i
	}
	return -1
}

// present returns the value of f in a struct, or false if it is omitted.
func (f *field) present(rv reflect.Value) (reflect.Value, bool) {
	fv := rv.Field(f.index[0])
	for _, i := range f.index[1:] {
		if fv.Kind() == reflect.Pointer {
			if fv.IsNil() {
				return reflect.Value{}, false
			}
			fv = fv.Elem()
		}
		fv = fv.Field(i)
	}
	if f.omitEmpty && isEmpty(fv) {
		return reflect.Value{}, false
	}
	return fv, true
}

// isEmpty is what omitempty omits: false, 0, nil, a zero time, and what has no
// length.
func isEmpty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Array, reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct:
		return v.Type() == timeType && v.IsZero()
	}
	return v.IsZero()
}
