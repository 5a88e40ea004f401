// Package codec turns Go values into MessagePack and back, in the profile that
// Netron peers in TypeScript speak.
//
// [Append] and its relatives add values to a slice of bytes; a [Decoder] is a
// cursor that reads values from one. [AppendTuple] and [Decoder.DecodeTuple] do
// the same for the arguments of a call. [Typed] does all that for values of one
// type with less work for each. None of them does I/O, and all may be used by many
// goroutines at a time, though one Decoder only by one.
//
// # Numbers
//
// JavaScript has one kind of number, so numbers go by value and not by form. A
// whole float64 is sent as an integer, integers beyond 32 bits as a float64, and
// those beyond 2^53 as a BigInt. Whatever the form, a number fits every numeric
// Go type that can hold it: 2.0 fits an int, 3 fits a float64, 300 does not fit a
// uint8 and 1.5 does not fit an int. Nothing is rounded, except for a float32.
//
// # Structs
//
// A struct is a map of its exported fields in their order. A field is called by
// its tag `msgpack:"name,omitempty"`, or by the tag `msg` that generated code
// reads, or else by its own name in lower camel case, see [WireName]. The name "-"
// leaves the field out, and omitempty leaves it out while it is false, 0, nil,
// empty or a zero time. Fields of embedded structs count as the struct's own.
// On decoding, names match exactly or else without regard to case; unknown
// ones are skipped, and fields without a member keep what they hold.
//
// What a type needs is compiled once, on first use, and kept for ever. A type
// with methods that msgp generated uses them if they are proved to agree with this
// profile, which takes fields of strings, bytes, booleans and small unsigned
// integers, and others only by way of [Float], [Int], [Uint] and [Time]. It is
// never an error if they do not: the compiled plan serves instead, and also
// whenever a generated method fails. Text in generated code should be UTF-8, which
// only the plan repairs; [Typed] never calls it. A type with a form of its own
// implements [Marshaler] and [Unmarshaler].
//
// # Nil
//
// Peers know null and undefined; both are nil here. A nil pointer, interface or
// *big.Int is sent as null, but a nil slice or map as an empty one, because that is
// what readers in JavaScript expect. On decoding both set pointers, slices, maps
// and interfaces to nil and count as absent in structs; they are no number and no
// string.
//
// # Limits
//
// Messages come from strangers. A count is believed only if the message is long
// enough for it, nesting is bounded, and the memory that decoding takes is charged
// to a budget before it is allocated; see [Limits]. Errors wrap one of the
// sentinels of this package and say where in the value they arose.
package codec
