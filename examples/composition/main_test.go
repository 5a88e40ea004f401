package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// {Customer:Ann PaymentID:u1-1250}
	// not_found: no user "u2" / true
}
