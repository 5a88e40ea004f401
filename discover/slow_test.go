package discover

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSlowStore has a store whose answers come later than the next heartbeat is due: nobody
// is suspect for that, who dies is gone, and nobody asks more often than otherwise.
func TestSlowStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Heartbeat: time.Second, TTL: 3 * time.Second, Reconcile: time.Hour}
		f := newFleetWith(t, 5, cfg)
		const late, while = 1250 * time.Millisecond, time.Minute // there, and back
		f.late.Store(int64(late))
		time.Sleep(2 * while) // what was asked before has its answer
		asked := f.stores[0].asked.Load()
		for range while / time.Second {
			time.Sleep(time.Second)
			f.wantComplete("with a slow store")
		}
		if n := f.stores[0].asked.Load() - asked; n > 2*int64(while/time.Second) {
			t.Errorf("%d questions in %v", n, while)
		}
		if age := f.all[0].Age(); age > 6*2*late { // a question, what is under way, and what is marked until then
			t.Errorf("Age() = %v", age)
		}
		if got, err := f.all[1].Fresh(t.Context(), "s"); err != nil || len(got) != len(f.all) {
			t.Errorf("Fresh() = %v, %v", got, err)
		}
		f.wantLeft("with a slow store")

		first := f.all[0]
		f.all = f.all[1:]
		kill(first)
		time.Sleep(cfg.TTL + cfg.grace() + 5*2*late) // one after another: what is under way, and readings that find it missing, twice
		f.wantComplete("after a death")
		f.wantLeft("after a death", "n00")
	})
}
