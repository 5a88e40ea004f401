package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// shop: stored 7
	// client: got {7 12.5}
	// client: order:paid 7
	// client: order:sent 7
}
