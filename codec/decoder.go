package codec

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"unsafe"
)

// Decoder is a cursor over one message. It is a plain value that allocates
// nothing by itself. Every method reads the value at the cursor and moves behind
// it; after an error the cursor's place is undefined. The limits count from
// [NewDecoder] or [Decoder.Reset] on, for all values together.
//
// A Decoder borrows the message until it is used no more. It must not be used by
// several goroutines at a time.
type Decoder struct {
	src    []byte // ends where the current extension ends
	pos    int
	depth  int // of the cursor
	budget int // decoded bytes left

	maxDepth int
	digits   int
}

// NewDecoder returns a Decoder at the start of src, which it borrows.
func NewDecoder(src []byte, lim Limits) Decoder {
	budget, depth, digits := lim.resolve(src)
	return Decoder{src: src, budget: budget, maxDepth: depth, digits: digits}
}

// Reset makes d what [NewDecoder] returns. It is faster, because it need not copy it.
func (d *Decoder) Reset(src []byte, lim Limits) {
	d.src, d.pos, d.depth = src, 0, 0
	d.budget, d.maxDepth, d.digits = lim.resolve(src)
}

// Len returns how many bytes are left.
func (d *Decoder) Len() int { return len(d.src) - d.pos }

// Rest lends the bytes that are left; they belong to the message.
func (d *Decoder) Rest() []byte { return d.src[d.pos:len(d.src):len(d.src)] }

// Unmarshal decodes src, which must be exactly one value, into the pointer v
// under the default limits. It copies what it keeps of src.
func Unmarshal(src []byte, v any) error { return UnmarshalLimits(src, v, Limits{}) }

// UnmarshalLimits is [Unmarshal] under limits of the caller's choice.
func UnmarshalLimits(src []byte, v any, lim Limits) error {
	var d Decoder
	d.Reset(src, lim)
	if err := d.Decode(v); err != nil {
		return err
	}
	return d.End()
}

// End returns an error wrapping [ErrTrailing] if bytes are left.
func (d *Decoder) End() error {
	if d.pos < len(d.src) {
		return d.trailing()
	}
	return nil
}

func (d *Decoder) trailing() error {
	return d.fail(ErrTrailing, fmt.Sprintf("%d trailing bytes", d.Len()))
}

// class is what the first byte of a value says about it.
type class uint8

const (
	classNil class = iota
	classBool
	classNumber
	classString
	classBinary
	classArray
	classMap
	classExt
)

// head is the header of a value.
type head struct {
	class class
	ext   byte // type of an extension
	size  int  // bytes of the header itself, for numbers of the whole value
	n     int  // bytes of a string, binary or extension; elements of an array; members of a map
}

func (h head) isNil() bool {
	return h.class == classNil || h.class == classExt && h.ext == extUndefined
}

// head returns the header at the cursor without moving. What it returns is
// checked against the bytes left, so n values of a byte each do exist.
func (d *Decoder) head() (head, error) {
	b := d.src[d.pos:]
	if len(b) == 0 {
		return head{}, d.truncated()
	}
	var h head
	c := b[0]
	switch {
	case c <= 0x7f || c >= 0xe0:
		return head{class: classNumber, size: 1}, nil
	case c < codeFixArray:
		h = head{class: classMap, size: 1, n: int(c & 0x0f)}
	case c < codeFixStr:
		h = head{class: classArray, size: 1, n: int(c & 0x0f)}
	case c < codeNil:
		h = head{class: classString, size: 1, n: int(c & 0x1f)}
	default:
		f := &forms[c-codeNil]
		h = head{class: f.class, size: int(f.size), n: int(f.n)}
		if c == codeNever {
			return head{}, d.fail(ErrMalformed, "byte 0xc1 is not MessagePack")
		}
		if len(b) < h.size {
			return head{}, d.truncated()
		}
		var n uint32
		switch f.width {
		case 1:
			n = uint32(b[1])
		case 2:
			n = uint32(binary.BigEndian.Uint16(b[1:]))
		case 4:
			n = binary.BigEndian.Uint32(b[1:])
		}
		if uint64(n) > uint64(len(b)) { // also keeps n in an int
			return head{}, d.truncated()
		}
		h.n += int(n)
		if h.class == classExt {
			h.ext = b[h.size-1]
		}
	}
	need := h.n
	if h.class == classMap {
		need *= 2
	}
	if need > len(b)-h.size {
		return head{}, d.truncated()
	}
	return h, nil
}

