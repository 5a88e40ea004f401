package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// SinkTCP reads what comes over the connections of ln until ln is closed, and drops it. The
// first octet of a connection says how much to read at a time, in units of 4 KiB; when all has
// come it sends one back. It is the other side of the copies that [Stream] compares with.
func SinkTCP(ln net.Listener) error {
	return serveTCP(ln, func(c net.Conn) {
		var unit [1]byte
		if _, err := io.ReadFull(c, unit[:]); err != nil {
			return
		}
		buf := make([]byte, max(int(unit[0]), 1)<<12)
		for {
			if _, err := c.Read(buf); err != nil {
				break
			}
		}
		_, _ = c.Write(unit[:]) // whoever waits for it knows by the end, too
	})
}

// copies are copies over plain TCP with several sizes of writes and reads.
type copies struct {
	bytes   map[[2]int]int // by the sizes of writes and reads
	elapsed map[[2]int]time.Duration
}

// run copies for about d.
func (c *copies) run(ctx context.Context, addr string, d time.Duration) error {
	writes, reads := []int{32 << 10, 60 << 10, 64 << 10, 256 << 10}, []int{64 << 10, 256 << 10}
	d /= time.Duration(len(writes) * len(reads))
	if c.bytes == nil {
		c.bytes, c.elapsed = make(map[[2]int]int), make(map[[2]int]time.Duration)
	}
	for _, write := range writes {
		for _, read := range reads {
			n, elapsed, err := copyTCPFor(ctx, addr, write, read, d)
			if err != nil {
				return err
			}
			c.bytes[[2]int{write, read}] += n
			c.elapsed[[2]int{write, read}] += elapsed
		}
	}
	return nil
}

// fastest returns the rate of the sizes that were fastest, in bytes per second.
func (c *copies) fastest() (best float64) {
	for sizes, n := range c.bytes {
		best = max(best, float64(n)/c.elapsed[sizes].Seconds())
	}
	return best
}

func copyTCPFor(ctx context.Context, addr string, write, read int, d time.Duration) (n int, elapsed time.Duration, err error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, 0, fmt.Errorf("bench: copy: %w", err)
	}
	defer c.Close()
	if _, err := c.Write([]byte{byte(min(read>>12, 255))}); err != nil {
		return 0, 0, fmt.Errorf("bench: copy: %w", err)
	}
	buf, start := make([]byte, write), time.Now()
	for time.Since(start) < d {
		m, err := c.Write(buf)
		if err != nil {
			return 0, 0, fmt.Errorf("bench: copy: %w", err)
		}
		n += m
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil { //nolint:forcetypeassert // it was dialled
		return 0, 0, fmt.Errorf("bench: copy: %w", err)
	}
	if _, err := io.ReadFull(c, buf[:1]); err != nil {
		return 0, 0, fmt.Errorf("bench: copy: %w", err)
	}
	return n, time.Since(start), nil
}
