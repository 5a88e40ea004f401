// Package gentest holds types with generated code, for the tests of package codec.
package gentest

import "time"

//go:generate go tool -modfile=../../../tools/go.mod msgp -io=false -tests=false -o types_gen.go

//msgp:limit arrays:1024 maps:1024
//msgp:replace float64 with:codec.Float
//msgp:replace int64 with:codec.Int
//msgp:replace uint64 with:codec.Uint
//msgp:replace time.Time with:codec.Time
//msgp:tuple AddArgs TaggedArgs

// AddArgs are call arguments with generated code that speaks the profile.
type AddArgs struct {
	X float64
	Y float64
}

// TaggedArgs are call arguments of every kind that may be generated.
type TaggedArgs struct {
	ID    uint64   `msg:"id"`
	Delta int64    `msg:"delta"`
	Name  string   `msg:"name"`
	Data  []byte   `msg:"data"`
	Tags  []string `msg:"tags"`
	OK    bool     `msg:"ok"`
}

// Trade is a map with generated code that speaks the profile.
type Trade struct {
	Symbol string    `msg:"symbol"`
	Price  float64   `msg:"price"`
	Volume int64     `msg:"volume"`
	At     time.Time `msg:"at"`
	Small  uint8     `msg:"small"`
	Tags   []string  `msg:"tags"`
}

// Untagged has the same kinds of fields, but generated code names them as they
// are written, which is not how the profile does.
type Untagged struct {
	Symbol string
	Price  float64
}
