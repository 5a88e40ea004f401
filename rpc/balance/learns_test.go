package balance_test

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/d-e-v-grid/netron/rpc"
	"github.com/d-e-v-grid/netron/rpc/balance"
)

// learner is a registry that does not know its instances from the beginning.
type learner struct {
	*registry
	ready atomic.Bool
	asked func() // by Err
}

func (l *learner) Ready() bool { return l.ready.Load() }

var errUnknown = errors.New("nobody to ask")

func (l *learner) Err() error {
	l.asked()
	if l.ready.Load() {
		return nil
	}
	return errUnknown
}

// learned says that it knows them now.
func (l *learner) learned() {
	l.ready.Store(true)
	l.change(func(now []balance.Instance) []balance.Instance { return now })
}

// TestLearns has calls wait for a resolver that does not know the instances yet, and only
// for that.
func TestLearns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, policy := range []balance.Policy{balance.LeastLoaded, balance.ByKey} {
			w := newWorld(t)
			w.start("a")
			l := &learner{registry: w.registry}
			c := w.idle(withPolicy(policy), func(c *balance.Config) { c.Resolver = l })
			l.asked = func() { c.Stats() } // it may use the client
			ctx := balance.WithKey(t.Context(), "k")
			began := time.Now()
			time.AfterFunc(time.Second, l.learned)
			if err := c.Call(ctx, "work", nil, 1); rpc.CodeOf(err) != rpc.Unavailable || time.Since(began) != time.Second {
				t.Errorf("%v: Call = %v after %v, want it to fail when nobody turns out to be there", policy, err, time.Since(began))
			}
			l.ready.Store(false)
			if err := c.Call(ctx, "work", nil, 1); !errors.Is(err, errUnknown) {
				t.Errorf("%v: Call = %v, want it to say what is wrong with the resolver", policy, err)
			}
			l.change(func(now []balance.Instance) []balance.Instance { return now })
			synctest.Wait()
			began = time.Now()
			time.AfterFunc(time.Second, func() {
				l.ready.Store(true)
				l.add(balance.Instance{Address: "a:1"})
			})
			if err := c.Call(ctx, "work", nil, 1); err != nil || time.Since(began) != time.Second {
				t.Errorf("%v: Call = %v after %v, want it to be answered when the instance is known", policy, err, time.Since(began))
			}
			began = time.Now()
			w.registry.remove("a:1")
			synctest.Wait()
			if err := c.Call(ctx, "work", nil, 1); rpc.CodeOf(err) != rpc.Unavailable || time.Since(began) != 0 {
				t.Errorf("%v: Call = %v after %v, want it to fail at once", policy, err, time.Since(began))
			}
			w.nodes["a"].Close()
			w.caller.Close()
		}
	})
}
