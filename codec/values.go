package codec

import (
	"encoding/binary"
	"math/big"
	"reflect"
	"strconv"
)

// Undefined is JavaScript's undefined. As a target it accepts nil and undefined.
// Everywhere else both decode alike; where the difference matters, decode into a
// Raw or look at [Decoder.PeekKind].
type Undefined struct{}

// Raw is one encoded value that passes through as it is. Encoding copies it
// after checking that it is exactly one value; nil encodes as nil. Decoding into a
// Raw copies, while [Decoder.Raw] lends.
type Raw []byte

// Kind returns the kind of the value, [KindInvalid] if r is none.
func (r Raw) Kind() Kind {
	d := NewDecoder(r, Limits{})
	return d.PeekKind()
}

// Unmarshal decodes r into the pointer v under the default limits.
func (r Raw) Unmarshal(v any) error { return Unmarshal(r, v) }

func appendRaw(dst []byte, r Raw) ([]byte, error) {
	if r == nil {
		return AppendNil(dst), nil
	}
	d := NewDecoder(r, Limits{})
	err := d.Skip()
	if err == nil {
		err = d.End()
	}
	if err != nil {
		return dst, &EncodeError{Msg: "raw value is not one value: " + err.Error(), Err: err}
	}
	return append(dst, r...), nil
}

// Map is a JavaScript Map (extension 124): pairs in order, with keys of any kind.
type Map []Pair

// Pair is one entry of a [Map].
type Pair struct{ Key, Value any }

// Get returns the value of the last pair whose key equals key, which must be
// comparable. Whole numbers are int64 after decoding.
func (m Map) Get(key any) (value any, ok bool) {
	for i := len(m) - 1; i >= 0; i-- {
		if isComparable(m[i].Key) && m[i].Key == key {
			return m[i].Value, true
		}
	}
	return nil, false
}

// isComparable reports whether v may stand beside ==, which panics otherwise.
func isComparable(v any) bool { return v == nil || reflect.ValueOf(v).Comparable() }

func (m Map) append(dst []byte, depth int) ([]byte, error) {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(extStart(dst), uint32(len(m)))
	var err error
	for i := range m {
		if dst, err = appendAny(dst, m[i].Key, depth+1); err == nil {
			dst, err = appendAny(dst, m[i].Value, depth+1)
		}
		if err != nil {
			return dst, atIndex(err, i)
		}
	}
	return extEnd(dst, start, extMap), nil
}

func (d *Decoder) readMap() (Map, error) {
	outer, err := d.enterExt()
	if err != nil {
		return nil, err
	}
	n, err := d.count(2)
	if err != nil {
		return nil, err
	}
	if err := d.spendEach(n, 2*costInterface); err != nil {
		return nil, err
	}
	m := make(Map, n)
	for i := range m {
		if m[i].Key, err = d.Any(); err == nil {
			m[i].Value, err = d.Any()
		}
		if err != nil {
			return nil, atIndex(err, i)
		}
	}
	return m, d.leaveExt(outer)
}

// Set is a JavaScript Set (extension 123): values in order. As a target it
// accepts arrays too.
type Set []any

func (s Set) append(dst []byte, depth int) ([]byte, error) {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(extStart(dst), uint32(len(s)))
	var err error
	for i := range s {
		if dst, err = appendAny(dst, s[i], depth+1); err != nil {
			return dst, atIndex(err, i)
		}
	}
	return extEnd(dst, start, extSet), nil
}

func (d *Decoder) readSet() (Set, error) {
	outer, err := d.enterExt()
	if err != nil {
		return nil, err
	}
	n, err := d.count(1)
	if err != nil {
		return nil, err
	}
	s, err := d.anyValues(n)
	if err != nil {
		return nil, err
	}
	return Set(s), d.leaveExt(outer)
}

// Fields is an object whose members keep their order: a map with string keys on
// the wire.
type Fields []Field

// Field is a member of [Fields].
type Field struct {
	Name  string
	Value any
}

// Get returns the value of the last member of that name.
func (f Fields) Get(name string) (value any, ok bool) {
	for i := len(f) - 1; i >= 0; i-- {
		if f[i].Name == name {
			return f[i].Value, true
		}
	}
	return nil, false
}

func (f Fields) append(dst []byte, depth int) ([]byte, error) {
	dst, err := AppendMapHeader(dst, len(f))
	if err != nil {
		return dst, err
	}
	return f.appendMembers(dst, depth)
}

func (f Fields) appendMembers(dst []byte, depth int) ([]byte, error) {
	var err error
	for i := range f {
		dst = AppendString(dst, f[i].Name)
		if dst, err = appendAny(dst, f[i].Value, depth+1); err != nil {
			return dst, atName(err, f[i].Name)
		}
	}
	return dst, nil
}

const costField = 2 * costInterface

func (d *Decoder) readFields() (Fields, error) {
	c, err := d.enterMap()
	if err != nil {
		return nil, err
	}
	if err := d.spendEach(c.n, costField); err != nil {
		return nil, err
	}
	f := make(Fields, c.n)
	for i := range f {
		if f[i].Name, err = d.key(); err != nil {
			return nil, err
		}
		if f[i].Value, err = d.Any(); err != nil {
			return nil, atName(err, f[i].Name)
		}
	}
	return f, d.leaveContainer(c)
}

