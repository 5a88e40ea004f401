package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// rate limit
	//   10: unavailable: the cellar is under water
	//   11: resource_exhausted: too many requests
	//   asked 10 times
	// cache and batch
	//   rain in Bergen and rain in Bergen
	//   asked 2 times
	// retry
	//   more rain
	//   asked 2 times
	// circuit breaker
	//   unavailable true
	//   asked 2 times
}
