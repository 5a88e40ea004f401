//go:build !unix

package engine

import "net"

// newSource returns the way to read from nc.
func newSource(nc net.Conn) source { return plainSource{nc} }
