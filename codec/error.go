package codec

import (
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"time"
)

// ErrorKind is the JavaScript constructor that the receiver of an [Error] uses.
type ErrorKind uint16

// The constructors that peers know. Others are sent as KindOfError.
const (
	KindOfError          ErrorKind = 1
	KindOfSyntaxError    ErrorKind = 2
	KindOfTypeError      ErrorKind = 3
	KindOfReferenceError ErrorKind = 4
	KindOfRangeError     ErrorKind = 5
	KindOfEvalError      ErrorKind = 6
	KindOfURIError       ErrorKind = 7
)

var errorNames = [...]string{
	"Error", "Error", "SyntaxError", "TypeError", "ReferenceError", "RangeError", "EvalError", "URIError",
}

// known returns k, or KindOfError for what peers do not know.
func (k ErrorKind) known() ErrorKind {
	if k < KindOfError || k > KindOfURIError {
		return KindOfError
	}
	return k
}

// Error is a JavaScript error (extension 126). Any other Go error is encoded as
// one of KindOfError with its text as the message.
//
// As a target it accepts a TitanError, a map with a member "message", and a
// string, too.
type Error struct {
	Kind    ErrorKind // zero means KindOfError
	Name    string    // empty means the name of the constructor
	Message string
	Stack   string // empty is sent as undefined
	Fields  Fields // own members, such as "code" and "details"
}

// Error returns the message, after the name unless that is "Error".
func (e *Error) Error() string { return errorText(e.name(), e.Message) }

func (e *Error) name() string {
	if e.Name == "" {
		return errorNames[e.Kind.known()]
	}
	return e.Name
}

func errorText(name, msg string) string {
	switch {
	case msg == "":
		return name
	case name == "Error":
		return msg
	}
	return name + ": " + msg
}

func (e *Error) append(dst []byte, depth int) ([]byte, error) {
	if len(e.Fields) > math.MaxUint16 {
		return dst, &EncodeError{Msg: "error of more than 65535 fields", Err: ErrLimit}
	}
	start := len(dst)
	dst = binary.BigEndian.AppendUint16(extStart(dst), uint16(e.Kind.known()))
	dst = AppendString(dst, e.name())
	dst = appendStringOrUndefined(dst, e.Stack)
	dst = AppendString(dst, e.Message)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(e.Fields)))
	dst, err := e.Fields.appendMembers(dst, depth)
	if err != nil {
		return dst, err
	}
	return extEnd(dst, start, extError), nil
}

func appendStringOrUndefined(dst []byte, s string) []byte {
	if s == "" {
		return AppendUndefined(dst)
	}
	return AppendString(dst, s)
}

const costError = 112

func (d *Decoder) readError() (*Error, error) {
	outer, err := d.wantExt(extError, "an error")
	if err != nil {
		return nil, err
	}
	if err := d.spend(costError); err != nil {
		return nil, err
	}
	b, err := d.fixed(2)
	if err != nil {
		return nil, err
	}
	e := &Error{Kind: ErrorKind(binary.BigEndian.Uint16(b)).known()}
	for _, s := range []*string{&e.Name, &e.Stack, &e.Message} {
		if *s, err = d.text(); err != nil {
			return nil, err
		}
	}
	e.Name = e.name()
	if b, err = d.fixed(2); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(b))
	if 2*n > d.Len() {
		return nil, d.truncated()
	}
	if err := d.spendEach(n, costField); err != nil {
		return nil, err
	}
	if n > 0 {
		e.Fields = make(Fields, n)
	}
	for i := range e.Fields {
		f := &e.Fields[i]
		if f.Name, err = d.key(); err != nil {
			return nil, err
		}
		if f.Value, err = d.Any(); err != nil {
			return nil, atName(err, f.Name)
		}
	}
	return e, d.leaveExt(outer)
}

// text reads a string; a value of another kind is skipped and gives "".
func (d *Decoder) text() (string, error) {
	if d.PeekKind() == KindString {
		return d.String()
	}
	return "", d.Skip()
}

