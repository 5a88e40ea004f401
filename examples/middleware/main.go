// Command middleware wraps requests on both sides: the client gives each a number, which
// travels as a header, and the server logs what it serves, refuses what is not allowed and
// says which node has answered.
package main

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"
	"time"

	"github.com/d-e-v-grid/netron"
	"github.com/d-e-v-grid/netron/codec"
)

const requestID = "X-Request-Id"

// number is middleware of the side that asks.
func number() netron.Middleware {
	var last atomic.Int64 // what requests share belongs here, outside of what is called for each
	return func(next netron.Handler) netron.Handler {
		return func(ctx context.Context, r *netron.Request) (codec.Raw, error) {
			ctx = netron.WithHeader(ctx, requestID, fmt.Sprint("r", last.Add(1)))
			return next(ctx, r)
		}
	}
}

// observe is middleware of the side that serves. It sees what is asked, by whom, how it
// ended and how long it took.
func observe(next netron.Handler) netron.Handler {
	return func(ctx context.Context, r *netron.Request) (codec.Raw, error) {
		start := time.Now()
		result, err := next(ctx, r)
		quick := time.Since(start) < 10*time.Second // a real log says how long
		fmt.Printf("%s %s %s %s.%s: code %v, quick %t\n",
			netron.HeaderFrom(ctx).Get(requestID), r.Peer().ID(), r.Op(), r.Service(), r.Member(), netron.CodeOf(err), quick)
		return result, err
	}
}

// sign says in a header of the answer which node has served the request.
func sign(node string) netron.Middleware {
	return func(next netron.Handler) netron.Handler {
		return func(ctx context.Context, r *netron.Request) (codec.Raw, error) {
			if err := netron.SetHeader(ctx, "Served-By", node); err != nil {
				return nil, err
			}
			return next(ctx, r)
		}
	}
}

// readOnly answers in place of the handler.
func readOnly(netron.Handler) netron.Handler {
	return func(_ context.Context, r *netron.Request) (codec.Raw, error) {
		return nil, netron.Errorf(netron.PermissionDenied, "%s is switched off", r.Member())
	}
}

// Notes is the service.
type Notes struct{}

// Read returns a note.
func (Notes) Read(_ context.Context, id int) (string, error) { return fmt.Sprintf("note %d", id), nil }

// Delete is refused before it is called.
func (Notes) Delete(context.Context, int) error { return nil }

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	server, err := netron.New(netron.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		return err
	}
	defer server.Close()
	if err := server.Start(); err != nil {
		return err
	}
	if err := server.Expose("notes@1.0.0", Notes{},
		netron.Use(observe, sign("node-1")), // the first is the outermost
		netron.UseOn("Delete", readOnly),    // inside of those of the service
	); err != nil {
		return err
	}
	// server.Use would be for all that the node serves.

	client, err := netron.New(netron.Config{ID: "client"})
	if err != nil {
		return err
	}
	defer client.Close()
	client.UseOutgoing(number()) // peer.Use is for one peer
	peer, err := client.Dial(ctx, server.Addr())
	if err != nil {
		return err
	}
	notes, err := peer.Service(ctx, "notes") // is a request too: r1
	if err != nil {
		return err
	}
	var header netron.Header
	var note string
	if err := notes.Call(netron.WithAnswerHeader(ctx, &header), "read", &note, 7); err != nil {
		return err
	}
	fmt.Println(note, "served by", header.Get("Served-By"))
	fmt.Println(notes.Call(ctx, "delete", nil, 7))
	return nil
}
