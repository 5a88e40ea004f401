package balance_test

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSavedRetries checks that repeated calls may be as many as a fifth of those of the last ten
// seconds, however often some were repeated meanwhile.
func TestSavedRetries(t *testing.T) {
	for _, pause := range []time.Duration{50 * time.Millisecond, 10 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, "a")
			c, k := w.client()
			for i := range 8_000 { // in 40 s
				if _, err := k.Work(t.Context(), i); err != nil {
					t.Fatal(err)
				}
				time.Sleep(5 * time.Millisecond)
				if i%int(pause/(5*time.Millisecond)) == 0 {
					c.MayRepeat()
				}
			}
			n := 0
			for c.MayRepeat() {
				n++
			}
			if n < 340 || n > 420 {
				t.Errorf("%d calls may be repeated, want about 400", n)
			}
		})
	}
}