// form describes a first byte from 0xc0 on: the size of the header, the width of
// the length in it, and a length that is implied.
type form struct {
	class class
	size  uint8
	width uint8
	n     uint8
}

var forms = [0x20]form{
	0:                      {classNil, 1, 0, 0},
	codeFalse - codeNil:    {classBool, 1, 0, 0},
	codeTrue - codeNil:     {classBool, 1, 0, 0},
	codeBin8 - codeNil:     {classBinary, 2, 1, 0},
	codeBin16 - codeNil:    {classBinary, 3, 2, 0},
	codeBin32 - codeNil:    {classBinary, 5, 4, 0},
	codeExt8 - codeNil:     {classExt, 3, 1, 0},
	codeExt16 - codeNil:    {classExt, 4, 2, 0},
	codeExt32 - codeNil:    {classExt, 6, 4, 0},
	codeFloat32 - codeNil:  {classNumber, 5, 0, 0},
	codeFloat64 - codeNil:  {classNumber, 9, 0, 0},
	codeUint8 - codeNil:    {classNumber, 2, 0, 0},
	codeUint16 - codeNil:   {classNumber, 3, 0, 0},
	codeUint32 - codeNil:   {classNumber, 5, 0, 0},
	codeUint64 - codeNil:   {classNumber, 9, 0, 0},
	codeInt8 - codeNil:     {classNumber, 2, 0, 0},
	codeInt16 - codeNil:    {classNumber, 3, 0, 0},
	codeInt32 - codeNil:    {classNumber, 5, 0, 0},
	codeInt64 - codeNil:    {classNumber, 9, 0, 0},
	codeFixExt1 - codeNil:  {classExt, 2, 0, 1},
	codeFixExt2 - codeNil:  {classExt, 2, 0, 2},
	codeFixExt4 - codeNil:  {classExt, 2, 0, 4},
	codeFixExt8 - codeNil:  {classExt, 2, 0, 8},
	codeFixExt16 - codeNil: {classExt, 2, 0, 16},
	codeStr8 - codeNil:     {classString, 2, 1, 0},
	codeStr16 - codeNil:    {classString, 3, 2, 0},
	codeStr32 - codeNil:    {classString, 5, 4, 0},
	codeArray16 - codeNil:  {classArray, 3, 2, 0},
	codeArray32 - codeNil:  {classArray, 5, 4, 0},
	codeMap16 - codeNil:    {classMap, 3, 2, 0},
	codeMap32 - codeNil:    {classMap, 5, 4, 0},
}

// Kind is the kind of a value on the wire.
type Kind uint8

// The kinds that [Decoder.PeekKind] tells apart.
const (
	KindInvalid Kind = iota // no value: the end, or bytes that are not MessagePack
	KindNil
	KindUndefined
	KindBool
	KindNumber // of any form except Long and BigInt
	KindString
	KindBinary
	KindArray
	KindMap // with string keys, as a rule
	KindStreamReference
	KindReference
	KindDefinition
	KindTitanError
	KindLong
	KindBigInt
	KindRegExp
	KindSet
	KindMapExt // extension 124, with keys of any kind
	KindTime
	KindError
	KindExt // an extension without a meaning here
)

