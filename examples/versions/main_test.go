package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// greeter is 2.0.0
	// greeter@1.2.0 is 1.2.0
	// greeter@^1.2 is 1.4.3
	// greeter@~1.2 is 1.2.0
	// greeter@>=1.3 <2 is 1.4.3
	// greeter@>=2.1.0-0 is 2.1.0-beta.1
	// greeter@^3 is there: false
	// hello, Ann (1.4.3)
	// hei, Ann
	// greeter@1.2.0: not_found
}
