package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// r2 client call notes@1.0.0.read: code ok, quick true
	// note 7 served by node-1
	// r3 client call notes@1.0.0.delete: code permission_denied, quick true
	// permission_denied: delete is switched off
}
