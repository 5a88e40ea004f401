// Package leaks lets the tests of the examples fail when a goroutine is left behind.
package leaks

import (
	"testing"

	"github.com/panjf2000/ants/v2"
	"go.uber.org/goleak"
)

// TestMain runs the tests of a package, then looks for goroutines that they left.
func TestMain(m *testing.M) {
	ants.Release() // the package's own default pool, which nothing here uses
	// Pollers live as long as the process.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/cloudwego/netpoll.(*defaultPoll).Wait"))
}