var kindNames = [...]string{
	"nothing", "nil", "undefined", "a boolean", "a number", "a string", "binary data", "an array", "a map",
	"a stream reference", "a reference", "a definition", "a TitanError", "a long", "a BigInt", "a regular expression",
	"a set", "a Map", "a date", "an error", "an unknown extension",
}

// String returns the name of k as error messages have it, such as "a string".
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

func (h head) kind() Kind {
	switch h.class {
	case classNil:
		return KindNil
	case classBool:
		return KindBool
	case classNumber:
		return KindNumber
	case classString:
		return KindString
	case classBinary:
		return KindBinary
	case classArray:
		return KindArray
	case classMap:
		return KindMap
	}
	switch h.ext {
	case extUndefined:
		return KindUndefined
	case extStreamReference:
		return KindStreamReference
	case extReference:
		return KindReference
	case extDefinition:
		return KindDefinition
	case extTitanError:
		return KindTitanError
	case extLong:
		return KindLong
	case extBigInt:
		return KindBigInt
	case extRegExp:
		return KindRegExp
	case extSet:
		return KindSet
	case extMap:
		return KindMapExt
	case extDate:
		return KindTime
	case extError:
		return KindError
	}
	return KindExt
}

// PeekKind returns the kind of the value at the cursor without reading it.
func (d *Decoder) PeekKind() Kind {
	h, err := d.head()
	if err != nil {
		return KindInvalid
	}
	return h.kind()
}

// TryNil reads a nil or an undefined if one is next and says so.
func (d *Decoder) TryNil() bool {
	b := d.src[d.pos:]
	if len(b) == 0 {
		return false
	}
	if b[0] == codeNil {
		d.pos++
		return true
	}
	if b[0] < codeExt8 || b[0] > codeFixExt16 || b[0] > codeExt32 && b[0] < codeFixExt1 {
		return false
	}
	h, err := d.head()
	if err != nil || !h.isNil() {
		return false
	}
	d.pos += h.size + h.n
	return true
}

// Bool reads a boolean.
func (d *Decoder) Bool() (bool, error) {
	h, err := d.head()
	if err != nil {
		return false, err
	}
	if h.class != classBool {
		return false, d.mismatch(h, "a boolean")
	}
	v := d.src[d.pos] == codeTrue
	d.pos++
	return v, nil
}

// StringBytes reads a string and lends its bytes, which belong to the message
// and are as they came: not necessarily UTF-8.
func (d *Decoder) StringBytes() ([]byte, error) {
	// The forms of short strings, without a detour.
	if b := d.src[d.pos:]; len(b) > 1 {
		if b[0] == codeStr8 {
			if n := int(b[1]) + 2; n <= len(b) {
				d.pos += n
				return b[2:n:n], nil
			}
		} else if b[0]&0xe0 == codeFixStr {
			if n := int(b[0]&0x1f) + 1; n <= len(b) {
				d.pos += n
				return b[1:n:n], nil
			}
		}
	}
	return d.longStringBytes()
}

func (d *Decoder) longStringBytes() ([]byte, error) {
	h, err := d.head()
	if err != nil {
		return nil, err
	}
	if h.class != classString {
		return nil, d.mismatch(h, "a string")
	}
	return d.take(h), nil
}

// String reads a string. Bytes that are not UTF-8 become U+FFFD each.
func (d *Decoder) String() (string, error) {
	b, err := d.StringBytes()
	if err != nil {
		return "", err
	}
	return d.newString(b)
}

func (d *Decoder) newString(b []byte) (string, error) {
	if err := d.spend(len(b)); err != nil {
		return "", err
	}
	if isValid(unsafe.String(unsafe.SliceData(b), len(b))) {
		return string(b), nil
	}
	if err := d.spend(2 * len(b)); err != nil {
		return "", err
	}
	return string([]rune(string(b))), nil
}

