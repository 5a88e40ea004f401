package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// invalid_argument: division by zero
	// netron_calls_total{service="divider@1.0.0",method="divide",status="invalid_argument"} 1
	// netron_calls_total{service="divider@1.0.0",method="divide",status="ok"} 2
}
