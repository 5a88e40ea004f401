package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// a note for ann
	// delete: done
	// a note for bob
	// delete: permission_denied: not allowed
	// with a wrong token: true
	// before the login: unauthenticated
	// unauthenticated: invalid credentials
	// logged in as bob
	// a note for bob
	// delete: permission_denied: not allowed
}
