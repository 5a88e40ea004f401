// Package netrontest is nodes in memory, with faults, for the tests of programs that
// use netron. It opens no sockets, and it works in virtual time: in a bubble of
// [testing/synctest] a peer that fell silent is noticed after a minute, and the test
// takes a millisecond.
//
// [NewPair] is two connected nodes, [NewCluster] any number that can dial each
// other, and [Network] what both are made of: hosts by name, and a [Link] between
// each two of them, which can be cut, stalled, delayed, throttled and closed for
// dials.
//
//	func TestClientSurvivesSilence(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			pair := netrontest.NewPair(t)
//			if err := pair.Server.Expose("calculator@1.0.0", Calculator{}); err != nil {
//				t.Fatal(err)
//			}
//			calc, err := netron.Query[CalculatorClient](t.Context(), pair.ToServer, "calculator")
//			if err != nil {
//				t.Fatal(err)
//			}
//
//			pair.Delay(50 * time.Millisecond)
//			start := time.Now()
//			sum, err := calc.Add(t.Context(), 5, 3)
//			if err != nil || sum != 8 || time.Since(start) != 100*time.Millisecond {
//				t.Errorf("Add(5, 3) = %v, %v after %v, want 8 after 100ms", sum, err, time.Since(start))
//			}
//
//			pair.Stall() // nothing arrives any more, and nobody is told
//			<-pair.ToServer.Done()
//			if d := time.Since(start); d > 90*time.Second {
//				t.Errorf("silence was noticed after %v", d)
//			}
//
//			pair.Resume()
//			peer, err := pair.Client.Dial(t.Context(), pair.Server.Addr())
//			if err != nil {
//				t.Fatal(err)
//			}
//			calc, err = netron.Query[CalculatorClient](t.Context(), peer, "calculator")
//			if err != nil {
//				t.Fatal(err)
//			}
//			if sum, err = calc.Add(t.Context(), 2, 3); err != nil || sum != 5 {
//				t.Errorf("Add(2, 3) = %v, %v, want 5", sum, err)
//			}
//		})
//	}
//
//	type Calculator struct{}
//
//	func (Calculator) Add(_ context.Context, a, b float64) (float64, error) { return a + b, nil }
//
//	type CalculatorClient struct {
//		Add func(ctx context.Context, a, b float64) (float64, error)
//	}
//
// # Bubbles
//
// Inside a bubble, time passes only while all goroutines of the test wait, and what
// takes no time takes none: on a link without delay a call is over at the moment it
// began. Call NewPair and NewCluster, and make a Network, inside the bubble, with the
// t that synctest.Test passes. Nodes are closed by t.Cleanup, which runs before the
// bubble ends, so that a goroutine left over is the test's own. Outside of bubbles
// all is the same in real time.
//
// Handlers that block must do so on what their bubble knows: channels, timers and
// contexts, and not on sockets or locks held elsewhere.
//
// # Faults
//
// Except for [Link.Cut], which acts on the connections of that moment, faults are
// states of a link: a connection that is made later has them too, and they last until
// they are taken back. Those of a [Network] hold for all its links.
//
// # Concurrency
//
// All methods are safe for concurrent use. The constructors, [Network.Start] and
// [Node.Restart] end the test when something goes wrong, so they belong on its
// goroutine.
package netrontest