// Bytes reads binary data, or the bytes of a string, into a new slice; nil or
// undefined give nil.
func (d *Decoder) Bytes() ([]byte, error) {
	b, err := d.BinaryBytes()
	if b == nil || err != nil {
		return nil, err
	}
	if err := d.spend(len(b)); err != nil {
		return nil, err
	}
	c := make([]byte, len(b))
	copy(c, b)
	return c, nil
}

// BinaryBytes is [Decoder.Bytes] but lends the bytes, which belong to the message.
func (d *Decoder) BinaryBytes() ([]byte, error) {
	h, err := d.head()
	if err != nil {
		return nil, err
	}
	switch {
	case h.class == classBinary || h.class == classString:
		return d.take(h), nil
	case h.isNil():
		d.take(h)
		return nil, nil
	}
	return nil, d.mismatch(h, "binary data")
}

// ArrayHeader reads the header of an array and returns the number of values that
// follow and that the caller must read. The message has at least that many bytes left.
func (d *Decoder) ArrayHeader() (int, error) {
	if b := d.src[d.pos:]; len(b) > 0 && b[0]&0xf0 == codeFixArray {
		if n := int(b[0] & 0x0f); n < len(b) {
			d.pos++
			return n, nil
		}
	}
	return d.longArrayHeader()
}

func (d *Decoder) longArrayHeader() (int, error) {
	h, err := d.head()
	if err != nil {
		return 0, err
	}
	if h.class != classArray {
		return 0, d.mismatch(h, "an array")
	}
	d.pos += h.size
	return h.n, nil
}

// MapHeader reads the header of a map and returns the number of members that
// follow, each a key and a value.
func (d *Decoder) MapHeader() (int, error) {
	h, err := d.head()
	if err != nil {
		return 0, err
	}
	if h.class != classMap {
		return 0, d.mismatch(h, "a map")
	}
	d.pos += h.size
	return h.n, nil
}

// Skip moves over the next value, however deep, without decoding it. What is
// inside extensions is not looked at.
func (d *Decoder) Skip() error {
	// Every value to come has a byte at least, so a sum above the bytes left
	// means that the data is truncated, and the loop is bounded by them.
	for need := 1; need > 0; need-- {
		if n := d.shortLen(); n > 0 {
			d.pos += n
		} else {
			h, err := d.head()
			if err != nil {
				return err
			}
			d.pos += h.size
			switch h.class {
			case classArray:
				need += h.n
			case classMap:
				need += 2 * h.n
			default:
				d.pos += h.n
			}
		}
		if need-1 > d.Len() {
			return d.truncated()
		}
	}
	return nil
}

// shortLen returns the length of the value at the cursor if its first byte tells
// it and all of it is there, else 0.
func (d *Decoder) shortLen() int {
	b := d.src[d.pos:]
	if len(b) == 0 {
		return 0
	}
	n := 0
	switch c := b[0]; {
	case c <= 0x7f || c >= 0xe0:
		n = 1
	case c < codeFixStr || c == codeNever:
	case c < codeNil:
		n = 1 + int(c&0x1f)
	default:
		if f := &forms[c-codeNil]; f.width == 0 {
			n = int(f.size) + int(f.n)
		}
	}
	if n > len(b) {
		return 0
	}
	return n
}

// Raw reads the next value without decoding it and lends its bytes, which belong
// to the message.
func (d *Decoder) Raw() (Raw, error) {
	start := d.pos
	if err := d.Skip(); err != nil {
		return nil, err
	}
	return Raw(d.src[start:d.pos:d.pos]), nil
}

// take moves over the value with that header and lends its content.
func (d *Decoder) take(h head) []byte {
	start := d.pos + h.size
	d.pos = start + h.n
	return d.src[start:d.pos:d.pos]
}

// enter is called before the content of something that contains values.
func (d *Decoder) enter() error {
	if d.depth >= d.maxDepth {
		return d.fail(ErrDepth, fmt.Sprintf("nested deeper than %d", d.maxDepth))
	}
	d.depth++
	return nil
}

