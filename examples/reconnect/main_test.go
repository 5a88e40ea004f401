package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// answered by first
	// reconnecting
	// unavailable, sent: false, known: true
	// answered by second
	// connected to second
}
