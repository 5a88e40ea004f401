//go:build !unix

package engine

import "net"

// tryWriter writes to a socket without blocking. There is none here.
type tryWriter interface {
	tryWrite(bufs [][]byte) (n int, again bool, err error)
	waitWrite(bufs [][]byte) (n int, err error)
}

func newTryWriter(net.Conn) tryWriter { return nil }
