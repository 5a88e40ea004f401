package balance_test

import (
	"testing"

	"github.com/panjf2000/ants/v2"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	ants.Release() // the package's own default pool, which nothing here uses
	goleak.VerifyTestMain(m)
}
