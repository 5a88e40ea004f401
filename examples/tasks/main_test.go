package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// once more: already_exists
	// good morning, for client
	// GOOD NIGHT!, for client
	// deadline_exceeded true
	// not_found
}
