package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// sent: 7000000 bytes
	// stored: backup/data.bin, 7000000 bytes, SHA-256 f6bb782b3c4f
	// the copy is the same: true
	// no way out: invalid_argument
	// line 0
	// line 1
	// line 2
}
