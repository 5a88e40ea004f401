package stream

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"

	"github.com/d-e-v-grid/netron/codec"
)

// Shape is what a type in a signature says of a stream. It is for package rpc.
type Shape struct {
	form form
	item reflect.Type // nil for bytes and duplexes
	typ  reflect.Type
}

func (s *Shape) ops() *items { return itemsOf(s.item) }

// form is one of the forms that streams have.
type form uint8

const (
	formSeq2 form = iota
	formSeq
	formChan
	formBytes
	formDuplex
)

var (
	errNilSource = errors.New("the stream is nil")

	errorType    = reflect.TypeFor[error]()
	boolType     = reflect.TypeFor[bool]()
	ioReaderType = reflect.TypeFor[io.Reader]()
	readerType   = reflect.TypeFor[*Reader]()
	duplexType   = reflect.TypeFor[duplex]()
)

// shapes remembers what ShapeOf found: *found by reflect.Type.
var shapes sync.Map

type found struct {
	shape *Shape
	err   error
}

// ShapeOf returns the shape of a type, nil if it stands for no stream. Types whose items have no
// form on the wire are an error.
func ShapeOf(t reflect.Type) (*Shape, error) {
	f, ok := shapes.Load(t)
	if !ok {
		shape, err := shapeOf(t)
		f, _ = shapes.LoadOrStore(t, &found{shape, err})
	}
	of := f.(*found) //nolint:forcetypeassert // nothing else is in it
	return of.shape, of.err
}

func shapeOf(t reflect.Type) (*Shape, error) {
	s := &Shape{typ: t}
	switch {
	case t == readerType || t.Kind() == reflect.Interface && t.Implements(ioReaderType):
		s.form = formBytes
		if t != readerType && !readerType.Implements(t) {
			return nil, fmt.Errorf("a stream of bytes is no %s: use io.Reader or io.ReadCloser", t)
		}
		return s, nil
	case t.Kind() == reflect.Pointer && t.Implements(duplexType): // only a Duplex has these methods
		s.form = formDuplex
		d, _ := reflect.TypeAssert[duplex](reflect.New(t.Elem()))
		if err := d.check(); err != nil {
			return nil, err
		}
		return s, nil
	case t.Kind() == reflect.Chan && t.ChanDir() == reflect.RecvDir:
		s.form, s.item = formChan, t.Elem()
	default:
		if s.form, s.item = sequenceOf(t); s.item == nil {
			return nil, nil
		}
	}
	if err := codec.Check(s.item); err != nil {
		return nil, fmt.Errorf("items: %w", err)
	}
	return s, nil
}

// sequenceOf returns the form and the items of a sequence, nil for any other type.
func sequenceOf(t reflect.Type) (form, reflect.Type) {
	if t.Kind() != reflect.Func || t.NumIn() != 1 || t.NumOut() != 0 || t.IsVariadic() {
		return 0, nil
	}
	yield := t.In(0)
	if yield.Kind() != reflect.Func || yield.NumOut() != 1 || yield.Out(0) != boolType || yield.IsVariadic() {
		return 0, nil
	}
	switch {
	case yield.NumIn() == 1:
		return formSeq, yield.In(0)
	case yield.NumIn() == 2 && yield.In(1) == errorType:
		return formSeq2, yield.In(0)
	}
	return 0, nil
}

// ShapeOfValue returns the shape of a value that is to be sent, nil if it is no stream: what
// implements [io.Reader] is one of bytes.
func ShapeOfValue(v any) (*Shape, error) {
	switch v.(type) {
	case nil:
		return nil, nil
	case io.Reader:
		return &Shape{form: formBytes, typ: ioReaderType}, nil
	}
	t := reflect.TypeOf(v)
	if t.Kind() == reflect.Chan && t.ChanDir() == reflect.BothDir {
		t = reflect.ChanOf(reflect.RecvDir, t.Elem())
	}
	return ShapeOf(t)
}

// Type returns the type whose shape it is.
func (s *Shape) Type() reflect.Type { return s.typ }

// IsDuplex reports whether the shape is a [Duplex], which is a stream of either direction.
func (s *Shape) IsDuplex() bool { return s.form == formDuplex }

// Hides reports whether the form of the stream has no place for an error.
func (s *Shape) Hides() bool { return s.form == formSeq || s.form == formChan }

// Send sends what v, a value of the shape's type, produces, and ends the stream. It returns the
// error of the source, or why the stream could not go on: its reader has given up, the connection
// is gone, or the context of o has ended. What panics in the source panics in Send.
func (s *Shape) Send(o *Out, v reflect.Value) error {
	if s.form != formBytes {
		if v.IsNil() {
			return o.fail(errNilSource)
		}
		return s.ops().send[s.form](o, v)
	}
	r, _ := reflect.TypeAssert[io.Reader](v)
	if r == nil {
		return o.fail(errNilSource)
	}
	return o.sendBytes(r)
}

// Receive returns a value of the shape's type that reads the stream.
func (s *Shape) Receive(in *In) reflect.Value {
	if s.form == formBytes {
		return reflect.ValueOf(&Reader{in: in}).Convert(s.typ)
	}
	return s.ops().recv[s.form](in, s.typ)
}

// IsLazy reports whether Lazy can be used: the shape is an [iter.Seq2].
func (s *Shape) IsLazy() bool { return s.form == formSeq2 }

// Lazy is Receive for a stream that open opens when the sequence is used.
func (s *Shape) Lazy(open func() (*In, error)) reflect.Value { return s.ops().lazy(open, s.typ) }

// Join returns a value of the shape's type, a [Duplex], that reads from in and writes to o.
func (s *Shape) Join(in *In, o *Out) reflect.Value {
	v := reflect.New(s.typ.Elem())
	d, _ := reflect.TypeAssert[duplex](v)
	d.bind(in, o)
	return v
}

// Finish ends what a [Duplex] sends, which Join returned, as the error of its user says.
func (s *Shape) Finish(v reflect.Value, err error) error {
	d, _ := reflect.TypeAssert[duplex](v)
	return d.finish(err)
}