// fieldsOrNil is readFields that skips whatever is no map.
func (d *Decoder) fieldsOrNil() (Fields, error) {
	switch d.PeekKind() {
	case KindMap, KindMapExt:
		return d.readFields()
	}
	return nil, d.Skip()
}

// container is an array, a set or a map of either kind whose values are read next.
type container struct {
	n     int
	outer []byte // of an extension
	isExt bool
}

// enterMap reads the header of a map or of extension 124.
func (d *Decoder) enterMap() (container, error) { return d.enterContainer(classMap, extMap, 2) }

// enterArray reads the header of an array or of extension 123.
func (d *Decoder) enterArray() (container, error) { return d.enterContainer(classArray, extSet, 1) }

func (d *Decoder) enterContainer(c class, ext byte, perEntry int) (container, error) {
	h, err := d.head()
	if err != nil {
		return container{}, err
	}
	switch {
	case h.class == c:
		if err := d.enter(); err != nil {
			return container{}, err
		}
		d.pos += h.size
		return container{n: h.n}, nil
	case h.class == classExt && h.ext == ext:
		outer, err := d.enterExt()
		if err != nil {
			return container{}, err
		}
		n, err := d.count(perEntry)
		return container{n: n, outer: outer, isExt: true}, err
	case c == classMap:
		return container{}, d.mismatch(h, "a map")
	}
	return container{}, d.mismatch(h, "an array")
}

func (d *Decoder) leaveContainer(c container) error {
	if c.isExt {
		return d.leaveExt(c.outer)
	}
	d.leave()
	return nil
}

// RegExp is a JavaScript regular expression (extension 121). It is data: this
// package never compiles it, and what another peer sends should not be compiled
// without a check.
type RegExp struct{ Source, Flags string }

func (r RegExp) append(dst []byte) []byte {
	start := len(dst)
	dst = AppendString(extStart(dst), r.Source)
	dst = AppendString(dst, r.Flags)
	return extEnd(dst, start, extRegExp)
}

func (d *Decoder) readRegExp() (r RegExp, err error) {
	outer, err := d.wantExt(extRegExp, "a regular expression")
	if err != nil {
		return RegExp{}, err
	}
	if r.Source, err = d.String(); err != nil {
		return RegExp{}, err
	}
	if r.Flags, err = d.String(); err != nil {
		return RegExp{}, err
	}
	return r, d.leaveExt(outer)
}

// wantExt is enterExt for an extension of that type only.
func (d *Decoder) wantExt(typ byte, want string) (outer []byte, err error) {
	h, err := d.head()
	if err != nil {
		return nil, err
	}
	if h.class != classExt || h.ext != typ {
		return nil, d.mismatch(h, want)
	}
	return d.enterExt()
}

// Long is a 64-bit integer (extension 119), as libraries for JavaScript have it.
// It fits every numeric target by its value.
type Long struct {
	Bits     uint64 // two's complement
	Unsigned bool
}

// String returns the decimal number.
func (l Long) String() string {
	if l.Unsigned {
		return strconv.FormatUint(l.Bits, 10)
	}
	return strconv.FormatInt(int64(l.Bits), 10)
}

// Big returns the number as a new big.Int.
func (l Long) Big() *big.Int {
	if l.Unsigned {
		return new(big.Int).SetUint64(l.Bits)
	}
	return big.NewInt(int64(l.Bits))
}

func (l Long) append(dst []byte) []byte {
	dst = AppendExtHeader(dst, extLong, 9)
	dst = append(dst, flag(l.Unsigned))
	return binary.BigEndian.AppendUint64(dst, l.Bits)
}

func flag(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func (d *Decoder) readLong() (Long, error) {
	outer, err := d.wantExt(extLong, "a long")
	if err != nil {
		return Long{}, err
	}
	b, err := d.fixed(9)
	if err != nil {
		return Long{}, err
	}
	return Long{Bits: binary.BigEndian.Uint64(b[1:]), Unsigned: b[0] != 0}, d.leaveExt(outer)
}

// Ext is an extension without a meaning in this profile, kept as it is. Encoding
// refuses types that have a meaning.
type Ext struct {
	Type byte
	Data []byte // a copy after decoding
}

func (e Ext) append(dst []byte) ([]byte, error) {
	h := head{class: classExt, ext: e.Type}
	if h.kind() != KindExt {
		return dst, &EncodeError{Msg: "extension type " + strconv.Itoa(int(e.Type)) + " is " + h.kind().String(), Err: ErrUnsupported}
	}
	return append(AppendExtHeader(dst, e.Type, len(e.Data)), e.Data...), nil
}

func (d *Decoder) readExt() (Ext, error) {
	h, err := d.head()
	if err != nil {
		return Ext{}, err
	}
	if h.kind() != KindExt {
		return Ext{}, d.mismatch(h, "an unknown extension")
	}
	if err := d.spend(h.n); err != nil {
		return Ext{}, err
	}
	return Ext{Type: h.ext, Data: append([]byte{}, d.take(h)...)}, nil
}