// TitanError is the error of current TypeScript peers (extension 110). It must
// not be sent to peers of version 0.6, which drop the whole packet.
//
// It is tolerant when decoded: members of another kind than here are dropped.
type TitanError struct {
	Name      string
	Code      int // like an HTTP status
	Message   string
	Details   Fields
	Context   Fields
	Timestamp time.Time // zero: none

	RequestID, CorrelationID, SpanID, TraceID string // empty: undefined

	Stack  string // empty: none
	Cause  error  // *TitanError or *Error after decoding, nil: none; other errors are sent by their text
	Extras Fields // members of subclasses
}

// Error returns the message, after the name unless that is "Error".
func (e *TitanError) Error() string { return errorText(e.Name, e.Message) }

// Unwrap returns e.Cause.
func (e *TitanError) Unwrap() error { return e.Cause }

func (e *TitanError) append(dst []byte, depth int) ([]byte, error) {
	if depth >= maxEncodeDepth {
		return dst, tooDeep()
	}
	start := len(dst)
	dst = AppendString(extStart(dst), e.Name)
	dst = AppendInt(dst, int64(e.Code))
	dst = AppendString(dst, e.Message)
	dst, err := e.Details.append(dst, depth)
	if err != nil {
		return dst, atName(err, "details")
	}
	if dst, err = e.Context.append(dst, depth); err != nil {
		return dst, atName(err, "context")
	}
	ms := int64(0)
	if !e.Timestamp.IsZero() {
		ms = e.Timestamp.UnixMilli()
	}
	dst = AppendInt(dst, ms)
	for _, s := range []string{e.RequestID, e.CorrelationID, e.SpanID, e.TraceID} {
		dst = appendStringOrUndefined(dst, s)
	}
	if e.Stack == "" {
		dst = AppendNil(dst)
	} else {
		dst = AppendString(dst, e.Stack)
	}
	if dst, err = appendCause(dst, e.Cause, depth); err != nil {
		return dst, atName(err, "cause")
	}
	if e.Extras == nil {
		dst = AppendNil(dst)
	} else if dst, err = e.Extras.append(dst, depth); err != nil {
		return dst, err
	}
	return extEnd(dst, start, extTitanError), nil
}

// errorTypeMember marks a map as the cause of a TitanError.
const errorTypeMember = "__errorType"

func appendCause(dst []byte, cause error, depth int) ([]byte, error) {
	switch c := cause.(type) {
	case nil:
		return AppendNil(dst), nil
	case *TitanError:
		if c == nil {
			return AppendNil(dst), nil
		}
		return c.append(dst, depth+1)
	case *Error:
		if c == nil {
			return AppendNil(dst), nil
		}
		return appendPlainCause(dst, c, depth)
	}
	return appendPlainCause(dst, &Error{Message: cause.Error()}, depth)
}

// isPlainMember says whether the map of a plain cause has a member of that name
// by itself.
func isPlainMember(f Field) bool {
	switch f.Name {
	case errorTypeMember, "name", "message", "stack":
		return true
	}
	return false
}

func appendPlainCause(dst []byte, e *Error, depth int) ([]byte, error) {
	fields := e.Fields
	if slices.ContainsFunc(fields, isPlainMember) {
		fields = slices.DeleteFunc(slices.Clone(fields), isPlainMember)
	}
	dst, err := AppendMapHeader(dst, 4+len(fields))
	if err != nil {
		return dst, err
	}
	dst = AppendString(AppendString(dst, errorTypeMember), "Error")
	dst = AppendString(AppendString(dst, "name"), e.name())
	dst = AppendString(AppendString(dst, "message"), e.Message)
	dst = appendStringOrUndefined(AppendString(dst, "stack"), e.Stack)
	return fields.appendMembers(dst, depth)
}

const costTitanError = 288

