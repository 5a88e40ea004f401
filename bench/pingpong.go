package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// pingPongBytes is the size of a ping: that of a small call on the wire.
const pingPongBytes = 56

// EchoTCP answers each ping on the connections of ln until ln is closed. It is
// the other side of [PingPong].
func EchoTCP(ln net.Listener) error {
	return serveTCP(ln, func(c net.Conn) {
		buf := make([]byte, pingPongBytes)
		for {
			if _, err := io.ReadFull(c, buf); err != nil {
				return
			}
			if _, err := c.Write(buf); err != nil {
				return
			}
		}
	})
}

// serveTCP calls serve for each connection of ln, which is then closed, until ln is closed, and waits for
// all of them.
func serveTCP(ln net.Listener, serve func(c net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("bench: accept: %w", err)
		}
		wg.Go(func() {
			defer c.Close()
			serve(c)
		})
	}
}

// PingPong measures round trips over a plain TCP connection, one at a time: what
// the machine allows, for comparison.
func PingPong(ctx context.Context, addr string, d time.Duration) (*Result, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("bench: ping-pong: %w", err)
	}
	defer c.Close()
	h := newHistogram()
	buf := make([]byte, pingPongBytes)
	start := time.Now()
	for begin := start; begin.Sub(start) < d && ctx.Err() == nil; {
		if _, err := c.Write(buf); err != nil {
			return nil, fmt.Errorf("bench: ping-pong: %w", err)
		}
		if _, err := io.ReadFull(c, buf); err != nil {
			return nil, fmt.Errorf("bench: ping-pong: %w", err)
		}
		end := time.Now()
		_ = h.RecordValue(min(int64(end.Sub(begin)), maxTracked)) // within range
		begin = end
	}
	return &Result{
		Workload: "ping-pong",
		Conns:    1,
		Inflight: 1,
		Payload:  pingPongBytes,
		OpsPerS:  float64(h.TotalCount()) / d.Seconds(),
		P50us:    float64(h.ValueAtQuantile(50)) / 1e3,
		P99us:    float64(h.ValueAtQuantile(99)) / 1e3,
		P999us:   float64(h.ValueAtQuantile(99.9)) / 1e3,
	}, nil
}
