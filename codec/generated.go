package codec

import (
	"bytes"
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tinylib/msgp/msgp"
)

// generated says that the methods which msgp generated for a struct type may
// stand in for its plan. They may if they do the same: on a set of probe values
// they must write the very bytes that the plan writes, and read them back.
//
// That leaves out types with floats, 64-bit integers or times, unless they were
// generated with the types of this package; types whose names on the wire differ
// from the plan's; and types with fields that the probes do not cover.
type generated struct {
	tuple   bool // an array of the fields, else a map
	maxElem int  // size of the largest element of a slice, 0 without slices
}

var (
	msgpMarshalerType   = reflect.TypeFor[msgp.Marshaler]()
	msgpUnmarshalerType = reflect.TypeFor[msgp.Unmarshaler]()
)

// inspect sets p.generated if there is generated code that is fit.
func (p *plan) inspect() {
	pt := reflect.PointerTo(p.typ)
	if p.op != opStruct || !pt.Implements(msgpMarshalerType) || !pt.Implements(msgpUnmarshalerType) {
		return
	}
	if len(p.fields) == 0 || !p.isProbeable(nil) {
		return
	}
	g := &generated{maxElem: p.maxElem()}
	for i := range probes {
		v := reflect.New(p.typ)
		probes[i].fill(p, v.Elem())
		asMap, asTuple := p.agrees(v)
		if i == 0 {
			g.tuple = asTuple
		}
		if g.tuple && !asTuple || !g.tuple && !asMap {
			return
		}
	}
	p.generated = g
}

// isProbeable says whether the probes cover the type, and no part of it may be absent.
func (p *plan) isProbeable(above []*plan) bool {
	if slices.Contains(above, p) {
		return false // recursive
	}
	above = append(above, p)
	switch p.op {
	case opBool, opInt, opUint, opFloat32, opFloat64, opString, opBytes:
		return true
	case opKnown:
		return p.typ == timeType || p.typ == stringsType || p.typ == floatsType
	case opSlice:
		return p.elem.isProbeable(above)
	case opStruct:
		for i := range p.fields {
			f := &p.fields[i]
			if len(f.index) > 1 || !f.plan.isProbeable(above) {
				return false
			}
		}
		return !p.optional
	}
	return false
}

func (p *plan) maxElem() int {
	size := 0
	switch p.op {
	case opKnown:
		if p.typ == stringsType || p.typ == floatsType {
			size = int(p.typ.Elem().Size())
		}
	case opSlice:
		size = max(p.elem.size, p.elem.maxElem())
	case opStruct:
		for i := range p.fields {
			size = max(size, p.fields[i].plan.maxElem())
		}
	}
	return size
}

// probe is a value for every kind of field.
type probe struct {
	i int64
	f float64
	s string
	n int // length of slices
}

var probes = [...]probe{
	{0, 0, "", 0},
	{1, 1.5, "a", 1},
	{-1, -1, "\u00e9", 2},
	{100, 100, strings.Repeat("b", 31), 15},
	{200, 255.25, strings.Repeat("c", 32), 16},
	{-200, -200, strings.Repeat("d", 255), 3},
	{40000, 40000, strings.Repeat("e", 256), 1},
	{-40000, 1e300, strings.Repeat("f", 70000), 1},
	{3e9, 3e9, "g", 2},
	{-3e9, -3e9, "h", 2},
	{1<<53 + 1, 5e-324, "i", 2},
	{math.MaxInt64, math.MaxFloat64, "j", 2},
	{math.MinInt64, math.Inf(1), "k", 2},
}

// mayExceedLimit is from what size on, in bytes, a probe may run into the limits
// that generated code has.
const mayExceedLimit = 64 << 10

// fill sets rv to the probe, cut to its type.
func (pr *probe) fill(p *plan, rv reflect.Value) {
	switch p.op {
	case opBool:
		rv.SetBool(pr.n%2 == 1)
	case opInt:
		shift := 64 - p.bits
		rv.SetInt(pr.i << shift >> shift)
	case opUint:
		shift := 64 - p.bits
		rv.SetUint(uint64(pr.i) << shift >> shift)
	case opFloat32, opFloat64:
		rv.SetFloat(pr.f)
	case opString:
		rv.SetString(pr.s)
	case opBytes:
		rv.SetBytes([]byte(pr.s))
	case opSlice:
		s := reflect.MakeSlice(p.typ, pr.n, pr.n)
		for i := range pr.n {
			pr.fill(p.elem, s.Index(i))
		}
		rv.Set(s)
	case opStruct:
		for i := range p.fields {
			pr.fill(p.fields[i].plan, rv.Field(p.fields[i].index[0]))
		}
	case opKnown:
		switch v := rv.Addr().Interface().(type) {
		case *time.Time:
			*v = time.UnixMilli(pr.i & (1<<42 - 1)).UTC()
		case *[]string:
			for range pr.n {
				*v = append(*v, pr.s)
			}
		case *[]float64:
			for range pr.n {
				*v = append(*v, pr.f)
			}
		}
	}
}

