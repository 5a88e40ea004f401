package engine_test

import (
	"context"
	"fmt"
	"net"

	"github.com/d-e-v-grid/netron/engine"
)

// client prints what it receives and sends what is queued.
type client struct {
	queue [][]byte
	got   chan string
}

func (c *client) Message(_ bool, p []byte) { c.got <- string(p) } // copies p
func (c *client) ReadDone()                {}
func (c *client) Collect(dst [][]byte) [][]byte {
	dst = append(dst, c.queue...)
	c.queue = nil
	return dst
}
func (c *client) Closed(error) { close(c.got) }

func Example() {
	server := engine.NewServer(engine.Config{}, func(c *engine.Conn) { c.Start(engine.NewEcho(c)) })
	defer server.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go server.Serve(ln)

	conn, err := engine.Dial(context.Background(), ln.Addr().String(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	h := &client{got: make(chan string, 1)}
	h.queue = append(h.queue, conn.AppendFrame(nil, true, []byte("hello")))
	conn.Start(h) // looks for something to send, as Kick does
	fmt.Println(<-h.got)
	conn.CloseWith(engine.CloseNormal, "")
	<-conn.Done()
	fmt.Println(conn.Err())
	// Output:
	// hello
	// engine: closed here with code 1000
}
