package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// node joined harbour
	// service available stock@1.2.0
	// node joined station
	// service available stock@1.3.0
	// stock: harbour in the north station in the south
	// stock@^1.3: station in the south
	// tools:
	// 4 ropes at harbour
	// node changed station
	// service available tools@1.0.0
	// node left harbour
	// service unavailable stock@1.2.0
	// 4 ropes at station
}
