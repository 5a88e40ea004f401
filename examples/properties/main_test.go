package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// model: T-1000
	// target 22, heating: true
	// target 18, heating: false
	// refused: out_of_range: 99 degrees are not between 5 and 30
	// target: 18
	// set model: permission_denied: Property 'thermostat.model' is readonly
}
