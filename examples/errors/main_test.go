package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// book: book is on its way
	// "unicorn": code not_found (404), message "no item \"unicorn\""
	// "lamp": code failed_precondition (412), message "out of stock", details map[item:lamp], left 1
	// "": code unknown (0), message "the item has no name"
	// "bomb": code internal (500), message "internal error"
	// snail: deadline_exceeded true
	// nothing: not_found
}
