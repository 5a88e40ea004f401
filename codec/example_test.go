package codec_test

import (
	"errors"
	"fmt"

	"github.com/d-e-v-grid/netron/codec"
)

func ExampleAppend() {
	type point struct {
		X, Y  float64
		Label string `msgpack:"label,omitempty"`
	}
	b, err := codec.Append(nil, point{X: 1, Y: 2.5})
	fmt.Printf("%x %v\n", b, err)
	// Output: 82a17801a179cb4004000000000000 <nil>
}

func ExampleUnmarshal() {
	// JavaScript has one kind of number, so 2 may arrive as 2.0.
	b, _ := codec.Append(nil, codec.Fields{{Name: "count", Value: 2.0}, {Name: "tags", Value: []string{"a"}}})
	var v struct {
		Count int
		Tags  []string
	}
	err := codec.Unmarshal(b, &v)
	fmt.Println(v.Count, v.Tags, err)

	var small struct{ Count uint8 }
	b, _ = codec.Append(nil, map[string]int{"count": 300})
	err = codec.Unmarshal(b, &small)
	fmt.Println(err, errors.Is(err, codec.ErrRange))
	// Output:
	// 2 [a] <nil>
	// codec: count: 300 overflows uint8 true
}

func ExampleDecoder() {
	msg, _ := codec.Append(nil, []any{"calculator", "add", 2, 3})

	d := codec.NewDecoder(msg, codec.Limits{})
	n, _ := d.ArrayHeader()
	service, _ := d.StringBytes() // lent from msg
	method, _ := d.StringBytes()
	var a, b float64
	_ = d.Decode(&a)
	_ = d.Decode(&b)
	fmt.Printf("%d values: %s.%s(%v, %v)\n", n, service, method, a, b)
	// Output: 4 values: calculator.add(2, 3)
}

func ExampleDecoder_DecodeTuple() {
	type addArgs struct {
		A, B  float64
		Round *int // optional
	}
	b, n, _ := codec.AppendTuple(nil, addArgs{A: 1, B: 2})

	var args addArgs
	d := codec.NewDecoder(b, codec.Limits{})
	err := d.DecodeTuple(&args, n)
	fmt.Println(args.A+args.B, err)

	d.Reset(b, codec.Limits{})
	fmt.Println(d.DecodeTuple(&args, 1))
	// Output:
	// 3 <nil>
	// codec: missing argument 2 (b)
}

func ExampleTyped() {
	type addArgs struct{ A, B float64 }
	args, result := codec.TypedOf[addArgs](), codec.TypedOf[float64]()

	// The caller knows the number of arguments, and writes it before them.
	n, _ := args.TupleLen()
	call, _, _ := args.AppendTuple(codec.AppendArrayHeader(nil, n), &addArgs{A: 1, B: 2.5})

	var got addArgs
	var d codec.Decoder
	d.Reset(call, codec.Limits{})
	n, _ = d.ArrayHeader()
	err := args.DecodeTuple(&d, &got, n)

	sum := got.A + got.B
	reply, _ := result.Append(nil, &sum)
	fmt.Printf("%x %x %v\n", call, reply, err)
	// Output: 9201cb4004000000000000 cb400c000000000000 <nil>
}

func ExampleError() {
	b, _ := codec.Append(nil, &codec.Error{
		Kind:    codec.KindOfTypeError,
		Message: "bad input",
		Fields:  codec.Fields{{Name: "code", Value: "E_INPUT"}},
	})
	var err error
	_ = codec.Unmarshal(b, &err)
	if e, ok := errors.AsType[*codec.Error](err); ok {
		code, _ := e.Fields.Get("code")
		fmt.Println(e, code)
	}
	// Output: TypeError: bad input E_INPUT
}

func ExampleWireName() {
	fmt.Println(codec.WireName("Add"), codec.WireName("ID"), codec.WireName("URLFor"), codec.WireName("UserID"))
	// Output: add id urlFor userID
}