func (d *Decoder) readTitanError() (*TitanError, error) {
	outer, err := d.wantExt(extTitanError, "a TitanError")
	if err != nil {
		return nil, err
	}
	if err := d.spend(costTitanError); err != nil {
		return nil, err
	}
	e := &TitanError{}
	if e.Name, err = d.text(); err != nil {
		return nil, err
	}
	code, err := d.wholeOr0()
	if err != nil {
		return nil, err
	}
	if code >= 0 && code <= math.MaxInt32 {
		e.Code = int(code) // others are no codes
	}
	if e.Message, err = d.text(); err != nil {
		return nil, err
	}
	if e.Details, err = d.fieldsOrNil(); err != nil {
		return nil, err
	}
	if e.Context, err = d.fieldsOrNil(); err != nil {
		return nil, err
	}
	ms, err := d.wholeOr0()
	if err != nil {
		return nil, err
	}
	if ms > 0 && ms <= maxTimeMillis {
		e.Timestamp = time.UnixMilli(ms).UTC()
	}
	for _, s := range []*string{&e.RequestID, &e.CorrelationID, &e.SpanID, &e.TraceID, &e.Stack} {
		if *s, err = d.text(); err != nil {
			return nil, err
		}
	}
	if e.Cause, err = d.cause(); err != nil {
		return nil, err
	}
	if e.Extras, err = d.fieldsOrNil(); err != nil {
		return nil, err
	}
	return e, d.leaveExt(outer)
}

// wholeOr0 reads a whole number; a value of another kind is skipped and gives 0.
func (d *Decoder) wholeOr0() (int64, error) {
	if d.PeekKind() != KindNumber {
		return 0, d.Skip()
	}
	n, err := d.readNumber()
	if w := n.whole(); err == nil && w.kind == numInt {
		return w.i, nil
	}
	return 0, err
}

func (d *Decoder) cause() (error, error) {
	switch d.PeekKind() {
	case KindTitanError, KindError, KindMap:
		return d.ErrorValue()
	}
	return nil, d.Skip()
}

// ErrorValue reads an error in any form that a peer may send one: a TitanError or an
// Error gives a *TitanError or *Error, a map an *Error made of its members name,
// message, stack and others, a string an *Error with that message. Nil and
// undefined give nil. Whatever else it is becomes an *Error whose field "value"
// holds it.
func (d *Decoder) ErrorValue() (value, err error) {
	switch d.PeekKind() {
	case KindNil, KindUndefined:
		return nil, d.Skip()
	case KindError:
		return boxedError(d.readError())
	case KindTitanError:
		return boxedError(d.readTitanError())
	case KindMap, KindMapExt:
		f, err := d.readFields()
		if err != nil {
			return nil, err
		}
		return errorOfFields(f), nil
	case KindString:
		s, err := d.String()
		if err != nil {
			return nil, err
		}
		return &Error{Kind: KindOfError, Name: "Error", Message: s}, nil
	}
	v, err := d.Any()
	if err != nil {
		return nil, err
	}
	return &Error{Kind: KindOfError, Name: "Error", Message: "error without a message", Fields: Fields{{"value", v}}}, nil
}

func boxedError[T error](v T, err error) (error, error) {
	if err != nil {
		return nil, err
	}
	return v, nil
}

func errorOfFields(f Fields) *Error {
	e := &Error{Kind: KindOfError}
	rest := f[:0]
	for _, m := range f {
		s, isString := m.Value.(string)
		switch {
		case m.Name == errorTypeMember:
		case m.Name == "name" && isString:
			e.Name = s
		case m.Name == "message" && isString:
			e.Message = s
		case m.Name == "stack" && (isString || m.Value == nil):
			e.Stack = s
		default:
			rest = append(rest, m)
		}
	}
	if len(rest) > 0 {
		e.Fields = rest
	}
	e.Name = e.name()
	return e
}

// errorOf returns err as an Error.
func errorOf(err error) *Error {
	if t, ok := errors.AsType[*TitanError](err); ok {
		e := &Error{Kind: KindOfError, Name: t.Name, Message: t.Message, Stack: t.Stack, Fields: Fields{{"code", int64(t.Code)}}}
		if len(t.Details) > 0 {
			e.Fields = append(e.Fields, Field{"details", t.Details})
		}
		return e
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	return &Error{Kind: KindOfError, Message: err.Error()}
}
