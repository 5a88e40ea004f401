package netrontest_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/netrontest"
)

// once keeps the nodes from connecting anew what was lost.
var once = netrontest.Configure(func(cfg *netron.Config) { cfg.MaxReconnectAttempts = -1 })

// The test that the documentation of the package shows.
func TestClientSurvivesSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, once)
		if err := pair.Server.Expose("calculator@1.0.0", Calculator{}); err != nil {
			t.Fatal(err)
		}
		calc, err := netron.Query[CalculatorClient](t.Context(), pair.ToServer, "calculator")
		if err != nil {
			t.Fatal(err)
		}
		pair.Delay(50 * time.Millisecond)
		start := time.Now()
		sum, err := calc.Add(t.Context(), 5, 3)
		if err != nil || sum != 8 || time.Since(start) != 100*time.Millisecond {
			t.Errorf("Add(5, 3) = %v, %v after %v, want 8 after 100ms", sum, err, time.Since(start))
		}
		pair.Stall() // nothing arrives any more, and nobody is told
		<-pair.ToServer.Done()
		if d := time.Since(start); d > 90*time.Second {
			t.Errorf("silence was noticed after %v", d)
		}
		pair.Resume()
		peer, err := pair.Client.Dial(t.Context(), pair.Server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		calc, err = netron.Query[CalculatorClient](t.Context(), peer, "calculator")
		if err != nil {
			t.Fatal(err)
		}
		if sum, err = calc.Add(t.Context(), 2, 3); err != nil || sum != 5 {
			t.Errorf("Add(2, 3) = %v, %v, want 5", sum, err)
		}
	})
}

type Calculator struct{}

func (Calculator) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }

type CalculatorClient struct {
	Add func(ctx context.Context, a, b float64) (float64, error)
}

// The test that the README shows.
func TestSilenceIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t)
		if err := pair.Server.Expose("calculator@1.0.0", Calculator{}); err != nil {
			t.Fatal(err)
		}
		pair.Stall()
		start := time.Now()
		<-pair.ToClient.Done()
		if err, took := pair.ToClient.Err(), time.Since(start); took != time.Minute || err.Error() != "engine: peer is silent" {
			t.Errorf("the server noticed %v after %v, want what the README says", err, took)
		}
	})
}

// The test that the guide shows.
func TestOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pair := netrontest.NewPair(t, netrontest.Prepare(func(node *netron.Node) error {
			return node.Expose("calculator@1.0.0", Calculator{})
		}))
		calc, err := netron.Query[CalculatorClient](t.Context(), pair.ToServer, "calculator")
		if err != nil {
			t.Fatal(err)
		}
		pair.Cut()
		sum, err := calc.Add(netron.Idempotent(t.Context()), 5, 3) // over the next connection
		if err != nil || sum != 8 {
			t.Errorf("Add(5, 3) = %v, %v, want 8", sum, err)
		}
	})
}
