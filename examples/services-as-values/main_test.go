package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// display: 1 in the cart of Ann: [tea]
	// display: 2 in the cart of Ann: [tea milk]
	// milk costs 400
	// after the release: failed_precondition
}
