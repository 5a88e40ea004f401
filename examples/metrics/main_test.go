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
	// /metrics 200 OK
	// netron_calls_total{service="divider@1.0.0",method="divide",status="invalid_argument"} 1
	// netron_calls_total{service="divider@1.0.0",method="divide",status="ok"} 2
	// /ready 200 OK
	// /ready 503 Service Unavailable
	// shutting down
}