// agrees says whether the generated code encodes what v points to like the map
// or like the tuple of the plan, and decodes it back.
func (p *plan) agrees(v reflect.Value) (asMap, asTuple bool) {
	defer func() {
		if recover() != nil { // methods that are not generated code may do anything
			asMap, asTuple = false, false
		}
	}()
	got, err := v.Interface().(msgp.Marshaler).MarshalMsg(nil)
	if err != nil {
		return false, false
	}
	back := reflect.New(p.typ)
	rest, err := back.Interface().(msgp.Unmarshaler).UnmarshalMsg(got)
	if err != nil && len(got) > mayExceedLimit {
		back = v // only how it encodes counts
	} else if err != nil || len(rest) > 0 {
		return false, false
	}
	same := func(encode func(reflect.Value) []byte) bool {
		want := encode(v.Elem())
		return want != nil && bytes.Equal(got, want) && bytes.Equal(want, encode(back.Elem()))
	}
	return same(p.mapForm), same(p.tupleForm)
}

func (p *plan) mapForm(rv reflect.Value) []byte {
	b, err := appendStruct(nil, p, rv, 0)
	if err != nil {
		return nil
	}
	return b
}

func (p *plan) tupleForm(rv reflect.Value) []byte {
	b := AppendArrayHeader(nil, len(p.fields))
	b, _, err := appendTuple(b, p, rv)
	if err != nil {
		return nil
	}
	return b
}

// append appends the struct by its generated method. It reports false if it
// cannot, and then the plan must.
func (g *generated) append(dst []byte, rv reflect.Value) ([]byte, bool) {
	if !rv.CanAddr() {
		return dst, false
	}
	out, err := rv.Addr().Interface().(msgp.Marshaler).MarshalMsg(dst)
	return out, err == nil
}

// appendTuple is append for the fields alone, without the header of the array.
func (g *generated) appendTuple(dst []byte, fields int, rv reflect.Value) ([]byte, bool) {
	out, ok := g.append(dst, rv)
	if !ok {
		return dst, false
	}
	h := arrayHeaderLen(fields)
	copy(out[len(dst):], out[len(dst)+h:])
	return out[:len(out)-h], true
}

func arrayHeaderLen(n int) int {
	var b [5]byte
	return len(AppendArrayHeader(b[:0], n))
}

// decodeGenerated decodes a map by the generated method of rv. It reports false
// if that is not certain to do what the plan does, or fails; then d has not moved
// and the plan must decode.
func (d *Decoder) decodeGenerated(p *plan, rv reflect.Value) bool {
	start := *d
	if d.conforms(p) && d.spendGenerated(p, start.pos) {
		rest, err := rv.Addr().Interface().(msgp.Unmarshaler).UnmarshalMsg(d.src[start.pos:d.pos:d.pos])
		if err == nil && len(rest) == 0 {
			return true
		}
	}
	*d = start
	return false
}

// scratch holds rebuilt tuples: *[]byte.
var scratch = sync.Pool{New: func() any { return new([]byte) }}

// maxScratch is the capacity up to which scratch space is kept.
const maxScratch = 64 << 10

// decodeGeneratedTuple is decodeGenerated for the fields as consecutive values.
// The generated method wants the header of an array before them, and the message
// has no room for it.
func (d *Decoder) decodeGeneratedTuple(p *plan, rv reflect.Value) bool {
	start := *d
	ok := true
	for i := range p.fields {
		ok = ok && d.conforms(p.fields[i].plan)
	}
	if ok && d.spendGenerated(p, start.pos) {
		b := scratch.Get().(*[]byte)
		*b = append(AppendArrayHeader((*b)[:0], len(p.fields)), d.src[start.pos:d.pos]...)
		rest, err := rv.Addr().Interface().(msgp.Unmarshaler).UnmarshalMsg(*b)
		if cap(*b) <= maxScratch {
			scratch.Put(b)
		}
		if err == nil && len(rest) == 0 {
			return true
		}
	}
	*d = start
	return false
}

// spendGenerated takes from the budget the most that generated code can allocate
// for the bytes read since start: conforms has seen that all elements exist, and
// each has a byte at least.
func (d *Decoder) spendGenerated(p *plan, start int) bool {
	n := d.pos - start
	return d.spendEach(n, 1+p.generated.maxElem) == nil
}

// conforms reads the next value and says whether generated code reads it like
// the plan. Where the plan is more tolerant, it does not: names that differ in
// case, members that are unknown, text that is not UTF-8. It also vouches for all
// counts, which generated code trusts.
func (d *Decoder) conforms(p *plan) bool {
	switch p.op {
	case opString:
		return d.conformsString()
	case opSlice:
		n, err := d.ArrayHeader()
		if err != nil {
			return false
		}
		for range n {
			if !d.conforms(p.elem) {
				return false
			}
		}
		return true
	case opStruct:
		n, err := d.MapHeader()
		if err != nil {
			return false
		}
		for i := range n {
			name, err := d.StringBytes()
			if err != nil {
				return false
			}
			f := p.fieldNamed(name, i)
			if f < 0 || string(name) != p.fields[f].name || !d.conforms(p.fields[f].plan) {
				return false
			}
		}
		return true
	case opKnown:
		if p.typ != stringsType {
			break
		}
		n, err := d.ArrayHeader()
		if err != nil {
			return false
		}
		for range n {
			if !d.conformsString() {
				return false
			}
		}
		return true
	}
	return d.Skip() == nil
}

func (d *Decoder) conformsString() bool {
	s, err := d.StringBytes()
	return err == nil && utf8.Valid(s)
}
