package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// 3 desks have served
	// each customer has one desk: true
	// desks of a session: 1
	// calls that failed meanwhile: <nil>
	// desks that are left: 2
}
