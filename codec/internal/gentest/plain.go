package gentest

//go:generate go tool -modfile=../../../tools/go.mod msgp -io=false -tests=false -o plain_gen.go

//msgp:limit arrays:1024 maps:1024

// Plain has generated code as it comes, which does not speak the profile.
type Plain struct {
	Price float64 `msg:"price"`
	Count int64   `msg:"count"`
}

// Safe has generated code as it comes, which does.
type Safe struct {
	Name  string `msg:"name"`
	Level uint8  `msg:"level"`
	On    bool   `msg:"on"`
}

// Optional has a member that may be absent.
type Optional struct {
	Name string `msg:"name,omitempty"`
}

// WithMap has a member that may grow past what peers accept.
type WithMap struct {
	Counts map[string]uint8 `msg:"counts"`
}
