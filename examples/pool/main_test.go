package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// 100 calls
	// over client
	// over client#2
	// over client#3
	// over client#4
}