func (d *Decoder) leave() { d.depth-- }

// enterExt moves into the extension at the cursor, whose content then ends the
// data; leaveExt checks that it was read completely and moves out.
func (d *Decoder) enterExt() (outer []byte, err error) {
	h, err := d.head()
	if err != nil {
		return nil, err
	}
	if err := d.enter(); err != nil {
		return nil, err
	}
	outer = d.src
	d.pos += h.size
	d.src = d.src[:d.pos+h.n]
	return outer, nil
}

func (d *Decoder) leaveExt(outer []byte) error {
	if d.Len() > 0 {
		return d.fail(ErrMalformed, "extension has trailing bytes")
	}
	d.src = outer
	d.leave()
	return nil
}

// fixed reads n bytes of an extension's content.
func (d *Decoder) fixed(n int) ([]byte, error) {
	if d.Len() < n {
		return nil, d.truncated()
	}
	b := d.src[d.pos : d.pos+n]
	d.pos += n
	return b, nil
}

// count reads the uint32 in front of an extension's values, each of which has
// size bytes at least.
func (d *Decoder) count(size int) (int, error) {
	b, err := d.fixed(4)
	if err != nil {
		return 0, err
	}
	n := binary.BigEndian.Uint32(b)
	if uint64(n)*uint64(size) > uint64(d.Len()) {
		return 0, d.truncated()
	}
	return int(n), nil
}

// spend takes n decoded bytes from the budget.
func (d *Decoder) spend(n int) error {
	if n > d.budget {
		return d.fail(ErrLimit, "decoded size over the limit")
	}
	d.budget -= n
	return nil
}

// spendEach takes n times size decoded bytes from the budget.
func (d *Decoder) spendEach(n, size int) error {
	if size > 0 && n > d.budget/size {
		return d.fail(ErrLimit, "decoded size over the limit")
	}
	d.budget -= n * size
	return nil
}

func (d *Decoder) fail(kind error, msg string) error {
	return &DecodeError{Offset: d.pos, Msg: msg, Err: kind}
}

func (d *Decoder) failAt(offset int, kind error, msg string) error {
	return &DecodeError{Offset: offset, Msg: msg, Err: kind}
}

func (d *Decoder) truncated() error { return d.fail(ErrTruncated, "truncated data") }

func (d *Decoder) mismatch(h head, want string) error {
	return d.fail(ErrType, h.kind().String()+" is not "+want)
}

// Decode reads the next value into what v points to. Pointers to the common
// types are decoded without reflection; [DecodeValue] says what fits what.
// A nil v, or one that is no pointer, is an error wrapping [ErrUnsupported].
func (d *Decoder) Decode(v any) error {
	if known, err := d.decodeKnown(v); known {
		return err
	}
	rv := reflect.ValueOf(v)
	if rv.Kind() != reflect.Pointer || rv.IsNil() {
		return d.fail(ErrUnsupported, fmt.Sprintf("cannot decode into %T, only into a pointer that is not nil", v))
	}
	return d.decodePlan(planOf(rv.Type().Elem()), rv.Elem())
}

// DecodeValue reads the next value into rv, which must be settable.
//
// Numbers go by value: any form fits any numeric type that holds it without
// loss (a float32 may round). Binary data and strings fit []byte, only strings
// fit string. Arrays and sets fit slices; arrays of the same length fit Go
// arrays. Maps of both kinds fit Go maps and structs; keys that match no field are
// skipped, and fields without a key keep what they have. Nil and undefined set
// pointers, slices, maps and interfaces to nil and members of structs and maps
// to zero; elsewhere they are an error.
func (d *Decoder) DecodeValue(rv reflect.Value) error {
	if !rv.CanSet() {
		return d.fail(ErrUnsupported, "cannot decode into a value that cannot be set")
	}
	return d.decodePlan(planOf(rv.Type()), rv)
}
