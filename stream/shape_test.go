package stream

import (
	"bytes"
	"io"
	"iter"
	"os"
	"reflect"
	"strings"
	"testing"
)

type (
	namedSeq  iter.Seq2[int, error]
	namedChan <-chan string
	noCloser  interface{ io.Reader }
	seekable  interface {
		io.Reader
		io.Seeker
	}
)

func TestShapeOf(t *testing.T) {
	for _, tt := range []struct {
		typ   reflect.Type
		form  form
		is    bool
		wrong string // a part of the error
	}{
		{reflect.TypeFor[iter.Seq2[int, error]](), formSeq2, true, ""},
		{reflect.TypeFor[namedSeq](), formSeq2, true, ""},
		{reflect.TypeFor[func(func(string, error) bool)](), formSeq2, true, ""},
		{reflect.TypeFor[iter.Seq[struct{ A int }]](), formSeq, true, ""},
		{reflect.TypeFor[<-chan int](), formChan, true, ""},
		{reflect.TypeFor[namedChan](), formChan, true, ""},
		{reflect.TypeFor[io.Reader](), formBytes, true, ""},
		{reflect.TypeFor[io.ReadCloser](), formBytes, true, ""},
		{reflect.TypeFor[noCloser](), formBytes, true, ""},
		{reflect.TypeFor[*Reader](), formBytes, true, ""},
		{reflect.TypeFor[*Duplex[int, string]](), formDuplex, true, ""},

		{reflect.TypeFor[iter.Seq2[int, string]](), 0, false, ""}, // the second is no error
		{reflect.TypeFor[func(func(int) bool) error](), 0, false, ""},
		{reflect.TypeFor[func(func(int))](), 0, false, ""},
		{reflect.TypeFor[func()](), 0, false, ""},
		{reflect.TypeFor[chan int](), 0, false, ""}, // one could send on it
		{reflect.TypeFor[chan<- int](), 0, false, ""},
		{reflect.TypeFor[io.Writer](), 0, false, ""},
		{reflect.TypeFor[*os.File](), 0, false, ""}, // no interface: nothing could make one
		{reflect.TypeFor[Duplex[int, int]](), 0, false, ""},
		{reflect.TypeFor[[]byte](), 0, false, ""},
		{reflect.TypeFor[any](), 0, false, ""},

		{reflect.TypeFor[iter.Seq2[func(), error]](), 0, false, "items: "},
		{reflect.TypeFor[<-chan chan int](), 0, false, "items: "},
		{reflect.TypeFor[*Duplex[int, func()]](), 0, false, "items: "},
		{reflect.TypeFor[seekable](), 0, false, "use io.Reader"},
	} {
		for range 2 { // the second time from memory
			s, err := ShapeOf(tt.typ)
			if (s != nil) != tt.is || (err != nil) != (tt.wrong != "") {
				t.Errorf("ShapeOf(%v) = %v, %v, want a stream %v, an error %v", tt.typ, s, err, tt.is, tt.wrong != "")
				continue
			}
			if err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("ShapeOf(%v) = %v, want %q in it", tt.typ, err, tt.wrong)
			}
			if s != nil && (s.form != tt.form || s.Type() != tt.typ) {
				t.Errorf("ShapeOf(%v) = %+v, want form %d", tt.typ, s, tt.form)
			}
		}
	}
	for _, tt := range []struct {
		v  any
		is bool
	}{
		{nil, false},
		{5, false},
		{[]byte("x"), false},
		{strings.NewReader(""), true},
		{new(bytes.Buffer), true},
		{make(chan int), true},
		{make(<-chan int), true},
		{make(chan<- int), false},
		{func(func(int) bool) {}, true},
	} {
		if s, err := ShapeOfValue(tt.v); (s != nil) != tt.is || err != nil {
			t.Errorf("ShapeOfValue(%T) = %v, %v, want a stream %v", tt.v, s, err, tt.is)
		}
	}
}
