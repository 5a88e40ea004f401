package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// at the hub: [resizer@1.0.0]
	// 800 wide: [800 450]
	// invalid_argument: limit 0 is not positive
	// afterwards: not_found
}
