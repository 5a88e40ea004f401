package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// [power sum]
	// 3 squared: 9
	// 1 + 2 + 4 + ... + 128: 255
	// 1 + 2.5 + 4: 7.5
}
