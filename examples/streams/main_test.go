package main

import (
	"testing"

	"github.com/d-e-v-grid/netron/examples/internal/leaks"
)

func TestMain(m *testing.M) { leaks.TestMain(m) }

func Example() {
	main()
	// Output:
	// client: got {ACME 100}
	// client: got {OLD 100}
	// client: got {ACME 101}
	// market: nobody wants more prices
	// client: history of ACME has 250 prices
	// client: data_loss: the archive of OLD ends here
	// client: history of OLD has 250 prices
	// client: invalid_argument: 5000 days, at most 1000
	// client: stored 10000
	// client: is it the tape? true
	// client: buy 10: done
	// client: sell 5: done
}
