package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// canceled: canceled true
	// its handler: context canceled
	// expired: deadline_exceeded true
	// its handler has ended: true
	// limited: deadline_exceeded true
	// its handler: context canceled
	// the deadline of run is known there: true
	// the connection is connected
}
