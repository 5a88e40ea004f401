// Package netron connects services over WebSocket: both ends of a connection
// expose services and call those of the other, with plain Go signatures.
//
// A [Node] exposes services and accepts or dials connections. A [Peer] is the
// other side of one. The exported methods of a Go value whose first parameter is
// a context are its API:
//
//	type Calculator struct{}
//
//	func (Calculator) Add(ctx context.Context, a, b float64) (float64, error) { return a + b, nil }
//
//	node, err := netron.New(netron.Config{Addr: "127.0.0.1:8080"})
//	err = node.Expose("calculator@1.0.0", Calculator{})
//	err = node.Serve(ctx) // until ctx ends
//
// A client is a struct of funcs with the same signatures:
//
//	type CalculatorClient struct {
//		Add func(ctx context.Context, a, b float64) (float64, error)
//	}
//
//	peer, err := node.Dial(ctx, "ws://127.0.0.1:8080")
//	calc, err := netron.Query[CalculatorClient](ctx, peer, "calculator@1.0.0")
//	sum, err := calc.Add(ctx, 5, 3)
//
// The wire is that of the TypeScript Netron: its Node.js and browser peers, of
// version 0.6 and current, connect unchanged.
//
// # Concurrency
//
// Everything is safe for concurrent use unless its comment says otherwise. Each
// request is served on a goroutine of its own, from a bounded pool; a slow one
// delays nobody. The context of a handler ends when the handler has
// returned, when its caller gives up, or with the connection.
//
// # Limits
//
// All limits are on by default, see [Config]. What a limit refuses is answered
// with an [Error] of code [ResourceExhausted] where there is somebody to answer.
package netron
